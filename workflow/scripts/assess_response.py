"""Response of one patient between the time points."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads, snakemake.params.needs):
    from theraflow.layout import PatientFolder, Scan
    from theraflow.response import assess_response

    folder = PatientFolder(snakemake.params.results, snakemake.wildcards.patient)
    assess_response(folder, [Scan(**row) for row in snakemake.params.scans], snakemake.params.settings)
