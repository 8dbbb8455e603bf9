"""Dose coefficients of the measured and of the therapy nuclide, and the doses of the patient's cycles."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads, snakemake.params.needs):
    from theraflow.dosimetry.doses import compute_doses
    from theraflow.layout import PatientFolder, Scan

    params = snakemake.params
    folder = PatientFolder(params.results, snakemake.wildcards.patient)
    scans = [Scan(**row) for row in params.scans if row["quantity"] == "activity"]
    compute_doses(folder, scans, params.settings, params.therapy_nuclide, params.cycles)
