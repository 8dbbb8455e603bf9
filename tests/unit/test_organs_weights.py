"""Weights that are missing, broken off, or the miniature model's."""

import json
import shutil

import pytest
import requests
from threshold_model import write_threshold_model

from theraflow.errors import TheraflowError
from theraflow.files import read_json
from theraflow.organs import WEIGHTS, check_weights, fetch_weights
from theraflow.organs import weights as module
from theraflow.organs.weights import CHECKPOINT, MARK, MARKER, MINIATURES, sha256


@pytest.fixture(scope="session")
def threshold_weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_threshold_model(folder, 6)
    return folder


@pytest.fixture
def folder(threshold_weights, tmp_path):
    return shutil.copytree(threshold_weights, tmp_path / "weights")


def model_folder(folder):
    return next((folder / WEIGHTS[6][0]).glob("nnUNetTrainer*"))


def test_the_needed_datasets_are_totalsegmentators():
    from totalsegmentator.map_tasks_config import TASK_CONFIGS, TASK_ID_WEIGHTS_CONFIGS

    modes = TASK_CONFIGS["total"]["sub_modes"].values()
    expected = {}
    for mode in modes:
        numbers = mode["task_id"] if isinstance(mode["task_id"], list) else [mode["task_id"]]
        expected[mode["resample"]] = tuple(TASK_ID_WEIGHTS_CONFIGS[number]["foldername"] for number in numbers)
        assert all(module.DOWNLOADS.endswith(TASK_ID_WEIGHTS_CONFIGS[number]["version"]) for number in numbers)
    assert expected == WEIGHTS


def test_whole_weights_pass_with_their_hash(folder):
    (model,) = check_weights(folder, "total", 6)
    assert model.sha256 == sha256(model_folder(folder) / CHECKPOINT)
    assert not model.miniature


@pytest.mark.parametrize("resolution_mm", [1.5, 3])
def test_missing_weights_say_what_to_do(folder, resolution_mm):
    with pytest.raises(TheraflowError, match=r"are not in .*snakemake --cores 1 fetch_weights.*organs: weights"):
        check_weights(folder, "total", resolution_mm)


def truncated(model):
    checkpoint = model / CHECKPOINT
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])


@pytest.mark.parametrize(
    "damage",
    [
        lambda model: (model / CHECKPOINT).unlink(),
        truncated,
        lambda model: (model / "plans.json").unlink(),
        shutil.rmtree,
    ],
    ids=["no checkpoint", "truncated checkpoint", "no plans", "only the dataset folder"],
)
def test_half_unpacked_weights_are_refused(folder, damage):
    damage(model_folder(folder))
    with pytest.raises(TheraflowError, match=r"half unpacked: delete that folder, then run `snakemake"):
        check_weights(folder, "total", 6)


def test_two_models_in_one_dataset_are_refused(folder):
    shutil.copytree(model_folder(folder), model_folder(folder).with_name("nnUNetTrainer__other__3d_fullres"))
    with pytest.raises(TheraflowError, match="2 trained models"):
        check_weights(folder, "total", 6)


@pytest.mark.parametrize(("task", "resolution_mm"), [("total", 2), ("body", 6)])
def test_unknown_task_and_resolution_are_refused(folder, task, resolution_mm):
    with pytest.raises(TheraflowError, match=r"set organs:|set it to"):
        check_weights(folder, task, resolution_mm)


def mark_file(folder, _):
    (folder / WEIGHTS[6][0] / MARKER).write_text("{}")


def mark_json(name):
    def mark(folder, _):
        path = model_folder(folder) / name
        path.write_text(json.dumps({**read_json(path), MARK: True}))

    return mark


def mark_hash(folder, monkeypatch):
    digest = sha256(model_folder(folder) / CHECKPOINT)
    monkeypatch.setattr(module, "_shipped_miniatures", lambda: frozenset([digest]))


@pytest.mark.parametrize(
    "mark", [mark_file, mark_json("dataset.json"), mark_json("plans.json"), mark_hash],
    ids=["marker file", "dataset.json", "plans.json", "hash"],
)  # fmt: skip
def test_each_mark_alone_gives_the_miniature_away(folder, mark, monkeypatch):
    mark(folder, monkeypatch)
    assert check_weights(folder, "total", 6)[0].miniature


@pytest.mark.skipif(not list(MINIATURES.glob(f"*/{MARKER}")), reason="the repository holds no miniature model yet")
def test_the_shipped_miniature_is_known_by_every_mark(tmp_path):
    (model,) = check_weights(MINIATURES, "total", 6)
    marker = read_json(MINIATURES / model.dataset / MARKER)
    assert marker["sha256"] == model.sha256
    assert read_json(model.checkpoint.parents[1] / "dataset.json")[MARK] is True
    copy = shutil.copytree(MINIATURES / model.dataset, tmp_path / model.dataset)
    (copy / MARKER).unlink()
    for path in copy.glob("*/*.json"):
        path.write_text(json.dumps({key: value for key, value in read_json(path).items() if key != MARK}))
    assert check_weights(tmp_path, "total", 6)[0].miniature


def test_fetching_without_internet_says_what_to_do(tmp_path, monkeypatch, caplog):
    def unreachable(*_, **__):
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(requests, "get", unreachable)
    with pytest.raises(TheraflowError) as error:
        fetch_weights(tmp_path / "weights", "total", 3, tmp_path / "manifest.json")
    sentence = str(error.value)
    assert "could not be downloaded (ConnectionError, details in the log)" in sentence
    assert "no route to host" in caplog.text
    assert f"{module.DOWNLOADS}/{WEIGHTS[3][0]}.zip and unpack it in {tmp_path / 'weights'}." in sentence
    assert list((tmp_path / "weights").iterdir()) == []
    assert not (tmp_path / "manifest.json").exists()


def test_fetching_repairs_half_unpacked_weights(folder, tmp_path, monkeypatch):
    from totalsegmentator import libs

    published = shutil.copytree(folder, tmp_path / "published")
    truncated(model_folder(folder))
    asked = []

    def download(url, target):
        asked.append(url)
        shutil.copytree(published / WEIGHTS[6][0], target / WEIGHTS[6][0])

    monkeypatch.setattr(libs, "download_url_and_unpack", download)
    manifest = folder / "total_6mm.json"
    fetch_weights(folder, "total", 6, manifest)
    assert asked == [f"{module.DOWNLOADS}/{WEIGHTS[6][0]}.zip"]
    assert read_json(manifest)["checkpoint_sha256"] == {WEIGHTS[6][0]: check_weights(folder, "total", 6)[0].sha256}
    fetch_weights(folder, "total", 6, manifest)
    assert len(asked) == 1  # what is whole is not fetched again


def test_fetching_does_not_take_the_miniature_for_the_published_model(folder, tmp_path, monkeypatch):
    mark_file(folder, monkeypatch)
    with pytest.raises(TheraflowError, match="set organs: weights in the config to another folder"):
        fetch_weights(folder, "total", 6, tmp_path / "manifest.json")
