"""The real TotalSegmentator call, with a network set by hand whose truth is known: bright is liver."""

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
import SimpleITK as sitk
import torch
from threshold_model import write_threshold_model

from theraflow.errors import TheraflowError
from theraflow.images import read_image, read_sidecar, same_grid, to_array, write_image
from theraflow.organs import ORGAN_IDS, WEIGHTS, segment_organs
from theraflow.organs import segment as module
from theraflow.organs.devices import Attempt, Gpu
from theraflow.organs.weights import MARKER, sha256

LIVER = ORGAN_IDS["liver"]
CENTRE_MM, HALF_MM = np.array([-48.0, 30.0, 42.0]), np.array([36.0, 24.0, 30.0])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for resolution_mm in (3, 6):
        write_threshold_model(folder, resolution_mm)
    return folder


def write_ct(path, spacing_mm=(4.0, 4.0, 5.0), direction=None, virtual_patient=False):
    """A cube of water, 180 mm wide, with one bright box off its centre, on any axes."""
    direction = np.eye(3) if direction is None else np.asarray(direction, float)
    size = np.round(180.0 / np.array(spacing_mm)).astype(int)
    image = sitk.Image([int(n) for n in size], sitk.sitkInt16)
    image.SetSpacing(spacing_mm)
    image.SetDirection(direction.ravel())
    image.SetOrigin(tuple(-direction @ ((size - 1) / 2 * np.array(spacing_mm))))
    inside = (np.abs(positions(image) - CENTRE_MM) <= HALF_MM).all(axis=-1)
    ct = sitk.GetImageFromArray(np.where(inside, 1000, 20).astype(np.int16))
    ct.CopyInformation(image)
    sidecar = {
        "quantity": "HU",
        "unit": "HU",
        "patient": "P001",
        "scan": "fdg",
        "virtual_patient": virtual_patient,
    }
    write_image(ct, path, sidecar)
    return path


