"""Deformable registration of two rigidly aligned CTs: symmetric-force demons coarse to fine, then local correlation.

Demons (SimpleITK) find large displacements, and smooth the whole field, so that it goes on sensibly to where the field
of view of one scan ends. Local correlation (greedy, github.com/pyushkevich/greedy) then follows contrast that demons
are blind to, at half their voxel size. Each alone is worse: `benchmarks/register_ct.py`.

A displacement field lives on a grid along the patient axes of the reference; the vector u (mm, LPS) at point
x says that x belongs to the point rigid(x + u) of the scan.
"""

import numpy as np
import SimpleITK as sitk
from picsl_greedy import Greedy3D

from theraflow.images import from_array, resample, to_array
from theraflow.images.body import AIR_HU, Body
from theraflow.registration.rigid import IDENTITY, common_grid, field_of_view

WORKING_MM = 6.0
LEVELS = ((2, 30), (1, 12))  # voxel size in units of WORKING_MM, iterations in each round
ROUNDS = 2  # of each level; what one scan has not seen is guessed anew before each
SMOOTHING_VOXELS = 2.0  # standard deviation of the Gaussian that keeps the field smooth
FINE_MM = 3.0
# Correlation in cubes of 5 voxels; iterations at twice FINE_MM and at it; standard deviations of the Gaussians that
# smooth each step and the map; random numbers (noise that keeps correlation defined in air) the same at each call.
CORRELATION = "-d 3 -float -m NCC 2x2x2 -n 20x8 -s 3vox 2vox -seed 5 -wp 0 -V 0"
INVERSION_MM, INVERSION_STEPS = 0.02, 30
MARGIN_MM = 12.0
HU_POINTS, LEVEL_POINTS = (-1000.0, -200.0, 300.0, 1300.0), (-300.0, -200.0, 300.0, 400.0)


def working_grid(reference: Body, scan: Body, rigid: sitk.Transform, spacing_mm: float) -> sitk.Image:
    """An empty grid, in the space of the reference, close around both bodies.

    Args:
        reference, scan: the two CTs.
        rigid: maps reference points to scan points.
        spacing_mm: isotropic voxel size.
    """
    around = common_grid([reference.mask, scan.mask], [IDENTITY, rigid.GetInverse()], MARGIN_MM)
    bodies = resample(reference.mask, around, interpolation="nearest") | resample(scan.mask, around, rigid, "nearest")
    return common_grid([_bounding_box(bodies)], [IDENTITY], spacing_mm, margin_mm=MARGIN_MM)


def deform(reference: Body, scan: Body, rigid: sitk.Transform) -> sitk.Image:
    """The displacement field that makes the rigidly aligned scan look like the reference.

    Where only one of the two scans has seen the body there is nothing to compare: there the other takes over
    its voxels, moved along, so that no force acts and the field goes on smoothly.

    Args:
        reference, scan: see `theraflow.images.body.find_body`; voxels of about FINE_MM.
        rigid: maps reference points to scan points.

    Returns:
        Vector image (float64, mm) at 6 mm around both bodies.
    """
    coarse = _by_demons(reference, scan, rigid)
    return sitk.Resample(_by_correlation(reference, scan, rigid, coarse), coarse)


def _by_demons(reference: Body, scan: Body, rigid: sitk.Transform) -> sitk.Image:
    field = None
    for factor, iterations in LEVELS:
        grid = working_grid(reference, scan, rigid, factor * WORKING_MM)
        fixed = _levels(resample(reference.image, grid, outside=AIR_HU))
        moving = _levels(resample(scan.image, grid, rigid, outside=AIR_HU))
        fixed_seen = field_of_view(reference.image, grid)
        moving_seen = field_of_view(scan.image, grid, rigid)
        field = _vector_image(0, grid) if field is None else sitk.Resample(field, grid)
        for _ in range(ROUNDS):
            demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
            demons.SetNumberOfIterations(iterations)
            demons.SetStandardDeviations(SMOOTHING_VOXELS)
            moved = resample(moving, grid, as_transform(field), outside=LEVEL_POINTS[0])
            moved_back = resample(fixed, grid, as_transform(invert(field)), outside=LEVEL_POINTS[0])
            field = demons.Execute(
                from_array(np.where(fixed_seen, to_array(fixed), to_array(moved)), grid),
                from_array(np.where(moving_seen, to_array(moving), to_array(moved_back)), grid),
                field,
            )
    return field


def _by_correlation(reference: Body, scan: Body, rigid: sitk.Transform, field: sitk.Image) -> sitk.Image:
    """`field` followed by what local correlation adds to it, at FINE_MM."""
    grid = working_grid(reference, scan, rigid, FINE_MM)
    to_scan = sitk.CompositeTransform([rigid, as_transform(field)])
    fixed = to_array(resample(reference.image, grid, outside=AIR_HU))
    moved = to_array(resample(scan.image, grid, to_scan, outside=AIR_HU))
    fixed_seen = field_of_view(reference.image, grid)
    moved_seen = field_of_view(scan.image, grid, to_scan)
    greedy = Greedy3D()
    greedy.execute(
        f"{CORRELATION} -threads {sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()} -i fixed moved -o warp",
        fixed=from_array(np.where(fixed_seen, fixed, moved), grid),
        moved=from_array(np.where(moved_seen, moved, fixed), grid),
        warp=None,
    )
    added = sitk.Cast(greedy["warp"], sitk.sitkVectorFloat64)
    return added + displacement_at(field, added)


def invert(field: sitk.Image) -> sitk.Image:
    """The field v with x + u(x) = y where y + v(y) = x, on the same grid.

    Fixed-point iteration v <- -u(y + v), which converges where the Jacobian of u is below 1 (Chen et al., Med
    Phys 2008;35:81).
    """
    inverse = _vector_image(0, field)
    for _ in range(INVERSION_STEPS):
        better = -to_array(displacement_at(field, inverse))
        change_mm = float(np.abs(better - to_array(inverse)).max())
        inverse = _vector_image(better, field)
        if change_mm < INVERSION_MM:
            break
    return inverse


def displacement_at(field: sitk.Image, offset: sitk.Image) -> sitk.Image:
    """The field `field` read at x + offset(x) for every point x of the grid of `offset`.

    Outside its own grid it goes on as at its border: with zeros there, its inverse would be torn along the border.
    """
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(offset)
    resampler.SetTransform(as_transform(offset))
    resampler.SetUseNearestNeighborExtrapolator(True)
    return resampler.Execute(field)


def as_transform(field: sitk.Image) -> sitk.DisplacementFieldTransform:
    """The map x -> x + u(x); x outside the grid stays."""
    return sitk.DisplacementFieldTransform(sitk.Image(field))  # which takes its image away


def _levels(image: sitk.Image) -> sitk.Image:
    """HU to grey levels: full contrast in soft tissue, an eighth of it in lung, a tenth in dense bone."""
    return from_array(np.interp(to_array(image), HU_POINTS, LEVEL_POINTS).astype(np.float32), image)


def _vector_image(vectors: np.ndarray | float, like: sitk.Image) -> sitk.Image:
    shape = (*like.GetSize()[::-1], 3)
    image = sitk.GetImageFromArray(np.array(np.broadcast_to(vectors, shape), dtype=np.float64), isVector=True)
    image.CopyInformation(like)
    return image


def _bounding_box(mask: sitk.Image) -> sitk.Image:
    """The smallest part of the mask with all of it."""
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(mask)
    box = shape.GetBoundingBox(1)
    return sitk.RegionOfInterest(mask, box[3:], box[:3])
