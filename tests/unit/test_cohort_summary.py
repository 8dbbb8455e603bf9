"""The cohort's tables from patients' folders: full, bare, alone, and none."""

import numpy as np
import pandas as pd
import pytest
from patient_on_disk import LESIONS, SETTINGS, TRACERS, lesion_rows, scans, write_bare_patient, write_patient
from scipy import stats

from theraflow.cohort import comparisons, detection, exports, statistics, summarise_cohort, survival
from theraflow.cohort.joined import HEADERS
from theraflow.cohort.summary import first_cycles
from theraflow.dosimetry.contract import DOSE_COLUMNS
from theraflow.errors import TheraflowError
from theraflow.layout import PatientFolder
from theraflow.lesions import LESION_COLUMNS
from theraflow.response import RESPONSE_COLUMNS
from theraflow.tables import read_table, write_table
from theraflow.virtual.cohort import SUV_PEAK, cohort

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


def row_of(table, comparison, group, effect=None):
    """The one row of a comparison and group: that of the test, or of a named effect."""
    found = table[(table["comparison"] == comparison) & (table["group"] == group)]
    found = found[found["test"].notna()] if effect is None else found[found["effect_name"] == effect]
    assert len(found) == 1
    return found.iloc[0]


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


def test_before_and_after_therapy(full):
    table = read(full / "cohort", "statistics")
    row = row_of(table, "SUVpeak of FDG, followup (a) and baseline (b)", "lesions, pooled")
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
    pairs = read(tmp_path / "cohort", "statistics")
    assert row_of(pairs, "SUVpeak, FDG (a) and pentixafor (b), baseline", "lesions, pooled")["n"] == 56
    assert row_of(pairs, "SUVpeak, FDG (a) and pentixafor (b), baseline", "patients")["n"] == 8


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


def write_virtual_cohort(results):
    """The plan of the eight virtual patients as their `lesions.tsv`: uptake exact, no scan measured."""
    folders = []
    for patient in cohort():
        folder, rows = PatientFolder(results, patient.patient), []
        for plan in patient.scans:
            for lesion in patient.lesions:
                if plan.tracer == "pentixather" or not lesion.present(plan.timepoint):
                    continue
                row = dict.fromkeys(HEADERS["lesions"]) | {
                    "patient": patient.patient, "scan": plan.scan, "tracer": plan.tracer, "lesion": lesion.name,
                    "timepoint": plan.timepoint, "site": lesion.site,
                }  # fmt: skip
                planned = lesion.planned_peak(plan.tracer, plan.timepoint)
                suv = 0.8 if planned is None else planned
                rows.append(row | {"positive": planned is not None, "suv_peak": suv, "tbr": suv / 1.6})
        write_table(pd.DataFrame(rows), folder.table("lesions"), HEADERS["lesions"])
        folders.append(folder)
    sheet = pd.DataFrame(
        [(p.patient, p.pfs_days, p.pfs_days and 1, p.os_days, p.os_days and 1) for p in cohort()],
        columns=["patient", "pfs_days", "pfs_event", "os_days", "os_event"],
    )
    write_table(sheet, results / "patients.tsv", list(sheet.columns))
    cycles = [
        {"patient": patient.patient, "cycle": number, "date": str(date)}
        for patient in cohort()
        for number, (date, _) in enumerate(patient.cycles, 1)
    ]
    summarise_cohort(folders, results / "cohort", SETTINGS, results / "patients.tsv", cycles)
    return results / "cohort"


@pytest.fixture(scope="module")
def virtual(tmp_path_factory):
    return write_virtual_cohort(tmp_path_factory.mktemp("virtual"))


def planned_pairs():
    """Patient, FDG and pentixafor uptake of every lesion that takes up both, from the plan alone."""
    peaks = [(p.patient, lesion.peak) for p in cohort() for lesion in p.lesions if lesion.peak]
    both = [(patient, peak["FDG"], peak["pentixafor"]) for patient, peak in peaks if None not in peak.values()]
    return pd.DataFrame(both, columns=["patient", "a", "b"])


