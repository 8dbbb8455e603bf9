# Organ labels on the CT grid: TotalSegmentator, or a label map that the user brings.


rule organs:
    input:
        ct=f"{SCAN}/ct.nii.gz",
        sidecar=f"{SCAN}/ct.json",
    output:
        labels=f"{SCAN}/organs.nii.gz",
        sidecar=f"{SCAN}/organs.json",
        table=f"{SCAN}/organs.tsv",
    log:
        f"{LOGS}/{{patient}}/{{scan}}.organs.log",
    benchmark:
        f"{LOGS}/{{patient}}/{{scan}}.organs.benchmark.tsv"
    priority: 1
    conda:
        "../../environment.yml"
    resources:
        mem_mb=8000 if config["organs"]["resolution"] < 6 else 3000,
        gpu=0 if config["organs"]["device"] == "cpu" else 1,
    params:
        scan=get_scan_row,
        settings=config["organs"],
        code=code_digest("theraflow.organs"),
    script:
        "../scripts/label_organs.py"


# The published weights come from the internet, once, when asked for: never inside a compute job.
rule fetch_weights:
    output:
        manifest=f"{config['organs']['weights']}/{config['organs']['task']}_{config['organs']['resolution']}mm.json",
    log:
        f"{LOGS}/fetch_weights.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        settings=config["organs"],
    script:
        "../scripts/fetch_weights.py"
