"""The part of a patient's report that tells of lesions: what to look at, tables, burden, and what is no lesion."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from theraflow.images import read_sidecar
from theraflow.layout import PatientFolder, Scan
from theraflow.lesions.contract import (
    ALL_SITES,
    BACKGROUNDS,
    BURDEN_COLUMNS,
    BY_ORGAN,
    CANDIDATE,
    CANDIDATE_COLUMNS,
    CARRIED,
    CONFIDENT,
    LESION_COLUMNS,
    MISMATCH_COLUMNS,
    READER,
    SURROUNDINGS,
    TBR_COLUMNS,
    TOLERANCE_MM,
)
from theraflow.report.display import (
    MISSING,
    Cell,
    Columns,
    Table,
    fixed,
    is_missing,
    signed,
    text,
    whole,
    words,
)
from theraflow.report.tables import optional_table
from theraflow.tables import read_table

SHORT_LIST = 6  # more rows of what is no lesion lie behind a click
OUTLINED_BY = {READER: "by a reader", CANDIDATE: "by the program"}


def read_lesions(folder: PatientFolder) -> pd.DataFrame:
    """`lesions.tsv` with all columns of the contract, NA where the file lacks them.

    Raises:
        TheraflowError: the table cannot be read.
    """
    return read_table(folder.table("lesions")).reindex(columns=list(LESION_COLUMNS))


def lesion_section(
    folder: PatientFolder, lesions: pd.DataFrame, scans: Sequence[Scan], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What the page tells of lesions.

    Args:
        folder: the patient's results, for the tables beside `lesions`.
        lesions: `lesions.tsv`.
        scans: those in SUV, in the order of the sheet.
        settings: `tracers`, whose order is that of the columns.
    """
    section: dict[str, Any] = {
        "lesion_tables": [], "lesion_notes": "", "lesions_absent": [], "ratios": None, "ratio_notes": [],
        "lesion_warnings": [*unsearched_scans(folder, scans), *unregistered_scans(lesions)],
        "attention": attention(lesions),
    }  # fmt: skip
    if lesions.empty:
        section["lesions_absent"].append("No lesion: the reader marked none, and no uptake counts as one.")
    elif scans:
        order = list(settings["tracers"])
        times = list(dict.fromkeys(scan.timepoint for scan in scans))
        at = {
            time: sorted((s for s in scans if s.timepoint == time), key=lambda s: order.index(s.tracer))
            for time in times
        }
        for time in times:
            before = {scan.tracer: scan for scan in reversed(at[times[0]])} if time != times[0] else {}
            section["lesion_tables"].append((time.capitalize(), lesion_table(lesions, at[time], before)))
        section["lesion_notes"] = _lesion_notes(lesions[lesions["scan"].isin([scan.scan for scan in scans])])
        ratios = optional_table(folder, "tbr", TBR_COLUMNS)
        section["ratios"], section["ratio_notes"] = ratio_table(ratios, at[times[0]])
    if not scans:
        section["lesions_absent"].append("No PET: the sheet lists no scan with a tracer measured in SUV.")
    burden = optional_table(folder, "burden", BURDEN_COLUMNS)
    uncounted = _uncounted(optional_table(folder, "candidates", CANDIDATE_COLUMNS))
    return section | {
        "burden": burden_table(burden) if len(burden) else None,
        "burden_by_site": site_table(burden),
        "burden_unknown": bool((burden["n_unmeasured"] > 0).any()),
        "tolerance": f"{TOLERANCE_MM:g}",
        "mismatches": mismatches(optional_table(folder, "mismatch", MISMATCH_COLUMNS)),
        "uncounted": _candidate_table(uncounted) if len(uncounted) else None,
        "uncounted_is_long": len(uncounted) > SHORT_LIST,
        "can_be_decided": folder.table("decisions_draft").is_file(),
    }


