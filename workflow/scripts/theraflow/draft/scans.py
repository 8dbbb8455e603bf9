"""The scans of one patient: which series are one scan, its CT, its annotation, its tracer."""

import datetime
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from theraflow.dicom.export.choice import Choice, SeveralSeriesError, choose_ct, choose_emission
from theraflow.dicom.export.header import date, moment, readable, text
from theraflow.dicom.export.index import Index
from theraflow.dicom.export.series import Instance, Kind, Series
from theraflow.draft.patients import study_uid
from theraflow.draft.tracers import Radiopharmaceutical, Told, tell_tracer, tracers_in
from theraflow.errors import TheraflowError
from theraflow.nuclides import nuclide
from theraflow.organs.labels import ORGAN_IDS, organ_called

MEASURED = (Kind.PET, Kind.SPECT_AS_PET, Kind.SPECT)
PLANAR = (Kind.PLANAR, Kind.PLANAR_WHOLE_BODY)
_ANNOTATIONS = (Kind.STRUCTURES, Kind.SEGMENTATION)
# Images of one tracer in one study that begin farther apart than this are two scans, not two reconstructions.
_ANOTHER_SCAN = datetime.timedelta(hours=2)


@dataclass(frozen=True, eq=False)
class Annotation:
    """A structure set or segmentation: its file and the series that it names."""

    series: Series
    instance: Instance

    @property
    def path(self) -> Path:
        """Its file."""
        return self.instance.path

    def refers_to(self, uid: str) -> bool:
        """Whether it says that it was drawn on that series."""
        header = self.instance.header
        items = list(header.items("ReferencedSeriesSequence"))
        for frame in header.items("ReferencedFrameOfReferenceSequence"):
            for study in frame.items("RTReferencedStudySequence"):
                items += study.items("RTReferencedSeriesSequence")
        return any(text(item, "SeriesInstanceUID") == uid for item in items)

    def lies_with(self, series: Series) -> bool:
        """Whether it is of the study of that series and in its frame of reference."""
        header = self.instance.header
        frames = {text(item, "FrameOfReferenceUID") for item in header.items("ReferencedFrameOfReferenceSequence")}
        frames.add(text(header, "FrameOfReferenceUID"))
        return study_uid(self.series) == study_uid(series) and series.frame_of_reference in frames - {None}

    def names(self) -> set[str]:
        """The names of its regions."""
        header = self.instance.header
        rois = [text(item, "ROIName") for item in header.items("StructureSetROISequence")]
        segments = [text(item, "SegmentLabel") for item in header.items("SegmentSequence")]
        return {name for name in (*rois, *segments) if name}


@dataclass(eq=False)
class DraftScan:
    """One scan.

    Attributes:
        images: the reconstructions of which one is measured; one that cannot be told from another stays.
        told: its tracer.
        quantity: `suv` or `activity`; of an unknown tracer what the kind of image suggests.
        emission, ct: what was chosen; None where it cannot be decided, or where there is no CT.
        undecided: the series between which the user has to choose.
        lesions, organs: annotation that goes into the sheet; other_annotations: the rest.
        timepoint: None until it is known.
        notes: for the user, free of identifying words.
        header_notes: with words of the header, which may identify.
    """

    images: tuple[Series, ...]
    told: Told
    quantity: str
    emission: Choice | None = None
    ct: Choice | None = None
    undecided: tuple[Series, ...] = ()
    lesions: Annotation | None = None
    organs: Annotation | None = None
    other_annotations: list[Annotation] = field(default_factory=list)
    timepoint: str | None = None
    notes: list[str] = field(default_factory=list)
    header_notes: list[str] = field(default_factory=list)

    @property
    def image(self) -> Series:
        """The measured series, or one of those that it may be."""
        return self.emission.series if self.emission else (self.undecided or self.images)[0]

    @property
    def tracer(self) -> Radiopharmaceutical | None:
        """The radiopharmaceutical, if it is known."""
        return self.told.tracer

    @property
    def started(self) -> datetime.datetime | None:
        """Start of the acquisition; without time of day where only the study has a date."""
        stated = self.image.acquired_at or readable(date, self.image.header, "StudyDate")
        if stated is None or isinstance(stated, datetime.datetime):
            return stated
        return datetime.datetime.combine(stated, datetime.time())

    @property
    def injected(self) -> datetime.datetime | None:
        """Date and time of the injection; a time without date says nothing about the day."""
        for item in self.image.header.items("RadiopharmaceuticalInformationSequence"):
            try:
                return moment(item, "RadiopharmaceuticalStartDateTime")
            except TheraflowError:
                return None
        return None

    @property
    def order(self) -> tuple:
        """By time, then by UID: never by file."""
        return (self.started or datetime.datetime.max, self.image.uid)

    @property
    def taken(self) -> list[Series]:
        """Emission image and CT; also those between which the user has to choose."""
        chosen = [choice.series for choice in (self.emission, self.ct) if choice]
        return [*chosen, *(one for one in self.undecided if one not in chosen)]

    @property
    def half_life(self) -> datetime.timedelta | None:
        """Physical half-life of its nuclide."""
        return None if self.told.nuclide is None else datetime.timedelta(seconds=nuclide(self.told.nuclide).half_life_s)


