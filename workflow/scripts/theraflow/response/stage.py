"""The stage itself: from `lesions.tsv` to `response.tsv`."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from theraflow.errors import TheraflowError
from theraflow.images import read_sidecar
from theraflow.layout import PatientFolder, Scan
from theraflow.response.percist import lean_body_mass_kg, percist
from theraflow.response.recist import Measured, recist
from theraflow.tables import read_table, write_table

log = logging.getLogger(__name__)

PERCIST, RECIST = "PERCIST 1.0", "RECIST 1.1"
CRITERIA = (PERCIST, RECIST)
BASELINE = "baseline"
PROGRESSION = ("PMD", "PD")  # which no further new lesion changes
RESPONSE_COLUMNS = (
    "patient", "baseline", "followup", "criterion", "category", "measure_baseline", "measure_followup",
    "change_percent", "new_lesions", "measure", "remark",
)  # fmt: skip


def assess_response(folder: PatientFolder, scans: Sequence[Scan], settings: Mapping[str, Any]) -> None:
    """Judge every follow-up of the patient against the baseline; write the table `response`.

    One tracer is followed: the reference tracer if it was scanned at baseline and later, else the first SUV
    tracer that was. The baseline is the time point `baseline`, or, where no scan is called so, that of the
    first SUV scan; every other time point with that tracer is a follow-up, in the order of the sheet. Without
    a follow-up the table has no rows. New are lesions positive at the follow-up that no scan of the baseline
    or of an earlier time point shows (neither positive nor marked by a reader). Where the registration of a scan has
    failed, a lesion of the follow-up may be a known one under another name: then the number of new lesions is NA, a
    category that a new lesion would change is `NE`, and `remark` says why.

    PERCIST compares SULpeak (lean body mass by Janmahasatian) where weight, height and sex are known for both
    scans, else SUVpeak; the column `measure` says which. RECIST takes diameters from the segmented lesions as
    the PET shows them; a lesion that is negative at follow-up counts as gone, one that is positive but was
    not outlined there has no known size.

    Args:
        folder: the patient's results, with the table `lesions`.
        scans: all scans of the patient, in the order of the sheet.
        settings: `criteria`, any of `PERCIST 1.0` and `RECIST 1.1`; `reference_tracer`.

    Raises:
        TheraflowError: an unknown criterion, or an input that cannot be read.
    """
    unknown = set(settings["criteria"]) - set(CRITERIA)
    if unknown:
        raise TheraflowError(f"The response criterion {min(unknown)!r} is not known; use {' or '.join(CRITERIA)}.")
    lesions = read_table(folder.table("lesions"))
    baseline, followups = visits(scans, settings["reference_tracer"])
    rows = []
    for place, followup in enumerate(followups):
        earlier = [baseline, *followups[:place]]
        times = [visit.timepoint for visit in earlier]
        new = new_lesions(lesions, times, followup.timepoint)
        doubtful = doubtful_lesions(lesions, new, times)
        known_new = [name for name in new if name not in doubtful]
        remark = _remark(lesions, doubtful)
        for criterion in settings["criteria"]:
            if criterion == PERCIST:
                peaks, measure = peaks_of(folder, lesions, baseline, followup)
                response = percist(*peaks, len(known_new))
            else:
                present = present_at(lesions, baseline.timepoint)
                sizes = [sizes_at(lesions, present, visit) for visit in (*earlier, followup)]
                response = recist(sizes[0], sizes[-1], len(known_new), sizes[1:-1])
                measure = "sum of diameters (mm)"
            category = response.category if not doubtful or response.category in PROGRESSION else "NE"
            rows.append(
                {"patient": folder.patient, "baseline": baseline.scan, "followup": followup.scan,
                 "criterion": criterion, "category": category, "measure_baseline": response.baseline,
                 "measure_followup": response.followup, "change_percent": response.change_percent,
                 "new_lesions": None if doubtful else len(new), "measure": measure, "remark": remark}
            )  # fmt: skip
    table = pd.DataFrame(rows, columns=list(RESPONSE_COLUMNS)).astype({"new_lesions": "Int64"})
    write_table(table, folder.table("response"), RESPONSE_COLUMNS)


def visits(scans: Sequence[Scan], reference_tracer: str) -> tuple[Scan | None, list[Scan]]:
    """The baseline scan and the follow-up scans of the tracer that is followed; None and [] without any."""
    suv = [scan for scan in scans if scan.quantity == "suv"]
    first = BASELINE if any(scan.timepoint == BASELINE for scan in suv) else suv[0].timepoint if suv else None
    tracers = sorted(dict.fromkeys(scan.tracer for scan in suv), key=lambda tracer: tracer != reference_tracer)
    for tracer in tracers:
        by_time = {scan.timepoint: scan for scan in reversed(suv) if scan.tracer == tracer}
        later = [time for time in dict.fromkeys(scan.timepoint for scan in suv) if time != first and time in by_time]
        if first in by_time and later:
            if tracer != reference_tracer:
                log.warning("Response is judged on %s: %s was not scanned twice.", tracer, reference_tracer)
            return by_time[first], [by_time[time] for time in later]
    return None, []


def present_at(lesions: pd.DataFrame, timepoint: str) -> list[str]:
    """Names of the lesions that any SUV scan of the time point shows: positive, or marked by a reader."""
    rows = lesions[(lesions["timepoint"] == timepoint) & lesions["suv_peak"].notna()]
    shown = rows["positive"].eq(True) | rows["source"].eq("reader")
    return sorted(rows.loc[shown, "lesion"].unique())


def new_lesions(lesions: pd.DataFrame, earlier: Sequence[str], followup: str) -> list[str]:
    """Names of the lesions positive at `followup` that no scan of the time points `earlier` shows.

    One that lay outside every earlier field of view is new as well (as RECIST 1.1 says of new lesions).
    """
    rows = lesions[(lesions["timepoint"] == followup) & lesions["positive"].eq(True)]
    known = {name for timepoint in earlier for name in present_at(lesions, timepoint)}
    return sorted(set(rows["lesion"]) - known)


def doubtful_lesions(lesions: pd.DataFrame, new: Sequence[str], earlier: Sequence[str]) -> list[str]:
    """Those of the `new` lesions that may be known ones of the time points `earlier`, as a registration has failed.

    Two names are two lesions if a scan outlines both, or if each is outlined on a scan whose registration has not
    failed, for then their places were compared. Otherwise they may be one.
    """
    own = lesions[lesions["source"].notna() & (lesions["source"] != "carried")]
    shown_on = {name: set(rows["scan"]) for name, rows in own.groupby("lesion")}
    placed = set(own.loc[own["registration"] != "failed", "lesion"])
    known = {name for timepoint in earlier for name in present_at(lesions, timepoint)}

    def may_be_one(a: str, b: str) -> bool:
        return not {a, b} <= placed and not shown_on.get(a, set()) & shown_on.get(b, set())

    return [name for name in new if any(may_be_one(name, other) for other in known)]


def _remark(lesions: pd.DataFrame, doubtful: Sequence[str]) -> str | None:
    if not doubtful:
        return None
    failed = lesions.loc[lesions["registration"] == "failed", "scan"].unique()
    return (
        f"{', '.join(doubtful)} may be new or known under another name: "
        f"the registration of {', '.join(failed)} has failed"
    )


def peaks_of(
    folder: PatientFolder, lesions: pd.DataFrame, baseline: Scan, followup: Scan
) -> tuple[tuple[float | None, float | None, bool | None], str]:
    """The hottest positive lesion's peak at both scans, whether any is positive at follow-up, the measure.

    Where nothing is positive at follow-up, the peak is that of the hottest place where a lesion was.
    """
    before, now = (lesions[lesions["scan"] == scan.scan] for scan in (baseline, followup))
    lit_before, lit_now = (rows[rows["positive"].eq(True)] for rows in (before, now))
    any_positive = True if len(lit_now) else None if now["positive"].isna().any() else False
    hottest = [_highest(lit_before["suv_peak"]), _highest((lit_now if any_positive else now)["suv_peak"])]
    factors = [_lean_fraction(folder, scan) for scan in (baseline, followup)]
    if None in factors:
        return (*hottest, any_positive), "SUVpeak"
    lean = [None if peak is None else peak * factor for peak, factor in zip(hottest, factors, strict=True)]
    return (*lean, any_positive), "SULpeak (Janmahasatian)"


def _highest(peaks: pd.Series) -> float | None:
    return float(peaks.max()) if peaks.notna().any() else None


def _lean_fraction(folder: PatientFolder, scan: Scan) -> float | None:
    """Lean body mass over body weight: SUL = SUVbw x this; None where weight, height or sex is unknown."""
    facts = read_sidecar(folder.emission(scan))
    weight, height, sex = (facts.get(key) for key in ("weight_kg", "height_cm", "sex"))
    if not weight or not height or not sex:
        return None
    mass = lean_body_mass_kg(weight, height, sex)
    return mass / weight if mass else None


def sizes_at(lesions: pd.DataFrame, names: Sequence[str], visit: Scan) -> dict[str, Measured]:
    """Sizes of the named lesions at the time point of `visit`.

    From the scan `visit` if it shows the lesion itself, else from another SUV scan of that time point which
    does. Where none does, a lesion that is negative is gone and any other has no known size.
    """
    rows = lesions[(lesions["timepoint"] == visit.timepoint) & lesions["suv_peak"].notna()]
    sizes = {}
    for name in names:
        site = next(iter(lesions.loc[lesions["lesion"] == name, "site"].dropna()), None)
        mine = rows[rows["lesion"] == name]
        own = mine[mine["source"] != "carried"].sort_values("scan", key=lambda scan: scan != visit.scan, kind="stable")
        if len(own):
            longest, short = float(own["longest_diameter_mm"].iloc[0]), float(own["short_axis_mm"].iloc[0])
        elif len(mine) and mine["positive"].eq(False).all():
            longest = short = 0.0
        else:
            longest = short = None
        sizes[name] = Measured(site, longest, short)
    return sizes
