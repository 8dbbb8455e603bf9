"""The reports: complete, self-contained, anonymous, and honest about what is missing."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest
import SimpleITK as sitk
from alignment_on_disk import write_alignment
from patient_on_disk import SETTINGS, VIEWER, change_sidecar, write_bare_patient, write_patient
from patient_on_disk import scans as listed_scans
from registration_on_disk import write_registration

from settings import default_settings
from theraflow.dosimetry.contract import ADMINISTRATION_COLUMNS, CYCLE_COLUMNS
from theraflow.dosimetry.planning import plan_therapy
from theraflow.files import read_json, write_json
from theraflow.images import read_image, read_sidecar, sidecar_path, write_image
from theraflow.layout import PatientFolder
from theraflow.report import write_patient_report
from theraflow.report.quality import BAD, CHECK, GOOD, NONE, check_scan, is_miniature
from theraflow.tables import read_table, write_table

pytestmark = pytest.mark.filterwarnings("error")
MINIATURE = "Organs were segmented by theraflow's miniature model, which knows only virtual patients."


class Page(HTMLParser):
    """Collects what a browser would fetch, the text, and whether every element is closed."""

    VOID = frozenset({"meta", "link", "img", "br", "input"})

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
    limits = {"body_overlap_dice": {"good_from": 0.95, "failed_below": 0.8},
              "folding_fraction": {"good_to": 0.0001, "failed_above": 0.01}}  # fmt: skip
    failed = {"verdict": "failed", "limits": limits, "body_overlap_dice": 0.61, "folding_fraction": 0.0}
    for scan in scans:
        write_registration(full, scan.scan, "fdg0", **(failed if scan.scan == "cxcr4" else {}))
    write_patient_report(full, scans, SETTINGS, VIEWER, full.report)
    write_patient_report(bare, bare_scans, SETTINGS, VIEWER, bare.report)
    return results


@pytest.mark.parametrize("name", ["P001", "P002"])
def test_page_needs_no_other_file_and_names_nobody(results, name):
    path = results / name / "report.html"
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert all(link.startswith(("data:", "#")) for link in page.links)
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
    write_patient_report(folder, scans, SETTINGS, VIEWER, folder.report)
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
        write_patient_report(folder, scans, SETTINGS, VIEWER, folder.report)
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
        write_registration(folder, scan, **content)
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
    write_patient_report(folder, scans, SETTINGS, VIEWER, folder.report)
    page = Page(folder.report.read_text())
    for words in (
        "The registration of cxcr4 failed.", "1 of 1 found a counterpart", "No outline was carried to cxcr4 or from it",
        "Dice of 2 organs 0.31 (median; least 0.20, spleen)", "distance of their surfaces 14.0 mm",
        "overlap of the bodies 0.90", "folding 0.12 % of the voxels",
        "Registration: organ dice median 0.31 (good from 0.8, failed below 0.5).",
        "Organs have no part in the verdict: no organ labels of fdg1.", "carried × 0.93",
        "by organ and distance", "Outline: by a reader (reader) on fdg0, cxcr4, fdg1; carried from another scan",
    ):  # fmt: skip
        assert words in page.text, words
    pictures = [base64.b64decode(link.partition(",")[2]) for link in page.links if link.startswith("data:image/png")]
    assert [content for content in pictures if b" of " in content[:12]] == [b"\x89PNG of cxcr4", b"\x89PNG of fdg1"]


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
    write_patient_report(folder, scans, SETTINGS, VIEWER, folder.report)
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
    write_patient_report(folder, activity, SETTINGS, VIEWER, folder.report)
    page = Page(folder.report.read_text())
    assert "No PET: the sheet lists no scan with a tracer measured in SUV." in page.text
    assert "Gy/GBq ± sd" in page.text
    assert "No assessment of response: no PET." in page.text


def test_activity_by_planar_views_alone(tmp_path):
    """No volume is asked of them, and a dose map of an earlier run, when there was a SPECT, is not shown."""
    folder, listed = write_patient(tmp_path)
    scans = [replace(scan, planar=scan.quantity == "activity") for scan in listed]
    for scan in scans:
        if scan.planar:
            remark = ["the two views were begun 900 s one after the other"]
            sidecar = read_sidecar(folder.emission(replace(scan, planar=False)))
            sidecar |= {"quantity": "planar count rate", "unit": "1/s", "flags": remark, "overrides": ["injected_mbq"]}
            write_image(sitk.Image(8, 20, 2, sitk.sitkFloat32), folder.emission(scan), sidecar)
            folder.emission_check(scan.scan).unlink()
    write_patient_report(folder, scans, SETTINGS, VIEWER, folder.report)
    page = Page(folder.report.read_text())
    assert "planar count rate" in page.text and "Gy/GBq ± sd" in page.text
    assert "lu1, lu2, lu3: the two views were begun 900 s one after the other" in page.text
    assert "lu1, lu2, lu3: Taken from scans.tsv in place of the DICOM header: injected_mbq." in page.text
    assert "No dose map and no dose-volume histograms: all scans of activity are planar" in page.text
    assert "Dose-volume histograms" not in page.text


def test_planar_views_beside_a_spect(tmp_path):
    folder, listed = write_patient(tmp_path)
    scans = [replace(scan, planar=scan.scan == "lu1") for scan in listed]
    sidecar = read_sidecar(folder.emission(listed[2])) | {"quantity": "planar count rate", "unit": "1/s"}
    write_image(sitk.Image(8, 20, 2, sitk.sitkFloat32), folder.emission(scans[2]), sidecar)
    write_patient_report(folder, scans, SETTINGS, VIEWER, folder.report)
    assert "Dose-volume histograms" in Page(folder.report.read_text()).text


def test_candidates_that_do_not_count_are_listed_with_the_reason(tmp_path):
    folder, scans = write_bare_patient(tmp_path)
    candidates = pd.DataFrame(
        {"scan": "only", "candidate": ["C01"], "site": [None], "volume_ml": [4.2], "suv_max": [9.7],
         "kept": [False], "reason": ["physiologic uptake of brain"], "in_reader_annotation": [None], "lesion": [None]}
    )  # fmt: skip
    write_table(candidates, folder.table("candidates"), list(candidates.columns))
    write_patient_report(folder, scans, SETTINGS, VIEWER, folder.report)
    assert "physiologic uptake of brain" in Page(folder.report.read_text()).text
    write_table(candidates.assign(lesion="L01"), folder.table("candidates"), list(candidates.columns))
    write_patient_report(folder, scans, SETTINGS, VIEWER, folder.report)
    assert "physiologic uptake of brain" not in Page(folder.report.read_text()).text


def test_names_from_outside_are_escaped(tmp_path):
    folder, scans = write_bare_patient(tmp_path)
    change_sidecar(sidecar_path(folder.emission(scans[0])), flags=["<img src=x onerror=alert(1)>"])
    write_patient_report(folder, [replace(scans[0])], SETTINGS, VIEWER, folder.report)
    assert "<img src=x" not in folder.report.read_text()


def test_the_plan_is_told_where_there_is_one(tmp_path):
    folder, scans = write_patient(tmp_path)
    cycles = [{"patient": folder.patient, "cycle": 1, "nuclide": "90Y", "activity_gbq": 0.5}]
    settings = default_settings("dosimetry") | {"limits": {"kidneys": {"dose_gy": 23}}, "tumour_dose_gy": 20}
    none = pd.DataFrame(columns=list(ADMINISTRATION_COLUMNS))
    write_table(none, folder.table("administrations"), ADMINISTRATION_COLUMNS)
    write_table(read_table(folder.table("cycles")).assign(source="coefficient", timepoint="d"), folder.table("cycles"),
                CYCLE_COLUMNS)  # fmt: skip
    plan_therapy(folder, settings, "90Y", cycles)
    write_patient_report(folder, scans, SETTINGS, VIEWER, folder.report)
    page = Page(folder.report.read_text())
    assert "Limits and next cycle" in page.text
    assert read_json(folder.plan)["statement"] in page.text
    assert "Wanted dose reached" in page.text and "a physician's decision" in page.text


def test_a_scan_in_which_nobody_has_looked_is_named(tmp_path):
    folder, scans = write_bare_patient(tmp_path)
    write_patient_report(folder, scans, SETTINGS, VIEWER, folder.report)
    assert "Nobody has looked" not in Page(folder.report.read_text()).text
    change_sidecar(sidecar_path(folder.lesion_map("only")), unsearched="it has no annotation")
    write_patient_report(folder, scans, SETTINGS, VIEWER, folder.report)
    assert "Nobody has looked for new lesions in only: it has no annotation." in Page(folder.report.read_text()).text


def test_provenance_names_parameters_versions_and_the_hash_of_every_file(results):
    page = Page((results / "P001" / "report.html").read_text())
    provenance = page.text.partition("Parameters and inputs")[2]
    for name in (
        "lesions/lesions.tsv",
        "scans/cxcr4/pet.nii.gz",
        "registration/fdg0.to_scan.h5",
        "dosimetry/doses.tsv",
    ):
        digest = hashlib.sha256((results / "P001" / name).read_bytes()).hexdigest()
        assert f"{name} {digest}" in provenance, name
    assert "tracers.pentixather.therapy_nuclide 90Y" in provenance
    assert "NiiVue 0.0.0" in page.text and "Copyright (c) 2021, Niivue" in page.text


def test_files_of_a_scan_that_the_sheet_no_longer_lists_are_not_told_of(tmp_path):
    folder, scans = write_bare_patient(tmp_path)
    for name in ("only", "gone"):
        for path in folder.candidate_files(name):
            path.parent.mkdir(exist_ok=True)
            path.touch()
    write_patient_report(folder, scans, SETTINGS, VIEWER, folder.report)
    text = Page(folder.report.read_text()).text
    assert "lesions/candidates/only.tsv" in text and "lesions/candidates/only.nii.gz" in text
    assert "lesions/scans/only.nii.gz" in text and "gone" not in text


def test_the_worst_of_all_checks_stands_on_top(results):
    text = Page((results / "P001" / "report.html").read_text()).text.partition("Maximum-intensity projections")[0]
    for words in ("Header and SUV ! cxcr4: 1 remark", "Organs ✗ fdg0, cxcr4, fdg1: miniature model",
                  "Registration ✗ cxcr4: failed, CT to CT", "Dose limits – no plan"):  # fmt: skip
        assert words in text, words
