"""Weights that are missing, broken off, or the miniature model's."""

import errno
import io
import json
import logging
import os
import platform
import shutil
import signal
import zipfile

import pytest
import requests

from theraflow.errors import TheraflowError
from theraflow.files import read_json
from theraflow.organs import WEIGHTS, check_weights, fetch_weights
from theraflow.organs.totalsegmentator import weights as module
from theraflow.organs.totalsegmentator.weights import (
    CHECKPOINT,
    LICENSED,
    MARK,
    MARKER,
    MINIATURES,
    ORGANS,
    STAGING,
    TRAINERS,
    manifest_path,
    needed_weights,
    private_home,
    sha256,
)
from threshold_model import write_threshold_model


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
    from totalsegmentator.map_to_binary import class_map, class_map_5_parts, map_taskid_to_partname_ct

    modes = TASK_CONFIGS["total"]["sub_modes"].values()
    datasets, organs = {}, {}
    for mode in modes:
        numbers = mode["task_id"] if isinstance(mode["task_id"], list) else [mode["task_id"]]
        datasets[mode["resample"]] = tuple(TASK_ID_WEIGHTS_CONFIGS[number]["foldername"] for number in numbers)
        parts = [class_map_5_parts[map_taskid_to_partname_ct[n]] if len(numbers) > 1 else class_map["total"]
                 for n in numbers]  # fmt: skip
        organs[mode["resample"]] = [len(part) for part in parts]
        assert all(module.DOWNLOADS.endswith(TASK_ID_WEIGHTS_CONFIGS[number]["version"]) for number in numbers)
    assert datasets == WEIGHTS
    assert organs == {resolution_mm: list(known.values()) for resolution_mm, known in ORGANS.items()}
    assert {mode["resample"]: mode["trainer"] for mode in modes} == TRAINERS


def test_tasks_that_need_a_licence_are_totalsegmentators():
    from totalsegmentator.map_tasks_config import TASK_CONFIGS
    from totalsegmentator.map_to_binary import commercial_models

    assert set(commercial_models) == LICENSED
    assert {task for task, settings in TASK_CONFIGS.items() if settings.get("commercial")} <= LICENSED


@pytest.mark.parametrize("task", sorted(LICENSED))
def test_a_task_that_needs_a_licence_is_refused_with_the_way_out(task):
    with pytest.raises(
        TheraflowError, match=f"task is {task} in .*licence number .*https://.*set organs: task to total"
    ):
        needed_weights(task, 3)


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


def rewritten(model):
    """The archive ends as it should, but one byte within is another: a bad disk."""
    checkpoint = model / CHECKPOINT
    with zipfile.ZipFile(checkpoint) as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
    content = bytearray(checkpoint.read_bytes())
    content[largest.header_offset + 200] ^= 1
    checkpoint.write_bytes(content)


HALF = {
    "no checkpoint": lambda model: (model / CHECKPOINT).unlink(),
    "truncated checkpoint": truncated,
    "empty checkpoint": lambda model: (model / CHECKPOINT).write_bytes(b""),
    "no plans": lambda model: (model / "plans.json").unlink(),
    "no dataset.json": lambda model: (model / "dataset.json").unlink(),
    "only the dataset folder": shutil.rmtree,
    "another trainer": lambda model: model.rename(model.with_name("nnUNetTrainer__nnUNetPlans__3d_fullres")),
}


@pytest.mark.parametrize("damage", HALF.values(), ids=HALF)
def test_half_unpacked_weights_are_refused_by_name(folder, damage):
    damage(model_folder(folder))
    with pytest.raises(TheraflowError, match=r"only half unpacked \(.* missing\): run `snakemake --cores 1 --force"):
        check_weights(folder, "total", 6)


def test_a_damaged_checkpoint_is_refused_without_any_manifest(folder):
    rewritten(model_folder(folder))
    with pytest.raises(TheraflowError, match=r"checkpoint_final\.pth is damaged \(in .*--force fetch_weights"):
        check_weights(folder, "total", 6)


def write_manifest(folder, digest):
    content = {"task": "total", "resolution_mm": 6, "checkpoint_sha256": {WEIGHTS[6][0]: digest}}
    manifest_path(folder, "total", 6).write_text(json.dumps(content))