def unsearched_scans(folder: PatientFolder, scans: Sequence[Scan]) -> list[str]:
    """A sentence on each scan in SUV in which neither a reader nor the program has looked for lesions."""
    maps = {scan.scan: folder.lesion_map(scan.scan) for scan in scans}
    reasons = {name: read_sidecar(path).get("unsearched") for name, path in maps.items() if path.is_file()}
    return [
        f"Nobody has looked for new lesions in {name}: {reason}. Lesions of other scans were measured there."
        for name, reason in reasons.items()
        if reason
    ]


def unregistered_scans(lesions: pd.DataFrame) -> list[str]:
    """A sentence on each scan whose registration has failed: what that means for its lesions.

    Args:
        lesions: `lesions.tsv`.
    """
    sentences = []
    for scan, own in lesions[lesions["registration"] == "failed"].groupby("scan", sort=False):
        shown = own[own["source"].notna()]
        elsewhere = set(lesions.loc[(lesions["scan"] != scan) & lesions["source"].notna(), "lesion"])
        found = int(shown["lesion"].isin(elsewhere).sum())
        rest = "" if found == len(shown) else "; the others may be known lesions under new names"
        sentences.append(
            f"The registration of {scan} failed. Its lesions were matched with those of other scans by organ and "
            f"distance only: {found} of {len(shown)} found a counterpart{rest}. No outline was carried to {scan} or "
            "from it: where it shows no lesion of its own, nothing was measured."
        )
    return sentences


def attention(lesions: pd.DataFrame) -> list[tuple[str, str, str]]:
    """What a person should look at: lesions, scan, and the reasons in words; lesions of one reason together.

    Args:
        lesions: `lesions.tsv`.
    """
    rows = lesions[lesions["look"].notna()]
    return [
        (", ".join(own["lesion"]), str(scan), str(reasons))
        for (scan, reasons), own in rows.groupby(["scan", "look"], sort=False)
    ]


def lesion_table(lesions: pd.DataFrame, scans: Sequence[Scan], before: Mapping[str, Scan]) -> Table:
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
    mixed = len(set(lesions["positive_by"].dropna())) > 1

    def first_of(column: str) -> list[Any]:
        return [next(iter(any_scan.loc[[name], column].dropna()), None) for name in names]

    columns = Columns()
    columns.add("Lesion", [text(name, "strong") for name in names])
    sites = [site_cell(*told) for told in zip(*map(first_of, ("site", "station", "site_by")), strict=True)]
    columns.add("Site", sites, choice="Site")
    axes = zip(first_of("longest_diameter_mm"), first_of("short_axis_mm"), strict=True)
    columns.add("Axes, mm", [_axes(*pair) for pair in axes], numeric=True)
    groups = [("", 3)]
    for scan, frame in zip(scans, frames, strict=True):
        rows = frame.reindex(names)
        verdicts = zip(rows["positive"], rows["positive_by"], strict=True)
        positive = [_positive(value, mixed and whose == READER) for value, whose in verdicts]
        columns.add("Positive", positive, choice=f"Positive, {scan.tracer}")
        columns.add("SUV peak", [fixed(value, look="strong") for value in rows["suv_peak"]], numeric=True)
        columns.add("SUV max", [fixed(value) for value in rows["suv_max"]], numeric=True)
        columns.add("TBR", [fixed(value) for value in rows["tbr"]], numeric=True)
        width = 4
        if scan.tracer in before and before[scan.tracer].scan in by_scan:
            old = by_scan[before[scan.tracer].scan].reindex(names)
            compared = zip(old["suv_peak"], rows["suv_peak"], old["positive"], strict=True)
            columns.add("Δ SUV peak, %", [_change(*values) for values in compared], numeric=True)
            width += 1
        columns.add("mL", [fixed(value) for value in rows["volume_ml"]], numeric=True)
        origins = rows[["source", "volume_change", "matched_by", "confidence"]].itertuples(index=False)
        usual = _usual_source(rows["source"])
        outlines = [_outline(usual, *origin) for origin in origins]
        width += 1
        if any(cell.text for cell in outlines):
            columns.add("Outline", outlines)
            width += 1
        groups.append((f"{scan.tracer} ({scan.scan})", width))
    if len(scans) > 1:
        columns.add("Concordance", [text(word) for word in first_of("concordance")], choice="Concordance")
        groups.append(("", 1))
    return columns.table(groups, list(map(str, names)))


