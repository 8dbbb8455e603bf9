"""Whether the CT and the emission image of one scan lie on each other, and a rigid correction where they do not.

CT and PET or SPECT of one examination state one frame of reference. It says where the couch was, not whether the
patient lay still on it. Here the two are compared by mutual information (Maes et al., IEEE Trans Med Imaging
1997;16:187).

A correction is a rigid map from points of the CT to points of the emission image (LPS, mm). It moves the header of what
lies on the CT's grid. Neither image is resampled, and the emission image, from which uptake is read, is never touched.
"""

import itertools
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import SimpleITK as sitk

import theraflow
from theraflow.errors import TheraflowError
from theraflow.files import write_json
from theraflow.images import from_array, read_image, resample, to_array
from theraflow.images.body import AIR_HU, Body, find_body, shrink
from theraflow.layout import PatientFolder, Scan
from theraflow.registration.outcome import (
    ALIGNED,
    CORRECTED,
    DOUBTFUL,
    NO_CT,
    NOT_CHECKABLE,
    affine_parts,
)
from theraflow.registration.quality import mutual_information
from theraflow.registration.rigid import (
    EMISSION_MM,
    IDENTITY,
    centre_of,
    common_grid,
    emission_levels,
    field_of_view,
    maximise_information,
    small_turns,
)
from theraflow.registration.threads import limited_threads
from theraflow.registration.transforms import write_transform

logger = logging.getLogger(__name__)

METHOD = "CT to emission: rigid by mutual information"

BODY_MM = 4.0
RIM_MM = 18.0  # of air around the body that is compared too: the outline tells most
# HU to grey levels: soft tissue in full, a quarter of the contrast from air to fat, nothing beyond spongy bone.
HU_POINTS, LEVEL_POINTS = (-1000.0, -200.0, 300.0), (-400.0, -200.0, 300.0)
BINS = 32
SAMPLES = 60_000  # voxels that a climb reads: few ones fill cells of the joint histogram by chance
SEARCH_MM, SEARCH_STEPS = 12.0, 4  # every shift up to 48 mm along each axis
SEARCH_DEGREES = 6.0
NUDGE_MM, NUDGE_DEGREES = 8.0, 3.0  # along and about each axis: from there the same place must be found again
TRIAL_MM = 15.0  # a shift that must show

# What `judge` goes by; measured on virtual and real patients, see docs/validation.md.
LIMITS: dict[str, float] = {
    "good_to_mm": 6.0,
    "corrected_from_mm": 10.0,
    "corrected_to_mm": 60.0,
    "loss_from": 0.06,
    "gain_from": 0.12,
    "body_from_ml": 10000.0,
    "disagreement_to_mm": 5.0,
    "overlap_from": 0.7,
}


@dataclass(frozen=True)
class Measures:
    """How the best rigid map from the CT to the emission image compares with what the headers say.

    Attributes:
        displacement_mean_mm, displacement_max_mm: how far the map moves the points of the body that the emission
            image has seen.
        information_before, information_after: mutual information in nats without and with the map.
        disagreement_mm: the greatest mean distance, over the same points, from where searches that began elsewhere
            put them.
        smallest_loss: the least part of `information_after` that a further shift of 15 mm costs, along whichever
            patient axis; 0 where the images do not tell where they lie.
        body_ml: volume of the body that both images have seen.
        overlap: number of points of the body that the emission image shows with the map, over that without.
    """

    displacement_mean_mm: float
    displacement_max_mm: float
    information_before: float
    information_after: float
    disagreement_mm: float
    smallest_loss: float
    body_ml: float
    overlap: float

    @property
    def gain(self) -> float:
        """The part of `information_after` that is gained."""
        return 1.0 - self.information_before / self.information_after


