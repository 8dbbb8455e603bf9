"""Training the miniature model: repeated, it gives the same file; its loss is taken where logits are delivered."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from theraflow.organs.totalsegmentator.weights import MARKER, MINIATURES

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "train_miniature_model.py"


@pytest.fixture(scope="module")
def script():
    specification = importlib.util.spec_from_file_location("train_miniature_model", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_two_short_trainings_give_the_same_file(tmp_path):
    hashes = []
    for run in ("first", "second"):
        command = [sys.executable, SCRIPT, "--output", tmp_path / run, "--phantoms", "2", "--iterations", "5"]
        subprocess.run(list(map(str, command)), check=True)
        (marker,) = (tmp_path / run).glob(f"*/{MARKER}")
        hashes.append(json.loads(marker.read_text())["sha256"])
    assert hashes[0] == hashes[1]


def test_the_shipped_model_is_small_and_says_how_it_was_trained():
    (checkpoint,) = MINIATURES.rglob("checkpoint_final.pth")
    assert checkpoint.stat().st_size < 10 * 2**20
    (marker,) = MINIATURES.glob(f"*/{MARKER}")
    training = json.loads(marker.read_text())["training"]
    assert {"phantoms", "iterations", "threads", "torch", "numpy", "scipy"} <= set(training)


@pytest.mark.parametrize("offset", [(0, 0, 0), (1, 0, 0), (0, 1, 1), (1, 1, 1)])
def test_logits_between_the_voxels_are_those_of_a_linear_map(script, offset):
    """A function linear in z, y and x is met exactly."""
    torch = pytest.importorskip("torch")
    z, y, x = np.meshgrid(*map(np.arange, (5, 6, 7)), indexing="ij")
    values = torch.from_numpy(np.stack([2.0 * z - y + 3.0 * x, x * 1.0])[None])
    target = torch.arange(5 * 6 * 7).reshape(1, 5, 6, 7)
    found, labels = script.between(values, target, offset)
    shift = np.array(offset) / 2
    expected = values[0, 0] + 2.0 * shift[0] - shift[1] + 3.0 * shift[2]
    part = tuple(slice(0, n - o) for n, o in zip((5, 6, 7), offset, strict=True))
    assert torch.allclose(found[0, 0], expected[part])
    assert torch.equal(labels[0], target[0][part])


def test_a_target_lies_half_a_voxel_off_its_image(script):
    """A phantom of two halves: without blur, texture and noise its border is where the labels say."""
    rng = np.random.default_rng(0)
    for axis in range(3):
        labels = np.full((200, 120, 150), 5, np.uint8)
        labels[(slice(None),) * axis + (slice(labels.shape[axis] // 2, None),)] = 10  # liver below, lung above
        seen = set()
        for _ in range(12):
            image, target, offset = script.draw_sample(labels, rng)
            lung_in_image = (image < -400) & (image > -950)
            middle = tuple(n // 2 if k != axis else slice(None) for k, n in enumerate(script.PATCH))
            first = [np.flatnonzero(line)[:1] for line in (lung_in_image[middle], target[middle] == 10)]
            if all(len(f) and f[0] > 3 for f in first):
                seen.add((offset[axis], int(first[0][0] - first[1][0])))
        # Without offset both begin at the same voxel, to one voxel of blur; with it, the target begins never later.
        assert seen and all(abs(step) <= 1 if half == 0 else 0 <= step <= 1 for half, step in seen)
