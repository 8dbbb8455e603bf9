"""Tables 1 to 3 of the first study as documents."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from theraflow.cohort.reproduction.tables import write_paper_tables

    write_paper_tables(snakemake.output.workbook)
