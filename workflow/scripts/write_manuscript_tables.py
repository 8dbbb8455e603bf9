"""Tables 1 to 3 of the cohort as documents for a manuscript."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from pathlib import Path

    from theraflow.cohort.manuscript import write_manuscript_tables
    from theraflow.layout import PatientFolder

    params, sheets = snakemake.params, snakemake.input
    folders = [PatientFolder(params.results, patient) for patient in params.patients]
    cohort = Path(snakemake.output[0]).parent
    write_manuscript_tables(
        folders,
        cohort,
        snakemake.output[0],
        params.tracers,
        params.cycles,
        sheets.patients or None,
        sheets.toxicity or None,
    )
