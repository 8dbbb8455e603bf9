"""Activity of every region at every time point."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads, snakemake.params.needs):
    from theraflow.dosimetry.activity import measure_activity
    from theraflow.layout import PatientFolder, Scan

    folder = PatientFolder(snakemake.params.results, snakemake.wildcards.patient)
    scans = [Scan(**row) for row in snakemake.params.scans if row["quantity"] == "activity"]
    measure_activity(folder, scans, snakemake.params.settings, snakemake.params.blood)
