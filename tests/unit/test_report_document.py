"""The report on paper: numbers of the tables, nobody's name, the same bytes, and nothing cut off."""

import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from patient_on_disk import SETTINGS, change_sidecar, grid, inside, write_bare_patient, write_patient

from theraflow.files import read_json, write_json
from theraflow.images import from_array, read_sidecar, sidecar_path, write_image
from theraflow.layout import PatientFolder
from theraflow.report import paper, write_patient_document
from theraflow.report.display import Columns, fixed, text
from theraflow.report.document import MINIATURE, RESEARCH
from theraflow.report.dosimetry import cycle_table
from theraflow.tables import read_table

pytestmark = pytest.mark.filterwarnings("error")
TEMPLATES = Path(paper.__file__).parent / "templates"
MM = 72 / 25.4
SHORTER_MM = 297 - 279.4  # A4 than Letter


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A patient with all there can be, and one with one PET."""
    results = tmp_path_factory.mktemp("results")
    for folder, scans in (write_patient(results), write_bare_patient(results)):
        write_patient_document(folder, scans, SETTINGS, folder.document)
    return results


@pytest.fixture(scope="session")
def extract(debian_program):
    """What pdftotext says of a file in one of its ways."""
    program = debian_program("pdftotext")
    return lambda way, path: (
        subprocess.run([program, way, path, "-"], capture_output=True, check=True, text=True).stdout
    )


@pytest.fixture(scope="session")
def read_pages(extract):
    """The text of every page as it lies on paper."""
    return lambda path: extract("-layout", path).removesuffix("\f").split("\f")


@pytest.fixture(scope="session")
def read_words(extract):
    """Every word with its box in points from the upper left corner of its page."""

    def read(path):
        words = ElementTree.fromstring(extract("-bbox", path)).iter("{http://www.w3.org/1999/xhtml}word")
        return pd.DataFrame([{**{side: float(value) for side, value in word.items()}, "word": word.text}
                             for word in words])  # fmt: skip

    return read


def flat(pages):
    return " ".join(" ".join(pages).split())


def with_sd(value, sd):
    """Both to the last digit of the value: whole from 100, one decimal from 1, two significant digits below."""
    decimals = 0 if value >= 100 else 1 if value >= 1 else 2
    assert value >= 0.1
    return f"{value:.{decimals}f} ± {sd:.{decimals}f}"


def test_every_page_says_what_it_is_and_which(results, read_pages):
    pages = read_pages(results / "P001" / "report.pdf")
    assert 2 <= len(pages) <= 5
    for number, page in enumerate(pages, 1):
        assert f"Page {number} of {len(pages)}" in page
        assert "Patient P001" in page and "theraflow" in page
        assert RESEARCH in flat([page])


def test_sentences_are_those_of_the_page(results, read_pages):
    assert RESEARCH in re.sub("<[^>]*>", "", (TEMPLATES / "page.html").read_text())
    assert MINIATURE in (TEMPLATES / "patient.html").read_text()
    assert MINIATURE in flat(read_pages(results / "P001" / "report.pdf"))
    assert "miniature" not in flat(read_pages(results / "P002" / "report.pdf"))


def test_numbers_are_those_of_the_tables(results, read_pages):
    folder = PatientFolder(results, "P001")
    pages = read_pages(folder.document)
    lesions = read_table(folder.table("lesions"))
    section = "\n".join(pages).partition("Lesions\n")[2]
    baseline, _, rest = section.partition("Followup")
    for name, own in lesions.groupby("lesion"):
        at = own.set_index("scan")
        numbers = re.findall(r"\d+\.\d", re.search(rf"(?m)^\s*{name}\s.*$", baseline).group())
        wanted = [at.loc[scan, column] for scan in ("fdg0", "cxcr4") for column in ("suv_peak", "tbr", "volume_ml")]
        assert numbers == [f"{value:.1f}" for value in wanted], name
        change = 100 * (at.loc["fdg1", "suv_peak"] / at.loc["fdg0", "suv_peak"] - 1)
        assert f"−{abs(change):.0f}" in re.search(rf"(?m)^\s*{name}\s.*$", rest).group()
    dosimetry = rest.partition("Therapy cycles")[2].partition("Absorbed dose")
    cycles = read_table(folder.table("cycles")).set_index("region")
    doses = read_table(folder.table("doses")).set_index(["region", "nuclide"])
    for region, name in (("kidney_left", "kidney left"), ("L2", "L2")):
        assert with_sd(*cycles.loc[region, ["dose_gy", "sd_gy"]]) in flat([dosimetry[0]]), region
        line = re.search(rf"(?m)^\s*{name}\s.*$", dosimetry[2]).group()
        for nuclide in ("177Lu", "90Y"):
            assert with_sd(*doses.loc[(region, nuclide), ["dose_gy_per_gbq", "sd_gy_per_gbq"]]) in line, region
    response = flat(pages)
    assert "PMR" in response and "11.0 6.6 −40 0" in response


def test_lights_have_words_and_signs(results, read_pages):
    words = flat(read_pages(results / "P001" / "report.pdf"))
    assert "✓ present" in words and "✗ miniature model" in words and "! 1 remark" in words
    assert "cxcr4: Series time and acquisition time differ by 41 s." in words
    assert "weight_kg" in words


def test_what_is_missing_has_its_reason(results, read_pages):
    words = flat(read_pages(results / "P002" / "report.pdf"))
    for reason in (
        "No CT in the scan's DICOM folder", "No lesion: the reader marked none", "Not registered",
        "No dosimetry: the sheet lists no scan that measures activity", "no tracer was scanned at baseline and again",
    ):  # fmt: skip
        assert reason in words, reason


@pytest.mark.parametrize("patient", ["P001", "P002"])
def test_nobody_is_named_and_no_day(results, read_pages, patient):
    path = results / patient / "report.pdf"
    words, content = flat(read_pages(path)), path.read_bytes()
    for told in ("Mustermann", "hospital", "2019", "1.2.826"):
        assert told not in words
        assert told.encode() not in content
    # The only dates among the properties are of no patient: reportlab's for files that are made twice.
    assert set(re.findall(rb"D:(\d{8})", content)) == {b"20000101"}
    assert f"/Title (Patient {patient})".encode() in content


def test_the_same_results_give_the_same_bytes(results, tmp_path):
    folder, scans = write_bare_patient(tmp_path)
    write_patient_document(folder, scans, SETTINGS, folder.document)
    assert folder.document.read_bytes() == (results / "P002" / "report.pdf").read_bytes()


def test_nothing_lies_beyond_the_margins_of_a4_and_letter(results, read_words):
    words = read_words(results / "P001" / "report.pdf")
    assert len(words) > 400
    cut = SHORTER_MM / 2  # at either end, where A4 is printed on Letter unscaled
    assert words["xMin"].min() > 12 * MM and words["xMax"].max() < (210 - 12) * MM
    assert words["yMin"].min() > (cut + 4) * MM and words["yMax"].max() < (297 - cut - 4) * MM


def test_all_letters_are_embedded(results):
    content = (results / "P001" / "report.pdf").read_bytes()
    fonts = set(re.findall(rb"/BaseFont /(\S+)", content))
    assert fonts and all(b"+DejaVuSans" in font for font in fonts)
    assert content.count(b"/FontFile2") == len(fonts)


def test_signs_of_tags_are_letters(tmp_path, read_pages):
    folder, scans = write_bare_patient(tmp_path)
    change_sidecar(sidecar_path(folder.emission(scans[0])), flags=["Rows <b>12 & 13</b> differ, µ ² ⁶⁸ Δ."])
    write_patient_document(folder, scans, SETTINGS, folder.document)
    assert "Rows <b>12 & 13</b> differ, µ ² ⁶⁸ Δ." in flat(read_pages(folder.document))


def test_the_plan_and_the_warnings_are_told(tmp_path, read_pages):
    folder, scans = write_patient(tmp_path)
    plan = {"region": "kidney_left", "limit_quantity": "dose", "limit_gy": 23.0, "spent_gy": 11.25,
            "max_activity_gbq": 4.62, "max_activity_sd_gbq": 0.5, "max_activity_95_gbq": 3.81, "limiting": "yes",
            "dose_at_max_gy": 23.0, "dose_at_max_sd_gy": 2.0, "dose_at_95_gy": 21.0, "wanted_gy": None,
            "reached": None, "remark": None}  # fmt: skip
    folder.table("plan").write_text(pd.DataFrame([plan]).to_csv(sep="\t", index=False, na_rep="NA"))
    write_json({"statement": "At most 4.62 GBq of 90Y.", "assumptions": ["A physician decides."]}, folder.plan)
    write_json({"verdict": "failed", "method": "CT to CT", "reason": None, "limits": {}},
               folder.registration_quality("cxcr4"))  # fmt: skip
    lesions = read_table(folder.table("lesions"))
    lesions["registration"] = lesions["scan"].map({"cxcr4": "failed"})
    lesions["look"] = lesions["lesion"].map({"L3": "two lesions may be one"}).where(lesions["scan"] == "fdg0")
    lesions.to_csv(folder.table("lesions"), sep="\t", index=False, na_rep="NA")
    write_patient_document(folder, scans, SETTINGS, folder.document)
    words = flat(read_pages(folder.document))
    assert read_json(folder.plan)["statement"] in words and "A physician decides." in words
    assert re.search(r"kidney left dose 23\.0 11\.2 4\.6 ± 0\.5 3\.8 yes 23\.0 ± 2\.0 21\.0", words)
    assert "The registration of cxcr4 failed." in words and "✗ failed, CT to CT" in words
    assert "A person should look: L3 on fdg0: two lesions may be one." in words


def made_up(columns, rows, width=6, groups=()):
    """A table of numbers, names in the first column."""
    table = Columns()
    table.add("Name", [text(f"row {i}", "strong") for i in range(rows)])
    for column in range(columns):
        table.add(f"C{column:02d}", [fixed(10 ** (width - 2) + i) for i in range(rows)], numeric=True)
    return table.table(groups)


def test_a_long_table_repeats_its_head(tmp_path, read_pages):
    path = tmp_path / "long.pdf"
    paper.write_document(paper.table(made_up(4, 150)), paper.Frontispiece("Long", "test", "foot"), path)
    pages = read_pages(path)
    assert len(pages) > 2
    assert all("C00" in page and "C03" in page for page in pages)
    found = [int(number) for page in pages for number in re.findall(r"row (\d+)", page)]
    assert found == list(range(150))


@pytest.mark.parametrize("groups", [(), [("", 1), *((f"G{i}", 5) for i in range(8))]])
def test_a_wide_table_is_divided_and_nothing_is_lost(tmp_path, read_pages, read_words, groups):
    path = tmp_path / "wide.pdf"
    paper.write_document(paper.table(made_up(40, 2, groups=groups)), paper.Frontispiece("W", "test", "foot"), path)
    words = flat(read_pages(path))
    for column in range(40):
        assert words.count(f"C{column:02d}") == 1
    assert words.count("row 1") == words.count("Name") > 1
    assert words.count("10001.0") == 40
    assert read_words(path)["xMax"].max() < (210 - 12) * MM
    if groups:  # kept together
        parts = words.split("Name")[1:]
        assert all(len(re.findall(r"C\d\d", part)) % 5 == 0 for part in parts)


def test_columns_are_chosen_within_their_groups():
    table = made_up(6, 1, groups=[("", 1), ("A", 2), ("B", 2), ("B", 2)])
    chosen = paper.only(table, ("Name", "C01", "C02", "C03", "C05"))
    assert chosen.columns == ["Name", "C01", "C02", "C03", "C05"]
    assert chosen.groups == [("", 1), ("A", 1), ("B", 2), ("B", 1)]
    assert chosen.numeric == {1, 2, 3, 4}


def test_a_child_in_a_long_scanner_fits_a_page(tmp_path, read_pages):
    """Projections of 1.94 m by 0.3 m are, as wide as half a page, taller than one."""
    folder, scans = write_bare_patient(tmp_path)
    path = folder.emission(scans[0])
    image = grid((12, 12, 20), (34, 25, 97))
    child = inside(image, (0, 0, 80), (90, 60, 500)).astype(np.float32)
    write_image(from_array(child, image), path, read_sidecar(path))
    lesions = folder.lesion_map(scans[0].scan)
    write_image(from_array(np.zeros(child.shape, np.uint8), image), lesions, read_sidecar(lesions))
    write_patient_document(folder, scans, SETTINGS, folder.document)
    assert sum("(only)" in page for page in read_pages(folder.document)) == 1


def test_a_picture_keeps_its_shape():
    for shape in ((8.0, 3.0), (2.0, 9.0)):
        drawn = paper.picture(Figure(figsize=shape), paper.HALF_WIDTH)
        assert drawn.drawWidth / drawn.drawHeight == pytest.approx(shape[0] / shape[1])
        assert drawn.drawWidth <= paper.HALF_WIDTH and drawn.drawHeight <= paper.TALLEST


def test_a_course_of_many_cycles_fits(results, tmp_path, read_words):
    """Ten cycles side by side are wider than a page."""
    cycles = read_table(PatientFolder(results, "P001").table("cycles"))
    many = pd.concat([cycles.assign(cycle=number) for number in range(1, 11)])
    path = tmp_path / "course.pdf"
    paper.write_document(paper.table(cycle_table(many)), paper.Frontispiece("Course", "test", "foot"), path)
    words = read_words(path)
    assert words["xMax"].max() < (210 - 12) * MM
    assert {f"{number}:" for number in range(1, 11)} <= set(words["word"])
