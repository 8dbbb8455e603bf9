"""Organ labels of one CT: the user's label map where the sheet names one, TotalSegmentator otherwise."""

from theraflow.job import job

with job(snakemake.log[0], snakemake.threads):
    from theraflow.layout import Scan
    from theraflow.organs import import_organs, measure_organs, segment_organs

    scan, settings = Scan(**snakemake.params.scan), snakemake.params.settings
    ct, labels = snakemake.input.ct, snakemake.output.labels
    if scan.organs:
        import_organs(scan.organs, ct, labels, settings["names"])
    else:
        choice = {key: settings[key] for key in ("task", "device", "weights", "lower_resolution", "bfloat16")}
        choice |= {"resolution_mm": settings["resolution"], "organs": settings["only"], "threads": snakemake.threads}
        segment_organs(ct, labels, **choice)
    measure_organs(ct, labels, snakemake.output.table, scan.patient, scan.scan)
