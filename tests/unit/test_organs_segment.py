"""The real TotalSegmentator call, with a network set by hand whose truth is known: bright is liver."""

import multiprocessing
import os
import shutil
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from threshold_model import write_threshold_model

from theraflow.errors import TheraflowError
from theraflow.images import read_image, read_sidecar, same_grid, to_array, write_image
from theraflow.organs import ORGAN_IDS, WEIGHTS, segment_organs
from theraflow.organs import segment as module
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
    assert sidecar["steps"] == [{"device": "cpu", "result": "done"}]
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
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ct = write_ct(tmp_path / "ct.nii.gz")
    with pytest.raises(TheraflowError, match="torch sees no GPU"):
        run(ct, tmp_path / "organs.nii.gz", weights, device="gpu")
    with pytest.raises(TheraflowError, match="auto, gpu, cpu"):
        run(ct, tmp_path / "organs.nii.gz", weights, device="cuda")


@pytest.fixture
def full_gpu(monkeypatch):
    """A GPU whose every use raises the error that the test puts into the list."""
    import torch

    errors, real = [], module._totalsegmentator

    def call(ct, weights, resolution_mm, device):
        if device == "gpu":
            raise errors[0]
        return real(ct, weights, resolution_mm, device)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module, "_totalsegmentator", call)
    return errors


@pytest.mark.parametrize("device", ["auto", "gpu"])
def test_the_cpu_takes_over_when_the_gpu_is_full(weights, tmp_path, full_gpu, caplog, device):
    import torch

    full_gpu.append(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."))
    ct = write_ct(tmp_path / "ct.nii.gz")
    _, sidecar = run(ct, tmp_path / "organs.nii.gz", weights, device=device)
    assert sidecar["device"] == "cpu"
    assert sidecar["device_wanted"] == device
    assert sidecar["steps"] == [
        {"device": "gpu", "result": "out of memory"},
        {"device": "cpu", "result": "done"},
    ]
    assert "CPU takes over" in caplog.text


def test_other_gpu_errors_are_not_hidden(weights, tmp_path, full_gpu):
    full_gpu.append(RuntimeError("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        run(write_ct(tmp_path / "ct.nii.gz"), tmp_path / "organs.nii.gz", weights, device="auto")


def test_an_exit_of_totalsegmentator_becomes_a_sentence(weights, tmp_path, monkeypatch):
    from totalsegmentator import python_api

    def give_up(*_, **__):
        sys.exit("ERROR: no licence")

    monkeypatch.setattr(python_api, "totalsegmentator", give_up)
    with pytest.raises(TheraflowError, match=r"gave up on .*no licence"):
        run(write_ct(tmp_path / "ct.nii.gz"), tmp_path / "organs.nii.gz", weights)
