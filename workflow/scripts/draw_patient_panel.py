"""The figure of one patient for print."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads, snakemake.params.needs):
    from theraflow.cohort.figures import write_drawings
    from theraflow.layout import PatientFolder, Scan
    from theraflow.report.panel import draw_patient_panel

    folder = PatientFolder(snakemake.params.results, snakemake.wildcards.patient)
    scans = [Scan(**row) for row in snakemake.params.scans]
    write_drawings([draw_patient_panel(folder, scans, snakemake.params.settings)], snakemake.output[0])
