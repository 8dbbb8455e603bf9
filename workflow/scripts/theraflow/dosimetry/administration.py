"""The administrations that the activity scans of a patient belong to: nuclide, injected activity, day."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from theraflow.errors import TheraflowError
from theraflow.images import read_sidecar, sidecar_path
from theraflow.layout import PatientFolder, Scan
from theraflow.nuclides import Nuclide, nuclide

# Scans of one administration whose injected activities differ by more belong to several, or one is wrong.
SAME_ACTIVITY = 1.01


@dataclass(frozen=True)
class Administration:
    """One injection and the scans that measure where its activity went.

    Attributes:
        timepoint: that its scans share in scans.tsv.
        scans: in the order of the sheet.
        tracer: of the scans.
        measured: nuclide of the scans.
        injected_mbq: administered activity.
        date: of the injection, as `2024-03-05`; None where no scan knows it.
    """

    timepoint: str
    scans: tuple[Scan, ...]
    tracer: str
    measured: Nuclide
    injected_mbq: float
    date: str | None


def administrations(folder: PatientFolder, scans: Sequence[Scan]) -> list[Administration]:
    """The administrations of a patient in the order of their dates; without all dates, in that of the sheet.

    Args:
        folder: the patient's results.
        scans: the patient's activity scans; those of one timepoint are of one administration.

    Raises:
        TheraflowError: scans of one timepoint differ in tracer, nuclide, injected activity or day, or a scan does not
            tell.
    """
    timepoints = dict.fromkeys(scan.timepoint for scan in scans)
    found = [_administration(folder, [s for s in scans if s.timepoint == name]) for name in timepoints]
    return sorted(found, key=lambda one: one.date) if all(one.date for one in found) else found


def _administration(folder: PatientFolder, scans: Sequence[Scan]) -> Administration:
    activities = {scan.scan: _injected_mbq(folder, scan) for scan in scans}
    tracers = sorted({scan.tracer for scan in scans})
    names = {_nuclide(folder, scan) for scan in scans}
    told = [read_sidecar(folder.emission(scan)).get("injected_at") for scan in scans]
    dates = sorted({str(when)[:10] for when in told if when})
    low, high = min(activities.values()), max(activities.values())
    timepoint = scans[0].timepoint
    if len(tracers) > 1 or len(names) > 1 or len(dates) > 1 or high > SAME_ACTIVITY * low:
        days = f" on {len(dates)} days" if len(dates) > 1 else ""
        nuclides = sorted(one.name for one in names)
        raise TheraflowError(
            f"The activity scans of {folder.patient} at timepoint {timepoint} belong to several administrations "
            f"({', '.join(tracers)}; {', '.join(nuclides)}; injected {low:g} to {high:g} MBq{days}); give each "
            "administration a timepoint of its own in scans.tsv."
        )
    date = dates[0] if dates else None
    return Administration(timepoint, tuple(scans), tracers[0], names.pop(), activities[scans[0].scan], date)


def _injected_mbq(folder: PatientFolder, scan: Scan) -> float:
    value = float(read_fact(folder, scan, "injected_mbq", "the injected activity"))
    if not value > 0:
        raise TheraflowError(
            f"Scan {scan.scan} of {folder.patient}: the injected activity is {value:g} MBq; correct injected_mbq in "
            "scans.tsv."
        )
    return value


def _nuclide(folder: PatientFolder, scan: Scan) -> Nuclide:
    told = str(read_fact(folder, scan, "nuclide", "the nuclide"))
    try:
        return nuclide(told)
    except TheraflowError as error:
        raise TheraflowError(f"Scan {scan.scan} of {folder.patient}: {error}") from error


def read_fact(folder: PatientFolder, scan: Scan, key: str, what: str) -> Any:
    """One entry of the sidecar of an emission image.

    Raises:
        TheraflowError: it is missing there.
    """
    value = read_sidecar(folder.emission(scan)).get(key)
    if value is None:
        file = sidecar_path(folder.emission(scan))
        raise TheraflowError(
            f"Scan {scan.scan} of {folder.patient}: {what} is not known ({key} in {file}); "
            "add it to the DICOM header or to scans.tsv."
        )
    return value
