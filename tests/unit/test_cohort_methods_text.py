"""The methods paragraph tells of what ran, with the numbers of the configuration, and of nothing else."""

import copy
import re

import numpy as np
import pandas as pd
import pytest
from patient_on_disk import TRACERS, scans, write_patient

from settings import default_settings
from theraflow.cohort import summarise_cohort
from theraflow.cohort.methods_text import TABLES, Run, describe_methods, write_methods
from theraflow.files import write_json

COLUMNS = {
    "lesions": [
        "patient",
        "lesion",
        "tracer",
        "source",
        "suv_peak",
        "tbr",
        "background_region",
        "positive",
        "positive_by",
    ],
    "doses": ["patient", "region", "kind", "nuclide", "n_timepoints", "model", "dose_gy_per_gbq", "method"],
    "response": ["patient", "criterion", "measure"],
    "statistics": ["comparison", "group", "n", "test", "p_value", "effect_name", "effect"],
    "detection": ["tracer", "n_lesions"],
    "survival": ["endpoint", "convention", "n"],
}
EMPTY = {name: pd.DataFrame(columns=columns) for name, columns in COLUMNS.items()}
CONFIG = {
    "tracers": TRACERS,
    "reference_tracer": "FDG",
    "lesions": default_settings("lesions"),
    "dosimetry": default_settings("dosimetry") | {"spect_fwhm_mm": 8.25},
}
FDG, CXCR4 = scans()[:2]


def table(name, *rows):
    return pd.DataFrame([dict(zip(COLUMNS[name], row, strict=True)) for row in rows])


def sidecar(**changes):
    return {"injected_mbq": 300.0, "time_after_injection_h": 1.0, "scanner": "Maker Model", "virtual_patient": False,
            "overrides": [], "suv": {"decay_correction": "START"}, "theraflow": "9.8.7", **changes}  # fmt: skip


def run(**changes):
    """One FDG PET of one patient and nothing else."""
    facts = {
        "patients": 1, "missing": 0, "config": CONFIG, "scans": [FDG],
        "emissions": {("P001", "fdg0"): sidecar()}, "organs": {},
        "registrations": {("P001", "fdg0"): {"method": "identity: the reference scan itself", "verdict": "good"}},
        "with_ct": frozenset(), "cycles": [], "tables": EMPTY,
    }  # fmt: skip
    return Run(**(facts | changes))


def words(run, head=None):
    parts = dict(describe_methods(run))
    return parts.get(head, "") if head else " ".join(parts.values())


def test_one_pet_alone_is_told_of_and_nothing_that_did_not_run():
    parts = dict(describe_methods(run()))
    assert list(parts) == ["Patients", "Imaging", "Software"]
    assert parts["Patients"] == "In total, 1 patient was evaluated."
    assert parts["Imaging"].startswith("With [¹⁸F]FDG, 1 PET scan of 1 patient was evaluated (1 at baseline). ")
    assert "the injected activity was 300 MBq and imaging began after 60 min" in parts["Imaging"]
    assert "Maker Model" in parts["Imaging"]
    everything = " ".join(parts.values())
    for absent in ("pentixafor", "SPECT", "virtual", "overruled", "TotalSegmentator", "Wilcoxon", "PERCIST"):
        assert absent not in everything, absent


def test_median_and_range_of_activities_and_times():
    second = FDG.__class__(**{**FDG.__dict__, "patient": "P002"})
    third = FDG.__class__(**{**FDG.__dict__, "patient": "P003"})
    emissions = {
        ("P001", "fdg0"): sidecar(), ("P002", "fdg0"): sidecar(injected_mbq=200.0, time_after_injection_h=1.5),
        ("P003", "fdg0"): sidecar(injected_mbq=None),
    }  # fmt: skip
    registrations = {key: {"method": "identity", "verdict": "good"} for key in emissions}
    told = words(run(scans=[FDG, second, third], emissions=emissions, registrations=registrations), "Imaging")
    # 200 and 300 MBq; 60, 60 and 90 min.
    assert "a median of 250 MBq (range 200 to 300)" in told
    assert "a median of 60 min (range 60 to 90)" in told


def test_one_administration_counts_its_activity_once():
    spect = scans()[2:5]
    other = [scan.__class__(**{**scan.__dict__, "patient": "P002"}) for scan in spect[:1]]
    given = {"P001": 100.0, "P002": 200.0}
    emissions = {(s.patient, s.scan): sidecar(injected_mbq=given[s.patient], suv=None) for s in [*spect, *other]}
    registrations = {key: {"method": "identity", "verdict": "good"} for key in emissions}
    told = words(run(scans=[*spect, *other], emissions=emissions, registrations=registrations), "Imaging")
    # Of 100, 100, 100 and 200 the median would be 100.
    assert "a median of 150 MBq (range 100 to 200)" in told


