"""TotalSegmentator's weights on disk: which a run needs, whether they are whole, where they come from.

Layout of a weights folder: `{dataset}/{trainer}__{plans}__3d_fullres/` with plans.json, dataset.json and
fold_0/checkpoint_final.pth.

The repository ships a miniature model, trained on virtual patients alone, so that the demo and the tests run
the true TotalSegmentator code. It must never be taken for the real one: it is known by a marker file in the
dataset folder, by a key in its dataset.json or plans.json, or by the hash of its checkpoint. Any one of them
suffices.
"""

import errno
import hashlib
import logging
import os
import platform
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from theraflow.errors import TheraflowError
from theraflow.files import read_json, write_json

log = logging.getLogger(__name__)

# What each resolution (mm) of task total needs (totalsegmentator.map_tasks_config, release v2.0.0-weights): the dataset
# folders with the number of organs that each model knows, and the trainer in whose folder TotalSegmentator looks.
ORGANS: dict[float, dict[str, int]] = {
    1.5: {
        "Dataset291_TotalSegmentator_part1_organs_1559subj": 24,
        "Dataset292_TotalSegmentator_part2_vertebrae_1532subj": 26,
        "Dataset293_TotalSegmentator_part3_cardiac_1559subj": 18,
        "Dataset294_TotalSegmentator_part4_muscles_1559subj": 23,
        "Dataset295_TotalSegmentator_part5_ribs_1559subj": 26,
    },
    3.0: {"Dataset297_TotalSegmentator_total_3mm_1559subj": 117},
    6.0: {"Dataset298_TotalSegmentator_total_6mm_1559subj": 117},
}
WEIGHTS: dict[float, tuple[str, ...]] = {resolution_mm: tuple(names) for resolution_mm, names in ORGANS.items()}
TRAINERS: dict[float, str] = {
    1.5: "nnUNetTrainerNoMirroring",
    3.0: "nnUNetTrainer_4000epochs_NoMirroring",
    6.0: "nnUNetTrainer_4000epochs_NoMirroring",
}
# TotalSegmentator's tasks whose weights come only with a licence number (totalsegmentator.map_to_binary).
LICENSED = frozenset((
    "aorta_annulus", "aortic_dissection", "aortic_sinuses", "appendicular_bones", "appendicular_bones_mr",
    "brain_structures", "coronary_arteries", "coronary_arteries_LEGACY", "face", "face_mr", "heartchambers_highres",
    "pulmonary_artery_landmarks", "renal_arteries", "thigh_shoulder_muscles", "thigh_shoulder_muscles_mr",
    "tissue_4_types", "tissue_types", "tissue_types_mr",
))  # fmt: skip
DOWNLOADS = "https://github.com/wasserth/TotalSegmentator/releases/download/v2.0.0-weights"
CHECKPOINT = "fold_0/checkpoint_final.pth"
MARKER = "theraflow_miniature.json"
MARK = "theraflow_miniature"
MINIATURES = Path(__file__).resolve().parents[5] / "resources" / "miniature_weights"
STAGING = ".fetch_"
FETCH = "`snakemake --cores 1 fetch_weights`"
FETCH_AGAIN = "`snakemake --cores 1 --force fetch_weights`"


@dataclass(frozen=True)
class Model:
    """One trained network on disk.

    Attributes:
        dataset: name of its dataset folder, as `Dataset297_TotalSegmentator_total_3mm_1559subj`.
        checkpoint: path of checkpoint_final.pth.
        sha256: hash of the checkpoint.
        miniature: whether it knows only virtual patients.
    """

    dataset: str
    checkpoint: Path
    sha256: str
    miniature: bool

    @property
    def tile_mm(self) -> float:
        """The shortest edge of the tile of a CT that the network sees at a time; it would pad what is smaller."""
        plans = read_json(self.checkpoint.parents[1] / "plans.json")["configurations"]["3d_fullres"]
        return min(n * spacing for n, spacing in zip(plans["patch_size"], plans["spacing"], strict=True))


def needed_weights(task: str, resolution_mm: float) -> tuple[str, ...]:
    """Dataset folders that a run needs.

    Raises:
        TheraflowError: task or resolution is none that theraflow runs.
    """
    if task in LICENSED:
        raise TheraflowError(
            f"organs: task is {task} in the config, which TotalSegmentator gives only to holders of a licence number "
            f"(https://backend.totalsegmentator.com/license-academic/), and theraflow uses none: set organs: task to "
            f"total, or run that task yourself and name its label map in the column organs of scans.tsv."
        )
    if task != "total":
        raise TheraflowError(
            f"organs: task is {task!r} in the config, but only total is known; set organs: task to total."
        )
    if resolution_mm not in WEIGHTS:
        raise TheraflowError(f"organs: resolution is {resolution_mm} in the config; set it to 1.5, 3 or 6 (mm).")
    return WEIGHTS[resolution_mm]


