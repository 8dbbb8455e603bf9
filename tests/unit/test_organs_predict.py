"""The real TotalSegmentator call, with a network set by hand whose truth is known: bright is liver.

What fails on a GPU, and what is tried then, is made to happen here by errors put in its place.
"""

import errno
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import threading

import numpy as np
import pytest
import requests
import torch
from bright_box import LIVER, write_ct, write_long_ct

from theraflow.errors import TheraflowError
from theraflow.images import read_image, same_grid, to_array
from theraflow.organs.totalsegmentator import predict as module
from theraflow.organs.totalsegmentator.devices import Gpu
from theraflow.organs.totalsegmentator.predict import Request, has_bfloat16, predict
from theraflow.organs.totalsegmentator.weights import WEIGHTS
from threshold_model import write_threshold_model


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for resolution_mm in (1.5, 3, 6):
        write_threshold_model(folder, resolution_mm)
    return folder


def request(ct, weights, **changes):
    words = {"task": "total", "resolution_mm": 6, "device": "cpu"}
    return Request(ct=str(ct), output=str(ct.with_name("organs.nii")), weights=str(weights), **{**words, **changes})


def run(ct, weights, **changes):
    wanted = request(ct, weights, **changes)
    outcome = predict(wanted)
    return outcome, to_array(read_image(wanted.output)) if outcome.done else None


def step(device, result="done", reason=None, resolution_mm=6, force_split=False):
    """A step as the outcome tells it."""
    return {
        "device": device,
        "resolution_mm": resolution_mm,
        "force_split": force_split,
        "result": result,
        "reason": reason,
    }


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_nothing_is_spawned_and_torchvision_is_not_needed(weights, tmp_path, monkeypatch, capfd):
    def no_worker(*_, **__):
        raise AssertionError("a worker process was started")

    monkeypatch.setattr(multiprocessing.context.SpawnProcess, "_Popen", no_worker)
    monkeypatch.setitem(sys.modules, "torchvision", None)  # any import of it fails
    ct = write_ct(tmp_path / "ct.nii.gz")
    outcome, labels = run(ct, weights)
    assert set(np.unique(labels)) == {0, LIVER}
    assert outcome == module.Outcome([step("cpu")], done=True, gpu=None, precision="float32", smooth=True)
    assert same_grid(read_image(tmp_path / "organs.nii"), read_image(ct))
    assert capfd.readouterr().out == ""


def test_the_environment_stays_as_it_was(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("TOTALSEG_HOME_DIR", "/a/home/of/the/user")
    before = dict(os.environ)
    run(write_ct(tmp_path / "ct.nii.gz"), weights)
    after = dict(os.environ)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert not {"TOTALSEG_HOME_DIR", "TOTALSEG_WEIGHTS_PATH", "nnUNet_results"} & changed


def test_a_checkpoint_is_loaded_once_and_again_when_it_changes(weights, tmp_path, monkeypatch):
    folder = shutil.copytree(weights, tmp_path / "weights")
    loads, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *words, **named: loads.append(words[0]) or load(*words, **named))
    ct = write_ct(tmp_path / "ct.nii.gz")
    first, second = run(ct, folder)[1], run(ct, folder)[1]
    assert len(loads) == 1
    assert np.array_equal(first, second)
    shutil.rmtree(folder / WEIGHTS[6][0])
    write_threshold_model(folder, 6, threshold_hu=2000.0)  # nothing is that bright
    assert not run(ct, folder)[1].any()
    assert len(loads) == 2


@pytest.fixture
def parts_run(monkeypatch):
    """The numbers of the datasets whose models run, in order."""
    import totalsegmentator.nnunet

    ran, real = [], totalsegmentator.nnunet.nnUNetv2_predict
    monkeypatch.setattr(
        totalsegmentator.nnunet,
        "nnUNetv2_predict",
        lambda *words, **named: ran.append(words[2]) or real(*words, **named),
    )
    return ran


