# What other systems read: DICOM SEG, SR, RTDOSE and pictures of a patient, in the original studies.


rule dicom_objects:
    input:
        lesions=f"{PATIENT}/lesions/lesions.tsv",
        dose=get_dose_map,
    output:
        objects=directory(f"{PATIENT}/dicom"),
    log:
        f"{LOGS}/{{patient}}/dicom_objects.log",
    benchmark:
        f"{LOGS}/{{patient}}/dicom_objects.benchmark.tsv"
    priority: 6
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(3000),
    params:
        scans=get_scan_rows,
        organs=lambda wildcards: [
            scan.scan for scan in SCANS[wildcards.patient] if has_organs(scan)
        ],
        dose_map=lambda wildcards: has_dose_map(wildcards.patient),
        tracers=config["tracers"],
        identity=config["dicom_objects"]["identity"],
        results=get_results,
        needs=get_needed,
        code=code_digest("theraflow.objects", RESOURCES / "anatomy_codes.tsv"),
    script:
        "../scripts/write_dicom_objects.py"
