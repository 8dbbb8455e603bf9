# The patient's report: one self-contained HTML file.


rule patient_report:
    input:
        tables=lambda wildcards: get_patient_tables(wildcards.patient),
        images=get_patient_images,
        organs=get_patient_organs,
        alignments=get_patient_alignments,
        transforms=get_patient_transforms,
        registrations=get_registration_pictures,
    output:
        report(
            f"{PATIENT}/report.html",
            caption="../report/patient.rst",
            category="Patients",
        ),
    log:
        f"{LOGS}/{{patient}}/report.log",
    benchmark:
        f"{LOGS}/{{patient}}/report.benchmark.tsv"
    priority: 7
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
    params:
        scans=get_scan_rows,
        settings={
            key: config[key]
            for key in ("tracers", "background", "lesions", "dosimetry", "response")
        },
        results=get_results,
        code=code_digest("theraflow.report"),
    script:
        "../scripts/report_patient.py"
