"""How far a run is, from the events of Snakemake."""

import datetime
import json
import logging
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import theraflow
from theraflow.__main__ import main
from theraflow.errors import TheraflowError
from theraflow.run.progress import COUNTS, EventHandler, Keeper, Plan, Progress, Step, earlier_durations
from theraflow.run.summary import summarise_patients, summarise_rules, write_summary
from theraflow.run.terminal import describe, find_runs, time_left_in_words
from theraflow.run.words import in_words, memory_in_words

RULES = (("ct", "dicom"), ("organs", "organs"), ("report", "report"))
PATIENTS = ("P1", "P2", "P3")


class Clock:
    """A time that the test sets."""

    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        return self.now


def three_patients(**changes) -> Plan:
    """Nine jobs, three a patient, and one that makes nothing."""
    steps = {
        3 * number + index + 1: Step(rule, stage, patient)
        for number, patient in enumerate(PATIENTS)
        for index, (rule, stage) in enumerate(RULES)
    }
    facts = {
        "steps": {0: Step("all", None), **steps},
        "follows": frozenset([("ct", "organs"), ("organs", "report")]),
        "limits": {"_cores": 2},
        "stages": ("dicom", "organs", "report"),
        **changes,
    }
    return Plan(**facts)


@pytest.fixture
def clock():
    return Clock()


def cells(progress: Progress, patient: str) -> dict[str, dict[str, int]]:
    said = progress.snapshot()
    return {
        stage: dict(zip(said["counts"], counts, strict=True))
        for stage, counts in zip(said["stages"], said["patients"][patient], strict=True)
    }


def record(event, **facts) -> logging.LogRecord:
    return logging.makeLogRecord({"event": event, **facts})


def test_events_of_snakemake_move_the_cells(clock):
    progress = Progress(three_patients(), clock=clock)
    handler = EventHandler(progress)
    handler.handle(record("job_info", jobid=1, resources={"_cores": 1, "_nodes": 1, "tmpdir": "/tmp"}))
    assert cells(progress, "P1")["dicom"] == {"done": 0, "running": 1, "failed": 0, "of": 1}
    clock.now += 12
    handler.handle(record("job_finished", job_id=1))
    assert cells(progress, "P1")["dicom"] == {"done": 1, "running": 0, "failed": 0, "of": 1}
    handler.handle(record("job_info", jobid=2, resources={"_cores": 1}))
    handler.handle(record("job_error", jobid=2))
    assert cells(progress, "P1")["organs"] == {"done": 0, "running": 0, "failed": 1, "of": 1}
    assert progress.snapshot()["failed"] == [{"rule": "organs", "patient": "P1", "scan": None}]
    handler.handle(record("job_info", jobid=2, resources={"_cores": 1}))  # Snakemake tries it again
    handler.handle(record("job_finished", job_id=2))
    assert cells(progress, "P1")["organs"] == {"done": 1, "running": 0, "failed": 0, "of": 1}
    handler.handle(record("progress", done=2, total=10))
    handler.handle(record(None))
    handler.handle(record("job_finished", job_id=77))  # of no plan
    assert progress.snapshot()["steps"] == {"done": 2, "running": 0, "failed": 0, "of": 10}


