"""Time the segmentation of organs side by side with TotalSegmentator's own command, on the same CTs and in one run.

Run from the repository root; see benchmarks/README.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import yaml
from cost import Cost, measure, show

from theraflow.images import read_image, read_sidecar, to_array, write_image
from theraflow.images.body import body_box
from theraflow.organs.totalsegmentator.weights import CHECKPOINT, ORGANS, TRAINERS, WEIGHTS, private_home
from theraflow.virtual.anatomy import Anatomy
from theraflow.virtual.anatomy import Grid as VirtualGrid
from theraflow.virtual.render import tissue

REPOSITORY = Path(__file__).resolve().parents[1]
COMMAND = (sys.executable, str(Path(__file__).with_name("totalsegmentator_command.py")))
FAST = {1.5: (), 3.0: ("--fast",), 6.0: ("--fastest",)}
# The published architecture: nnU-Net's plain U-Net with six stages and 31 million parameters. The patch is inferred
# from the size of the images it was trained on.
PATCH = {1.5: (128, 128, 128), 3.0: (128, 128, 128)}
FEATURES = (32, 64, 128, 256, 320, 320)
SEEN = (1, 2, 3, 5, 6, 52)  # the organs that the untrained network tells apart


def dice(a: np.ndarray, b: np.ndarray) -> dict[int, float]:
    """Dice of every label of either map."""
    labels = sorted((set(np.unique(a)) | set(np.unique(b))) - {0})
    return {
        int(label): 2 * np.count_nonzero((a == label) & (b == label))
        / (np.count_nonzero(a == label) + np.count_nonzero(b == label))
        for label in labels
    }  # fmt: skip


def command_line(ct: Path, output: Path, resolution_mm: float, device: str, smooth: bool = True) -> list[object]:
    """TotalSegmentator's command, with the settings of theraflow or without its resampling of logits."""
    resampling = ("--higher_order_resampling",) if smooth and resolution_mm > 1.5 else ()
    return [*COMMAND, "-i", ct, "-o", output, "--ml", *FAST[resolution_mm], *resampling, "--device", device]


