# From activity to absorbed dose: measured nuclide, predicted therapy nuclide, cycles, dose map.

DENSITIES = (
    RESOURCES / "tissue_densities.csv",
    RESOURCES / "organ_reference_masses.csv",
)
KERNELS = tuple(sorted((RESOURCES / "kernels").glob("*.tsv")))
MARROW = RESOURCES / "marrow_reference.csv"
# Tables of the user; those of the repository count as code.
S_VALUES = list(filter(None, [config["dosimetry"]["s_values"]]))
RECOVERY = list(filter(None, [config["dosimetry"]["recovery"]]))


# Planar views: what each region counts in them, by its masks and the CT of another scan of the patient.
rule measure_planar:
    input:
        planar=get_planar_images,
        lesions=f"{PATIENT}/lesions/lesions.tsv",
    output:
        table=f"{PATIENT}/dosimetry/planar.tsv",
    log:
        f"{LOGS}/{{patient}}/measure_planar.log",
    benchmark:
        f"{LOGS}/{{patient}}/measure_planar.benchmark.tsv"
    priority: 4
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(2000),
    params:
        scans=get_all_scan_rows,
        settings=config["dosimetry"],
        results=get_results,
        needs=get_needed,
        code=code_digest(
            "theraflow.dosimetry.activity.planar",
            RESOURCES / "attenuation_coefficients.csv",
        ),
    script:
        "../scripts/measure_planar.py"


rule activity:
    input:
        planar=get_planar_table,
        lesions=f"{PATIENT}/lesions/lesions.tsv",
        recovery=RECOVERY,
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
        mem_mb=memory(2000),
    params:
        scans=get_all_scan_rows,
        settings=config["dosimetry"],
        blood=get_blood,
        results=get_results,
        needs=get_needed,
        code=code_digest("theraflow.dosimetry.activity", *DENSITIES, MARROW),
    script:
        "../scripts/measure_activity.py"


rule doses:
    input:
        curves=f"{PATIENT}/dosimetry/curves.tsv",
        s_values=S_VALUES,
        recovery=RECOVERY,
    output:
        doses=f"{PATIENT}/dosimetry/doses.tsv",
        administrations=f"{PATIENT}/dosimetry/administrations.tsv",
        uncertainty=f"{PATIENT}/dosimetry/uncertainty.tsv",
        fitted=f"{PATIENT}/dosimetry/fitted.tsv",
        cycles=f"{PATIENT}/dosimetry/cycles.tsv",
    log:
        f"{LOGS}/{{patient}}/doses.log",
    benchmark:
        f"{LOGS}/{{patient}}/doses.benchmark.tsv"
    priority: 5
    conda:
        "../../environment.yml"
    params:
        scans=get_all_scan_rows,
        settings=config["dosimetry"],
        therapy_nuclide=get_therapy_nuclide,
        cycles=get_cycles,
        results=get_results,
        needs=get_needed,
        code=code_digest(
            "theraflow.dosimetry.doses",
            *KERNELS,
            *DENSITIES,
            MARROW,
            RESOURCES / "population_kinetics.csv",
        ),
    script:
        "../scripts/compute_doses.py"


rule plan:
    input:
        doses=f"{PATIENT}/dosimetry/doses.tsv",
    output:
        course=f"{PATIENT}/dosimetry/course.tsv",
        plan=f"{PATIENT}/dosimetry/plan.tsv",
        summary=f"{PATIENT}/dosimetry/plan.json",
    log:
        f"{LOGS}/{{patient}}/plan.log",
    benchmark:
        f"{LOGS}/{{patient}}/plan.benchmark.tsv"
    priority: 5
    conda:
        "../../environment.yml"
    params:
        settings={
            key: config["dosimetry"].get(key)
            for key in (
                "organs",
                "radiobiology",
                "limits",
                "planned_cycles",
                "tumour_dose_gy",
            )
        },
        therapy_nuclide=get_therapy_nuclide,
        cycles=get_cycles,
        results=get_results,
        code=code_digest("theraflow.dosimetry.planning"),
    script:
        "../scripts/plan_therapy.py"


# Beside its outputs stands the map of the measured nuclide, whose name only the DICOM files know.
rule dose_map:
    input:
        doses=f"{PATIENT}/dosimetry/doses.tsv",
    output:
        image=f"{PATIENT}/dosimetry/dose_gy_per_gbq.nii.gz",
        sidecar=f"{PATIENT}/dosimetry/dose_gy_per_gbq.json",
        dvh=f"{PATIENT}/dosimetry/dvh.tsv",
        regions=f"{PATIENT}/dosimetry/map_doses.tsv",
    log:
        f"{LOGS}/{{patient}}/dose_map.log",
    benchmark:
        f"{LOGS}/{{patient}}/dose_map.benchmark.tsv"
    priority: 5
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        scans=get_scan_rows,
        settings=config["dosimetry"],
        therapy_nuclide=get_therapy_nuclide,
        results=get_results,
        needs=get_needed,
        code=code_digest(
            "theraflow.dosimetry.maps",
            *KERNELS,
            *DENSITIES,
            RESOURCES / "ct_densities.csv",
        ),
    script:
        "../scripts/map_dose.py"
