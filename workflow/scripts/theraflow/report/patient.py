"""The report of one patient."""

import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

import theraflow
from theraflow.files import read_json, write_text
from theraflow.images import read_image, read_sidecar, sidecar_path, to_array
from theraflow.layout import PatientFolder, Scan
from theraflow.lesions.identity import BY_ORGAN
from theraflow.nuclides import nuclide
from theraflow.registration import read_beside_emission
from theraflow.report.display import (
    Cell,
    Columns,
    Table,
    data_uri,
    fixed,
    is_missing,
    signed,
    significant,
    templates,
    text,
    whole,
    with_sd,
    words,
)
from theraflow.report.pictures import SUV_WINDOW, draw_fused, draw_projections, picture_uri
from theraflow.report.plots import MOST_PANELS, draw_curves, draw_dvh
from theraflow.report.quality import ScanQuality, check_scan, is_miniature
from theraflow.tables import read_table

# Entries of sidecars that are no provenance: shown elsewhere, too long, or dates.
NOT_SHOWN = {"patient", "scan", "labels", "organs", "acquired_at", "injected_at", "flags"}


def write_patient_report(
    folder: PatientFolder, scans: Sequence[Scan], settings: Mapping[str, Any], output: Path | str
) -> None:
    """Write the patient's report, one HTML file that needs no other.

    Args:
        folder: the patient's results; what is not there (CT, organs, dosimetry) is named with the reason.
        scans: all scans of the patient, in the order of the sheet.
        settings: of the configuration: `tracers` (order and quantity of tracers).
        output: the HTML file.

    Raises:
        TheraflowError: an emission image, its sidecar or `lesions.tsv` is missing or cannot be read.
    """
    lesions = read_table(folder.table("lesions"))
    suv_scans = [scan for scan in scans if scan.quantity == "suv"]
    activity_scans = [scan for scan in scans if scan.quantity == "activity"]
    sidecars = {scan.scan: read_sidecar(folder.emission(scan)) for scan in scans}
    checks = [check_scan(folder, scan) for scan in scans]
    page = {
        "title": f"Patient {folder.patient}",
        "subtitle": f"{_count(len(scans), 'scan')}, {_count(lesions['lesion'].nunique(), 'lesion')}",
        "version": theraflow.__version__,
        "miniature": is_miniature(folder, scans),
        "facts": _facts(folder, lesions, suv_scans),
        "checks": checks,
        "remarks": _remarks(checks),
        "registrations": _registrations(folder, checks),
        "scan_table": _scan_table(scans, sidecars),
        "window": f"{SUV_WINDOW:g}",
        "provenance": _provenance(folder, scans, sidecars),
        **_lesion_section(folder, lesions, suv_scans, settings),
        **_picture_section(folder, lesions, suv_scans),
        **_dosimetry_section(folder, activity_scans, sidecars),
        **_response_section(folder, suv_scans),
    }
    write_text(templates().get_template("patient.html").render(page), output)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _optional(folder: PatientFolder, name: str) -> pd.DataFrame:
    """A table that a patient need not have; without rows where it is absent."""
    path = folder.table(name)
    return read_table(path) if path.is_file() else pd.DataFrame()


def _facts(folder: PatientFolder, lesions: pd.DataFrame, scans: Sequence[Scan]) -> list[tuple[str, str, str]]:
    """What one wants to know first: name, value, detail."""
    facts = []
    for scan in scans:
        own = lesions[lesions["scan"] == scan.scan]
        positive = int((own["positive"] == True).sum())  # noqa: E712 - NA is neither
        hottest = own["suv_peak"].max()
        detail = "" if is_missing(hottest) else f"SUVpeak up to {hottest:.1f}"
        count = f"{positive} of {len(own)}" if len(own) else "none"
        facts.append((f"{scan.tracer}, {scan.timepoint}: positive lesions", count, detail))
    for row in _optional(folder, "response").itertuples():
        change = "" if is_missing(row.change_percent) else f"{signed(row.change_percent).text} %"
        facts.append((f"{row.criterion}, {row.followup}", str(row.category), change))
    doses = _optional(folder, "doses")
    if len(doses):
        therapy = doses["nuclide"].iloc[-1]
        own = doses[(doses["kind"] == "lesion") & (doses["nuclide"] == therapy)].dropna(subset=["dose_gy_per_gbq"])
        if len(own):
            best = own.loc[own["dose_gy_per_gbq"].idxmax()]
            value = f"{significant(best['dose_gy_per_gbq']).text} Gy/GBq"
            facts.append((f"Highest lesion dose, {therapy}", value, str(best["region"])))
    return facts


