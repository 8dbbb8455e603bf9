"""Planar images of a gamma camera: anterior and posterior views in one orientation, and their conjugate view."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from theraflow.dicom.export.choice import Choice
from theraflow.dicom.export.header import integer, integers, number, numbers, tag_name, text, words
from theraflow.dicom.export.identity import anonymous_errors
from theraflow.dicom.export.index import Index, read_index
from theraflow.dicom.export.parse import Header
from theraflow.dicom.export.series import Kind, Series, numbers_or_none
from theraflow.dicom.quantity.camera import (
    Counting,
    count_rescale,
    counting_section,
    dead_time_factor,
    read_calibration,
)
from theraflow.dicom.quantity.checks import refuse_impossible_injection, require
from theraflow.dicom.quantity.facts import read_facts
from theraflow.dicom.sidecar import injection_section, log_flags, own_words, scan_section
from theraflow.dicom.voxels.frames import Slice, choose_window, headers_of_frames, window_of
from theraflow.dicom.voxels.volume import Stack, scaled_slices
from theraflow.errors import TheraflowError
from theraflow.layout import Scan
from theraflow.nifti import Grid, write_nifti, write_sidecar

ANTERIOR, POSTERIOR = "anterior", "posterior"
# Codes of CID 26 (PS3.16) in SNOMED CT and, as they were before 2018, in SNOMED RT.
_VIEWS = {"399321004": ANTERIOR, "G-5215": ANTERIOR, "399001007": POSTERIOR, "G-5216": POSTERIOR}
_WORDS = {ANTERIOR: {"ANT", "ANTERIOR"}, POSTERIOR: {"POST", "POSTERIOR"}}
# A direction cosine from which on a normal points to the front or to the back.
_CORONAL = 0.9


@dataclass(frozen=True, eq=False)
class Planar:
    """The two views of one acquisition, in counts.

    Attributes:
        anterior, posterior: shape (rows, columns), float32, both as seen from the front, so that one pixel is one place
            of the patient: the posterior view is mirrored.
        grid: columns run to the patient's left, rows to the feet, the posterior view lies behind the anterior one; the
            origin and the distance of the two are nothing but numbers, for headers do not state them.
        counting: how they were counted; its duration is the whole acquisition's, of a moving table, too.
        headers: of both.
        motion: what a whole-body sweep states of itself: technique, velocity, length.
        views_by: what tells which view is which.
        flags: remarks.
    """

    anterior: np.ndarray
    posterior: np.ndarray
    grid: Grid
    counting: Counting
    headers: tuple[Header, Header]
    motion: dict[str, Any]
    views_by: str
    flags: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ConjugateView:
    """Count rates in counts per second, shape (rows, columns).

    Attributes:
        anterior, posterior: as seen from the front.
        geometric_mean: square root of their product. For a point source in a body of thickness T that absorbs evenly it
            is exp(-mu T / 2) times the rate without the body, at whatever depth the source lies.
    """

    anterior: np.ndarray
    posterior: np.ndarray
    geometric_mean: np.ndarray


def conjugate_view(planar: Planar, dead_time: float = 1.0) -> ConjugateView:
    """Count rates and their geometric mean, pixel by pixel.

    The geometric mean of a region is that of its two sums, not the sum of this image.

    Args:
        planar: both views in counts.
        dead_time: true over observed rate.

    Raises:
        ValueError: the duration of the acquisition is not known.
    """
    if planar.counting.duration_s is None:
        raise ValueError("the duration of the acquisition is not known")
    per_count = dead_time / planar.counting.duration_s
    anterior, posterior = planar.anterior * per_count, planar.posterior * per_count
    return ConjugateView(anterior, posterior, np.sqrt(anterior * posterior))


def choose_planar(index: Index, forced: str | None = None) -> Choice:
    """The planar series of a folder: a whole-body one, else a static one.

    Args:
        index: all series of the folder.
        forced: column `series` of scans.tsv: SeriesInstanceUIDs, separated by comma or blank, or None. Where it names
            two planar series, as where each view has its own, both are taken together.

    Raises:
        TheraflowError: none or several series come into question.
    """
    uids = set((forced or "").replace(",", " ").split())
    static = {
        one for one in index.series if one.kind == Kind.PLANAR and "STATIC" in (words(one.header, "ImageType") or ())
    }
    whole_body = {one for one in index.series if one.kind == Kind.PLANAR_WHOLE_BODY}
    named = {one for one in static | whole_body if one.uid in uids}
    kept, reason = next(
        (
            (found, why)
            for found, why in ((named, "named in scans.tsv"), (whole_body, "whole body"), (static, "static"))
            if found
        ),
        (set(), ""),
    )
    if not kept:
        raise TheraflowError(
            f"{index.folder} holds no planar image (Modality NM, WHOLE BODY or STATIC); it holds {index}."
        )
    if len(kept) > 1 and kept is not named:
        names = "; ".join(sorted(str(one) for one in kept))
        raise TheraflowError(
            f"{index.folder} holds {len(kept)} series that may be the planar image: {names}; set `series` in scans.tsv "
            "to the SeriesInstanceUID of the right one, or of both where each view is a series."
        )
    series = sorted(kept, key=lambda one: one.uid)
    joined = Series(
        tuple(instance for one in series for instance in one.instances),
        tuple(flag for one in series for flag in one.flags),
    )
    others = {one: f"not the planar image: {one.kind}" for one in static | whole_body if one not in kept}
    return Choice(series[0] if len(series) == 1 else joined, reason, others)


def read_planar(series: Series, photopeak_kev: float | None = None) -> Planar:
    """Anterior and posterior view of the energy window that is wanted.

    Views are told, in this order, by the detector's ViewCodeSequence (codes of CID 26, or CodeMeaning), and by the
    words ANT, ANTERIOR, POST or POSTERIOR in ImageType, ViewPosition, ImageID or SeriesDescription. The order of the
    detectors tells nothing: no standard fixes it.

    The posterior view is seen from behind and therefore mirrored from left to right. Where ImageOrientationPatient says
    that of both views in coronal planes, it decides.

    Args:
        series: one file with a frame a view, or a file a view.
        photopeak_kev: which of several energy windows is wanted: the one that it lies in.

    Raises:
        TheraflowError: views that cannot be told; several images of one view; no or no single energy window; views that
            do not fit each other; unreadable pixels.
    """
    frames = []
    for instance in series.instances:
        try:
            frames += [Slice(instance, k, own) for k, own in enumerate(headers_of_frames(instance))]
        except TheraflowError as error:
            raise TheraflowError(f"{instance.path}: {error}") from error
    try:
        wanted = choose_window([window_of(one.header) for one in frames], photopeak_kev)
        frames = [one for one, is_wanted in zip(frames, wanted, strict=True) if is_wanted]
        views, views_by = _views(frames)
        counting, motion = _counting(views)
        grid = _grid(views)
        mirrored, remarks = _is_mirrored(views)
    except TheraflowError as error:
        raise TheraflowError(f"{series}: {error}") from error
    slopes, intercepts = zip(*(count_rescale(one) for one in views), strict=True)
    anterior, posterior = scaled_slices(Stack(views, grid), slopes, intercepts)
    if min(anterior.min(), posterior.min()) < 0:
        raise TheraflowError(f"{series}: its pixels are negative, which no counts are; export the original images.")
    return Planar(
        anterior,
        posterior[:, ::-1] if mirrored else posterior,
        grid,
        counting,
        (views[0].header, views[1].header),
        motion,
        views_by,
        (*series.flags, *remarks),
    )


def _views(frames: list[Slice]) -> tuple[tuple[Slice, Slice], str]:
    """Anterior and posterior view, and what tells so."""
    for told, source in (
        (_view_by_code, f"{tag_name('ViewCodeSequence')} of the detector"),
        (_view_by_words, "words in the header"),
    ):
        found = [told(one) for one in frames]
        if not any(found):
            continue
        by_view = {view: [one for one, own in zip(frames, found, strict=True) if own == view] for view in _WORDS}
        counts = {view: len(of_view) for view, of_view in by_view.items()}
        if max(counts.values()) > 1 and min(counts.values()) > 0:
            raise TheraflowError(
                f"it holds {counts[ANTERIOR]} anterior and {counts[POSTERIOR]} posterior images by {source}; keep one "
                "of each or set `series` in scans.tsv."
            )
        if min(counts.values()) == 1:
            return (by_view[ANTERIOR][0], by_view[POSTERIOR][0]), source
    raise TheraflowError(
        f"which of its {len(frames)} images is the anterior and which the posterior view cannot be told: neither "
        f"{tag_name('ViewCodeSequence')} of {tag_name('DetectorInformationSequence')} says it of both, nor the words "
        f"ANTERIOR and POSTERIOR in {tag_name('ViewPosition')}, {tag_name('ImageID')} or "
        f"{tag_name('SeriesDescription')}; export it with its views named."
    )


def _detector(one: Slice) -> Header:
    """The item of the detector that has taken a frame; the header itself without such."""
    items = one.header.items("DetectorInformationSequence")
    vector = integers(one.header, "DetectorVector") or ()
    if not items:
        return one.header
    if not vector:
        return items[0] if len(items) == 1 else one.header
    if len(vector) <= one.frame or not 1 <= vector[one.frame] <= len(items):
        raise TheraflowError(
            f"{tag_name('DetectorVector')} does not fit {tag_name('DetectorInformationSequence')} of "
            f"{one.instance.path.name} with {len(items)} items; export it again."
        )
    return items[vector[one.frame] - 1]


def _view_by_code(one: Slice) -> str | None:
    codes = _detector(one).items("ViewCodeSequence") or one.header.items("ViewCodeSequence")
    for code in codes[:1]:
        known = _VIEWS.get(text(code, "CodeValue") or "")
        # Of obliques a meaning says "left anterior oblique"; they have no conjugate among these two.
        return known or _view_in_words({*re.findall(r"[A-Z]+", (text(code, "CodeMeaning") or "").upper())})
    return None


def _view_by_words(one: Slice) -> str | None:
    for keyword in ("ImageType", "ViewPosition", "ImageID", "SeriesDescription"):
        view = _view_in_words({*re.findall(r"[A-Z]+", (text(one.header, keyword) or "").upper())})
        if view:
            return view
    return None


def _view_in_words(said: set[str]) -> str | None:
    if said & {"OBLIQUE", "LATERAL", "LAO", "RAO", "LPO", "RPO"}:
        return None
    found = [view for view, known in _WORDS.items() if said & known]
    return found[0] if len(found) == 1 else None


def _counting(views: tuple[Slice, Slice]) -> tuple[Counting, dict[str, Any]]:
    """How both views were counted, and how the table moved.

    The duration is ActualFrameDuration, which PS3.3 C.8.4.9 asks for; without it the length of a sweep by its velocity.
    CountsAccumulated is the sum over all frames of a file; of two files the sum of both.
    """
    missing: dict[str, list[str]] = {}
    headers = [one.header for one in views]
    motions = [
        {
            "technique": text(header, "WholeBodyTechnique"),
            "velocity_mm_per_s": number(header, "ScanVelocity") or None,
            "length_mm": number(header, "ScanLength") or None,
        }
        for header in headers
    ]
    durations = []
    for header, motion in zip(headers, motions, strict=True):
        milliseconds = number(header, "ActualFrameDuration") or 0.0
        length, velocity = motion["length_mm"], motion["velocity_mm_per_s"]
        if milliseconds > 0:
            durations.append(milliseconds / 1000.0)
        elif length and velocity and min(length, velocity) > 0:
            durations.append(length / velocity)
    if len(durations) < len(views):
        missing["duration_s"] = [tag_name("ActualFrameDuration")]
    elif not np.isclose(*durations, rtol=1e-3):
        raise TheraflowError(
            f"its views were counted for different times ({durations[0]:g} and {durations[1]:g} s); choose two that "
            "belong together."
        )
    files = {one.instance: one.header for one in views}
    events = [number(header, "CountsAccumulated") or 0.0 for header in files.values()]
    if min(events) <= 0:
        missing["counts"] = [tag_name("CountsAccumulated")]
    counting = Counting(
        None if "duration_s" in missing else durations[0],
        None if "counts" in missing else sum(events),
        window_of(headers[0]),
        missing,
    )
    return counting, motions[0]


def _grid(views: tuple[Slice, Slice]) -> Grid:
    """The pixels that both views share, as `Planar.grid` has them."""
    geometry = []
    for one in views:
        spacing = numbers(one.header, "PixelSpacing", 2)
        shape = integer(one.header, "Rows"), integer(one.header, "Columns")
        keywords = ("PixelSpacing", "Rows", "Columns")
        absent = [key for key, value in zip(keywords, (spacing, *shape), strict=True) if not value]
        if absent:
            raise TheraflowError(f"it lacks {', '.join(tag_name(key) for key in absent)}; export the series again.")
        if min(spacing) <= 0:
            raise TheraflowError(f"{tag_name('PixelSpacing')} must be positive; export the series again.")
        geometry.append((*shape, *spacing))
    if not np.allclose(*geometry, rtol=1e-4):
        raise TheraflowError("its anterior and its posterior view have different pixels; choose two that fit.")
    rows, columns, between_rows, between_columns = geometry[0]
    to_left_to_feet_to_back = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0)
    return Grid((columns, rows, 2), (between_columns, between_rows, 1.0), (0.0, 0.0, 0.0), to_left_to_feet_to_back)


def _is_mirrored(views: tuple[Slice, Slice]) -> tuple[bool, tuple[str, ...]]:
    """Whether the posterior view runs opposite to the anterior one, and remarks."""
    found = [
        numbers_or_none(_detector(one), "ImageOrientationPatient", 6)
        or numbers_or_none(one.header, "ImageOrientationPatient", 6)
        for one in views
    ]
    if None in found:
        return True, ()
    rows, columns = np.array(found)[:, :3], np.array(found)[:, 3:]
    if np.abs(np.cross(rows, columns)[:, 1]).min() < _CORONAL or np.abs(rows[:, 0]).min() < _CORONAL:
        return True, ()
    if columns[0] @ columns[1] < 0:
        raise TheraflowError(
            f"by {tag_name('ImageOrientationPatient')} its anterior and its posterior view stand upside down to each "
            "other; export it again."
        )
    if rows[0] @ rows[1] < 0:
        return True, ()
    return False, (f"{tag_name('ImageOrientationPatient')} says that the posterior view is mirrored already",)


def import_planar(scan: Scan, tracer: Mapping[str, Any], output: Path | str) -> None:
    """Import the planar series of a scan, in counts per second.

    The rate is the mean over the acquisition; of a whole-body sweep over the whole sweep, so that only sweeps of the
    same length and velocity can be compared as they are: the sidecar has both. The dead time is corrected where the
    configuration has one. Neither decay nor attenuation nor background is corrected.

    Args:
        scan: the row of scans.tsv with its overrides.
        tracer: configuration of its tracer: `radiopharmaceutical`, `nuclide`, `photopeak_kev`, `calibration`.
        output: `planar.nii.gz` (float32): two slices, anterior and posterior as seen from the front; with a sidecar.

    Raises:
        TheraflowError: no or no single such series; views that cannot be told; missing facts, all named; broken or
            contradictory files.
    """
    index = read_index(scan.dicom)
    with anonymous_errors(index.identity, own_words(scan)):
        index.whole()
        choice = choose_planar(index, scan.series)
        planar = read_planar(choice.series, tracer.get("photopeak_kev"))
        facts = read_facts(planar.headers, scan, tracer, f"{scan.dicom}, {choice.series}")
        calibration = read_calibration(tracer)
        facts.missing |= planar.counting.missing
        with_dead_time = calibration is not None and calibration.dead_time_us
        names = ["acquired", "injected_bq", "injected_at", "duration_s", *(["counts"] if with_dead_time else [])]
        require(facts, "the planar count rate", names)
        refuse_impossible_injection(facts)
        try:
            rates = conjugate_view(planar, dead_time_factor(planar.counting, calibration))
        except TheraflowError as error:
            raise TheraflowError(f"{facts.where}: {error}") from error
        write_nifti([rates.anterior, rates.posterior], planar.grid, np.float32, output)
        apart_s = (max(facts.acquired) - min(facts.acquired)).total_seconds()
        if apart_s > 0:
            facts.flags.append(f"the two views were begun {apart_s:.0f} s one after the other")
        flags = log_flags(scan, index.identity, (*planar.flags, *facts.flags))
        sidecar = {
            "quantity": "planar count rate",
            "unit": "1/s",
            **scan_section(scan, choice),
            **injection_section(tracer, facts),
            "slices": [ANTERIOR, POSTERIOR],
            "views_told_by": planar.views_by,
            "whole_body": planar.motion if choice.series.kind == Kind.PLANAR_WHOLE_BODY else None,
            "counting": counting_section(planar.counting, calibration),
            "overrides": facts.overrides,
            "flags": flags,
        }
        write_sidecar(sidecar, output)
