"""One scan to the patient's reference scan, its CT to its own emission image, and how good both are."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads, snakemake.params.needs):
    from theraflow.layout import PatientFolder, Scan
    from theraflow.registration import align_emission, register
    from theraflow.registration.judge import judge
    from theraflow.registration.picture import write_picture

    reference, scan = Scan(**snakemake.params.reference), Scan(**snakemake.params.scan)
    folder = PatientFolder(snakemake.params.results, scan.patient)
    align_emission(scan, folder, snakemake.threads)
    register(reference, scan, folder, snakemake.threads)
    judge(reference, scan, folder)
    write_picture(reference, scan, folder)
