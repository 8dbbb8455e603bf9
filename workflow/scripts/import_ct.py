"""The CT of one scan, in HU."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from theraflow.dicom import import_ct
    from theraflow.layout import Scan

    import_ct(Scan(**snakemake.params.scan), snakemake.output.image)
