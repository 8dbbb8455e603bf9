"""What each region would count in a planar view without the body around it: planar.tsv, one row a scan and region.

Every region's masks, with the CT's attenuation, say what the two heads of the camera would count of it per activity.
The activities that explain both views best are those asked for: depth, self-attenuation, thickness of the background
and overlap of organs are in the projections, and need no regions drawn by hand (He and Frey, Phys Med Biol
2006;51:3967, found that more accurate than geometric means with background regions).
"""

import datetime
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from theraflow.dosimetry.activity.alignment import Place, find_place, fit_at, moved, window
from theraflow.dosimetry.activity.attenuation import attenuation_per_cm
from theraflow.dosimetry.activity.projection import Projections, body_on, coronal_grid, project, transmissions
from theraflow.dosimetry.activity.regions import WHOLE_BODY, WHOLE_VIEW, find_regions
from theraflow.dosimetry.administration import read_fact
from theraflow.errors import TheraflowError
from theraflow.images import read_image, read_sidecar, same_grid, to_array
from theraflow.layout import PatientFolder, Scan
from theraflow.registration import read_beside_emission
from theraflow.tables import write_table

PLANAR_COLUMNS = (
    "patient", "region", "kind", "scan", "time_h", "rate_per_s", "sd_per_s", "structure_per_s",
    "overlap", "volume_ml", "anatomy",
    "explained", "left_mm", "down_mm",
)  # fmt: skip
# Below, the place that explains a view best is no place that one may trust: half of what is seen is something else.
LEAST_EXPLAINED = 0.5
# By so much a view must fit better with its sides, or its front and back, exchanged before that is believed.
CLEARLY = 0.02
# Around a region this is taken as its surroundings, at least: in them the remainder of the body counts as uniform.
SURROUNDINGS_MM = 30.0
# A region that others cover so that its noise grows by more than this has no activity of its own.
GREATEST_OVERLAP = 10.0
# More regions than these would only slow the search for the place down.
LARGEST_REGIONS = 12
# A whole-body sweep counts each pixel for a part of its duration that depends on its length.
SAME_LENGTH = 1e-3

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class View:
    """A planar scan.

    Attributes:
        scan: its row.
        rates: counts per second, shape (2, rows, columns).
        time_h: after the injection.
        sidecar: of the image.
    """

    scan: Scan
    rates: np.ndarray
    time_h: float
    sidecar: Mapping[str, Any]

    @property
    def duration_s(self) -> float:
        """Of the acquisition."""
        return float(self.sidecar["counting"]["duration_s"])


def measure_planar(
    folder: PatientFolder, scans: Sequence[Scan], others: Sequence[Scan], settings: Mapping[str, Any]
) -> None:
    """Write planar.tsv: what organs, lesions and the body count in each planar scan, attenuation and overlap removed.

    The masks and the CT come from the SPECT/CT of the same administration, else from the patient's scan with organs
    that is nearest in time. They are moved onto each view as a whole.

    `rate_per_s` is of one view, the activity times the sensitivity of one head in air. `sd_per_s` is that of counting,
    `structure_per_s` that by what belongs to no region. `overlap` is by how much other regions around and in front of
    it enlarge them. `whole_body` is the part of the body that CT and emission image show; `whole_view`, the geometric
    mean of all counts of a sweep, attenuation not corrected. Other columns: `anatomy`, the scan of the masks; how much
    of the variance in the view they explain; where their window lies in it.

    Args:
        folder: the patient's results.
        scans: the patient's planar scans; those of one timepoint are of one administration.
        others: the patient's other scans.
        settings: section `dosimetry` of the configuration.

    Raises:
        TheraflowError: views of different geometry, no time, no scan with CT and regions, no energy, or a view in which
            the body cannot be found or has its sides exchanged.
    """
    timepoints = dict.fromkeys(scan.timepoint for scan in scans)
    series = [[_read(folder, scan) for scan in scans if scan.timepoint == timepoint] for timepoint in timepoints]
    rows = [row for views in series for row in _measure_series(folder, views, others, settings)]
    write_table(pd.DataFrame(rows), folder.table("planar"), PLANAR_COLUMNS)


