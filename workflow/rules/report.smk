# The patient's report: one self-contained HTML file, and its essentials for paper.


rule patient_report:
    input:
        last=lambda wildcards: get_last_results(wildcards.patient),
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
        needs=get_needed_results,
        code=code_digest("theraflow.report"),
    script:
        "../scripts/report_patient.py"


rule patient_document:
    input:
        last=lambda wildcards: get_last_results(wildcards.patient),
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
        needs=get_needed_results,
        code=code_digest("theraflow.report"),
    script:
        "../scripts/report_patient_document.py"
