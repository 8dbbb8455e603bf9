"""The cohort's tables and figures."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from pathlib import Path

    from theraflow.cohort import summarise_cohort
    from theraflow.layout import PatientFolder

    folders = [PatientFolder(snakemake.params.results, patient) for patient in snakemake.params.patients]
    output = Path(snakemake.output.lesions).parent
    summarise_cohort(folders, output, snakemake.params.settings, snakemake.input.patients or None)
