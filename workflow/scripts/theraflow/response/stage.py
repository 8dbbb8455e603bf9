"""The stage itself: from `lesions.tsv` to `response.tsv` and the tables of what it rests on."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from theraflow.errors import TheraflowError
from theraflow.layout import PatientFolder, Scan
from theraflow.lesions.contract import CLICK, READER, SURROUNDINGS
from theraflow.response.contract import (
    BEST_COLUMNS,
    CRITERIA,
    PERCIST,
    RECIST,
    REFERENCE_COLUMNS,
    RESPONSE_COLUMNS,
    TARGET_COLUMNS,
)
from theraflow.response.percist import (
    BLOOD_POOL,
    LIVER,
    TLG_RISE_PERCENT,
    Reference,
    acquisition_faults,
    any_left,
    hottest,
    hottest_peaks,
    is_measurable,
    measurable_from,
    overruled,
    percent_change,
    percist,
    reference_of_pair,
    risen,
    tlg_change_percent,
)
from theraflow.response.recist import (
    NODE,
    PERSISTENT,
    STABLE,
    Measured,
    best_response,
    choose_non_targets,
    choose_targets,
    confirmed_best_response,
    grown_nodes,
    recist,
)
from theraflow.response.visit import Visit, slice_distance_mm
from theraflow.tables import read_table, write_table

log = logging.getLogger(__name__)

BASELINE = "baseline"
PROGRESSION = ("PMD", "PD")  # which no further new lesion changes
SUL, SUV = "SULpeak (Janmahasatian)", "SUVpeak"


def assess_response(folder: PatientFolder, scans: Sequence[Scan], settings: Mapping[str, Any]) -> None:
    """Judge every follow-up of the patient against the baseline.

    Writes the tables `response`, `targets` (what was summed), `percist_reference` (the reference regions of every scan)
    and `best_response`.

    One tracer is followed: the reference tracer if it was scanned at baseline and later, else the first SUV
    tracer that was. The baseline is the time point `baseline`, or, where no scan is called so, that of the
    first SUV scan; every other time point with that tracer is a follow-up, in the order of the sheet. Without
    a follow-up the tables have no rows. New are lesions positive at the follow-up that no scan of the baseline
    or of an earlier time point shows (neither positive nor marked by a reader). Where the registration of a scan has
    failed, a lesion of the follow-up may be a known one under another name: then the number of new lesions is NA, a
    category that a new lesion would change is `NE`, and `remark` says why. The same holds of a follow-up on which
    nobody has looked for new lesions: without annotation, and without candidates, for its tracer has no rule or its
    organs are missing.

    PERCIST compares SULpeak (lean body mass by Janmahasatian) where weight, height and sex are known for both
    scans, else SUVpeak; the column `measure` says which. Liver and blood pool are measured where the scan has organ
    labels; without them measurability and CMR go by each lesion's surroundings, and `remark` says so. `comparable` is
    `yes` where all of PERCIST's conditions on the two scans are known to be met, `no` where one is not, else `unknown`;
    it changes no category. RECIST takes diameters from the segmented lesions as the PET shows them; a lesion that is
    negative at follow-up counts as gone, one that is positive but was not outlined there has no known size.

    Args:
        folder: the patient's results, with the table `lesions` and the scans' lesion maps; where a scan has organ
            labels, also its table of organs and the transform from CT to emission image.
        scans: all scans of the patient, in the order of the sheet.
        settings: `criteria`, any of `PERCIST 1.0` and `RECIST 1.1`; `reference_tracer`; `minimum_stable_weeks`, from
            baseline, that SD must last to be a best response.

    Raises:
        TheraflowError: an unknown criterion, or an input that cannot be read.
    """
    unknown = set(settings["criteria"]) - set(CRITERIA)
    if unknown:
        raise TheraflowError(f"The response criterion {min(unknown)!r} is not known; use {' or '.join(CRITERIA)}.")
    patient = _Patient(folder, scans, settings)
    rows = [row for criterion in settings["criteria"] for row in patient.rows(criterion)]
    order = {visit.scan: place for place, visit in enumerate(patient.followups)}
    rows.sort(key=lambda row: order[row["followup"]])
    table = pd.DataFrame(rows, columns=list(RESPONSE_COLUMNS))
    table = table.astype({"new_lesions": "Int64", "days_since_baseline": "Int64"})
    for name, content, columns in (
        ("response", table, RESPONSE_COLUMNS),
        ("targets", patient.targets(), TARGET_COLUMNS),
        ("percist_reference", patient.reference_rows(), REFERENCE_COLUMNS),
        ("best_response", patient.best(table), BEST_COLUMNS),
    ):
        write_table(pd.DataFrame(content, columns=list(columns)), folder.table(name), columns)


class _Patient:
    """One run of the stage."""

    def __init__(self, folder: PatientFolder, scans: Sequence[Scan], settings: Mapping[str, Any]) -> None:
        self.folder, self.scans, self.settings = folder, scans, settings
        self.table = read_table(folder.table("lesions"))
        self.baseline, self.followups = visits(scans, settings["reference_tracer"])
        followed = [self.baseline, *self.followups] if self.followups else []
        self.visits = {scan.scan: Visit(folder, scan) for scan in followed}
        self.slices_mm = {
            scan.scan: slice_distance_mm(folder.emission(scan)) for scan in scans if scan.quantity == "suv"
        }

    def rows(self, criterion: str) -> list[dict[str, Any]]:
        """The rows of the table `response` for one criterion."""
        rows = []
        for place, followup in enumerate(self.followups):
            earlier = [self.baseline, *self.followups[:place]]
            times = [visit.timepoint for visit in earlier]
            new = new_lesions(self.table, times, followup.timepoint)
            doubtful = doubtful_lesions(self.table, new, times)
            known_new = len([name for name in new if name not in doubtful])
            if criterion == PERCIST:
                row, remarks = self.percist_row(followup, known_new)
            else:
                row, remarks = self.recist_row(earlier, followup, known_new)
            unsearched = self.visits[followup.scan].unsearched
            if (doubtful or unsearched) and row["category"] not in PROGRESSION:
                row["category"] = "NE"
            if unsearched:
                remarks.insert(0, f"nobody has looked for new lesions on {followup.scan}: {unsearched}")
            remarks = [*_doubts(self.table, doubtful), *remarks]
            rows.append(
                {"patient": self.folder.patient, "baseline": self.baseline.scan, "followup": followup.scan,
                 "criterion": criterion, "new_lesions": None if doubtful or unsearched else len(new),
                 "days_since_baseline": self.days(followup), "remark": "; ".join(remarks) or None, **row}
            )  # fmt: skip
        return rows

    def days(self, followup: Scan) -> int | None:
        """Calendar days from the baseline scan."""
        first, then = self.visits[self.baseline.scan].day, self.visits[followup.scan].day
        return None if first is None or then is None else (then - first).days

    def measure(self, followup: Scan) -> tuple[str, list[float]]:
        """What is compared, and what SUV by body weight is multiplied by at baseline and follow-up to give it."""
        fractions = [self.visits[scan.scan].lean_fraction for scan in (self.baseline, followup)]
        return (SUV, [1.0, 1.0]) if None in fractions else (SUL, fractions)

    def percist_row(self, followup: Scan, new: int) -> tuple[dict[str, Any], list[str]]:
        """The columns of one follow-up by PERCIST, and what is to be said of it."""
        pair = [self.visits[scan.scan] for scan in (self.baseline, followup)]
        measure, factors = self.measure(followup)
        before, now = (visit.lesions(self.table, factor) for visit, factor in zip(pair, factors, strict=True))
        then, there = (visit.references(factor) for visit, factor in zip(pair, factors, strict=True))
        own = then.get(LIVER) or then.get(BLOOD_POOL)
        peaks = hottest_peaks(before, now)
        measurable = None if own is None or peaks[0] is None else is_measurable(peaks[0], own)
        rises, read = risen(before, now), followup.lesions is not None
        left = any_left(before, now, there, read)
        tlg = tlg_change_percent(before, now)
        response = percist(*peaks, left, new, measurable, bool(rises), tlg)
        region, changed = reference_of_pair(then, there)
        faults, unknown = acquisition_faults(*(visit.acquisition for visit in pair))
        if region is None and not changed:
            unknown = ["a reference region of both scans", *unknown]
        remarks = []
        remarks += [
            f"PERCIST-like, exploratory: PERCIST is made for FDG, not for {tracer}"
            for tracer in dict.fromkeys(visit.tracer for visit in pair if not visit.is_fdg)
        ]
        lacking = [name for name, known in (("measurability", own), ("CMR", there)) if not known]
        if lacking:
            remarks.append(f"{' and '.join(lacking)} could not be judged by liver or blood pool")
        if measurable is False:
            remarks.append(f"not measurable at baseline: {peaks[0]:.2f} is below {measurable_from(own):.2f} g/mL")
        if tlg is not None and tlg >= TLG_RISE_PERCENT:
            remarks.append(f"TLG rose by {tlg:.1f} %")
        remarks += [*rises, *(overruled(before, now, there) if read else ()), *changed, *faults]
        if unknown:
            remarks.append(f"not known: {', '.join(unknown)}")
        explored = [sum(lesion.peak for lesion in hottest(lesions)) or None for lesions in (before, now)]
        row = {
            "category": response.category, "measure_baseline": response.baseline,
            "measure_followup": response.followup, "change_percent": response.change_percent, "measure": measure,
            "reference_region": region, "measurable_from": None if own is None else measurable_from(own),
            "comparable": "no" if faults or (changed and region is None) else "unknown" if unknown else "yes",
            "exploratory_baseline": explored[0], "exploratory_followup": explored[1],
            "exploratory_change_percent": percent_change(*explored),
        }  # fmt: skip
        return row, remarks

    def recist_row(self, earlier: Sequence[Scan], followup: Scan, new: int) -> tuple[dict[str, Any], list[str]]:
        """The columns of one follow-up by RECIST, and what is to be said of it."""
        present = present_at(self.table, self.baseline.timepoint)
        first, *between, last = (self.sizes(present, visit) for visit in (*earlier, followup))
        response = recist(first, last, new, between)
        remarks = [
            f"{name} was a normal node at baseline and is 10 mm or more now: a reader must say whether it is new"
            for name in grown_nodes(first, last)
        ]
        missing = [name for name in choose_targets(first) if last[name].size_mm is None]
        if missing:
            remarks.append(f"no size of the target {', '.join(missing)}")
        row = {
            "category": response.category, "measure_baseline": response.baseline,
            "measure_followup": response.followup, "change_percent": response.change_percent,
            "measure": "sum of diameters (mm)", "target_response": response.targets,
            "non_target_response": response.non_targets, "measure_nadir": response.nadir,
            "change_from_nadir_percent": response.change_from_nadir_percent,
        }  # fmt: skip
        return row, remarks

    def sizes(self, names: Sequence[str], visit: Scan) -> dict[str, Measured]:
        """Sizes of the named lesions at the time point of `visit`."""
        return sizes_at(self.table, names, visit, self.slices_mm)

    def targets(self) -> list[dict[str, Any]]:
        """The rows of the table `targets`: every lesion that counts, with what it counts for, on every scan."""
        rows = []
        for visit in [self.baseline, *self.followups] if self.followups else []:
            for criterion in self.settings["criteria"]:
                about = {"patient": self.folder.patient, "criterion": criterion, "scan": visit.scan,
                         "timepoint": visit.timepoint}  # fmt: skip
                found = self.percist_targets(visit) if criterion == PERCIST else self.recist_targets(visit)
                rows += [about | row for row in found]
        return rows

    def percist_targets(self, visit: Scan) -> list[dict[str, Any]]:
        """The hottest lesions of a scan, each by its own scan's lean body mass."""
        factor = self.visits[visit.scan].lean_fraction
        chosen = hottest(self.visits[visit.scan].lesions(self.table, factor or 1.0))
        return [
            {"lesion": lesion.name, "site": lesion.site, "role": "exploratory" if place else "hottest",
             "value": lesion.peak, "unit": f"{SUL if factor else SUV}, g/mL"}
            for place, lesion in enumerate(chosen)
        ]  # fmt: skip

    def recist_targets(self, visit: Scan) -> list[dict[str, Any]]:
        """The lesions present at baseline with their sizes at a visit."""
        present = present_at(self.table, self.baseline.timepoint)
        first, now = self.sizes(present, self.baseline), self.sizes(present, visit)
        roles = dict.fromkeys(present, "normal node") | dict.fromkeys(choose_non_targets(first), "non-target")
        roles |= dict.fromkeys(choose_targets(first), "target")
        return [
            {"lesion": name, "site": now[name].site, "role": roles[name], "value": now[name].summed_mm,
             "unit": "short axis, mm" if now[name].site == NODE else "longest diameter, mm"}
            for name in present
        ]  # fmt: skip

    def reference_rows(self) -> list[dict[str, Any]]:
        """The rows of the table `percist_reference`; none unless PERCIST is asked for."""
        rows = []
        for name, visit in self.visits.items() if PERCIST in self.settings["criteria"] else ():
            factor = visit.lean_fraction
            for region, found in visit.regions.items():
                row = {"patient": self.folder.patient, "scan": name, "region": region}
                if isinstance(found, Reference):
                    there = found.times(factor or 1.0)
                    x, y, z = there.centre_mm
                    row |= {"mean": there.mean, "sd": there.sd, "volume_ml": there.volume_ml, "x_mm": x, "y_mm": y,
                            "z_mm": z, "measure": "SUL (Janmahasatian), g/mL" if factor else "SUV, g/mL"}  # fmt: skip
                else:
                    row["remark"] = found
                rows.append(row)
        return rows

    def best(self, table: pd.DataFrame) -> list[dict[str, Any]]:
        """The row of the table `best_response`: PERCIST defines none, so RECIST's alone."""
        own = table[table["criterion"] == RECIST]
        if own.empty:
            return []
        days = [None if pd.isna(day) else int(day) for day in own["days_since_baseline"]]
        course = list(zip(own["category"], days, strict=True))
        weeks = self.settings["minimum_stable_weeks"]
        remarks = ["the day of a scan is not known"] if None in days else []
        known = [0, *(day for day in days if day is not None)]
        if known != sorted(known):
            remarks.append("the sheet does not name the scans in the order of their days")
        stable = (
            PERSISTENT if own["target_response"].isna().all() and own["non_target_response"].notna().any() else STABLE
        )
        return [
            {"patient": self.folder.patient, "criterion": RECIST,
             "best_response": best_response(course, 7.0 * weeks, stable),
             "best_response_confirmed": confirmed_best_response(course, 7.0 * weeks, stable),
             "followups": len(own), "minimum_stable_weeks": weeks,
             "remark": "; ".join(remarks) or None}
        ]  # fmt: skip


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
    """Names of the lesions that any SUV scan of the time point shows: positive, or outlined or clicked by a reader."""
    rows = lesions[(lesions["timepoint"] == timepoint) & lesions["suv_peak"].notna()]
    shown = rows["positive"].eq(True) | rows["source"].isin((READER, CLICK))
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


