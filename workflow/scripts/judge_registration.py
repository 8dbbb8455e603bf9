"""How good the registration of one scan is, in numbers and as a picture."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from theraflow.layout import PatientFolder, Scan
    from theraflow.registration import judge
    from theraflow.registration.picture import write_picture

    reference, scan = Scan(**snakemake.params.reference), Scan(**snakemake.params.scan)
    folder = PatientFolder(snakemake.params.results, scan.patient)
    judge(reference, scan, folder)
    write_picture(reference, scan, folder)
