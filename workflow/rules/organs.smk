# Organ labels on the CT grid: TotalSegmentator, or a label map that the user brings.

from theraflow.organs import refuse_missing_organs
from theraflow.organs.totalsegmentator.devices import gpus_wanted, resolutions
from theraflow.organs.totalsegmentator.weights import manifest_path, needed_weights

ORGANS = config["organs"]
# With `device: auto` a job asks for a GPU where the machine that plans has one. On a cluster that is the login node,
# which mostly has none: there say `device: gpu` (docs/cluster.md).
GPUS = gpus_wanted(ORGANS["device"])
RESOLUTIONS = resolutions(
    ORGANS["resolution"], ORGANS["device"], ORGANS["lower_resolution"], ORGANS["only"]
)
try:
    needed_weights(ORGANS["task"], ORGANS["resolution"])
    if ORGANS["only"]:
        refuse_missing_organs(ORGANS["only"], get_needed_organs())
except TheraflowError as error:
    raise WorkflowError(str(error))


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
    # No benchmark: the process that segments is not the job's own; the log has its time and memory.
    priority: 1
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(8000 if ORGANS["resolution"] < 6 else 3000),
        runtime=minutes(240),
        gpu=lambda wildcards: 0 if get_scan(wildcards).organs else GPUS,
    params:
        scan=get_scan_row,
        settings=ORGANS,
        code=code_digest("theraflow.organs", RESOURCES / "organ_reference_masses.csv"),
    script:
        "../scripts/label_organs.py"


# The published weights come from the internet, once, when asked for: never inside a compute job.
rule fetch_weights:
    output:
        manifests=[
            manifest_path(ORGANS["weights"], ORGANS["task"], resolution)
            for resolution in RESOLUTIONS
        ],
    log:
        f"{LOGS}/fetch_weights.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        settings=ORGANS,
        resolutions=RESOLUTIONS,
    script:
        "../scripts/fetch_weights.py"
