# From activity to absorbed dose: measured nuclide, predicted therapy nuclide, cycles, dose map.

DENSITIES = RESOURCES / "tissue_densities.csv"
S_VALUES = [
    RESOURCES / "sphere_s_177Lu.csv",
    RESOURCES / "point_kernel_90Y.csv",
    DENSITIES,
]


rule activity:
    input:
        images=get_patient_images,
        organs=get_patient_organs,
        alignments=get_patient_alignments,
        lesions=f"{PATIENT}/lesions/lesions.tsv",
        densities=DENSITIES,
    output:
        curves=f"{PATIENT}/dosimetry/curves.tsv",
    log:
        f"{LOGS}/{{patient}}/activity.log",
    benchmark:
        f"{LOGS}/{{patient}}/activity.benchmark.tsv"
    priority: 4
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
    params:
        scans=get_scan_rows,
        settings=config["dosimetry"],
        results=get_results,
        code=code_digest("theraflow.dosimetry"),
    script:
        "../scripts/measure_activity.py"


rule doses:
    input:
        curves=f"{PATIENT}/dosimetry/curves.tsv",
        images=get_patient_images,
        s_values=S_VALUES,
    output:
        doses=f"{PATIENT}/dosimetry/doses.tsv",
        cycles=f"{PATIENT}/dosimetry/cycles.tsv",
    log:
        f"{LOGS}/{{patient}}/doses.log",
    benchmark:
        f"{LOGS}/{{patient}}/doses.benchmark.tsv"
    priority: 5
    conda:
        "../../environment.yml"
    params:
        scans=get_scan_rows,
        settings=config["dosimetry"],
        therapy_nuclide=get_therapy_nuclide,
        cycles=lambda wildcards: [
            row for row in CYCLES if row["patient"] == wildcards.patient
        ],
        results=get_results,
        code=code_digest("theraflow.dosimetry"),
    script:
        "../scripts/compute_doses.py"


rule dose_map:
    input:
        doses=f"{PATIENT}/dosimetry/doses.tsv",
        densities=DENSITIES,
        images=get_patient_images,
        organs=get_patient_organs,
        alignments=get_patient_alignments,
    output:
        image=f"{PATIENT}/dosimetry/dose_gy_per_gbq.nii.gz",
        sidecar=f"{PATIENT}/dosimetry/dose_gy_per_gbq.json",
        dvh=f"{PATIENT}/dosimetry/dvh.tsv",
    log:
        f"{LOGS}/{{patient}}/dose_map.log",
    benchmark:
        f"{LOGS}/{{patient}}/dose_map.benchmark.tsv"
    priority: 5
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
    params:
        scans=get_scan_rows,
        settings=config["dosimetry"],
        therapy_nuclide=get_therapy_nuclide,
        results=get_results,
        code=code_digest("theraflow.dosimetry"),
    script:
        "../scripts/map_dose.py"
