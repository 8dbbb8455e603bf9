"""Rigid registration: CTs by exhaustive search and correlation, emission images by mutual information."""

import itertools

import numpy as np
import scipy
import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.images import from_array, resample, to_array
from theraflow.images.body import AIR_HU, Body

IDENTITY = sitk.Transform(3, sitk.sitkIdentity)
SEARCH_MM = 10.0
SEARCH_DEGREES = 12.0  # steps of the search; refinement catches half of it and more
SMALLEST_OVERLAP = 0.25  # of the smaller field of view
REFINE_MM = 6.0
REFINE_SHARE, EMISSION_SHARE = 0.3, 0.1  # of the voxels
EMISSION_MM = 6.0
SEED = 5


def common_grid(
    images: list[sitk.Image], to_grid: list[sitk.Transform], spacing_mm: float, margin_mm: float = 0.0
) -> sitk.Image:
    """An empty grid along the patient axes (LPS) that covers several images.

    Args:
        images: the images to cover.
        to_grid: for each image the map from its points to points of the grid.
        spacing_mm: isotropic voxel size.
        margin_mm: how far the grid reaches beyond the images.
    """
    corners = np.array(
        [
            transform.TransformPoint(image.TransformContinuousIndexToPhysicalPoint(index))
            for image, transform in zip(images, to_grid, strict=True)
            for index in itertools.product(*[(-0.5, n - 0.5) for n in image.GetSize()])
        ]
    )
    low, high = corners.min(axis=0) - margin_mm, corners.max(axis=0) + margin_mm
    size = np.ceil((high - low) / spacing_mm - 1e-6).astype(int)
    grid = sitk.Image(size.tolist(), sitk.sitkUInt8)
    grid.SetSpacing([spacing_mm] * 3)
    grid.SetOrigin(((low + high) / 2 - (size - 1) / 2 * spacing_mm).tolist())
    return grid


def field_of_view(image: sitk.Image, grid: sitk.Image, transform: sitk.Transform = IDENTITY) -> np.ndarray:
    """Whether `image` reaches the voxels of `grid`, bool (z, y, x); `transform` maps grid points to image points."""
    seen = sitk.Image(image.GetSize(), sitk.sitkUInt8) + 1
    seen.CopyInformation(image)
    return to_array(resample(seen, grid, transform, "nearest")) > 0


def align_bodies(reference: Body, scan: Body) -> sitk.Euler3DTransform:
    """The rigid map from points of the reference CT to points of the scan's CT.

    First every translation, and some rotations, at 10 mm; then refinement by correlation inside the
    reference's body.

    Raises:
        TheraflowError: the scan resembles the reference more when it is turned by 180 degrees.
        RuntimeError: the images do not overlap (ITK).
    """
    centre = centre_of(scan.image)
    start, likeness = _search(reference, scan, small_turns(centre, SEARCH_DEGREES))
    _, turned_likeness = _search(reference, scan, half_turns(centre))
    if turned_likeness > likeness:
        raise TheraflowError(
            "One CT resembles the other more when it is turned by 180 degrees; check Patient Position (0018,5100) and "
            "Image Orientation (0020,0037) of both, for left and right may be exchanged."
        )
    return _refine(reference, scan, start)


def align_emissions(reference: sitk.Image, scan: sitk.Image) -> sitk.Euler3DTransform:
    """The rigid map from reference points to scan points that maximises mutual information of PET or SPECT.

    Tracers may differ. Started once from scanner coordinates, if the images overlap there, and once from the
    centres of uptake; the better is taken.

    Args:
        reference, scan: images of about 6 mm voxel size, see `theraflow.images.body.shrink`.

    Raises:
        RuntimeError: the images do not overlap (ITK).
    """
    fixed, moving = (emission_levels(image) for image in (reference, scan))
    by_uptake = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    starts = [sitk.Euler3DTransform(by_uptake)]
    if field_of_view(moving, fixed).any():
        starts.append(sitk.Euler3DTransform())
    found = [maximise_information(fixed, moving, start) for start in starts]
    return max(found, key=lambda transform_and_value: transform_and_value[1])[0]


