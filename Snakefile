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
include: "workflow/rules/dosimetry.smk"
include: "workflow/rules/response.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/cohort.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        get_reports,
        f"{COHORT}/report.html",


rule patients:
    input:
        get_reports,


rule cohort:
    input:
        f"{COHORT}/report.html",


onsuccess:
    print(closing_words())


onerror:
    print(closing_words())