def site_cell(site: Any, station: Any, told_by: Any) -> Cell:
    """Where a lesion lies, for a node with its station; with a question mark where the surroundings alone tell it."""
    if is_missing(site):
        return Cell(MISSING)
    place = str(site) if is_missing(station) else f"{site}, {station}"
    return words(f"{place}?", "guess") if told_by == SURROUNDINGS else words(place)


def _usual_source(sources: pd.Series) -> str | None:
    """Who has outlined all lesions that a scan itself shows, so that it need not be said of each; None if several."""
    own = set(sources.dropna()) - {CARRIED}
    return own.pop() if len(own) == 1 else None


def _outline(usual: str | None, source: Any, volume_change: Any, matched_by: Any, confidence: Any) -> Cell:
    """Whose outline is measured unless the usual one, its volume if it was carried, and doubts about its identity."""
    if is_missing(source):
        return Cell(MISSING)
    parts = [] if source == usual else [str(source)]
    if not is_missing(volume_change):
        parts = [f"{source} × {volume_change:.2f}"]
    if matched_by == BY_ORGAN:
        parts.append(f"by {matched_by}")
    if not is_missing(confidence) and confidence < CONFIDENT:
        parts.append(f"identity {confidence:.2f}")
    return Cell(", ".join(parts))


def _positive(value: Any, marked: bool) -> Cell:
    if is_missing(value):
        return Cell(MISSING)
    mark = "*" if marked else ""
    return Cell(f"yes{mark}", 1) if str(value) == "True" else Cell(f"no{mark}", 0, "faint")


def _change(old: Any, new: Any, was_positive: Any) -> Cell:
    """A change in percent; of a lesion that was negative, whose uptake then was that of the tissue, none."""
    if is_missing(old) or is_missing(new) or old <= 0:
        return Cell(MISSING)
    change = 100 * (new / old - 1)
    return Cell("was negative", change, "faint") if str(was_positive) == "False" else signed(change)


def _axes(longest: Any, short: Any) -> Cell:
    return Cell(MISSING) if is_missing(longest) else Cell(f"{longest:.0f} × {fixed(short, 0).text}", float(longest))


def _lesion_notes(lesions: pd.DataFrame) -> str:
    """What the words and numbers of the lesion tables mean, as far as they are there."""
    notes = ["Axes: longest axial diameter and the one across it, on the first scan of the time point."]
    if (lesions["site_by"] == SURROUNDINGS).any():
        notes.append("Site with a question mark: a guess by the organs around the lesion.")
    whose = set(lesions["positive_by"].dropna())
    if whose:
        notes.append(f"Positive: {_whose_verdict(whose)}.")
    regions = lesions["background_region"].dropna().unique()
    notes.append(f"TBR: SUVpeak over the mean of {' or '.join(regions).replace('_', ' ')}." if len(regions)
                 else "No TBR: there is no background region.")  # fmt: skip
    reasons = lesions[["scan", "background_remark"]].dropna().drop_duplicates()
    notes += [f"Background of {row.scan}: {row.background_remark}." for row in reasons.itertuples()]
    notes.append(_outline_note(lesions))
    if (lesions["confidence"] < CONFIDENT).any():
        notes.append("Identity: the probability that this is the lesion of that name, where it is below "
                     f"{CONFIDENT:g}.")  # fmt: skip
    notes.append("lesions/lesions.tsv has more of each lesion: SUV by lean body mass, mean, median, TLG, place.")
    return " ".join(note for note in notes if note)


def _outline_note(lesions: pd.DataFrame) -> str:
    """Who has outlined the lesions of which scans, and what a carried outline is."""
    scans: dict[str, list[str]] = {}
    for scan, own in lesions.groupby("scan", sort=False):
        for source in OUTLINED_BY:
            if (own["source"] == source).any():
                scans.setdefault(source, []).append(str(scan))
    parts = [f"{OUTLINED_BY[source]} ({source}) on {', '.join(names)}" for source, names in scans.items()]
    if (lesions["source"] == CARRIED).any():
        parts.append("carried from another scan, × its volume here over that there")
    return f"Outline: {'; '.join(parts)}." if parts else ""