def _remarks(checks: Sequence[ScanQuality]) -> list[tuple[str, str]]:
    """Every remark once, with the scans that it concerns."""
    scans: dict[str, list[str]] = {}
    for check in checks:
        for sentence in check.remarks:
            scans.setdefault(sentence, []).append(check.scan.scan)
    return [(", ".join(names), sentence) for sentence, names in scans.items()]


def _registrations(folder: PatientFolder, checks: Sequence[ScanQuality]) -> list[tuple[str, ScanQuality, str]]:
    """Picture, scan with its light, and measures in words, of every scan that was registered to another."""
    shown = []
    for check in checks:
        path = folder.registration_picture(check.scan.scan)
        if not path.is_file():
            continue
        quality = read_json(folder.registration_quality(check.scan.scan))
        if quality["reference"] != check.scan.scan:
            shown.append((data_uri(path.read_bytes(), "image/png"), check, registration_in_words(quality)))
    return shown


def registration_in_words(quality: Mapping[str, Any]) -> str:
    """The measures of a registration, in a sentence or two.

    Args:
        quality: what `theraflow.registration.judge` writes.
    """
    measures = []
    counted = {name: organ for name, organ in quality["organs"].items() if organ["counts"]}
    if counted and quality["organs_remark"] is None:
        worst = min(counted, key=lambda name: counted[name]["dice"])
        measures += [
            f"Dice of {len(counted)} organs {quality['organ_dice_median']:.2f} (median; least "
            f"{counted[worst]['dice']:.2f}, {worst.replace('_', ' ')})",
            f"distance of their surfaces {quality['organ_surface_median_mm']:.1f} mm (median)",
        ]
    if quality["body_overlap_dice"] is not None:
        measures.append(f"overlap of the bodies {quality['body_overlap_dice']:.2f}")
    measures.append(f"folding {100 * quality['folding_fraction']:.2g} % of the voxels")
    remark = quality["organs_remark"]
    return f"{'; '.join(measures)}." + (f" Organs have no part in the verdict: {remark}." if remark else "")


def _scan_table(scans: Sequence[Scan], sidecars: Mapping[str, Mapping[str, Any]]) -> Table:
    facts = [sidecars[scan.scan] for scan in scans]
    columns = Columns()
    columns.add("Scan", [text(scan.scan, "strong") for scan in scans])
    columns.add("Radiopharmaceutical", [Cell(fact.get("radiopharmaceutical") or scan.tracer)
                                        for scan, fact in zip(scans, facts, strict=True)])  # fmt: skip
    columns.add("Time point", [text(scan.timepoint) for scan in scans])
    columns.add("Injected, MBq", [fixed(fact.get("injected_mbq")) for fact in facts], numeric=True)
    columns.add("After injection, h", [fixed(fact.get("time_after_injection_h"), 2) for fact in facts], numeric=True)
    columns.add("Weight, kg", [fixed(fact.get("weight_kg")) for fact in facts], numeric=True)
    columns.add("Quantity", [text(fact["quantity"]) for fact in facts])
    rules = [fact.get("suv") or {} for fact in facts]
    columns.add("SUV rule", [text(rule.get("rule")) for rule in rules])
    columns.add("Decay correction", [text(rule.get("decay_correction")) for rule in rules])
    return columns.table()


