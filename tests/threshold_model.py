"""A TotalSegmentator checkpoint that is no training's work: set by hand, it calls bright voxels `liver`.

It runs through all of TotalSegmentator and nnU-Net in a second, and its truth is known without running it.
"""

import json
from pathlib import Path

from theraflow.organs import ORGAN_IDS
from theraflow.organs.totalsegmentator.weights import CHECKPOINT, ORGANS, TRAINERS

STAGES = 2
FOUND = ORGAN_IDS["liver"]


def plans(dataset: str, resolution_mm: float) -> dict:
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": dataset,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [resolution_mm] * 3,
        "original_median_shape_after_transp": [32, 32, 32],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": [round(192 / resolution_mm)] * 3,
                "median_image_size_in_voxels": [32, 32, 32],
                "spacing": [resolution_mm] * 3,
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": resampling,
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_seg_kwargs": {**resampling, "is_seg": True},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": resampling,
                "batch_dice": False,
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": {
                        "n_stages": STAGES,
                        "features_per_stage": [1] * STAGES,
                        "conv_op": "torch.nn.modules.conv.Conv3d",
                        "kernel_sizes": [[3, 3, 3]] * STAGES,
                        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (STAGES - 1),
                        "n_conv_per_stage": [1] * STAGES,
                        "n_conv_per_stage_decoder": [1] * (STAGES - 1),
                        "conv_bias": True,
                        "norm_op": "torch.nn.modules.batchnorm.BatchNorm3d",
                        "norm_op_kwargs": {"eps": 0.0, "affine": True},
                        "dropout_op": None,
                        "dropout_op_kwargs": None,
                        "nonlin": "torch.nn.LeakyReLU",
                        "nonlin_kwargs": {"inplace": True},
                    },
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
            }
        },
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 0.0, "std": 1000.0, "percentile_00_5": -1000.0, "percentile_99_5": 1000.0}
        },
    }


def write_threshold_model(weights: Path, resolution_mm: float, threshold_hu: float = 500.0) -> None:
    """Write models that label every voxel above `threshold_hu` as the fifth of their organs, which is the liver, or at
    1.5 mm in each part the fifth organ of that part."""
    for dataset, organs in ORGANS[resolution_mm].items():
        _write(weights / dataset, resolution_mm, organs, threshold_hu)


def _write(dataset: Path, resolution_mm: float, organs: int, threshold_hu: float) -> None:
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    settings = plans(dataset.name, resolution_mm)
    architecture = settings["configurations"]["3d_fullres"]["architecture"]
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        1 + organs,
        deep_supervision=False,
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.zero_()
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)  # with running mean 0 and variance 1 batch normalisation changes nothing
            elif name.endswith("conv.weight") and parameter.ndim == 5:
                parameter[:, -1, 1, 1, 1] = 1.0  # the last input channel: the image, or in the decoder the skip
        head = network.decoder.seg_layers[-1]
        head.bias.fill_(-100.0)  # organs that are not there
        head.bias[0], head.weight[0, 0] = 0.0, 0.0
        head.bias[FOUND] = -100.0 * threshold_hu / 1000.0
        head.weight[FOUND, 0] = 100.0
    trainer = TRAINERS[resolution_mm]
    checkpoint = dataset / f"{trainer}__nnUNetPlans__3d_fullres" / CHECKPOINT
    checkpoint.parent.mkdir(parents=True)
    labels = {"background": 0, **{str(label): label for label in range(1, 1 + organs)}}
    description = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    (checkpoint.parents[1] / "plans.json").write_text(json.dumps(settings))
    (checkpoint.parents[1] / "dataset.json").write_text(json.dumps(description))
    torch.save(
        {
            "network_weights": network.state_dict(),
            "trainer_name": trainer,
            "init_args": {"configuration": "3d_fullres"},
            "inference_allowed_mirroring_axes": None,
        },
        checkpoint,
    )