def _whose_verdict(whose: set[str]) -> str:
    if whose == {READER}:
        return "what a reader has marked or decided"
    if READER in whose:
        return "with an asterisk a reader has marked or decided it, else the program, from uptake over the surroundings"
    return "by the program, from uptake over the surroundings; no reader has had a word"


def ratio_table(ratios: pd.DataFrame, scans: Sequence[Scan]) -> tuple[Table | None, list[str]]:
    """TBR of every lesion against every background, and what is to be said of the backgrounds.

    Args:
        ratios: `tbr.tsv`.
        scans: of one time point; their columns lie side by side.

    Returns:
        The table, None without any ratio; sentences.
    """
    rows = ratios[ratios["scan"].isin([scan.scan for scan in scans])]
    if rows["tbr"].isna().all():
        return None, []
    names = list(dict.fromkeys(rows["lesion"]))
    columns, groups = Columns(), [("", 1)]
    columns.add("Lesion", [text(name, "strong") for name in names])
    for scan in scans:
        of_scan = rows[rows["scan"] == scan.scan]
        regions = [region for region in BACKGROUNDS if region in set(of_scan["background_region"])]
        for region in regions:
            own = of_scan[of_scan["background_region"] == region].set_index("lesion").reindex(names)
            levels = own["background_suv"].dropna().unique()
            # One mean for all lesions, unless each has its own.
            level = f", SUV {levels[0]:.2f}" if len(levels) == 1 else ""
            columns.add(f"{region.replace('_', ' ')}{level}", [fixed(value) for value in own["tbr"]], numeric=True)
        if regions:
            groups.append((f"{scan.tracer} ({scan.scan})", len(regions)))
    return columns.table(groups), _background_notes(rows)


def _background_notes(rows: pd.DataFrame) -> list[str]:
    """Why backgrounds are missing or were measured without an organ; lesions are named where it is not all of them."""
    notes = []
    for (scan, region), of_region in rows.groupby(["scan", "background_region"], sort=False):
        for remark, own in of_region.groupby("remark", sort=False):
            which = "" if len(own) == len(of_region) else f" for {', '.join(own['lesion'])}"
            notes.append(f"{region.replace('_', ' ').capitalize()} on {scan}{which}: {remark}.")
    return notes


def burden_table(burden: pd.DataFrame) -> Table:
    """Tumour burden of every scan.

    Args:
        burden: `burden.tsv`, not empty.
    """
    rows = burden[burden["site"] == ALL_SITES]
    columns = Columns()
    columns.add("Scan", [text(scan, "strong") for scan in rows["scan"]])
    columns.add("Tracer", [text(tracer) for tracer in rows["tracer"]])
    columns.add("Time point", [text(timepoint) for timepoint in rows["timepoint"]])
    return _with_burden(columns, rows)


def site_table(burden: pd.DataFrame) -> Table | None:
    """Tumour burden of every scan and site that has a lesion there, positive or not known; None without any.

    Args:
        burden: `burden.tsv`.
    """
    rows = burden[(burden["site"] != ALL_SITES) & ((burden["n_positive"] > 0) | (burden["n_unmeasured"] > 0))]
    if rows.empty:
        return None
    columns = Columns()
    columns.add("Scan", [text(scan, "strong") for scan in rows["scan"]])
    columns.add("Site", [words(site) for site in rows["site"]])
    return _with_burden(columns, rows)


def _with_burden(columns: Columns, rows: pd.DataFrame) -> Table:
    told = list(rows.itertuples())
    columns.add("Positive lesions", [Cell(f"{row.n_positive:.0f} of {row.n_lesions:.0f}", row.n_positive)
                                     for row in told], numeric=True)  # fmt: skip
    if (rows["n_unmeasured"] > 0).any():
        columns.add("Not measured", [whole(row.n_unmeasured) for row in told], numeric=True)
    columns.add("MTV, mL", [at_least(row.mtv_ml, row.mtv_measured_ml) for row in told], numeric=True)
    columns.add("TLG, SUV × mL", [at_least(row.tlg_ml, row.tlg_measured_ml) for row in told], numeric=True)
    columns.add("Hottest lesion", [text(row.hottest) for row in told])
    columns.add("SUV peak", [fixed(row.suv_peak_max) for row in told], numeric=True)
    columns.add("SUV max", [fixed(row.suv_max) for row in told], numeric=True)
    return columns.table()