def test_only_the_models_run_that_know_the_organs_wanted(weights, tmp_path, parts_run):
    # In every part the fifth organ is what the network finds: in the first it is the liver.
    ct = write_ct(tmp_path / "ct.nii.gz")
    _, labels = run(ct, weights, resolution_mm=1.5, organs=("liver", "spleen"))
    assert parts_run == [298, 291]
    whole, box = run(ct, weights, resolution_mm=3)[1] == LIVER, labels == LIVER
    assert set(np.unique(labels)) == {0, LIVER}
    assert dice(whole, box) > 0.9
    parts_run.clear()
    run(ct, weights, resolution_mm=1.5)
    assert parts_run == [291, 292, 293, 294, 295]
    parts_run.clear()
    run(ct, weights, resolution_mm=6, organs=("liver",))
    assert parts_run == [298]  # the model that would find the organs is the model that is wanted


def test_organs_that_are_not_there_give_an_empty_map(weights, tmp_path):
    _, labels = run(write_ct(tmp_path / "ct.nii.gz"), weights, resolution_mm=3, organs=("brain",))
    assert not labels.any()


@pytest.mark.parametrize(
    ("flags", "found"), [("fpu sse avx512_bf16 amx_bf16", True), ("fpu asimd bf16", True), ("fpu avx512f sse", False)]
)
def test_bfloat16_where_the_cpu_has_it(tmp_path, monkeypatch, flags, found):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(module, "PROCESSOR", tmp_path / "cpuinfo")
    assert has_bfloat16() is found
    monkeypatch.setattr(module, "PROCESSOR", tmp_path / "none")
    assert not has_bfloat16()


def test_bfloat16_is_computed_in_and_told(weights, tmp_path, monkeypatch):
    kinds, conv3d = set(), torch.nn.functional.conv3d

    def noted(image, weight, *words, **named):
        kinds.add(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else image.dtype)
        return conv3d(image, weight, *words, **named)

    monkeypatch.setattr(torch.nn.functional, "conv3d", noted)
    ct, found = write_ct(tmp_path / "ct.nii.gz"), {}
    for has in (False, True):
        monkeypatch.setattr(module, "has_bfloat16", lambda has=has: has)
        outcome, labels = run(ct, weights, bfloat16=True)
        found[outcome.precision] = labels == LIVER
        assert kinds == {getattr(torch, outcome.precision)}
        kinds.clear()
    assert dice(found["float32"], found["bfloat16"]) >= 0.995