def manifest_path(folder: Path | str, task: str, resolution_mm: float) -> Path:
    """The JSON beside the weights in which `fetch_weights` keeps the hash of every checkpoint that it fetched."""
    return Path(folder) / f"{task}_{resolution_mm:g}mm.json"


def check_weights(folder: Path | str, task: str, resolution_mm: float) -> list[Model]:
    """The models that a run needs, after a look at each: none missing, half unpacked, changed or another one.

    TotalSegmentator takes weights for present when their folder exists, so that it never repairs a download
    that broke off. A checkpoint is held against the hash that was written when it was fetched, or, where the weights
    were unpacked by hand, against the checksums that stand in it. The folder is only read.

    Args:
        folder: the weights folder, which holds the dataset folders.
        task: `total`.
        resolution_mm: 1.5, 3 or 6.

    Raises:
        TheraflowError: weights are missing, not whole, changed or wrong, or task or resolution is not known.
    """
    datasets = needed_weights(task, resolution_mm)
    manifest = manifest_path(folder, task, resolution_mm)
    fetched = read_json(manifest)["checkpoint_sha256"] if manifest.is_file() else {}
    return [_check(Path(folder) / dataset, resolution_mm, fetched.get(dataset)) for dataset in datasets]


def _check(dataset: Path, resolution_mm: float, fetched_sha256: str | None) -> Model:
    elsewhere = "set organs: weights in the config to where they are"
    if not dataset.is_dir():
        raise TheraflowError(f"The weights {dataset.name} are not in {dataset.parent}: run {FETCH}, or {elsewhere}.")
    model = dataset / f"{TRAINERS[resolution_mm]}__nnUNetPlans__3d_fullres"
    checkpoint = model / CHECKPOINT
    lacking = [
        path.relative_to(dataset)
        for path in (checkpoint, model / "plans.json", model / "dataset.json")
        if not path.is_file()
    ]
    # A checkpoint is a zip archive whose directory stands at its end: a file that broke off is none.
    if not lacking and not zipfile.is_zipfile(checkpoint):
        lacking = [f"the end of {checkpoint.relative_to(dataset)}"]
    if lacking:
        raise TheraflowError(
            f"The weights in {dataset} are only half unpacked ({', '.join(map(str, lacking))} missing): run "
            f"{FETCH_AGAIN}, which replaces them, or {elsewhere}."
        )
    digest = sha256(checkpoint)
    if fetched_sha256 is None:
        damaged = _damaged_record(checkpoint)
        if damaged:
            raise TheraflowError(
                f"{checkpoint} is damaged (in {damaged}): run {FETCH_AGAIN}, which replaces it, or {elsewhere}."
            )
    elif digest != fetched_sha256:
        raise TheraflowError(
            f"{checkpoint} is not the file that was fetched (its SHA-256 has changed): run {FETCH_AGAIN}, which "
            f"replaces it, or {elsewhere}."
        )
    organs = len(read_json(model / "dataset.json").get("labels", ())) - 1
    expected = ORGANS[resolution_mm][dataset.name]
    if organs != expected:
        raise TheraflowError(
            f"{model} holds another model: it knows {organs} organs and {dataset.name} has {expected}; run "
            f"{FETCH_AGAIN}, which replaces it, or {elsewhere}."
        )
    return Model(dataset.name, checkpoint, digest, _is_miniature(dataset, checkpoint, digest))


