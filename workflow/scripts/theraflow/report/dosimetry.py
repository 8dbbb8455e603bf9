"""The part of a patient's report that tells of the dosimetry."""

import re
import string
from collections.abc import Sequence
from typing import Any

import pandas as pd

from theraflow.dosimetry.contract import (
    ADMINISTRATION_COLUMNS,
    BUDGET_COLUMNS,
    CYCLE_COLUMNS,
    DOSE_COLUMNS,
    FITTED_COLUMNS,
    WITH_DOSE,
)
from theraflow.files import read_json
from theraflow.images import sidecar_path
from theraflow.layout import PatientFolder, Scan
from theraflow.report.display import Cell, Columns, Table, count, is_missing, significant, text, whole, with_sd, words
from theraflow.report.dose_map import draw_patient_isodoses
from theraflow.report.pictures import picture_uri
from theraflow.report.plots import MOST_PANELS, TERMS, draw_budget, draw_curves, draw_dvh, terms_of
from theraflow.report.tables import optional_table

GOOD = "good"
NO_DOSE = "no dose: "
NARROW = "\u202f"  # a space at which no line is broken


def dosimetry_section(folder: PatientFolder, scans: Sequence[Scan]) -> dict[str, Any]:
    """What the page tells of the dosimetry.

    Args:
        folder: the patient's results, with the tables of `theraflow.dosimetry`.
        scans: those that measure activity.
    """
    return dosimetry_words(folder, scans) | _pictures(folder, scans)


def dosimetry_words(folder: PatientFolder, scans: Sequence[Scan]) -> dict[str, Any]:
    """The same without its pictures: tables, sentences, and in `dosimetry_absent` what is missing and why.

    Args:
        folder: the patient's results.
        scans: those that measure activity.
    """
    absent: list[str] = []
    section: dict[str, Any] = {
        "gates": [], "gates_passed": "", "dose_table": None, "methods": [], "without_dose": [], "budget_table": None,
        "administration_table": None, "administration_note": "", "cycle_table": None, "cycle_sources": [],
        "plan_statement": None, "plan_table": None, "plan_assumptions": "", "dosimetry_absent": absent,
    }  # fmt: skip
    if not scans:
        absent.append("No dosimetry: the sheet lists no scan that measures activity.")
        return section
    doses, cycles = optional_table(folder, "doses", DOSE_COLUMNS), optional_table(folder, "cycles", CYCLE_COLUMNS)
    if optional_table(folder, "curves").empty:
        absent.append("No time-activity curves: dosimetry/curves.tsv has no rows.")
    elif len(doses):
        section |= _gate_part(doses)
    if doses.empty:
        absent.append("No dose coefficients: dosimetry/doses.tsv has no rows.")
    else:
        section["dose_table"], section["methods"] = dose_table(doses)
        section["without_dose"] = without_dose(doses)
        if len(budget := _therapy_budget(folder, doses)):
            section["budget_table"] = budget_table(budget)
        section |= _administration_part(optional_table(folder, "administrations", ADMINISTRATION_COLUMNS), doses)
    if cycles.empty:
        absent.append("No doses of therapy cycles: cycles.tsv lists none of a nuclide with coefficients here.")
    else:
        section["cycle_table"], section["cycle_sources"] = cycle_table(cycles), cycle_sources(cycles)
    if folder.plan.is_file():
        plan, told = optional_table(folder, "plan"), read_json(folder.plan)
        section["plan_statement"] = told["statement"]
        if plan["limit_gy"].notna().any():
            section["plan_table"], section["plan_assumptions"] = plan_table(plan), " ".join(told["assumptions"])
    if all(scan.planar for scan in scans):
        absent.append(
            "No dose map and no dose-volume histograms: all scans of activity are planar and do not tell where in a "
            "region its activity lies."
        )
    elif optional_table(folder, "dvh").empty:
        absent.append("No dose-volume histograms: there is neither an organ nor a lesion in the dose map.")
    return section