def test_a_gpu_that_is_not_there_is_not_replaced_silently(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    ct = write_ct(tmp_path / "ct.nii.gz")
    for device in ("gpu", "gpu:1"):
        with pytest.raises(TheraflowError, match="sees no GPU"):
            run(ct, weights, device=device)
    assert not (tmp_path / "organs.nii").exists()


def test_a_gpu_that_torch_does_not_see_is_told(weights, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(module, "gpu_at_hand", lambda: True)
    outcome, _ = run(write_ct(tmp_path / "ct.nii.gz"), weights, device="auto")
    reason = f"torch {torch.__version__} does not see the GPU of this machine"
    assert outcome.steps == [step("gpu", "not used", reason, resolution_mm=None), step("cpu")]
    assert reason in caplog.text


NO_MEMORY = "CUDA out of memory. Tried to allocate 20.00 GiB."


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU: the first calls on it raise what the test puts into the list, later ones run on the CPU.

    Gives the list of errors; its attribute `calls` tells what was called on the GPU.
    """

    class Errors(list):
        calls = ()

    errors, real = Errors(), module.call_totalsegmentator

    def call(request, attempt):
        if attempt.device != "cpu":
            errors.calls += ((attempt.device, attempt.resolution_mm, attempt.force_split),)
            if errors:
                raise errors.pop(0)
        real(request, module.Attempt("cpu", attempt.resolution_mm, attempt.force_split))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(module, "probe", lambda device: Gpu(device, "a test's GPU", 8000, 7000))
    monkeypatch.setattr(module, "call_totalsegmentator", call)
    return errors


@pytest.mark.parametrize(("device", "name"), [("auto", "gpu:0"), ("gpu", "gpu:0"), ("gpu:1", "gpu:1")])
def test_the_gpu_that_was_asked_for_is_used(weights, tmp_path, gpu, device, name):
    outcome, _ = run(write_ct(tmp_path / "ct.nii.gz"), weights, device=device)
    assert gpu.calls == ((name, 6, False),)
    assert outcome == module.Outcome([step(name)], True, Gpu(name, "a test's GPU", 8000, 7000), "float16", True)


def test_a_long_ct_is_split_when_the_gpu_is_full(weights, tmp_path, gpu, caplog):
    gpu.append(torch.OutOfMemoryError(NO_MEMORY + "\nGPU 0 has a total capacity of 79 GiB"))
    ct, truth = write_long_ct(tmp_path / "ct.nii.gz")
    outcome, labels = run(ct, weights, device="auto")
    assert outcome.steps == [step("gpu:0", "out of memory", NO_MEMORY), step("gpu:0", force_split=True)]
    assert outcome.smooth is False
    assert NO_MEMORY in caplog.text
    assert dice(labels == LIVER, truth) > 0.99  # TotalSegmentator joined its three parts again


@pytest.mark.parametrize("device", ["auto", "gpu"])
def test_a_short_ct_is_never_split_and_the_cpu_takes_over(weights, tmp_path, gpu, caplog, device):
    gpu.append(torch.OutOfMemoryError(NO_MEMORY))
    outcome, _ = run(write_ct(tmp_path / "ct.nii.gz"), weights, device=device)
    assert gpu.calls == (("gpu:0", 6, False),)
    assert outcome.steps == [step("gpu:0", "out of memory", NO_MEMORY), step("cpu")]
    assert "out of memory on Attempt(device='gpu:0'" in caplog.text


def test_the_resolution_stays_unless_the_user_allows_less(weights, tmp_path, gpu):
    ct = write_ct(tmp_path / "ct.nii.gz")
    gpu.append(torch.OutOfMemoryError(NO_MEMORY))
    outcome, _ = run(ct, weights, device="auto", resolution_mm=3)
    assert outcome.steps == [step("gpu:0", "out of memory", NO_MEMORY, 3), step("cpu", resolution_mm=3)]

    gpu.append(torch.OutOfMemoryError(NO_MEMORY))
    outcome, _ = run(ct, weights, device="auto", resolution_mm=3, lower_resolution=True)
    assert outcome.steps == [step("gpu:0", "out of memory", NO_MEMORY, 3), step("gpu:0")]


def test_the_whole_ladder_in_its_order(weights, tmp_path, gpu):
    gpu.extend(torch.OutOfMemoryError(NO_MEMORY) for _ in range(3))
    ct, _ = write_long_ct(tmp_path / "ct.nii.gz")
    outcome, _ = run(ct, weights, device="auto", resolution_mm=3, lower_resolution=True)
    assert outcome.steps == [
        step("gpu:0", "out of memory", NO_MEMORY, 3),
        step("gpu:0", "out of memory", NO_MEMORY, 3, force_split=True),
        step("gpu:0", "out of memory", NO_MEMORY, 6),
        step("cpu", resolution_mm=3),
    ]


def test_after_a_cuda_error_nothing_more_is_tried_in_this_process(weights, tmp_path, gpu, monkeypatch):
    reason = "CUDA error: an illegal memory access was encountered"
    gpu.append(torch.AcceleratorError(reason))
    monkeypatch.setattr(module, "release_memory", lambda: pytest.fail("CUDA was touched again"))
    ct, _ = write_long_ct(tmp_path / "ct.nii.gz")
    outcome, _ = run(ct, weights, device="auto", lower_resolution=True)
    assert len(gpu.calls) == 1
    assert (outcome.steps, outcome.done) == ([step("gpu:0", "device error", reason)], False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA works on this machine")
def test_cuda_that_is_claimed_but_fails_is_found_by_the_probe(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(module, "call_totalsegmentator", lambda *_: pytest.fail("a model was loaded"))
    outcome, _ = run(write_ct(tmp_path / "ct.nii.gz"), weights, device="gpu")
    assert (outcome.done, outcome.gpu) == (False, None)
    assert outcome.steps[0]["result"] == "device error"
    assert "CUDA" in outcome.steps[0]["reason"]


def test_a_gpu_full_at_the_probe_is_left_alone(weights, tmp_path, gpu, monkeypatch):
    def full(device):
        raise torch.OutOfMemoryError(NO_MEMORY)

    monkeypatch.setattr(module, "probe", full)
    ct, _ = write_long_ct(tmp_path / "ct.nii.gz")
    outcome, _ = run(ct, weights, device="auto")
    assert outcome.steps == [step("gpu:0", "out of memory", NO_MEMORY), step("cpu")]
    assert gpu.calls == ()


def test_an_error_that_is_not_the_gpus_is_not_hidden(weights, tmp_path, gpu):
    gpu.append(ValueError("Unknown task"))
    with pytest.raises(ValueError, match="Unknown task"):
        run(write_ct(tmp_path / "ct.nii.gz"), weights, device="auto")
    assert len(gpu.calls) == 1


def test_the_last_rung_raises_whatever_it_is(weights, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError(NO_MEMORY)

    monkeypatch.setattr(module, "call_totalsegmentator", full)
    with pytest.raises(torch.OutOfMemoryError):
        run(write_ct(tmp_path / "ct.nii.gz"), weights, device="cpu")


def test_apples_gpu_is_called_by_its_name(weights, tmp_path, gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(module, "release_memory", lambda: None)
    gpu.append(RuntimeError("MPS backend out of memory (MPS allocated: 18.00 GB)"))
    outcome, _ = run(write_ct(tmp_path / "ct.nii.gz"), weights, device="auto")
    assert [(s["device"], s["result"]) for s in outcome.steps] == [("mps", "out of memory"), ("cpu", "done")]


def test_an_error_in_nnunets_own_thread_does_not_hang(weights, tmp_path, monkeypatch):
    clone = torch.clone

    def full(*words, **named):
        if threading.current_thread() is not threading.main_thread():
            raise torch.OutOfMemoryError(NO_MEMORY)
        return clone(*words, **named)

    def too_late(*_):
        raise AssertionError("nnU-Net waits for ever")

    monkeypatch.setattr(torch, "clone", full)
    previous = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(60)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            run(write_ct(tmp_path / "ct.nii.gz"), weights)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_gpu_that_is_really_full_falls_back(weights, tmp_path):
    ct = write_ct(tmp_path / "ct.nii.gz")
    outcome, on_gpu = run(ct, weights, device="gpu")
    assert outcome.steps == [step("gpu:0")]
    held, size = [], 2**30
    while size >= 2**16:
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device="cuda:0"))
        except torch.OutOfMemoryError:
            size //= 2
    outcome, on_cpu = run(ct, weights, device="gpu")
    del held
    torch.cuda.empty_cache()
    assert outcome.steps[0]["result"] == "out of memory"
    assert outcome.steps[-1] == step("cpu")
    assert (on_gpu == on_cpu).mean() > 0.999


def test_only_this_runs_models_are_seen_and_the_weights_folder_is_only_read(weights, tmp_path):
    folder = shutil.copytree(weights, tmp_path / "weights")
    # TotalSegmentator deletes these two from its weights folder, and nnU-Net cannot tell two datasets 297 apart.
    for outdated in ("Dataset302_vertebrae_body_1559subj", f"{WEIGHTS[3][0]}_v204"):
        (folder / outdated).mkdir()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for path in (folder, *before):
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        run(write_ct(tmp_path / "ct.nii.gz"), folder, resolution_mm=3)
    finally:
        for path in (folder, *before):
            path.chmod(path.stat().st_mode | 0o200)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_no_usage_statistics_and_nothing_else_leaves_the_machine(weights, tmp_path, monkeypatch):
    def no_network(*words, **_):
        raise AssertionError(f"the network was asked for {words}")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(requests.sessions.Session, "request", lambda *words, **_: calls.append(words))
    calls = []
    run(write_ct(tmp_path / "ct.nii.gz"), weights)
    assert calls == []


def test_a_full_disk_becomes_a_sentence(weights, tmp_path, monkeypatch):
    from totalsegmentator import python_api

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(python_api, "totalsegmentator", full)
    with pytest.raises(TheraflowError, match=r"no room left for temporary files.*TMPDIR"):
        run(write_ct(tmp_path / "ct.nii.gz"), weights)


def test_an_exit_of_totalsegmentator_becomes_a_sentence(weights, tmp_path, monkeypatch):
    from totalsegmentator import python_api

    def give_up(*_, **__):
        sys.exit("ERROR: no licence")

    monkeypatch.setattr(python_api, "totalsegmentator", give_up)
    with pytest.raises(TheraflowError, match=r"gave up \(ERROR: no licence\)"):
        run(write_ct(tmp_path / "ct.nii.gz"), weights)
