"""How good a registration is, in numbers, and what follows from them."""

from collections.abc import Mapping

import numpy as np
import SimpleITK as sitk

from theraflow.images import resample, to_array
from theraflow.images.body import AIR_HU, Body
from theraflow.registration.deformable import displacement_at
from theraflow.registration.rigid import IDENTITY, emission_levels, field_of_view

SOFT_TISSUE_HU = (-200.0, 300.0)

# Each measure with the limit up to (or from) which it is good, and beyond which the registration has failed.
LIMITS: dict[str, dict[str, float]] = {
    "body_overlap_dice": {"good_from": 0.95, "failed_below": 0.8},
    "metric_after": {"good_from": 0.85, "failed_below": 0.5},
    "folding_fraction": {"good_to": 0.0001, "failed_above": 0.01},
    "inverse_consistency_p95_mm": {"good_to": 1.5, "failed_above": 5.0},
    # Breathing and another posture reach 0.1 to 0.15; to become somebody else a body needs more than 0.2.
    "local_volume_change_p95": {"good_to": 0.2, "failed_above": 0.7},
}
# What these measures are for a map without a field: exactly.
RIGID = {
    "folding_fraction": 0.0,
    "inverse_consistency_mean_mm": 0.0,
    "inverse_consistency_p95_mm": 0.0,
    "local_volume_change_p95": 0.0,
}
EMISSION_LIMITS: dict[str, dict[str, float]] = {"body_overlap_dice": {"failed_below": 0.7}}


def verdict(measures: Mapping[str, float | None], limits: Mapping[str, Mapping[str, float]]) -> str:
    """`failed` if any measure is beyond its limit, `good` if all are within theirs, else `check`.

    A measure that could not be taken (None) is no better than `check`; one without a limit for good neither.
    """
    taken = [(measures[name], limit) for name, limit in limits.items() if measures[name] is not None]
    if any(
        value < limit.get("failed_below", -np.inf) or value > limit.get("failed_above", np.inf)
        for value, limit in taken
    ):
        return "failed"
    good = [value >= limit.get("good_from", np.inf) or value <= limit.get("good_to", -np.inf) for value, limit in taken]
    return "good" if all(good) and len(taken) == len(limits) else "check"


def measure_fields(field: sitk.Image, inverse: sitk.Image, body: sitk.Image) -> dict[str, float]:
    """Folding of a displacement field and how well its inverse undoes it.

    Args:
        field, inverse: vector images (mm) on one grid, see `theraflow.registration.deformable`.
        body: mask of the reference's body; the inverse consistency is measured there.

    Returns:
        folding_fraction: share of all grid points at which the Jacobian determinant of either map is not
        positive; inverse_consistency_mean_mm, inverse_consistency_p95_mm: distance of a point, carried to the
        scan and back, from itself; local_volume_change_p95: 95th percentile in the body of the absolute logarithm of
        the Jacobian determinant (0.1: tissue grows or shrinks by a tenth), which tells whether one person was
        stretched to look like another.
    """
    jacobians = [to_array(sitk.DisplacementFieldJacobianDeterminant(part)) for part in (field, inverse)]
    residual = np.linalg.norm(to_array(field) + to_array(displacement_at(inverse, field)), axis=-1)
    inside = to_array(resample(body, field, interpolation="nearest")) > 0
    residual = residual[inside]
    volume_change = np.abs(np.log(jacobians[0][inside].clip(min=np.finfo(float).tiny)))
    return {
        "folding_fraction": float(max((jacobian <= 0).mean() for jacobian in jacobians)),
        "inverse_consistency_mean_mm": float(residual.mean()),
        "inverse_consistency_p95_mm": float(np.percentile(residual, 95)),
        "local_volume_change_p95": float(np.percentile(volume_change, 95)),
    }


def compare_bodies(
    reference: Body, scan: Body, to_scan: sitk.Transform, grid: sitk.Image
) -> tuple[float | None, float | None]:
    """Similarity of two CTs where both have seen something.

    Args:
        reference, scan: the two CTs.
        to_scan: maps reference points to scan points.
        grid: points of the reference's space at which to compare.

    Returns:
        Correlation of HU (clipped to -200 to 300) in the union of the bodies, and Dice overlap of the bodies;
        None where the two share nothing.
    """
    seen = field_of_view(reference.image, grid) & field_of_view(scan.image, grid, to_scan)
    bodies = [
        to_array(resample(body.mask, grid, transform, "nearest"))[seen] > 0
        for body, transform in ((reference, IDENTITY), (scan, to_scan))
    ]
    either = bodies[0] | bodies[1]
    if not either.any():
        return None, None
    values = [
        np.clip(to_array(resample(body.image, grid, transform, outside=AIR_HU))[seen][either], *SOFT_TISSUE_HU)
        for body, transform in ((reference, IDENTITY), (scan, to_scan))
    ]
    overlap = 2 * (bodies[0] & bodies[1]).sum() / (bodies[0].sum() + bodies[1].sum())
    if min(value.std() for value in values) == 0:
        return None, float(overlap)
    return float(np.corrcoef(*values)[0, 1]), float(overlap)


def compare_emissions(
    reference: sitk.Image, scan: sitk.Image, to_scan: sitk.Transform
) -> tuple[float | None, float | None]:
    """Mutual information (nats, 32 x 32 bins) and Dice overlap of the bodies of two PET or SPECT images.

    Args:
        reference, scan: the two images.
        to_scan: maps reference points to scan points.

    Returns:
        Both over what both fields of view have seen; None where they share nothing. The body is what lies
        above Otsu's threshold of the logarithm of uptake.
    """
    seen = field_of_view(scan, reference, to_scan)
    if not seen.any():
        return None, None
    moved = emission_levels(scan)
    moved = resample(moved, reference, to_scan)
    levels = [emission_levels(reference), moved]
    bodies = [to_array(sitk.OtsuThreshold(level, 0, 1))[seen] > 0 for level in levels]
    counts, _, _ = np.histogram2d(*(to_array(level)[seen] for level in levels), bins=32)
    total = bodies[0].sum() + bodies[1].sum()
    return mutual_information(counts), float(2 * (bodies[0] & bodies[1]).sum() / total) if total else None


def mutual_information(counts: np.ndarray) -> float:
    """Mutual information in nats of a joint histogram, shape (levels of one image, levels of the other)."""
    share = counts / counts.sum()
    independent = share.sum(axis=1, keepdims=True) * share.sum(axis=0, keepdims=True)
    filled = share > 0
    return float((share[filled] * np.log(share[filled] / independent[filled])).sum())