def at_least(total: Any, measured: Any) -> Cell:
    """A total; where it is not known, what is known of it."""
    if is_missing(total) and not is_missing(measured):
        return Cell(f"at least {fixed(measured).text}", float(measured))
    return fixed(total)


def mismatches(mismatch: pd.DataFrame) -> list[tuple[str, Table, list[str]]]:
    """For every pair of tracers: both in words, what one shows and the other does not, and what is to be said of it.

    Args:
        mismatch: `mismatch.tsv`.
    """
    return [
        (f"{a} and {b}, {timepoint}", _mismatch_table(a, b, own.set_index("measure")), _mismatch_notes(own))
        for (timepoint, a, b), own in mismatch.groupby(["timepoint", "tracer_a", "tracer_b"], sort=False)
    ]


def _mismatch_table(a: str, b: str, measures: pd.DataFrame) -> Table:
    def ml(measure: str) -> Cell:
        return fixed(measures.loc[measure, "measured_ml"])

    def lesions(measure: str) -> Cell:
        return whole(measures.loc[measure, "n_lesions"])

    on_both = [f"{ml(f'concordant_lesions_{side}').text} on {tracer}" for side, tracer in (("a", a), ("b", b))]
    columns = Columns()
    columns.add("Shown by", [text(f"{a} only", "strong"), text(f"{b} only", "strong"), text("both", "strong")])
    by_lesion = [lesions(measure) for measure in ("a_only_lesions", "b_only_lesions", "concordant_lesions_a")]
    columns.add("Lesions", by_lesion, numeric=True)
    volumes = [ml("a_only_lesions"), ml("b_only_lesions"), Cell("; ".join(on_both))]
    columns.add("Volume of these lesions, mL", volumes, numeric=True)
    columns.add("Volume by voxels, mL", [ml(measure) for measure in ("a_not_b", "b_not_a", "both")], numeric=True)
    beyond = [ml("a_not_b_tolerance"), ml("b_not_a_tolerance"), Cell("")]
    columns.add(f"of this beyond {TOLERANCE_MM:g} mm, mL", beyond, numeric=True)
    return columns.table()


def _mismatch_notes(measures: pd.DataFrame) -> list[str]:
    """Which lesions are left out of the volumes, and which have the outline of the other scan."""
    ways: dict[str, list[str]] = {}
    for way, measure in (("lesions", "a_only_lesions"), ("voxels", "both")):
        row = measures[measures["measure"] == measure].iloc[0]
        if not is_missing(row["remark"]):
            rest = "; the volumes are those of the others" if row["n_unmeasured"] else ""
            ways.setdefault(f"{row['remark']}{rest}.", []).append(f"by {way}")
    return [f"{' and '.join(names).capitalize()}: {sentence}" for sentence, names in ways.items()]


def _uncounted(candidates: pd.DataFrame) -> pd.DataFrame:
    """Candidates that are no lesion: not kept, and neither part of a lesion nor in a reader's annotation."""
    kept, marked = (candidates[column].astype(str) == "True" for column in ("kept", "in_reader_annotation"))
    return candidates[candidates["lesion"].isna() & ~kept & ~marked]


def _candidate_table(candidates: pd.DataFrame) -> Table:
    columns = Columns()
    columns.add("Scan", [text(value) for value in candidates["scan"]])
    columns.add("Candidate", [text(value, "strong") for value in candidates["candidate"]])
    columns.add("Site", [words(value) for value in candidates["site"]])
    columns.add("mL", [fixed(value) for value in candidates["volume_ml"]], numeric=True)
    columns.add("SUV max", [fixed(value) for value in candidates["suv_max"]], numeric=True)
    columns.add("Reason", [text(value) for value in candidates["reason"]])
    return columns.table()
