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
        mem_mb=2000,
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
        quality=f"{PATIENT}/registration/{{scan}}.json",
    log:
        f"{LOGS}/{{patient}}/{{scan}}.register.log",
    benchmark:
        f"{LOGS}/{{patient}}/{{scan}}.register.benchmark.tsv"
    priority: 2
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
    params:
        reference=get_reference_row,
        scan=get_scan_row,
        results=get_results,
        code=code_digest("theraflow.registration"),
    script:
        "../scripts/register_scan.py"
