"""Which series of a folder a scan is measured in, which CT belongs to it, and why."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from theraflow.dicom.export.header import corrections, text, words
from theraflow.dicom.export.identity import without_identity
from theraflow.dicom.export.index import Index
from theraflow.dicom.export.parse import Header
from theraflow.dicom.export.series import Kind, Series
from theraflow.errors import TheraflowError

logger = logging.getLogger(__name__)

# Series whose extent along the body is this fraction of the longest one's, or more, count as equally long.
_SAME_EXTENT = 0.95
# A CT that covers less of the emission image's length than this is of another examination, or tracks a bolus.
_COVERS = 0.25
# Fewer slices are no volume: bolus tracking, a slice to plan it, a picture.
_SLICES_OF_A_VOLUME = 3
# Kernels for lung and bone, which overshoot at edges and are noisy, as vendors name them: Siemens `B70f`, `Bl57d`; GE
# `LUNG`, `BONEPLUS`, `EDGE`; Philips `L`, `YC`; Canon `FC51`.
_SHARP_KERNEL = re.compile(r"[A-Z][a-z]?[5-9]\d[a-z]?|LUNG.*|BONE.*|EDGE|L|Y[A-E]|FC(3|5|8)\d", re.ASCII)
# Of two CTs that are alike the nearer in time is taken, if it is nearer by this much.
_NEARER_S = 300.0

SERIES_COLUMNS = ("used_as", "kind", "modality", "slices", "extent_mm", "description", "acquired_at",
                  "frame_of_reference_uid", "series_instance_uid", "reason")  # fmt: skip


class SeveralSeriesError(TheraflowError):
    """Several series come into question; `candidates` are they."""

    def __init__(self, sentence: str, candidates: tuple[Series, ...]) -> None:
        super().__init__(sentence)
        self.candidates = candidates


@dataclass(frozen=True)
class Choice:
    """The series that was taken.

    Attributes:
        series: it.
        reason: why it.
        others: for each of the others that came into question, why not.
    """

    series: Series
    reason: str
    others: dict[Series, str]


@dataclass
class _Selection:
    """Candidates that are narrowed down by one criterion after the other."""

    index: Index
    role: str
    candidates: list[Series]
    others: dict[Series, str] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    def require(self, fits: Callable[[Series], bool], reason: str, otherwise: str) -> None:
        """Leave out those that do not fit."""
        self._keep([one for one in self.candidates if fits(one)], reason, otherwise)

    def prefer(self, fits: Callable[[Series], bool], reason: str, otherwise: str) -> None:
        """Leave out those that do not fit, if any other does."""
        fitting = [one for one in self.candidates if fits(one)]
        if fitting:
            self._keep(fitting, reason, otherwise)

    def _keep(self, kept: list[Series], reason: str, otherwise: str) -> None:
        if len(kept) < len(self.candidates):
            self.reasons.append(reason)
            self.others.update({one: otherwise for one in self.candidates if one not in kept})
        self.candidates = kept

    def ambiguous(self, why: str = "") -> SeveralSeriesError:
        """That the user has to say which it is."""
        names = "; ".join(str(one) for one in self.candidates)
        return SeveralSeriesError(
            f"{self.index.folder} holds {len(self.candidates)} series{why} that may be the {self.role}: {names}; set "
            "`series` in scans.tsv to the SeriesInstanceUID of the right one.",
            tuple(self.candidates),
        )

    def choice(self) -> Choice:
        """The one that is left.

        Raises:
            SeveralSeriesError: several are left.
        """
        if len(self.candidates) > 1:
            raise self.ambiguous()
        (series,) = self.candidates
        reason = "; ".join(self.reasons) or f"the only {series.kind}"
        logger.info("%s: %s (%s)", self.role, series.uid, reason)
        return Choice(series, reason, self.others)


def choose_emission(index: Index, quantity: str, forced: str | None) -> Choice:
    """The series that a scan is measured in.

    `suv`: an attenuation-corrected PET. `activity`: a reconstructed SPECT (Modality NM, or stored as PT) or a PET in
    Bq/mL; calibrated goes before not calibrated. Then attenuation-corrected before not stated, axial before
    reformatted, the longest, an original before a derived one, and each place shown once before several times. Nothing
    is preferred between volumes of different studies or days, which are different scans.

    Args:
        index: all series of the folder.
        quantity: `suv` or `activity`.
        forced: column `series` of scans.tsv: SeriesInstanceUIDs, separated by comma or blank, or None.

    Raises:
        TheraflowError: none or several series come into question.
    """
    chosen = _Selection(index, "emission image", list(index.series))
    modalities = {"PT"} if quantity == "suv" else {"PT", "NM"}
    chosen.candidates = [one for one in index.series if one.modality in modalities and one.kind != Kind.SCREENSHOT]
    if _force(chosen, forced):
        return chosen.choice()
    if quantity == "suv":
        wanted = {Kind.PET, Kind.SPECT_AS_PET}
        chosen.require(lambda one: one.kind in wanted, "attenuation-corrected PET", "no attenuation-corrected PET")
    else:
        wanted = {Kind.PET, Kind.SPECT_AS_PET, Kind.SPECT}
        chosen.require(lambda one: one.kind in wanted, "reconstructed volume", "no reconstructed volume")
        chosen.require(lambda one: one.modality == "NM" or in_bq_per_ml(one.header), "in Bq/mL", "PT not in Bq/mL")
    chosen.require(lambda one: one.slices >= _SLICES_OF_A_VOLUME, "a volume of slices", "too few slices for a volume")
    if not chosen.candidates:
        kind = (
            "attenuation-corrected PET (Modality PT, CorrectedImage with ATTN)"
            if quantity == "suv"
            else "tomographic reconstruction (Modality NM, RECON TOMO) or PT in Bq/mL"
        )
        raise TheraflowError(f"{index.folder} holds no {kind}; it holds {index}.")
    _refuse_several_scans(chosen)
    if quantity != "suv":
        chosen.prefer(lambda one: in_bq_per_ml(one.header), "in Bq/mL", "not in Bq/mL")
    chosen.prefer(
        lambda one: "ATTN" in (corrections(one.header) or ()),
        "attenuation-corrected", "attenuation correction not stated",
    )  # fmt: skip
    chosen.prefer(lambda one: one.axial, "axial", "not axial")
    _prefer_longest(chosen)
    _prefer_original(chosen)
    return chosen.choice()


def _refuse_several_scans(chosen: _Selection) -> None:
    """Baseline and follow-up are told apart by the user, never by which is longer."""
    studies = {text(one.header, "StudyInstanceUID") for one in chosen.candidates}
    days = {one.acquired_at.date() for one in chosen.candidates if one.acquired_at is not None}
    if len(studies) > 1 or len(days) > 1:
        raise chosen.ambiguous(" of several studies or days")


def choose_ct(index: Index, emission: Series | None, forced: str | None) -> Choice:
    """The CT of an emission series: an axial volume in the same FrameOfReferenceUID, if it can be of the same study.

    Of several the longest is taken, then the nearest in time; of reconstructions of the same acquisition an original
    before a derived one, each place shown once before several times, a soft kernel before one that is known to be
    sharp (organ models and registration were made for soft ones), and most slices. Two that are still alike are left
    to the user.

    Where the emission series states no frame of reference, the CT has to be the only one of the same study. Without an
    emission series any CT of the folder comes into question.

    Raises:
        TheraflowError: none or several series come into question.
    """
    chosen = _Selection(
        index, "CT", [one for one in index.series if one.modality == "CT" and one.kind != Kind.SCREENSHOT]
    )
    if _force(chosen, forced):
        return chosen.choice()

    def same_study(one: Series) -> bool:
        return text(one.header, "StudyInstanceUID") == text(emission.header, "StudyInstanceUID")

    chosen.require(lambda one: one.kind == Kind.CT, "axial", "no axial CT")
    if emission is not None and emission.frame_of_reference:
        chosen.require(
            lambda one: one.frame_of_reference == emission.frame_of_reference,
            "in the frame of reference of the emission image", "in another frame of reference",
        )  # fmt: skip
    elif emission is not None:
        chosen.require(same_study, "of the same study", "of another study")
    chosen.require(lambda one: one.places >= _SLICES_OF_A_VOLUME, "a volume of slices", "slices at too few places")
    if emission is not None:
        chosen.require(
            lambda one: one.extent_mm >= _COVERS * emission.extent_mm,
            "covers the emission image", f"covers less than {_COVERS:.0%} of the emission image",
        )  # fmt: skip
    if emission is not None and not emission.frame_of_reference and len(chosen.candidates) > 1:
        raise chosen.ambiguous()
    if not chosen.candidates:
        raise TheraflowError(
            f"{index.folder} holds no axial CT in the frame of reference of the emission series that covers it; it "
            f"holds {index}."
        )
    if emission is not None:
        chosen.prefer(same_study, "of the same study", "of another study")
    _prefer_longest(chosen)
    if emission is not None and emission.acquired_at is not None:
        apart = {
            one: abs((one.acquired_at - emission.acquired_at).total_seconds())
            for one in chosen.candidates
            if one.acquired_at is not None
        }
        nearest = min(apart.values(), default=0.0) + _NEARER_S
        chosen.prefer(lambda one: apart.get(one, 0.0) < nearest, "nearest in time", "farther in time")
    _prefer_original(chosen)
    chosen.prefer(lambda one: not _is_sharp(one.header), "soft kernel", "sharp kernel")
    most = max(one.slices for one in chosen.candidates)
    chosen.prefer(lambda one: one.slices == most, "most slices", "fewer slices")
    return chosen.choice()


def _force(chosen: _Selection, forced: str | None) -> bool:
    """Whether the column `series` of scans.tsv names one of the candidates; the others are then left out."""
    uids = set((forced or "").replace(",", " ").split())
    absent = uids - {one.uid for one in chosen.index.series}
    if absent:
        raise TheraflowError(
            f"{chosen.index.folder} has no series {', '.join(sorted(absent))}, which the column series of scans.tsv "
            f"wants; it holds {chosen.index}."
        )
    named = any(one.uid in uids for one in chosen.candidates)
    if named:
        chosen.require(lambda one: one.uid in uids, "named in scans.tsv", "another is named in scans.tsv")
        chosen.prefer(lambda one: one.kind != Kind.CT_SCOUT, "no scout", "scout")
        chosen.prefer(lambda one: one.axial, "axial", "not axial")
        chosen.reasons = ["named in scans.tsv"]
    return named


def _prefer_longest(chosen: _Selection) -> None:
    longest = max(one.extent_mm for one in chosen.candidates)
    chosen.prefer(lambda one: one.extent_mm >= _SAME_EXTENT * longest, "longest", "shorter")


def _prefer_original(chosen: _Selection) -> None:
    chosen.prefer(lambda one: "DERIVED" not in (words(one.header, "ImageType") or ()), "original", "derived")
    chosen.prefer(lambda one: one.places == one.slices, "each place once", "several slices at one place")


def _is_sharp(header: Header) -> bool:
    return bool(_SHARP_KERNEL.fullmatch((words(header, "ConvolutionKernel") or ("",))[0]))


def series_table(index: Index, *choices: Choice, allowed: str = "") -> list[dict[str, Any]]:
    """A row for each series: what it is, what it is used as, and why or why not; columns `SERIES_COLUMNS`.

    Args:
        index: all series of the folder.
        choices: of the emission image and of the CT.
        allowed: identifying words that the user has written himself.
    """
    blotted = partial(without_identity, identity=index.identity, allowed=allowed)
    used = {choice.series: role for choice, role in zip(choices, ("emission", "CT"), strict=False)}
    reasons = {series: reason for choice in choices for series, reason in choice.others.items()}
    reasons |= {choice.series: choice.reason for choice in choices}
    return [
        {
            "used_as": used.get(one),
            "kind": str(one.kind),
            "modality": one.modality,
            "slices": one.slices,
            "extent_mm": round(one.extent_mm, 2),
            "description": blotted(text(one.header, "SeriesDescription") or "") or None,
            "acquired_at": None if one.acquired_at is None else one.acquired_at.isoformat(),
            "frame_of_reference_uid": one.frame_of_reference,
            "series_instance_uid": one.uid or None,
            "reason": reasons.get(one, "neither emission image nor CT"),
        }
        for one in index.series
    ]


def in_bq_per_ml(header: Header) -> bool:
    """Whether the header says that the voxels are an activity concentration."""
    return text(header, "Units") == "BQML" or real_world_bq_per_ml(header) is not None


def real_world_bq_per_ml(header: Header) -> Header | None:
    """The item of RealWorldValueMappingSequence (0040,9096) whose unit is UCUM Bq/ml, or None.

    An enhanced object has the sequence in its functional groups.
    """
    groups = (
        header,
        *header.items("SharedFunctionalGroupsSequence"),
        *header.items("PerFrameFunctionalGroupsSequence")[:1],
    )
    for group in groups:
        for item in group.items("RealWorldValueMappingSequence"):
            for code in item.items("MeasurementUnitsCodeSequence"):
                if (text(code, "CodeValue") or "").lower() == "bq/ml":
                    return item
    return None
