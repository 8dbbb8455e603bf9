"""The lesions of one patient on all scans."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads, snakemake.params.needs):
    from theraflow.layout import PatientFolder, Scan
    from theraflow.lesions import Decision, measure_lesions

    folder = PatientFolder(snakemake.params.results, snakemake.wildcards.patient)
    scans = [Scan(**row) for row in snakemake.params.scans]
    decisions = [Decision(**row) for row in snakemake.params.decisions]
    measure_lesions(folder, scans, Scan(**snakemake.params.reference), snakemake.params.settings, decisions)
