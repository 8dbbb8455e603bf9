# Before the first job of a run and after its last: what is left over goes, and a person is told what happens.

import argparse
import atexit
import os
import shlex
import shutil
import sys
from functools import partial

from snakemake.logging import logger

from theraflow.failures import left_reasons, tell_end, written_reasons
from theraflow.run import progress, provenance
from theraflow.run.lock import LockWords
from theraflow.run.refusal import refusal_only
from theraflow.run.summary import write_summary

KEEPERS = []  # of the progress of this run, once it has begun
EARLIER = {}  # when each reason of a failure was written that this run has found


def remove_left_results():
    """Remove what sheet and configuration do not ask for any more: what is there would be taken for what is asked."""
    left = [path for patient in SCANS for path in left_of_patient(patient)]
    # A trial on one patient costs no other's organs, which take hours to be made again.
    left += [path for scan in scans_of_run() for path in left_of_scan(scan)]
    for path in filter(Path.exists, left):
        print(
            f"Removed, for sheet and configuration do not ask for it any more: {path}"
        )
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def scans_of_run():
    """The scans of the patients of whom this run makes something."""
    made = {job.wildcards_dict.get("patient") for job in workflow.dag.needrun_jobs()}
    return [scan for patient in SCANS if patient in made for scan in SCANS[patient]]


def left_of_patient(patient):
    """Where dosimetry and dose maps would be of which the sheet lists no scan, and DICOM objects not asked for."""
    folder = PatientFolder(RESULTS, patient)
    left = [] if has_dosimetry(patient) else [folder.dosimetry]
    if has_dosimetry(patient) and not has_dose_map(patient):
        left = folder.dose_map_files
    return left if config["dicom_objects"]["write"] else [*left, folder.dicom]


def left_of_scan(scan):
    """Where the organs and the CT would be of a scan that has none."""
    organs = [] if has_organs(scan) else rules.organs.output
    ct = [] if has_ct(scan) else rules.import_ct.output
    return map(Path, expand([*organs, *ct], patient=scan.patient, scan=scan.scan))


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


def require_ct_of_organs():
    """Refuse to leave out a CT, and with it the organs on it, only because it cannot be read now."""
    for scan in scans_of_run():
        organs = PatientFolder(RESULTS, scan.patient).organs(scan.scan)
        if organs.exists() and not has_ct(scan) and holds_ct(scan.dicom) is None:
            raise WorkflowError(
                f"Scan {scan.scan!r} of patient {scan.patient!r} has organs, but the CT that shows them is neither "
                f"among the results nor to be read in {scan.dicom}: bring that folder back, or remove {organs}."
            )


def watch_run():
    """Keep progress and provenance of this run below logs/runs, from the events that Snakemake tells its loggers."""
    EARLIER.update(written_reasons(LOGS))
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
        failed = keeper.progress.failed
        for step in failed:
            tell_end(step.log, EARLIER)
        try:
            remove_unfounded(failed)
        except OSError as error:
            targets = sorted(workflow.dag_settings.targets)
            outputs = [step.outputs[0] for step in failed]
            again = this_command(*places_of_jobs(), *targets, "--forcerun", *outputs)
            print(
                f"What rests on a job that failed cannot be removed ({error}) and may pass for a result: mend that, "
                f"then start with this command:\n  {again}"
            )
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
    failed = set(problems) - set(MISSING) - {"cohort"}
    if failed and set(INCLUDED) - failed:
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
logger.addFilter(refusal_only)
