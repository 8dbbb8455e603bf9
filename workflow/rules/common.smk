# What all rules share: the library, the checked configuration and sheets, and the functions that name inputs.

import shlex
import sys

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version, validate

min_version("9.0")
sys.path.insert(0, str(Path(workflow.current_basedir) / ".." / "scripts"))

from dataclasses import asdict

import yaml

from theraflow.dicom.export.sniff import modalities
from theraflow.errors import TheraflowError
from theraflow.failures import failures
from theraflow.layout import PatientFolder
from theraflow.sheets import read_scans, read_sheet, reference_scan
from theraflow.source import code_digest

SCHEMAS = Path(workflow.current_basedir) / ".." / "schemas"
RESOURCES = Path(workflow.basedir) / "resources"
validate(config, schema=str(SCHEMAS / "config.schema.yaml"))
RESULTS = config["results"]
LOGS = f"{RESULTS}/logs"
PATIENT = f"{RESULTS}/{{patient}}"
SCAN = f"{PATIENT}/scans/{{scan}}"
COHORT = f"{RESULTS}/cohort"


def read_schema(name):
    return yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text())


try:
    SCANS = read_scans(config["scans"], read_schema("scans"), config["tracers"])
    CYCLES = (
        read_sheet(config["cycles"], read_schema("cycles"))
        if "cycles" in config
        else []
    )
    if "patients" in config:
        read_sheet(config["patients"], read_schema("patients"))
except TheraflowError as error:
    raise WorkflowError(str(error))

SCAN_BY_NAME = {
    (scan.patient, scan.scan): scan for scans in SCANS.values() for scan in scans
}
# Patients left out of this run because an earlier one failed for them: the reason by patient.
MISSING = failures(LOGS, SCANS) if config["cohort"]["incomplete"] == "skip" else {}
INCLUDED = [patient for patient in SCANS if patient not in MISSING]


wildcard_constraints:
    patient="|".join(SCANS),
    scan="[A-Za-z0-9][A-Za-z0-9_-]*",


def get_results(wildcards):
    return RESULTS


def get_scan(wildcards):
    try:
        return SCAN_BY_NAME[wildcards.patient, wildcards.scan]
    except KeyError:
        raise WorkflowError(
            f"{config['scans']} has no scan {wildcards.scan!r} of patient {wildcards.patient!r}."
        )


def get_scan_row(wildcards):
    return asdict(get_scan(wildcards))


def get_scan_rows(wildcards):
    return [asdict(scan) for scan in SCANS[wildcards.patient]]


def get_tracer(wildcards):
    return config["tracers"][get_scan(wildcards).tracer]


def get_reference(wildcards):
    return reference_scan(SCANS[wildcards.patient], config.get("reference_tracer"))


def get_reference_row(wildcards):
    return asdict(get_reference(wildcards))


def has_ct(scan):
    return "CT" in modalities(scan.dicom)


def has_organs(scan):
    backend = config["organs"]["backend"]
    return has_ct(scan) and (scan.organs is not None or backend == "totalsegmentator")


def get_needed_organs():
    """The organs that other parts of the configuration name, by the part."""
    from theraflow.lesions.uptake import BACKGROUND_ORGANS, organs_of_background

    needed = {"dosimetry: organs": config["dosimetry"]["organs"]}
    if config["background"] in BACKGROUND_ORGANS:
        needed["background"] = organs_of_background(config["background"])
    for tracer, names in config["lesions"]["physiologic"].items():
        needed[f"lesions: physiologic: {tracer}"] = names
    return needed


def has_dosimetry(patient):
    return any(scan.quantity == "activity" for scan in SCANS[patient])


def get_ct(wildcards):
    return (
        [PatientFolder(RESULTS, wildcards.patient).ct(wildcards.scan)]
        if has_ct(get_scan(wildcards))
        else []
    )


def get_images(scan):
    """Emission image of a scan and its CT where it has one."""
    folder = PatientFolder(RESULTS, scan.patient)
    return [folder.emission(scan)] + ([folder.ct(scan.scan)] if has_ct(scan) else [])


