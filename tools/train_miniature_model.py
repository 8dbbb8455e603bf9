"""Trains the miniature segmentation model on virtual patients and writes it where TotalSegmentator looks for weights.

    python tools/train_miniature_model.py --output resources/miniature_weights

The model exists so that the demo and the tests run the true TotalSegmentator and nnU-Net code without the internet. It
has learned nothing but analytic phantoms and says nothing about a real CT; the workflow refuses it for real patients.

A small U-Net sees phantoms at 6 mm, sampled like nnU-Net samples a CT (no smoothing before), with random HU of every
tissue, noise, lesions, poses, bodies and fields of view. What is delivered are not its labels at 6 mm but its logits,
interpolated linearly to the CT: so the loss is taken at points between those of the 6 mm grid, too.

Everything is seeded: the same versions, number of threads and kind of processor give the same file, byte by byte.
`tools/judge_miniature_model.py` measures the result.

Under Linux, `MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000` before the command saves a
quarter of the time: glibc otherwise hands the large buffers back to the kernel at every step.
"""

import argparse
import hashlib
import importlib.metadata
import json
import logging
import time
from collections.abc import Sequence
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from theraflow.virtual.anatomy import AIR, RIB, Anatomy, Grid, Pose
from theraflow.virtual.render import tissue

SPACING_MM = 6.0
FINE_MM = 3.0  # phantoms are drawn at half the spacing: every second voxel, at any phase, is one training image
PATCH = (80, 48, 64)  # z, y, x in training
# The whole width at once; batch normalisation makes the network indifferent to it.
INFERENCE_PATCH = (96, 80, 80)
LEAST_FIELD = (36, 36, 44)  # the shortest field of view in a patch (voxels z, y, x); air around it
FEATURES = (16, 32, 64, 96, 128)
SEED = 20231107
LEARNING_RATE = 4e-3
# The last share of the steps trains with the running means of the batch normalisation, as inference uses them.
SETTLED = 0.2
BONES = (*range(25, 51), 69, 70, 71, 72, 75, 76, 77, 78, 116, RIB)
TRAINED = (1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 18, 20, 21, 25, *range(27, 44), 51, 52, 63, 75, 76, 77, 78, 80, 81,
           88, 89)  # fmt: skip
# Organs on which doses and background uptake depend count more. In the cross-entropy they do so at the start alone, so
# that they are learned soon: to the end, they would be drawn too large where they are hard to see.
IMPORTANT = {1: 3.0, 2: 3.0, 3: 3.0, 5: 2.0, 52: 3.0, **dict.fromkeys(range(27, 44), 2.0)}
EMPHASISED = 0.6  # share of the steps after which all voxels count the same
PACKAGES = ("torch", "numpy", "scipy", "nnunetv2")


def draw_phantom(seed: int) -> np.ndarray:
    """One virtual person in one pose: labels (uint8, z y x) at FINE_MM, in the orientation that nnU-Net sees.

    That is z up, y forward, x to the right.
    """
    rng = np.random.default_rng([SEED, seed])
    age = rng.choice([rng.uniform(6, 14), rng.uniform(15, 80)], p=[0.15, 0.85])
    anatomy = Anatomy.draw(int(rng.integers(1 << 31)), rng.choice(["M", "F"], p=[0.7, 0.3]), float(age))
    low, high = anatomy.bounding_box(rng.uniform(-230, -120), rng.uniform(400, 540))
    if rng.random() < 0.3:  # a shorter field of view, as of a SPECT/CT
        low[2], high[2] = low[2] + rng.uniform(0, 200), high[2] - rng.uniform(0, 200)
    arms = bool(rng.random() < 0.15)
    if arms:
        low[0], high[0] = low[0] - 80, high[0] + 80
    grid = Grid.covering(low - 12, high + 24, (FINE_MM,) * 3)
    pose = Pose.draw(rng, 10.0, 25.0, 15.0, 3.0)
    return np.ascontiguousarray(anatomy.labels(grid, pose, couch=bool(rng.random() < 0.8), arms=arms)[:, ::-1, ::-1])


