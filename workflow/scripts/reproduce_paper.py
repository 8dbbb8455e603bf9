"""Every printed number of the first study beside what its printed tables give."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from theraflow.cohort.reproduction import reproduce_paper

    reproduce_paper(snakemake.output.table)
