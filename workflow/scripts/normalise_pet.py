"""The PET of one scan in another kind of SUV, as by lean body mass."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from theraflow.dicom import normalise_pet

    normalise_pet(snakemake.input.image, snakemake.wildcards.suv_type, snakemake.output.image)
