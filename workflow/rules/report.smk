# The patient's report: one self-contained HTML file, and its essentials for paper.


rule patient_report:
    input:
        tables=lambda wildcards: get_patient_tables(wildcards.patient),
        plan=get_plan,
        images=get_patient_images,
        planar=get_planar_images,
        organs=get_patient_organs,
        alignments=get_patient_alignments,
        transforms=get_patient_transforms,
        registrations=get_registration_pictures,
        viewer=ancient(rules.viewer.output.library),
    output:
        report(
            f"{PATIENT}/report.html",
            caption="../report/patient.rst",
            category="Patients",
            labels={"patient": "{patient}", "form": "HTML"},
        ),
    log:
        f"{LOGS}/{{patient}}/report.log",
    benchmark:
        f"{LOGS}/{{patient}}/report.benchmark.tsv"
    priority: 7
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(2000),
    params:
        scans=get_all_scan_rows,
        settings={
            key: config[key]
            for key in ("tracers", "background", "lesions", "dosimetry", "response")
        },
        results=get_results,
        code=code_digest("theraflow.report"),
    script:
        "../scripts/report_patient.py"


rule patient_document:
    input:
        tables=lambda wildcards: get_patient_tables(wildcards.patient),
        plan=get_plan,
        images=get_patient_images,
        planar=get_planar_images,
        organs=get_patient_organs,
        alignments=get_patient_alignments,
        transforms=get_patient_transforms,
    output:
        report(
            f"{PATIENT}/report.pdf",
            caption="../report/document.rst",
            category="Patients",
            labels={"patient": "{patient}", "form": "PDF"},
        ),
    log:
        f"{LOGS}/{{patient}}/document.log",
    benchmark:
        f"{LOGS}/{{patient}}/document.benchmark.tsv"
    priority: 7
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(2000),
    params:
        scans=get_all_scan_rows,
        settings={"tracers": config["tracers"]},
        results=get_results,
        code=code_digest("theraflow.report"),
    script:
        "../scripts/report_patient_document.py"
