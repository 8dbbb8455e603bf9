"""The essentials of the report of one patient, for paper."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads, snakemake.params.needs):
    from theraflow.layout import PatientFolder, Scan
    from theraflow.report import write_patient_document

    folder = PatientFolder(snakemake.params.results, snakemake.wildcards.patient)
    scans = [Scan(**row) for row in snakemake.params.scans]
    write_patient_document(folder, scans, snakemake.params.settings, snakemake.output[0])
