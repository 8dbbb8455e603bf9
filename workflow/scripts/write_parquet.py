"""The cohort's tables as Parquet."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from theraflow.exchange.parquet import export_parquet

    export_parquet(snakemake.input, snakemake.params.columns)
