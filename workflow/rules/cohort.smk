# All patients together: tables, tests, figures and the cohort report.


rule summarise_cohort:
    input:
        tables=lambda wildcards: [
            table for patient in INCLUDED for table in get_patient_tables(patient)
        ],
        patients=config.get("patients", []),
    output:
        **{
            table: f"{COHORT}/{table}.tsv"
            for table in (
                "lesions",
                "doses",
                "response",
                "statistics",
                "detection",
                "survival",
            )
        },
        figures=directory(f"{COHORT}/figures"),
    log:
        f"{LOGS}/cohort/summary.log",
    benchmark:
        f"{LOGS}/cohort/summary.benchmark.tsv"
    priority: 8
    conda:
        "../../environment.yml"
    params:
        patients=INCLUDED,
        settings={"tracers": config["tracers"]},
        results=get_results,
        code=code_digest("theraflow.cohort"),
    script:
        "../scripts/summarise_cohort.py"


rule cohort_report:
    input:
        rules.summarise_cohort.output,
        reports=get_reports,
    output:
        report(
            f"{COHORT}/report.html", caption="../report/cohort.rst", category="Cohort"
        ),
    log:
        f"{LOGS}/cohort/report.log",
    benchmark:
        f"{LOGS}/cohort/report.benchmark.tsv"
    priority: 9
    conda:
        "../../environment.yml"
    params:
        patients=INCLUDED,
        missing=MISSING,
        results=get_results,
        code=code_digest("theraflow.report"),
    script:
        "../scripts/report_cohort.py"
