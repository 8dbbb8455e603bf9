# Response to therapy: PERCIST 1.0 and RECIST 1.1 from the lesion table.


rule response:
    input:
        lesions=f"{PATIENT}/lesions/lesions.tsv",
    output:
        table=f"{PATIENT}/response.tsv",
        targets=f"{PATIENT}/targets.tsv",
        reference=f"{PATIENT}/percist_reference.tsv",
        best=f"{PATIENT}/best_response.tsv",
    log:
        f"{LOGS}/{{patient}}/response.log",
    benchmark:
        f"{LOGS}/{{patient}}/response.benchmark.tsv"
    priority: 6
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(3000),
    params:
        scans=get_scan_rows,
        settings={
            **config["response"],
            "reference_tracer": config.get("reference_tracer"),
        },
        results=get_results,
        needs=get_needed,
        code=code_digest("theraflow.response"),
    script:
        "../scripts/assess_response.py"
