"""Which patients meet the configured criteria of the therapy."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from theraflow.cohort.clinical import judge_eligibility
    from theraflow.layout import PatientFolder

    folders = [PatientFolder(snakemake.params.results, patient) for patient in snakemake.params.patients]
    judge_eligibility(
        folders,
        snakemake.params.criteria,
        snakemake.output.table,
        snakemake.input.patients or None,
        snakemake.input.toxicity or None,
    )
