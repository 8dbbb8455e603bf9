"""What the cycles given add up to, and the largest activity that the limits of the organs still allow."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from theraflow.dosimetry.planning import plan_therapy
    from theraflow.layout import PatientFolder

    params = snakemake.params
    folder = PatientFolder(params.results, snakemake.wildcards.patient)
    plan_therapy(folder, params.settings, params.therapy_nuclide, params.cycles)
