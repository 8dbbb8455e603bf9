"""Where the network runs: which GPU there is, whether it works, and what is tried when its memory does not suffice.

Imports only the standard library: the Snakefile asks `gpus_wanted` while it plans.
"""

import gc
import importlib.metadata
import os
import platform
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from theraflow.errors import TheraflowError

# NVIDIA's driver makes a numbered file for each GPU that a machine or a container may use; Linux within Windows has a
# library instead.
GPU_FILES = ("dev/nvidia[0-9]*", "usr/lib/wsl/lib/libcuda.so.1")
ROOT = Path("/")
# The next coarser model of task total, in mm.
COARSER = {1.5: 3.0, 3.0: 6.0}
# Where only some organs are wanted, TotalSegmentator finds them with this model and crops the CT to them.
ROUGH_MM = 6.0
# TotalSegmentator's force_split cuts a CT into three parts that overlap by 20 slices on each side: below 57 slices it
# crashes, and below twice that the parts are hardly smaller than the whole.
FEWEST_SLICES_TO_SPLIT = 120

OUT_OF_MEMORY = "out of memory"
DEVICE_ERROR = "device error"
_NO_MEMORY = re.compile(r"out of memory|CUDNN_STATUS_ALLOC_FAILED|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE)
_BROKEN = re.compile(
    r"CUDA error|cudaGetDeviceCount|CUDA driver|CUDA-capable|NVIDIA driver|CUDA GPUs|with CUDA enabled|cuDNN error"
    r"|CUDNN_STATUS|CUBLAS_STATUS|CUFFT_|CUSOLVER_|NVML|NVRTC|unable to find an engine"
    r"|MPS (backend|device|framework)|'MPS'|wrong numbers on the GPU"
)


@dataclass(frozen=True)
class Gpu:
    """A GPU that has just convolved a small image rightly.

    Attributes:
        device: as TotalSegmentator names it, `gpu:0` or `mps`.
        name: the maker's name of it.
        memory_mib: all of its memory; None where torch cannot tell (MPS).
        free_mib: what of it was free before the model was loaded; None likewise.
    """

    device: str
    name: str
    memory_mib: int | None
    free_mib: int | None


@dataclass(frozen=True)
class Attempt:
    """One way to run the network.

    Attributes:
        device: as TotalSegmentator names it: `gpu:0`, `mps`, `cpu`.
        resolution_mm: voxel size of the model.
        force_split: whether the CT is predicted in three overlapping parts.
    """

    device: str
    resolution_mm: float
    force_split: bool = False


def gpu_at_hand() -> bool:
    """Whether this machine shows a GPU that the installed torch could use, told in a few milliseconds.

    It looks at device files and at torch's version and does not import torch. The login node of a cluster mostly shows
    none, whatever the compute nodes have.
    """
    try:
        torch_build = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:  # the jobs have an environment of their own
        torch_build = ""
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    if torch_build.endswith("+cpu") or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return any(True for pattern in GPU_FILES for _ in ROOT.glob(pattern))


def gpus_wanted(device: str) -> int:
    """How many GPUs a job asks Snakemake for, 0 or 1.

    Args:
        device: `auto` asks for one only where this machine shows one; `gpu` and `gpu:1` always do, `cpu` never.
    """
    return int(gpu_at_hand() if device == "auto" else device != "cpu")


def find_gpu(device: str) -> str | None:
    """The GPU that a job is to use, as TotalSegmentator names it; None for the CPU.

    Args:
        device: `cpu`; `auto`, CUDA's first GPU or Apple's where torch sees one, else the CPU; `gpu`, the same but
            refused without one; `gpu:1`, CUDA's by number, counted from 0 among those that the job may see.

    Raises:
        TheraflowError: the device is none of these, or the GPU asked for is not there.
    """
    wanted = re.fullmatch(r"auto|cpu|gpu(?::(\d+))?", device)
    if not wanted:
        raise TheraflowError(
            f"organs: device is {device!r} in the config; set it to auto, cpu, gpu, or gpu:1 for one of several GPUs."
        )
    if device == "cpu":
        return None
    import torch

    number = wanted[1]
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if visible > int(number or 0):
        return f"gpu:{int(number or 0)}"
    if number is None and torch.backends.mps.is_available():
        return "mps"
    if device == "auto":
        return None
    seen = f"sees {visible} GPU, numbered from 0" if visible else "sees no GPU on this machine"
    raise TheraflowError(
        f"organs: device is {device} in the config, but torch {torch.__version__} {seen}; set organs: device to auto "
        f"or cpu, or install torch for CUDA (make env TORCH=cuda)."
    )


def probe(device: str) -> Gpu:
    """Convolve a small image on a GPU, in the precision that the network will use, before a model is loaded.

    Args:
        device: `gpu:0` or `mps`.

    Raises:
        Exception: whatever torch raises where the GPU is claimed but does not work (see `failure`).
    """
    import torch

    cuda = device != "mps"
    place = torch.device("cuda", int(device.partition(":")[2])) if cuda else torch.device("mps")
    free, total = torch.cuda.mem_get_info(place) if cuda else (None, None)
    with torch.inference_mode():
        ones = torch.ones((1, 1, 8, 8, 8), dtype=torch.half if cuda else torch.float, device=place)
        sums = torch.nn.functional.conv3d(ones, ones[..., :3, :3, :3]).cpu()
    if not bool((sums == 27).all()):
        raise RuntimeError(f"A convolution of ones gives wrong numbers on the GPU {device}.")
    return Gpu(
        device=device,
        name=torch.cuda.get_device_name(place) if cuda else "Apple GPU",
        memory_mib=None if total is None else total // 2**20,
        free_mib=None if free is None else free // 2**20,
    )


def failure(error: Exception) -> str | None:
    """What kind of failure of a GPU an exception tells of.

    Returns:
        `OUT_OF_MEMORY`, after which the process can go on; `DEVICE_ERROR`, after which CUDA cannot be used again in
        this process; None for everything else, which is no matter of the device.
    """
    import torch

    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(text)):
        return OUT_OF_MEMORY
    # torch asserts that it is compiled with CUDA, and calls what Apple's GPU lacks not implemented.
    if isinstance(error, torch.AcceleratorError) or (
        isinstance(error, RuntimeError | AssertionError | NotImplementedError) and _BROKEN.search(text)
    ):
        return DEVICE_ERROR
    return None