def _lesion_section(
    folder: PatientFolder, lesions: pd.DataFrame, scans: Sequence[Scan], settings: Mapping[str, Any]
) -> dict[str, Any]:
    absent, tables = [], []
    order = list(settings["tracers"])
    if lesions.empty:
        absent.append("No lesion: the reader marked none, and no uptake counts as one.")
    elif scans:
        first = scans[0].timepoint
        for timepoint in dict.fromkeys(scan.timepoint for scan in scans):
            own = sorted((s for s in scans if s.timepoint == timepoint), key=lambda s: order.index(s.tracer))
            before = {s.tracer: s for s in scans if s.timepoint == first and timepoint != first}
            tables.append((timepoint.capitalize(), _lesion_table(lesions, own, before), ""))
        tables[-1] = (*tables[-1][:2], _lesion_notes(lesions[lesions["scan"].isin([s.scan for s in scans])]))
    if not scans:
        absent.append("No PET: the sheet lists no scan with a tracer measured in SUV.")
    uncounted = _uncounted(_optional(folder, "candidates"), lesions)
    if len(uncounted):
        tables.append(("Uptake above the threshold that counts as no lesion", _candidate_table(uncounted), ""))
    return {
        "lesion_tables": tables, "lesions_absent": absent, "lesion_warnings": unregistered_scans(lesions)
    }  # fmt: skip


def unregistered_scans(lesions: pd.DataFrame) -> list[str]:
    """A sentence on each scan whose registration has failed: what that means for its lesions.

    Args:
        lesions: `lesions.tsv`.
    """
    sentences = []
    rows = lesions.reindex(columns=["scan", "lesion", "source", "registration"])
    for scan, own in rows[rows["registration"] == "failed"].groupby("scan", sort=False):
        shown = own[own["source"].notna()]
        elsewhere = set(rows.loc[(rows["scan"] != scan) & rows["source"].notna(), "lesion"])
        found = int(shown["lesion"].isin(elsewhere).sum())
        rest = "" if found == len(shown) else "; the others may be known lesions under new names"
        sentences.append(
            f"The registration of {scan} failed. Its lesions were matched with those of other scans by organ and "
            f"distance only: {found} of {len(shown)} found a counterpart{rest}. No outline was carried to {scan} or "
            "from it: where it shows no lesion of its own, nothing was measured."
        )
    return sentences


def _lesion_table(lesions: pd.DataFrame, scans: Sequence[Scan], before: Mapping[str, Scan]) -> Table:
    """Lesions of one time point, its scans side by side.

    Args:
        lesions: `lesions.tsv`.
        scans: of the time point.
        before: baseline scan by tracer, for the change; empty at baseline.
    """
    by_scan = {name: rows.set_index("lesion") for name, rows in lesions.groupby("scan")}
    frames = [by_scan.get(scan.scan, pd.DataFrame(columns=lesions.columns).set_index("lesion")) for scan in scans]
    names = list(dict.fromkeys(name for frame in frames for name in frame.index))
    any_scan = pd.concat([frame for frame in frames if len(frame)]) if names else frames[0]

    def first_of(column: str) -> list[Any]:
        return [next(iter(any_scan.loc[[name], column].dropna()), None) for name in names]

    columns = Columns()
    columns.add("Lesion", [text(name, "strong") for name in names])
    columns.add("Site", [words(site) for site in first_of("site")])
    axes = zip(first_of("longest_diameter_mm"), first_of("short_axis_mm"), strict=True)
    columns.add("Axes, mm", [_axes(*pair) for pair in axes], numeric=True)
    groups = [("", 3)]
    for scan, frame in zip(scans, frames, strict=True):
        rows = frame.reindex(names)
        columns.add("Positive", [_positive(value) for value in rows["positive"]])
        columns.add("SUVpeak", [fixed(value, look="strong") for value in rows["suv_peak"]], numeric=True)
        columns.add("SUVmax", [fixed(value) for value in rows["suv_max"]], numeric=True)
        columns.add("TBR", [fixed(value) for value in rows["tbr"]], numeric=True)
        width = 4
        if scan.tracer in before and before[scan.tracer].scan in by_scan:
            old = by_scan[before[scan.tracer].scan].reindex(names)["suv_peak"]
            change = 100 * (rows["suv_peak"] / old.where(old > 0) - 1)
            columns.add("ΔSUVpeak, %", [signed(value) for value in change], numeric=True)
            width += 1
        columns.add("mL", [fixed(value) for value in rows["volume_ml"]], numeric=True)
        origins = rows.reindex(columns=["source", "volume_change", "matched_by"]).itertuples(index=False)
        columns.add("Source", [_source(*origin) for origin in origins])
        groups.append((f"{scan.tracer} ({scan.scan})", width + 2))
    if len(scans) > 1:
        columns.add("Concordance", [text(word) for word in first_of("concordance")])
        groups.append(("", 1))
    return columns.table(groups)