def align_emission(scan: Scan, folder: PatientFolder, threads: int) -> None:
    """Compare a scan's emission image with its own CT, and correct where they grossly do not lie on each other.

    Writes `folder.ct_to_emission(scan.scan)` (ITK transform in HDF5: maps points of the CT to points of the emission
    image, LPS in mm; the identity unless the verdict is `corrected`) and `folder.emission_check(scan.scan)` (JSON:
    method, verdict, reason, measures with their limits, versions). Verdicts: `good`, `check` (doubtful, left as it
    is), `corrected`, `not checkable` (the images tell too little), `no CT`.

    Raises:
        TheraflowError: an image cannot be read.
    """
    transform, measures = sitk.Euler3DTransform(), None
    if not folder.ct(scan.scan).exists():
        verdict, reason = NO_CT, None
    else:
        ct, emission = read_image(folder.ct(scan.scan)), read_image(folder.emission(scan))
        try:
            with limited_threads(threads):
                found, measures = match(find_body(ct, BODY_MM), shrink(emission, EMISSION_MM))
        except TheraflowError as error:
            verdict, reason = NOT_CHECKABLE, str(error).removesuffix(".")
        else:
            verdict, reason = judge(measures, LIMITS)
            if verdict == CORRECTED:
                transform = found
    write_transform(transform, folder.ct_to_emission(scan.scan))
    content = {
        "patient": scan.patient,
        "scan": scan.scan,
        "method": METHOD,
        "verdict": verdict,
        "reason": reason,
        "metric": "mutual information of HU and the logarithm of uptake, nats",
        **(asdict(measures) if measures else {}),
        "limits": LIMITS,
        "threads": threads,
        "theraflow": theraflow.__version__,
        "SimpleITK": sitk.Version_VersionString(),
        "numpy": np.__version__,
    }
    write_json(content, folder.emission_check(scan.scan))
    logger.info("%s: CT and emission image: %s%s", scan.scan, verdict, f", {reason}" if reason else "")


def judge(measures: Measures, limits: Mapping[str, float]) -> tuple[str, str | None]:
    """Verdict and, unless it is `good`, the reason in words.

    Corrected is only what is gross, brings the images to agree distinctly better, shows along every axis, is found
    again from other starts, and rests on enough of the body. PET is taken in free breathing, so that the best rigid map
    is never quite the identity.
    """
    away = f"the best match lies {measures.displacement_mean_mm:.0f} mm away"
    moved = measures.displacement_mean_mm > limits["good_to_mm"]
    distinct = measures.information_after > 0 and measures.gain >= limits["gain_from"]
    if measures.smallest_loss < limits["loss_from"]:
        if moved and distinct:
            return DOUBTFUL, f"{away}, but the images do not tell in every direction where they lie"
        return NOT_CHECKABLE, f"the two would hardly agree less if they lay {TRIAL_MM:.0f} mm farther apart"
    if not moved:
        return ALIGNED, None
    if measures.displacement_mean_mm < limits["corrected_from_mm"]:
        return DOUBTFUL, f"{away}, as breathing may bring about"
    if measures.displacement_mean_mm > limits["corrected_to_mm"]:
        return DOUBTFUL, f"{away}, farther than patients move on the couch"
    if measures.body_ml < limits["body_from_ml"]:
        litres = measures.body_ml / 1000.0
        return DOUBTFUL, f"{away}, but {litres:.1f} L of body in the images are too little to correct by"
    if not distinct:
        return DOUBTFUL, f"{away}, but is hardly better than the place that the headers state"
    if measures.disagreement_mm > limits["disagreement_to_mm"]:
        return DOUBTFUL, f"{away}, but searches from other starts differ by {measures.disagreement_mm:.0f} mm"
    if measures.overlap < limits["overlap_from"]:
        return DOUBTFUL, f"{away}, but only {100 * measures.overlap:.0f} % of the body would overlap there"
    return CORRECTED, f"they lay {measures.displacement_mean_mm:.0f} mm apart"


