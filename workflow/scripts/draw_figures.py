"""The cohort's figures for print."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from theraflow.cohort.figures import draw_cohort, write_drawings
    from theraflow.layout import Scan

    params = snakemake.params
    scans = {patient: [Scan(**row) for row in rows] for patient, rows in params.scans.items()}
    sheets = {"cycles": params.cycles, "events": params.events}
    write_drawings(draw_cohort(params.results, scans, params.settings, sheets), snakemake.output[0])
