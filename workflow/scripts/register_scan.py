"""One scan to the patient's reference scan."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from theraflow.layout import PatientFolder, Scan
    from theraflow.registration import register

    reference, scan = Scan(**snakemake.params.reference), Scan(**snakemake.params.scan)
    register(reference, scan, PatientFolder(snakemake.params.results, scan.patient), snakemake.threads)