def draw_block(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random block of a phantom that holds a patch at any phase, two fine voxels wider on each side."""
    extent = np.multiply(PATCH, 2)
    margin = np.maximum(extent + 2 - labels.shape, 0)  # air around a phantom that is smaller
    padded = np.pad(labels, [(int(m) + 2, int(m) + 2) for m in margin], constant_values=AIR)
    start = [int(rng.integers(0, n - e - 4 + 1)) for n, e in zip(padded.shape, extent, strict=True)]
    return padded[tuple(slice(s, s + e + 4) for s, e in zip(start, extent, strict=True))]


def draw_tissues(rng: np.random.Generator) -> np.ndarray:
    """HU of every label: native, portal venous or between, with a spread between persons."""
    phase = rng.choice([rng.uniform(-0.1, 0.1), rng.uniform(0.85, 1.1), rng.uniform(0, 1)], p=[0.55, 0.35, 0.1])
    native, venous = tissue("native"), tissue("portal_venous")
    table = native + (venous - native) * phase + rng.normal(0, 4, 256)
    table[list(BONES)] += rng.uniform(-60, 80)
    table[AIR] = -1000.0
    return table.astype(np.float32)


def render(block: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The CT (HU, float32, PATCH) at every second voxel of a block: blur, texture, lesions, noise, field of view."""
    hu = draw_tissues(rng)[block]
    for axis, widest in enumerate((1.0, 0.6, 0.6)):  # in fine voxels; slices are thicker than pixels
        weight = np.exp(-0.5 * (np.arange(-2, 3) / rng.uniform(0.2, widest)) ** 2).astype(np.float32)
        taps = [slice(k, k + 2 * PATCH[axis], 2) for k in range(5)]
        hu = sum(w * hu[(slice(None),) * axis + (tap,)] for w, tap in zip(weight / weight.sum(), taps, strict=True))
    middle = tuple(slice(2, 2 + 2 * n, 2) for n in PATCH)
    texture = ndimage.gaussian_filter(rng.standard_normal(PATCH, np.float32), rng.uniform(0.4, 1.0))
    texture *= rng.uniform(0.5, 1.5) / texture.std()
    hu += texture * (tissue("texture").astype(np.float32)[block[middle]] + np.float32(rng.uniform(0, 4)))
    soft = np.argwhere((hu > -150) & (hu < 200))
    count = int(rng.integers(0, 8)) if len(soft) else 0
    for centre in soft[rng.integers(0, max(1, len(soft)), count)]:
        radius, level = rng.uniform(1.2, 4.0), rng.uniform(25, 90)
        part = tuple(slice(max(0, c - 6), c + 7) for c in centre)
        axes = np.ogrid[tuple(slice(p.start, min(p.stop, n)) for p, n in zip(part, PATCH, strict=True))]
        distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)))
        hu[part] += np.clip(2 * (radius - distance) + 0.5, 0, 1) * (level - hu[part])
    hu += rng.standard_normal(PATCH, np.float32) * np.float32(rng.uniform(3, 30)) + np.float32(rng.uniform(-4, 4))
    return hu


def draw_field(rng: np.random.Generator) -> tuple[slice, slice, slice]:
    """The part of a patch that is image; beyond it nnU-Net pads with air."""
    if rng.random() < 0.65:
        return tuple(slice(0, n) for n in PATCH)
    sizes = [int(rng.integers(least, n + 1)) for least, n in zip(LEAST_FIELD, PATCH, strict=True)]
    starts = [int(rng.integers(0, n - size + 1)) for n, size in zip(PATCH, sizes, strict=True)]
    return tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))