def maximise_information(
    fixed: sitk.Image,
    moving: sitk.Image,
    start: sitk.Euler3DTransform,
    mask: sitk.Image | None = None,
    share: float = EMISSION_SHARE,
) -> tuple[sitk.Euler3DTransform, float]:
    """The rigid map from points of `fixed` to points of `moving` that is reached from `start`.

    Args:
        fixed, moving: grey levels (float32).
        start: where the search begins.
        mask: on the grid of `fixed`, 1 where it is compared; None: everywhere.
        share: of the voxels that are read.

    Returns:
        The map, and Mattes' mutual information (nats, 32 bins) there.

    Raises:
        RuntimeError: the images do not overlap (ITK).
    """
    transform = _about(start, centre_of(fixed))
    registration = _optimiser(transform, share)
    registration.SetMetricAsMattesMutualInformation(32)
    if mask is not None:
        registration.SetMetricFixedMask(mask)
    registration.Execute(fixed, moving)
    return transform, -registration.GetMetricValue()


def emission_levels(image: sitk.Image) -> sitk.Image:
    """Uptake to grey levels: the logarithm from a thousandth of the 99th percentile up, so the body shows."""
    values = to_array(image)
    top = max(float(np.percentile(values, 99)), np.finfo(np.float32).tiny)
    return from_array(np.log(np.clip(values / top, 1e-3, 3.0)).astype(np.float32), image)


def _search(reference: Body, scan: Body, turns: list[sitk.Euler3DTransform]) -> tuple[sitk.Euler3DTransform, float]:
    """The best of all translations in 10 mm steps after each of some rotations, and its z, see `best_shift`."""
    fixed_grid = common_grid([reference.image], [IDENTITY], SEARCH_MM)
    fixed = to_array(resample(reference.image, fixed_grid, outside=AIR_HU))
    fixed_seen = field_of_view(reference.image, fixed_grid)

    best, highest = turns[0], -np.inf
    for turn in turns:
        grid = common_grid([scan.image], [turn.GetInverse()], SEARCH_MM)
        moving = to_array(resample(scan.image, grid, turn, outside=AIR_HU))
        moving_seen = field_of_view(scan.image, grid, turn)
        value, shift = best_shift(fixed, fixed_seen, moving, moving_seen)
        if value > highest:
            highest = value
            # Voxel `shift` of the fixed grid shows what voxel 0 of the turned grid shows.
            there = np.array(grid.GetOrigin())
            here = np.array(fixed_grid.GetOrigin()) + np.array(shift[::-1]) * SEARCH_MM
            best = sitk.Euler3DTransform(turn)
            best.SetTranslation((np.array(turn.GetMatrix()).reshape(3, 3) @ (there - here)).tolist())
    return best, highest


def small_turns(centre: tuple[float, ...], degrees: float) -> list[sitk.Euler3DTransform]:
    """No rotation, and one by +- `degrees` about each patient axis through `centre` (LPS, mm)."""
    turns = [sitk.Euler3DTransform(centre)]
    for axis, sign in itertools.product(range(3), (-1, 1)):
        angles = [0.0, 0.0, 0.0]
        angles[axis] = sign * np.radians(degrees)
        turns.append(sitk.Euler3DTransform(centre, *angles))
    return turns


def half_turns(centre: tuple[float, ...]) -> list[sitk.Euler3DTransform]:
    """Rotations by 180 degrees about each patient axis through `centre` (LPS, mm)."""
    return [sitk.Euler3DTransform(centre, *(np.pi * np.eye(3)[axis]).tolist()) for axis in range(3)]


