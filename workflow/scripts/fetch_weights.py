"""The published weights of TotalSegmentator, from the internet into the folder that the configuration names."""

from theraflow.job import job

with job(snakemake.log[0]):
    from theraflow.organs import fetch_weights

    settings = snakemake.params.settings
    for resolution, manifest in zip(snakemake.params.resolutions, snakemake.output.manifests, strict=True):
        fetch_weights(settings["weights"], settings["task"], resolution, manifest)
