"""Organs from a CT by TotalSegmentator, called in this process."""

import argparse
import contextlib
import errno
import importlib.metadata
import io
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.images import from_array, read_image, read_sidecar, same_grid, to_array, write_image
from theraflow.organs.devices import (
    DEVICE_ERROR,
    Attempt,
    Gpu,
    attempts,
    failure,
    find_gpu,
    gpu_at_hand,
    probe,
    release_memory,
)
from theraflow.organs.labels import label_names
from theraflow.organs.weights import Model, check_weights, needed_weights, private_home

log = logging.getLogger(__name__)

# Resolutions (mm) whose logits, rather than labels, are resampled to the CT: smoother organs, at 6 mm by 0.02 to
# 0.04 of Dice for organs of a kidney's size, for some 10 s a scan. At 1.5 mm the gain is small.
SMOOTH = (3.0, 6.0)
PACKAGES = ("TotalSegmentator", "nnunetv2", "torch")
LIBRARY = Path(__file__).resolve().parents[2]
# How the process of `_totalsegmentator_apart` ends when it has one sentence to say.
SENTENCE = 3


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
) -> None:
    """Segment the organs of a CT with TotalSegmentator.

    Args:
        ct: CT in HU with its sidecar.
        output: label map to write, uint8 with the numbers of `ORGAN_IDS` on exactly the grid of `ct`, and its
            sidecar.
        task: TotalSegmentator's task, `total`.
        resolution_mm: 1.5, 3 or 6, the voxel size at which the network works.
        device: `auto` (a GPU where torch sees one), `gpu`, `gpu:1` or `cpu`. Where a GPU's memory does not suffice,
            the CT is split (if it is long enough), then the next coarser model is taken (if allowed), then the CPU.
            Where the GPU fails otherwise, the CPU takes over in a process of its own. The sidecar's `steps` tell.
        weights: folder of the weights (see `theraflow.organs.weights`); it is only read.
        threads: number of CPU threads.
        lower_resolution: whether the next coarser model may be used where the GPU's memory does not suffice.

    Raises:
        TheraflowError: weights missing or not whole, the miniature model on a CT that is no virtual
            patient's, a GPU is wanted but there is none, or TotalSegmentator gave up.
    """
    models = {resolution_mm: check_weights(weights, task, resolution_mm)}
    ct_sidecar = read_sidecar(ct)
    # nnU-Net reads this once, when it is imported.
    os.environ["nnUNet_def_n_proc"] = str(threads)  # noqa: SIM112 its own name
    grid = read_image(ct)
    gpu = find_gpu(device)
    ladder = attempts(gpu, resolution_mm, _length_mm(grid), lower_resolution)
    for attempt in ladder:
        if attempt.resolution_mm not in models:
            models[attempt.resolution_mm] = check_weights(weights, task, attempt.resolution_mm)
    virtual_patient = ct_sidecar.get("virtual_patient") is True
    _refuse_miniature([model for group in models.values() for model in group], weights, ct, virtual_patient)
    labels, steps, found = _run_ladder(Path(ct), weights, ladder, _blind_spot(device, gpu))
    if not same_grid(labels, grid):
        raise TheraflowError(f"TotalSegmentator gave the organs of {ct} on another grid; report this with that file.")
    used = models[steps[-1]["resolution_mm"]]
    sidecar = {
        **{key: ct_sidecar.get(key) for key in ("patient", "scan", "tracer", "timepoint")},
        "quantity": "organ label",
        "unit": "TotalSegmentator id",
        "source": "TotalSegmentator",
        "labels": label_names(),
        "task": task,
        "resolution_mm": steps[-1]["resolution_mm"],
        "resolution_wanted_mm": resolution_mm,
        "model": [model.dataset for model in used],
        "trainer": [model.checkpoint.parents[1].name for model in used],
        "checkpoint_sha256": {model.dataset: model.sha256 for model in used},
        "higher_order_resampling": _is_smooth(steps[-1]["resolution_mm"], steps[-1]["force_split"]),
        "miniature_model": any(model.miniature for model in used),
        "virtual_patient": virtual_patient,
        "device": steps[-1]["device"],
        "device_wanted": device,
        "gpu": None if found is None else asdict(found),
        "steps": steps,
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
    }
    write_image(from_array(to_array(labels), grid), output, sidecar)


def _refuse_miniature(models: Sequence[Model], weights: Path | str, ct: Path | str, virtual_patient: bool) -> None:
    if any(model.miniature for model in models) and not virtual_patient:
        raise TheraflowError(
            f"The miniature model in {weights} knows only virtual patients, and {ct} is not one; set organs: "
            f"weights to the published TotalSegmentator weights."
        )


def _length_mm(image: sitk.Image) -> float:
    """How far an image reaches along the axis that runs from head to feet."""
    along_body = [abs(component) for component in image.GetDirection()[6:]]
    axis = along_body.index(max(along_body))
    return image.GetSize()[axis] * image.GetSpacing()[axis]


def _is_smooth(resolution_mm: float, force_split: bool) -> bool:
    """Whether logits are resampled: not where the CT is split, because the parts then overlap by slices of the CT, of
    the model otherwise, and 20 thin slices of a CT are too little to see what organ a cut goes through."""
    return resolution_mm in SMOOTH and not force_split