def test_a_checkpoint_that_was_exchanged_after_it_was_fetched_is_refused(folder, tmp_path):
    write_manifest(folder, sha256(model_folder(folder) / CHECKPOINT))
    assert len(check_weights(folder, "total", 6)) == 1
    write_threshold_model(tmp_path / "other", 6, threshold_hu=100)
    shutil.copyfile(model_folder(tmp_path / "other") / CHECKPOINT, model_folder(folder) / CHECKPOINT)
    with pytest.raises(TheraflowError, match=r"is not the file that was fetched .*SHA-256"):
        check_weights(folder, "total", 6)


def test_a_model_of_other_organs_is_refused(folder):
    path = model_folder(folder) / "dataset.json"
    path.write_text(json.dumps({**read_json(path), "labels": {"background": 0, "liver": 1}}))
    with pytest.raises(TheraflowError, match=r"holds another model: it knows 1 organs and .* has 117"):
        check_weights(folder, "total", 6)


def test_a_second_trainer_beside_the_one_that_totalsegmentator_takes_does_no_harm(folder):
    shutil.copytree(model_folder(folder), model_folder(folder).with_name("nnUNetTrainer__nnUNetPlans__3d_fullres"))
    (model,) = check_weights(folder, "total", 6)
    assert model.checkpoint.parents[1].name == f"{TRAINERS[6]}__nnUNetPlans__3d_fullres"


def test_the_home_of_a_run_is_private_and_quiet(folder, monkeypatch):
    from totalsegmentator import config

    monkeypatch.setenv("TOTALSEG_HOME_DIR", "/a/home/of/the/user")
    posted = []
    monkeypatch.setattr(requests, "post", lambda *words, **_: posted.append(words))
    with private_home([folder / WEIGHTS[6][0]]) as home:
        assert config.get_totalseg_dir() == home
        assert config.setup_totalseg()["send_usage_stats"] is False
        assert config.get_config_key("statistics_disclaimer_shown") is True
        config.send_usage_stats(config.increase_prediction_counter(), {"roi_subset": None})
        assert [path.name for path in config.get_weights_dir().iterdir()] == [WEIGHTS[6][0]]
    assert posted == []
    assert not home.exists()
    assert (folder / WEIGHTS[6][0]).is_dir()
    assert os.environ["TOTALSEG_HOME_DIR"] == "/a/home/of/the/user"


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


class Response(io.BytesIO):
    """What `requests.get` gives for the archive of the 6 mm model, some files of it changed."""

    def __init__(self, weights, changes, begun):
        super().__init__()
        self.begun = begun
        with zipfile.ZipFile(self, "w") as archive:
            for path in sorted((weights / WEIGHTS[6][0]).rglob("*")):
                if path.is_file():
                    archive.writestr(str(path.relative_to(weights)), changes.get(path.name, path.read_bytes()))
        self.headers = {"content-length": str(self.tell())}
        self.seek(0)

    def raise_for_status(self):
        pass

    def iter_content(self, chunk_size):
        self.begun()
        while chunk := self.read(chunk_size):
            yield chunk


@pytest.fixture
def published(threshold_weights, monkeypatch):
    """The publisher of the 6 mm model: the list of what was asked for.

    `changes` are files that it gives another content, `cut` is how much of the archive arrives, and `begun` is called
    when a download has begun.
    """

    class Asked(list):
        changes, cut, begun = {}, None, staticmethod(lambda: None)

    asked = Asked()

    def get(url, **_):
        asked.append(url)
        response = Response(threshold_weights, asked.changes, asked.begun)
        if asked.cut is not None:
            response.truncate(asked.cut)
        return response

    monkeypatch.setattr(requests, "get", get)
    return asked


def fetch(folder):
    manifest = manifest_path(folder, "total", 6)
    fetch_weights(folder, "total", 6, manifest)
    return read_json(manifest)


