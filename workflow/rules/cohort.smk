# All patients together: tables, tests, figures and the cohort report.


rule summarise_cohort:
    input:
        patients_results=get_all_last_results,
        patients=config.get("patients", []),
        expression=f"{COHORT}/expression.tsv" if "expression" in config else [],
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
                "pairs",
                "survival_times",
                "survival_curves",
                "columns",
            )
        },
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
        cycles=CYCLES,
        results=get_results,
        needs=get_needed_tables,
        code=code_digest("theraflow.cohort"),
    script:
        "../scripts/summarise_cohort.py"


rule cohort_report:
    input:
        rules.summarise_cohort.output,
        reports=get_reports,
        documents=get_documents,
        figures=f"{COHORT}/figures",
        methods=f"{COHORT}/methods.txt",
        parquet=lambda wildcards: PARQUET,
    output:
        report(
            f"{COHORT}/report.html",
            caption="../report/cohort.rst",
            category="Cohort",
            labels={"what": "all patients", "form": "HTML"},
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


# The first study recomputed from its printed tables: needs no scan.

STUDY = sorted(map(str, (RESOURCES / "dsrct2023").glob("*.tsv")))


rule paper:
    input:
        f"{RESULTS}/paper/reproduction.tsv",
        f"{RESULTS}/paper/tables.xlsx",


rule reproduce_paper:
    input:
        STUDY,
    output:
        table=f"{RESULTS}/paper/reproduction.tsv",
    log:
        f"{LOGS}/paper/reproduction.log",
    benchmark:
        f"{LOGS}/paper/reproduction.benchmark.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("theraflow.cohort.reproduction"),
    script:
        "../scripts/reproduce_paper.py"


rule paper_tables:
    input:
        STUDY,
    output:
        workbook=f"{RESULTS}/paper/tables.xlsx",
        tables=expand(f"{RESULTS}/paper/table_{{number}}.tsv", number=(1, 2, 3)),
    log:
        f"{LOGS}/paper/tables.log",
    benchmark:
        f"{LOGS}/paper/tables.benchmark.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("theraflow.cohort.reproduction"),
    script:
        "../scripts/write_paper_tables.py"


# The clinical sheets of the user's own cohort, where the configuration names them.


rule score_expression:
    input:
        sheet=config.get("expression", []),
    output:
        table=f"{COHORT}/expression.tsv",
    log:
        f"{LOGS}/cohort/expression.log",
    benchmark:
        f"{LOGS}/cohort/expression.benchmark.tsv"
    conda:
        "../../environment.yml"
    params:
        schema=read_schema("expression"),
        code=code_digest("theraflow.cohort.clinical"),
    script:
        "../scripts/score_expression.py"


rule grade_toxicity:
    input:
        sheet=config.get("toxicity", []),
        limits=str(RESOURCES / "ctcae_v5_laboratory.tsv"),
    output:
        grades=f"{COHORT}/toxicity.tsv",
        worst=f"{COHORT}/toxicity_worst.tsv",
    log:
        f"{LOGS}/cohort/toxicity.log",
    benchmark:
        f"{LOGS}/cohort/toxicity.benchmark.tsv"
    conda:
        "../../environment.yml"
    params:
        schema=read_schema("toxicity"),
        code=code_digest("theraflow.cohort.clinical"),
    script:
        "../scripts/grade_toxicity.py"


rule judge_eligibility:
    input:
        patients_results=get_all_last_results,
        patients=config.get("patients", []),
        toxicity=f"{COHORT}/toxicity.tsv" if "toxicity" in config else [],
    output:
        table=f"{COHORT}/eligibility.tsv",
    log:
        f"{LOGS}/cohort/eligibility.log",
    benchmark:
        f"{LOGS}/cohort/eligibility.benchmark.tsv"
    conda:
        "../../environment.yml"
    params:
        patients=INCLUDED,
        criteria=config.get("eligibility", {}),
        results=get_results,
        code=code_digest("theraflow.cohort.clinical"),
    script:
        "../scripts/judge_eligibility.py"


# What goes into a paper: figures of the cohort and of each patient, and the methods paragraph.


rule figures:
    input:
        rules.summarise_cohort.output,
    output:
        report(
            directory(f"{COHORT}/figures"),
            patterns=["{figure}.svg"],
            caption="../report/figures.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        f"{LOGS}/cohort/figures.log",
    benchmark:
        f"{LOGS}/cohort/figures.benchmark.tsv"
    conda:
        "../../environment.yml"
    params:
        scans=get_included_rows,
        settings={"tracers": config["tracers"]},
        cycles=CYCLES,
        events=EVENTS,
        results=get_results,
        code=code_digest("theraflow.cohort.figures"),
    script:
        "../scripts/draw_figures.py"


rule patient_panel:
    input:
        f"{PATIENT}/lesions/lesions.tsv",
    output:
        report(
            directory(f"{PATIENT}/figures"),
            patterns=["{figure}.svg"],
            caption="../report/figures.rst",
            category="Figures",
            labels={"figure": "{patient}"},
        ),
    log:
        f"{LOGS}/{{patient}}/panel.log",
    benchmark:
        f"{LOGS}/{{patient}}/panel.benchmark.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(2000),
    params:
        scans=get_scan_rows,
        settings={"tracers": config["tracers"]},
        results=get_results,
        needs=get_needed,
        code=code_digest("theraflow.report.panel"),
    script:
        "../scripts/draw_patient_panel.py"


rule manuscript_tables:
    input:
        rules.summarise_cohort.output,
        patients=config.get("patients", []),
        toxicity=f"{COHORT}/toxicity_worst.tsv" if "toxicity" in config else [],
    output:
        directory(f"{COHORT}/tables"),
    log:
        f"{LOGS}/cohort/manuscript_tables.log",
    benchmark:
        f"{LOGS}/cohort/manuscript_tables.benchmark.tsv"
    conda:
        "../../environment.yml"
    params:
        patients=INCLUDED,
        tracers={
            name: [
                patient
                for patient in INCLUDED
                if any(scan.tracer == name for scan in SCANS[patient])
            ]
            for name, tracer in config["tracers"].items()
            if tracer["quantity"] == "suv"
        },
        cycles=CYCLES,
        results=get_results,
        code=code_digest("theraflow.cohort.manuscript"),
    script:
        "../scripts/write_manuscript_tables.py"


rule panels:
    input:
        get_panels,


rule methods_text:
    input:
        rules.summarise_cohort.output,
    output:
        markdown=f"{COHORT}/methods.md",
        text=f"{COHORT}/methods.txt",
    log:
        f"{LOGS}/cohort/methods.log",
    benchmark:
        f"{LOGS}/cohort/methods.benchmark.tsv"
    conda:
        "../../environment.yml"
    params:
        scans=get_included_rows,
        settings={key: value for key, value in config.items() if key != "bids"},
        cycles=CYCLES,
        missing=len(MISSING),
        results=get_results,
        code=code_digest("theraflow.cohort.methods_text"),
    script:
        "../scripts/write_methods.py"
