"""The report of one patient."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads, snakemake.params.needs):
    from theraflow.layout import PatientFolder, Scan
    from theraflow.report import write_patient_report

    folder = PatientFolder(snakemake.params.results, snakemake.wildcards.patient)
    scans = [Scan(**row) for row in snakemake.params.scans]
    settings = snakemake.params.settings
    write_patient_report(folder, scans, settings, snakemake.input.viewer, snakemake.output[0])
