# DICOM to NIfTI: CT in HU, PET in SUVbw, SPECT in Bq/mL at acquisition; a JSON sidecar beside each, and a table of all
# series of the folder with the reason why one was taken.


rule import_ct:
    output:
        image=f"{SCAN}/ct.nii.gz",
        sidecar=f"{SCAN}/ct.json",
    log:
        f"{LOGS}/{{patient}}/{{scan}}.import_ct.log",
    benchmark:
        f"{LOGS}/{{patient}}/{{scan}}.import_ct.benchmark.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=500,
    params:
        scan=get_scan_row,
        code=code_digest("theraflow.dicom"),
    script:
        "../scripts/import_ct.py"


rule import_emission:
    output:
        image=f"{SCAN}/{{emission}}.nii.gz",
        sidecar=f"{SCAN}/{{emission}}.json",
        series=f"{SCAN}/{{emission}}.series.tsv",
    log:
        f"{LOGS}/{{patient}}/{{scan}}.import_{{emission}}.log",
    benchmark:
        f"{LOGS}/{{patient}}/{{scan}}.import_{{emission}}.benchmark.tsv"
    wildcard_constraints:
        emission="pet|spect",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=500,
    params:
        scan=get_scan_row,
        tracer=get_tracer,
        code=code_digest("theraflow.dicom"),
    script:
        "../scripts/import_emission.py"