def best_shift(
    fixed: np.ndarray, fixed_seen: np.ndarray, moving: np.ndarray, moving_seen: np.ndarray
) -> tuple[float, tuple[int, ...]]:
    """The shift of `moving` at which it resembles `fixed` most, over all shifts at once.

    Normalised correlation over the voxels that both have seen (Padfield, IEEE Trans Image Process
    2012;21:2706), all by Fourier transforms. Because a small overlap correlates by chance, what is maximised
    is Fisher's z = artanh(r) sqrt(n) with n the number of shared voxels.

    Args:
        fixed, moving: arrays of any shapes.
        fixed_seen, moving_seen: 1 where the array has been seen, else 0.

    Returns:
        The greatest z, and the shift s: voxel i of `moving` lies on voxel i + s of `fixed`.
    """
    shape = [a + b - 1 for a, b in zip(fixed.shape, moving.shape, strict=True)]
    padded = [scipy.fft.next_fast_len(n, real=True) for n in shape]

    def spectra(array: np.ndarray, seen: np.ndarray) -> list[np.ndarray]:
        level = array[seen > 0].mean()
        values = np.where(seen > 0, array - level, 0).astype(np.float32) / 100.0
        return [scipy.fft.rfftn(part, padded) for part in (seen.astype(np.float32), values, values**2)]

    def correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return scipy.fft.irfftn(a * b, padded)

    one_f, value_f, square_f = spectra(fixed, fixed_seen)
    one_m, value_m, square_m = (np.conj(part) for part in spectra(moving, moving_seen))
    count = correlate(one_f, one_m).round()
    enough = count >= SMALLEST_OVERLAP * min(fixed_seen.sum(), moving_seen.sum())
    shared = np.where(enough, count, np.inf)
    sum_f, sum_m = correlate(value_f, one_m), correlate(one_f, value_m)
    covariance = correlate(value_f, value_m) - sum_f * sum_m / shared
    variance_f = correlate(square_f, one_m) - sum_f**2 / shared
    variance_m = correlate(one_f, square_m) - sum_m**2 / shared
    flat = 1e-3 * shared  # a standard deviation of 3 HU
    informative = enough & (variance_f > flat) & (variance_m > flat)
    scale = np.sqrt(np.where(informative, variance_f * variance_m, np.inf))
    correlation = covariance / scale
    z = np.arctanh(correlation.clip(-0.999, 0.999)) * np.sqrt(count.clip(min=0))
    peak = np.unravel_index(int(z.argmax()), z.shape)
    wrapped = tuple(int(p) if p < n else int(p) - m for p, n, m in zip(peak, fixed.shape, padded, strict=True))
    return float(z[peak]), wrapped


def centre_of(image: sitk.Image) -> tuple[float, ...]:
    """The middle of an image, LPS in mm."""
    return image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])


def _about(transform: sitk.Euler3DTransform, centre: tuple[float, ...]) -> sitk.Euler3DTransform:
    """The same map, rotating about `centre`, so that rotation and translation hardly disturb each other."""
    moved = np.array(transform.TransformPoint(centre)) - centre
    result = sitk.Euler3DTransform(transform)
    result.SetCenter(centre)
    result.SetTranslation(moved.tolist())
    return result


def _optimiser(transform: sitk.Euler3DTransform, share: float) -> sitk.ImageRegistrationMethod:
    """What both refinements share; the same samples at each call."""
    registration = sitk.ImageRegistrationMethod()
    registration.SetMetricSamplingStrategy(registration.REGULAR)
    registration.SetMetricSamplingPercentage(share, SEED)
    registration.SetInterpolator(sitk.sitkLinear)
    registration.SetOptimizerAsRegularStepGradientDescent(2.0, 0.05, 60, relaxationFactor=0.5)
    registration.SetOptimizerScalesFromPhysicalShift()
    registration.SetInitialTransform(transform, inPlace=True)
    return registration


def _refine(reference: Body, scan: Body, start: sitk.Euler3DTransform) -> sitk.Euler3DTransform:
    """Maximise the correlation inside the reference's body."""
    grid = common_grid([reference.image], [IDENTITY], REFINE_MM)
    moving_grid = common_grid([scan.image], [IDENTITY], REFINE_MM)
    transform = _about(start, centre_of(reference.image))
    registration = _optimiser(transform, REFINE_SHARE)
    registration.SetMetricAsCorrelation()
    registration.SetMetricFixedMask(resample(reference.mask, grid, interpolation="nearest"))
    registration.Execute(
        resample(reference.image, grid, outside=AIR_HU), resample(scan.image, moving_grid, outside=AIR_HU)
    )
    return transform
