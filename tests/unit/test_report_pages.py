"""The reports: complete, self-contained, anonymous, and honest about what is missing."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest
import SimpleITK as sitk
from alignment_on_disk import write_alignment
from patient_on_disk import SETTINGS, change_sidecar, write_bare_patient, write_patient
from patient_on_disk import scans as listed_scans

from theraflow.cohort import summarise_cohort
from theraflow.files import write_json
from theraflow.images import read_image, read_sidecar, sidecar_path, write_image
from theraflow.layout import PatientFolder
from theraflow.report import write_cohort_report, write_patient_report
from theraflow.report.cohort import describe_methods
from theraflow.report.quality import BAD, CHECK, GOOD, NONE, check_scan, is_miniature
from theraflow.tables import read_table, write_table

pytestmark = pytest.mark.filterwarnings("error")
MINIATURE = "Organs were segmented by theraflow's miniature model, which knows only virtual patients."


class Page(HTMLParser):
    """Collects what a browser would fetch, the text, and whether every element is closed."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, html):
        super().__init__()
        self.links, self.words, self.open = [], [], []
        self.feed(html)
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    full, scans = write_patient(results)
    bare, bare_scans = write_bare_patient(results)
    for scan in scans:
        quality = {"verdict": "good", "method": "CT to CT: rigid, then demons", "reason": None, "limits": {}}
        if scan.scan == "cxcr4":
            limits = {"body_overlap_dice": {"good_from": 0.95, "failed_below": 0.8},
                      "folding_fraction": {"good_to": 0.0001, "failed_above": 0.01}}  # fmt: skip
            quality |= {
                "verdict": "failed",
                "limits": limits,
                "body_overlap_dice": 0.61,
                "folding_fraction": 0.0,
            }
        write_json(quality, full.registration_quality(scan.scan))
    write_patient_report(full, scans, SETTINGS, full.report)
    write_patient_report(bare, bare_scans, SETTINGS, bare.report)
    summarise_cohort([full, bare], results / "cohort", SETTINGS)
    write_cohort_report(
        results / "cohort", ["P001", "P002"], [("P003", "ct/<1.dcm: Rows (0028,0010) is missing.")],
        results / "cohort" / "report.html",
    )  # fmt: skip
    return results


@pytest.mark.parametrize("name", ["P001", "P002", "cohort"])
def test_page_needs_no_other_file_and_names_nobody(results, name):
    path = results / name / "report.html"
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    others = [link for link in page.links if not link.startswith("data:")]
    assert others == (["../P001/report.html", "../P002/report.html"] if name == "cohort" else [])
    assert "http" not in html
    assert "url(" not in html
    assert "Mustermann" not in html
    assert "/hospital" not in html
    assert "2019" not in page.text  # dates of injection and acquisition are in the sidecars
    assert "research use only" in page.text
    assert path.stat().st_size < 6e6
    for link in page.links:
        if link.startswith("data:image/png"):
            assert base64.b64decode(link.partition(",")[2]).startswith(b"\x89PNG")


