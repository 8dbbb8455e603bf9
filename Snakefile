# theraflow: from a patient's DICOM to lesions, doses, response and the cohort report. The map; the rules are in
# workflow/rules, one file a stage. What can be configured is explained in config/README.md.

# The demo's configuration serves only where the user gives none: two configurations never mix unasked.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/dicom.smk"
include: "workflow/rules/organs.smk"
include: "workflow/rules/registration.smk"
include: "workflow/rules/lesions.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/dosimetry.smk"
include: "workflow/rules/response.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/objects.smk"
include: "workflow/rules/cohort.smk"
include: "workflow/rules/exchange.smk"
include: "workflow/rules/run.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        get_reports,
        get_documents,
        get_clinical_tables,
        get_panels,
        get_dicom_objects,
        f"{COHORT}/tables",
        f"{COHORT}/report.html",
        get_exchange,


rule patients:
    input:
        get_reports,
        get_documents,


rule cohort:
    input:
        get_clinical_tables,
        f"{COHORT}/report.html",


# What an earlier sheet or configuration has made would otherwise pass for a result of this one.
onstart:
    require_writable_results()
    require_ct_of_organs()
    remove_left_results()
    remove_left_reasons()
    watch_run()
    end_planning()


onsuccess:
    end_run(success=True)


onerror:
    end_run(success=False)
