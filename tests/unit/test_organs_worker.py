"""The process that segments: shared by jobs one after the other, never in the way of a second, gone with its job."""

import os
import shutil
import socket
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from bright_box import LIVER, write_ct

from theraflow.errors import TheraflowError
from theraflow.images import read_image, to_array
from theraflow.organs.totalsegmentator import worker as module
from theraflow.organs.totalsegmentator.predict import Outcome, Request
from theraflow.organs.totalsegmentator.worker import ask, serve
from threshold_model import write_threshold_model
from whole_run import wait_until


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_threshold_model(folder, 6)
    return folder


@pytest.fixture
def temporary(monkeypatch):
    """A folder for temporary files, of a short name; workers that are left in it are ended."""
    folder = Path(tempfile.mkdtemp(prefix="tf"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    for process in workers(folder):
        process.kill()
    shutil.rmtree(folder)


def workers(folder):
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if module.__name__ in (words := process.info["cmdline"] or []) and any(str(folder) in word for word in words)
    ]


def request(tmp_path, weights, spacing_mm=(4.0, 4.0, 5.0), **changes):
    ct = write_ct(tmp_path / "ct.nii.gz", spacing_mm)
    words = {"task": "total", "resolution_mm": 6, "device": "cpu", **changes}
    return Request(ct=str(ct), output=str(tmp_path / "organs.nii"), weights=str(weights), **words)


def found(tmp_path):
    return set(to_array(read_image(tmp_path / "organs.nii")).ravel().tolist())


def test_a_second_job_finds_the_worker_of_the_first(weights, tmp_path, temporary, caplog):
    caplog.set_level("INFO")
    wanted = request(tmp_path, weights)
    served_by = set()
    for _ in range(2):
        outcome = ask(wanted, 1)
        assert (outcome.done, outcome.steps[-1]["device"]) == (True, "cpu")
        assert found(tmp_path) == {0, LIVER}
        (tmp_path / "organs.nii").unlink()
        (process,) = workers(temporary)
        served_by.add(process.pid)
    assert len(served_by) == 1
    assert os.getsid(process.pid) != os.getsid(0)  # a terminal's Ctrl-C is for the job
    assert caplog.text.count("segmented in") == 2
    assert process.environ()["nnUNet_def_n_proc"] == "1"
    ask(wanted, 2)
    assert len(workers(temporary)) == 2  # another number of threads


def test_a_busy_worker_is_not_waited_for(weights, tmp_path, temporary):
    with module._place(module._environment(1, False)) as place:
        ask(request(tmp_path, weights), 1)
    (process,) = workers(temporary)
    assert place.name.endswith("-0")
    assert any(word.endswith("-1") for word in process.cmdline())


def test_what_a_worker_has_to_say_reaches_the_job(weights, tmp_path, temporary, caplog):
    with pytest.raises(TheraflowError, match="device is 'card' in the config"):
        ask(request(tmp_path, weights, device="card"), 1)
    (process,) = workers(temporary)
    with pytest.raises(RuntimeError, match=r"none\.nii"):
        ask(
            Request(ct=str(tmp_path / "none.nii"), output="", weights="", task="total", resolution_mm=6, device="cpu"),
            1,
        )
    assert "Traceback" in caplog.text
    wait_until(lambda: not process.is_running(), 60.0)  # the second: after an unexpected error it serves nobody
    assert ask(request(tmp_path, weights), 1).done


def test_a_killed_worker_is_told_and_replaced(weights, tmp_path, temporary):
    def kill():
        wait_until(lambda: any(process.memory_info().rss > 2e8 for process in workers(temporary)), 60.0)  # half-way
        workers(temporary)[0].kill()

    threading.Thread(target=kill).start()
    with pytest.raises(TheraflowError, match="most likely for lack of memory"):
        ask(request(tmp_path, weights), 1)
    left = next(temporary.glob("theraflow-*/*-0")) / "left behind"
    left.touch()
    assert ask(request(tmp_path, weights), 1).done
    assert not left.exists()


def test_a_worker_whose_job_goes_away_ends_and_leaves_no_files(weights, tmp_path, temporary):
    ask(request(tmp_path, weights), 1)
    (process,) = workers(temporary)
    with module._place(module._environment(1, False)) as place, module._connection(place) as lines:
        # Large enough that it is still at work when its job is gone.
        module._send(lines, asdict(request(tmp_path, weights, spacing_mm=(0.6, 0.6, 0.6))))
    wait_until(lambda: not workers(temporary), 60.0)
    assert not place.exists()
    assert not module._socket_of(place).exists()
    assert ask(request(tmp_path, weights), 1).done
    assert workers(temporary)[0].pid != process.pid


def test_a_call_without_a_request_does_no_harm(weights, tmp_path, temporary):
    ask(request(tmp_path, weights), 1)
    with module._place(module._environment(1, False)) as place, module._connection(place):
        (process,) = workers(temporary)
    assert ask(request(tmp_path, weights), 1).done
    assert workers(temporary)[0].pid == process.pid


def test_what_killed_workers_of_other_sessions_left_is_removed(weights, tmp_path, temporary):
    folder = module._rendezvous()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "0123456789ab-0.socket"))
    for name in ("0123456789ab-0.lock", "0123456789ab-0.log"):
        (folder / name).touch()
    (folder / "0123456789ab-0").mkdir()
    (folder / "0123456789ab-0" / "ct.nii").touch()
    ask(request(tmp_path, weights), 1)
    assert not list(folder.glob("0123456789ab*"))
    assert len(workers(temporary)) == 1