def match(ct: Body, emission: sitk.Image) -> tuple[sitk.Euler3DTransform, Measures]:
    """The rigid map from points of the CT to points of the emission image at which they share most information.

    Every shift in steps of 12 mm and some rotations are tried first, so that the way there needs no luck; from the
    best of them, and from the headers' place, mutual information is climbed. Where neither climb ends higher than the
    headers' place itself, that is the best.

    Args:
        ct: see `theraflow.images.body.find_body`.
        emission: PET or SPECT of about 6 mm voxel size, any unit, in the CT's frame of reference.

    Returns:
        The map (LPS, mm) and what it measures.

    Raises:
        TheraflowError: the CT and the emission image have no part of the body in common.
    """
    pair = _Pair(ct, emission)
    try:
        found = [sitk.Euler3DTransform(), pair.climb(sitk.Euler3DTransform()), pair.climb(pair.search())]
        best = max(found, key=pair.information)
        others = [pair.climb(_nudged(best, sign)) for sign in (-1.0, 1.0)]
    except RuntimeError as error:
        raise TheraflowError("CT and emission image overlap too little to be compared.") from error
    moved, after = _distance(best, IDENTITY, pair.body_points), pair.information(best)
    trials = TRIAL_MM * np.vstack([np.eye(3), -np.eye(3)])
    measures = Measures(
        float(moved.mean()),
        float(moved.max()),
        pair.information(IDENTITY),
        after,
        max(float(_distance(best, other, pair.body_points).mean()) for other in others),
        1.0 - max(pair.information(_shifted(best, trial)) for trial in trials) / after if after > 0 else 0.0,
        len(pair.body_points) * EMISSION_MM**3 / 1000.0,
        pair.count_seen(best) / len(pair.body_points),
    )
    return best, measures


class _Pair:
    """CT and emission image as grey levels on a grid of the CT's points, and where they are compared."""

    def __init__(self, ct: Body, emission: sitk.Image) -> None:
        self.emission = emission_levels(emission)
        grid = common_grid([ct.mask], [IDENTITY], EMISSION_MM)
        self.ct = _ct_levels(resample(ct.image, grid, outside=AIR_HU))
        body = resample(ct.mask, grid, interpolation="nearest")
        rim = [round(RIM_MM / EMISSION_MM)] * 3
        self.mask = sitk.BinaryDilate(body, rim) & from_array(field_of_view(ct.image, grid), grid)
        self.body_points = _points((to_array(body) > 0) & field_of_view(self.emission, grid), grid)
        if not len(self.body_points):
            raise TheraflowError("CT and emission image have no part of the body in common.")
        self.ct_range, self.emission_range = _range(self.ct), _range(self.emission)

    def climb(self, start: sitk.Euler3DTransform) -> sitk.Euler3DTransform:
        """The map reached from `start`."""
        share = min(1.0, SAMPLES / self.ct.GetNumberOfPixels())
        return maximise_information(self.ct, self.emission, start, self.mask, share)[0]

    def information(self, transform: sitk.Transform) -> float:
        """Mutual information (nats) in and around the body, where both images have seen it."""
        shared = (to_array(self.mask) > 0) & field_of_view(self.emission, self.ct, transform)
        moved = to_array(resample(self.emission, self.ct, transform))[shared]
        fixed = to_array(self.ct)[shared]
        return _information(_joint_counts(_bins(fixed, self.ct_range), _bins(moved, self.emission_range)))

    def count_seen(self, transform: sitk.Transform) -> int:
        """How many of `body_points` the emission image shows with `transform`."""
        matrix, offset = affine_parts(transform)
        per_mm = np.linalg.inv(np.array(self.emission.GetDirection()).reshape(3, 3) * self.emission.GetSpacing())
        index = (self.body_points @ matrix.T + offset - self.emission.GetOrigin()) @ per_mm.T
        return int(((index >= -0.5) & (index <= np.array(self.emission.GetSize()) - 0.5)).all(axis=1).sum())

    def search(self) -> sitk.Euler3DTransform:
        """The best of all shifts in steps of 12 mm, for seven rotations; the overlap must stay."""
        # The margin keeps every shifted voxel inside the arrays, so that a shift is one number to add to an index.
        grid = common_grid([self.mask], [IDENTITY], SEARCH_MM, margin_mm=(SEARCH_STEPS + 1) * SEARCH_MM)
        smooth = [sitk.SmoothingRecursiveGaussian(image, SEARCH_MM / 2) for image in (self.ct, self.emission)]
        voxels = np.flatnonzero(to_array(resample(self.mask, grid, interpolation="nearest")))
        fixed = _bins(to_array(resample(smooth[0], grid)).ravel()[voxels], self.ct_range)
        steps = range(-SEARCH_STEPS, SEARCH_STEPS + 1)
        shifts = np.array(list(itertools.product(steps, steps, steps)))  # x, y, z
        columns, rows, _ = grid.GetSize()
        offsets = shifts @ (1, columns, columns * rows)
        enough = LIMITS["overlap_from"] * np.count_nonzero(field_of_view(self.emission, grid).ravel()[voxels])

        best, highest = sitk.Euler3DTransform(), -np.inf
        for turn in small_turns(centre_of(self.ct), SEARCH_DEGREES):
            moving = _bins(to_array(resample(smooth[1], grid, turn)).ravel(), self.emission_range)
            moving[~field_of_view(self.emission, grid, turn).ravel()] = BINS
            for shift, offset in zip(shifts, offsets, strict=True):
                counts = _joint_counts(fixed, moving[voxels + offset])
                if counts.sum() >= enough and (value := _information(counts)) > highest:
                    highest, best = value, sitk.Euler3DTransform(turn)
                    best.SetTranslation((affine_parts(turn)[0] @ shift * SEARCH_MM).tolist())
        return best


