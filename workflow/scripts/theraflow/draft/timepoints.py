"""Which scans of a patient belong to one time point."""

import datetime
from collections.abc import Sequence

from theraflow.draft.scans import DraftScan

# Diagnostic scans this long after the first of their time point, or less, share it.
_ONE_STAGING = datetime.timedelta(days=30)
_SAME_INJECTION = datetime.timedelta(hours=1)
# Without times of injection: how many half-lives after the first scan the activity can still be measured.
_MEASURABLE_HALF_LIVES = 3.0


def assign_timepoints(scans: Sequence[DraftScan]) -> None:
    """Set the time points of all scans of one patient, given in their order of time; None where there is no date.

    Diagnostic scans (SUV): the first and all within 30 days of it are `baseline`; the next and all within 30 days of it
    `followup`, then `followup2`, ... Scans for dosimetry (activity): those of one administration share `dosimetry`,
    the next administration has `dosimetry2`, ... Two scans of a tracer are of one administration when their times of
    injection agree within an hour; where one is not stated, when the later is within three physical half-lives of the
    first. Times of injection that differ by less than a half-life are taken for a slip, with a note.
    """
    dated = [scan for scan in scans if scan.started is not None]
    for scan in scans:
        if scan.started is None:
            scan.notes.append("timepoint: neither acquisition nor study has a date")
    _stagings([scan for scan in dated if scan.quantity == "suv"])
    _administrations([scan for scan in dated if scan.quantity == "activity"])


def _stagings(scans: Sequence[DraftScan]) -> None:
    first, number, tracers = None, 0, set()
    for scan in scans:
        if first is None or scan.started.date() - first.started.date() > _ONE_STAGING:
            first, number, tracers = scan, number + 1, set()
        scan.timepoint = "baseline" if number == 1 else "followup" if number == 2 else f"followup{number - 1}"
        if scan.tracer in tracers:
            days = (scan.started.date() - first.started.date()).days
            scan.notes.append(f"timepoint: the tracer a second time, {days} days after the first scan")
        elif scan.tracer:
            tracers.add(scan.tracer)


def _administrations(scans: Sequence[DraftScan]) -> None:
    administrations: list[list[DraftScan]] = []
    for scan in scans:
        own = [
            one for one in administrations if one[0].tracer == scan.tracer and one[0].told.nuclide == scan.told.nuclide
        ]
        same = _is_same(scan, own[-1]) if own else False
        if same is None:
            scan.notes.append("timepoint: without nuclide and injection it is not known which scans belong together")
        elif same:
            own[-1].append(scan)
        else:
            administrations.append([scan])
    for number, administration in enumerate(administrations, start=1):
        for scan in administration:
            scan.timepoint = "dosimetry" if number == 1 else f"dosimetry{number}"


def _is_same(scan: DraftScan, administration: Sequence[DraftScan]) -> bool | None:
    """Whether a scan is of that administration; None where nothing tells."""
    injected = next((one.injected for one in administration if one.injected), None)
    if scan.injected and injected:
        apart = abs(scan.injected - injected)
        if apart <= _SAME_INJECTION:
            return True
        if scan.half_life is None:
            return None
        if apart < scan.half_life:
            scan.notes.append(f"timepoint: its time of injection is {apart} off that of the scan before")
            return True
        return False
    if scan.half_life is None:
        return None
    return scan.started - administration[0].started <= _MEASURABLE_HALF_LIVES * scan.half_life
