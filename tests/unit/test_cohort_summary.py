"""The cohort's tables and figures from patients' folders: full, bare, alone, and none."""

import numpy as np
import pandas as pd
import pytest
from patient_on_disk import LESIONS, SETTINGS, TRACERS, lesion_rows, scans, write_bare_patient, write_patient

from theraflow.cohort import detection, statistics, summarise_cohort, survival
from theraflow.cohort.summary import HEADERS
from theraflow.dosimetry import DOSE_COLUMNS
from theraflow.errors import TheraflowError
from theraflow.layout import PatientFolder
from theraflow.lesions import LESION_COLUMNS
from theraflow.response import RESPONSE_COLUMNS
from theraflow.tables import read_table, write_table

pytestmark = pytest.mark.filterwarnings("error")


def write_lesions(results, patient, uptake, timepoint="baseline"):
    """Lesions given by (FDG, pentixafor) uptake; None is negative. Positive lesions only carry the number."""
    rows = []
    for number, pair in enumerate(uptake, 1):
        for scan, suv in zip(scans(patient)[:2], pair, strict=True):
            row = lesion_rows(patient, scan, LESIONS[:1], 1.0)[0]
            row |= {
                "lesion": f"L{number}",
                "timepoint": timepoint,
                "suv_peak": suv or 0.4,
                "tbr": (suv or 0.4) / 2,
            }
            rows.append(row | {"positive": suv is not None})
    folder = PatientFolder(results, patient)
    write_table(pd.DataFrame(rows), folder.table("lesions"), HEADERS["lesions"])
    return folder


def read(folder, name):
    return read_table(folder / f"{name}.tsv")


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    folders = [write_patient(results)[0], write_bare_patient(results)[0]]
    patients = results / "patients.tsv"
    table = pd.DataFrame(
        {
            "patient": ["P001", "P002", "P999"], "pfs_days": [65, 28, 900], "pfs_event": [1, 0, 1],
            "os_days": [143, 61, 900], "os_event": [1, 1, 1],
        }
    )  # fmt: skip
    write_table(table, patients, list(table.columns))
    summarise_cohort(folders, results / "cohort", SETTINGS, patients)
    return results


def test_tables_are_the_patients_tables_cell_by_cell(full):
    whole = (full / "cohort" / "lesions.tsv").read_text()
    one = (full / "P001" / "lesions" / "lesions.tsv").read_text()
    assert whole == one  # P002 has no lesion
    doses = (full / "cohort" / "doses.tsv").read_text()
    assert doses == (full / "P001" / "dosimetry" / "doses.tsv").read_text()


def test_headers_are_those_of_the_stages():
    for name, columns in (
        ("lesions", LESION_COLUMNS),
        ("doses", DOSE_COLUMNS),
        ("response", RESPONSE_COLUMNS),
    ):
        assert tuple(HEADERS[name]) == columns[: len(HEADERS[name])]


def test_all_tables_have_their_columns(full):
    for name, columns in (
        ("statistics", statistics.COLUMNS), ("detection", detection.COLUMNS), ("survival", survival.COLUMNS),
        ("response", HEADERS["response"]),
    ):  # fmt: skip
        assert tuple(read(full / "cohort", name).columns) == tuple(columns), name
    contract = "comparison group n median_a range_a median_b range_b test statistic p_value effect ci_low ci_high"
    assert " ".join(statistics.COLUMNS).startswith(contract)


def test_figures_are_there_for_what_there_are_data(full):
    names = {path.name for path in (full / "cohort" / "figures").iterdir()}
    stems = {"paired_uptake", "change_FDG_followup", "dose_coefficients", "survival"}
    assert names == {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "svg")}
    assert (full / "cohort" / "figures" / "survival.png").read_bytes()[:4] == b"\x89PNG"


def test_before_and_after_therapy(full):
    table = read(full / "cohort", "statistics").set_index(["comparison", "group"])
    row = table.loc[("SUVpeak of FDG, followup (a) and baseline (b)", "lesions, pooled")]
    assert row["n"] == 4
    # Every lesion fell to 0.6; all four differences negative: two-sided exact p = 2 / 16.
    assert row["p_value"] == pytest.approx(0.125)
    assert row["median_a"] == pytest.approx(0.6 * row["median_b"])
    assert row["effect"] < 0


def test_survival_counts_the_cohort_only(full):
    table = read(full / "cohort", "survival").set_index("endpoint")
    assert table.loc["PFS from therapy", "n"] == 2
    assert table.loc["PFS from therapy", "times_days"] == "28+ 65"
    assert table.loc["OS from therapy", "median_days"] == (61 + 143) / 2


def test_detection_of_the_papers_counts(tmp_path):
    # 61 lesions, 56 on both, 4 FDG only, 1 pentixafor only: 60 of 61 (98.4 %) and 57 of 61 (93.4 %).
    uptake = [(5.0 + i / 10, 4.0) for i in range(56)] + [(3.0, None)] * 4 + [(None, 3.0)]
    folders = [write_lesions(tmp_path, f"P{i}", uptake[i::8]) for i in range(8)]
    summarise_cohort(folders, tmp_path / "cohort", SETTINGS)
    table = read(tmp_path / "cohort", "detection").set_index("tracer")
    assert table["n_positive"].to_list() == [60, 57, 56, 4, 1]
    assert (table["n_lesions"] == 61).all()
    assert (table["n_patients"] == 8).all()
    assert (100 * table.loc[["FDG", "pentixafor"], "rate"]).round(1).to_list() == [98.4, 93.4]
    # Wilson by its own formula.
    p, n, z = 60 / 61, 61, 1.959963984540054
    centre, half = (p + z**2 / 2 / n), z * np.sqrt(p * (1 - p) / n + z**2 / 4 / n**2)
    limits = table.loc["FDG", ["ci_low", "ci_high"]].to_numpy(float)
    assert limits == pytest.approx([(centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)])
    pairs = read(tmp_path / "cohort", "statistics").set_index(["comparison", "group"])
    assert pairs.loc[("SUVpeak, FDG (a) and pentixafor (b), baseline", "lesions, pooled"), "n"] == 56
    assert pairs.loc[("SUVpeak, FDG (a) and pentixafor (b), baseline", "patients"), "n"] == 8