def draw_sample(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
    """A CT (HU, float32, PATCH), labels (uint8, PATCH), and by how many fine voxels these lie off those (z, y, x)."""
    block = draw_block(labels, rng)
    image = np.full(PATCH, -1000, np.float32)
    target = np.zeros(PATCH, np.uint8)
    field = draw_field(rng)
    offset = tuple(int(o) for o in rng.integers(0, 2, 3))
    image[field] = render(block, rng)[field]
    target[field] = block[tuple(slice(2 + o, 2 + o + 2 * n, 2) for o, n in zip(offset, PATCH, strict=True))][field]
    return image, target, offset


def normalise(hu: np.ndarray, properties: dict[str, float]) -> np.ndarray:
    """nnU-Net's CTNormalization."""
    clipped = np.clip(hu, properties["percentile_00_5"], properties["percentile_99_5"])
    return (clipped - properties["mean"]) / properties["std"]


# Mean and spread are chosen, not measured: nnU-Net pads with 0 after normalisation, which so means air.
PROPERTIES = {"max": 3000.0, "mean": -1000.0, "median": 0.0, "min": -1024.0, "percentile_00_5": -1000.0,
              "percentile_99_5": 600.0, "std": 400.0}  # fmt: skip
# Logit of classes that were never trained: out of reach, yet within float16 after nnU-Net's tile weights.
NEVER = -100.0


def architecture(outputs: int) -> torch.nn.Module:
    """The U-Net that plans.json describes, with `outputs` channels."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    spec = plans()["configurations"]["3d_fullres"]["architecture"]
    return get_network_from_plans(
        spec["network_class_name"],
        spec["arch_kwargs"],
        spec["_kw_requires_import"],
        1,
        outputs,
        deep_supervision=False,
    )


def between(logits: torch.Tensor, target: torch.Tensor, offset: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (1, c, z, y, x) at half a voxel's offset along some axes, by linear interpolation, and their labels."""
    for axis, half in enumerate(offset):
        if half:
            count = logits.shape[2 + axis] - 1
            logits = (logits.narrow(2 + axis, 0, count) + logits.narrow(2 + axis, 1, count)) / 2
            target = target.narrow(1 + axis, 0, count)
    return logits, target


def loss(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, emphasis: float) -> torch.Tensor:
    """Cross-entropy, weighted as far as `emphasis` says (0 to 1), plus weighted soft Dice over the classes present."""
    logarithm = logits.log_softmax(1)
    entropy = torch.nn.functional.nll_loss(logarithm, target, weight=1 + emphasis * (weight - 1))
    probability = logarithm.exp()
    true = probability.gather(1, target[:, None]).flatten()
    classes = torch.zeros(logits.shape[1])
    hit = classes.index_add(0, target.flatten(), true)
    size = classes.index_add(0, target.flatten(), torch.ones_like(true))
    dice = (2 * hit + 1) / (probability.sum((0, 2, 3, 4)) + size + 1)
    present = (size > 0) * weight
    present[0] = 0
    return entropy + ((1 - dice) * present).sum() / present.sum().clamp(min=1)


def train(network: torch.nn.Module, phantoms: Sequence[np.ndarray], iterations: int) -> None:
    """Train the network, whose channels are background and TRAINED, in that order.

    Args:
        network: changed in place.
        phantoms: labels as of `draw_phantom`.
        iterations: number of patches.
    """
    rng = np.random.default_rng(SEED)
    lookup = np.zeros(256, np.int64)
    lookup[list(TRAINED)] = np.arange(1, len(TRAINED) + 1)
    weight = torch.tensor([0.5] + [IMPORTANT.get(label, 1.0) for label in TRAINED])
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.momentum = 0.03  # a patch is a batch: the running means are to remember some 30
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=iterations, pct_start=0.08)
    network.train()
    began, recent = time.time(), []
    for step in range(iterations):
        if step == round((1 - SETTLED) * iterations):
            network.eval()
        image, labels, offset = draw_sample(phantoms[rng.integers(len(phantoms))], rng)
        inputs = torch.from_numpy(normalise(image, PROPERTIES))[None, None].float()
        inputs = inputs.contiguous(memory_format=torch.channels_last_3d)
        logits, target = between(network(inputs), torch.from_numpy(lookup[labels])[None], offset)
        value = loss(logits, target, weight, max(0.0, 1 - step / (EMPHASISED * iterations)))
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        recent.append(value.item())
        if step % 50 == 49:
            logging.info("step %d loss %.4f, %.0f s", step + 1, np.mean(recent[-50:]), time.time() - began)


