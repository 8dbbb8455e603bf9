# What all rules share: the library, the checked configuration and sheets, and the functions that name inputs.

import sys

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version, validate

min_version("9.0")
sys.path.insert(0, str(Path(workflow.current_basedir) / ".." / "scripts"))

from dataclasses import asdict
from functools import cache

import yaml

from theraflow.dicom.export.sniff import holds_ct
from theraflow.errors import TheraflowError
from theraflow.failures import failures
from theraflow.layout import PatientFolder
from theraflow.run.planning import end_planning, plan_faster
from theraflow.sheets import (
    read_decisions,
    read_scans,
    read_sheet,
    require_plain,
    reference_scan,
)
from theraflow.source import code_digest

plan_faster()
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


class ByPatient(dict):
    """What there is of each patient of the sheet."""

    def __missing__(self, patient):
        raise WorkflowError(f"{config['scans']} has no patient {patient!r}.")


try:
    SHEET = ByPatient(
        read_scans(config["scans"], read_schema("scans"), config["tracers"])
    )
    # Planar views serve the activities of dosimetry alone: all other stages see volumes.
    SCANS, PLANAR = (
        ByPatient(
            (patient, [scan for scan in scans if scan.planar == planar])
            for patient, scans in SHEET.items()
        )
        for planar in (False, True)
    )
    CYCLES = (
        read_sheet(config["cycles"], read_schema("cycles"))
        if "cycles" in config
        else []
    )
    DECISIONS = (
        read_decisions(config["decisions"], read_schema("decisions"), SCANS)
        if "decisions" in config
        else {}
    )
    BLOOD = (
        read_sheet(config["blood"], read_schema("blood")) if "blood" in config else []
    )
    for row in BLOOD:
        if not any(
            (scan.quantity, scan.timepoint) == ("activity", row["timepoint"])
            for scan in SHEET.get(row["patient"], [])
        ):
            raise TheraflowError(
                f"The sheet {config['blood']} has blood of {row['patient']}, timepoint "
                f"{row['timepoint']}, of which {config['scans']} has no activity scan."
            )
    if "patients" in config:
        read_sheet(config["patients"], read_schema("patients"))
        require_plain(config["patients"], read_schema("patients"))
    EVENTS = (
        read_sheet(config["events"], read_schema("events"))
        if "events" in config
        else []
    )
    for sheet in ("expression", "toxicity"):
        if sheet in config:
            read_sheet(config[sheet], read_schema(sheet))
except TheraflowError as error:
    raise WorkflowError(str(error))

SCAN_BY_NAME = {
    (scan.patient, scan.scan): scan for scans in SHEET.values() for scan in scans
}
# Patients left out of this run because an earlier one failed for them: the reason by patient.
MISSING = failures(LOGS, SCANS) if config["cohort"]["incomplete"] == "skip" else {}
INCLUDED = [patient for patient in SCANS if patient not in MISSING]


# Not the patients' names: Snakemake goes through all of a constraint for each path that it makes.
wildcard_constraints:
    patient="(?!cohort/)[A-Za-z0-9][A-Za-z0-9_-]*",
    scan="[A-Za-z0-9][A-Za-z0-9_-]*",


def memory(mb):
    """Memory of a job in MB: more at each further attempt, for a cluster ends jobs that take more than they asked.

    There it holds two processes of Snakemake, too.
    """
    return lambda wildcards, attempt: mb * attempt + 250


def minutes(limit):
    """Time limit of a job in minutes on a cluster, longer at each further attempt."""
    return lambda wildcards, attempt: limit * attempt


def get_results(wildcards):
    return RESULTS


def get_scan(wildcards):
    try:
        return SCAN_BY_NAME[wildcards.patient, wildcards.scan]
    except KeyError:
        raise WorkflowError(
            f"{config['scans']} has no scan {wildcards.scan!r} of patient {wildcards.patient!r}."
        )


def require_scan(wildcards):
    """No file, for DICOM may lie in an archive that is away: only that a scan which the sheet lacks is not planned."""
    get_scan(wildcards)
    return []


@cache
def row_of(scan):
    return asdict(scan)


def get_scan_row(wildcards):
    """A scan without its reader's annotation: nothing that is made of one scan alone depends on that."""
    return row_of(get_scan(wildcards)) | {"lesions": None}


def get_scan_rows(wildcards):
    return [row_of(scan) for scan in SCANS[wildcards.patient]]


def get_all_scan_rows(wildcards):
    """With the planar scans."""
    return [row_of(scan) for scan in SHEET[wildcards.patient]]


def get_tracer(wildcards):
    return config["tracers"][get_scan(wildcards).tracer]


@cache
def reference_of(patient):
    return reference_scan(SCANS[patient], config.get("reference_tracer"))


