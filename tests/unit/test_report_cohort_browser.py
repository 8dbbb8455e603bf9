"""The cohort's page in a real browser, opened from the disk: it works, asks for nothing, and can be read."""

import pytest
from cohort_on_disk import METHODS, write_cohort
from patient_on_disk import write_bare_patient, write_patient

from in_browser import CONTRASTS, open_page
from theraflow.report import write_cohort_report

pytestmark = pytest.mark.browser
WIDTHS = (1280, 820)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    patients = dict([write_patient(results), write_bare_patient(results)])
    write_cohort(results, patients)
    missing = [("P003", "ct/1.dcm: Rows (0028,0010) is missing.")]
    write_cohort_report(results / "cohort", ["P001", "P002"], missing, results / "cohort" / "report.html")
    return results / "cohort"


@pytest.fixture(scope="module")
def opened(chromium, folder):
    page, asked, complaints = open_page(chromium, folder / "report.html", {"width": WIDTHS[0], "height": 900})
    page.wait_for_load_state("networkidle")
    return page, asked, complaints


@pytest.fixture
def page(opened):
    return opened[0]


def column(page, section, title):
    """The cells of a column as they stand now."""
    return page.evaluate(
        """([section, title]) => {
            const table = document.querySelector(`#${section} table`), heads = [...table.tHead.rows].at(-1).cells;
            const place = [...heads].findIndex((head) => head.textContent.trim() === title);
            return [...table.tBodies[0].rows].map((row) => row.cells[place].textContent.trim());
        }""",
        [section, title],
    )


def test_figures_are_drawn(page):
    sizes = page.evaluate("[...document.images].map((image) => [image.complete, image.naturalWidth, image.width])")
    assert len(sizes) >= 3
    assert all(complete and natural > 100 and shown > 100 for complete, natural, shown in sizes)


def test_tables_are_sorted_by_their_heads_also_from_the_keyboard(page):
    head = page.locator("#descriptions thead button", has_text="Median (range)")

    def medians():
        shown = column(page, "descriptions", "Median (range)")
        return [float(text.split(" (")[0].replace("−", "-")) for text in shown if text != "–"]

    rising = sorted(medians())
    assert len(set(rising)) > 3
    head.click()
    first = medians()
    head.focus()
    page.keyboard.press("Enter")
    assert sorted([first, medians()]) == [rising, rising[::-1]]


def test_the_table_of_patients_sorts_and_leads_to_them(page):
    page.locator("#patients thead button", has_text="Patient").first.click()
    names = column(page, "patients", "Patient")
    assert sorted(names) == ["P001", "P002"]
    link = page.locator("#patients a", has_text="P001")
    assert link.get_attribute("href") == "../P001/report.html"


def test_the_contents_lead_to_their_sections(page):
    for link in page.locator("nav.contents a").all():
        link.click()
        target = page.evaluate("document.querySelector(location.hash).getBoundingClientRect().top")
        assert target < 900


def test_the_methods_are_copied(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("button.copy").click()
    page.locator("#methods [role=status]", has_text="Copied.").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").strip() == METHODS.strip()


def test_where_the_clipboard_is_refused_the_methods_are_selected(page):
    page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject())")
    page.locator("button.copy").click()
    page.locator("#methods [role=status]", has_text="Selected").wait_for()
    assert "One PET." in page.evaluate("getSelection().toString()")


@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_as_wide_as_the_window_and_its_text_stands_out(page, width):
    page.set_viewport_size({"width": width, "height": 1180})
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    across, inside = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert across <= inside
    seen, faint = page.evaluate(CONTRASTS)
    assert seen > 200
    assert not faint


def test_no_error_and_nothing_from_the_network(opened):
    _, asked, complaints = opened
    assert not complaints
    assert all(address.startswith(("file:", "data:", "blob:")) for address in asked)