def test_weights_are_fetched_once_with_their_hash(tmp_path, published, threshold_weights):
    folder = tmp_path / "weights"
    digest = sha256(model_folder(threshold_weights) / CHECKPOINT)
    expected = {"task": "total", "resolution_mm": 6, "checkpoint_sha256": {WEIGHTS[6][0]: digest}}
    assert fetch(folder) == expected
    assert published == [f"{module.DOWNLOADS}/{WEIGHTS[6][0]}.zip"]
    assert sorted(path.name for path in folder.iterdir()) == [WEIGHTS[6][0], "total_6mm.json"]
    assert fetch(folder) == expected
    assert len(published) == 1


@pytest.mark.parametrize("damage", [*HALF.values(), rewritten], ids=[*HALF, "damaged"])
def test_fetching_repairs_what_is_half_or_damaged(folder, published, damage):
    damage(model_folder(folder))
    fetch(folder)
    assert len(published) == 1
    assert check_weights(folder, "total", 6)
    assert sorted(path.name for path in folder.iterdir()) == [WEIGHTS[6][0], "total_6mm.json"]


def test_fetching_replaces_what_is_not_what_was_fetched(folder, published):
    write_manifest(folder, "0" * 64)
    fetch(folder)
    assert len(published) == 1
    assert check_weights(folder, "total", 6)


@pytest.mark.parametrize("cut", [0, 1000])
def test_a_download_that_breaks_off_leaves_nothing(tmp_path, published, cut):
    folder = tmp_path / "weights"
    published.cut = cut
    with pytest.raises(TheraflowError, match=r"could not be downloaded \(BadZipFile"):
        fetch(folder)
    assert list(folder.iterdir()) == []


def test_another_model_under_the_name_is_refused_and_what_was_there_stays(folder, published):
    truncated(model_folder(folder))
    before = (model_folder(folder) / CHECKPOINT).read_bytes()
    published.changes = {"dataset.json": json.dumps({"labels": {"background": 0}})}
    with pytest.raises(TheraflowError, match="holds another model"):
        fetch(folder)
    assert (model_folder(folder) / CHECKPOINT).read_bytes() == before
    assert [path.name for path in folder.iterdir()] == [WEIGHTS[6][0]]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_where_and_leaves_nothing(tmp_path, published, number):
    def full():
        raise OSError(number, os.strerror(number))

    published.begun = full
    folder = tmp_path / "weights"
    with pytest.raises(TheraflowError) as error:
        fetch(folder)
    assert str(error.value).startswith(f"The weights cannot be written to {folder} ({os.strerror(number)}): free some")
    assert "download" not in str(error.value)
    assert list(folder.iterdir()) == []


def test_a_folder_that_may_not_be_written_says_who_can_help(folder, published, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module.tempfile, "TemporaryDirectory", refuse)
    truncated(model_folder(folder))
    with pytest.raises(
        TheraflowError, match=r"cannot be written to .* \(Permission denied\): have somebody fetch them"
    ):
        fetch(folder)


def test_a_fetch_that_was_killed_half_way_is_begun_again(tmp_path, published, threshold_weights):
    folder = tmp_path / "weights"
    child = os.fork()
    if child == 0:
        published.begun = lambda: os.kill(os.getpid(), signal.SIGKILL)
        try:
            fetch(folder)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (leftover,) = folder.iterdir()
    assert leftover.name.startswith(f"{STAGING}{platform.node()}_{child}.")
    with pytest.raises(TheraflowError, match="are not in"):
        check_weights(folder, "total", 6)
    fetch(folder)
    assert sorted(path.name for path in folder.iterdir()) == [WEIGHTS[6][0], "total_6mm.json"]
    assert check_weights(folder, "total", 6)


def test_another_fetch_that_is_running_is_left_alone(tmp_path, published, caplog):
    folder = tmp_path / "weights"
    others = [folder / f"{STAGING}{platform.node()}_{os.getppid()}.abc", folder / f"{STAGING}another.node_12.abc"]
    for other in others:
        other.mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        fetch(folder)
    assert all(other.is_dir() and str(other) in caplog.text for other in others)


def test_fetching_does_not_take_the_miniature_for_the_published_model(folder, tmp_path, monkeypatch):
    mark_file(folder, monkeypatch)
    with pytest.raises(TheraflowError, match="set organs: weights in the config to another folder"):
        fetch_weights(folder, "total", 6, tmp_path / "manifest.json")
