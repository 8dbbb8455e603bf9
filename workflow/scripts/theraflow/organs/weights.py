"""TotalSegmentator's weights on disk: which a run needs, whether they are whole, where they come from.

Layout of a weights folder: `{dataset}/{trainer}__{plans}__3d_fullres/` with plans.json, dataset.json and
fold_0/checkpoint_final.pth.

The repository ships a miniature model, trained on virtual patients alone, so that the demo and the tests run
the true TotalSegmentator code. It must never be taken for the real one: it is known by a marker file in the
dataset folder, by a key in its dataset.json or plans.json, or by the hash of its checkpoint. Any one of them
suffices.
"""

import hashlib
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from theraflow.errors import TheraflowError
from theraflow.files import read_json, write_json

log = logging.getLogger(__name__)

# What each resolution (mm) of task total needs (totalsegmentator.map_tasks_config, release v2.0.0-weights).
WEIGHTS: dict[float, tuple[str, ...]] = {
    1.5: (
        "Dataset291_TotalSegmentator_part1_organs_1559subj",
        "Dataset292_TotalSegmentator_part2_vertebrae_1532subj",
        "Dataset293_TotalSegmentator_part3_cardiac_1559subj",
        "Dataset294_TotalSegmentator_part4_muscles_1559subj",
        "Dataset295_TotalSegmentator_part5_ribs_1559subj",
    ),
    3.0: ("Dataset297_TotalSegmentator_total_3mm_1559subj",),
    6.0: ("Dataset298_TotalSegmentator_total_6mm_1559subj",),
}
DOWNLOADS = "https://github.com/wasserth/TotalSegmentator/releases/download/v2.0.0-weights"
CHECKPOINT = "fold_0/checkpoint_final.pth"
MARKER = "theraflow_miniature.json"
MARK = "theraflow_miniature"
MINIATURES = Path(__file__).resolve().parents[4] / "resources" / "miniature_weights"


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


def needed_weights(task: str, resolution_mm: float) -> tuple[str, ...]:
    """Dataset folders that a run needs.

    Raises:
        TheraflowError: task or resolution is none that theraflow runs.
    """
    if task != "total":
        raise TheraflowError(
            f"organs: task is {task!r} in the config, but only total is known; set organs: task to total."
        )
    if resolution_mm not in WEIGHTS:
        raise TheraflowError(f"organs: resolution is {resolution_mm} in the config; set it to 1.5, 3 or 6 (mm).")
    return WEIGHTS[resolution_mm]


def check_weights(folder: Path | str, task: str, resolution_mm: float) -> list[Model]:
    """The models that a run needs, after a look at each: none missing, none half unpacked.

    TotalSegmentator takes weights for present when their folder exists, so that it never repairs a download
    that broke off.

    Args:
        folder: the weights folder, which holds the dataset folders.
        task: `total`.
        resolution_mm: 1.5, 3 or 6.

    Raises:
        TheraflowError: weights are missing or not whole, or task or resolution is not known.
    """
    return [_check(Path(folder) / dataset) for dataset in needed_weights(task, resolution_mm)]


def _check(dataset: Path) -> Model:
    remedy = "run `snakemake --cores 1 fetch_weights`, or set organs: weights in the config to where they are"
    if not dataset.is_dir():
        raise TheraflowError(f"The weights {dataset.name} are not in {dataset.parent}: {remedy}.")
    checkpoints = sorted(dataset.glob(f"*/{CHECKPOINT}"))
    # A checkpoint is a zip archive whose directory stands at its end: a file that broke off is none.
    whole = [
        path
        for path in checkpoints
        if zipfile.is_zipfile(path)
        and all((path.parents[1] / name).is_file() for name in ("plans.json", "dataset.json"))
    ]
    if not whole:
        raise TheraflowError(f"The weights in {dataset} are only half unpacked: delete that folder, then {remedy}.")
    if len(whole) > 1:
        raise TheraflowError(
            f"{dataset} holds {len(whole)} trained models, and it is not clear which is meant: keep one of "
            f"{', '.join(path.parents[1].name for path in whole)}."
        )
    digest = sha256(whole[0])
    return Model(dataset.name, whole[0], digest, _is_miniature(dataset, whole[0], digest))


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
def private_home(weights: Path | str) -> Iterator[Path]:
    """Let TotalSegmentator run with a home of its own, without usage statistics, and with these weights.

    It rewrites its config.json at every call without a lock, so jobs that share a home crash each other.

    Yields:
        the temporary home.
    """
    names = (
        "TOTALSEG_HOME_DIR",
        "TOTALSEG_WEIGHTS_PATH",
        "nnUNet_raw",
        "nnUNet_preprocessed",
        "nnUNet_results",
    )
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory(prefix="theraflow_totalsegmentator_") as home:
        config = {"totalseg_id": "theraflow", "send_usage_stats": False, "prediction_counter": 0,
                  "statistics_disclaimer_shown": True}  # fmt: skip
        write_json(config, Path(home) / "config.json")
        os.environ.update({"TOTALSEG_HOME_DIR": home, "TOTALSEG_WEIGHTS_PATH": str(Path(weights).resolve())})
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

    Each model is unpacked beside its place and moved there when it is whole; a half unpacked one is replaced.

    Args:
        folder: the weights folder.
        task: `total`.
        resolution_mm: 1.5, 3 or 6.
        manifest: JSON to write at the end, with the hash of every checkpoint.

    Raises:
        TheraflowError: the download failed, or `folder` holds the miniature model.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    models = [_fetch(folder, dataset) for dataset in needed_weights(task, resolution_mm)]
    checkpoints = {model.dataset: model.sha256 for model in models}
    write_json({"task": task, "resolution_mm": resolution_mm, "checkpoint_sha256": checkpoints}, manifest)


def _fetch(folder: Path, dataset: str) -> Model:
    try:
        model = _check(folder / dataset)
    except TheraflowError as error:
        log.info(str(error))
    else:
        if model.miniature:
            raise TheraflowError(
                f"{folder / dataset} holds the miniature model for virtual patients; set organs: weights in "
                f"the config to another folder for the published weights of TotalSegmentator."
            )
        return model
    with tempfile.TemporaryDirectory(prefix=".fetch_", dir=folder) as staging:
        _download(dataset, Path(staging))
        _check(Path(staging) / dataset)
        shutil.rmtree(folder / dataset, ignore_errors=True)
        (Path(staging) / dataset).rename(folder / dataset)
    return _check(folder / dataset)


def _download(dataset: str, folder: Path) -> None:
    from totalsegmentator import libs

    number = int(dataset[len("Dataset") :][:3])
    try:
        with private_home(folder):
            libs.download_pretrained_weights(number)
    except (Exception, SystemExit) as error:  # whatever breaks off a download ends in the same advice
        log.error("%s: %s", dataset, error)
        raise TheraflowError(
            f"The weights {dataset} could not be downloaded ({type(error).__name__}, details in the log); on "
            f"a machine with internet download {DOWNLOADS}/{dataset}.zip and unpack it in {folder.parent}."
        ) from error