def test_overrules_and_virtual_patients_are_told():
    told = words(run(emissions={("P001", "fdg0"): sidecar(overrides=["weight_kg"], virtual_patient=True)}), "Imaging")
    assert "overruled by the sheet of scans for weight_kg of 1 scan" in told
    assert "Of all scans, 1 was of virtual patients, not of people." in told


def test_the_miniature_model_is_named():
    own = {"source": "TotalSegmentator", "versions": {"TotalSegmentator": "2.99"}, "task": "total", "resolution_mm": 6,
           "device": "cpu", "model": ["Dataset1"], "miniature_model": True}  # fmt: skip
    assert "miniature model for virtual patients" in words(run(organs={("P001", "fdg0"): own}), "Organs")
    real = own | {"miniature_model": False, "device": "gpu"}
    told = words(run(organs={("P001", "fdg0"): real}), "Organs")
    assert "TotalSegmentator 2.99 (task total, voxels of 6 mm, the published weights Dataset1, on a GPU)" in told


def test_registrations_are_counted_with_their_verdicts():
    registrations = {
        ("P001", "fdg0"): {"method": "identity", "verdict": "good"},
        ("P001", "cxcr4"): {"method": "CT to CT", "verdict": "failed"},
    }
    told = words(run(registrations=registrations), "Registration")
    assert told.startswith("In total, 1 scan was registered to the patient's FDG scan at baseline: CT to CT (1)")
    assert "1 was judged “failed”" in told


RULE = {"threshold_suv": 2.75, "liver": {"times": 1.5, "plus_sd": 2.0}, "combine": "highest",
        "outline": {"percent_of_contrast": 45}}  # fmt: skip


def test_a_rule_is_told_with_the_numbers_of_the_configuration_and_only_where_it_found_something():
    config = copy.deepcopy(CONFIG)
    config["lesions"]["candidates"] = {"FDG": RULE}
    config["lesions"]["minimum_ml"] = 0.75
    config["lesions"]["positivity_ratio"] = 1.65
    row = ["P001", "L1", "FDG", "program", 5.0, 2.5, "blood_pool", True, "program"]
    told = words(run(config=config, tables=EMPTY | {"lesions": table("lesions", row)}), "Lesions")
    assert "exceeds an SUV of 2.75 or exceeds 1.5 times the median of the liver plus 2 standard deviations" in told
    assert "(the highest of these), outlined at 45 % of its contrast, from 0.75 mL on" in told
    assert "SUVpeak of 1.65 times the mean of its surroundings" in told
    assert "mean SUV of the blood pool" in told
    row[3] = row[8] = "reader"
    told = words(run(config=config, tables=EMPTY | {"lesions": table("lesions", row)}), "Lesions")
    assert "2.75" not in told
    assert "1.65" not in told
    assert "A reader's word decided 1 time" in told


def test_dosimetry_with_its_numbers():
    rows = [
        ["P001", "liver", "organ", "177Lu", 4, "mono-exponential", 0.5, "fit"],
        ["P001", "liver", "organ", "90Y", 4, "mono-exponential", 2.0, "fit; 90Y from the kinetics of 177Lu"],
        ["P001", "L1", "lesion", "177Lu", 3, "bi-exponential", np.nan, "fit; no dose"],
    ]
    told = words(run(tables=EMPTY | {"doses": table("doses", *rows)}), "Dosimetry")
    assert "with 3 to 4 time points a curve" in told
    assert "a resolution of 8.25 mm" in told
    assert "mono-exponential (1) and bi-exponential (1)" in told  # the predicted curve is no second fit
    assert "Doses of ⁹⁰Y were predicted" in told
    assert "Lesions below" not in told  # no lesion has a dose


def test_dosimetry_without_any_curve_is_told_without_points():
    rows = [["P001", "liver", "organ", "177Lu", 1, None, np.nan, "no curve"]]
    told = words(run(tables=EMPTY | {"doses": table("doses", *rows)}), "Dosimetry")
    assert told.startswith("Dosimetry of 1 patient followed the MIRD scheme; activities from SPECT were corrected")


def test_recovery_planar_views_blood_marrow_and_draws_are_told():
    config = copy.deepcopy(CONFIG)
    config["dosimetry"] |= {"spect_fwhm_mm": None, "recovery": "phantom/spheres.tsv", "uncertainty": "monte carlo"}
    fit = ["177Lu", 4, "mono-exponential", 0.5]
    rows = [
        ["P001", "liver", "organ", *fit, "SPECT, 1 / (1 + x); sd and interval by 1000 draws"],
        ["P002", "liver", "organ", *fit, "planar scaled by SPECT lu1 and SPECT, 1 / (1 + x)"],
        ["P003", "liver", "organ", *fit, "planar, conjugate view"],
        ["P003", "marrow", "marrow", *fit, "blood samples, red marrow to blood 0.36"],
    ]
    told = words(run(config=config, tables=EMPTY | {"doses": table("doses", *rows)}), "Dosimetry")
    assert "corrected for partial volume by the recovery curve of spheres.tsv" in told
    assert "Of 1 patient, planar views were scaled by one SPECT, region by region." in told
    assert "Of 1 patient, activities are those of conjugate planar views" in told
    assert "Of 1 patient, the activity of red marrow is that of blood samples." in told
    assert "Red marrow has the electrons of its own activity; no photons." in told
    assert "Standard deviations of 1 coefficient are those of 1000 draws" in told
    assert "Standard deviations of the others propagate, to first order" in told


