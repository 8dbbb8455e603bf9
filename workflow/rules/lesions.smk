# Lesions of a patient: found, measured on every scan's own grid, and one name through all scans.


# What each PET shows by itself: a reader's edit does not make it again.
rule candidates:
    input:
        registered=get_registered_of_candidates,
    output:
        labels=f"{PATIENT}/lesions/candidates/{{scan}}.nii.gz",
        sidecar=f"{PATIENT}/lesions/candidates/{{scan}}.json",
        table=f"{PATIENT}/lesions/candidates/{{scan}}.tsv",
    log:
        f"{LOGS}/{{patient}}/{{scan}}.candidates.log",
    benchmark:
        f"{LOGS}/{{patient}}/{{scan}}.candidates.benchmark.tsv"
    priority: 3
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(3000),
    params:
        scan=get_scan_row,
        settings=get_candidate_settings,
        results=get_results,
        needs=lambda wildcards: files_of(get_scan(wildcards)),
        code=code_digest("theraflow.lesions"),
    script:
        "../scripts/find_candidates.py"


rule lesions:
    input:
        registered=get_registered,
        found=get_candidates,
        annotations=get_annotations,
    output:
        table=f"{PATIENT}/lesions/lesions.tsv",
        candidates=f"{PATIENT}/lesions/candidates.tsv",
        ratios=f"{PATIENT}/lesions/tbr.tsv",
        burden=f"{PATIENT}/lesions/burden.tsv",
        mismatch=f"{PATIENT}/lesions/mismatch.tsv",
        draft=f"{PATIENT}/lesions/decisions_draft.tsv",
        labels=f"{PATIENT}/lesions/lesions.nii.gz",
        sidecar=f"{PATIENT}/lesions/lesions.json",
        maps=directory(f"{PATIENT}/lesions/scans"),
    log:
        f"{LOGS}/{{patient}}/lesions.log",
    benchmark:
        f"{LOGS}/{{patient}}/lesions.benchmark.tsv"
    priority: 3
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(3000),
    params:
        scans=get_scan_rows,
        reference=get_reference_row,
        settings={**config["lesions"], "background": config["background"]},
        decisions=get_decisions,
        results=get_results,
        needs=get_needed,
        code=code_digest("theraflow.lesions"),
    script:
        "../scripts/measure_lesions.py"
