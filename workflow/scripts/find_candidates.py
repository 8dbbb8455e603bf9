"""What one PET shows above its tracer's rule."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads, snakemake.params.needs):
    from theraflow.layout import PatientFolder, Scan
    from theraflow.lesions import list_candidates

    folder = PatientFolder(snakemake.params.results, snakemake.wildcards.patient)
    list_candidates(folder, Scan(**snakemake.params.scan), snakemake.params.settings)
