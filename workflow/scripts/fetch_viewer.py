"""The library that draws the images of the reports, from the npm registry."""

from pathlib import Path

from theraflow.job import job

with job(snakemake.log[0]):
    from theraflow.report.viewer import fetch_library

    fetch_library(Path(snakemake.input.lock).parent)
