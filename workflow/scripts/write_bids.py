"""The results as a BIDS derivatives dataset."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from theraflow.exchange.bids import write_bids
    from theraflow.layout import Scan

    params = snakemake.params
    scans = {patient: [Scan(**row) for row in rows] for patient, rows in params.scans.items()}
    write_bids(snakemake.output[0], scans, params.results, snakemake.input.patients or None)