def get_reference(wildcards):
    return reference_of(wildcards.patient)


def get_reference_row(wildcards):
    return row_of(get_reference(wildcards)) | {"lesions": None}


@cache
def has_ct(scan):
    """By its DICOM; where that cannot be read, as of an archive that is away, by what was imported of it."""
    found = holds_ct(scan.dicom)
    if found is None:
        return PatientFolder(RESULTS, scan.patient).ct(scan.scan).exists()
    return found


def has_organs(scan):
    backend = config["organs"]["backend"]
    return has_ct(scan) and (scan.organs is not None or backend == "totalsegmentator")


def get_needed_organs():
    """The organs that other parts of the configuration name, by the part."""
    from theraflow.lesions.background import BACKGROUND_ORGANS, organs_of_background

    needed = {"dosimetry: organs": config["dosimetry"]["organs"]}
    if "red_marrow_fraction" in config["dosimetry"].get("marrow", {}):
        from theraflow.dosimetry.activity.marrow import VERTEBRAE

        needed["dosimetry: marrow"] = VERTEBRAE
    if config["background"] in BACKGROUND_ORGANS:
        needed["background"] = organs_of_background(config["background"])
    for tracer, names in config["lesions"]["physiologic"].items():
        needed[f"lesions: physiologic: {tracer}"] = [
            name if isinstance(name, str) else name["organ"] for name in names
        ]
    return needed


def has_dosimetry(patient):
    return any(scan.quantity == "activity" for scan in SHEET[patient])


def has_dose_map(patient):
    return any(scan.quantity == "activity" for scan in SCANS[patient])


def get_images(scan):
    """Emission image of a scan and its CT where it has one."""
    folder = PatientFolder(RESULTS, scan.patient)
    return [folder.emission(scan)] + ([folder.ct(scan.scan)] if has_ct(scan) else [])


def get_planar_images(wildcards):
    folder = PatientFolder(RESULTS, wildcards.patient)
    return [folder.emission(scan) for scan in PLANAR[wildcards.patient]]


def get_planar_table(wildcards):
    """What the regions count in the planar scans, where there are any."""
    table = PatientFolder(RESULTS, wildcards.patient).table("planar")
    return [table] if PLANAR[wildcards.patient] else []


def get_organs(scan):
    """Organ labels of a scan and the table that says which are plausible; nothing where it has none."""
    folder = PatientFolder(RESULTS, scan.patient)
    paths = (folder.organs(scan.scan), folder.organ_table(scan.scan))
    return list(paths) if has_organs(scan) else []


# A job lists the last files of what it goes back to: they stand for all that was made before them. To list every
# image and table that it reads would cost ten times the planning.


def get_registered(wildcards):
    """What stands for all images, organs and transforms of the patient: the verdicts on the registrations."""
    folder = PatientFolder(RESULTS, wildcards.patient)
    return [folder.registration_quality(scan.scan) for scan in SCANS[wildcards.patient]]


def get_registered_reference(wildcards):
    """The same of the patient's reference scan, for another scan."""
    folder = PatientFolder(RESULTS, wildcards.patient)
    reference = get_reference(wildcards).scan
    return (
        [folder.registration_quality(reference)] if wildcards.scan != reference else []
    )


@cache
def files_of(scan):
    """All that the jobs of one scan make and others read."""
    folder, name = PatientFolder(RESULTS, scan.patient), scan.scan
    transforms = (folder.ct_to_emission, folder.to_scan, folder.to_reference)
    reports = (folder.emission_check, folder.registration_quality)
    paths = [*get_images(scan), *get_organs(scan)]
    return [*map(str, paths), *(str(path(name)) for path in (*transforms, *reports))]


def get_needed(wildcards):
    """What a job of a patient reads of the scans without listing it: it ends with a sentence where one is missing."""
    return [path for scan in SCANS[wildcards.patient] for path in files_of(scan)]


def get_needed_results(wildcards):
    """What a report of a patient reads without listing it."""
    folder = PatientFolder(RESULTS, wildcards.patient)
    names = ["lesions", "response", "best_response", "targets", "percist_reference"]
    if has_dosimetry(wildcards.patient):
        names += ["curves", "doses", "administrations", "uncertainty", "fitted"]
        names += ["cycles", "course", "plan"]
    if has_dose_map(wildcards.patient):
        names += ["dvh", "map_doses"]
    return [*get_needed(wildcards), *(str(folder.table(name)) for name in names)]


def get_needed_tables(wildcards):
    """What the cohort reads of its patients without listing it."""
    folders = [PatientFolder(RESULTS, patient) for patient in INCLUDED]
    return [
        str(folder.table(name))
        for folder in folders
        for name in ("lesions", "response", "doses", "course")
        if name in ("lesions", "response") or has_dosimetry(folder.patient)
    ]