def find_scans(series: Sequence[Series], identity: frozenset[str]) -> list[DraftScan]:
    """The scans among the series of one patient, in their order of time, with image, CT and annotation."""
    scans = [_draft(images, told) for images, told in _sessions([one for one in series if one.kind in MEASURED])]
    for scan in scans:
        _choose_image(scan, identity)
        _choose_ct(scan, series, identity)
        _check_date(scan)
    annotations = [
        Annotation(one, instance) for one in series if one.kind in _ANNOTATIONS for instance in one.instances
    ]
    for scan in scans:
        _choose_annotation(scan, annotations)
    scans.sort(key=lambda scan: scan.order)
    _note_planar(scans, [one for one in series if one.kind in PLANAR])
    return scans


def _sessions(images: list[Series]) -> list[tuple[tuple[Series, ...], Told]]:
    """Images of one study and tracer that were acquired together, with what they tell of their tracer."""
    studies: dict[str, dict[Told, list[Series]]] = defaultdict(lambda: defaultdict(list))
    for one in images:
        studies[study_uid(one)][tell_tracer(one.header)].append(one)
    sessions = []
    for by_told in studies.values():
        for told, group in _by_tracer(by_told):
            timed = sorted((one for one in group if one.acquired_at), key=lambda one: (one.acquired_at, one.uid))
            parts: list[list[Series]] = []
            for one in timed:
                if not parts or one.acquired_at - parts[-1][-1].acquired_at > _ANOTHER_SCAN:
                    parts.append([])
                parts[-1].append(one)
            for one in sorted((one for one in group if not one.acquired_at), key=lambda one: one.uid):
                together = [part for part in parts if part[0].frame_of_reference == one.frame_of_reference]
                (together[0] if len(together) == 1 else parts[0] if len(parts) == 1 else _new(parts)).append(one)
            sessions += [(tuple(part), told) for part in parts]
    return sessions


def _new(parts: list[list[Series]]) -> list[Series]:
    parts.append([])
    return parts[-1]


def _by_tracer(by_told: dict[Told, list[Series]]) -> list[tuple[Told, list[Series]]]:
    """One group a tracer; derived images that lost all word of it belong to the only tracer of their study."""
    groups: dict[tuple, tuple[Told, list[Series]]] = {}
    silent = [one for told, images in by_told.items() if told.silent for one in images]
    for told, images in by_told.items():
        if not told.silent:
            groups.setdefault((told.tracer, told.nuclide), (told, []))[1].extend(images)
    if len(groups) == 1:
        next(iter(groups.values()))[1].extend(silent)
    elif silent:
        groups[()] = (next(told for told in by_told if told.silent), silent)
    return list(groups.values())


def _draft(images: tuple[Series, ...], told: Told) -> DraftScan:
    kinds = {one.kind for one in images}
    single_photons = kinds <= {Kind.SPECT, Kind.SPECT_AS_PET} or told.nuclide == "90Y"
    if told.tracer is None:
        scan = DraftScan(images, told, "activity" if single_photons else "suv")
        scan.header_notes.append(f"tracer: {told.reason}{_hint(images, told)}")
        return scan
    if told.tracer.quantity == "suv" and kinds == {Kind.SPECT}:
        scan = DraftScan(images, Told(None, told.nuclide), "activity")
        scan.notes.append(f"tracer: {told.tracer.name} is measured as SUV, but this is a SPECT")
        return scan
    return DraftScan(images, told, told.tracer.quantity)


def _hint(images: Sequence[Series], told: Told) -> str:
    described = {text(one.header, "SeriesDescription") or "" for one in images}
    names = sorted({row.name for words in described for row in tracers_in(words, told.nuclide)})
    return f" (its description may mean {', '.join(names)})" if names else ""