def positions(image):
    """LPS position in mm of every voxel, (z, y, x, 3)."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in image.GetSize()[::-1]), indexing="ij")
    index = np.stack([x, y, z], axis=-1) * np.array(image.GetSpacing())
    return index @ np.array(image.GetDirection()).reshape(3, 3).T + np.array(image.GetOrigin())


def run(ct, output, weights, **changes):
    settings = {"task": "total", "resolution_mm": 6, "device": "cpu", "weights": weights, "threads": 1}
    segment_organs(ct, output, **{**settings, **changes})
    return read_image(output), read_sidecar(output)


def step(device, result="done", reason=None, resolution_mm=6, force_split=False, own_process=False):
    """A step as the sidecar tells it."""
    return {
        "device": device,
        "resolution_mm": resolution_mm,
        "force_split": force_split,
        "own_process": own_process,
        "result": result,
        "reason": reason,
    }


AXES = {
    "LPS": np.eye(3),
    "RAS": np.diag([-1.0, -1.0, 1.0]),
    "feet first in the file": np.diag([1.0, 1.0, -1.0]),
    "sagittal": [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
    "tilted": [[1, 0, 0], [0, np.cos(0.1), -np.sin(0.1)], [0, np.sin(0.1), np.cos(0.1)]],
}


@pytest.mark.parametrize(
    ("axes", "resolution_mm"), [(axes, 6) for axes in AXES] + [("LPS", 3)], ids=lambda value: str(value)
)
def test_the_real_call_finds_the_bright_box_where_it_is(weights, tmp_path, monkeypatch, axes, resolution_mm):
    def no_worker(*_, **__):
        raise AssertionError("a worker process was started")

    monkeypatch.setattr(multiprocessing.context.SpawnProcess, "_Popen", no_worker)
    monkeypatch.setitem(sys.modules, "torchvision", None)  # any import of it fails
    monkeypatch.setenv("TOTALSEG_HOME_DIR", "/a/home/of/the/user")
    ct = write_ct(tmp_path / "ct.nii.gz", direction=AXES[axes])
    labels, sidecar = run(ct, tmp_path / "organs.nii.gz", weights, resolution_mm=resolution_mm)

    assert same_grid(labels, read_image(ct))
    array = to_array(labels)
    assert array.dtype == np.uint8
    assert set(np.unique(array)) == {0, LIVER}
    inside = array == LIVER
    assert np.allclose(positions(labels)[inside].mean(axis=0), CENTRE_MM, atol=3.0)
    volume_ml = inside.sum() * np.prod(labels.GetSpacing()) / 1000
    # The box is found on voxels of 6 or 3 mm, whose border lies within half a voxel of its faces.
    smallest, largest = (np.prod(2 * (HALF_MM + side * resolution_mm / 2)) / 1000 for side in (-1, 1))
    assert smallest <= volume_ml <= largest

    assert (sidecar["quantity"], sidecar["unit"]) == ("organ label", "TotalSegmentator id")
    assert sidecar["labels"]["5"] == "liver"
    assert (sidecar["patient"], sidecar["scan"]) == ("P001", "fdg")
    assert sidecar["device"] == "cpu"
    assert sidecar["steps"] == [step("cpu", resolution_mm=resolution_mm)]
    assert sidecar["gpu"] is None
    checkpoint = next((weights / WEIGHTS[resolution_mm][0]).glob("*/fold_0/checkpoint_final.pth"))
    assert sidecar["checkpoint_sha256"] == {WEIGHTS[resolution_mm][0]: sha256(checkpoint)}
    assert sidecar["miniature_model"] is False
    assert sidecar["virtual_patient"] is False
    assert os.environ["TOTALSEG_HOME_DIR"] == "/a/home/of/the/user"
    assert not {"TOTALSEG_WEIGHTS_PATH", "nnUNet_results"} & set(os.environ)


def test_the_output_is_quiet(weights, tmp_path, capfd):
    run(write_ct(tmp_path / "ct.nii.gz"), tmp_path / "organs.nii.gz", weights)
    assert capfd.readouterr().out == ""


@pytest.fixture
def miniature(weights, tmp_path):
    folder = shutil.copytree(weights, tmp_path / "miniature")
    (folder / WEIGHTS[6][0] / MARKER).write_text("{}")
    return folder


def test_the_miniature_is_refused_for_a_real_patient(miniature, tmp_path):
    ct = write_ct(tmp_path / "ct.nii.gz")
    with pytest.raises(TheraflowError) as error:
        run(ct, tmp_path / "organs.nii.gz", miniature)
    assert str(error.value) == (
        f"The miniature model in {miniature} knows only virtual patients, and {ct} is not one; "
        "set organs: weights to the published TotalSegmentator weights."
    )
    assert not (tmp_path / "organs.nii.gz").exists()


def test_the_miniature_runs_for_a_virtual_patient_and_says_so(miniature, tmp_path):
    ct = write_ct(tmp_path / "ct.nii.gz", virtual_patient=True)
    _, sidecar = run(ct, tmp_path / "organs.nii.gz", miniature)
    assert sidecar["miniature_model"] is True
    assert sidecar["virtual_patient"] is True


@pytest.mark.parametrize("word", ["true", 1, None])
def test_only_a_true_true_makes_a_virtual_patient(miniature, tmp_path, word):
    ct = write_ct(tmp_path / "ct.nii.gz", virtual_patient=word)
    with pytest.raises(TheraflowError, match="knows only virtual patients"):
        run(ct, tmp_path / "organs.nii.gz", miniature)


def test_a_gpu_that_is_not_there_is_not_replaced_silently(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    ct = write_ct(tmp_path / "ct.nii.gz")
    for device in ("gpu", "gpu:1"):
        with pytest.raises(TheraflowError, match="sees no GPU"):
            run(ct, tmp_path / "organs.nii.gz", weights, device=device)
    assert not (tmp_path / "organs.nii.gz").exists()


def test_a_gpu_that_torch_does_not_see_is_told(weights, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(module, "gpu_at_hand", lambda: True)
    _, sidecar = run(write_ct(tmp_path / "ct.nii.gz"), tmp_path / "organs.nii.gz", weights, device="auto")
    reason = f"torch {torch.__version__} does not see the GPU of this machine"
    assert sidecar["steps"] == [step("gpu", "not used", reason, resolution_mm=None), step("cpu")]
    assert reason in caplog.text


NO_MEMORY = "CUDA out of memory. Tried to allocate 20.00 GiB."


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU: the first calls on it raise what the test puts into the list, later ones run on the CPU.

    Gives the list of errors; its attribute `calls` tells what was called on the GPU.
    """

    class Errors(list):
        calls = ()

    errors, real = Errors(), module._totalsegmentator

    def call(ct, weights, resolution_mm, device, force_split):
        if device == "cpu":
            return real(ct, weights, resolution_mm, device, force_split)
        errors.calls += ((device, resolution_mm, force_split),)
        if errors:
            raise errors.pop(0)
        return real(ct, weights, resolution_mm, "cpu", force_split)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(module, "probe", lambda device: Gpu(device, "a test's GPU", 8000, 7000))
    monkeypatch.setattr(module, "_totalsegmentator", call)
    return errors