def test_new_lesions_do_not_count_at_baseline(tmp_path):
    folder = write_lesions(tmp_path, "P1", [(5.0, 4.0), (None, None)])
    summarise_cohort([folder], tmp_path / "cohort", SETTINGS)
    assert read(tmp_path / "cohort", "detection")["n_lesions"].to_list() == [1] * 5


def test_a_scan_whose_registration_has_failed_counts_in_no_detection_rate(tmp_path):
    """It shows two lesions and can deny none: counted, its rate would be 100 % whatever the tracer does."""
    folders = [write_lesions(tmp_path, "P1", [(5.0, 4.0), (6.0, 4.0)]), write_lesions(tmp_path, "P2", [(5.0, None)])]
    table = read_table(folders[0].table("lesions"))
    table = table.assign(registration=table["scan"].map({"fdg0": "good", "cxcr4": "failed"}))
    write_table(table, folders[0].table("lesions"), list(table.columns))
    summarise_cohort(folders, tmp_path / "cohort", SETTINGS)
    rates = read(tmp_path / "cohort", "detection").set_index("tracer")
    assert rates.loc["FDG", ["n_positive", "n_lesions"]].to_list() == [3, 3]
    assert rates.loc["pentixafor", ["n_positive", "n_lesions"]].to_list() == [0, 1]
    assert rates.loc["FDG and pentixafor (concordant)", ["n_positive", "n_lesions"]].to_list() == [0, 1]


def test_one_tracer(tmp_path):
    folder = write_lesions(tmp_path, "P1", [(5.0, 4.0), (6.0, 4.0), (7.5, 4.0)])
    summarise_cohort([folder], tmp_path / "cohort", {"tracers": {"FDG": TRACERS["FDG"]}})
    table = read(tmp_path / "cohort", "statistics")
    assert table["comparison"].to_list() == ["SUVpeak of FDG, baseline", "TBR of FDG, baseline"]
    assert table["median_a"].to_list() == [6.0, 3.0]
    assert read(tmp_path / "cohort", "detection")["tracer"].to_list() == ["FDG"]


def test_equal_uptake_on_both(tmp_path):
    folder = write_lesions(tmp_path, "P1", [(5.0, 5.0)] * 7)
    summarise_cohort([folder], tmp_path / "cohort", SETTINGS)
    row = read(tmp_path / "cohort", "statistics").query("group == 'lesions, pooled'").iloc[0]
    assert np.isnan(row["p_value"])
    assert "all pairs are equal" in row["note"]
    assert (row["effect"], row["ci_low"], row["ci_high"]) == (0, 0, 0)


def test_bare_patient_and_nobody(tmp_path):
    folder, _ = write_bare_patient(tmp_path)
    for folders in ([folder], []):
        summarise_cohort(folders, tmp_path / "cohort", SETTINGS)
        for name in HEADERS:
            assert read(tmp_path / "cohort", name).empty
        assert read(tmp_path / "cohort", "detection")["n_lesions"].to_list() == [0] * 5
        assert read(tmp_path / "cohort", "survival").empty
        assert not list((tmp_path / "cohort").glob("figures/*"))


def test_figures_of_an_earlier_run_go(tmp_path):
    old = tmp_path / "cohort" / "figures" / "survival.png"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"")
    summarise_cohort([], tmp_path / "cohort", SETTINGS)
    assert not old.exists()


def test_repeated_scan_is_told(tmp_path, caplog):
    folder = write_lesions(tmp_path, "P1", [(5.0, 4.0)])
    table = read_table(folder.table("lesions"))
    again = table[table["tracer"] == "FDG"].assign(scan="late", suv_peak=9.0)
    write_table(pd.concat([table, again]), folder.table("lesions"), HEADERS["lesions"])
    summarise_cohort([folder], tmp_path / "cohort", SETTINGS)
    assert "P1: late repeats a tracer and time point" in caplog.text
    assert read(tmp_path / "cohort", "statistics")["median_a"].iloc[0] == 5.0


@pytest.mark.parametrize(("column", "value", "words"), [("positive", "maybe", "positive holds maybe")])
def test_wrong_cells_are_refused(tmp_path, column, value, words):
    folder = write_lesions(tmp_path, "P1", [(5.0, 4.0)])
    table = read_table(folder.table("lesions")).assign(**{column: value})
    write_table(table, folder.table("lesions"), HEADERS["lesions"])
    with pytest.raises(TheraflowError, match=words):
        summarise_cohort([folder], tmp_path / "cohort", SETTINGS)


def test_table_without_a_column_is_refused(tmp_path):
    folder = PatientFolder(tmp_path, "P1")
    write_table(pd.DataFrame({"patient": ["P1"]}), folder.table("doses"), ["patient"])
    with pytest.raises(TheraflowError, match=r"doses\.tsv lacks the columns region"):
        summarise_cohort([folder], tmp_path / "cohort", SETTINGS)