def _source(source: Any, volume_change: Any, matched_by: Any) -> Cell:
    """Where an outline is from; how its volume changed if it was carried; how it was matched if not by position."""
    if not is_missing(volume_change):
        return Cell(f"{source}, volume × {volume_change:.2f}")
    return Cell(f"{source}, by {matched_by}") if matched_by == BY_ORGAN else text(source)


def _positive(value: Any) -> Cell:
    if is_missing(value):
        return Cell("–")
    return Cell("yes", 1) if str(value) == "True" else Cell("no", 0, "faint")


def _axes(longest: Any, short: Any) -> Cell:
    return Cell("–") if is_missing(longest) else Cell(f"{longest:.0f} × {fixed(short, 0).text}", float(longest))


def _lesion_notes(lesions: pd.DataFrame) -> str:
    regions = lesions["background_region"].dropna().unique()
    notes = ["Axes: longest axial diameter and the one across it, on the first scan of the time point."]
    notes += [f"TBR: SUVpeak over the mean of {' or '.join(regions).replace('_', ' ')}." if len(regions)
             else "No TBR: there is no background region."]  # fmt: skip
    reasons = lesions.reindex(columns=["scan", "background_remark"]).dropna().drop_duplicates()
    notes += [f"Background of {row.scan}: {row.background_remark}." for row in reasons.itertuples()]
    sources = set(lesions["source"].dropna())
    meanings = {
        "reader": "reader: outlined by a reader",
        "candidate": "candidate: found by the program",
        "carried": "carried: measured through the outline of another scan, with its volume here over that there",
    }
    known = [meanings[source] for source in meanings if source in sources]
    if known:
        notes.append(f"Source: {'; '.join(known)}.")
    return " ".join(notes)


def _uncounted(candidates: pd.DataFrame, lesions: pd.DataFrame) -> pd.DataFrame:
    """Candidates that are no lesions, with the `reason`."""
    if candidates.empty:
        return candidates
    counted = set(lesions.loc[lesions["source"] == "candidate", "scan"])
    marked = candidates["in_reader_annotation"].astype(str)
    reason = pd.Series(None, candidates.index, dtype=object)
    reason[~candidates["scan"].isin(counted)] = "without organs it cannot be told from physiologic uptake"
    reason[marked == "False"] = "not marked by the reader"
    reason[marked == "True"] = None
    return candidates.assign(reason=reason).dropna(subset=["reason"])


def _candidate_table(candidates: pd.DataFrame) -> Table:
    columns = Columns()
    columns.add("Scan", [text(value) for value in candidates["scan"]])
    columns.add("Candidate", [text(value, "strong") for value in candidates["candidate"]])
    columns.add("Site", [words(value) for value in candidates["site"]])
    columns.add("mL", [fixed(value) for value in candidates["volume_ml"]], numeric=True)
    columns.add("SUVmax", [fixed(value) for value in candidates["suv_max"]], numeric=True)
    columns.add("Reason", [text(value) for value in candidates["reason"]])
    return columns.table()


def _picture_section(folder: PatientFolder, lesions: pd.DataFrame, scans: Sequence[Scan]) -> dict[str, Any]:
    projections, slices, absent = [], [], []
    for scan in scans:
        name = f"{scan.tracer}, {scan.timepoint} ({scan.scan})"
        own = lesions[(lesions["scan"] == scan.scan) & lesions["suv_peak"].notna()]
        names = dict(zip(own["label"].astype(int), own["lesion"].astype(str), strict=True))
        pet, labels = read_image(folder.emission(scan)), read_image(folder.lesion_map(scan.scan))
        projections.append((picture_uri(draw_projections(pet, labels, names), colours=96), name))
        shown = set(np.unique(to_array(labels)).tolist())
        own = own[own["label"].isin(shown)]
        if own.empty:
            absent.append(f"No axial slice of {name}: no lesion was measured on it.")
            continue
        hottest = own.loc[own["suv_peak"].idxmax()]
        path = folder.ct(scan.scan)
        ct = read_beside_emission(folder, scan.scan, path) if path.is_file() else None
        organs, organ_names = _organs(folder, scan)
        figure = draw_fused(pet, labels, int(hottest["label"]), ct, organs, organ_names)
        caption = f"{name}: {hottest['lesion']}, SUVpeak {hottest['suv_peak']:.1f}. "
        if ct is None:
            caption += "PET alone in inverted grey, because the scan has no CT. Lesion outlines light blue."
        else:
            caption += f"PET (colour, SUV 0 to {SUV_WINDOW:g}) on CT (−160 to 240 HU). Lesion outlines light blue."
        slices.append((picture_uri(figure), name, caption))
    return {"projections": projections, "slices": slices, "pictures_absent": absent}


