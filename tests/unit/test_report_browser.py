"""The patient's report in a real browser: it needs no network, draws, and brings a reader from a row to the lesion."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from patient_on_disk import LESIONS, SETTINGS, write_patient
from registration_on_disk import write_registration

from in_browser import CONTRASTS, PATIENCE_MS, open_page
from theraflow.registration import read_transform
from theraflow.report import write_patient_report

pytestmark = pytest.mark.browser
NIIVUE = Path(__file__).parents[2] / "resources/viewer/node_modules/@niivue/niivue/dist/niivue.umd.js"
DESK, TABLET = {"width": 1280, "height": 800}, {"width": 820, "height": 1180}
# The pentixafor scan lies elsewhere: turned a little and shifted.
MOVED = sitk.Euler3DTransform((0.0, 0.0, 80.0), 0.02, -0.03, 0.05, (12.0, -8.0, 20.0))


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """A patient whose follow-up could not be registered."""
    folder, scans = write_patient(tmp_path_factory.mktemp("results"))
    for scan in scans:
        changes = {"fdg1": {"verdict": "failed"}}.get(scan.scan, {})
        write_registration(folder, scan.scan, "fdg0", MOVED if scan.scan == "cxcr4" else None, **changes)
    if not NIIVUE.is_file():
        pytest.skip("NiiVue has not been fetched: `snakemake viewer` does")
    write_patient_report(folder, scans, SETTINGS, NIIVUE, folder.report)
    return folder


@pytest.fixture(scope="module")
def opened(chromium, patient):
    """The page, the addresses that it asked for, and what the browser complained about."""
    page, asked, complaints = open_page(chromium, patient.report, DESK)
    page.wait_for_selector("#viewer[data-ready]")
    return page, asked, complaints


@pytest.fixture
def page(opened):
    return opened[0]


def crosses(page):
    """RAS mm of the cross of each pane."""
    return page.evaluate("theraflowViewer.panes.map((pane) => pane.point())")


def ras(point):
    return [-point[0], -point[1], point[2]]


def shown_pixels(page, pane=0):
    """Brightness of the pixels of a canvas, drawn anew: the browser forgets them after showing."""
    encoded = page.evaluate(
        """(index) => {
          const { nv } = theraflowViewer.panes[index], { gl } = nv;
          nv.drawScene();
          const bytes = new Uint8Array(4 * gl.drawingBufferWidth * gl.drawingBufferHeight);
          gl.readPixels(0, 0, gl.drawingBufferWidth, gl.drawingBufferHeight, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
          let text = "";
          for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
          return btoa(text);
        }""",
        pane,
    )
    return np.frombuffer(base64.b64decode(encoded), np.uint8).reshape(-1, 4)[:, :3].sum(axis=1, dtype=int)


def set_control(page, name, value):
    page.evaluate(
        """([name, value]) => {
          const control = document.getElementById(`viewer-${name}`);
          if (control.type === "checkbox") control.checked = value; else control.value = value;
          control.dispatchEvent(new Event("input", { bubbles: true }));
          control.dispatchEvent(new Event("change", { bubbles: true }));
        }""",
        [name, value],
    )


def test_nothing_is_asked_of_the_network_and_nothing_complains(opened):
    _, asked, complaints = opened
    assert complaints == []
    assert asked and all(url.startswith(("file:", "data:", "blob:")) for url in asked)


def test_both_panes_draw_the_patient_and_the_outlines(page):
    for pane in (0, 1):
        pixels = shown_pixels(page, pane)
        assert 0.05 < (pixels > 30).mean() < 0.95
        assert len(np.unique(pixels)) > 50  # more than one colour on black: an image
    page.evaluate("theraflowViewer.choose('L2')")
    outlined = shown_pixels(page)
    set_control(page, "outlines", False)
    without = shown_pixels(page)
    set_control(page, "outlines", True)
    assert 20 < (outlined != without).sum() < len(outlined) / 5
    assert (shown_pixels(page) == outlined).all()


def test_windows_and_modes_change_what_is_drawn(page):
    page.evaluate("theraflowViewer.choose('L2')")
    usual = shown_pixels(page).sum()
    for name, value, back in (("suv", "2", "10"), ("opacity", "0", "80"), ("mix", "ct", "fused"), ("ct", "-1000 200",
                              "-160 240"), ("planes", "0", "3")):  # fmt: skip
        set_control(page, name, value)
        assert abs(shown_pixels(page).sum() - usual) > 0.001 * usual, name
        set_control(page, name, back)
        assert shown_pixels(page).sum() == usual, name


@pytest.mark.parametrize("lesion", LESIONS, ids=lambda lesion: lesion.name)
def test_a_row_brings_both_sides_to_the_lesion(page, lesion):
    """`lesions.tsv` says LPS mm of the scan itself, which for the reference scan is what is shown."""
    page.locator(f"tr[data-lesion={lesion.name}]").first.click()
    for cross in crosses(page):
        assert cross == pytest.approx(ras(lesion.centre), abs=2.0)  # of reduced voxels of 8 to 10 mm
    assert page.locator(f"tr[data-lesion={lesion.name}][aria-current]").count() == 2  # baseline and follow-up
    reading = page.locator("#viewer .reading").first.inner_text()
    assert reading.endswith(f"{lesion.name}, SUVpeak {lesion.suv['FDG']:.1f}")
    assert page.locator("#viewer canvas").first.bounding_box()["y"] < DESK["height"]


def test_a_scan_elsewhere_is_shown_on_the_reference_scan(page, patient):
    """A point of the reference, carried by the file of the registration, has the PET value that is shown there."""
    told = json.loads(page.locator("#viewer-data").text_content())
    scan = next(scan for scan in told["scans"] if scan["scan"] == "cxcr4")
    assert scan["remark"] == "Shown as registered to fdg0."
    to_scan = read_transform(patient.to_scan("cxcr4"))
    for lesion in scan["lesions"]:
        centre = next(known.centre for known in LESIONS if known.name == lesion["name"])
        assert to_scan.TransformPoint(ras(lesion["point"])) == pytest.approx(centre, abs=0.01)
    pet = sitk.ReadImage(str(patient.root / "scans/cxcr4/pet.nii.gz"))
    page.evaluate("theraflowViewer.panes[1].goToLesion('L2')")
    value = page.evaluate("theraflowViewer.panes[1].value('pet')")
    own = pet.GetPixel(pet.TransformPhysicalPointToIndex(LESIONS[1].centre))
    assert value == pytest.approx(own, rel=0.25)  # 7 % of noise, interpolated between voxels of 10 mm
    assert value > 3 * page.evaluate(
        "(() => { const pane = theraflowViewer.panes[1]; pane.go(pane.point().map((mm) => mm + 45)); "
        "return pane.value('pet'); })()"
    )


def test_the_cross_of_one_side_moves_the_other_where_they_are_linked(page):
    page.evaluate("theraflowViewer.choose('L1')")
    page.locator("#viewer canvas").first.scroll_into_view_if_needed()  # whatever test came before
    canvas = page.locator("#viewer canvas").first.bounding_box()
    page.mouse.click(canvas["x"] + 0.15 * canvas["width"], canvas["y"] + 0.2 * canvas["height"])
    page.wait_for_function(
        "(left) => Math.hypot(...theraflowViewer.panes[0].point().map((mm, axis) => mm - left[axis])) > 5",
        arg=ras(LESIONS[0].centre),
    )
    here, there = crosses(page)
    assert here == pytest.approx(there, abs=0.1)


def test_a_lesion_that_one_side_has_not_measured_brings_both_to_the_other_ones_place(page):
    page.evaluate("theraflowViewer.choose('L1')")
    wanted = page.evaluate(
        """() => {
          const [{ scan }, other] = theraflowViewer.panes, all = scan.lesions;
          scan.lesions = all.filter((lesion) => lesion.name !== "L2");
          theraflowViewer.choose("L2");
          scan.lesions = all;
          return other.scan.lesions.find((lesion) => lesion.name === "L2").point;
        }"""
    )
    for cross in crosses(page):
        assert cross == pytest.approx(wanted, abs=0.1)


def test_a_scan_that_is_not_registered_goes_to_its_own_place_and_says_so(page):
    select = page.locator("#viewer .pane select").nth(1)
    select.select_option(label="FDG, followup (fdg1)")
    remark = page.locator("#viewer .remark").nth(1)
    page.wait_for_selector("#viewer .pane[data-shown=fdg1]")
    assert "fdg1 is not linked: its registration failed." in remark.inner_text()
    page.evaluate("theraflowViewer.choose('L3')")
    before = crosses(page)[1]
    assert before == pytest.approx(ras(LESIONS[2].centre), abs=2.0)
    page.evaluate("theraflowViewer.panes[0].go([0, 0, 0]); theraflowViewer.panes[0].nv.createOnLocationChange()")
    assert crosses(page)[1] == pytest.approx(before, abs=0.1)
    select.select_option(label="pentixafor, baseline (cxcr4)")
    page.wait_for_selector("#viewer .pane[data-shown=cxcr4]")


def test_the_table_sorts_by_number_both_ways(page):
    table = page.locator("#lesions table.sortable").first
    titles = table.locator("thead tr").last.locator("th").all_inner_texts()
    column = [title.replace("\n", " ") for title in titles].index("SUV peak")
    button = table.locator("thead tr").last.locator("th").nth(column).locator("button")

    def values():
        return [float(text) for text in table.locator(f"tbody tr td:nth-child({column + 1})").all_inner_texts()]

    expected = sorted(lesion.suv["FDG"] for lesion in LESIONS)
    button.click()
    assert values() == expected  # 4.4, 5.0, 7.5, 11.0: as text 11.0 would be first
    assert table.locator("th[aria-sort=ascending]").count() == 1
    button.click()
    assert values() == expected[::-1]
    assert table.locator("th[aria-sort=descending]").count() == 1


def test_rows_are_chosen_by_words_and_by_columns(page):
    form = page.locator("#lesions form.choose").first
    rows = page.locator("#lesions table.sortable").first.locator("tbody tr:visible")
    form.locator("input").fill("liver")
    assert rows.count() == 1 and "L1" in rows.first.inner_text()
    assert form.locator("output").inner_text() == "1 of 4 shown"
    form.locator("input").fill("")
    form.get_by_label("Positive, pentixafor").select_option("no")
    assert [text.split()[0] for text in rows.all_inner_texts()] == ["L3"]
    form.get_by_label("Positive, pentixafor").select_option("")
    assert rows.count() == 4


def test_the_keyboard_reaches_a_row_and_shows_it(page):
    page.evaluate("theraflowViewer.choose('L1')")
    page.locator("#lesions table.sortable").first.locator("thead button").last.focus()
    page.keyboard.press("Tab")
    focused = page.evaluate("document.activeElement.dataset.lesion")
    assert focused and page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    centre = next(lesion.centre for lesion in LESIONS if lesion.name == focused)
    assert crosses(page)[0] == pytest.approx(ras(centre), abs=2.0)


def test_the_projections_turn_by_the_keyboard(page):
    page.locator("#turn").focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    assert page.locator("#turn-shown").inner_text() == "from the left"
    box, strip = (page.locator(one).first.bounding_box() for one in (".turn", ".turn img"))
    assert strip["width"] == pytest.approx(24 * box["width"], rel=0.02)
    assert box["x"] - strip["x"] == pytest.approx(6 * box["width"], rel=0.02)


@pytest.mark.parametrize("size", [DESK, TABLET], ids=["desk", "tablet"])
def test_every_text_has_contrast_and_nothing_stands_out_of_the_page(page, size):
    page.set_viewport_size(size)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    number, poor = page.evaluate(CONTRASTS)
    assert number > 500
    assert poor == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    page.set_viewport_size(DESK)


def test_without_webgl_the_page_says_so_and_keeps_the_pictures(chromium, patient):
    context = chromium.new_context(viewport=TABLET)
    context.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(patient.report.as_uri())
    page.wait_for_timeout(500)
    assert page.locator("#viewer-absent").is_visible() and not page.locator("#viewer").is_visible()
    assert re.search("WebGL 2, which this browser does not offer", page.locator("#viewer-absent").inner_text())
    assert page.locator(".turn img").count() == 3
    assert complaints == []
    context.close()
