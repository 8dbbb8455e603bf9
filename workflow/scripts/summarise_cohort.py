"""The cohort's tables and figures."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads, snakemake.params.needs):
    from pathlib import Path

    from theraflow.cohort import summarise_cohort
    from theraflow.layout import PatientFolder

    params, sheets = snakemake.params, snakemake.input
    folders = [PatientFolder(params.results, patient) for patient in params.patients]
    output = Path(snakemake.output.lesions).parent
    summarise_cohort(
        folders, output, params.settings, sheets.patients or None, params.cycles, sheets.expression or None
    )
