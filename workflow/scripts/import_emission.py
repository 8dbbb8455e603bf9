"""The PET of one scan in SUVbw, or its SPECT in Bq/mL."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from theraflow.dicom import import_emission
    from theraflow.layout import Scan

    import_emission(Scan(**snakemake.params.scan), snakemake.params.tracer, snakemake.output.image)