def _pictures(folder: PatientFolder, scans: Sequence[Scan]) -> dict[str, Any]:
    """Curves, parts of the uncertainty, histograms and isodoses, each with its caption; None where there is none."""
    section: dict[str, Any] = dict.fromkeys(("curves", "budget", "dvh", "isodoses"))
    section |= {f"{name}_caption": "" for name in section}
    doses, curves = optional_table(folder, "doses", DOSE_COLUMNS), optional_table(folder, "curves")
    if not scans:
        return section
    if len(curves) and len(doses):
        curves, fitted, measured = planning_curves(curves, optional_table(folder, "fitted", FITTED_COLUMNS), doses)
        section["curves"] = picture_uri(draw_curves(curves, doses, fitted, measured), colours=64)
        section["curves_caption"] = curve_caption(curves, measured, MOST_PANELS)
    if len(doses) and len(budget := _therapy_budget(folder, doses)):
        section["budget"] = picture_uri(draw_budget(budget), colours=64)
        section["budget_caption"] = (
            f"{doses['nuclide'].iloc[-1]}: length of a bar, relative standard deviation of the coefficient to first "
            "order; colours, the shares of its variance; beside it the greatest one."
        )
    if len(dvh := therapy_histograms(folder, scans)):
        section["dvh"] = picture_uri(draw_dvh(dvh, lesion_regions(doses)), colours=64)
        section["dvh_caption"] = histogram_caption(folder, dvh)
    if not all(scan.planar for scan in scans) and (picture := draw_patient_isodoses(folder)):
        section["isodoses"], section["isodoses_caption"] = picture
    return section