def release_memory() -> None:
    """Give the GPU's memory back that a failed attempt has left with torch."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def attempts(gpu: str | None, resolution_mm: float, length_mm: float, lower_resolution: bool) -> tuple[Attempt, ...]:
    """What to try, in order: each only if the one before lacked memory.

    Args:
        gpu: as `find_gpu` gives it.
        resolution_mm: voxel size of the model asked for.
        length_mm: how far the CT reaches from head to feet.
        lower_resolution: whether the next coarser model may be used.
    """
    on_cpu = Attempt("cpu", resolution_mm)
    if gpu is None:
        return (on_cpu,)
    ladder = [Attempt(gpu, resolution_mm)]
    if length_mm / resolution_mm >= FEWEST_SLICES_TO_SPLIT:
        ladder.append(Attempt(gpu, resolution_mm, force_split=True))
    if lower_resolution and resolution_mm in COARSER:
        ladder.append(Attempt(gpu, COARSER[resolution_mm]))
    return (*ladder, on_cpu)


def resolutions(
    resolution_mm: float, device: str, lower_resolution: bool, organs: Collection[str]
) -> tuple[float, ...]:
    """The resolutions whose models a run may need, that asked for first.

    Args:
        resolution_mm: voxel size of the model asked for.
        device: as in the configuration.
        lower_resolution: whether the next coarser model may be used where a GPU's memory does not suffice.
        organs: those wanted; none means all. Where some are, the coarsest model finds them first.
    """
    coarser = COARSER.get(resolution_mm) if lower_resolution and device != "cpu" else None
    rough = ROUGH_MM if organs else None
    return tuple(dict.fromkeys(found for found in (resolution_mm, coarser, rough) if found is not None))
