"""The methods paragraph of the cohort."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from theraflow.cohort.methods_text import write_methods
    from theraflow.layout import Scan

    params = snakemake.params
    scans = {patient: [Scan(**row) for row in rows] for patient, rows in params.scans.items()}
    output = snakemake.output
    write_methods(params.results, scans, params.settings, params.cycles, params.missing, *output)