def write_long_ct(path):
    """Water 738 mm long, 123 slices of the 6 mm model, with a bright box across the cut at two thirds."""
    array = np.full((123, 20, 20), 20, np.int16)
    array[70:95, 5:12, 6:14] = 1000
    ct = sitk.GetImageFromArray(array)
    ct.SetSpacing((6.0, 6.0, 6.0))
    write_image(ct, path, {"quantity": "HU", "unit": "HU", "patient": "P001", "scan": "fdg"})
    return path, array == 1000


@pytest.mark.parametrize(("device", "name"), [("auto", "gpu:0"), ("gpu", "gpu:0"), ("gpu:1", "gpu:1")])
def test_the_gpu_that_was_asked_for_is_used(weights, tmp_path, gpu, device, name):
    _, sidecar = run(write_ct(tmp_path / "ct.nii.gz"), tmp_path / "organs.nii.gz", weights, device=device)
    assert gpu.calls == ((name, 6, False),)
    assert sidecar["device"] == name
    assert sidecar["device_wanted"] == device
    assert sidecar["gpu"] == {"device": name, "name": "a test's GPU", "memory_mib": 8000, "free_mib": 7000}
    assert sidecar["steps"] == [step(name)]


def test_a_long_ct_is_split_when_the_gpu_is_full(weights, tmp_path, gpu, caplog):
    gpu.append(torch.OutOfMemoryError(NO_MEMORY + "\nGPU 0 has a total capacity of 79 GiB"))
    ct, truth = write_long_ct(tmp_path / "ct.nii.gz")
    labels, sidecar = run(ct, tmp_path / "organs.nii.gz", weights, device="auto")
    assert sidecar["steps"] == [step("gpu:0", "out of memory", NO_MEMORY), step("gpu:0", force_split=True)]
    assert sidecar["higher_order_resampling"] is False
    assert NO_MEMORY in caplog.text
    found = to_array(labels) == LIVER  # TotalSegmentator joined its three parts again
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.99


@pytest.mark.parametrize("device", ["auto", "gpu"])
def test_a_short_ct_is_never_split_and_the_cpu_takes_over(weights, tmp_path, gpu, caplog, device):
    gpu.append(torch.OutOfMemoryError(NO_MEMORY))
    _, sidecar = run(write_ct(tmp_path / "ct.nii.gz"), tmp_path / "organs.nii.gz", weights, device=device)
    assert gpu.calls == (("gpu:0", 6, False),)
    assert sidecar["steps"] == [step("gpu:0", "out of memory", NO_MEMORY), step("cpu")]
    assert sidecar["device"] == "cpu"
    assert sidecar["resolution_mm"] == sidecar["resolution_wanted_mm"] == 6
    assert "out of memory on Attempt(device='gpu:0'" in caplog.text


def test_the_resolution_stays_unless_the_user_allows_less(weights, tmp_path, gpu):
    ct = write_ct(tmp_path / "ct.nii.gz")
    gpu.append(torch.OutOfMemoryError(NO_MEMORY))
    _, sidecar = run(ct, tmp_path / "organs.nii.gz", weights, device="auto", resolution_mm=3)
    assert sidecar["steps"] == [step("gpu:0", "out of memory", NO_MEMORY, 3), step("cpu", resolution_mm=3)]

    gpu.append(torch.OutOfMemoryError(NO_MEMORY))
    settings = {"device": "auto", "resolution_mm": 3, "lower_resolution": True}
    _, sidecar = run(ct, tmp_path / "organs.nii.gz", weights, **settings)
    assert sidecar["steps"] == [step("gpu:0", "out of memory", NO_MEMORY, 3), step("gpu:0")]
    assert (sidecar["resolution_mm"], sidecar["resolution_wanted_mm"]) == (6, 3)
    assert sidecar["model"] == list(WEIGHTS[6])
    assert list(sidecar["checkpoint_sha256"]) == list(WEIGHTS[6])


