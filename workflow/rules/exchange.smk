# Results for other programs: the cohort's tables as Parquet; on request (`bids: true`) a BIDS derivatives dataset.


# Known from the configuration alone.
PARQUET = [Path(table).with_suffix(".parquet") for table in get_cohort_tables(None)]


rule parquet:
    input:
        get_cohort_tables,
    output:
        PARQUET,
    log:
        f"{LOGS}/cohort/parquet.log",
    benchmark:
        f"{LOGS}/cohort/parquet.benchmark.tsv"
    conda:
        "../../environment.yml"
    params:
        columns=f"{COHORT}/columns.tsv",
        code=code_digest("theraflow.exchange.parquet"),
    script:
        "../scripts/write_parquet.py"


# A patient's report is made of all that goes into the dataset, and so stands for it.
rule bids:
    input:
        reports=get_reports,
        patients=config.get("patients", []),
    output:
        directory(f"{RESULTS}/bids"),
    log:
        f"{LOGS}/cohort/bids.log",
    benchmark:
        f"{LOGS}/cohort/bids.benchmark.tsv"
    conda:
        "../../environment.yml"
    resources:
        runtime=minutes(120),
    params:
        scans=lambda wildcards: {
            patient: [row_of(scan) for scan in SHEET[patient]] for patient in INCLUDED
        },
        results=get_results,
        code=code_digest("theraflow.exchange.bids"),
    script:
        "../scripts/write_bids.py"
