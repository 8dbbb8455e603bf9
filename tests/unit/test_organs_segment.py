"""Organs of a CT as a job makes them: the body cut out, a worker asked, the labels on the grid of the CT."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bright_box import CENTRE_MM, HALF_MM, LIVER, positions, write_ct

from theraflow.errors import TheraflowError
from theraflow.images import read_image, read_sidecar, same_grid, to_array, write_image
from theraflow.organs import WEIGHTS, segment_organs
from theraflow.organs import segment as module
from theraflow.organs.totalsegmentator.predict import Outcome
from theraflow.organs.totalsegmentator.weights import MARKER, private_home, sha256
from threshold_model import write_threshold_model

COMMAND = Path(__file__).parents[2] / "benchmarks" / "totalsegmentator_command.py"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for resolution_mm in (3, 6):
        write_threshold_model(folder, resolution_mm)
    return folder


def run(ct, output, weights, **changes):
    settings = {"task": "total", "resolution_mm": 6, "device": "cpu", "weights": weights, "threads": 1}
    segment_organs(ct, output, **{**settings, **changes})
    return read_image(output), read_sidecar(output)


def step(device, result="done", reason=None):
    return {"device": device, "resolution_mm": 6, "force_split": False, "result": result, "reason": reason}


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
def test_the_bright_box_is_found_where_it_is(weights, tmp_path, axes, resolution_mm):
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
    assert sidecar["device"] == sidecar["device_wanted"] == "cpu"
    assert sidecar["steps"] == [{**step("cpu"), "resolution_mm": resolution_mm}]
    assert sidecar["gpu"] is None
    assert sidecar["precision"] == "float32"
    assert sidecar["higher_order_resampling"] is True
    assert (sidecar["resolution_mm"], sidecar["resolution_wanted_mm"]) == (resolution_mm, resolution_mm)
    checkpoint = next((weights / WEIGHTS[resolution_mm][0]).glob("*/fold_0/checkpoint_final.pth"))
    assert sidecar["checkpoint_sha256"] == {WEIGHTS[resolution_mm][0]: sha256(checkpoint)}
    assert sidecar["miniature_model"] is False
    assert sidecar["virtual_patient"] is False


def write_ct_in_air(path, direction=None):
    """The water and its box with 100 to 200 mm of air on every side, and a thin couch beneath."""
    ct = read_image(write_ct(path, direction=direction))
    array = np.pad(to_array(ct), ((20, 40), (25, 50), (50, 25)), constant_values=-1000)
    array[:, -4, 10:-10] = 0
    image = module.image_of_crop(array, module.grid_of(ct), (-20, -25, -50))
    write_image(image, path, read_sidecar(path))
    return path


@pytest.mark.parametrize("axes", ["LPS", "RAS", "tilted"])
def test_air_is_cut_away_and_the_labels_stay_where_they_are(weights, tmp_path, axes, monkeypatch):
    seen, ask = [], module.ask

    def noted(request, *words, **named):
        seen.append(read_image(request.ct).GetSize())
        return ask(request, *words, **named)

    monkeypatch.setattr(module, "ask", noted)
    ct = write_ct_in_air(tmp_path / "ct.nii.gz", AXES[axes])
    labels, sidecar = run(ct, tmp_path / "organs.nii.gz", weights)
    whole = read_image(ct)
    assert same_grid(labels, whole)
    box = np.array(sidecar["body_box"])
    assert seen == [tuple(box[:, 1] - box[:, 0])]
    # The water is 180 mm wide, with 10 mm on each side, found on voxels of 4 or 5 mm.
    assert np.all((box[:, 1] - box[:, 0]) * whole.GetSpacing() <= 180 + 2 * 10 + 2 * 9)
    inside = to_array(labels) == LIVER
    assert np.allclose(positions(labels)[inside].mean(axis=0), CENTRE_MM, atol=3.0)


def test_only_the_organs_wanted_are_in_the_map(weights, tmp_path):
    ct = write_ct(tmp_path / "ct.nii.gz")
    labels, sidecar = run(ct, tmp_path / "organs.nii.gz", weights, organs=["liver", "kidneys"])
    assert set(np.unique(to_array(labels))) == {0, LIVER}
    assert sidecar["labels"] == {"2": "kidney_right", "3": "kidney_left", "5": "liver"}
    labels, sidecar = run(ct, tmp_path / "organs.nii.gz", weights, organs=["spleen"])
    assert not to_array(labels).any()
    with pytest.raises(TheraflowError, match="no organ 'lever'"):
        run(ct, tmp_path / "organs.nii.gz", weights, organs=["lever"])


@pytest.mark.parametrize("resolution_mm", [3, 6])
def test_the_labels_are_those_of_totalsegmentators_command(weights, tmp_path, resolution_mm):
    ct = write_ct(tmp_path / "ct.nii.gz", spacing_mm=(2.5, 2.5, 3.0))
    labels, sidecar = run(ct, tmp_path / "organs.nii.gz", weights, resolution_mm=resolution_mm)
    assert sidecar["body_box"] == [[0, n] for n in read_image(ct).GetSize()]  # nothing to cut away
    fast = {3: "--fast", 6: "--fastest"}[resolution_mm]
    command = [sys.executable, COMMAND, "-i", ct, "-o", tmp_path / "theirs.nii.gz", "--ml"]
    with private_home(weights / dataset for dataset in WEIGHTS[resolution_mm]):
        subprocess.run([*command, fast, "--higher_order_resampling", "--device", "cpu"], check=True)
    assert np.array_equal(to_array(labels), to_array(read_image(tmp_path / "theirs.nii.gz")))


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


def test_the_weights_of_the_lower_resolution_are_asked_for_before_anything_runs(weights, tmp_path, monkeypatch):
    only_3_mm = tmp_path / "weights"
    shutil.copytree(weights / WEIGHTS[3][0], only_3_mm / WEIGHTS[3][0])
    monkeypatch.setattr(module, "ask", lambda *_, **__: pytest.fail("a worker was asked"))
    settings = {"device": "auto", "resolution_mm": 3, "lower_resolution": True}
    with pytest.raises(TheraflowError, match=f"{WEIGHTS[6][0]} are not in"):
        run(write_ct(tmp_path / "ct.nii.gz"), tmp_path / "organs.nii.gz", only_3_mm, **settings)


def test_where_the_gpu_is_lost_another_process_takes_the_cpu(weights, tmp_path, monkeypatch):
    asked, ask = [], module.ask
    lost = Outcome([step("gpu:0", "device error", "CUDA error")], done=False)

    def first_lost(request, threads, **words):
        asked.append((request.device, words))
        return lost if len(asked) == 1 else ask(request, threads, **words)

    monkeypatch.setattr(module, "ask", first_lost)
    labels, sidecar = run(write_ct(tmp_path / "ct.nii.gz"), tmp_path / "organs.nii.gz", weights, device="auto")
    assert asked == [("auto", {"without_gpu": False}), ("cpu", {"without_gpu": True})]
    assert sidecar["steps"] == [*lost.steps, step("cpu")]
    assert (sidecar["device"], sidecar["device_wanted"]) == ("cpu", "auto")
    assert (to_array(labels) == LIVER).any()