def _ct_levels(image: sitk.Image) -> sitk.Image:
    return from_array(np.interp(to_array(image), HU_POINTS, LEVEL_POINTS).astype(np.float32), image)


def _range(levels: sitk.Image) -> tuple[float, float]:
    values = to_array(levels)
    return float(values.min()), float(values.max())


def _bins(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Grey levels as numbers from 0 to 31."""
    low, high = limits
    width = max(high - low, 1e-6)
    return ((values - low) / width * BINS).astype(np.int32).clip(0, BINS - 1)


def _joint_counts(ct: np.ndarray, emission: np.ndarray) -> np.ndarray:
    """Joint histogram of two lists of levels from 0 to 31, shape (32, 32); 32 in the second is not counted."""
    pairs = ct * (BINS + 1) + emission
    return np.bincount(pairs, minlength=BINS * (BINS + 1)).reshape(BINS, BINS + 1)[:, :BINS]


def _information(counts: np.ndarray) -> float:
    """Mutual information in nats of a joint histogram, less its bias in so small a sample.

    Every cell that is filled by chance adds to it (Miller, in: Information Theory in Psychology, 1955, p. 95).
    """
    if not counts.any():
        return 0.0
    filled = [np.count_nonzero(part) for part in (counts, counts.sum(axis=0), counts.sum(axis=1))]
    return float(mutual_information(counts) - (filled[0] - filled[1] - filled[2] + 1) / (2 * counts.sum()))


def _points(mask: np.ndarray, grid: sitk.Image) -> np.ndarray:
    """Voxels of a mask (z, y, x) as points (N, 3) in LPS mm; `grid` lies along the patient axes."""
    return np.argwhere(mask)[:, ::-1] * grid.GetSpacing() + grid.GetOrigin()


def _distance(a: sitk.Transform, b: sitk.Transform, points: np.ndarray) -> np.ndarray:
    """How far apart two affine maps put each of the points (N, 3), mm."""
    (matrix_a, offset_a), (matrix_b, offset_b) = affine_parts(a), affine_parts(b)
    return np.linalg.norm(points @ (matrix_a - matrix_b).T + offset_a - offset_b, axis=1)


def _shifted(transform: sitk.Euler3DTransform, shift_mm: np.ndarray) -> sitk.Euler3DTransform:
    """The same map, and a shift (x, y, z) after it."""
    result = sitk.Euler3DTransform(transform)
    result.SetTranslation((np.array(transform.GetTranslation()) + shift_mm).tolist())
    return result


def _nudged(transform: sitk.Euler3DTransform, sign: float) -> sitk.Euler3DTransform:
    """The same map, some millimetres and degrees off along and about every axis."""
    result = _shifted(transform, np.full(3, sign * NUDGE_MM))
    angles = (transform.GetAngleX(), transform.GetAngleY(), transform.GetAngleZ())
    result.SetRotation(*(angle + sign * np.radians(NUDGE_DEGREES) for angle in angles))
    return result