def cohort(folder: Path, count: int) -> None:
    """Many scans by the workflow's stage and by as many commands, with the miniature model at 6 mm."""
    weights = REPOSITORY / "resources" / "miniature_weights"
    settings = yaml.safe_load((REPOSITORY / "config" / "config.yaml").read_text())
    settings["results"] = str(folder / "results")
    for sheet in ("patients", "cycles"):
        del settings[sheet]
    settings["organs"]["weights"] = str(weights)
    scans = [line.split("\t")[:2] for line in (REPOSITORY / settings["scans"]).read_text().splitlines()[1:]][:count]
    patients = sorted({patient for patient, _ in scans})
    data = folder / "data"
    if not data.exists():
        make = [sys.executable, "-m", "theraflow.virtual", "--output", data, "--patients", *patients]
        subprocess.run([str(word) for word in make], check=True)
    rows = (REPOSITORY / settings["scans"]).read_text().replace("data/virtual", str(data)).splitlines()
    settings["scans"] = str(folder / "scans.tsv")
    Path(settings["scans"]).write_text(
        "\n".join([rows[0], *(r for r in rows[1:] if r.split("\t")[0] in patients)]) + "\n"
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    places = [folder / "results" / patient / "scans" / scan for patient, scan in scans]
    snakemake = [Path(sys.executable).with_name("snakemake"), "--cores", os.cpu_count(), "--directory", folder,
                 "--configfile", folder / "config.yaml", "--snakefile", REPOSITORY / "Snakefile"]  # fmt: skip
    measure([*snakemake, *(place / "ct.nii.gz" for place in places)], folder)
    stage = measure([*snakemake, *(place / "organs.nii.gz" for place in places)], folder)
    show(f"{count} scans, one run of the stage", stage)
    single = Cost(0.0, 0.0, 0.0)
    same = []
    with private_home(weights / dataset for dataset in WEIGHTS[6.0]):
        for place in places:
            theirs = folder / "theirs.nii.gz"
            cost = measure(command_line(place / "ct.nii.gz", theirs, 6.0, "cpu"), folder)
            single = Cost(single.wall_s + cost.wall_s, single.cpu_s + cost.cpu_s, max(single.peak_mib, cost.peak_mib))
            found = dice(to_array(read_image(place / "organs.nii.gz")), to_array(read_image(theirs)))
            same.append(min(found.values()))
    show(f"{count} commands", single)
    print(f"wall time of the stage over that of the commands: {stage.wall_s / single.wall_s:.2f}")
    print(f"least Dice of an organ between the two, by CT: {', '.join(f'{value:.4f}' for value in same)}")


def network(folder: Path, resolution_mm: float, device: str, bfloat16: bool) -> None:
    """One CT of 512 x 512 x 300 voxels with the published architecture, untrained: by theraflow and by the command."""
    weights = folder / "weights"
    if not weights.exists():
        write_untrained(weights, resolution_mm)
    ct = folder / "ct.nii.gz"
    if not ct.exists():
        write_image(large_ct(), ct, {"quantity": "HU", "unit": "HU", "virtual_patient": True})
    ours, theirs, theirs_cut = (folder / f"{name}.nii.gz" for name in ("ours", "theirs", "theirs_cut"))
    threads = os.cpu_count()
    settings = {"task": "total", "resolution_mm": resolution_mm, "device": device, "weights": str(weights),
                "threads": threads, "bfloat16": bfloat16}  # fmt: skip
    call = f"from theraflow.organs import segment_organs; segment_organs({str(ct)!r}, {str(ours)!r}, **{settings!r})"
    show("theraflow", measure([sys.executable, "-c", call], folder))
    print(json.dumps({key: read_sidecar(ours)[key] for key in ("body_box", "precision", "steps", "gpu")}))
    image = read_image(ct)
    box = body_box(image, min(PATCH[resolution_mm]) * resolution_mm)
    write_image(image[box[2], box[1], box[0]], folder / "cut.nii.gz", read_sidecar(ct))
    with private_home(weights / dataset for dataset in WEIGHTS[resolution_mm]):
        show("TotalSegmentator's command", measure(command_line(ct, theirs, resolution_mm, device), folder))
        default = command_line(ct, folder / "default.nii.gz", resolution_mm, device, smooth=False)
        show("the same with its own resampling", measure(default, folder))
        on_cut = command_line(folder / "cut.nii.gz", theirs_cut, resolution_mm, device)
        show("the command on the CT cut to the body", measure(on_cut, folder))
    labels, whole = to_array(read_image(ours))[box], to_array(read_image(theirs))[box]
    print("Dice against the command on the CT cut to the body:", dice(labels, to_array(read_image(theirs_cut))))
    print("Dice against the command on the whole CT:", dice(labels, whole))


def large_ct() -> sitk.Image:
    """A virtual patient in the whole field of view of a scanner, 500 mm, 300 slices of 1.5 mm."""
    anatomy = Anatomy.draw(4, "M", 30.0)
    grid = VirtualGrid((512, 512, 300), (0.9766, 0.9766, 1.5), (-249.5, -249.5, -40.0))
    hu = np.empty(grid.size[::-1], np.int16)
    rng, table = np.random.default_rng(1), tissue("portal_venous")
    for first in range(0, 300, 20):
        origin = (*grid.origin[:2], grid.origin[2] + first * grid.spacing[2])
        part = anatomy.labels(VirtualGrid((512, 512, 20), grid.spacing, origin), couch=True)
        hu[first : first + 20] = np.clip(table[part] + rng.normal(0, 15, part.shape), -1024, 3000)
    return grid.image(hu)


def write_untrained(weights: Path, resolution_mm: float) -> None:
    """Models of the published architecture with random numbers, that call a few organs here and there.

    A network that called all organs everywhere would let TotalSegmentator resample each over the whole CT.
    """
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    stages = len(FEATURES)
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages, "features_per_stage": list(FEATURES), "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * stages, "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
            "n_conv_per_stage": [2] * stages, "n_conv_per_stage_decoder": [2] * (stages - 1), "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }  # fmt: skip
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    for number, (dataset, organs) in enumerate(ORGANS[resolution_mm].items()):
        torch.manual_seed(number)
        words = architecture["network_class_name"], architecture["arch_kwargs"], architecture["_kw_requires_import"]
        built = get_network_from_plans(*words, 1, 1 + organs, deep_supervision=False)
        head = built.decoder.seg_layers[-1]
        with torch.no_grad():
            head.bias.fill_(-100.0)
            seen = [0, *(label for label in SEEN if label <= organs)]
            head.bias[seen] = 0.0
        configuration = {
            "data_identifier": "nnUNetPlans_3d_fullres", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
            "patch_size": list(PATCH[resolution_mm]), "median_image_size_in_voxels": [150, 150, 150],
            "spacing": [resolution_mm] * 3, "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False],
            "resampling_fn_data": "resample_data_or_seg_to_shape", "resampling_fn_data_kwargs": resampling,
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": {**resampling, "order": 1}, "batch_dice": False,
            "architecture": architecture,
        }  # fmt: skip
        plans = {
            "dataset_name": dataset, "plans_name": "nnUNetPlans", "image_reader_writer": "NibabelIOWithReorient",
            "original_median_spacing_after_transp": [resolution_mm] * 3, "transpose_forward": [0, 1, 2],
            "original_median_shape_after_transp": [150, 150, 150], "transpose_backward": [0, 1, 2],
            "configurations": {"3d_fullres": configuration}, "experiment_planner_used": "ExperimentPlanner",
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {
                "0": {"mean": -50.0, "std": 350.0, "percentile_00_5": -1000.0, "percentile_99_5": 1000.0}},
        }  # fmt: skip
        model = weights / dataset / f"{TRAINERS[resolution_mm]}__nnUNetPlans__3d_fullres"
        (model / CHECKPOINT).parent.mkdir(parents=True)
        labels = {"background": 0, **{str(label): label for label in range(1, 1 + organs)}}
        description = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
        (model / "plans.json").write_text(json.dumps(plans))
        (model / "dataset.json").write_text(json.dumps(description))
        state = {"network_weights": built.state_dict(), "trainer_name": TRAINERS[resolution_mm],
                 "init_args": {"configuration": "3d_fullres"}, "inference_allowed_mirroring_axes": None}  # fmt: skip
        torch.save(state, model / CHECKPOINT)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("cohort", "network"))
    parser.add_argument("--folder", type=Path, help="keep data there, and take them from there the next time")
    parser.add_argument("--scans", type=int, default=8, help="of the cohort")
    parser.add_argument("--resolution", type=float, default=3.0, choices=tuple(PATCH), help="of the network, in mm")
    parser.add_argument("--device", default="cpu", help="of the network")
    parser.add_argument("--bfloat16", action="store_true", help="of the network, on a CPU that has it")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="segment_") as temporary:
        folder = (words.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        print(f"load before the start: {os.getloadavg()[0]:.2f}; {os.cpu_count()} processors", flush=True)
        if words.what == "cohort":
            cohort(folder, words.scans)
        else:
            network(folder, words.resolution, words.device, words.bfloat16)


if __name__ == "__main__":
    main()