def _damaged_record(checkpoint: Path) -> str | None:
    """The first record of a checkpoint whose checksum is wrong."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        return str(error)


def _is_miniature(dataset: Path, checkpoint: Path, digest: str) -> bool:
    settings = (checkpoint.parents[1] / name for name in ("dataset.json", "plans.json"))
    return (
        (dataset / MARKER).exists()
        or any(read_json(path).get(MARK) is True for path in settings)
        or digest in _shipped_miniatures()
    )


@cache
def _shipped_miniatures() -> frozenset[str]:
    """Hashes of the miniature checkpoints that come with the repository."""
    return frozenset(read_json(marker)["sha256"] for marker in MINIATURES.glob(f"*/{MARKER}"))


def sha256(path: Path | str) -> str:
    """SHA-256 of a file, hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def private_home(datasets: Iterable[Path] = (), parent: Path | None = None) -> Iterator[Path]:
    """Let TotalSegmentator run with a home and a weights folder of its own, and without usage statistics.

    It rewrites its config.json at every call without a lock, so jobs that share a home crash each other; and it deletes
    models that it takes for outdated from its weights folder, so it sees links to the models of this run alone.

    Args:
        datasets: the dataset folders that it may see.
        parent: where the home is made; the system's temporary folder if None.

    Yields:
        the temporary home; the weights folder in it is `weights`.
    """
    names = (
        "TOTALSEG_HOME_DIR",
        "TOTALSEG_WEIGHTS_PATH",
        "nnUNet_raw",
        "nnUNet_preprocessed",
        "nnUNet_results",
    )
    before = {name: os.environ.get(name) for name in names}
    prefix = f"{STAGING}{platform.node()}_{os.getpid()}." if parent else "theraflow_totalsegmentator_"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as home:
        config = {"totalseg_id": "theraflow", "send_usage_stats": False, "prediction_counter": 0,
                  "statistics_disclaimer_shown": True}  # fmt: skip
        write_json(config, Path(home) / "config.json")
        weights = Path(home) / "weights"
        weights.mkdir()
        for dataset in datasets:
            (weights / dataset.name).symlink_to(dataset.resolve(), target_is_directory=True)
        os.environ.update({"TOTALSEG_HOME_DIR": home, "TOTALSEG_WEIGHTS_PATH": str(weights)})
        try:
            yield Path(home)
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def fetch_weights(folder: Path | str, task: str, resolution_mm: float, manifest: Path | str) -> None:
    """Download the published weights that are not yet in `folder`, by TotalSegmentator's own function.

    Each model is unpacked beside its place and moved there when it is whole; one that is half unpacked, damaged or
    changed is replaced. What a killed run left behind is removed. Whole weights are not touched.

    Args:
        folder: the weights folder.
        task: `total`.
        resolution_mm: 1.5, 3 or 6.
        manifest: JSON to write at the end, with the hash of every checkpoint (see `manifest_path`).

    Raises:
        TheraflowError: the download failed, the disk is full, the folder cannot be written, or it holds the miniature
            model.
    """
    folder = Path(folder)
    datasets = needed_weights(task, resolution_mm)
    known = read_json(manifest)["checkpoint_sha256"] if Path(manifest).is_file() else {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        models = [_fetch(folder / dataset, resolution_mm, known.get(dataset)) for dataset in datasets]
        checkpoints = {model.dataset: model.sha256 for model in models}
        write_json({"task": task, "resolution_mm": resolution_mm, "checkpoint_sha256": checkpoints}, manifest)
    except OSError as error:
        raise TheraflowError(
            f"The weights cannot be written to {folder} ({error.strerror}): {_way_out(error)}."
        ) from error


def _way_out(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some room there (up to 3 GB), or set organs: weights in the config to a folder on another disk"
    return "have somebody fetch them who may write there, or set organs: weights in the config to another folder"


def _remove_leftovers(folder: Path) -> None:
    """Remove the staging folders of runs on this machine that have ended; tell of others."""
    for path in folder.glob(f"{STAGING}*"):
        node, _, process = path.stem.removeprefix(STAGING).rpartition("_")
        if node == platform.node() and not _is_running(int(process)):
            shutil.rmtree(path)
        else:
            log.warning("%s belongs to process %s on %s: if that has ended, delete the folder.", path, process, node)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _fetch(place: Path, resolution_mm: float, fetched_sha256: str | None) -> Model:
    try:
        model = _check(place, resolution_mm, fetched_sha256)
    except TheraflowError as error:
        log.info(str(error))
    else:
        if model.miniature:
            raise TheraflowError(
                f"{place} holds the miniature model for virtual patients; set organs: weights in "
                f"the config to another folder for the published weights of TotalSegmentator."
            )
        return model
    with private_home(parent=place.parent) as home:
        fresh = home / "weights" / place.name
        _download(fresh, place.parent)
        _check(fresh, resolution_mm, None)
        if place.exists():
            place.rename(home / "replaced")
        fresh.rename(place)
    return _check(place, resolution_mm, None)


def _download(dataset: Path, folder: Path) -> None:
    """Download a model into TotalSegmentator's own weights folder of the moment."""
    from totalsegmentator import libs

    try:
        libs.download_pretrained_weights(int(dataset.name[len("Dataset") :][:3]))
    except (Exception, SystemExit) as error:  # whatever breaks off a download ends in the same advice
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        log.error("%s: %s", dataset.name, error)
        raise TheraflowError(
            f"The weights {dataset.name} could not be downloaded ({type(error).__name__}, details in the log); on "
            f"a machine with internet download {DOWNLOADS}/{dataset.name}.zip and unpack it in {folder}."
        ) from error