def test_full_patient(results):
    html = (results / "P001" / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert MINIATURE in html
    # Three PETs: projections and slices; curves; histograms.
    assert sum(link.startswith("data:image/png") for link in page.links) == 8
    for words in (
        "Series time and acquisition time differ by 41 s.", "in place of the DICOM header: weight_kg",
        "Registration: body overlap dice 0.61 (good from 0.95, failed below 0.8).", "miniature model",
        "[68Ga]pentixafor", "301.4", "1.02", "BQML",
        "FDG-only", "TBR: SUVpeak over the mean of blood pool.", "90Y", "Cycle 1: 6.60 GBq 90Y", "PMR",
        "−40", "failed, CT to CT", "1.2.826.0.1.3680043.8.498.4",
    ):  # fmt: skip
        assert words in page.text, words
    assert "folding" not in page.text.partition("Provenance")[0]
    assert re.findall(r"\bNo \w+", page.text) == ["No CT"]  # of the dosimetry scans; nothing else is missing


def test_bare_patient_says_what_is_missing(results):
    html = (results / "P002" / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert MINIATURE not in html
    for words in (
        "No CT in the scan's DICOM folder", "No lesion: the reader marked none",
        "no lesion was measured on it", "No dosimetry: the sheet lists no scan that measures activity",
        "no tracer was scanned at baseline and again", "Not registered",
    ):  # fmt: skip
        assert words in page.text, words


def test_lights(results):
    folder, scans = PatientFolder(results, "P001"), listed_scans()
    lights = {scan.scan: check_scan(folder, scan) for scan in scans}
    fdg, cxcr4, lu = lights["fdg0"], lights["cxcr4"], lights["lu1"]
    assert (fdg.image.colour, fdg.ct.colour, fdg.organs.colour) == (GOOD, GOOD, BAD)
    assert fdg.registration.colour == GOOD
    assert (cxcr4.image.colour, cxcr4.registration.colour) == (CHECK, BAD)
    assert (lu.ct.colour, lu.organs.colour, lu.alignment.colour) == (NONE, NONE, NONE)
    assert (fdg.alignment.colour, fdg.alignment.words) == (GOOD, "good, 2 mm")


@pytest.mark.parametrize(
    ("verdict", "reason", "words"),
    [
        ("corrected", "they lay 23 mm apart", "they lay 23 mm apart (mutual information 0.31 to 0.42)"),
        (
            "check",
            "the best match lies 8 mm away",
            "8 mm away (mutual information 0.31 to 0.42). Nothing was moved",
        ),
        ("not checkable", "too little of the body", "could not be checked: too little of the body."),
    ],
)
def test_a_ct_that_does_not_lie_on_its_pet_has_a_light_and_a_sentence(tmp_path, verdict, reason, words):
    folder, scans = write_patient(tmp_path, dosimetry=False)
    moved = sitk.TranslationTransform(3, (0.0, 0.0, 23.0))
    measures = {"displacement_mean_mm": 23.4, "information_before": 0.31}
    write_alignment(folder, "fdg0", moved, verdict, reason=reason, **measures)
    assert check_scan(folder, scans[0]).alignment.colour == CHECK
    write_patient_report(folder, scans, SETTINGS, folder.report)
    text = Page(folder.report.read_text()).text
    assert f"fdg0: {'Whether CT' if verdict == 'not checkable' else 'CT and emission'}" in text
    assert words in text


def test_pictures_show_ct_and_organs_where_the_correction_puts_them(tmp_path):
    """CT and organs 32 mm beside the PET, and the correction that says so: the same pictures."""
    pictures = []
    for name, moved_mm in (("still", 0.0), ("moved", 32.0)):
        folder, scans = write_patient(tmp_path / name, dosimetry=False)
        for path in (folder.ct("fdg0"), folder.organs("fdg0")):
            image, sidecar = read_image(path), read_sidecar(path)
            image.SetOrigin([part - moved_mm for part in image.GetOrigin()])
            write_image(image, path, sidecar)
        write_alignment(folder, "fdg0", sitk.TranslationTransform(3, [moved_mm] * 3), "corrected", reason="moved")
        write_patient_report(folder, scans, SETTINGS, folder.report)
        pictures.append([link for link in Page(folder.report.read_text()).links if link.startswith("data:image/png")])
    assert len(pictures[0]) == 6
    assert pictures[0] == pictures[1]


def test_a_failed_registration_is_shown_measured_and_explained(tmp_path):
    folder, scans = write_patient(tmp_path, dosimetry=False)
    organ = {"dice": 0.31, "surface_mean_mm": 14.0, "surface_p95_mm": 30.0, "counts": True}
    quality = {
        "reference": "fdg0", "method": "CT to CT: rigid, then demons", "reason": None, "organs_remark": None,
        "organs": {"liver": organ, "spleen": organ | {"dice": 0.2}, "stomach": organ | {"dice": 0.0, "counts": False}},
        "organ_dice_median": 0.31, "organ_surface_median_mm": 14.0, "body_overlap_dice": 0.9,
        "folding_fraction": 0.0012,
        "limits": {"organ_dice_median": {"good_from": 0.8, "failed_below": 0.5}}, "verdict": "failed",
    }  # fmt: skip
    good = quality | {"verdict": "good", "limits": {}, "organs": {}, "organs_remark": "no organ labels of fdg1"}
    for scan, content in (("fdg0", good), ("cxcr4", quality), ("fdg1", good)):
        write_json(content, folder.registration_quality(scan))
        folder.registration_picture(scan).write_bytes(b"\x89PNG of " + scan.encode())
    lesions = read_table(folder.table("lesions"))
    columns = lesions["scan"].map({"fdg0": "good", "cxcr4": "failed", "fdg1": "good"})
    carried = (lesions["scan"] == "fdg1") & (lesions["lesion"] == "L4")
    changes = carried.map({True: 0.934, False: None})
    matched_by = columns.map({"failed": "organ and distance"})
    lesions = lesions.assign(registration=columns, matched_by=matched_by, volume_change=changes)
    lesions.loc[carried, "source"] = "carried"
    not_shown = (lesions["scan"] == "cxcr4") & (lesions["lesion"] != "L1")
    for column in ("source", "suv_peak", "positive"):
        lesions[column] = lesions[column].astype(object).where(~not_shown, None)
    write_table(lesions, folder.table("lesions"), list(lesions.columns))
    write_patient_report(folder, scans, SETTINGS, folder.report)
    page = Page(folder.report.read_text())
    for words in (
        "The registration of cxcr4 failed.", "1 of 1 found a counterpart", "No outline was carried to cxcr4 or from it",
        "Dice of 2 organs 0.31 (median; least 0.20, spleen)", "distance of their surfaces 14.0 mm",
        "overlap of the bodies 0.90", "folding 0.12 % of the voxels",
        "Registration: organ dice median 0.31 (good from 0.8, failed below 0.5).",
        "Organs have no part in the verdict: no organ labels of fdg1.", "carried, volume × 0.93",
        "reader, by organ and distance",
    ):  # fmt: skip
        assert words in page.text, words
    pictures = [base64.b64decode(link.partition(",")[2]) for link in page.links if link.startswith("data:image/png")]
    assert [content for content in pictures if b" of " in content[:12]] == [b"\x89PNG of cxcr4", b"\x89PNG of fdg1"]
    summarise_cohort([folder], tmp_path / "cohort", SETTINGS)
    write_cohort_report(tmp_path / "cohort", ["P001"], [], tmp_path / "cohort" / "report.html")
    assert "Registration has failed for P001 cxcr4" in Page((tmp_path / "cohort" / "report.html").read_text()).text


def test_an_organ_that_is_not_plausible_has_a_light_and_a_sentence(tmp_path):
    folder, scans = write_patient(tmp_path, miniature=False, dosimetry=False)
    assert check_scan(folder, scans[0]).organs.colour == GOOD
    table = read_table(folder.organ_table("fdg0"))
    odd = table["organ"] == "kidney_left"
    table = table.assign(plausible=odd.map({True: "no", False: "yes"}), remark=odd.map({True: "9 mL"}))
    write_table(table, folder.organ_table("fdg0"), list(table.columns))
    lesions = read_table(folder.table("lesions"))
    remark = lesions["scan"].map({"fdg0": "aorta is not plausible (mirrored)"})
    lesions = lesions.assign(background_remark=remark)
    write_table(lesions, folder.table("lesions"), list(lesions.columns))
    check = check_scan(folder, scans[0])
    assert (check.organs.colour, check.organs.words) == (CHECK, "1 not plausible")
    write_patient_report(folder, scans, SETTINGS, folder.report)
    page = Page(folder.report.read_text())
    assert "Organ kidney left is not plausible: 9 mL." in page.text
    assert "Background of fdg0: aorta is not plausible (mirrored)." in page.text


def test_one_miniature_sidecar_among_others_is_enough(tmp_path):
    folder, scans = PatientFolder(tmp_path, "P001"), listed_scans()
    for scan in scans:
        write_json({"miniature_model": False}, sidecar_path(folder.organs(scan.scan)))
    assert not is_miniature(folder, scans)
    change_sidecar(sidecar_path(folder.organs("fdg1")), miniature_model=True)
    assert is_miniature(folder, scans)


def test_activity_alone(tmp_path):
    folder, scans = write_patient(tmp_path)
    table = read_table(folder.table("lesions"))
    write_table(table.iloc[:0], folder.table("lesions"), list(table.columns))
    folder.table("response").unlink()
    activity = [scan for scan in scans if scan.quantity == "activity"][:1]
    write_patient_report(folder, activity, SETTINGS, folder.report)
    page = Page(folder.report.read_text())
    assert "No PET: the sheet lists no scan with a tracer measured in SUV." in page.text
    assert "Gy/GBq ± sd" in page.text
    assert "No assessment of response: no PET." in page.text


def test_candidates_that_do_not_count_are_listed_with_the_reason(tmp_path):
    folder, scans = write_bare_patient(tmp_path)
    candidates = pd.DataFrame(
        {"scan": "only", "candidate": ["C01"], "site": [None], "volume_ml": [4.2], "suv_max": [9.7],
         "in_reader_annotation": [None]}
    )  # fmt: skip
    write_table(candidates, folder.table("candidates"), list(candidates.columns))
    write_patient_report(folder, scans, SETTINGS, folder.report)
    assert "without organs it cannot be told from physiologic uptake" in Page(folder.report.read_text()).text


def test_names_from_outside_are_escaped(tmp_path):
    folder, scans = write_bare_patient(tmp_path)
    change_sidecar(sidecar_path(folder.emission(scans[0])), flags=["<img src=x onerror=alert(1)>"])
    write_patient_report(folder, [replace(scans[0])], SETTINGS, folder.report)
    assert "<img src=x" not in folder.report.read_text()


def test_cohort_names_the_missing_and_gives_the_tables_in_full(results):
    html = (results / "cohort" / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    missing = "One patient is missing from this report P003: ct/<1.dcm: Rows (0028,0010) is missing."
    assert missing in page.text
    assert "2 of 3 patients" in page.text
    for name in ("lesions", "doses", "response", "statistics", "detection"):
        content = re.search(rf'download="{name}.tsv" href="data:[^,]*,([^"]*)"', html).group(1)
        offered = base64.b64decode(content).decode()
        assert offered == (results / "cohort" / f"{name}.tsv").read_text(), name
    assert "No rows: no included patient has the data for this table." in page.text  # survival
    assert "not adjusted for multiplicity" in page.text
    assert page.text.count("naive") == 4  # SUVpeak and TBR, between tracers and over time
    assert MINIATURE in html


def test_cohort_of_nobody(tmp_path):
    summarise_cohort([], tmp_path / "cohort", SETTINGS)
    report = tmp_path / "cohort" / "report.html"
    write_cohort_report(tmp_path / "cohort", [], [("P1", "no"), ("P2", "no")], report)
    page = Page(report.read_text())
    assert "2 patients are missing" in page.text
    assert "No patient is included." in page.text


def test_methods_tell_only_what_was_done(results):
    names = ("lesions", "doses", "response", "statistics", "detection", "survival")
    tables = {name: read_table(results / "cohort" / f"{name}.tsv") for name in names}
    words = describe_methods(tables, ["P001", "P002"], [])
    assert words.startswith("2 patients were evaluated. Uptake of 4 lesions was measured with FDG and pentix")
    assert "MIRD" in words
    assert "Wilcoxon" in words
    assert "Kaplan-Meier" not in words
    tables["statistics"] = tables["statistics"].query("effect_name.isna()")
    assert "Wilcoxon" not in describe_methods(tables, ["P001"], [])
    empty = describe_methods({name: table.iloc[:0] for name, table in tables.items()}, ["P1"], [("P2", "")])
    assert empty.startswith("1 patient was evaluated; 1 could not be (see above). Computed with theraflow")
