"""Trains the miniature segmentation model on virtual patients and writes it where TotalSegmentator looks for weights.

    python tools/train_miniature_model.py --output resources/miniature_weights

The model exists so that the demo and the tests run the true TotalSegmentator and nnU-Net code without the internet. It
has learned nothing but analytic phantoms and says nothing about a real CT; the workflow refuses it for real patients.

A small U-Net sees phantoms at 6 mm, sampled like TotalSegmentator samples a CT (no smoothing before), with random HU
of every tissue, noise, lesions, poses, bodies and fields of view. Everything is seeded; the same versions and thread
count give the same weights.
"""

import argparse
import hashlib
import json
import logging
import time
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from theraflow.virtual.anatomy import RIB, Anatomy, Grid, Pose
from theraflow.virtual.render import tissue

SPACING_MM = 6.0
FINE_MM = 3.0  # phantoms are drawn at half the spacing: every second voxel, at any phase, is one training image
PATCH = (80, 48, 64)  # z, y, x in training
INFERENCE_PATCH = (
    96,
    80,
    80,
)  # the whole width at once; batch normalisation makes the network indifferent to it
FEATURES = (16, 32, 48, 64, 80)


@dataclass(frozen=True)
class Course:
    """One course of training.

    Attributes:
        seed: of the tissue values, lesions and patches.
        iterations: number of patches.
        learning_rate: the highest.
        spread_hu: how far a tissue's HU may lie from its mean.
        native: share of phantoms that surely have no contrast medium.
        emphasis: whether the organs in IMPORTANT count more; they are then drawn too large where they are hard to see.
    """

    seed: int
    iterations: int
    learning_rate: float
    spread_hu: float
    native: float
    emphasis: bool


# First wide, then with the small differences between organs that a CT without contrast medium leaves, last unweighted.
COURSES = (
    Course(5, 1300, 4e-3, 12.0, 0.0, True),
    Course(6, 450, 1.5e-3, 4.0, 0.6, True),
    Course(6, 260, 1e-3, 4.0, 0.6, False),
)
BONES = (*range(25, 51), 71, 72, 75, 76, 77, 78, 116, RIB)
TRAINED = (1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 18, 20, 21, 25, *range(27, 44), 51, 52, 63, 75, 76, 77, 78, 80, 81,
           88, 89)  # fmt: skip
# Organs on which doses and background uptake depend count more.
IMPORTANT = {1: 3.0, 2: 3.0, 3: 3.0, 5: 2.0, 52: 3.0, 80: 1.5, 81: 1.5, **dict.fromkeys(range(27, 32), 2.0)}


def draw_phantom(seed: int) -> np.ndarray:
    """One virtual person in one pose: labels (uint8, z y x) at FINE_MM, LPS."""
    rng = np.random.default_rng([20231107, seed])
    age = rng.choice([rng.uniform(6, 14), rng.uniform(15, 80)], p=[0.15, 0.85])
    anatomy = Anatomy.draw(int(rng.integers(1 << 31)), rng.choice(["M", "F"], p=[0.8, 0.2]), float(age))
    low, high = anatomy.bounding_box(rng.uniform(-230, -120), rng.uniform(400, 540))
    if rng.random() < 0.3:  # a shorter field of view, as of a SPECT/CT
        low[2], high[2] = low[2] + rng.uniform(0, 150), high[2] - rng.uniform(0, 150)
    grid = Grid.covering(low - 12, high + 24, (FINE_MM,) * 3)
    labels = anatomy.labels(grid, Pose.draw(rng, 8.0, 15.0, 15.0, 2.5), couch=bool(rng.random() < 0.8))
    return labels


def render(labels: np.ndarray, course: Course, seed: int) -> np.ndarray:
    """A CT of those labels with random tissue values, texture and lesions, before noise; int16 HU."""
    rng = np.random.default_rng([course.seed, seed])
    phase = rng.uniform(-0.1, 1.1)  # from native to portal venous, and a little beyond
    if course.native and rng.random() < course.native:
        phase = rng.uniform(-0.1, 0.1)
    native, venous = tissue("native"), tissue("portal_venous")
    table = (native + (venous - native) * phase + rng.uniform(-1, 1, 256) * course.spread_hu).astype(np.float32)
    table[list(BONES)] += rng.uniform(-80, 120)
    for left, right in ((2, 3), (75, 76), (77, 78), (80, 81), (88, 89)):
        table[right] = table[left] + rng.normal(0, 4)
    hu = table[labels]
    texture = ndimage.gaussian_filter(rng.normal(0, 1, labels.shape).astype(np.float32), 2.0)
    hu += texture / texture.std() * rng.uniform(2, 12)
    gas = ndimage.gaussian_filter(rng.normal(0, 1, labels.shape).astype(np.float32), 3.0)
    hu[(labels == 20) & (gas > gas.std() * rng.uniform(0.8, 2.5))] = -800
    soft = np.argwhere((hu > -150) & (hu < 200))
    for centre in soft[rng.integers(len(soft), size=rng.integers(0, 9))]:
        radius = rng.uniform(2.5, 9.0)
        corner = np.maximum(centre - 10, 0)
        part = tuple(slice(a, a + 21) for a in corner)
        axes = np.ogrid[tuple(slice(a, min(a + 21, n)) for a, n in zip(corner, labels.shape, strict=True))]
        ball = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) < radius**2
        hu[part][ball & (hu[part] > -200)] = rng.uniform(25, 80)
    return np.clip(ndimage.gaussian_filter(hu, rng.uniform(0.25, 0.6)), -1024, 3000).astype(np.int16)


