"""The published weights of TotalSegmentator, from the internet into the folder that the configuration names."""

from theraflow.job import job

with job(snakemake.log[0]):
    from theraflow.organs import fetch_weights

    settings = snakemake.params.settings
    fetch_weights(settings["weights"], settings["task"], settings["resolution"], snakemake.output.manifest)
