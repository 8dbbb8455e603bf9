"""Organs, lesions, measurements and doses of one patient as DICOM objects for other systems."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads, snakemake.params.needs):
    from theraflow.layout import PatientFolder, Scan
    from theraflow.objects import write_dicom_objects

    params = snakemake.params
    folder = PatientFolder(params.results, snakemake.wildcards.patient)
    scans = [Scan(**row) for row in params.scans]
    write_dicom_objects(
        folder, scans, params.organs, params.dose_map, params.tracers, params.identity, snakemake.output[0]
    )
