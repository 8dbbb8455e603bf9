# DICOM to NIfTI: CT in HU, PET in SUVbw, SPECT in Bq/mL at acquisition; a JSON sidecar beside each, and a table of all
# series of the folder with the reason why one was taken.


rule import_ct:
    input:
        require_scan,
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
        mem_mb=memory(500),
    params:
        scan=get_scan_row,
        code=code_digest("theraflow.dicom"),
    script:
        "../scripts/import_ct.py"


rule import_emission:
    input:
        require_scan,
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
        mem_mb=memory(500),
    params:
        scan=get_scan_row,
        tracer=get_tracer,
        code=code_digest("theraflow.dicom"),
    script:
        "../scripts/import_emission.py"


# On request, by name: results/P002/scans/fdg/pet_LBMJANMA.nii.gz
rule normalise_pet:
    input:
        image=f"{SCAN}/pet.nii.gz",
        sidecar=f"{SCAN}/pet.json",
    output:
        image=f"{SCAN}/pet_{{suv_type}}.nii.gz",
        sidecar=f"{SCAN}/pet_{{suv_type}}.json",
    log:
        f"{LOGS}/{{patient}}/{{scan}}.normalise_pet_{{suv_type}}.log",
    benchmark:
        f"{LOGS}/{{patient}}/{{scan}}.normalise_pet_{{suv_type}}.benchmark.tsv"
    wildcard_constraints:
        suv_type="LBM|LBMJAMES128|LBMJANMA|IBW|BSA",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(2000),
    params:
        code=code_digest("theraflow.dicom"),
    script:
        "../scripts/normalise_pet.py"


# For dosimetry, of scans that have planar views alone; of others on request, by name:
# results/P002/scans/wholebody24h/planar.nii.gz
rule import_planar:
    input:
        require_scan,
    output:
        image=f"{SCAN}/planar.nii.gz",
        sidecar=f"{SCAN}/planar.json",
    log:
        f"{LOGS}/{{patient}}/{{scan}}.import_planar.log",
    benchmark:
        f"{LOGS}/{{patient}}/{{scan}}.import_planar.benchmark.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(500),
    params:
        scan=get_scan_row,
        tracer=get_tracer,
        code=code_digest("theraflow.dicom"),
    script:
        "../scripts/import_planar.py"
