"""CTCAE grades of the cohort."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from theraflow.cohort.clinical import grade_toxicity_sheet

    grade_toxicity_sheet(
        snakemake.input.sheet, snakemake.params.schema, snakemake.output.grades, snakemake.output.worst
    )