def _index(series: Sequence[Series], identity: frozenset[str]) -> Index:
    return Index("", tuple(series), (), identity)


def _choose_image(scan: DraftScan, identity: frozenset[str]) -> None:
    try:
        scan.emission = choose_emission(_index(scan.images, identity), scan.quantity, None)
    except SeveralSeriesError as error:
        scan.undecided = error.candidates
        uids = ", ".join(sorted(one.uid or "(without UID)" for one in error.candidates))
        scan.notes.append(f"series: nothing tells which of these is to be measured: {uids}")
    except TheraflowError:
        scan.undecided = scan.images
        wanted = "an attenuation-corrected PET volume" if scan.quantity == "suv" else "a volume in Bq/mL or counts"
        scan.notes.append(f"series: none of its {len(scan.images)} series is {wanted}")
    else:
        others = {one: why for one, why in scan.emission.others.items() if one.kind in MEASURED}
        for one, why in sorted(others.items(), key=lambda item: item[0].uid):
            scan.header_notes.append(f"not taken: {text(one.header, 'SeriesDescription') or one.uid} ({why})")


def _choose_ct(scan: DraftScan, series: Sequence[Series], identity: frozenset[str]) -> None:
    images = [one for one in series if one.modality == "CT" and one.kind != Kind.SCREENSHOT]
    nearby = [
        one
        for one in images
        if scan.image.acquired_at and one.acquired_at and abs(one.acquired_at - scan.image.acquired_at) <= _ANOTHER_SCAN
    ]
    # Anonymisation may give all scans of a patient one frame of reference: the CT of this hour goes first.
    for candidates in (nearby, images):
        try:
            scan.ct = choose_ct(_index(candidates, identity), scan.image, None)
            return
        except SeveralSeriesError as error:
            scan.undecided = tuple(dict.fromkeys((*scan.undecided, *error.candidates)))
            uids = ", ".join(sorted(one.uid or "(without UID)" for one in error.candidates))
            scan.notes.append(f"series: nothing tells which of these is its CT: {uids}")
            return
        except TheraflowError:
            continue
    scan.notes.append("no CT that covers it in its frame of reference" if images else "no CT")


def _check_date(scan: DraftScan) -> None:
    study_day = readable(date, scan.image.header, "StudyDate")
    if scan.image.acquired_at and study_day and abs((scan.image.acquired_at.date() - study_day).days) > 1:
        scan.notes.append(f"date: acquired {scan.image.acquired_at:%Y-%m-%d}, but the study is of {study_day}")


def _choose_annotation(scan: DraftScan, annotations: Sequence[Annotation]) -> None:
    """The one that was drawn on the emission image, else on its CT, else one of its study and frame of reference."""
    if scan.emission is None:
        return
    ct_uid = scan.ct.series.uid if scan.ct else None
    tiers = (
        [one for one in annotations if one.refers_to(scan.emission.series.uid)],
        [one for one in annotations if ct_uid and one.refers_to(ct_uid)],
        [one for one in annotations if one.lies_with(scan.emission.series)],
    )
    contents = {one: _contents(one) for tier in tiers for one in tier}
    for column in ("lesions", "organs"):
        found = ([one for one in tier if contents[one] == column] for tier in tiers)
        first = next((tier for tier in found if tier), [])
        if len(first) == 1:
            setattr(scan, column, first[0])
    scan.other_annotations = [one for one in contents if one not in (scan.lesions, scan.organs)]


def _contents(annotation: Annotation) -> str | None:
    """`organs` or `lesions`; None where it holds both, or organs that are not called as TotalSegmentator's."""
    names = {name.lower() for name in annotation.names()}
    if names and names <= {name.lower() for name in ORGAN_IDS}:
        return "organs"
    return None if any(organ_called(name, {}) for name in names) else "lesions"


def _note_planar(scans: Sequence[DraftScan], planar: Sequence[Series]) -> None:
    """Planar images are mentioned at the scan of their tracer that is nearest in time."""
    for one in sorted(planar, key=lambda one: one.uid):
        told = tell_tracer(one.header)
        same = [scan for scan in scans if scan.quantity == "activity" and told.nuclide in (None, scan.told.nuclide)]
        timed = [scan for scan in same if scan.started and one.acquired_at]
        if timed:
            nearest = min(timed, key=lambda scan: (abs(scan.started - one.acquired_at), scan.order))
            nearest.notes.append(
                f"{one.kind} image of {one.acquired_at:%Y-%m-%d %H:%M} is there, too; for dosimetry, give its folder a "
                "row of its own"
            )