@pytest.fixture
def served(temporary, monkeypatch):
    """A worker in a thread of this process: its place and its thread."""
    monkeypatch.setattr(module, "IDLE_S", 0.1)
    place = module._rendezvous() / "here-0"
    place.mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(module._socket_of(place)))
    listener.listen(1)
    thread = threading.Thread(target=serve, args=(place, listener))
    thread.place = place
    yield thread
    thread.join(10)
    listener.close()
    assert not thread.is_alive()


def test_an_idle_worker_leaves_nothing(served):
    module._log_of(served.place).touch()
    served.start()
    served.join(10)
    assert list(served.place.parent.iterdir()) == []


def test_an_idle_worker_stays_while_a_job_is_about_to_call(served):
    with module._held(served.place) as held:
        assert held
        served.start()
        served.join(0.5)
        assert served.is_alive()
        assert module._socket_of(served.place).exists()


@pytest.mark.parametrize("result", ["device error", "out of memory"])
def test_a_worker_that_a_gpu_failed_takes_no_other_job(served, tmp_path, weights, monkeypatch, result):
    done = result == "out of memory"
    steps = [{"device": "gpu:0", "result": result}, *([{"device": "cpu", "result": "done"}] if done else [])]
    monkeypatch.setattr(module, "predict", lambda _: Outcome(steps, done))
    with module._held(served.place):
        served.start()
        with module._connection(served.place) as lines:
            module._send(lines, asdict(request(tmp_path, weights)))
            answer = lines.readline()
        assert f'"done": {str(done).lower()}' in answer
        served.join(10)
    assert not module._socket_of(served.place).exists()
    assert not served.place.exists()


def test_a_folder_that_others_can_enter_is_refused(temporary):
    folder = module._rendezvous()
    folder.chmod(0o755)
    with pytest.raises(TheraflowError, match="no folder of yours alone"):
        module._rendezvous()
    folder.rename(temporary / "elsewhere")
    folder.symlink_to(temporary / "elsewhere")
    with pytest.raises(TheraflowError, match="no folder of yours alone"):
        module._rendezvous()


def test_a_path_too_long_for_a_socket_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 20)))
    with pytest.raises(TheraflowError, match="too long; set TMPDIR"):
        module._rendezvous()