def get_patient_images(wildcards):
    return [image for scan in SCANS[wildcards.patient] for image in get_images(scan)]


def get_organs(scan):
    """Organ labels of a scan and the table that says which are plausible; nothing where it has none."""
    folder = PatientFolder(RESULTS, scan.patient)
    paths = (folder.organs(scan.scan), folder.organ_table(scan.scan))
    return list(paths) if has_organs(scan) else []


def get_patient_organs(wildcards):
    return [path for scan in SCANS[wildcards.patient] for path in get_organs(scan)]


def get_alignments(scans):
    """How CT and emission image of each scan lie to each other."""
    return [
        path
        for scan in scans
        for folder in [PatientFolder(RESULTS, scan.patient)]
        for path in (folder.ct_to_emission(scan.scan), folder.emission_check(scan.scan))
    ]


def get_patient_alignments(wildcards):
    return get_alignments(SCANS[wildcards.patient])


def get_patient_transforms(wildcards):
    folder = PatientFolder(RESULTS, wildcards.patient)
    named = (folder.to_scan, folder.to_reference, folder.registration_quality)
    return [name(scan.scan) for scan in SCANS[wildcards.patient] for name in named]


def get_registration_pictures(wildcards):
    folder = PatientFolder(RESULTS, wildcards.patient)
    return [folder.registration_picture(scan.scan) for scan in SCANS[wildcards.patient]]


def get_annotations(wildcards):
    return [scan.lesions for scan in SCANS[wildcards.patient] if scan.lesions]


def get_therapy_nuclide(wildcards):
    """Nuclide for which the patient's dosimetry predicts: that of the tracer of the activity scans."""
    for scan in SCANS[wildcards.patient]:
        if scan.quantity == "activity":
            return config["tracers"][scan.tracer].get(
                "therapy_nuclide", config["tracers"][scan.tracer]["nuclide"]
            )


def get_dosimetry_tables(patient):
    folder = PatientFolder(RESULTS, patient)
    names = ("curves", "doses", "cycles", "dvh") if has_dosimetry(patient) else ()
    return [folder.table(name) for name in names]


def get_patient_tables(patient):
    folder = PatientFolder(RESULTS, patient)
    return [
        folder.table("lesions"),
        folder.table("response"),
        *get_dosimetry_tables(patient),
    ]


def get_reports(wildcards):
    return [PatientFolder(RESULTS, patient).report for patient in INCLUDED]


def closing_words():
    """What a person needs to know when the run has ended: the reports, or what went wrong and what can be done."""
    problems = failures(LOGS, [*SCANS, "cohort"])
    reports = {patient: PatientFolder(RESULTS, patient).report for patient in INCLUDED}
    if not set(problems) - set(MISSING):
        reports["cohort"] = Path(COHORT) / "report.html"
    made = [
        path for name, path in reports.items() if name not in problems and path.exists()
    ]
    words = ["", "Reports:", *(f"  {path}" for path in made)] if made else []
    if problems:
        words += [
            "",
            "Not finished:",
            *(f"  {name}: {reason}" for name, reason in problems.items()),
        ]
    if set(problems) - set(MISSING) - {"cohort"}:
        words += [
            "",
            "The cohort report of the other patients:",
            f"  {cohort_command()}",
        ]
    return "\n".join(words)


def cohort_command():
    """The command that makes the cohort report without the patients that failed."""
    place = []
    if Path.cwd() != Path(workflow.basedir):
        place = ["-s", workflow.main_snakefile, "--directory", Path.cwd()]
    if workflow.overwrite_configfiles:
        place += [
            "--configfile",
            *(Path(path).absolute() for path in workflow.overwrite_configfiles),
        ]
    words = [
        "snakemake",
        *place,
        "--cores",
        workflow.cores,
        "--config",
        "cohort={incomplete: skip}",
    ]
    return shlex.join(map(str, words))
