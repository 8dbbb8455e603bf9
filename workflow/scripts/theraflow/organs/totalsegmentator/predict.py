"""TotalSegmentator's function, called in this process: one way after the other, as long as it is the GPU that fails.

It changes nnU-Net and the environment of the process for good, and is therefore called in a worker (see `worker`).
"""

import contextlib
import importlib.metadata
import io
import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.files import temporary_room
from theraflow.organs.totalsegmentator.devices import (
    DEVICE_ERROR,
    ROUGH_MM,
    Attempt,
    Gpu,
    attempts,
    failure,
    find_gpu,
    gpu_at_hand,
    probe,
    release_memory,
)
from theraflow.organs.totalsegmentator.weights import needed_weights, private_home

log = logging.getLogger(__name__)

# Resolutions (mm) whose logits, rather than labels, are resampled to the CT: smoother organs, at 6 mm by 0.02 to
# 0.04 of Dice for organs of a kidney's size, for some 10 s a scan. At 1.5 mm the gain is small.
SMOOTH = (3.0, 6.0)
# Instructions of a CPU for bfloat16, as Linux names them; elsewhere PyTorch computes it more slowly than float32.
BFLOAT16 = re.compile(r"\b(avx512_bf16|amx_bf16|bf16)\b")
PROCESSOR = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Request:
    """One CT to segment.

    Attributes:
        ct: NIfTI file, HU.
        output: NIfTI label map to write, uint8 on the grid of `ct`.
        weights: folder of the weights; it is only read.
        task: TotalSegmentator's task, `total`.
        resolution_mm: 1.5, 3 or 6.
        device: as in the configuration: `auto`, `gpu`, `gpu:1`, `cpu`.
        lower_resolution: whether the next coarser model may run where a GPU's memory does not suffice.
        organs: those wanted; none means all.
        bfloat16: whether a CPU computes in bfloat16, if it has it.
    """

    ct: str
    output: str
    weights: str
    task: str
    resolution_mm: float
    device: str
    lower_resolution: bool = False
    organs: tuple[str, ...] = ()
    bfloat16: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a request.

    Attributes:
        steps: what was tried, in order, each with its device, resolution, result and reason.
        done: whether the label map was written. If not, a device error has lost the GPU to this process.
        gpu: the GPU that was probed.
        precision: in which the network computed: `float32`, `float16` (mixed, on a GPU) or `bfloat16` (mixed).
        smooth: whether logits were resampled to the CT, not labels.
    """

    steps: list[dict[str, Any]]
    done: bool
    gpu: Gpu | None = None
    precision: str | None = None
    smooth: bool | None = None


def predict(request: Request) -> Outcome:
    """Segment a CT on the GPU that there is, with less where its memory does not suffice, or on the CPU.

    Raises:
        TheraflowError: a GPU is wanted but there is none, the disk is full, or TotalSegmentator gave up.
    """
    device, gpu, steps = find_gpu(request.device), None, []
    if request.device == "auto" and device is None and gpu_at_hand():
        reason = f"torch {importlib.metadata.version('torch')} does not see the GPU of this machine"
        log.warning("The CPU segments the organs: %s.", reason)
        steps.append(_step(Attempt("gpu", None), "not used", reason))
    ways = list(attempts(device, request.resolution_mm, _length_mm(request.ct), request.lower_resolution))
    while True:
        attempt = ways.pop(0)
        on_gpu = attempt.device != "cpu"
        try:
            if on_gpu and gpu is None:
                gpu = probe(attempt.device)
                log.info("%s: %s, %s of %s MiB free", gpu.device, gpu.name, gpu.free_mib, gpu.memory_mib)
            call_totalsegmentator(request, attempt)
        except Exception as error:
            result = failure(error) if on_gpu else None
            if result is None:
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        else:
            smooth = _is_smooth(attempt.resolution_mm, attempt.force_split)
            precision = _precision(attempt.device, request.bfloat16)
            return Outcome([*steps, _step(attempt, "done", None)], True, gpu, precision, smooth)
        log.warning("%s on %s (%s); the next way is tried.", result, attempt, reason)
        steps.append(_step(attempt, result, reason))
        if result == DEVICE_ERROR:
            return Outcome(steps, False, gpu)
        release_memory()
        if gpu is None:  # a GPU without memory for the probe has none for any model
            ways = ways[-1:]


def _step(attempt: Attempt, result: str, reason: str | None) -> dict[str, Any]:
    return {**asdict(attempt), "result": result, "reason": reason}


def _length_mm(ct: str) -> float:
    """How far an image reaches along the axis that runs from head to feet."""
    header = sitk.ImageFileReader()
    header.SetFileName(ct)
    header.ReadImageInformation()
    along_body = [abs(component) for component in header.GetDirection()[6:]]
    axis = along_body.index(max(along_body))
    return header.GetSize()[axis] * header.GetSpacing()[axis]


def _is_smooth(resolution_mm: float, force_split: bool) -> bool:
    """Whether logits are resampled: not where the CT is split, because the parts then overlap by slices of the CT, of
    the model otherwise, and 20 thin slices of a CT are too little to see what organ a cut goes through."""
    return resolution_mm in SMOOTH and not force_split


def _precision(device: str, bfloat16: bool) -> str:
    if device == "cpu":
        return "bfloat16" if bfloat16 and has_bfloat16() else "float32"
    return "float32" if device == "mps" else "float16"


def has_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16."""
    return PROCESSOR.is_file() and BFLOAT16.search(PROCESSOR.read_text()) is not None


