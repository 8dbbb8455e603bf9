"""Organs from a CT by TotalSegmentator, called in this process."""

import contextlib
import importlib.metadata
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.images import from_array, read_image, read_sidecar, same_grid, to_array, write_image
from theraflow.organs.labels import label_names
from theraflow.organs.weights import check_weights, private_home

log = logging.getLogger(__name__)

DEVICES = ("auto", "gpu", "cpu")
# Resolutions (mm) whose logits, rather than labels, are resampled to the CT: smoother organs, at 6 mm by 0.02 to
# 0.04 of Dice for organs of a kidney's size, for some 10 s a scan. At 1.5 mm the gain is small.
SMOOTH = (3.0, 6.0)
PACKAGES = ("TotalSegmentator", "nnunetv2", "torch")


def segment_organs(
    ct: Path | str,
    output: Path | str,
    *,
    task: str,
    resolution_mm: float,
    device: str,
    weights: Path | str,
    threads: int,
) -> None:
    """Segment the organs of a CT with TotalSegmentator.

    Args:
        ct: CT in HU with its sidecar.
        output: label map to write, uint8 with the numbers of `ORGAN_IDS` on exactly the grid of `ct`, and its
            sidecar.
        task: TotalSegmentator's task, `total`.
        resolution_mm: 1.5, 3 or 6, the voxel size at which the network works.
        device: `auto` (a GPU where torch sees one), `gpu` or `cpu`. Where the GPU's memory does not suffice,
            the CPU takes over; the sidecar's `steps` tell.
        weights: folder of the weights (see `theraflow.organs.weights`); it is only read.
        threads: number of CPU threads.

    Raises:
        TheraflowError: weights missing or not whole, the miniature model on a CT that is no virtual
            patient's, a GPU is wanted but there is none, or TotalSegmentator gave up.
    """
    models = check_weights(weights, task, resolution_mm)
    ct_sidecar = read_sidecar(ct)
    virtual_patient = ct_sidecar.get("virtual_patient") is True
    miniature = any(model.miniature for model in models)
    if miniature and not virtual_patient:
        raise TheraflowError(
            f"The miniature model in {weights} knows only virtual patients, and {ct} is not one; set organs: "
            f"weights to the published TotalSegmentator weights."
        )
    # nnU-Net reads this once, when it is imported.
    os.environ["nnUNet_def_n_proc"] = str(threads)  # noqa: SIM112 its own name
    grid = read_image(ct)
    labels, steps = _run_ladder(Path(ct), _ladder(device), weights, resolution_mm)
    if not same_grid(labels, grid):
        raise TheraflowError(f"TotalSegmentator gave the organs of {ct} on another grid; report this with that file.")
    sidecar = {
        **{key: ct_sidecar.get(key) for key in ("patient", "scan", "tracer", "timepoint")},
        "quantity": "organ label",
        "unit": "TotalSegmentator id",
        "source": "TotalSegmentator",
        "labels": label_names(),
        "task": task,
        "resolution_mm": resolution_mm,
        "model": [model.dataset for model in models],
        "trainer": [model.checkpoint.parents[1].name for model in models],
        "checkpoint_sha256": {model.dataset: model.sha256 for model in models},
        "higher_order_resampling": resolution_mm in SMOOTH,
        "miniature_model": miniature,
        "virtual_patient": virtual_patient,
        "device": steps[-1]["device"],
        "device_wanted": device,
        "steps": steps,
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
    }
    write_image(from_array(to_array(labels), grid), output, sidecar)


def _ladder(device: str) -> tuple[str, ...]:
    """The devices to try, in order."""
    if device not in DEVICES:
        raise TheraflowError(f"organs: device is {device!r} in the config; set it to one of {', '.join(DEVICES)}.")
    if device == "cpu":
        return ("cpu",)
    import torch

    if torch.cuda.is_available():
        return ("gpu", "cpu")
    if device == "gpu":
        raise TheraflowError(
            "organs: device is gpu in the config, but torch sees no GPU on this machine; set organs: device "
            "to auto or cpu."
        )
    return ("cpu",)


def _run_ladder(
    ct: Path, ladder: tuple[str, ...], weights: Path | str, resolution_mm: float
) -> tuple[sitk.Image, list[dict[str, str]]]:
    """Try one device after the other as long as memory is what lacks; tells each step."""
    steps = []
    for device in ladder:
        try:
            labels = _totalsegmentator(ct, weights, resolution_mm, device)
        except RuntimeError as error:
            # torch.OutOfMemoryError is a RuntimeError; some CUDA libraries raise a plain one in these words.
            if device == ladder[-1] or "out of memory" not in str(error).lower():
                raise
            log.warning("The GPU's memory does not suffice for %s; the CPU takes over (%s).", ct, error)
            steps.append({"device": device, "result": "out of memory"})
        else:
            steps.append({"device": device, "result": "done"})
            break
    return labels, steps


def _totalsegmentator(ct: Path, weights: Path | str, resolution_mm: float, device: str) -> sitk.Image:
    """The label map that TotalSegmentator writes for `ct`."""
    with private_home(weights) as home:
        output = home / "organs.nii"
        with contextlib.redirect_stdout(_ToLog()):
            from totalsegmentator.python_api import totalsegmentator

            try:
                with _in_this_process():
                    totalsegmentator(
                        ct,
                        output,
                        ml=True,
                        task="total",
                        fast=resolution_mm == 3.0,
                        fastest=resolution_mm == 6.0,
                        higher_order_resampling=resolution_mm in SMOOTH,
                        device=device,
                        quiet=True,
                        nr_thr_resamp=1,
                        nr_thr_saving=1,
                    )
            except SystemExit as error:
                raise TheraflowError(
                    f"TotalSegmentator gave up on {ct} ({error}); its messages are in the log."
                ) from error
        return read_image(output)


@contextlib.contextmanager
def _in_this_process() -> Iterator[None]:
    """Let nnU-Net predict without worker processes, and find its trainer classes without a search.

    Workers are spawned, which imports the main module again: inside a Snakemake script that fails
    ("background workers died"), and a small /dev/shm fails with the same words. Sequential prediction gives
    the same labels bit for bit. The search for a trainer's class imports every trainer, and one of them needs
    torchvision.
    """
    import totalsegmentator.nnunet
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

    def predict_from_files(
        self: Any, images: str, output: str, *, use_cropped_logits_resampling: bool = False, **_: Any
    ):
        return self.predict_from_files_sequential(
            images, output, use_cropped_logits_resampling=use_cropped_logits_resampling
        )

    with_workers = nnUNetPredictor.predict_from_files
    nnUNetPredictor.predict_from_files = predict_from_files
    try:
        yield
    finally:
        nnUNetPredictor.predict_from_files = with_workers


class _ToLog(io.TextIOBase):
    """A stream whose lines go to the log."""

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip():
                log.info("TotalSegmentator: %s", line.strip())
        return len(text)