def planning_curves(
    curves: pd.DataFrame, fitted: pd.DataFrame, doses: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Rows of the administration that planning uses, and the nuclide that was measured.

    Args:
        curves: `curves.tsv`.
        fitted: `fitted.tsv`.
        doses: `doses.tsv`, not empty.
    """
    measured, timepoint = doses[["nuclide", "timepoint"]].iloc[0]  # of each region the measured nuclide is first
    if not is_missing(timepoint):
        curves, fitted = (table[table["timepoint"] == timepoint] for table in (curves, fitted))
    return curves, fitted, str(measured)


def curve_caption(curves: pd.DataFrame, measured: str, shown: int) -> str:
    """What the picture of the curves shows, of which it has the first `shown` regions."""
    left = curves["region"].nunique() - shown
    return (
        f"Activity of {measured} as measured, not corrected for decay, bars of one standard deviation. Line: the "
        "fitted curve; band: 95 % interval by the fit alone, without what all scans share. Below: by how many % the "
        "points lie above the curve." + (f" {left} more regions are in dosimetry/curves.tsv." if left > 0 else "")
    )


def therapy_histograms(folder: PatientFolder, scans: Sequence[Scan]) -> pd.DataFrame:
    """`dvh.tsv` of the therapy's nuclide; that of the measured nuclide stands behind it. No rows without a dose map."""
    dvh = optional_table(folder, "dvh")
    if dvh.empty or all(scan.planar for scan in scans):
        return pd.DataFrame()
    return dvh[dvh["nuclide"] == dvh["nuclide"].iloc[0]]


def histogram_caption(folder: PatientFolder, dvh: pd.DataFrame) -> str:
    """Nuclide and limits of the dose map that the histograms are of."""
    path = sidecar_path(folder.dose_map)
    limits = str(read_json(path).get("limits", "")) if path.is_file() else ""
    return f"{dvh['nuclide'].iloc[0]}, per administered activity. {limits}"


def lesion_regions(doses: pd.DataFrame) -> list[str]:
    """The regions of `doses.tsv` that are lesions."""
    return list(doses.loc[doses["kind"] == "lesion", "region"].unique())


def _gate_part(doses: pd.DataFrame) -> dict[str, Any]:
    """The quality gates that curves do not pass."""
    rows = doses.drop_duplicates("region").dropna(subset="quality")
    return {
        "gates": _by_sentence(rows[rows["quality"] != GOOD], "quality"),
        "gates_passed": f"{int((rows['quality'] == GOOD).sum())} of {count(len(rows), 'curve')}",
    }


def _by_sentence(rows: pd.DataFrame, column: str) -> list[tuple[str, str]]:
    """Each sentence of a column once, with the regions that it is about."""
    return [
        (", ".join(name.replace("_", " ") for name in own["region"]), str(sentence))
        for sentence, own in rows.groupby(column, sort=False)
    ]


def dose_table(doses: pd.DataFrame) -> tuple[Table, list[tuple[str, str]]]:
    """Coefficients, the nuclides side by side, and what the letters in the table stand for.

    Args:
        doses: `doses.tsv`, not empty.
    """
    regions = doses.drop_duplicates("region").set_index("region")
    letters: dict[str, str] = {}
    columns = Columns()
    columns.add("Region", [words(name, "strong") for name in regions.index])
    columns.add("Mass, g", [significant(value) for value in regions["mass_g"]], numeric=True)
    columns.add("Points", [whole(value) for value in regions["n_timepoints"]], numeric=True)
    columns.add("Curve", [text(value) for value in regions["model"]])
    groups = [("", 4)]
    for name in doses["nuclide"].unique():
        own = doses[doses["nuclide"] == name].set_index("region").reindex(regions.index)
        columns.add("T½ eff, h", [significant(value) for value in own["t_eff_h"]], numeric=True)
        columns.add("TIA, h", [significant(value) for value in own["tia_h"]], numeric=True)
        pairs = zip(own["dose_gy_per_gbq"], own["sd_gy_per_gbq"], strict=True)
        columns.add("Gy/GBq ± sd", [with_sd(*pair) for pair in pairs], numeric=True)
        ends = zip(own["ci_low_gy_per_gbq"], own["ci_high_gy_per_gbq"], strict=True)
        columns.add("95 %", [_interval(*pair) for pair in ends], numeric=True)
        columns.add("How", [_marks(method, letters) for method in own["method"]])
        groups.append((str(name), 5))
    return columns.table(groups), [(mark, part) for part, mark in letters.items()]


def _marks(method: Any, letters: dict[str, str]) -> Cell:
    """The letters of the parts of a method; a part that is new gets the next one."""
    if is_missing(method):
        return text(None)
    return text(NARROW.join(letters.setdefault(part, _letter(len(letters))) for part in _parts(str(method))))


def _parts(method: str) -> list[str]:
    """The parts of a method: divided by semicolons, but not within brackets nor within the reason of no dose."""
    how, said, reason = method.partition(NO_DOSE)
    parts = re.split(r"; (?![^()]*\))", how.removesuffix("; ")) if how else []
    return [*parts, said + reason] if said else parts


def _letter(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    high, low = divmod(number, 26)
    return (_letter(high - 1) if high else "") + string.ascii_lowercase[low]


def _interval(low: Any, high: Any) -> Cell:
    if is_missing(low) or is_missing(high):
        return text(None)
    return Cell(f"{significant(low).text} to {significant(high).text}", float(low))


def without_dose(doses: pd.DataFrame) -> list[tuple[str, str]]:
    """Organs, lesions and red marrow without a coefficient, and why.

    Args:
        doses: `doses.tsv`.
    """
    missing = doses[doses["dose_gy_per_gbq"].isna() & doses["kind"].isin(WITH_DOSE)].copy()
    missing["reason"] = [_reason(method) for method in missing["method"]]
    return _by_sentence(missing.drop_duplicates(["region", "reason"]), "reason")


def _reason(method: Any) -> str:
    if is_missing(method):
        return "doses.tsv names no reason"
    return str(method).partition(NO_DOSE)[2] or str(method)


def _therapy_budget(folder: PatientFolder, doses: pd.DataFrame) -> pd.DataFrame:
    """`uncertainty.tsv` of the therapy's nuclide."""
    budget = optional_table(folder, "uncertainty", BUDGET_COLUMNS)
    return budget[budget["nuclide"] == doses["nuclide"].iloc[-1]]


def budget_table(budget: pd.DataFrame) -> Table:
    """Relative sd of each cause in %, and the cause with the greatest share.

    Args:
        budget: `uncertainty.tsv` of one nuclide, not empty.
    """
    wide = budget.pivot_table(index="region", columns="term", values="relative_sd", sort=False)
    total = (wide**2).sum(axis=1) ** 0.5
    columns = Columns()
    columns.add("Region", [words(name, "strong") for name in wide.index])
    columns.add("All, %", [significant(100 * value) for value in total], numeric=True)
    for term in terms_of(budget):
        title = f"{TERMS.get(term, term).capitalize()}, %"
        columns.add(title, [significant(100 * value) for value in wide[term]], numeric=True)
    columns.add("Greatest", [text(TERMS.get(term, term)) for term in wide.idxmax(axis=1)])
    return columns.table()


def _administration_part(told: pd.DataFrame, doses: pd.DataFrame) -> dict[str, Any]:
    if told["timepoint"].nunique() < 2:
        return {}
    used = doses["timepoint"].iloc[0]
    return {
        "administration_table": administration_table(told, str(doses["nuclide"].iloc[-1])),
        "administration_note": (
            f"Each administration by its own scans. Tables and pictures here, and planning, use {used}: the first with "
            "four scans or, where none has four, the first with the most. “Borrowed”: half-life from an earlier "
            "administration."
        ),
    }


def administration_table(told: pd.DataFrame, therapy: str) -> Table:
    """Coefficients of the therapy nuclide in every administration.

    Args:
        told: `administrations.tsv`, not empty.
        therapy: the nuclide.
    """
    told = told[(told["nuclide"] == therapy) & told["kind"].isin(WITH_DOSE)]
    regions = list(told["region"].unique())
    columns = Columns()
    columns.add("Region", [words(name, "strong") for name in regions])
    groups = [("", 1)]
    for timepoint, own in told.groupby("timepoint", sort=False):
        rows = own.set_index("region").reindex(regions)
        columns.add("Points", [whole(value) for value in rows["n_timepoints"]], numeric=True)
        columns.add("T½ eff, h", [significant(value) for value in rows["t_eff_h"]], numeric=True)
        pairs = zip(rows["dose_gy_per_gbq"], rows["sd_gy_per_gbq"], strict=True)
        columns.add("Gy/GBq ± sd", [with_sd(*pair) for pair in pairs], numeric=True)
        borrowed = [not is_missing(m) and "from the earlier administration" in m for m in rows["method"]]
        if any(borrowed):
            columns.add("Borrowed", [text("yes" if one else None) for one in borrowed])
        groups.append((f"{timepoint}, {own['injected_mbq'].iloc[0]:.0f} MBq", 4 if any(borrowed) else 3))
    return columns.table(groups)


def cycle_table(cycles: pd.DataFrame) -> Table:
    """Doses of every cycle, and of all together.

    Args:
        cycles: `cycles.tsv`, not empty.
    """
    regions = list(cycles["region"].unique())
    columns = Columns()
    columns.add("Region", [words(name, "strong") for name in regions])
    groups = [("", 1)]
    for (cycle, name), own in cycles.groupby(["cycle", "nuclide"], sort=False):
        rows = own.set_index("region").reindex(regions)
        columns.add("Gy ± sd", [with_sd(row.dose_gy, row.sd_gy) for row in rows.itertuples()], numeric=True)
        columns.add("BED, Gy", [significant(value) for value in rows["bed_gy"]], numeric=True)
        groups.append((f"Cycle {cycle:g}: {own['activity_gbq'].iloc[0]:.2f} GBq {name}", 2))
    if len(groups) > 2:
        total = cycles.groupby("region")["dose_gy"].sum(min_count=len(groups) - 1).reindex(regions)
        columns.add("All cycles, Gy", [significant(value) for value in total], numeric=True)
        groups.append(("", 1))
    return columns.table(groups)


def cycle_sources(cycles: pd.DataFrame) -> list[str]:
    """Where the doses of each cycle come from, if any was measured in its own cycle.

    Args:
        cycles: `cycles.tsv`.
    """
    if not cycles["source"].astype(str).str.startswith("measured").any():
        return []
    told = []
    for cycle, own in cycles.groupby("cycle", sort=False):
        parts = _by_sentence(own, "source")
        sentences = [parts[0][1]] if len(parts) == 1 else [f"{regions}: {source}" for regions, source in parts]
        told.append(f"Cycle {cycle:g}: {'; '.join(sentences)}.")
    return told


def plan_table(plan: pd.DataFrame) -> Table:
    """Limits first, then regions without one; doses are those at the largest activity that keeps all limits.

    Args:
        plan: `plan.tsv`, not empty.
    """
    columns = Columns()
    columns.add("Region", [words(name, "strong") for name in plan["region"]])
    quantities = plan["limit_quantity"].map({"dose": "dose", "bed": "BED", "eqd2": "EQD2"})
    columns.add("Limit", [text(name) for name in quantities])
    columns.add("Gy", [significant(value) for value in plan["limit_gy"]], numeric=True)
    columns.add("Spent, Gy", [significant(value) for value in plan["spent_gy"]], numeric=True)
    pairs = zip(plan["max_activity_gbq"], plan["max_activity_sd_gbq"], strict=True)
    columns.add("Largest activity, GBq ± sd", [with_sd(*pair) for pair in pairs], numeric=True)
    columns.add("With 95 %, GBq", [significant(value) for value in plan["max_activity_95_gbq"]], numeric=True)
    columns.add("Limiting", [text(value, "strong" if value == "yes" else "") for value in plan["limiting"]])
    pairs = zip(plan["dose_at_max_gy"], plan["dose_at_max_sd_gy"], strict=True)
    columns.add("Gy ± sd", [with_sd(*pair) for pair in pairs], numeric=True)
    columns.add("With 95 %, Gy", [significant(value) for value in plan["dose_at_95_gy"]], numeric=True)
    if plan["wanted_gy"].notna().any():
        columns.add("Wanted dose reached", [text(value) for value in plan["reached"]])
    columns.add("Remark", [text(value) for value in plan["remark"]])
    width = 3 if plan["wanted_gy"].notna().any() else 2
    return columns.table(
        [("", 1), ("Limit and activity of the next cycle", 6), ("At the largest activity", width), ("", 1)]
    )