def test_therapy_response_statistics_and_survival():
    cycles = [{"patient": "P001", "nuclide": "90Y", "activity_gbq": value} for value in (1.7, 7.2, 9.1)]
    tables = EMPTY | {
        "response": table("response", ["P001", "PERCIST 1.0", "SULpeak"]),
        "statistics": table(
            "statistics",
            ["x", "patients", 4, "sign-flip of patient means, exact", 0.125, "Hodges-Lehmann difference, 95 %", 1.0],
            ["x", "patients", 4, None, np.nan, "rank-biserial", 0.5],
            ["x", "patients", 1, "Spearman", np.nan, "Spearman's rho", np.nan],
        ),
        "detection": table("detection", ["FDG", 61]),
        "survival": table(
            "survival",
            ["PFS from therapy", "Kaplan-Meier; midpoint; NA: not reached", 4],
            ["OS from therapy", "Kaplan-Meier; midpoint; NA: not reached", 0],
        ),
    }  # fmt: skip
    told = words(run(cycles=cycles, tables=tables))
    assert "3 therapy cycles of ⁹⁰Y; the activity of a cycle was a median of 7.2 GBq (range 1.7 to 9.1)" in told
    assert "judged by PERCIST 1.0. PERCIST compared SULpeak." in told
    assert "RECIST are" not in told
    assert "Tests: sign-flip of patient means; P values are two-sided. Tests over patients compare one mean" in told
    assert "Hodges-Lehmann difference and rank-biserial." in told  # no rho was found
    assert "Wilson" in told
    assert "Survival (PFS from therapy): Kaplan-Meier; midpoint." in told
    assert "not adjusted" in told
    adjusted = tables["statistics"].assign(p_holm=[0.25, np.nan, np.nan])
    assert "adjusted by Holm" in words(run(tables=tables | {"statistics": adjusted}), "Statistics")


def test_software_is_what_the_sidecars_say():
    other = sidecar(theraflow="9.8.6")
    emissions = {("P001", "fdg0"): sidecar(), ("P001", "cxcr4"): other}
    told = words(run(scans=[FDG, CXCR4], emissions=emissions), "Software")
    assert "theraflow 9.8.6 and 9.8.7" in told


def test_every_part_ends_as_a_sentence_and_no_cell_is_missing_in_words():
    for _, part in describe_methods(run()):
        assert part.endswith(".")
        assert not re.search(r"\b(nan|None|NA)\b", part)


@pytest.mark.parametrize("dosimetry", [True, False])
def test_a_whole_results_folder_gives_markdown_and_plain_text(tmp_path, dosimetry):
    folder, listed = write_patient(tmp_path, dosimetry=dosimetry)
    config = CONFIG | {"cohort": {}, "organs": {}}
    for path in (tmp_path / "P001").glob("scans/*/organs.json"):
        path.write_text(path.read_text().replace('"quantity"', '"source": "imported from x", "quantity"', 1))
    for scan in listed:
        write_json({"method": "rigid", "verdict": "good"}, folder.registration_quality(scan.scan))
    summarise_cohort([folder], tmp_path / "cohort", config)
    assert {f"{name}.tsv" for name in TABLES} <= {path.name for path in (tmp_path / "cohort").iterdir()}
    markdown, text = tmp_path / "cohort" / "methods.md", tmp_path / "cohort" / "methods.txt"
    write_methods(tmp_path, {"P001": listed}, config, [], 0, markdown, text)
    assert markdown.read_text().startswith("# Methods\n\n**Patients.** In total, 1 patient was evaluated.")
    assert "**Imaging.** With [¹⁸F]FDG, 2 PET/CT scans of 1 patient" in markdown.read_text()
    assert ("**Dosimetry.**" in markdown.read_text()) == dosimetry
    assert max(map(len, text.read_text().splitlines())) <= 100
    plain = " ".join(text.read_text().split())
    assert all(re.sub(r"\*\*|# Methods", "", line).strip() in plain for line in markdown.read_text().splitlines())


def test_nobody_and_those_left_out(tmp_path):
    summarise_cohort([], tmp_path / "cohort", CONFIG)
    write_methods(tmp_path, {}, CONFIG, [], 2, tmp_path / "methods.md", tmp_path / "methods.txt")
    told = (tmp_path / "methods.md").read_text()
    assert "In total, 0 patients were evaluated; 2 could not be, for their data failed." in told
    assert "Imaging" not in told