def _organs(folder: PatientFolder, scan: Scan) -> tuple[sitk.Image | None, dict[int, str]]:
    path = folder.organs(scan.scan)
    if not path.is_file():
        return None, {}
    names = {int(label): name for label, name in read_sidecar(path)["labels"].items()}
    return read_beside_emission(folder, scan.scan, path), names


def _dosimetry_section(
    folder: PatientFolder, scans: Sequence[Scan], sidecars: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    section: dict[str, Any] = {
        "curves": None, "curves_caption": "", "dose_table": None, "methods": [], "cycle_table": None,
        "dvh": None, "dvh_caption": "",
    }  # fmt: skip
    absent: list[str] = []
    section["dosimetry_absent"] = absent
    if not scans:
        absent.append("No dosimetry: the sheet lists no scan that measures activity.")
        return section
    curves, doses, cycles, dvh = (_optional(folder, name) for name in ("curves", "doses", "cycles", "dvh"))
    measured = nuclide(sidecars[scans[0].scan]["nuclide"]).name
    if curves.empty:
        absent.append("No time-activity curves: dosimetry/curves.tsv has no rows.")
    elif len(doses):
        section["curves"] = picture_uri(draw_curves(curves, doses, measured), colours=64)
        left = curves["region"].nunique() - MOST_PANELS
        section["curves_caption"] = (
            f"Activity of {measured} as measured, not corrected for decay, bars of one standard deviation; "
            "line: exponential with the half-life of the table below, through the points."
            + (f" {left} more regions are in dosimetry/curves.tsv." if left > 0 else "")
        )
    if doses.empty:
        absent.append("No dose coefficients: dosimetry/doses.tsv has no rows.")
    else:
        section["dose_table"], section["methods"] = _dose_table(doses)
    if cycles.empty:
        absent.append("No doses of therapy cycles: cycles.tsv lists none of the therapy nuclide for this patient.")
    else:
        section["cycle_table"] = _cycle_table(cycles)
    if dvh.empty:
        absent.append("No dose-volume histograms: there is neither an organ nor a lesion in the dose map.")
    else:
        lesions = doses.loc[doses["kind"] == "lesion", "region"].unique()
        section["dvh"] = picture_uri(draw_dvh(dvh, lesions), colours=64)
        section["dvh_caption"] = f"{dvh['nuclide'].iloc[0]}, per administered activity. {_dose_map_limits(folder)}"
    return section


def _dose_map_limits(folder: PatientFolder) -> str:
    path = sidecar_path(folder.dose_map)
    return str(read_json(path).get("limits", "")) if path.is_file() else ""


def _dose_table(doses: pd.DataFrame) -> tuple[Table, list[tuple[str, str]]]:
    """Coefficients, the nuclides side by side, and the methods that the letters in the table stand for."""
    nuclides = list(doses["nuclide"].unique())
    regions = doses.drop_duplicates("region").set_index("region")
    methods: dict[str, str] = {}
    columns = Columns()
    columns.add("Region", [words(name, "strong") for name in regions.index])
    columns.add("Mass, g", [significant(value) for value in regions["mass_g"]], numeric=True)
    columns.add("Time points", [whole(value) for value in regions["n_timepoints"]], numeric=True)
    columns.add("Curve", [text(value) for value in regions["model"]])
    groups = [("", 4)]
    for name in nuclides:
        own = doses[doses["nuclide"] == name].set_index("region").reindex(regions.index)
        columns.add("T½ eff, h", [significant(value) for value in own["t_eff_h"]], numeric=True)
        columns.add("TIA, h", [significant(value) for value in own["tia_h"]], numeric=True)
        pairs = zip(own["dose_gy_per_gbq"], own["sd_gy_per_gbq"], strict=True)
        columns.add("Gy/GBq ± sd", [with_sd(*pair) for pair in pairs], numeric=True)
        marks = []
        for method in own["method"]:
            if not is_missing(method) and method not in methods:
                methods[method] = _letter(len(methods))
            marks.append(text(methods.get(method)))
        columns.add("Method", marks)
        groups.append((name, 4))
    return columns.table(groups), [(mark, method) for method, mark in methods.items()]


def _letter(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    high, low = divmod(number, 26)
    return (_letter(high - 1) if high else "") + string.ascii_lowercase[low]


def _cycle_table(cycles: pd.DataFrame) -> Table:
    regions = list(cycles["region"].unique())
    columns = Columns()
    columns.add("Region", [words(name, "strong") for name in regions])
    groups = [("", 1)]
    for cycle, own in cycles.groupby("cycle", sort=False):
        rows = own.set_index("region").reindex(regions)
        columns.add("Gy ± sd", [with_sd(row.dose_gy, row.sd_gy) for row in rows.itertuples()], numeric=True)
        columns.add("BED, Gy", [significant(value) for value in rows["bed_gy"]], numeric=True)
        first = own.iloc[0]
        groups.append((f"Cycle {cycle:g}: {first['activity_gbq']:.2f} GBq {first['nuclide']}", 2))
    if len(groups) > 2:
        total = cycles.groupby("region")["dose_gy"].sum(min_count=1).reindex(regions)
        columns.add("All cycles, Gy", [significant(value) for value in total], numeric=True)
        groups.append(("", 1))
    return columns.table(groups)


def _response_section(folder: PatientFolder, scans: Sequence[Scan]) -> dict[str, Any]:
    response = _optional(folder, "response")
    if response.empty:
        reason = "no PET" if not scans else "no tracer was scanned at baseline and again later"
        return {"response_table": None, "response_absent": f"No assessment of response: {reason}."}
    columns = Columns()
    columns.add("Criterion", [text(value, "strong") for value in response["criterion"]])
    columns.add("Baseline", [text(value) for value in response["baseline"]])
    columns.add("Follow-up", [text(value) for value in response["followup"]])
    columns.add("Category", [text(value, "strong") for value in response["category"]])
    if "measure" in response:
        columns.add("Measure", [text(value) for value in response["measure"]])
    for title, column in (("At baseline", "measure_baseline"), ("At follow-up", "measure_followup")):
        columns.add(title, [fixed(value) for value in response[column]], numeric=True)
    columns.add("Change, %", [signed(value) for value in response["change_percent"]], numeric=True)
    columns.add("New lesions", [whole(value) for value in response["new_lesions"]], numeric=True)
    if "remark" in response and response["remark"].notna().any():
        columns.add("Remark", [text(value) for value in response["remark"]])
    return {"response_table": columns.table(), "response_absent": ""}


def _provenance(
    folder: PatientFolder, scans: Sequence[Scan], sidecars: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Name of a file and its entries, for every sidecar of the patient."""
    files: list[tuple[str, Mapping[str, Any]]] = []
    for scan in scans:
        files.append((f"{scan.scan}: {scan.emission}", sidecars[scan.scan]))
        others = {
            "ct": sidecar_path(folder.ct(scan.scan)),
            "organs": sidecar_path(folder.organs(scan.scan)),
            "CT and emission": folder.emission_check(scan.scan),
            "registration": folder.registration_quality(scan.scan),
            "lesions": sidecar_path(folder.lesion_map(scan.scan)),
        }
        files += [(f"{scan.scan}: {name}", read_json(path)) for name, path in others.items() if path.is_file()]
    if sidecar_path(folder.dose_map).is_file():
        files.append(("dose map", read_json(sidecar_path(folder.dose_map))))
    return [(name, list(_flat(content))) for name, content in files]


def _flat(content: Mapping[str, Any], prefix: str = "") -> Any:
    """Entries of nested mappings as (`outer.inner`, text)."""
    for key, value in content.items():
        if key in NOT_SHOWN:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield f"{prefix}{key}", ", ".join(str(entry) for entry in value) or "none"
        else:
            yield f"{prefix}{key}", "none" if value is None else str(value)
