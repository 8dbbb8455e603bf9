"""The page of the cohort: complete in one file, honest about who is missing, with links that lead somewhere."""

import base64
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pandas as pd
import pytest
from cohort_on_disk import write_cohort
from patient_on_disk import SETTINGS, write_bare_patient, write_patient

from theraflow.cohort import summarise_cohort
from theraflow.layout import PatientFolder
from theraflow.report import cohort, write_cohort_report
from theraflow.tables import read_table

pytestmark = pytest.mark.filterwarnings("error")
PATIENTS = ["P001", "P002"]
MISSING = [("P003", "ct/<1.dcm: Rows (0028,0010) is missing.")]
VOID = frozenset({"meta", "link", "img", "br"})


class Page(HTMLParser):
    """The page's links, names of places, tables as rows of cells by the section they are in, and its text."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.tables, self.words, self.open = [], [], {}, [], []
        self.section = self.cell = None
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.links += [given[name] for name in ("src", "href") if name in given]
        self.anchors += [given["id"]] if "id" in given else []
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = given.get("id")
        elif tag == "tr":
            self.tables.setdefault(self.section, []).append([])
        elif tag in ("td", "th"):
            self.tables[self.section][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] in ("style", "script"):
            return
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[self.section][-1][-1] += data


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    full, scans = write_patient(results)
    bare, bare_scans = write_bare_patient(results)
    write_cohort(results, {full: scans, bare: bare_scans})
    (results / "cohort" / "lesions.parquet").write_bytes(b"PAR1")
    write_cohort_report(results / "cohort", PATIENTS, MISSING, results / "cohort" / "report.html")
    return results


@pytest.fixture(scope="module")
def page(results):
    return Page(results / "cohort" / "report.html")


def share_figures(results, others):
    """Give another cohort the figures and methods of the first: what is not looked at need not be drawn."""
    for name in ("figures", "methods.txt"):
        (others / "cohort" / name).symlink_to(results / "cohort" / name)


def test_the_missing_are_named_with_their_reason(page):
    assert "One patient is missing from this report P003: ct/<1.dcm: Rows (0028,0010) is missing." in page.text
    assert "2 of 3 patients" in page.text
    assert "research use only" in page.text
    assert "Organs were segmented by theraflow's miniature model" in page.text


def test_the_page_names_nobody_and_needs_nothing(results, page):
    html = (results / "cohort" / "report.html").read_text(encoding="utf-8")
    for told in ("Mustermann", "/hospital", "2019", "http", "url("):
        assert told not in html, told
    assert all(link.startswith("data:image/svg+xml") for link in re.findall(r'src="([^"]*)"', html))


def test_every_link_leads_to_a_file_or_a_place(results, page):
    for patient in PATIENTS:
        for path in (PatientFolder(results, patient).report, PatientFolder(results, patient).document):
            path.touch()
    inside = {link[1:] for link in page.links if link.startswith("#")}
    assert inside == set(page.anchors) - {"methods-text"}
    files = [link for link in page.links if not link.startswith(("#", "data:"))]
    assert {f"../{patient}/{name}" for patient in PATIENTS for name in ("report.html", "report.pdf")} <= set(files)
    assert "lesions.parquet" in files and "doses.parquet" not in files
    for link in files:
        assert (results / "cohort" / unquote(link)).is_file(), link


def test_tables_are_given_in_full(results, page):
    html = (results / "cohort" / "report.html").read_text(encoding="utf-8")
    for name in ("lesions", "doses", "response", "statistics", "detection"):
        content = re.search(rf'download="{name}.tsv" href="data:[^,]*,([^"]*)"', html).group(1)
        assert base64.b64decode(content).decode() == (results / "cohort" / f"{name}.tsv").read_text(), name
    assert "No rows: no included patient has the data for this table." in page.text  # survival
    assert "“P (Holm)” is adjusted for the number of comparisons" in page.text
    assert "With 1 patient no test over patients can reach a P below 1." in page.text
    # SUVpeak and TBR, between tracers and over time; of the former also five measures of agreement.
    assert page.text.count("naive") == 4 + 2 * 5


def test_a_patient_is_summed_up_from_the_tables(results, page):
    lesions, doses = (read_table(results / "cohort" / f"{name}.tsv") for name in ("lesions", "doses"))
    rows = {row[0]: row for row in page.tables["patients"]}
    own = lesions[lesions["patient"] == "P001"]
    baseline = {tracer: at for tracer, at in own[own["timepoint"] == "baseline"].groupby("tracer")}
    wanted = ["P001", "PDF", str(own["lesion"].nunique())]
    for tracer in ("FDG", "pentixafor"):
        at = baseline[tracer]
        wanted += [f"{(at['positive'].astype(str) == 'True').sum()} of {len(at)}", f"{at['suv_peak'].max():.1f}"]
    yttrium = doses[(doses["kind"] == "lesion") & (doses["nuclide"] == "90Y")]["dose_gy_per_gbq"].max()
    assert rows["P001"] == [*wanted, "PMR", "SD", f"{yttrium:.1f}"]
    assert rows["P002"] == ["P002", "PDF", "0", *["–"] * 7]


def test_a_patient_with_much_to_tell(results, tmp_path):
    """A lesion that was not assessed, a repeated scan, two follow-ups, and nuclides that differ between patients."""
    folder, _ = write_patient(tmp_path)
    other, _ = write_patient(tmp_path, "P002")
    lesions = read_table(folder.table("lesions"))
    own = lesions["scan"] == "fdg0"
    lesions["positive"] = lesions["positive"].astype(object).where(~(own & (lesions["lesion"] == "L2")))
    again = lesions[own].assign(scan="fdg0b", suv_peak=99.0)
    pd.concat([lesions, again]).to_csv(folder.table("lesions"), sep="\t", index=False, na_rep="NA")
    response = read_table(folder.table("response"))
    later = response.assign(followup="fdg2", category=["PMD", None])
    pd.concat([response, later]).to_csv(folder.table("response"), sep="\t", index=False, na_rep="NA")
    doses = read_table(other.table("doses"))
    doses[doses["nuclide"] == "177Lu"].to_csv(other.table("doses"), sep="\t", index=False, na_rep="NA")
    summarise_cohort([folder, other], tmp_path / "cohort", SETTINGS)
    share_figures(results, tmp_path)
    write_cohort_report(tmp_path / "cohort", PATIENTS, [], tmp_path / "cohort" / "report.html")
    rows = {row[0]: row for row in Page(tmp_path / "cohort" / "report.html").tables["patients"]}
    heads = rows["Patient"]
    assert rows["P001"][heads.index("Positive")] == "3 of 3, 1 not assessed"
    assert rows["P001"][heads.index("SUV peak up to")] == "11.0"  # of the first scan
    assert rows["P001"][heads.index("PERCIST 1.0")] == "PMR (fdg1), PMD (fdg2)"
    assert rows["P001"][heads.index("RECIST 1.1")] == "SD"
    doses_of = {name: rows[name][-2:] for name in PATIENTS}  # the columns of both nuclides
    assert "–" not in doses_of["P001"][0] and doses_of["P001"][1] == "–"
    assert doses_of["P002"][0] == "–" and doses_of["P002"][1] != "–"


def test_figures_methods_and_what_could_not_be_drawn(results, page):
    assert "Imaging. One PET." in page.text
    drawn = read_table(results / "cohort" / "figures" / "figures.tsv").set_index("figure")["drawn"]
    assert sum(link.startswith("data:image/svg+xml") for link in page.links) == drawn.sum()
    assert drawn["paired_uptake"] and "Paired uptake" in page.text
    assert "dose response (no patient has doses of therapy cycles)" in page.text


def test_survival_is_in_whole_days(results, tmp_path):
    folder, _ = write_patient(tmp_path, dosimetry=False)
    sheet = tmp_path / "patients.tsv"
    sheet.write_text("patient\tpfs_days\tpfs_event\tos_days\tos_event\nP001\t65\t1\t143\t0\n")
    summarise_cohort([folder], tmp_path / "cohort", SETTINGS, sheet)
    share_figures(results, tmp_path)
    write_cohort_report(tmp_path / "cohort", ["P001"], [], tmp_path / "cohort" / "report.html")
    progression = next(row for row in Page(tmp_path / "cohort" / "report.html").tables["survival"] if "PFS" in row[0])
    assert progression[1:4] == ["1", "1", "65"]


def test_a_scan_whose_registration_failed_is_named(results, tmp_path):
    folder, _ = write_patient(tmp_path, dosimetry=False)
    lesions = read_table(folder.table("lesions"))
    lesions["registration"] = lesions["scan"].map({"fdg0": "good", "cxcr4": "failed", "fdg1": "good"})
    lesions.to_csv(folder.table("lesions"), sep="\t", index=False, na_rep="NA")
    summarise_cohort([folder], tmp_path / "cohort", SETTINGS)
    share_figures(results, tmp_path)
    write_cohort_report(tmp_path / "cohort", ["P001"], [], tmp_path / "cohort" / "report.html")
    assert "Registration has failed for P001 cxcr4" in Page(tmp_path / "cohort" / "report.html").text


def test_a_cohort_of_nobody(tmp_path):
    write_cohort(tmp_path, {})
    missing = [(f"P{number}", "no weight") for number in range(20)]
    write_cohort_report(tmp_path / "cohort", [], missing, tmp_path / "cohort" / "report.html")
    page = Page(tmp_path / "cohort" / "report.html")
    assert "20 patients are missing" in page.text and "P19: no weight" in page.text
    assert "No patient is included." in page.text


def test_a_large_cohort_stays_readable(results, tmp_path):
    """The first rows of a long table are on the page, and a file that is too large lies beside it only."""
    folder = tmp_path / "cohort"
    folder.mkdir()
    share_figures(results, tmp_path)
    for path in (results / "cohort").glob("*.tsv"):
        (folder / path.name).write_bytes(path.read_bytes())
    lesions = pd.read_csv(folder / "lesions.tsv", sep="\t", dtype=str, keep_default_na=False)
    patients = [f"V{number:03d}" for number in range(1000)]
    many = pd.concat([lesions.assign(patient=patient) for patient in patients])
    many.to_csv(folder / "lesions.tsv", sep="\t", index=False)
    assert (folder / "lesions.tsv").stat().st_size > cohort.MOST_BYTES
    write_cohort_report(folder, patients, [], folder / "report.html")
    page = Page(folder / "report.html")
    assert f"The first {cohort.MOST_ROWS} of {len(many)} rows; the file has all" in page.text
    assert len(page.tables["lesions"]) == 1 + cohort.MOST_ROWS
    assert len(page.tables["patients"]) == 2 + len(patients)
    assert "lesions.tsv" in page.links
    assert not any(link.startswith("data:text") and len(link) > cohort.MOST_BYTES for link in page.links)
    assert (folder / "report.html").stat().st_size < 5e6
