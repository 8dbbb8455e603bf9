"""The anterior and posterior planar views of one scan, in counts per second."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from theraflow.dicom import import_planar
    from theraflow.layout import Scan

    import_planar(Scan(**snakemake.params.scan), snakemake.params.tracer, snakemake.output.image)
