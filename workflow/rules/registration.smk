# Every scan of a patient: its CT to its own emission image, and the scan to the patient's reference scan.


# One job, not three of a few seconds each: a cohort of a thousand has to be planned, and each job starts anew.
rule register:
    input:
        scan=lambda wildcards: get_images(get_scan(wildcards)),
        organs=lambda wildcards: get_organs(get_scan(wildcards)),
        reference=get_registered_reference,
    output:
        ct_to_emission=f"{PATIENT}/registration/{{scan}}.ct_to_emission.h5",
        check=f"{PATIENT}/registration/{{scan}}.ct_to_emission.json",
        to_scan=f"{PATIENT}/registration/{{scan}}.to_scan.h5",
        to_reference=f"{PATIENT}/registration/{{scan}}.to_reference.h5",
        fit=f"{PATIENT}/registration/{{scan}}.fit.json",
        quality=f"{PATIENT}/registration/{{scan}}.json",
        picture=f"{PATIENT}/registration/{{scan}}.png",
    log:
        f"{LOGS}/{{patient}}/{{scan}}.register.log",
    benchmark:
        f"{LOGS}/{{patient}}/{{scan}}.register.benchmark.tsv"
    priority: 2
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(2000),
        runtime=minutes(60),
    params:
        reference=get_reference_row,
        scan=get_scan_row,
        results=get_results,
        needs=get_needed_of_reference,
        code=code_digest("theraflow.registration"),
    script:
        "../scripts/register_scan.py"