def test_the_whole_ladder_in_its_order(weights, tmp_path, gpu):
    gpu.extend(torch.OutOfMemoryError(NO_MEMORY) for _ in range(3))
    ct, _ = write_long_ct(tmp_path / "ct.nii.gz")
    settings = {"device": "auto", "resolution_mm": 3, "lower_resolution": True}
    _, sidecar = run(ct, tmp_path / "organs.nii.gz", weights, **settings)
    assert sidecar["steps"] == [
        step("gpu:0", "out of memory", NO_MEMORY, 3),
        step("gpu:0", "out of memory", NO_MEMORY, 3, force_split=True),
        step("gpu:0", "out of memory", NO_MEMORY, 6),
        step("cpu", resolution_mm=3),
    ]


def test_the_weights_of_the_lower_resolution_are_asked_for_before_anything_runs(weights, tmp_path, gpu):
    only_3_mm = tmp_path / "weights"
    shutil.copytree(weights / WEIGHTS[3][0], only_3_mm / WEIGHTS[3][0])
    settings = {"device": "auto", "resolution_mm": 3, "lower_resolution": True}
    with pytest.raises(TheraflowError, match=f"{WEIGHTS[6][0]} are not in"):
        run(write_ct(tmp_path / "ct.nii.gz"), tmp_path / "organs.nii.gz", only_3_mm, **settings)
    assert gpu.calls == ()


def test_after_a_cuda_error_the_cpu_runs_in_a_process_of_its_own(weights, tmp_path, gpu, monkeypatch):
    gpu.append(torch.AcceleratorError("CUDA error: an illegal memory access was encountered"))
    monkeypatch.setattr(module, "release_memory", lambda: pytest.fail("CUDA was touched again"))
    ct, truth = write_long_ct(tmp_path / "ct.nii.gz")
    labels, sidecar = run(ct, tmp_path / "organs.nii.gz", weights, device="auto", lower_resolution=True)
    assert len(gpu.calls) == 1  # neither split nor a coarser model is tried on a GPU that is lost
    reason = "CUDA error: an illegal memory access was encountered"
    assert sidecar["steps"] == [step("gpu:0", "device error", reason), step("cpu", own_process=True)]
    found = to_array(labels) == LIVER
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.99


def test_what_goes_wrong_in_the_process_of_its_own_is_told(weights, tmp_path, gpu):
    gpu.extend(torch.AcceleratorError("CUDA error: unspecified launch failure") for _ in range(2))
    ct = write_ct(tmp_path / "ct.nii.gz")
    ladder = (Attempt("gpu:0", 6), Attempt("cpu", 2.0))
    with pytest.raises(TheraflowError, match=r"resolution is 2\.0 in the config"):
        module._run_ladder(ct, weights, ladder, [])
    with pytest.raises(RuntimeError, match=r"process of its own ended with 2: .*invalid float value"):
        module._run_ladder(ct, weights, (Attempt("gpu:0", 6), Attempt("cpu", "six")), [])


