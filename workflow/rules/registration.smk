# The CT of a scan to its emission image, and every scan of a patient to the patient's reference scan.


rule align_emission:
    input:
        lambda wildcards: get_images(get_scan(wildcards)),
    output:
        transform=f"{PATIENT}/registration/{{scan}}.ct_to_emission.h5",
        check=f"{PATIENT}/registration/{{scan}}.ct_to_emission.json",
    log:
        f"{LOGS}/{{patient}}/{{scan}}.align_emission.log",
    benchmark:
        f"{LOGS}/{{patient}}/{{scan}}.align_emission.benchmark.tsv"
    priority: 2
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(2000),
    params:
        scan=get_scan_row,
        results=get_results,
        code=code_digest("theraflow.registration.emission"),
    script:
        "../scripts/align_emission.py"


rule register:
    input:
        reference=lambda wildcards: get_images(get_reference(wildcards)),
        scan=lambda wildcards: get_images(get_scan(wildcards)),
        alignments=lambda wildcards: get_alignments(
            [get_reference(wildcards), get_scan(wildcards)]
        ),
    output:
        to_scan=f"{PATIENT}/registration/{{scan}}.to_scan.h5",
        to_reference=f"{PATIENT}/registration/{{scan}}.to_reference.h5",
        fit=f"{PATIENT}/registration/{{scan}}.fit.json",
    log:
        f"{LOGS}/{{patient}}/{{scan}}.register.log",
    benchmark:
        f"{LOGS}/{{patient}}/{{scan}}.register.benchmark.tsv"
    priority: 2
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(2000),
    params:
        reference=get_reference_row,
        scan=get_scan_row,
        results=get_results,
        code=code_digest("theraflow.registration.stage"),
    script:
        "../scripts/register_scan.py"


# Apart from `register`, which needs no organs and so runs while they are segmented.
rule judge_registration:
    input:
        fit=rules.register.output.fit,
        to_scan=rules.register.output.to_scan,
        to_reference=rules.register.output.to_reference,
        reference=lambda wildcards: get_images(get_reference(wildcards)),
        scan=lambda wildcards: get_images(get_scan(wildcards)),
        alignments=rules.register.input.alignments,
        reference_organs=lambda wildcards: get_organs(get_reference(wildcards)),
        scan_organs=lambda wildcards: get_organs(get_scan(wildcards)),
    output:
        quality=f"{PATIENT}/registration/{{scan}}.json",
        picture=f"{PATIENT}/registration/{{scan}}.png",
    log:
        f"{LOGS}/{{patient}}/{{scan}}.judge_registration.log",
    benchmark:
        f"{LOGS}/{{patient}}/{{scan}}.judge_registration.benchmark.tsv"
    priority: 2
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(1500),
    params:
        reference=get_reference_row,
        scan=get_scan_row,
        results=get_results,
        code=code_digest("theraflow.registration"),
    script:
        "../scripts/judge_registration.py"
