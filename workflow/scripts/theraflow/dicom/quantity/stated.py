"""What is stated of an emission series: the facts, and how one is taken from all slices or from scans.tsv."""

import datetime
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from theraflow.dicom.export.header import number, tag_name
from theraflow.dicom.export.parse import Header
from theraflow.errors import TheraflowError

# Columns of scans.tsv that can state what a header lacks, by the name of the fact in `Facts.missing`.
OVERRIDES = {
    "weight_kg": "weight_kg",
    "height_m": "height_cm",
    "injected_bq": "injected_mbq",
    "injected_at": "injected_at",
    "acquired": "acquired_at",
    # START is the start of the acquisition, so that the time of the one can stand for the other.
    "reference_time": "acquired_at",
    "Units": "units",
    "DecayCorrection": "decay_correction",
}
# Statements of the same time that differ by more than this contradict each other.
TIMES_AGREE_S = 60.0
# Numbers that differ by more than this fraction do.
_NUMBERS_AGREE = 1e-3


@dataclass
class Facts:
    """What headers and scans.tsv say about one series. None: not stated; then `missing` has the names.

    All times are on one clock, that of the room: where scans.tsv corrects the start of the acquisition, whatever the
    scanner has noted moves along.

    Attributes:
        where: the series, for messages; `slices`: their number.
        modality, units, suv_type, decay_correction: as in DICOM; `corrected`: CorrectedImage. An enhanced PET, which
            says DecayCorrected in place of DecayCorrection, has START or NONE here.
        enhanced: whether it does so.
        whole_body: whether the series has several bed positions.
        acquired: start of acquisition of every slice; `series_start`: SeriesDate and SeriesTime.
        ge_reference, siemens_reference, decay_corrected_to: the reference time of the decay correction, as GE's and
            Siemens' own elements and DecayCorrectionDateTime have it.
        frame_reference_s, frame_s: FrameReferenceTime and ActualFrameDuration of every slice, in s.
        frame_moments: FrameReferenceDateTime of every slice.
        nuclide: the tracer's; `half_life_s`: as the header says, otherwise of that nuclide.
        injected_at, injected_bq, weight_kg, height_m: with the overrides of scans.tsv.
        several_injections: whether the header lists more than one.
        sex: M, F or O.
        suv_factor, activity_factor: Philips' factors of every slice.
        dose_calibration: DoseCalibrationFactor of every slice.
        voxel_ml: voxel volume of every slice by PixelSpacing and SliceThickness.
        real_world: slope and intercept of every slice's real-world value mapping to Bq/mL.
        stated: `acquired_at` as in the header; `injected_at` as the scanner took it when it corrected the decay.
        overrides: columns of scans.tsv in use; `contradicted`: those that differ from the header; `flags`: remarks;
            `missing`: fact -> names of the missing tags.
    """

    where: str
    modality: str
    slices: int
    units: str | None = None
    suv_type: str | None = None
    decay_correction: str | None = None
    corrected: tuple[str, ...] | None = None
    enhanced: bool = False
    whole_body: bool = False
    acquired: list[datetime.datetime] | None = None
    series_start: datetime.datetime | None = None
    ge_reference: datetime.datetime | None = None
    siemens_reference: datetime.datetime | None = None
    decay_corrected_to: datetime.datetime | None = None
    frame_reference_s: np.ndarray | None = None
    frame_s: np.ndarray | None = None
    frame_moments: list[datetime.datetime] | None = None
    nuclide: str = ""
    half_life_s: float | None = None
    injected_at: datetime.datetime | None = None
    injected_bq: float | None = None
    several_injections: bool = False
    weight_kg: float | None = None
    height_m: float | None = None
    sex: str | None = None
    suv_factor: np.ndarray | None = None
    activity_factor: np.ndarray | None = None
    dose_calibration: np.ndarray | None = None
    voxel_ml: np.ndarray | None = None
    real_world: list[tuple[float, float]] | None = None
    stated: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    contradicted: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    missing: dict[str, list[str]] = field(default_factory=dict)

    @property
    def acquired_at(self) -> datetime.datetime | None:
        """Start of the acquisition: the earliest slice."""
        return min(self.acquired) if self.acquired else None

    @property
    def means_start(self) -> bool:
        """Whether START was stated: an enhanced PET says only that it is corrected, to any time that it names."""
        return not self.enhanced or "decay_correction" in self.overrides

    @property
    def decay_constant_per_s(self) -> float:
        """Physical decay constant in 1/s."""
        return math.log(2) / self.half_life_s


def agreed(values: Sequence[Any], what: str) -> Any:
    """The value that all slices share, None included.

    Raises:
        TheraflowError: they differ.
    """
    if any(value != values[0] for value in values):
        raise TheraflowError(f"{what} differs between slices of the series.")
    return values[0]


def common(facts: Facts, headers: Sequence[Header], keyword: str, read: Callable[[Header, str], Any]) -> Any:
    """The value that all slices share; None and noted as missing where one of them lacks it.

    Raises:
        TheraflowError: they differ, or one cannot be read.
    """
    values = [read(header, keyword) for header in headers]
    if any(value is None for value in values):
        facts.missing[keyword] = [tag_name(keyword)]
        return None
    return agreed(values, tag_name(keyword))


def each(facts: Facts, headers: Sequence[Header], keyword: str) -> np.ndarray | None:
    """A number for every slice; None and noted as missing where one of them lacks it."""
    values = [number(header, keyword) for header in headers]
    if any(value is None for value in values):
        facts.missing[keyword] = [tag_name(keyword)]
        return None
    return np.array(values)


def positive(value: float | None) -> float | None:
    """The value, or None where it stands for "not known": empty, zero, negative or no number."""
    return value if value is not None and math.isfinite(value) and value > 0 else None


def overrule(facts: Facts, column: str, keyword: str, stated: Any, override: Any) -> Any:
    """What holds of the header's value and that of scans.tsv: the latter, if it is given.

    Its column goes to `overrides`; where it contradicts the header, to `contradicted` and with a remark to `flags`.

    Raises:
        TheraflowError: a number in scans.tsv that is not positive.
    """
    if override is None:
        return stated
    if isinstance(override, int | float) and positive(override) is None:
        raise TheraflowError(f"{column} in scans.tsv is {override:g}; it must be positive.")
    facts.overrides.append(column)
    if stated is not None and not _alike(stated, override):
        facts.contradicted.append(column)
        facts.flags.append(f"{column} of scans.tsv ({_written(override)}) taken in place of {tag_name(keyword)} "
                           f"({_written(stated)})")  # fmt: skip
    return override


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, datetime.datetime):
        return abs((one - other).total_seconds()) <= TIMES_AGREE_S
    return math.isclose(one, other, rel_tol=_NUMBERS_AGREE) if isinstance(one, float) else one == other


def _written(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