def call_totalsegmentator(request: Request, attempt: Attempt) -> None:
    """Let TotalSegmentator write the label map of a request."""
    prepare_nnunet()
    import torch
    from totalsegmentator.python_api import totalsegmentator

    # At 6 mm its crop to the organs would cost the same network once more.
    organs = list(request.organs) if request.organs and attempt.resolution_mm < ROUGH_MM else None
    datasets = needed_weights(request.task, attempt.resolution_mm)
    if organs:
        datasets += needed_weights(request.task, ROUGH_MM)
    precision = _precision(attempt.device, request.bfloat16)
    with (
        private_home(Path(request.weights) / dataset for dataset in datasets),
        contextlib.redirect_stdout(_ToLog()),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"),
        temporary_room(),
    ):
        try:
            totalsegmentator(
                request.ct,
                request.output,
                ml=True,
                task=request.task,
                fast=attempt.resolution_mm == 3.0,
                fastest=attempt.resolution_mm == 6.0,
                roi_subset=organs,
                higher_order_resampling=_is_smooth(attempt.resolution_mm, attempt.force_split),
                force_split=attempt.force_split,
                device=attempt.device,
                quiet=True,
                nr_thr_resamp=1,
                nr_thr_saving=1,
            )
        except SystemExit as error:
            raise TheraflowError(f"TotalSegmentator gave up ({error}); its messages are in the log.") from error


@cache
def prepare_nnunet() -> None:
    """Let nnU-Net predict without worker processes, keep what it has loaded, and find its trainers without a search.

    Workers are spawned, which imports the main module again: inside a Snakemake script that fails ("background workers
    died"), and a small /dev/shm fails with the same words. Sequential prediction gives the same labels bit for bit.
    The search for a trainer's class imports every trainer, and one of them needs torchvision.
    """
    import totalsegmentator.nnunet
    from nnunetv2.inference import predict_from_raw_data
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
        nnUNetTrainerNoMirroring,
    )
    from nnunetv2.training.nnUNetTrainer.variants.training_length.nnUNetTrainer_Xepochs_NoMirroring import (
        nnUNetTrainer_4000epochs_NoMirroring,
    )

    for trainer in (nnUNetTrainer, nnUNetTrainerNoMirroring, nnUNetTrainer_4000epochs_NoMirroring):
        totalsegmentator.nnunet.custom_trainers[trainer.__name__] = trainer
    nnUNetPredictor.predict_from_files = _predict_from_files
    load = nnUNetPredictor.initialize_from_trained_model_folder
    nnUNetPredictor.initialize_from_trained_model_folder = _loading_once(load)
    predict_from_raw_data.Thread = _Producer


def _predict_from_files(
    self: Any, images: str, output: str, *, use_cropped_logits_resampling: bool = False, **_: Any
) -> Any:
    """nnU-Net's prediction in this process, in place of that with workers."""
    return self.predict_from_files_sequential(
        images, output, use_cropped_logits_resampling=use_cropped_logits_resampling
    )


def _loading_once(load: Callable[..., None]) -> Callable[..., None]:
    """nnU-Net's way to load a model into a predictor, which then loads each checkpoint once."""
    models: dict[tuple[int, ...], dict[str, Any]] = {}

    def initialize(
        self: Any, folder: str, use_folds: Sequence[int], checkpoint_name: str = "checkpoint_final.pth"
    ) -> None:
        files = [(Path(folder) / f"fold_{fold}" / checkpoint_name).stat() for fold in use_folds]
        key = tuple(number for file in files for number in (file.st_dev, file.st_ino, file.st_mtime_ns))
        if key not in models:
            unset = [name for name, value in vars(self).items() if value is None]
            load(self, folder, use_folds, checkpoint_name)
            models[key] = {name: getattr(self, name) for name in unset}
        vars(self).update(models[key])

    return initialize


class _Producer(threading.Thread):
    """nnU-Net's thread that moves tiles to the GPU: an error in it is raised where the tiles are awaited.

    The plain thread dies of an error, as of a GPU out of memory, and nnU-Net waits for its tiles for ever.
    """

    def run(self) -> None:
        *_, queue = self._args
        try:
            super().run()
        except Exception as error:
            queue.put(_Raising(error))


class _Raising:
    """What raises an error when it is unpacked."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __iter__(self) -> Iterator[Any]:
        raise self._error


class _ToLog(io.TextIOBase):
    """A stream whose lines go to the log."""

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip():
                log.info("TotalSegmentator: %s", line.strip())
        return len(text)