def _blind_spot(device: str, gpu: str | None) -> list[dict[str, Any]]:
    """The step that tells of a GPU in this machine that torch does not see."""
    if device != "auto" or gpu is not None or not gpu_at_hand():
        return []
    reason = f"torch {importlib.metadata.version('torch')} does not see the GPU of this machine"
    log.warning("The CPU segments the organs: %s.", reason)
    return [{"device": "gpu", "resolution_mm": None, "force_split": False, "own_process": False,
             "result": "not used", "reason": reason}]  # fmt: skip


def _run_ladder(
    ct: Path, weights: Path | str, ladder: Sequence[Attempt], steps: list[dict[str, Any]]
) -> tuple[sitk.Image, list[dict[str, Any]], Gpu | None]:
    """Try one attempt after the other as long as it is the GPU that fails; tells each step."""
    gpu = broken = None
    for attempt in ladder:
        on_gpu = attempt.device != "cpu"
        if on_gpu and broken:
            continue
        apart = not on_gpu and broken == DEVICE_ERROR
        step = {**asdict(attempt), "own_process": apart}
        probing = on_gpu and gpu is None
        try:
            if probing:
                gpu = probe(attempt.device)
                log.info("%s: %s, %s of %s MiB free", gpu.device, gpu.name, gpu.free_mib, gpu.memory_mib)
            run = _totalsegmentator_apart if apart else _totalsegmentator
            labels = run(ct, weights, attempt.resolution_mm, attempt.device, attempt.force_split)
        except Exception as error:
            result = failure(error) if on_gpu else None
            if result is None:
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        else:
            steps.append({**step, "result": "done", "reason": None})
            return labels, steps, gpu
        # A GPU that fails at the probe fails at every model; after a device error CUDA is lost to this process.
        if gpu is None or result == DEVICE_ERROR:
            broken = result
        steps.append({**step, "result": result, "reason": reason})
        log.warning("The organs of %s: %s on %s (%s); the next way is tried.", ct, result, attempt, reason)
        if result != DEVICE_ERROR:
            release_memory()
    raise AssertionError("a ladder ends on the CPU")


def _totalsegmentator(
    ct: Path, weights: Path | str, resolution_mm: float, device: str, force_split: bool
) -> sitk.Image:
    """The label map that TotalSegmentator writes for `ct`."""
    with private_home(Path(weights) / dataset for dataset in needed_weights("total", resolution_mm)) as home:
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
                        higher_order_resampling=_is_smooth(resolution_mm, force_split),
                        force_split=force_split,
                        device=device,
                        quiet=True,
                        nr_thr_resamp=1,
                        nr_thr_saving=1,
                    )
            except SystemExit as error:
                raise TheraflowError(
                    f"TotalSegmentator gave up on {ct} ({error}); its messages are in the log."
                ) from error
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise TheraflowError(
                    f"The disk was full while TotalSegmentator worked on {ct}: free some room in "
                    f"{tempfile.gettempdir()}, or set the environment variable TMPDIR to a folder with room."
                ) from error
        return read_image(output)


def _totalsegmentator_apart(
    ct: Path, weights: Path | str, resolution_mm: float, device: str, force_split: bool
) -> sitk.Image:
    """The same in a process of its own that sees no GPU, because a CUDA error has spoilt this one."""
    with tempfile.TemporaryDirectory(prefix="theraflow_organs_") as folder:
        output = Path(folder) / "organs.nii"
        command = [sys.executable, "-m", "theraflow.organs.segment", ct, output, weights, resolution_mm, device]
        command += ["--force-split"] if force_split else []
        path = os.pathsep.join(filter(None, [str(LIBRARY), os.environ.get("PYTHONPATH")]))
        last = ""
        with subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            try:
                for line in process.stdout:
                    last = line.strip() or last
                    log.info("its own process: %s", line.rstrip())
            except BaseException:
                process.kill()
                raise
        if process.returncode == SENTENCE:
            raise TheraflowError(last)
        if process.returncode:
            raise RuntimeError(f"TotalSegmentator in a process of its own ended with {process.returncode}: {last}")
        return read_image(output)


def _main() -> None:
    """The process of `_totalsegmentator_apart`."""
    parser = argparse.ArgumentParser()
    for name, kind in (("ct", Path), ("output", Path), ("weights", Path), ("resolution_mm", float), ("device", str)):
        parser.add_argument(name, type=kind)
    parser.add_argument("--force-split", action="store_true")
    words = vars(parser.parse_args())
    output = words.pop("output")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        sitk.WriteImage(_totalsegmentator(**words), str(output))
    except TheraflowError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(SENTENCE)


@contextlib.contextmanager
def _in_this_process() -> Iterator[None]:
    """Let nnU-Net predict without worker processes, and find its trainer classes without a search.

    Workers are spawned, which imports the main module again: inside a Snakemake script that fails
    ("background workers died"), and a small /dev/shm fails with the same words. Sequential prediction gives
    the same labels bit for bit. The search for a trainer's class imports every trainer, and one of them needs
    torchvision.
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

    def predict_from_files(
        self: Any, images: str, output: str, *, use_cropped_logits_resampling: bool = False, **_: Any
    ):
        return self.predict_from_files_sequential(
            images, output, use_cropped_logits_resampling=use_cropped_logits_resampling
        )

    with_workers = nnUNetPredictor.predict_from_files
    nnUNetPredictor.predict_from_files = predict_from_files
    predict_from_raw_data.Thread = _Producer
    try:
        yield
    finally:
        nnUNetPredictor.predict_from_files = with_workers
        predict_from_raw_data.Thread = threading.Thread


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


if __name__ == "__main__":
    _main()
