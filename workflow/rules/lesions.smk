# Lesions of a patient: found, measured on every scan's own grid, and one name through all scans.


rule lesions:
    input:
        images=get_patient_images,
        organs=get_patient_organs,
        alignments=get_patient_alignments,
        transforms=get_patient_transforms,
        annotations=get_annotations,
    output:
        table=f"{PATIENT}/lesions/lesions.tsv",
        candidates=f"{PATIENT}/lesions/candidates.tsv",
        labels=f"{PATIENT}/lesions/lesions.nii.gz",
        sidecar=f"{PATIENT}/lesions/lesions.json",
        maps=directory(f"{PATIENT}/lesions/scans"),
    log:
        f"{LOGS}/{{patient}}/lesions.log",
    benchmark:
        f"{LOGS}/{{patient}}/lesions.benchmark.tsv"
    priority: 3
    conda:
        "../../environment.yml"
    resources:
        mem_mb=3000,
    params:
        scans=get_scan_rows,
        reference=get_reference_row,
        settings={**config["lesions"], "background": config["background"]},
        results=get_results,
        code=code_digest("theraflow.lesions"),
    script:
        "../scripts/measure_lesions.py"