def test_virtual_cohort_between_tracers_is_what_scipy_says_of_its_truth(virtual):
    table, pairs = read(virtual, "statistics"), planned_pairs()
    name = "SUVpeak, FDG (a) and pentixafor (b), baseline"
    pooled, clustered, by_patient = (
        row_of(table, name, group) for group in ("lesions, pooled", "lesions, clustered by patient", "patients")
    )
    for side, tracer in (("a", "FDG"), ("b", "pentixafor")):
        # The plan was drawn so that range and median are those that the paper prints.
        low, median, high = SUV_PEAK[tracer]
        assert pooled[f"median_{side}"] == pytest.approx(median, abs=0.05)
        assert [float(end) for end in pooled[f"range_{side}"].split(" to ")] == pytest.approx([low, high])
        assert pooled[f"median_{side}"] == pytest.approx(np.median(pairs[side]))
    assert (pooled["n"], pooled["n_patients"]) == (56, 7)
    assert pooled["p_value"] == pytest.approx(stats.wilcoxon(pairs["a"], pairs["b"], method="asymptotic").pvalue)
    means = pairs.groupby("patient")[["a", "b"]].mean()
    flips = stats.permutation_test(
        ((means["a"] - means["b"]).to_numpy(),), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert by_patient["p_value"] == pytest.approx(flips.pvalue)
    assert by_patient["smallest_p_value"] == clustered["smallest_p_value"] == 2 / 128
    difference = pairs["a"] - pairs["b"]
    ranks = (np.sign(difference) * stats.rankdata(difference.abs())).groupby(pairs["patient"]).sum().to_numpy()
    flips = stats.permutation_test((ranks,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert clustered["p_value"] == pytest.approx(flips.pvalue)


def test_virtual_cohort_agreement_is_what_scipy_says_of_its_truth(virtual):
    table, pairs = read(virtual, "statistics"), planned_pairs()
    name = "SUVpeak, FDG (a) and pentixafor (b), baseline"
    a, b = pairs["a"].to_numpy(), pairs["b"].to_numpy()
    covariance = np.cov(a, b, ddof=0)
    expected = {
        "Spearman's rho": stats.spearmanr(a, b).statistic,
        "Lin's concordance correlation": 2 * covariance[0, 1] / (np.trace(covariance) + (a.mean() - b.mean()) ** 2),
        "Bland-Altman bias a - b": (a - b).mean(),
        "Bland-Altman lower limit of agreement": (a - b).mean() - 1.959964 * (a - b).std(ddof=1),
        "Bland-Altman upper limit of agreement": (a - b).mean() + 1.959964 * (a - b).std(ddof=1),
    }
    for effect, value in expected.items():
        row = row_of(table, name, "lesions, pooled", effect)
        assert row["effect"] == pytest.approx(value, rel=1e-6)
        assert row["ci_low"] < value < row["ci_high"]
        clustered = row_of(table, name, "lesions, clustered by patient", effect)
        assert clustered["bootstrap_low"] < clustered["effect"] < clustered["bootstrap_high"]


def test_virtual_cohort_before_and_after_therapy_with_four_patients(virtual):
    table = read(virtual, "statistics")
    name = "SUVpeak of FDG, followup (a) and baseline (b)"
    change = pd.DataFrame(
        [(p.patient, lesion.followup_peak - lesion.peak["FDG"]) for p in cohort() if p.pfs_days
         for lesion in p.lesions if lesion.peak and lesion.peak["FDG"]],
        columns=["patient", "change"],
    )  # fmt: skip
    pooled = row_of(table, name, "lesions, pooled")
    assert pooled["n"] == len(change)
    assert pooled["p_value"] == pytest.approx(stats.wilcoxon(change["change"]).pvalue)
    for group in ("lesions, clustered by patient", "patients"):
        row = row_of(table, name, group)
        assert row["smallest_p_value"] == 0.125
        assert "with 4 patients no p below 0.125 can be reached" in row["note"]
        assert np.isnan(row["ci_low"])


def test_virtual_cohort_concordance_and_survival(virtual):
    rates = read(virtual, "detection").set_index("tracer")
    assert rates["n_positive"].to_list() == [60, 57, 56, 4, 1]
    assert (rates["n_lesions"] == 61).all()
    # P005 takes up FDG alone: its two lesions are alike, so the interval is wider than Wilson's.
    assert (rates["design_effect"] > 1).any()
    for row in rates.itertuples():
        assert row.ci_low_clustered <= row.ci_low + 1e-12
        assert row.ci_high_clustered >= row.ci_high - 1e-12
    survival_table = read(virtual, "survival").set_index("endpoint")
    assert survival_table.loc["PFS from therapy", ["median_days", "n", "n_missing"]].to_list() == [104, 4, 4]
    assert survival_table.loc["OS from therapy", "times_days"] == "61 143 225 282"
    assert "P005: no pfs_days" in survival_table.loc["PFS from therapy", "missing"]


def test_holm_within_its_family(virtual):
    table = read(virtual, "statistics")
    for _, family in table[table["family"].notna()].groupby("family"):
        p = np.sort(family["p_value"])
        steps = [min(1, max(p[i] * (len(p) - i) for i in range(k + 1))) for k in range(len(p))]
        assert np.sort(family["p_holm"]) == pytest.approx(steps)
    assert table.loc[table["test"] == "Shapiro-Wilk", "family"].isna().all()


def test_order_of_lesions_changes_no_number(virtual):
    lesions = comparisons_lesions(virtual)
    order = np.random.default_rng(1).permutation(len(lesions))
    tables = []
    for own in (lesions, lesions.iloc[order]):
        found = comparisons.find_comparisons(
            own, ["FDG", "pentixafor"], {}, pd.DataFrame(columns=["patient", "marker"])
        )[:1]
        doses = pd.DataFrame(columns=["patient", "region", "kind", "nuclide", "dose_gy_per_gbq"])
        tables.append(statistics.compute_statistics(own, doses, ["FDG", "pentixafor"], found))
    for column in ("n", "median_a", "p_value", "effect", "ci_low", "ci_high", "p_holm", "bootstrap_low"):
        first, second = (table[column].to_numpy(float) for table in tables)
        assert first == pytest.approx(second, nan_ok=True, abs=1e-7)


def comparisons_lesions(folder):
    table = read(folder, "lesions")
    return table.assign(positive=table["positive"].astype(float), registration="good")


def test_dose_and_response_counts_cycles_before_the_scan_only(tmp_path):
    """L1 to L3: halved, unchanged and doubled with 30, 20 and 10 Gy before the follow-up; later cycles do not count."""
    rows, course = [], []
    for number, (after, dose) in enumerate(((2.0, 30.0), (4.0, 20.0), (8.0, 10.0)), 1):
        for scan, suv in ((scans("P1")[0], 4.0), (scans("P1")[-1], after)):
            rows.append(lesion_rows("P1", scan, LESIONS[:1], 1.0)[0] | {"lesion": f"L{number}", "suv_peak": suv})
        for cycle, date, part in ((1, "2019-01-01", 0.25), (2, "2019-02-01", 0.75), (3, "2019-03-04", 5.0)):
            course.append(["P1", cycle, date, f"L{number}", "lesion", dose * part])
    folder = PatientFolder(tmp_path, "P1")
    write_table(pd.DataFrame(rows), folder.table("lesions"), HEADERS["lesions"])
    columns = ["patient", "cycle", "date", "region", "kind", "dose_gy"]
    write_table(pd.DataFrame(course, columns=columns), folder.table("course"), columns)
    sidecar = folder.root / "scans" / "fdg1" / "pet.json"
    sidecar.parent.mkdir(parents=True)
    sidecar.write_text('{"acquired_at": "2019-03-04T10:15:00"}')
    summarise_cohort([folder], tmp_path / "cohort", SETTINGS)
    pairs = read(tmp_path / "cohort", "pairs").query("measure == 'dose and response'")
    assert pairs["a"].to_list() == [30, 20, 10]
    assert pairs["b"].to_list() == [-50, 0, 100]
    name = "absorbed dose until followup (a, Gy) and change of SUVpeak of FDG (b, %)"
    row = row_of(read(tmp_path / "cohort", "statistics"), name, "lesions, pooled")
    assert (row["effect"], row["p_value"]) == (-1, pytest.approx(2 / 6))
    # Without the day of the scan nobody knows which cycles came before it.
    sidecar.write_text('{"acquired_at": null}')
    summarise_cohort([folder], tmp_path / "cohort", SETTINGS)
    row = row_of(read(tmp_path / "cohort", "statistics"), name, "patients")
    assert row["n"] == 0
    assert "3 without value left out" in row["note"]


def test_each_tracer_counts_the_cycles_before_its_own_scan(tmp_path):
    """FDG was imaged before the second cycle, pentixafor of the same time point after it. The lesion is named 01."""
    folder = PatientFolder(tmp_path, "P1")
    rows = [
        lesion_rows("P1", scan, LESIONS[:1], 1.0)[0] | {"lesion": "01", "scan": name, "timepoint": timepoint}
        for scan in scans("P1")[:2]
        for name, timepoint in ((f"{scan.scan}_0", "baseline"), (f"{scan.scan}_1", "later"))
    ]
    write_table(pd.DataFrame(rows), folder.table("lesions"), HEADERS["lesions"])
    columns = ["patient", "cycle", "date", "region", "kind", "dose_gy"]
    course = [("P1", 1, "2020-01-01", "01", "lesion", 10.0), ("P1", 2, "2020-03-01", "01", "lesion", 7.0)]
    write_table(pd.DataFrame(course, columns=columns), folder.table("course"), columns)
    for name, day in (("fdg0_1", "2020-02-01"), ("cxcr4_1", "2020-04-01")):
        sidecar = folder.root / "scans" / name / "pet.json"
        sidecar.parent.mkdir(parents=True)
        sidecar.write_text(f'{{"acquired_at": "{day}T10:15:00"}}')
    summarise_cohort([folder], tmp_path / "cohort", SETTINGS)
    pairs = read(tmp_path / "cohort", "pairs").query("measure == 'dose and response'").set_index("side_b")["a"]
    assert pairs.to_dict() == {"change of SUVpeak of FDG, %": 10.0, "change of SUVpeak of pentixafor, %": 17.0}


def test_expression_and_uptake_by_patient(tmp_path):
    folders = [write_lesions(tmp_path, f"P{i}", [(5.0, 2.0 + i), (5.0, 3.0 + i)]) for i in range(1, 5)]
    expression = tmp_path / "expression.tsv"
    sheet = [("P1", "CXCR4", 55), ("P2", "CXCR4", 70), ("P2", "CXCR4", 5), ("P3", "CXCR4", 80), ("P9", "CXCR4", 1)]
    columns = ["patient", "marker", "positive_percent"]
    write_table(pd.DataFrame(sheet, columns=columns), expression, columns)
    summarise_cohort(folders, tmp_path / "cohort", SETTINGS, expression_table=expression)
    name = "cells positive for CXCR4 (a, %) and SUVpeak of pentixafor (b), baseline"
    row = row_of(read(tmp_path / "cohort", "statistics"), name, "patients")
    assert (row["n"], row["effect"], row["p_value"]) == (3, 1, pytest.approx(2 / 6))
    pairs = read(tmp_path / "cohort", "pairs").query("comparison == @name")
    assert pairs["a"].to_list() == [55, 70, 80]
    assert pairs["b"].to_list() == [3.5, 4.5, 5.5]


def test_one_patient_has_no_p_over_patients(tmp_path):
    folder = write_lesions(tmp_path, "P1", [(5.0 + i, 4.0 + i / 2) for i in range(8)])
    summarise_cohort([folder], tmp_path / "cohort", SETTINGS)
    table = read(tmp_path / "cohort", "statistics")
    for group in ("lesions, clustered by patient", "patients"):
        row = row_of(table, "SUVpeak, FDG (a) and pentixafor (b), baseline", group)
        assert (row["p_value"], row["smallest_p_value"]) == (1, 1)
        assert "with 1 patient no p below 1 can be reached" in row["note"]


def test_exports_are_explained_column_by_column(virtual):
    columns = read(virtual, "columns")
    for name, header in exports.EXPORTED.items():
        assert tuple(read(virtual, name).columns) == tuple(header)
        assert columns.loc[columns["table"] == name, "column"].to_list() == list(header)
    for row in columns.dropna(subset=["levels"]).itertuples():
        assert set(read(virtual, row.table)[row.column].unique()) <= set(row.levels.split("|"))
    pairs = read(virtual, "pairs")
    assert len(pairs[pairs["comparison"] == "SUVpeak, FDG (a) and pentixafor (b), baseline"]) == 56


def test_first_cycle_is_the_one_with_the_least_number():
    rows = [("P1", 2.0, "2019-05-01"), ("P1", 1.0, "2019-03-01"), ("P2", 1.0, None), ("P2", 2.0, "2019-03-01")]
    cycles = [dict(zip(("patient", "cycle", "date"), row, strict=True)) for row in rows]
    assert {patient: str(date) for patient, date in first_cycles(cycles).items()} == {"P1": "2019-03-01"}
    with pytest.raises(TheraflowError, match=r"first cycle of P3 is '1\.3\.2019'"):
        first_cycles([{"patient": "P3", "cycle": 1, "date": "1.3.2019"}])


def test_bare_patient_and_nobody(tmp_path):
    folder, _ = write_bare_patient(tmp_path)
    for folders in ([folder], []):
        summarise_cohort(folders, tmp_path / "cohort", SETTINGS)
        for name in HEADERS:
            assert read(tmp_path / "cohort", name).empty
        assert read(tmp_path / "cohort", "detection")["n_lesions"].to_list() == [0] * 5
        assert read(tmp_path / "cohort", "survival").empty


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
