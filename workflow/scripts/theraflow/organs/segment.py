"""Organs from a CT by TotalSegmentator."""

import importlib.metadata
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.files import temporary_folder, temporary_room
from theraflow.images import (
    grid_of,
    image_of_crop,
    read_image,
    read_sidecar,
    same_grid,
    to_array,
    write_image,
)
from theraflow.images.body import body_box
from theraflow.nifti import Grid, write_nifti
from theraflow.organs.labels import label_names, organ_labels
from theraflow.organs.totalsegmentator.devices import ROUGH_MM, resolutions
from theraflow.organs.totalsegmentator.predict import Outcome, Request
from theraflow.organs.totalsegmentator.weights import Model, check_weights
from theraflow.organs.totalsegmentator.worker import ask

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
    lower_resolution: bool = False,
    organs: Collection[str] = (),
    bfloat16: bool = False,
) -> None:
    """Segment the organs of a CT with TotalSegmentator, which sees the box of the body and not the air around it.

    Args:
        ct: CT in HU with its sidecar.
        output: label map to write, uint8 with the numbers of `ORGAN_IDS` on exactly the grid of `ct`, and its
            sidecar.
        task: TotalSegmentator's task, `total`.
        resolution_mm: 1.5, 3 or 6, the voxel size at which the network works.
        device: `auto` (a GPU where torch sees one), `gpu`, `gpu:1` or `cpu`. Where a GPU's memory does not suffice,
            the CT is split (if it is long enough), then the next coarser model is taken (if allowed), then the CPU.
            Where the GPU fails otherwise, the CPU takes over in a process of its own. The sidecar's `steps` tell.
        weights: folder of the weights (see `theraflow.organs.totalsegmentator.weights`); it is only read.
        threads: number of CPU threads.
        lower_resolution: whether the next coarser model may be used where the GPU's memory does not suffice.
        organs: those wanted, as in `ORGAN_IDS` or `GROUPS`; none means all. Finer than 6 mm, TotalSegmentator finds
            them at 6 mm, crops the CT to them and runs only the models that know them; one that it misses at 6 mm is
            then missing.
        bfloat16: whether a CPU that has it computes in bfloat16, which is faster and moves some borders.

    Raises:
        TheraflowError: weights missing or not whole, the miniature model on a CT that is no virtual
            patient's, a GPU is wanted but there is none, or TotalSegmentator gave up.
    """
    names = label_names(organ_labels(*organs) if organs else None)
    models = {
        voxel_mm: check_weights(weights, task, voxel_mm)
        for voxel_mm in resolutions(resolution_mm, device, lower_resolution, organs)
    }
    ct_sidecar = read_sidecar(ct)
    virtual_patient = ct_sidecar.get("virtual_patient") is True
    _refuse_miniature([model for group in models.values() for model in group], weights, ct, virtual_patient)
    with temporary_room(), temporary_folder("theraflow_organs_") as folder:
        request = Request(
            ct=f"{folder}/ct.nii",
            output=f"{folder}/organs.nii",
            weights=str(Path(weights).resolve()),
            task=task,
            resolution_mm=resolution_mm,
            device=device,
            lower_resolution=lower_resolution,
            organs=tuple(names.values()) if organs else (),
            bfloat16=bfloat16,
        )
        grid, box = _cut(ct, request.ct, min(model.tile_mm for model in models[resolution_mm]))
        outcome = _ask(request, threads)
        labels = read_image(request.output)
        if not same_grid(labels, read_image(request.ct)):
            raise TheraflowError(f"TotalSegmentator gave the organs of {ct} on another grid; report that with the CT.")
    found = np.zeros(grid.size[::-1], np.uint8)
    found[box] = _only(to_array(labels), [int(label) for label in names])
    done = outcome.steps[-1]
    used = models[done["resolution_mm"]]
    if organs and done["resolution_mm"] < ROUGH_MM:
        used = [*used, *models[ROUGH_MM]]
    sidecar = {
        **{key: ct_sidecar.get(key) for key in ("patient", "scan", "tracer", "timepoint")},
        "quantity": "organ label",
        "unit": "TotalSegmentator id",
        "source": "TotalSegmentator",
        "labels": names,
        "task": task,
        "resolution_mm": done["resolution_mm"],
        "resolution_wanted_mm": resolution_mm,
        "model": [model.dataset for model in used],
        "trainer": [model.checkpoint.parents[1].name for model in used],
        "checkpoint_sha256": {model.dataset: model.sha256 for model in used},
        "higher_order_resampling": outcome.smooth,
        "precision": outcome.precision,
        "miniature_model": any(model.miniature for model in used),
        "virtual_patient": virtual_patient,
        "body_box": [[edge.start, edge.stop] for edge in box[::-1]],
        "device": done["device"],
        "device_wanted": device,
        "gpu": None if outcome.gpu is None else asdict(outcome.gpu),
        "steps": outcome.steps,
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
    }
    write_image(image_of_crop(found, grid), output, sidecar)


def _cut(ct: Path | str, output: str, shortest_mm: float) -> tuple[Grid, tuple[slice, slice, slice]]:
    """Write the box of the body; the grid of the CT, and the box in it. Nothing of the CT stays in memory."""
    image = read_image(ct)
    grid, box = grid_of(image), body_box(image, shortest_mm)
    body = image[box[2], box[1], box[0]]
    write_nifti([sitk.GetArrayViewFromImage(body)], grid_of(body), sitk.GetArrayViewFromImage(body).dtype, output)
    return grid, box


def _ask(request: Request, threads: int) -> Outcome:
    """Let a worker do it, and where the GPU is lost to that one, another on the CPU."""
    outcome = ask(request, threads, without_gpu=request.device == "cpu")
    if outcome.done:
        return outcome
    on_cpu = ask(replace(request, device="cpu"), threads, without_gpu=True)
    return replace(on_cpu, steps=outcome.steps + on_cpu.steps, gpu=outcome.gpu)


def _only(labels: np.ndarray, wanted: Collection[int]) -> np.ndarray:
    """A label map without other labels than those wanted: at 6 mm TotalSegmentator is asked for all organs."""
    table = np.zeros(256, np.uint8)
    table[wanted] = wanted
    return table[labels]


def _refuse_miniature(models: Sequence[Model], weights: Path | str, ct: Path | str, virtual_patient: bool) -> None:
    if any(model.miniature for model in models) and not virtual_patient:
        raise TheraflowError(
            f"The miniature model in {weights} knows only virtual patients, and {ct} is not one; set organs: "
            f"weights to the published TotalSegmentator weights."
        )
