"""The virtual cohort against the paper: Hartlapp et al., J Nucl Med 2023;64:1424."""

import itertools
from collections import Counter

import numpy as np
import pytest

from theraflow.virtual.cohort import GAP_MM, SUV_PEAK, TREATED, cohort, place_lesions


@pytest.fixture(scope="module")
def baseline() -> list:
    """(patient, lesion) of all lesions that exist at baseline."""
    return [(patient.patient, lesion) for patient in cohort() for lesion in patient.lesions if lesion.peak]


def concordant(baseline) -> list:
    return [(patient, lesion) for patient, lesion in baseline if None not in lesion.peak.values()]


def test_counts_of_lesions(baseline):
    assert len(baseline) == 61
    assert sum(lesion.peak["FDG"] is not None for _, lesion in baseline) == 60
    assert sum(lesion.peak["pentixafor"] is not None for _, lesion in baseline) == 57
    assert len(concordant(baseline)) == 56
    fdg_only = [(patient, lesion.site) for patient, lesion in baseline if lesion.peak["pentixafor"] is None]
    assert Counter(patient for patient, _ in fdg_only) == {"P004": 1, "P005": 2, "P007": 1}
    assert ("P007", "lymph_node_mediastinal") in fdg_only
    assert [patient for patient, lesion in baseline if lesion.peak["FDG"] is None] == ["P003"]


def test_table_1():
    people = {patient.patient: (patient.sex, patient.age_y, patient.stage) for patient in cohort()}
    assert [people[f"P00{i}"][1] for i in range(1, 9)] == [8, 20, 26, 31, 43, 37, 35, 23]
    assert Counter(stage for _, _, stage in people.values()) == {"II": 2, "III": 1, "IV": 5}
    assert {sex for sex, _, _ in people.values()} == {"M"}
    assert np.median([age for _, age, _ in people.values()]) == 28.5
    with_liver = {p.patient for p in cohort() if any(lesion.site == "liver" for lesion in p.lesions)}
    assert with_liver == {"P001", "P002", "P006", "P007", "P008"}


@pytest.mark.parametrize("tracer", ["FDG", "pentixafor"])
def test_uptake_of_concordant_lesions(baseline, tracer):
    values = [lesion.peak[tracer] for _, lesion in concordant(baseline)]
    low, median, high = SUV_PEAK[tracer]
    assert min(values) == pytest.approx(low)
    assert max(values) == pytest.approx(high)
    assert np.median(values) == pytest.approx(median, abs=0.05)


def test_uptake_before_and_after_therapy(baseline):
    """The paper: 7.4 (1.9-16.6) before, 4.7 (2.2-14.4) after."""
    treated = [lesion for patient, lesion in concordant(baseline) if patient in TREATED]
    before = [lesion.peak["FDG"] for lesion in treated]
    after = [lesion.followup_peak for lesion in treated]
    assert 6.7 < np.median(before) < 8.1
    assert 1.5 < min(before) < 2.5
    assert 4.2 < np.median(after) < 5.3
    assert min(after) >= 2.2
    assert 12 < max(after) < 16.6
    hottest = {
        p.patient: max(x.followup_peak or 0 for x in p.lesions) / max(x.peak.get("FDG") or 0 for x in p.lesions)
        for p in cohort()
        if p.patient in TREATED
    }
    assert hottest["P001"] > 1.35
    assert 0.72 < hottest["P003"] < 1.2
    assert hottest["P002"] < 0.68 and hottest["P007"] < 0.65
    assert [p.patient for p in cohort() for lesion in p.lesions if not lesion.peak] == ["P002"] * 3


def test_therapy_and_survival():
    activities = [gbq for patient in cohort() for _, gbq in patient.cycles]
    assert sorted(activities) == [1.7, 6.6, 7.2, 8.2, 9.1]
    assert np.mean(activities) == pytest.approx(6.6, abs=0.05)
    assert np.std(activities, ddof=1) == pytest.approx(2.9, abs=0.05)
    survival = {p.patient: (p.pfs_days, p.os_days) for p in cohort() if p.cycles}
    assert survival == {"P001": (65, 143), "P002": (28, 61), "P003": (143, 282), "P007": (176, 225)}
    first, second = (date for date, _ in next(p for p in cohort() if p.patient == "P002").cycles)
    assert (second - first).days == 61 - 15  # died 15 days after the second cycle


def test_tumour_doses_reach_the_table_s(baseline):
    """Table 3: greatest tumour dose over the activity of the first cycle."""
    most = {}
    for patient, lesion in baseline:
        if lesion.dose_gy_per_gbq:
            most[patient] = max(most.get(patient, 0), lesion.dose_gy_per_gbq)
    assert most == pytest.approx({"P001": 3.6, "P002": 3.5, "P003": 1.4, "P007": 2.6, "P008": 0.5})
    half_lives = [lesion.t_eff_h for _, lesion in baseline if lesion.t_eff_h]
    assert min(half_lives) >= 40 and max(half_lives) <= 80


def test_scans():
    for patient in cohort():
        scans = {plan.scan: plan for plan in patient.scans}
        dosed = patient.patient in (*TREATED, "P008")
        assert {"lu_24h", "lu_48h", "lu_96h", "lu_168h"} <= set(scans) if dosed else len(scans) == 2
        assert ("fdg_followup" in scans) == (patient.patient in TREATED)
        assert scans["pentixafor"].started_at.date() - scans["fdg"].started_at.date() == (
            scans["fdg"].started_at.replace(day=2) - scans["fdg"].started_at.replace(day=1)
        )
        for plan in patient.scans:
            if plan.tracer == "pentixather":
                assert plan.hours == pytest.approx(float(plan.scan[3:-1]), abs=1.5)
                assert plan.timepoint == "dosimetry"
            else:
                assert 50 <= plan.hours * 60 <= 70
        times = [plan.started_at for plan in patient.scans]
        assert times == sorted(times)
        if patient.cycles:
            assert scans["lu_168h"].started_at.date() < patient.cycles[0][0]
            assert scans["fdg_followup"].started_at.date() > patient.cycles[0][0]


def test_always_the_same_cohort():
    again = cohort.__wrapped__()
    for one, other in zip(cohort(), again, strict=True):
        assert one.scans == other.scans
        for a, b in zip(one.lesions, other.lesions, strict=True):
            assert (a.name, a.site, a.radii_mm, a.peak) == (b.name, b.site, b.radii_mm, b.peak)
            assert (a.axes == b.axes).all()


@pytest.mark.parametrize("patient", cohort(), ids=lambda patient: patient.patient)
def test_lesions_are_meaningful_and_apart(patient):
    anatomy = patient.anatomy()
    centres = place_lesions(anatomy, patient.lesions, patient.random(8))
    assert list(centres) == [lesion.name for lesion in patient.lesions]
    for lesion in patient.lesions:
        assert 15 <= 2 * max(lesion.radii_mm) <= 45
        assert min(lesion.radii_mm) >= 0.8 * max(lesion.radii_mm)
    for a, b in itertools.combinations(patient.lesions, 2):
        distance = np.linalg.norm(centres[a.name] - centres[b.name])
        assert distance >= a.largest_radius_mm + b.largest_radius_mm + GAP_MM