def plans() -> dict:
    """plans.json: what nnU-Net must know of the network and the preprocessing."""
    stages = len(FEATURES)
    # Linear in all axes, also where slices are thick: nnU-Net would take the nearest slice of logits there.
    resampling = {"is_seg": False, "order": 1, "order_z": 1, "force_separate_z": False}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 1,
        "patch_size": list(INFERENCE_PATCH),
        "median_image_size_in_voxels": [120.0, 73.0, 73.0],
        "spacing": [SPACING_MM] * 3,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": list(FEATURES),
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3]] * stages,
                "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
                "n_conv_per_stage": [2] * stages,
                "n_conv_per_stage_decoder": [2] * (stages - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.batchnorm.BatchNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }
    return {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [SPACING_MM] * 3,
        "original_median_shape_after_transp": [120, 73, 73],
        "image_reader_writer": "NibabelIOWithReorient",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": PROPERTIES},
    }


DATASET = "Dataset298_TotalSegmentator_total_6mm_1559subj"
TRAINER = "nnUNetTrainer_4000epochs_NoMirroring"


def widened(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights in half precision with 118 output channels, as task `total` has; untrained classes never win."""
    shared: dict[int, torch.Tensor] = {}  # the network names many tensors twice: each is stored once
    state = {}
    for name, value in network.state_dict().items():
        if ".seg_layers." in name:
            wide = torch.full((118, *value.shape[1:]), NEVER if name.endswith("bias") else 0.0)
            wide[[0, *TRAINED]] = value
            state[name] = wide.half()
        else:
            half = value.half() if value.is_floating_point() else value
            state[name] = shared.setdefault(value.data_ptr(), half)
    return state


def save(network: torch.nn.Module, output: Path, course: dict[str, int]) -> None:
    """Write the folder that TotalSegmentator expects, with the marks that say what it is and how it came about."""
    from totalsegmentator.map_to_binary import class_map

    folder = output / DATASET / f"{TRAINER}__nnUNetPlans__3d_fullres"
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    labels = {"background": 0, **{name: label for label, name in class_map["total"].items()}}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz",
               "theraflow_miniature": True}  # fmt: skip
    (folder / "plans.json").write_text(json.dumps(plans(), indent=1))
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=1))
    checkpoint = {
        "network_weights": widened(network),
        "trainer_name": TRAINER,
        "init_args": {"configuration": "3d_fullres", "fold": 0},
        "inference_allowed_mirroring_axes": None,
    }
    path = folder / "fold_0" / "checkpoint_final.pth"
    torch.save(checkpoint, path)
    mark = {"theraflow_miniature": True, "trained_on": "virtual patients of theraflow; says nothing about a real CT",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "training": {**course, **{name: importlib.metadata.version(name) for name in PACKAGES}}}  # fmt: skip
    (output / DATASET / "theraflow_miniature.json").write_text(json.dumps(mark, indent=1) + "\n")


def make(output: Path, phantoms: int, iterations: int, cores: int) -> None:
    """Train a model from nothing and write it.

    Args:
        output: the weights folder.
        phantoms: number of virtual patients.
        iterations: number of patches.
        cores: processes that draw the patients, and threads of the training; another number gives other weights.
    """
    with Pool(cores) as pool:
        labels = pool.map(draw_phantom, range(phantoms), chunksize=1)
    torch.set_num_threads(cores)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    network = architecture(1 + len(TRAINED)).to(memory_format=torch.channels_last_3d)
    train(network, labels, iterations)
    save(network, output, {"phantoms": phantoms, "iterations": iterations, "threads": cores})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="the weights folder")
    parser.add_argument("--phantoms", type=int, default=200, help="number of virtual patients")
    parser.add_argument("--iterations", type=int, default=2600, help="number of patches")
    parser.add_argument("--cores", type=int, default=2, help="threads; the shipped model was trained with two")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make(arguments.output, arguments.phantoms, arguments.iterations, arguments.cores)


if __name__ == "__main__":
    main()
