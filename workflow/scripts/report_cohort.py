"""The report of the cohort."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from pathlib import Path

    from theraflow.report import write_cohort_report

    params = snakemake.params
    cohort = Path(params.results) / "cohort"
    write_cohort_report(cohort, params.patients, list(params.missing.items()), snakemake.output[0])