def _measure_series(
    folder: PatientFolder, views: Sequence[View], others: Sequence[Scan], settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Rows of the planar scans of one administration."""
    image = _refuse_different_geometry(folder, views)
    anatomy = find_anatomy(folder, others, views[0])
    column_mm, row_mm = image.GetSpacing()[:2]
    pixel_mm = (row_mm, column_mm)
    projections = _projections(folder, anatomy, pixel_mm, _energy_kev(views, settings), settings)
    rows = []
    for view in views:
        place = _placed(view, projections, pixel_mm, anatomy)
        explained = _explained(view, place, projections)
        common = {
            "patient": folder.patient, "scan": view.scan.scan, "time_h": view.time_h, "anatomy": anatomy.scan,
            "explained": explained, "left_mm": (place.column + place.rest[1]) * column_mm,
            "down_mm": (place.row + place.rest[0]) * row_mm,
        }  # fmt: skip
        there = replace(projections, views=moved(projections.views, place.rest))
        rows += [common | row for row in _measured(view, there, place, pixel_mm, settings)]
    return rows


def _read(folder: PatientFolder, scan: Scan) -> View:
    path = folder.emission(scan)
    sidecar = read_sidecar(path)
    time_h = float(read_fact(folder, scan, "time_after_injection_h", "the time between injection and scan"))
    return View(scan, to_array(read_image(path)).astype(float), time_h, sidecar)


def _refuse_different_geometry(folder: PatientFolder, views: Sequence[View]) -> sitk.Image:
    """The image of the first view, when all others have its pixels and the length of its sweep."""
    first = read_image(folder.emission(views[0].scan))
    for view in views[1:]:
        differs = "pixels" if not same_grid(first, read_image(folder.emission(view.scan))) else None
        lengths = [(one.sidecar["whole_body"] or {}).get("length_mm") for one in (views[0], view)]
        if not differs and lengths[0] != lengths[1] and not (
            all(lengths) and math.isclose(*lengths, rel_tol=SAME_LENGTH)
        ):  # fmt: skip
            differs = "lengths of the sweep"
        if differs:
            raise TheraflowError(
                f"The planar scans {views[0].scan.scan} and {view.scan.scan} of {folder.patient} have different "
                f"{differs}, so that their counts cannot be compared; leave one of them out of scans.tsv."
            )
    return first


def find_anatomy(folder: PatientFolder, others: Sequence[Scan], view: View) -> Scan:
    """The scan whose CT and regions are projected.

    Raises:
        TheraflowError: there is none with a CT and organs or lesions.
    """

    def order(scan: Scan) -> tuple[bool, bool, float]:
        same = scan.quantity == "activity" and scan.timepoint == view.scan.timepoint
        return not same, not folder.organs(scan.scan).exists(), _days_apart(folder, scan, view)

    def is_usable(scan: Scan) -> bool:
        labels = (folder.organs(scan.scan), folder.lesion_map(scan.scan))
        return folder.ct(scan.scan).exists() and any(path.exists() for path in labels)

    usable = [scan for scan in others if is_usable(scan)]
    if not usable:
        raise TheraflowError(
            f"The planar scan {view.scan.scan} of {folder.patient} cannot be measured: no other scan of the patient "
            "has a CT with organs or lesions, which say where the regions lie and what attenuates them; add one to "
            "scans.tsv."
        )
    return min(usable, key=order)


def _days_apart(folder: PatientFolder, scan: Scan, view: View) -> float:
    moments = [read_sidecar(folder.emission(scan)).get("acquired_at"), view.sidecar.get("acquired_at")]
    if None in moments:
        return math.inf
    first, second = (datetime.datetime.fromisoformat(moment) for moment in moments)
    return abs((first - second).total_seconds()) / 86400.0


def _energy_kev(views: Sequence[View], settings: Mapping[str, Any]) -> float:
    """The middle of the energy window, or what the configuration says where none is stated."""
    for view in views:
        windows = view.sidecar["counting"]["energy_window_kev"]
        if windows:
            return float(np.mean(windows))
    if settings["planar"]["energy_kev"] is None:
        raise TheraflowError(
            f"The energy window of the planar scan {views[0].scan.scan} of {views[0].scan.patient} is not known "
            "(EnergyWindowInformationSequence (0054,0012)), nor therefore what the body attenuates; set dosimetry: "
            "planar: energy_kev."
        )
    return float(settings["planar"]["energy_kev"])


def _projections(
    folder: PatientFolder,
    anatomy: Scan,
    pixel_mm: tuple[float, float],
    energy_kev: float,
    settings: Mapping[str, Any],
) -> Projections:
    ct = read_beside_emission(folder, anatomy.scan, folder.ct(anatomy.scan))
    grid = coronal_grid(ct, read_image(folder.emission(anatomy)), pixel_mm)
    hu, body = body_on(ct, grid)
    mu = attenuation_per_cm(hu, energy_kev, settings["planar"]["attenuation_per_cm"])
    regions = find_regions(folder, anatomy, settings, grid)
    return project(regions, body, transmissions(mu, grid.GetSpacing()[1] / 10.0), grid, settings["planar"]["fwhm_mm"])


def _placed(view: View, projections: Projections, pixel_mm: tuple[float, float], anatomy: Scan) -> Place:
    """Where the regions lie in a view.

    Raises:
        TheraflowError: nowhere, or only with sides or views exchanged.
    """
    # The remainder is the largest.
    largest = np.argsort(projections.volumes_ml)[::-1][:LARGEST_REGIONS]
    shapes = projections.views[largest]
    place = find_place(view.rates, shapes, pixel_mm)
    explained = _explained(view, place, projections)
    where = f"The planar scan {view.scan.scan} of {view.scan.patient}"
    for name, exchanged in (
        ("its left and right", shapes[..., ::-1]),
        ("its anterior and posterior view", shapes[:, ::-1]),
    ):
        other = _explained(view, find_place(view.rates, exchanged, pixel_mm), projections)
        if other > explained + CLEARLY:
            raise TheraflowError(
                f"{where} fits the CT of scan {anatomy.scan} better with {name} exchanged ({other:.0%} of its variance "
                f"explained, else {explained:.0%}); check how it was exported."
            )
    if explained < LEAST_EXPLAINED:
        raise TheraflowError(
            f"{where} does not show the body of scan {anatomy.scan} anywhere: at the best place its organs and lesions "
            f"explain {max(explained, 0.0):.0%} of the variance ({LEAST_EXPLAINED:.0%} are needed); leave it out of "
            "scans.tsv."
        )
    log.info("%s: %.0f %% explained by scan %s", view.scan.scan, 100.0 * explained, anatomy.scan)
    return place


def _explained(view: View, place: Place, projections: Projections) -> float:
    """Part of the variance explained beyond that of counting: of a rate r it is r over the duration."""
    counts = window(view.rates, place.row, place.column, projections.views.shape[-2:])
    return place.explained(float(np.nansum(counts)) / view.duration_s)


def _measured(
    view: View, projections: Projections, place: Place, pixel_mm: tuple[float, float], settings: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Rows of one scan."""
    counts = window(view.rates, place.row, place.column, projections.views.shape[-2:])
    activities = fit_at(view.rates, projections.views, place.row, place.column).activities
    unexplained = np.nan_to_num(counts - np.tensordot(activities, projections.views, 1))
    margin_mm = max(SURROUNDINGS_MM, 2.0 * (settings["planar"]["fwhm_mm"] or 0.0))
    for k, name in enumerate(projections.names[:-1]):
        where = f"{view.scan.patient}: {name} in planar scan {view.scan.scan}"
        if np.isnan(counts[:, projections.outlines[k]]).any():
            log.warning("%s: not measured, it is not wholly in the view", where)
            continue
        estimate = estimate_rate(counts, projections, k, pixel_mm, margin_mm)
        if estimate.overlap > GREATEST_OVERLAP:
            log.warning("%s: not measured, it cannot be told from what it overlaps with", where)
            continue
        yield {
            "region": name, "kind": projections.kinds[k], "rate_per_s": estimate.rate,
            "sd_per_s": estimate.counting_sd(counts, view.duration_s),
            "structure_per_s": estimate.structure_sd(unexplained, projections.outlines[-1]),
            "overlap": estimate.overlap, "volume_ml": projections.volumes_ml[k],
        }  # fmt: skip
    if np.isfinite(counts).all():  # else a part of the body that the other scans show is not in this one
        transmitted = activities @ projections.views.sum(axis=(2, 3)) / activities.sum()
        yield _total(WHOLE_BODY, WHOLE_BODY, counts, transmitted, view.duration_s)
    if view.sidecar["whole_body"]:
        yield _total(WHOLE_VIEW, "view", view.rates, np.ones(2), view.duration_s)


def _total(region: str, kind: str, rates: np.ndarray, transmitted: np.ndarray, duration_s: float) -> dict[str, Any]:
    """Geometric mean of all counts of both views, each over the part of the photons that leaves the body towards it."""
    both = rates.sum(axis=(1, 2))
    rate = math.sqrt(float(np.prod(both / transmitted)))
    sd = rate * 0.5 * math.sqrt(float((1.0 / (both * duration_s)).sum()))
    return {
        "region": region, "kind": kind, "rate_per_s": rate, "sd_per_s": sd, "structure_per_s": 0.0, "overlap": 1.0,
        "volume_ml": math.nan,
    }  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """The count rate of a region without attenuation and overlap.

    Attributes:
        rate: counts per second.
        overlap: by how much other regions around and in front of it enlarge its noise; infinite if they hide it.
        weights: the rate is the sum of the counts times these, (2, rows, columns) of the box.
        box: rows and columns of the window.
    """

    rate: float
    overlap: float
    weights: np.ndarray
    box: tuple[slice, slice]

    def counting_sd(self, counts: np.ndarray, duration_s: float) -> float:
        """Sd of the rate by Poisson's law, from the rates (2, rows, columns) in the window."""
        return math.sqrt(float((self.weights**2 * np.nan_to_num(counts[:, *self.box])).sum()) / duration_s)

    def structure_sd(self, unexplained: np.ndarray, body: np.ndarray) -> float:
        """What a region of this shape finds, root mean square over all places in the body, where no region is known.

        Bowel, vessels and what has moved since the CT are no region. What they may add to a region is measured by what
        the same weights make of the counts that nothing explains, elsewhere.

        Args:
            unexplained: rates less those of all projections, (2, rows, columns) of the window.
            body: pixels in which the remainder of the body lies.
        """
        from scipy.signal import correlate  # only here: it takes as long to load as all else of a job

        found = sum(
            correlate(rates, weights, mode="same", method="fft")
            for rates, weights in zip(unexplained, self.weights, strict=True)
        )
        return float(np.sqrt((found[body] ** 2).mean()))


def estimate_rate(
    counts: np.ndarray, projections: Projections, region: int, pixel_mm: tuple[float, float], margin_mm: float
) -> Estimate:
    """The rate of one region by least squares over both views, in the region's surroundings alone.

    There alone the remainder of the body needs to be uniform. All pixels weigh the same: the estimate is then the same
    linear function of the counts at all times, and what is wrong in the model stays, as a factor, in all points of a
    curve.

    Args:
        counts: rates in the window of the projections, (2, rows, columns), NaN outside of the view.
        projections: of all regions.
        region: index of the region asked for.
        pixel_mm: height and width of a pixel.
        margin_mm: how far around the region the surroundings reach.
    """
    found = [np.flatnonzero(projections.outlines[region].any(axis=axis)) for axis in (1, 0)]
    margin = [math.ceil(margin_mm / length) for length in pixel_mm]
    box = tuple(slice(max(0, axis[0] - more), axis[-1] + 1 + more) for axis, more in zip(found, margin, strict=True))
    seen = np.isfinite(counts[:, *box])
    shapes = projections.views[:, :, *box][:, seen]
    # What has less than a thousandth of its counts here has no measurable activity of its own.
    present = shapes.sum(axis=1) > 1e-3 * projections.views.sum(axis=(1, 2, 3))
    present[region] = True
    own = shapes[region]
    weights = np.zeros(seen.shape)
    weights[seen] = np.linalg.pinv(shapes[present].T)[int(present[:region].sum())]
    # Of what coincides with others a pseudoinverse finds a part only.
    is_whole = math.isclose(float(weights[seen] @ own), 1.0, rel_tol=1e-3)
    overlap = float(np.linalg.norm(weights) * np.linalg.norm(own)) if is_whole else math.inf
    return Estimate(float(weights[seen] @ counts[:, *box][seen]), overlap, weights, box)
