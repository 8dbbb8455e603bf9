"""What organs, lesions and the body count in the planar scans of a patient."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads, snakemake.params.needs):
    from theraflow.dosimetry.activity import measure_planar
    from theraflow.layout import PatientFolder, Scan

    params = snakemake.params
    folder = PatientFolder(params.results, snakemake.wildcards.patient)
    scans = [Scan(**row) for row in params.scans]
    planar, others = ([scan for scan in scans if scan.planar == wanted] for wanted in (True, False))
    measure_planar(folder, planar, others, params.settings)
