# What all rules share: the library, the checked configuration and sheets, and the functions that name inputs.

import argparse
import atexit
import os
import shlex
import shutil
import sys

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.utils import min_version, validate

min_version("9.0")
sys.path.insert(0, str(Path(workflow.current_basedir) / ".." / "scripts"))

from dataclasses import asdict
from functools import cache, partial

import yaml

from theraflow.dicom.export.sniff import modalities
from theraflow.errors import TheraflowError
from theraflow.failures import failures, left_reasons, tell_kill
from theraflow.layout import PatientFolder
from theraflow.run import progress, provenance
from theraflow.run.lock import LockWords
from theraflow.run.summary import write_summary
from theraflow.sheets import (
    read_decisions,
    read_scans,
    read_sheet,
    require_plain,
    reference_scan,
)
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
    SHEET = read_scans(config["scans"], read_schema("scans"), config["tracers"])
    # Planar views serve the activities of dosimetry alone: all other stages see volumes.
    SCANS, PLANAR = (
        {
            patient: [scan for scan in scans if scan.planar == planar]
            for patient, scans in SHEET.items()
        }
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
KEEPERS = []  # of the progress of this run, once it has begun


wildcard_constraints:
    patient="|".join(SCANS),
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
    return "CT" in modalities(scan.dicom)


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


def remove_left_results():
    """Remove dosimetry and dose maps of which the sheet lists no scan any more, and DICOM objects not asked for."""
    for patient in SCANS:
        folder = PatientFolder(RESULTS, patient)
        left = [] if has_dosimetry(patient) else [folder.dosimetry]
        if has_dosimetry(patient) and not has_dose_map(patient):
            left = folder.dose_map_files
        if not config["dicom_objects"]["write"]:
            left = [*left, folder.dicom]
        for path in filter(Path.exists, left):
            print(
                f"Removed, for sheet and configuration do not ask for it any more: {path}"
            )
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def remove_left_reasons():
    """Remove why jobs have failed that the workflow has no more: they would count as failed for ever.

    Only `all` of the workflow knows all jobs, and only those of the patients that are not left out.
    """
    dag = workflow.dag
    targets = {rule.name for rule in dag.targetrules}
    only_part = dag.batch, dag.untilrules, dag.untilfiles, dag.omitrules, dag.omitfiles
    if "all" not in targets or any(only_part):
        return
    logs = [log for job in dag.jobs for log in job.log]
    for path in left_reasons(LOGS, [*INCLUDED, "cohort"], logs):
        print(f"Removed, for no job of the workflow can fail so any more: {path}")
        path.unlink()


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


def get_plan_of_run():
    """What this run is going to do, as theraflow.run wants to know it."""
    dag = workflow.dag

    def stage(rule):
        return Path(rule.snakefile).stem if rule.output else None

    def step(job):
        patient, scan = map(job.wildcards_dict.get, ("patient", "scan"))
        benchmark = Path(job.benchmark) if job.benchmark else None
        log = Path(job.log[0]) if job.log else None
        outputs = tuple(map(str, job.output))
        return progress.Step(
            job.rule.name, stage(job.rule), patient, scan, benchmark, log, outputs
        )

    planned = set(dag.needrun_jobs())
    return progress.Plan(
        steps={dag.jobid(job): step(job) for job in planned},
        made=[step(job) for job in dag.jobs if job not in planned],
        follows=frozenset(
            (first.rule.name, job.rule.name)
            for job in planned
            for first in dag.dependencies[job]
        ),
        limits={
            name: limit.value
            for name, limit in workflow.global_resources.items()
            if isinstance(limit.value, int)
        },
        stages=tuple(dict.fromkeys(filter(None, map(stage, workflow.rules)))),
    )


def get_provenance():
    """Which software, inputs and settings this run has, as it starts."""
    sheets = (
        "scans",
        "patients",
        "cycles",
        "decisions",
        "blood",
        "events",
        "expression",
        "toxicity",
    )
    base = Path(workflow.basedir)
    shipped = sorted(RESOURCES.rglob("*.[ct]sv"))
    pinned = [base / name for name in ("requirements.lock", "environment.yml")]
    return provenance.describe_run(
        base,
        sys.argv,
        config,
        [
            *workflow.configfiles,
            *(config[sheet] for sheet in sheets if sheet in config),
            *RECOVERY,
            *filter(None, [config["dosimetry"]["s_values"]]),
            *shipped,
            *pinned,
        ],
        {rule.name: rule.params.get("code") for rule in workflow.rules},
    )


def require_writable_results():
    """Refuse a folder of results in which nothing may be written, before Snakemake trips over it."""
    folder = Path(RESULTS).absolute()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        raise WorkflowError(
            f"{folder} may not be written: give yourself the right to write there, or name another folder with "
            "`results` in the configuration."
        )


def watch_run():
    """Keep progress and provenance of this run below logs/runs, from the events that Snakemake tells its loggers."""
    runs = Path(LOGS) / progress.FOLDER
    earlier = progress.earlier_durations(runs)
    record = partial(provenance.write_provenance, get_provenance(), Path(RESULTS))
    planned = progress.Progress(get_plan_of_run(), earlier)
    keeper = progress.Keeper(planned, runs, record)
    keeper.start()
    logger.addHandler(progress.EventHandler(keeper.progress))
    atexit.register(keeper.end, success=False)  # where Snakemake itself gives up
    KEEPERS.append(keeper)


def remove_unfounded(failed):
    """Remove what rests on the old output of a job that failed to make it anew: Snakemake would take it for done.

    Where there was no old output, as of a new scan, what earlier runs have made is still seen to be outdated, and stays.
    """
    dag, names = workflow.dag, {(step.rule, step.patient, step.scan) for step in failed}

    def was_to_be_made_anew(job):
        of = (job.rule.name, *map(job.wildcards_dict.get, ("patient", "scan")))
        return of in names and not dag.reason(job).missing_output

    begun = list(filter(was_to_be_made_anew, dag.jobs))
    unfounded = set(dag.bfs(dag.depending, *begun)) - set(begun)
    paths = [
        Path(file) for job in unfounded for file in job.output if Path(file).exists()
    ]
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if paths:
        print(f"Removed, for they rest on a job that failed: {len(paths)} results.")


def end_run(success):
    """What the run has taken, and what a person needs to know of its results."""
    results = Path(RESULTS)
    reports = {patient: PatientFolder(results, patient).report for patient in SCANS}
    for keeper in KEEPERS:
        keeper.end(success)
        for step in keeper.progress.failed:
            tell_kill(step.log)
        remove_unfounded(keeper.progress.failed)
        try:
            print(write_summary(keeper.progress, keeper.folder, results, reports))
        # A full disk: the results are there all the same.
        except (OSError, TheraflowError) as error:
            print(f"The summary of the run cannot be written: {error}")
    print(closing_words())


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
    return this_command(*places_of_jobs(), "--config", "cohort={incomplete: skip}")


def this_command(*words):
    """The command of this run with other words at its end, as a user can paste it anywhere."""
    place = []
    if Path.cwd() != Path(workflow.basedir):
        place = ["-s", workflow.main_snakefile, "--directory", Path.cwd()]
    if workflow.overwrite_configfiles:
        place += [
            "--configfile",
            *(Path(path).absolute() for path in workflow.overwrite_configfiles),
        ]
    return shlex.join(map(str, ["snakemake", *place, *words]))


def places_of_jobs():
    """The options of this run that say where its jobs run: the cores of this machine, or a cluster."""
    if workflow.resource_settings.nodes is None:
        return ["--cores", workflow.cores]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for options in (
        ("--profile",),
        ("--workflow-profile",),
        ("--executor", "-e"),
        ("--jobs", "-j"),
    ):
        parser.add_argument(*options)
    given, _ = parser.parse_known_args(sys.argv[1:])
    return [
        word
        for name, value in vars(given).items()
        if value is not None
        for word in (f"--{name.replace('_', '-')}", value)
    ]


logger.addFilter(LockWords(Path(LOGS) / progress.FOLDER, this_command("--unlock")))