def _doubts(lesions: pd.DataFrame, doubtful: Sequence[str]) -> list[str]:
    if not doubtful:
        return []
    failed = lesions.loc[lesions["registration"] == "failed", "scan"].unique()
    return [
        f"{', '.join(doubtful)} may be new or known under another name: "
        f"the registration of {', '.join(failed)} has failed"
    ]


def sizes_at(
    lesions: pd.DataFrame, names: Sequence[str], visit: Scan, slices_mm: Mapping[str, float]
) -> dict[str, Measured]:
    """Sizes of the named lesions at the time point of `visit`.

    From the scan `visit` if it shows the lesion itself, else from another SUV scan of that time point which
    does. Where no scan shows it, a lesion that is negative is gone and any other has no known size. A node by the
    program's guess is measured by its longest diameter, for the short axis is that of what a reader calls a node.

    Args:
        lesions: the table.
        names: of the lesions.
        visit: a scan of the tracer that is followed.
        slices_mm: by scan, the distance of its slices.
    """
    rows = lesions[(lesions["timepoint"] == visit.timepoint) & lesions["suv_peak"].notna()]
    sizes = {}
    for name in names:
        site = _site(lesions[lesions["lesion"] == name])
        mine = rows[rows["lesion"] == name]
        own = mine[mine["source"] != "carried"].sort_values("scan", key=lambda scan: scan != visit.scan, kind="stable")
        if len(own):
            first = own.iloc[0]
            diameters = float(first["longest_diameter_mm"]), float(first["short_axis_mm"])
            sizes[name] = Measured(site, *diameters, slices_mm[first["scan"]])
        elif len(mine) and mine["positive"].eq(False).all():
            sizes[name] = Measured(site, 0.0, 0.0, None)
        else:
            sizes[name] = Measured(site, None, None, None)
    return sizes


def _site(rows: pd.DataFrame) -> str | None:
    """Site of a lesion as RECIST asks for it."""
    site = next(iter(rows["site"].dropna()), None)
    guessed = "site_by" in rows and rows["site_by"].eq(SURROUNDINGS).any()
    return f"{NODE} (guess)" if site == NODE and guessed else site