def test_cuda_that_is_claimed_but_fails_is_found_by_the_probe(weights, tmp_path, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("CUDA works on this machine")
    apart = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(module, "_totalsegmentator_apart", lambda *words: apart.append(words) or read_image(words[0]))
    monkeypatch.setattr(module, "_totalsegmentator", lambda *_: pytest.fail("a model was loaded in this process"))
    ct = write_ct(tmp_path / "ct.nii.gz")
    _, sidecar = run(ct, tmp_path / "organs.nii.gz", weights, device="gpu")
    assert sidecar["steps"][0]["result"] == "device error"
    assert "CUDA" in sidecar["steps"][0]["reason"]
    assert sidecar["steps"][1] == step("cpu", own_process=True)
    assert sidecar["gpu"] is None
    assert apart == [(ct, weights, 6, "cpu", False)]


def test_a_gpu_full_at_the_probe_is_left_alone(weights, tmp_path, gpu, monkeypatch):
    def full(device):
        raise torch.OutOfMemoryError(NO_MEMORY)

    monkeypatch.setattr(module, "probe", full)
    ct, _ = write_long_ct(tmp_path / "ct.nii.gz")
    _, sidecar = run(ct, tmp_path / "organs.nii.gz", weights, device="auto")
    assert sidecar["steps"] == [step("gpu:0", "out of memory", NO_MEMORY), step("cpu")]
    assert gpu.calls == ()


def test_an_error_that_is_not_the_gpus_is_not_hidden(weights, tmp_path, gpu):
    gpu.append(ValueError("Unknown task"))
    with pytest.raises(ValueError, match="Unknown task"):
        run(write_ct(tmp_path / "ct.nii.gz"), tmp_path / "organs.nii.gz", weights, device="auto")
    assert len(gpu.calls) == 1


def test_the_last_rung_raises_whatever_it_is(weights, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError(NO_MEMORY)

    monkeypatch.setattr(module, "_totalsegmentator", full)
    with pytest.raises(torch.OutOfMemoryError):
        run(write_ct(tmp_path / "ct.nii.gz"), tmp_path / "organs.nii.gz", weights, device="cpu")


def test_apples_gpu_is_called_by_its_name(weights, tmp_path, gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(module, "release_memory", lambda: None)
    gpu.append(RuntimeError("MPS backend out of memory (MPS allocated: 18.00 GB)"))
    _, sidecar = run(write_ct(tmp_path / "ct.nii.gz"), tmp_path / "organs.nii.gz", weights, device="auto")
    assert [(s["device"], s["result"]) for s in sidecar["steps"]] == [("mps", "out of memory"), ("cpu", "done")]


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
            run(write_ct(tmp_path / "ct.nii.gz"), tmp_path / "organs.nii.gz", weights)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_gpu_that_is_really_full_falls_back(weights, tmp_path):
    ct = write_ct(tmp_path / "ct.nii.gz")
    run(ct, tmp_path / "gpu.nii.gz", weights, device="gpu")
    assert read_sidecar(tmp_path / "gpu.nii.gz")["device"] == "gpu:0"
    held, size = [], 2**30
    while size >= 2**16:
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device="cuda:0"))
        except torch.OutOfMemoryError:
            size //= 2
    _, sidecar = run(ct, tmp_path / "cpu.nii.gz", weights, device="gpu")
    del held
    torch.cuda.empty_cache()
    assert sidecar["steps"][0]["result"] == "out of memory"
    assert sidecar["steps"][-1] == step("cpu")
    same = to_array(read_image(tmp_path / "gpu.nii.gz")) == to_array(read_image(tmp_path / "cpu.nii.gz"))
    assert same.mean() > 0.999


def test_only_this_runs_models_are_seen_and_the_weights_folder_is_only_read(weights, tmp_path):
    folder = shutil.copytree(weights, tmp_path / "weights")
    # TotalSegmentator deletes these two from its weights folder, and nnU-Net cannot tell two datasets 297 apart.
    for outdated in ("Dataset302_vertebrae_body_1559subj", f"{WEIGHTS[3][0]}_v204"):
        (folder / outdated).mkdir()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for path in (folder, *before):
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        run(write_ct(tmp_path / "ct.nii.gz"), tmp_path / "organs.nii.gz", folder, resolution_mm=3)
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
    run(write_ct(tmp_path / "ct.nii.gz"), tmp_path / "organs.nii.gz", weights)
    assert calls == []


def test_a_full_disk_becomes_a_sentence(weights, tmp_path, monkeypatch):
    from totalsegmentator import python_api

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(python_api, "totalsegmentator", full)
    with pytest.raises(TheraflowError, match=r"disk was full .*TMPDIR"):
        run(write_ct(tmp_path / "ct.nii.gz"), tmp_path / "organs.nii.gz", weights)


def test_an_exit_of_totalsegmentator_becomes_a_sentence(weights, tmp_path, monkeypatch):
    from totalsegmentator import python_api

    def give_up(*_, **__):
        sys.exit("ERROR: no licence")

    monkeypatch.setattr(python_api, "totalsegmentator", give_up)
    with pytest.raises(TheraflowError, match=r"gave up on .*no licence"):
        run(write_ct(tmp_path / "ct.nii.gz"), tmp_path / "organs.nii.gz", weights)
