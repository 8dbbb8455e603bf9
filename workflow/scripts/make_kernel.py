"""The radial kernel of a nuclide in water, by transport of its emissions."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from theraflow.dosimetry.s_values.transport import make_kernel

    source = snakemake.input
    make_kernel(snakemake.wildcards.nuclide, source.emissions, source.cross_sections, snakemake.output.kernel)
