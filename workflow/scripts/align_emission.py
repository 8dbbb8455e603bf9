"""Whether the CT and the emission image of one scan lie on each other."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from theraflow.layout import PatientFolder, Scan
    from theraflow.registration import align_emission

    scan = Scan(**snakemake.params.scan)
    align_emission(scan, PatientFolder(snakemake.params.results, scan.patient), snakemake.threads)
