"""Dose maps in Gy/GBq of the therapy nuclide and the measured one, their histograms and the doses of the regions."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads, snakemake.params.needs):
    from theraflow.dosimetry.maps import compute_dose_map
    from theraflow.layout import PatientFolder, Scan

    params = snakemake.params
    folder = PatientFolder(params.results, snakemake.wildcards.patient)
    scans = [Scan(**row) for row in params.scans if row["quantity"] == "activity"]
    compute_dose_map(folder, scans, params.settings, params.therapy_nuclide)
