"""Immunoreactive scores of the cohort."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from theraflow.cohort.clinical import score_expression_sheet

    score_expression_sheet(snakemake.input.sheet, snakemake.params.schema, snakemake.output.table)