def sample(hu: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random patch at SPACING_MM in the orientation that nnU-Net sees (z up, y forward, x to the right)."""
    phase = rng.integers(0, 2, 3)
    hu, labels = (a[phase[0] :: 2, phase[1] :: 2, phase[2] :: 2][:, ::-1, ::-1] for a in (hu, labels))
    start = [int(rng.integers(min(0, n - p), max(0, n - p) + 1)) for n, p in zip(hu.shape, PATCH, strict=True)]
    source = tuple(slice(max(0, s), max(0, s) + p) for s, p in zip(start, PATCH, strict=True))
    image = np.full(PATCH, -1000, np.float32)
    target = np.zeros(PATCH, np.uint8)
    part = hu[source]
    place = tuple(slice(max(0, -s), max(0, -s) + n) for s, n in zip(start, part.shape, strict=True))
    place = tuple(slice(p.start, min(p.stop, size)) for p, size in zip(place, PATCH, strict=True))
    shape = tuple(p.stop - p.start for p in place)
    crop = tuple(slice(0, n) for n in shape)
    image[place], target[place] = part[crop], labels[source][crop]
    image += rng.normal(0, rng.uniform(3, 35), PATCH).astype(np.float32)
    image = image * rng.uniform(0.97, 1.03) + rng.uniform(-10, 10)
    return image, target


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


def loss(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted cross-entropy plus soft Dice over the classes present."""
    entropy = torch.nn.functional.cross_entropy(logits, target, weight=weight)
    probability = logits.softmax(1)
    hot = torch.zeros_like(probability).scatter_(1, target[:, None], 1.0)
    axes = (0, 2, 3, 4)
    size = hot.sum(axes)
    dice = (2 * (probability * hot).sum(axes) + 1) / (probability.sum(axes) + size + 1)
    present = (size > 0) * weight
    present[0] = 0
    return entropy + ((1 - dice) * present).sum() / present.sum()


def train(network: torch.nn.Module, phantoms: list, course: Course) -> None:
    """One course of training; the network's channels are background and TRAINED, in that order.

    Args:
        network: changed in place.
        phantoms: pairs of CT (HU) and labels, both (z, y, x) at FINE_MM.
        course: how long and how fast.
    """
    rng = np.random.default_rng(course.seed)
    lookup = np.zeros(256, np.int64)
    lookup[list(TRAINED)] = np.arange(1, len(TRAINED) + 1)
    important = IMPORTANT if course.emphasis else {}
    weight = torch.tensor([0.5 if course.emphasis else 1.0] + [important.get(label, 1.0) for label in TRAINED])
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, course.learning_rate, total_steps=course.iterations, pct_start=0.08
    )
    began, recent = time.time(), []
    for step in range(course.iterations):
        hu, labels = phantoms[rng.integers(len(phantoms))]
        image, target = sample(hu, labels, rng)
        inputs = torch.from_numpy(normalise(image, PROPERTIES))[None, None].float()
        inputs = inputs.contiguous(memory_format=torch.channels_last_3d)
        value = loss(network(inputs), torch.from_numpy(lookup[target])[None], weight)
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
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    resampling_seg = {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None}
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
        "resampling_fn_seg_kwargs": resampling_seg,
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
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


def save(network: torch.nn.Module, output: Path) -> None:
    """Write the folder that TotalSegmentator expects, with the marks that say what it is."""
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
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}  # fmt: skip
    (output / DATASET / "theraflow_miniature.json").write_text(json.dumps(mark, indent=1) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--phantoms", type=int, default=150)
    parser.add_argument("--cores", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.cores)
    torch.manual_seed(7)
    network = architecture(1 + len(TRAINED)).to(memory_format=torch.channels_last_3d)
    seeds = range(arguments.phantoms)
    with Pool(arguments.cores) as pool:
        labels = pool.map(draw_phantom, seeds, chunksize=4)
        for course in COURSES:
            images = pool.starmap(render, [(labels[seed], course, seed) for seed in seeds], chunksize=2)
            train(network, list(zip(images, labels, strict=True)), course)
            save(network, arguments.output)


if __name__ == "__main__":
    main()
