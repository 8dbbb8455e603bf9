"""Which GPU is asked for and used, what counts as a failure of a GPU, and what is tried next."""

import platform

import pytest
import torch

from theraflow.errors import TheraflowError
from theraflow.organs.totalsegmentator import devices
from theraflow.organs.totalsegmentator.devices import (
    DEVICE_ERROR,
    OUT_OF_MEMORY,
    Attempt,
    attempts,
    failure,
    find_gpu,
    gpu_at_hand,
    gpus_wanted,
    probe,
    release_memory,
    resolutions,
)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A Linux machine without a GPU, with torch for CUDA; tests add files and change the rest."""
    monkeypatch.setattr(devices, "ROOT", tmp_path)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(devices.importlib.metadata, "version", lambda _: "2.13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "dev").mkdir()
    return tmp_path


def test_a_machine_without_gpu_asks_for_one_only_if_the_user_does(machine):
    (machine / "dev" / "nvidiactl").touch()  # there with the driver, also where no GPU is granted
    assert not gpu_at_hand()
    assert [gpus_wanted(device) for device in ("auto", "cpu", "gpu", "gpu:1")] == [0, 0, 1, 1]


@pytest.mark.parametrize("file", ["dev/nvidia0", "dev/nvidia11", "usr/lib/wsl/lib/libcuda.so.1"])
def test_the_drivers_file_shows_a_gpu(machine, file):
    (machine / file).parent.mkdir(parents=True, exist_ok=True)
    (machine / file).touch()
    assert [gpus_wanted(device) for device in ("auto", "cpu", "gpu", "gpu:1")] == [1, 0, 1, 1]


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_hidden_gpu_is_none(machine, monkeypatch, hidden):
    (machine / "dev" / "nvidia0").touch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert gpus_wanted("auto") == 0


def test_torch_for_the_cpu_makes_no_use_of_a_gpu(machine, monkeypatch):
    (machine / "dev" / "nvidia0").touch()
    monkeypatch.setattr(devices.importlib.metadata, "version", lambda _: "2.13.0+cpu")
    assert gpus_wanted("auto") == 0


def test_a_planning_environment_without_torch_goes_by_the_files(machine, monkeypatch):
    def absent(name):
        raise devices.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(devices.importlib.metadata, "version", absent)
    assert gpus_wanted("auto") == 0
    (machine / "dev" / "nvidia0").touch()
    assert gpus_wanted("auto") == 1


@pytest.mark.parametrize(("processor", "gpus"), [("arm64", 1), ("x86_64", 0)])
def test_a_mac_has_apples_gpu_or_none(machine, monkeypatch, processor, gpus):
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: processor)
    assert gpus_wanted("auto") == gpus


@pytest.fixture
def torch_sees(monkeypatch):
    def sees(cuda=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return sees


@pytest.mark.parametrize(
    ("cuda", "mps", "device", "found"),
    [
        (2, False, "auto", "gpu:0"),
        (2, False, "gpu", "gpu:0"),
        (2, False, "gpu:1", "gpu:1"),
        (2, False, "cpu", None),
        (0, True, "auto", "mps"),
        (0, True, "gpu", "mps"),
        (1, True, "auto", "gpu:0"),
        (0, False, "auto", None),
    ],
)
def test_the_device_follows_the_policy(torch_sees, cuda, mps, device, found):
    torch_sees(cuda, mps)
    assert find_gpu(device) == found


@pytest.mark.parametrize(
    ("cuda", "mps", "device", "sentence"),
    [
        (0, False, "gpu", r"device is gpu in .* sees no GPU on this machine; set organs: device to auto or cpu"),
        (0, True, "gpu:0", r"device is gpu:0 in .* sees no GPU"),
        (2, False, "gpu:2", r"device is gpu:2 in .* sees 2 GPU, numbered from 0"),
        (2, False, "cuda", r"device is 'cuda' in .*auto, cpu, gpu, or gpu:1"),
        (2, False, "gpu:", "device is 'gpu:'"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused(torch_sees, cuda, mps, device, sentence):
    torch_sees(cuda, mps)
    with pytest.raises(TheraflowError, match=sentence):
        find_gpu(device)


def test_names_of_devices_are_totalsegmentators():
    from totalsegmentator.python_api import validate_device_type_api

    for name in ("gpu:0", "gpu:1", "mps", "cpu"):
        assert validate_device_type_api(name) == name


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        # The sentences are torch's, cuDNN's and cuBLAS's own.
        (torch.OutOfMemoryError("Allocation on device 0 would exceed allowed memory."), OUT_OF_MEMORY),
        (RuntimeError("CUDA error: out of memory"), OUT_OF_MEMORY),
        (RuntimeError("MPS backend out of memory (MPS allocated: 18.00 GB, max allowed: 18.13 GB)."), OUT_OF_MEMORY),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), OUT_OF_MEMORY),
        (torch.AcceleratorError("an illegal memory access was encountered"), DEVICE_ERROR),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), DEVICE_ERROR),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), DEVICE_ERROR),
        (RuntimeError("GET was unable to find an engine to execute this computation"), DEVICE_ERROR),
        (RuntimeError("Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling "
                      "NumCudaDevices()? Error 804: forward compatibility was attempted"), DEVICE_ERROR),
        (RuntimeError("The NVIDIA driver on your system is too old (found version 11040)."), DEVICE_ERROR),
        (RuntimeError("No CUDA GPUs are available"), DEVICE_ERROR),
        (AssertionError("Torch not compiled with CUDA enabled"), DEVICE_ERROR),
        (NotImplementedError("The operator 'aten::x' is not currently implemented for the MPS device."), DEVICE_ERROR),
        (RuntimeError("Expected all tensors to be on the same device, but found cuda:0 and cpu!"), None),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), None),
        (RuntimeError("Encountered inf in predicted array. Aborting..."), None),
        (AssertionError("mirror_axes does not match the dimension of the input!"), None),
        (ValueError("out of memory"), None),
        (MemoryError("out of memory"), None),
        (TheraflowError("CUDA error"), None),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_only_failures_of_the_gpu_lead_down_the_ladder(error, kind):
    assert failure(error) == kind


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA works on this machine")
@pytest.mark.parametrize("device", ["gpu:0", "mps"])
def test_the_probe_of_a_gpu_that_is_only_claimed_is_a_device_error(device):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("MPS works on this machine")
    with pytest.raises(Exception) as error:
        probe(device)
    assert failure(error.value) == DEVICE_ERROR


def test_a_probe_that_computes_wrongly_is_a_device_error(monkeypatch):
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda size, dtype, device: ones(size, dtype=torch.float))
    monkeypatch.setattr(torch.nn.functional, "conv3d", lambda image, _: image)
    with pytest.raises(RuntimeError) as error:
        probe("mps")
    assert failure(error.value) == DEVICE_ERROR


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_real_gpu_passes_the_probe():
    gpu = probe("gpu:0")
    assert gpu.name
    assert 0 < gpu.free_mib <= gpu.memory_mib


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_real_allocation_too_large_is_out_of_memory_and_leaves_the_gpu_usable():
    total = torch.cuda.get_device_properties(0).total_memory
    with pytest.raises(torch.OutOfMemoryError) as error:
        torch.empty(2 * total, dtype=torch.uint8, device="cuda:0")
    assert failure(error.value) == OUT_OF_MEMORY
    release_memory()
    probe("gpu:0")


GPU, SPLIT, COARSE, CPU = Attempt("gpu:0", 3), Attempt("gpu:0", 3, True), Attempt("gpu:0", 6), Attempt("cpu", 3)


@pytest.mark.parametrize(
    ("gpu", "length_mm", "lower_resolution", "ladder"),
    [
        (None, 1800, True, (CPU,)),
        ("gpu:0", 1800, True, (GPU, SPLIT, COARSE, CPU)),
        ("gpu:0", 1800, False, (GPU, SPLIT, CPU)),
        ("gpu:0", 360, False, (GPU, SPLIT, CPU)),  # 120 slices of 3 mm
        ("gpu:0", 359, False, (GPU, CPU)),
        ("gpu:0", 359, True, (GPU, COARSE, CPU)),
    ],
)
def test_the_ladder(gpu, length_mm, lower_resolution, ladder):
    assert attempts(gpu, 3, length_mm, lower_resolution) == ladder


def test_nothing_is_coarser_than_6_mm():
    assert attempts("gpu:0", 6, 100, True) == (Attempt("gpu:0", 6), Attempt("cpu", 6))


@pytest.mark.parametrize(
    ("resolution_mm", "device", "allowed", "organs", "needed"),
    [
        (1.5, "auto", True, (), (1.5, 3)),
        (3, "gpu", True, (), (3, 6)),
        (6, "gpu", True, (), (6,)),
        (3, "cpu", True, (), (3,)),
        (3, "auto", False, (), (3,)),
        (1.5, "auto", True, ("liver",), (1.5, 3, 6)),
        (1.5, "cpu", True, ("liver",), (1.5, 6)),
        (6, "cpu", False, ("liver",), (6,)),
    ],
)
def test_weights_of_other_resolutions_are_needed_where_their_models_may_run(
    resolution_mm, device, allowed, organs, needed
):
    assert resolutions(resolution_mm, device, allowed, organs) == needed
