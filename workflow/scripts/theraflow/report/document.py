"""The essentials of a patient's report on paper: the PDF that goes into a folder or into a meeting.

It is made of the tables and sentences of the page (`theraflow.report.patient`), so that every number is rounded in one
place. What is left out here is in report.html.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from reportlab.platypus import Flowable

import theraflow
from theraflow.dosimetry.contract import DOSE_COLUMNS, FITTED_COLUMNS
from theraflow.images import read_image, read_sidecar
from theraflow.layout import PatientFolder, Scan
from theraflow.report import paper
from theraflow.report.display import Cell, Columns, Table, count, fixed, text
from theraflow.report.dosimetry import (
    curve_caption,
    dosimetry_words,
    histogram_caption,
    lesion_regions,
    planning_curves,
    therapy_histograms,
)
from theraflow.report.lesions import lesion_section, read_lesions
from theraflow.report.pictures import SUV_WINDOW, choose_scans, draw_projections
from theraflow.report.plots import curves_in_order, draw_curves, draw_dvh
from theraflow.report.quality import BAD, CHECK, Light, ScanQuality, check_scan, is_miniature, remarks_of
from theraflow.report.response import response_section
from theraflow.report.tables import optional_table

# As on the page (templates/page.html, patient.html).
RESEARCH = (
    "For research use only. Not a medical device: nothing in this report is meant for the diagnosis or treatment of a "
    "patient."
)
MINIATURE = (
    "Organs were segmented by theraflow's miniature model, which knows only virtual patients. Not for any real patient."
)
# Columns of the page's tables that are printed.
OF_LESIONS = ("Lesion", "Site", "Axes, mm", "Positive", "SUV peak", "TBR", "Δ SUV peak, %", "mL", "Outline",
              "Concordance")  # fmt: skip
OF_DOSES = ("Region", "Mass, g", "T½ eff, h", "Gy/GBq ± sd", "95 %")
CURVES = 12  # three rows of four
SENTENCE, CAPTION = 45.0, 50.0  # points that a heading and a sentence need, and those of a picture


def write_patient_document(
    folder: PatientFolder, scans: Sequence[Scan], settings: Mapping[str, Any], output: Path | str
) -> None:
    """Write the patient's PDF.

    Args:
        folder: the patient's results; what is not there (CT, organs, dosimetry) is named with the reason.
        scans: all scans of the patient, in the order of the sheet.
        settings: of the configuration: `tracers` (order and quantity of tracers).
        output: the file.

    Raises:
        TheraflowError: an emission image, its sidecar or `lesions.tsv` is missing or cannot be read.
    """
    lesions = read_lesions(folder)
    suv_scans = [scan for scan in scans if scan.quantity == "suv"]
    activity_scans = [scan for scan in scans if scan.quantity == "activity"]
    checks = [check_scan(folder, scan) for scan in scans]
    told = lesion_section(folder, lesions, suv_scans, settings)
    content = [
        paper.headline(
            f"Patient {folder.patient}",
            f"{count(len(scans), 'scan')}, {count(lesions['lesion'].nunique(), 'lesion')}",
        ),
        paper.note("The essentials of report.html. Numbers are rounded on paper only; the tables hold them in full."),
        *([paper.banner(MINIATURE)] if is_miniature(folder, scans) else []),
        *_warnings(told),
        *_burden(told),
        *_response(response_section(folder, suv_scans)),
        *_quality(folder, checks),
        *_projections(folder, lesions, suv_scans),
        *_lesions(told),
        *_dosimetry(folder, activity_scans),
    ]
    made_by = f"theraflow {theraflow.__version__}"
    paper.write_document(content, paper.Frontispiece(f"Patient {folder.patient}", made_by, RESEARCH), output)


def _warnings(told: Mapping[str, Any]) -> list[Flowable]:
    boxes = [paper.box(sentence, paper.LIGHTS[BAD]) for sentence in told["lesion_warnings"]]
    looks = [f"{names} on {scan}: {reasons}." for names, scan, reasons in told["attention"]]
    if looks:
        boxes.append(paper.box(" ".join(looks), paper.LIGHTS[CHECK], "A person should look:"))
    return boxes


def _burden(told: Mapping[str, Any]) -> list[Flowable]:
    if not told["burden"]:
        return []
    unknown = " Where a lesion was not measured, the rest is a lower limit." if told["burden_unknown"] else ""
    return [
        *paper.heading("Tumour burden"),
        *paper.table(told["burden"]),
        paper.note(
            "Of the positive lesions. MTV: their volume, once where they overlap. TLG: the sum of SUV times volume "
            f"over it, whatever the tracer.{unknown}"
        ),
    ]


def _response(told: Mapping[str, Any]) -> list[Flowable]:
    if not told["response_table"]:
        return [*paper.heading("Response", SENTENCE), paper.paragraph(told["response_absent"])]
    return [
        *paper.heading("Response"),
        *paper.table(told["response_table"]),
        *(paper.note(sentence, f"{about}:") for about, sentence in told["response_remarks"]),
        *(
            paper.note(f"{category} ({how})", f"Best response by {criterion}:")
            for criterion, category, how in told["best_responses"]
        ),
    ]


def _quality(folder: PatientFolder, checks: Sequence[ScanQuality]) -> list[Flowable]:
    return [
        *paper.heading("Scans and quality checks"),
        *paper.table(_scan_table(folder, checks)),
        *(paper.note(sentence, f"{scans}:") for scans, sentence in remarks_of(checks)),
    ]


def _scan_table(folder: PatientFolder, checks: Sequence[ScanQuality]) -> Table:
    facts = [read_sidecar(folder.emission(check.scan)) for check in checks]
    named = [fact.get("radiopharmaceutical") or check.scan.tracer for check, fact in zip(checks, facts, strict=True)]
    columns = Columns()
    columns.add("Scan", [text(check.scan.scan, "strong") for check in checks])
    columns.add("Radiopharmaceutical", [text(name) for name in named])
    columns.add("Injected, MBq", [fixed(fact.get("injected_mbq"), 0) for fact in facts], numeric=True)
    columns.add("After injection, h", [fixed(fact.get("time_after_injection_h"), 2) for fact in facts], numeric=True)
    columns.add("PET or SPECT", [_light(check.image) for check in checks])
    columns.add("CT", [_light(check.ct) for check in checks])
    columns.add("CT on emission", [_light(check.alignment) for check in checks])
    columns.add("Organs", [_light(check.organs) for check in checks])
    columns.add("Registration", [_light(check.registration) for check in checks])
    return columns.table()


def _light(light: Light) -> Cell:
    return Cell(f"{light.sign} {light.words}", None, light.colour)


def _projections(folder: PatientFolder, lesions: pd.DataFrame, scans: Sequence[Scan]) -> list[Flowable]:
    """Projections of the first scan of every tracer at every time point, two beside each other."""
    shown = choose_scans(scans)
    if not shown:
        return []
    pictures = []
    for scan in shown:
        own = lesions[(lesions["scan"] == scan.scan) & lesions["suv_peak"].notna()]
        names = dict(zip(own["label"].astype(int), own["lesion"].astype(str), strict=True))
        figure = draw_projections(read_image(folder.emission(scan)), read_image(folder.lesion_map(scan.scan)), names)
        named = paper.note("", f"{scan.tracer}, {scan.timepoint} ({scan.scan})")
        pictures.append([named, paper.picture(figure, paper.HALF_WIDTH, letters=1.35)])
    left = [scan.scan for scan in scans if scan not in shown]
    others = f" Not shown: {', '.join(left)}." if left else ""
    caption = paper.note(
        "Coronal (patient's right on the left) and sagittal (facing left), head up. Inverted grey, SUV 0 white to "
        f"{SUV_WINDOW:g} black. Outlines: lesions as measured on that scan.{others}"
    )
    beside = len(pictures) % 2  # in the place that an odd number leaves
    pairs = [*pictures, [caption]] if beside else pictures
    return [
        *paper.heading("Maximum-intensity projections", room=paper.HALF_WIDTH),
        *(paper.side_by_side(*pairs[i : i + 2]) for i in range(0, len(pairs), 2)),
        *([] if beside else [caption]),
    ]


def _lesions(told: Mapping[str, Any]) -> list[Flowable]:
    content = paper.heading("Lesions")
    for time, table in told["lesion_tables"]:
        content += [*paper.subheading(time), *paper.table(paper.only(table, OF_LESIONS))]
    if told["lesion_notes"]:
        content.append(paper.note(told["lesion_notes"]))
    return content + [paper.paragraph(reason) for reason in told["lesions_absent"]]


def _dosimetry(folder: PatientFolder, scans: Sequence[Scan]) -> list[Flowable]:
    told = dosimetry_words(folder, scans)
    begins_with_table = told["dose_table"] and not told["plan_statement"]
    content = paper.heading("Dosimetry", paper.ROOM_FOR_TABLE if begins_with_table else SENTENCE)
    if told["plan_statement"]:
        content.append(paper.paragraph(told["plan_statement"]))
    if told["plan_table"]:
        content += [*paper.subheading("Limits and next cycle"), *paper.table(told["plan_table"])]
        content.append(paper.note(told["plan_assumptions"]))
    if told["cycle_table"]:
        content += [*paper.subheading("Therapy cycles"), *paper.table(told["cycle_table"])]
        content += [paper.note(sentence) for sentence in told["cycle_sources"]]
    if told["dose_table"]:
        content += paper.subheading("Absorbed dose per administered activity")
        content += paper.table(paper.only(told["dose_table"], OF_DOSES))
        content += [paper.note(reason, f"No dose of {regions}:") for regions, reason in told["without_dose"]]
        content.append(paper.note("How each was found, and what its uncertainty is made of, is in report.html."))
    content += [*_curves(folder, scans, told), *_histograms(folder, scans)]
    return content + [paper.paragraph(reason) for reason in told["dosimetry_absent"]]


def _curves(folder: PatientFolder, scans: Sequence[Scan], told: Mapping[str, Any]) -> list[Flowable]:
    """Time-activity curves of the first regions, and the gates that any do not pass."""
    doses, curves = optional_table(folder, "doses", DOSE_COLUMNS), optional_table(folder, "curves")
    if not scans or doses.empty or curves.empty:
        return []
    curves, fitted, measured = planning_curves(curves, optional_table(folder, "fitted", FITTED_COLUMNS), doses)
    first = curves_in_order(curves)[:CURVES]
    figure = draw_curves(curves[curves["region"].isin(first)], doses, fitted, measured)
    image = paper.picture(figure, 0.9 * paper.WIDTH, letters=1.15)
    content = [*paper.subheading("Time-activity curves", image.drawHeight + CAPTION), image]
    content.append(paper.note(curve_caption(curves, measured, CURVES)))
    if told["gates"]:
        content.append(paper.note("", f"Quality gates of the curves: {told['gates_passed']} pass all."))
    return content + [paper.note(sentence, f"{regions}:") for regions, sentence in told["gates"]]


def _histograms(folder: PatientFolder, scans: Sequence[Scan]) -> list[Flowable]:
    """Dose-volume histograms of the therapy's nuclide."""
    dvh = therapy_histograms(folder, scans)
    if dvh.empty:
        return []
    lesions = lesion_regions(optional_table(folder, "doses", DOSE_COLUMNS))
    image = paper.picture(draw_dvh(dvh, lesions), paper.WIDTH, letters=1.1)
    return [
        *paper.subheading("Dose-volume histograms", image.drawHeight + CAPTION),
        image,
        paper.note(histogram_caption(folder, dvh)),
    ]