def test_an_event_of_another_form_never_stops_the_run(clock, capsys, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", True)
    EventHandler(Progress(three_patients(), clock=clock)).handle(record("job_info", job="of the future"))
    assert "AttributeError" in capsys.readouterr().err


@given(events=st.lists(st.tuples(st.integers(-1, 11), st.sampled_from(["begin", "finish", "fail"])), max_size=40))
@settings(deadline=None)
def test_the_counts_are_those_of_a_plain_recount(events):
    """In whatever order and however often events come."""
    plan = three_patients()
    progress = Progress(plan, clock=Clock())
    state = dict.fromkeys(plan.steps, "waiting")
    for number, event in events:
        {"begin": lambda n: progress.begin(n, {}), "finish": progress.finish, "fail": progress.fail}[event](number)
        was = state.get(number)
        if event == "begin" and was in ("waiting", "failed"):
            state[number] = "running"
        elif event != "begin" and was in ("waiting", "running"):
            state[number] = {"finish": "done", "fail": "failed"}[event]
    told = progress.snapshot()
    counts = Counter(state.values())
    assert told["steps"] == {**{name: counts[name] for name in COUNTS[:3]}, "of": 10}
    for patient in PATIENTS:
        for stage, own in cells(progress, patient).items():
            here = Counter(state[n] for n, step in plan.steps.items() if (step.patient, step.stage) == (patient, stage))
            assert own == {**{name: here[name] for name in COUNTS[:3]}, "of": 1}


def test_what_earlier_runs_have_made_counts_as_done(clock):
    progress = Progress(three_patients(made=[Step("ct", "dicom", "P1", "petct")]), clock=clock)
    assert cells(progress, "P1")["dicom"] == {"done": 1, "running": 0, "failed": 0, "of": 2}
    assert progress.snapshot()["steps"]["of"] == 10  # of this run


def test_the_time_left_is_unknown_then_at_least_then_about(clock):
    progress = Progress(three_patients(), clock=clock)
    assert progress.time_left().seconds is None
    for number, seconds in ((1, 10), (4, 20)):
        progress.begin(number, {"_cores": 1})
        clock.now += seconds
        progress.finish(number)
    left = progress.time_left()
    assert (left.seconds, left.unknown) == (15.0, ("organs", "report"))  # one CT at the mean of two
    for number in (2, 3):
        progress.begin(number, {"_cores": 1})
        clock.now += 30
        progress.finish(number)
    left = progress.time_left()
    assert left.unknown == ()
    assert left.seconds == 15 + 30 + 30  # the third patient, longer than (15 + 2 * 30 + 2 * 30) / 2 cores


def test_earlier_runs_tell_how_long_jobs_take_at_the_pace_of_this_one(clock):
    progress = Progress(three_patients(), {"ct": 10.0, "organs": 100.0, "report": 20.0}, clock)
    assert progress.time_left().seconds == 3 * 130 / 2
    progress.begin(1, {"_cores": 1})
    clock.now += 20  # twice as long as before
    progress.finish(1)
    fifth = 0.2 * 3 * 130  # of the run is taken to be as before
    pace = (20 + fifth) / (10 + fifth)
    assert progress.pace() == pytest.approx(pace)
    means = {"ct": (20 + 3 * 10 * pace) / 4, "organs": 100 * pace, "report": 20 * pace}
    assert progress.mean_s() == pytest.approx(means)


def test_a_job_that_lasts_longer_than_it_should_slows_the_pace(clock):
    progress = Progress(three_patients(), {"ct": 10.0}, clock)
    progress.begin(1, {"_cores": 1})
    clock.now += 5
    assert progress.pace() == 1.0
    clock.now += 25
    assert progress.pace() == pytest.approx((30 + 6) / (10 + 6))


def test_memory_counts_what_the_run_has_started(clock):
    progress = Progress(three_patients(), clock=clock)
    progress.measure_memory()
    alone = progress.memory_mib
    code = "import sys; held = b'x' * (200 * 2**20); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        progress.measure_memory()
        child.stdin.close()
    assert progress.memory_mib - alone > 190
    assert progress.peak_mib == progress.memory_mib


def test_two_runs_have_a_folder_each_and_the_file_is_whole_at_any_time(tmp_path, clock):
    first = Keeper(Progress(three_patients(), clock=clock), tmp_path)
    clock.now += 1
    second = Keeper(Progress(three_patients(), clock=clock), tmp_path)
    assert first.folder != second.folder
    for keeper in (first, second):
        keeper.start()
    second.progress.begin(1, {})
    second.end(success=False)
    first.end(success=True)
    first.end(success=False)  # at the end of the process: too late to change anything
    told = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*/progress.json"))]
    assert [one["state"] for one in told] == ["finished", "stopped"]
    assert [one["steps"]["running"] for one in told] == [0, 1]
    assert [path.name for path in first.folder.iterdir()] == ["progress.json"]


def test_a_disk_without_room_does_not_stop_the_run(tmp_path, clock, caplog):
    (tmp_path / "runs").write_text("a file where the folder should be")
    keeper = Keeper(Progress(three_patients(), clock=clock), tmp_path / "runs")
    keeper.start()
    keeper.end(success=True)
    assert "cannot be written" in caplog.text


def test_durations_come_from_the_last_run_that_knows_them(tmp_path):
    assert earlier_durations(tmp_path / "runs") == {}
    told = [{"a": {"done": 2, "seconds": 8.0}, "b": {"done": 1, "seconds": 3.0}}, {"a": {"done": 1, "seconds": 9.0}}]
    for number, rules in enumerate(told):
        folder = tmp_path / "runs" / f"2026010{number}T000000_1"
        folder.mkdir(parents=True)
        (folder / "progress.json").write_text(json.dumps({"rules": rules}))
    (tmp_path / "runs" / "20260109T000000_1").mkdir()
    (tmp_path / "runs" / "20260109T000000_1" / "progress.json").write_text('{"rules": nonsense')
    for number, other in enumerate(({"rules": []}, {"rules": {"a": {"done": 0, "seconds": 0}}})):  # of another version
        (tmp_path / "runs" / f"2026010{number + 7}T000000_1").mkdir()
        (tmp_path / "runs" / f"2026010{number + 7}T000000_1" / "progress.json").write_text(json.dumps(other))
    assert earlier_durations(tmp_path / "runs") == {"a": 9.0, "b": 3.0}


# What a person reads.


def later(progress: dict, seconds: float) -> datetime.datetime:
    return datetime.datetime.fromisoformat(progress["updated_at"]) + datetime.timedelta(seconds=seconds)


def test_the_terminal_tells_patients_and_stages(clock):
    progress = Progress(three_patients(), clock=clock)
    for number in (1, 2, 3, 4):
        progress.begin(number, {})
        clock.now += 10
        progress.finish(number)
    progress.begin(5, {})
    progress.begin(7, {})
    progress.fail(7)
    told = progress.snapshot()
    lines = describe(told, later(told, 5))
    assert "goes on" in lines[0] and "40 s" in lines[0]
    assert "4 of 10 steps done, 1 running, 1 failed" in lines[1]
    rows = {line.split()[0]: line for line in lines if line[:1] == "P"}
    assert rows["P1"].split() == ["P1", "done", "done", "done"]
    assert "0/1 1 running" in rows["P2"]
    assert "0/1 1 failed" in rows["P3"]


def test_a_run_that_was_killed_is_told_from_one_that_goes_on(clock):
    told = Progress(three_patients(), clock=clock).snapshot()
    assert "goes on" in describe(told, later(told, 59))[0]
    killed = describe(told, later(told, 61))
    assert "no sign of life for 1 min 01 s" in killed[0] and "killed" in killed[0]
    assert not any("Time left" in line for line in killed)


def test_a_thousand_patients_fit_the_terminal_and_those_that_fail_are_seen(clock):
    patients = [f"P{number:04d}" for number in range(1000)]
    steps = {number: Step("ct", "dicom", patient) for number, patient in enumerate(patients)}
    progress = Progress(Plan(steps, stages=("dicom",)), clock=clock)
    progress.begin(777, {})
    progress.fail(777)
    progress.begin(888, {})
    progress.finish(1)
    told = progress.snapshot()
    lines = describe(told, later(told, 1), rows=20)
    assert len(lines) <= 20
    assert {"P0777", "P0888"} <= {line.split()[0] for line in lines if line}
    assert lines[-1].startswith("... and 9") and "1 done" in lines[-1]


def test_runs_that_go_on_come_before_those_that_have_ended(tmp_path, clock):
    with pytest.raises(TheraflowError, match="No run"):
        find_runs(tmp_path, datetime.datetime.now().astimezone())
    for seconds, success in ((0, True), (100, None), (200, False)):
        progress = Progress(three_patients(), clock=clock)
        if success is not None:
            progress.end(success)
        folder = tmp_path / f"2026010{seconds // 100}T000000_1"
        folder.mkdir()
        (folder / "progress.json").write_text(json.dumps(progress.snapshot()))
    told = progress.snapshot()
    assert [run["state"] for run in find_runs(tmp_path, later(told, 5))] == ["running"]
    assert [run["state"] for run in find_runs(tmp_path, later(told, 500))] == ["stopped"]


def test_the_command_prints_the_last_run_and_why_a_patient_failed(tmp_path, clock, capsys):
    progress = Progress(three_patients(), clock=clock)
    progress.fail(4)
    keeper = Keeper(progress, tmp_path / "logs" / "runs")
    keeper.start()
    keeper.end(success=False)
    (tmp_path / "logs" / "P2").mkdir()
    (tmp_path / "logs" / "P2" / "ct.log.failure").write_text("A slice is missing.\n")
    assert main(["progress", str(tmp_path), "--follow"]) == 0
    told = capsys.readouterr().out
    assert "has failed after" in told and "P2: A slice is missing." in told
    assert main(["progress", str(tmp_path / "elsewhere")]) == 1


@pytest.mark.parametrize(
    "change", [{"steps": None}, {"memory_mib": 3.0}, {"patients": ["P1"]}, {"together": 3}, {"failed": ["P1"]}]
)
def test_a_run_told_in_the_form_of_another_version_is_a_sentence(tmp_path, clock, capsys, change):
    """And the run beside it is told as ever."""
    own = Progress(three_patients(), clock=clock).snapshot()
    now = datetime.datetime.now().astimezone().isoformat()
    for folder, told in (("1", {**own, **change, "theraflow": "99.0"}), ("2", own)):
        (tmp_path / "logs" / "runs" / folder).mkdir(parents=True)
        content = json.dumps({**told, "updated_at": now})
        (tmp_path / "logs" / "runs" / folder / "progress.json").write_text(content)
    assert main(["progress", str(tmp_path)]) == 0
    sentence, *others = capsys.readouterr().out.splitlines()
    assert f"(99.0; this is {theraflow.__version__}): ask with the one that it was started with." in sentence
    assert "goes on" in others[0] and "0 of 10 steps done" in others[1]


@pytest.mark.parametrize(
    ("left", "words"),
    [
        ({"seconds": None, "unknown_rules": ["a"]}, "unknown, for no job of the kinds that are left has ended yet"),
        ({"seconds": 100.4, "unknown_rules": ["a"]}, "at least 1 min 40 s, and what has never ended yet: a"),
        ({"seconds": 0.2, "unknown_rules": []}, "about 1 s"),
    ],
)
def test_time_left_in_words(left, words):
    assert time_left_in_words(left) == words


def test_durations_and_sizes_in_words():
    said = [in_words(seconds) for seconds in (0.04, 9.94, 9.96, 59.6, 61, 3599.7, 7380, 100_000)]
    assert said == ["0.0 s", "9.9 s", "10 s", "1 min 00 s", "1 min 01 s", "1 h 00 min", "2 h 03 min", "27 h 47 min"]
    assert [memory_in_words(mib) for mib in (999.4, 1536)] == ["999 MiB", "1.5 GiB"]


# The summary.


@pytest.fixture
def ended(tmp_path, clock):
    """P1 is complete, P2 has failed in its organs, P3 was never begun."""
    steps = {
        number: Step(step.rule, step.stage, step.patient, "fdg", tmp_path / f"{number}.benchmark.tsv")
        for number, step in three_patients().steps.items()
        if step.stage
    }
    progress = Progress(Plan(steps, stages=("dicom", "organs", "report")), clock=clock)
    header = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    for number, seconds, peak, cpu in (
        (1, 2, "100.5", "1.5"),
        (2, 40, "-", "-"),
        (3, 5, "300.0", "4.0"),
        (4, 4, "200.0", "3"),
    ):
        progress.begin(number, {})
        clock.now += seconds
        progress.finish(number)
        (tmp_path / f"{number}.benchmark.tsv").write_text(header + f"1\t0\t{peak}\t0\t0\t0\t0\t0\t0\t{cpu}\n")
    (tmp_path / "7.benchmark.tsv").write_text(header + "1\t0\t9999\t0\t0\t0\t0\t0\t0\t9\n")  # of an earlier run
    progress.begin(5, {})
    progress.fail(5)
    progress.end(success=False)
    return progress


def test_the_summary_counts_this_run_only(ended):
    rows = {row["rule"]: row for row in summarise_rules(ended)}
    assert list(rows) == ["organs", "ct", "report"]  # by time
    assert rows["ct"] == {"rule": "ct", "stage": "dicom", "done": 2, "failed": 0, "not_run": 1, "total_s": 6.0,
                          "mean_s": 3.0, "longest_s": 4.0, "longest_patient": "P2", "longest_scan": "fdg",
                          "cpu_s": 4.5, "peak_mib": 200.0}  # fmt: skip
    assert rows["organs"]["peak_mib"] is None and rows["organs"]["cpu_s"] is None  # not measured is not 0
    assert (rows["organs"]["done"], rows["organs"]["failed"], rows["organs"]["not_run"]) == (1, 1, 1)


def test_the_disk_of_each_patient_counts_a_file_with_two_names_once(ended, tmp_path):
    results = tmp_path / "results"
    (results / "P1" / "deep").mkdir(parents=True)
    (results / "P1" / "deep" / "image").write_bytes(bytes(3 * 2**20))
    (results / "P1" / "again").hardlink_to(results / "P1" / "deep" / "image")
    (results / "P1" / "report.html").write_bytes(bytes(2**20))
    reports = {patient: results / patient / "report.html" for patient in PATIENTS}
    rows = summarise_patients(ended, results, reports)
    assert rows[0] == {"patient": "P1", "done": 3, "failed": 0, "not_run": 0, "total_s": 47.0, "results_mib": 4.0,
                       "report": (results / "P1" / "report.html").relative_to(results)}  # fmt: skip
    assert [(row["done"], row["failed"], row["not_run"], row["report"]) for row in rows[1:]] == [
        (1, 1, 1, None),
        (0, 0, 3, None),
    ]


def test_the_closing_words_are_for_a_person(ended, tmp_path):
    reports = {patient: tmp_path / "results" / patient / "report.html" for patient in PATIENTS}
    words = write_summary(ended, tmp_path / "run", tmp_path / "results", reports)
    assert "Failed after 51 s: 4 of 9 steps done, 1 failed." in words
    assert "organs" in words and "78%" in words and "1 job, 40 s each" in words and "memory not measured" in words
    assert len(words.strip().splitlines()) <= 10
    assert (tmp_path / "run" / "rules.tsv").read_text().splitlines()[1].startswith("organs\torgans\t1\t1\t1\t40.0")
    assert "NA" in (tmp_path / "run" / "patients.tsv").read_text()