def get_needed_of_reference(wildcards):
    """The same of the patient's reference scan, for another scan."""
    reference = get_reference(wildcards)
    return files_of(reference) if wildcards.scan != reference.scan else []


def get_last_results(patient):
    """What stands for all tables and images of a patient: the response for lesions, the plan for doses, its table for
    the dose map.
    """
    folder = PatientFolder(RESULTS, patient)
    dosimetry = [folder.plan] if has_dosimetry(patient) else []
    dose_map = [folder.table("dvh")] if has_dose_map(patient) else []
    return [folder.table("response"), *dosimetry, *dose_map]


def get_all_last_results(wildcards):
    return [path for patient in INCLUDED for path in get_last_results(patient)]


def get_annotations(wildcards):
    return [scan.lesions for scan in SCANS[wildcards.patient] if scan.lesions]


def get_decisions(wildcards):
    """The readers' decisions about a patient: a parameter, so that a decision reruns that patient only."""
    return DECISIONS.get(wildcards.patient, [])


def get_candidates(wildcards):
    """Candidate maps and tables of the patient's scans in SUV whose tracer has a rule."""
    folder = PatientFolder(RESULTS, wildcards.patient)
    return [
        path
        for scan in SCANS[wildcards.patient]
        if scan.quantity == "suv" and scan.tracer in config["lesions"]["candidates"]
        for path in folder.candidate_files(scan.scan)
    ]


def get_registered_of_candidates(wildcards):
    """The verdict on the registration of a scan in which lesions are looked for."""
    scan = get_scan(wildcards)
    if scan.tracer not in config["lesions"]["candidates"]:
        raise WorkflowError(
            f"Scan {scan.scan!r} of patient {scan.patient!r} has no candidates, for `lesions: candidates` in the "
            f"configuration has no rule for {scan.tracer}."
        )
    return [PatientFolder(RESULTS, scan.patient).registration_quality(scan.scan)]


def get_candidate_settings(wildcards):
    """The part of the configuration that a scan's candidates depend on."""
    tracer, lesions = get_scan(wildcards).tracer, config["lesions"]
    return {
        "candidates": {tracer: lesions["candidates"][tracer]},
        "physiologic": {tracer: lesions["physiologic"].get(tracer, [])},
        "minimum_ml": lesions["minimum_ml"],
    }


def get_therapy_nuclide(wildcards):
    """Nuclide for which the patient's dosimetry predicts: that of the tracer of the activity scans."""
    for scan in SHEET[wildcards.patient]:
        if scan.quantity == "activity":
            return config["tracers"][scan.tracer].get(
                "therapy_nuclide", config["tracers"][scan.tracer]["nuclide"]
            )


def get_cycles(wildcards):
    return [row for row in CYCLES if row["patient"] == wildcards.patient]


def get_blood(wildcards):
    return [row for row in BLOOD if row["patient"] == wildcards.patient]


def get_clinical_tables(wildcards):
    """The tables made of the clinical sheets and of the criteria of eligibility that the configuration has."""
    made = {
        "expression": ["expression"],
        "toxicity": ["toxicity", "toxicity_worst"],
        "eligibility": ["eligibility"],
    }
    tables = [table for key, names in made.items() if key in config for table in names]
    return [f"{COHORT}/{table}.tsv" for table in tables]


def get_cohort_tables(wildcards):
    """All tidy tables of the cohort."""
    return [*rules.summarise_cohort.output, *get_clinical_tables(wildcards)]


def get_exchange(wildcards):
    """What `all` makes for other programs."""
    return [*PARQUET, *([f"{RESULTS}/bids"] if config["bids"] else [])]


def get_included_rows(wildcards):
    return {patient: [row_of(scan) for scan in SCANS[patient]] for patient in INCLUDED}


def get_panels(wildcards):
    return [PatientFolder(RESULTS, patient).figures for patient in INCLUDED]


def get_dicom_objects(wildcards):
    """The DICOM objects of the patients that have volumes, unless the configuration wants none."""
    wanted = config["dicom_objects"]["write"]
    return [
        PatientFolder(RESULTS, patient).dicom
        for patient in INCLUDED
        if wanted and SCANS[patient]
    ]


def get_dose_map(wildcards):
    """The dose map and the cycles that it is scaled to, where there is one."""
    folder = PatientFolder(RESULTS, wildcards.patient)
    paths = [folder.dose_map, folder.table("cycles")]
    return paths if has_dose_map(wildcards.patient) else []


def get_reports(wildcards):
    return [PatientFolder(RESULTS, patient).report for patient in INCLUDED]


def get_documents(wildcards):
    return [PatientFolder(RESULTS, patient).document for patient in INCLUDED]
