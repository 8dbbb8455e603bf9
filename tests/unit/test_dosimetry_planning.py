"""Planning: the activity that meets a limit against independent roots and draws, and what is said when things lack."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from settings import default_settings
from theraflow.dosimetry.contract import (
    ADMINISTRATION_COLUMNS,
    COURSE_COLUMNS,
    CYCLE_COLUMNS,
    DOSE_COLUMNS,
    PLAN_COLUMNS,
)
from theraflow.dosimetry.planning.stage import (
    Coefficient,
    Exposure,
    accumulate,
    check_limits,
    cycles_apart,
    given_cycles,
    largest_activity,
    limits_by_region,
    make_plan,
    plan_therapy,
    protraction_factor,
)
from theraflow.dosimetry.radiobiology import Effect, effect, lea_catcheside
from theraflow.errors import TheraflowError
from theraflow.layout import PatientFolder
from theraflow.tables import read_table, write_table

LN2 = math.log(2.0)
DEFAULTS = default_settings("dosimetry")
KIDNEY_BED = effect("bed", lea_catcheside([1.0], [LN2 / 25.0], 2.8), 2.6)


def dose_row(region, kind, value, sd, nuclide="90Y", t_eff_h=25.0, **others) -> dict:
    row = {
        "patient": "P1", "region": region, "kind": kind, "nuclide": nuclide, "mass_g": 150.0, "n_timepoints": 4,
        "model": "mono-exponential", "t_eff_h": t_eff_h, "tia_h": 1.0, "dose_gy_per_gbq": value, "sd_gy_per_gbq": sd,
        "method": "weighted fit of 4 points",
    }  # fmt: skip
    return row | others


def table(*rows: dict) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


LEFT = dose_row("kidney_left", "organ", 3.75, 0.6)
RIGHT = dose_row("kidney_right", "organ", 3.0, 1.05)
LIVER = dose_row("liver", "organ", 1.6, 0.2, t_eff_h=45.0)
LESION = dose_row("L01", "lesion", 2.7, 0.5, t_eff_h=40.0)
SMALL = dose_row("L02", "lesion", math.nan, math.nan, method="SPECT; no dose: 0.9 mL is below the limit of 2 mL")
BODY = dose_row("whole_body", "whole_body", math.nan, math.nan, method="sum; no dose: the mass is not known")


def cycle(number, activity, nuclide="90Y", date=None, patient="P1") -> dict:
    row = {"patient": patient, "cycle": number, "nuclide": nuclide, "activity_gbq": activity}
    return row if date is None else row | {"date": date}


def plan_of(doses, limits, cycles=(), **more) -> tuple[pd.DataFrame, dict]:
    options = DEFAULTS | {"limits": limits} | more
    check_limits(options)
    plan, summary = make_plan(doses, "P1", given_cycles("P1", list(cycles)), "90Y", options)
    assert tuple(plan.columns) == PLAN_COLUMNS
    json.dumps(summary, allow_nan=False)
    return plan, summary


# The largest activity


def test_a_limit_of_dose_is_a_division():
    found = largest_activity(23.0, Coefficient(3.75, 0.75), Effect())
    assert found.gbq == pytest.approx(23.0 / 3.75, rel=1e-12)
    assert found.sd_gbq == pytest.approx(0.2 * 23.0 / 3.75, rel=1e-12)
    assert found.gbq_95 == pytest.approx(found.gbq / math.exp(1.6448536 * 0.2), rel=1e-7)


def test_a_limit_of_bed_is_the_root_of_the_quadratic():
    # 40 Gy, G = 2.8/27.8, alpha/beta 2.6: q D^2 + D - 40 = 0.
    roots = np.roots([2.8 / 27.8 / 2.6, 1.0, -40.0])
    found = largest_activity(40.0, Coefficient(3.75, 0.6), KIDNEY_BED)
    assert found.gbq == pytest.approx(roots.max() / 3.75, rel=1e-12)


LIMITS = st.floats(5.0, 80.0)
COEFFICIENTS = st.floats(0.05, 20.0)
GIVEN = st.lists(st.tuples(st.floats(0.1, 12.0), st.booleans()), max_size=4)


@given(limit=LIMITS, value=COEFFICIENTS, relative=st.floats(0.0, 0.6), activities=GIVEN, cycles=st.integers(1, 6),
       quantity=st.sampled_from(["dose", "bed", "eqd2"]))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_at_the_largest_activity_the_limit_is_met(limit, value, relative, activities, cycles, quantity):
    """Whatever was given of two nuclides: E(given) + n E(c a / n) is the limit; for 95 % with worse coefficients."""
    yttrium, lutetium = Coefficient(value, relative * value), Coefficient(0.25 * value, 1.3 * relative * 0.25 * value)
    of_yttrium, of_lutetium = (effect(quantity, factor, 2.6) for factor in (0.1, 0.06))
    given_so_far = [
        Exposure(a, lutetium, of_lutetium) if other else Exposure(a, yttrium, of_yttrium) for a, other in activities
    ]

    def total(activity: float, worse: bool) -> float:
        def factor(coefficient: Coefficient) -> float:
            return coefficient.factor_95 if worse else 1.0

        spent = sum(e.counts.of_dose(e.dose_gy * factor(e.coefficient)) for e in given_so_far)
        return spent + cycles * of_yttrium.of_dose(value * factor(yttrium) * activity / cycles)

    found = largest_activity(limit, yttrium, of_yttrium, given_so_far, cycles)
    assert found.gbq_95 <= found.gbq
    for activity, worse in ((found.gbq, False), (found.gbq_95, True)):
        if activity > 0:
            assert total(activity, worse) == pytest.approx(limit, rel=1e-9)
        else:
            assert total(0.0, worse) >= limit * (1 - 1e-9)
    if found.gbq > 0:
        # The sd: the derivative by a common relative error of both nuclides.
        def shifted(z: float) -> float:
            def reach(a: float) -> float:
                spent = sum(e.counts.of_dose(e.dose_gy * (1 + z * e.coefficient.relative_sd)) for e in given_so_far)
                return spent + cycles * of_yttrium.of_dose(value * (1 + z * relative) * a / cycles) - limit

            return scipy.optimize.brentq(reach, -0.2 * found.gbq, 3 * found.gbq, xtol=1e-14, rtol=1e-14)

        step = 1e-5
        if total(0.0, False) < limit * 0.99:
            derivative = (shifted(-step) - shifted(step)) / (2 * step)
            assert found.sd_gbq == pytest.approx(derivative, rel=1e-4, abs=1e-7)


@given(limit=LIMITS, more=st.floats(1.01, 3.0), value=COEFFICIENTS, relative=st.floats(0.01, 0.6))
@settings(max_examples=50, deadline=None)
def test_monotonous(limit, more, value, relative):
    found = largest_activity(limit, Coefficient(value, relative * value), KIDNEY_BED)
    assert largest_activity(limit * more, Coefficient(value, relative * value), KIDNEY_BED).gbq > found.gbq
    assert largest_activity(limit, Coefficient(value * more, relative * value), KIDNEY_BED).gbq < found.gbq
    assert largest_activity(limit, Coefficient(value, relative * more * value), KIDNEY_BED).gbq_95 < found.gbq_95


def test_more_and_smaller_cycles_spare_the_organ_up_to_its_bed_in_full():
    coefficient = Coefficient(3.75, 0.6)
    activities = [largest_activity(40.0, coefficient, KIDNEY_BED, cycles=n).gbq for n in (1, 2, 4, 1000)]
    assert activities == sorted(activities)
    assert activities[-1] == pytest.approx(40.0 / 3.75, rel=2e-3)
    plain = [largest_activity(40.0, coefficient, Effect(), cycles=n).gbq for n in (1, 4)]
    assert plain[0] == pytest.approx(plain[1])


@pytest.mark.parametrize("relative", [0.1, 0.3, 0.5])
def test_the_limit_is_kept_in_95_percent_of_patients(relative):
    """The estimate scatters about each patient's own truth; the cycles given are judged by the same estimate."""
    random = np.random.default_rng(7)
    kept, count = 0, 4000
    for error in random.standard_normal(count):
        estimate = 3.75 * math.exp(relative * error)
        coefficient = Coefficient(estimate, relative * estimate)
        given_so_far = [Exposure(2.0, coefficient, KIDNEY_BED)]
        activity = largest_activity(80.0, coefficient, KIDNEY_BED, given_so_far).gbq_95
        kept += KIDNEY_BED.of_dose(3.75 * activity) + KIDNEY_BED.of_dose(3.75 * 2.0) <= 80.0
    assert kept / count == pytest.approx(0.95, abs=0.01)


def test_sd_by_draws():
    random = np.random.default_rng(8)
    true = Coefficient(3.75, 0.3)
    activities = [
        largest_activity(
            60.0, Coefficient(c, 0.3), KIDNEY_BED, [Exposure(3.0, Coefficient(c, 0.3), KIDNEY_BED)]
        ).gbq
        for c in random.normal(3.75, 0.3, 4000)
    ]  # fmt: skip
    found = largest_activity(60.0, true, KIDNEY_BED, [Exposure(3.0, true, KIDNEY_BED)])
    assert found.sd_gbq == pytest.approx(np.std(activities), rel=0.05)


def test_a_spent_limit_leaves_nothing():
    coefficient = Coefficient(4.0, 0.4)
    for activity in (6.0, 5.75):  # beyond and exactly at 23 Gy
        found = largest_activity(23.0, coefficient, Effect(), [Exposure(activity, coefficient, Effect())])
        assert (found.gbq, found.gbq_95) == (0.0, 0.0)
        assert math.isnan(found.sd_gbq)
    nearly = largest_activity(23.0, coefficient, Effect(), [Exposure(5.5, coefficient, Effect())])
    assert nearly.gbq == pytest.approx(0.25)
    assert nearly.gbq_95 == 0.0
    # The sd is that of the whole 5.75 GBq, not of what is left.
    assert nearly.sd_gbq == pytest.approx(0.575)


# The shape of the curve


def test_protraction_of_a_row():
    clearance, uptake = LN2 / 50.0, LN2 / 5.0
    assert protraction_factor(LEFT, 2.8) == pytest.approx(2.8 / 27.8)
    told = LEFT | {"model": "uptake and clearance", "exponentials": f"1:{clearance!r} -1:{uptake!r}"}
    assert protraction_factor(told, 2.8) == pytest.approx(0.04993996, rel=1e-6)
    for model in ("bi-exponential", "mono-exponential + uptake and clearance", "single time point, Haenscheid"):
        assert math.isnan(protraction_factor(LEFT | {"model": model}, 2.8))
    assert math.isnan(protraction_factor(LEFT | {"model": math.nan, "t_eff_h": math.nan}, 2.8))
    assert protraction_factor(LEFT | {"exponentials": math.nan}, 2.8) == pytest.approx(2.8 / 27.8)


def test_without_the_shape_of_the_curve_no_bed_is_claimed():
    plan, summary = plan_of(table(LEFT | {"model": "bi-exponential"}), {"kidney_left": {"bed_gy": 40, "dose_gy": 23}})
    bed, dose = plan.iloc[0], plan.iloc[1]
    assert math.isnan(bed["max_activity_gbq"]) and bed["remark"] == "no BED: the shape of the curve is not known"
    assert dose["max_activity_gbq"] == pytest.approx(23 / 3.75)
    assert "Not checked, and could lower it: kidney_left (no BED" in summary["statement"]


# The plan


def test_the_organ_that_limits_and_the_doses_at_its_limit():
    doses = table(LEFT, RIGHT, LIVER, BODY, LESION, SMALL)
    plan, summary = plan_of(doses, {"kidneys": {"bed_gy": 40}, "liver": {"dose_gy": 30}})
    assert list(plan["region"]) == ["kidney_left", "kidney_right", "liver", "L01", "L02"]
    rows = plan.set_index("region")
    expected = np.roots([2.8 / 27.8 / 2.6, 1.0, -40.0]).max()
    assert rows.loc["kidney_left", "max_activity_gbq"] == pytest.approx(expected / 3.75)
    assert rows.loc["kidney_right", "max_activity_gbq"] == pytest.approx(expected / 3.0)
    assert rows.loc["liver", "max_activity_gbq"] == pytest.approx(30 / 1.6)
    assert list(rows["limiting"].iloc[:3]) == ["yes", "no", "no"]
    largest = expected / 3.75
    for name, coefficient, sd in (("kidney_left", 3.75, 0.6), ("liver", 1.6, 0.2), ("L01", 2.7, 0.5)):
        assert rows.loc[name, "dose_at_max_gy"] == pytest.approx(coefficient * largest)
        assert rows.loc[name, "dose_at_max_sd_gy"] == pytest.approx(sd * largest)
        assert rows.loc[name, "dose_at_95_gy"] == pytest.approx(coefficient * summary["largest_activity_95_gbq"])
    assert rows.loc["L02", ["dose_at_max_gy", "course_dose_gy"]].isna().all()
    assert rows.loc["L02", "remark"] == "no dose: 0.9 mL is below the limit of 2 mL"
    assert summary["largest_activity_gbq"] == pytest.approx(largest)
    assert summary["limiting"][0]["region"] == "kidney_left"
    # 35 % on the right kidney against 16 % on the left: with 95 % it is the other that limits.
    assert summary["limiting_95"][0]["region"] == "kidney_right"
    assert summary["largest_activity_95_gbq"] == rows.loc["kidney_right", "max_activity_95_gbq"]
    assert "limited by kidney_left (BED 40 Gy)." in summary["statement"]
    assert "GBq, limited by kidney_right (BED 40 Gy)." in summary["statement"]
    assert "Nothing is known of the dose of L02." in summary["statement"]


def test_several_cycles_given():
    cycles = [cycle(2, 3.0, date="2020-03-01"), cycle(1, 4.0, "Y-90", "2020-01-01"), cycle(1, 9.0, patient="P2")]
    plan, summary = plan_of(table(LEFT, LESION), {"kidney_left": {"bed_gy": 60, "dose_gy": 50}}, cycles)
    bed, dose, lesion = (plan.iloc[i] for i in range(3))
    doses = np.array([4.0, 3.0]) * 3.75
    spent = (doses + 2.8 / 27.8 / 2.6 * doses**2).sum()
    assert bed["spent_gy"] == pytest.approx(spent)
    assert bed["remaining_gy"] == pytest.approx(60 - spent)
    assert dose["spent_gy"] == pytest.approx(7 * 3.75)
    assert dose["max_activity_gbq"] == pytest.approx(50 / 3.75 - 7)
    next_dose = bed["max_activity_gbq"] * 3.75
    assert spent + next_dose + 2.8 / 27.8 / 2.6 * next_dose**2 == pytest.approx(60)
    largest = min(bed["max_activity_gbq"], dose["max_activity_gbq"])
    assert lesion["course_dose_gy"] == pytest.approx(2.7 * (7 + largest))
    assert lesion["course_dose_sd_gy"] == pytest.approx(0.5 * (7 + largest))
    assert f"{spent:.3g} Gy of it spent" in summary["statement"]
    assert summary["cycles_given"] == 2


def test_the_course():
    limits = {"kidney_left": {"bed_gy": 60}}
    plan, summary = plan_of(table(LEFT, LESION), limits, [cycle(1, 3.0)], planned_cycles=4)
    row = plan.iloc[0]
    assert row["course_cycles"] == 3
    each = row["course_activity_gbq"] / 3 * 3.75
    spent = 11.25 + 2.8 / 27.8 / 2.6 * 11.25**2
    assert spent + 3 * (each + 2.8 / 27.8 / 2.6 * each**2) == pytest.approx(60)
    assert row["course_activity_gbq"] > row["max_activity_gbq"]
    assert "In 3 equal cycles to come" in summary["statement"]
    assert plan.iloc[1]["course_dose_gy"] == pytest.approx(2.7 * (3.0 + row["course_activity_gbq"]))
    plan, summary = plan_of(table(LEFT, LESION), limits, [cycle(1, 3.0)], planned_cycles=1)
    assert plan.iloc[0]["course_activity_gbq"] == 0.0
    assert plan.iloc[0]["max_activity_gbq"] == pytest.approx(row["max_activity_gbq"])
    assert plan.iloc[1]["course_dose_gy"] == pytest.approx(2.7 * 3.0)
    assert "All planned cycles have been given." in summary["statement"]


def test_two_nuclides_of_one_cycle_are_one_cycle_of_the_course():
    lutetium = dose_row("kidney_left", "organ", 0.91, 0.1, "177Lu", 41.0)
    cycles = [cycle(1, 1.0), cycle(1, 2.0, "177Lu")]
    plan, _ = plan_of(table(lutetium, LEFT), {"kidney_left": {"dose_gy": 23}}, cycles, planned_cycles=4)
    assert plan.iloc[0]["course_cycles"] == 3
    assert plan.iloc[0]["spent_gy"] == pytest.approx(3.75 + 1.82)


def test_one_kidney():
    plan, summary = plan_of(table(LEFT, LESION), {"kidneys": {"dose_gy": 23}})
    assert list(plan["region"]) == ["kidney_left", "kidney_right", "L01"]
    assert plan.iloc[1]["remark"] == "no dose of this region is known"
    assert plan.iloc[1][["spent_gy", "max_activity_gbq", "dose_at_max_gy"]].isna().all()
    assert plan["limiting"].iloc[0] == "yes" and plan["limiting"].iloc[1:].isna().all()
    assert "Not checked, and could lower it: kidney_right (no dose of this region is known)." in summary["statement"]
    assert [one["region"] for one in summary["not_checked"]] == ["kidney_right"]


def test_no_limits():
    plan, summary = plan_of(table(LEFT, LESION, BODY), {}, tumour_dose_gy=20)
    assert list(plan["region"]) == ["kidney_left", "L01"]
    numbers = plan.drop(columns=["patient", "region", "kind", "nuclide", "course_cycles", "wanted_gy"])
    assert numbers.isna().all().all()
    assert summary["statement"] == "No limit is configured (dosimetry: limits), so no largest activity is stated."
    assert summary["largest_activity_gbq"] is None
    for absent in ("limits", "planned_cycles", "tumour_dose_gy"):
        assert absent not in {k: v for k, v in DEFAULTS.items() if v}
    assert make_plan(table(LEFT), "P1", [], "90Y", {k: v for k, v in DEFAULTS.items() if k != "limits"})[1]


def test_no_lesions_and_no_regions():
    _, summary = plan_of(table(LEFT), {"kidney_left": {"dose_gy": 23}}, tumour_dose_gy=20)
    assert summary["statement"].endswith("No lesion has a dose.")
    plan, summary = plan_of(table(BODY), {})
    assert plan.empty
    assert summary["largest_activity_gbq"] is None
    plan, summary = plan_of(table(BODY), {"kidney_left": {"dose_gy": 23}})
    assert summary["statement"] == (
        "None of the configured limits could be checked, so no largest activity is stated. "
        "Not checked: kidney_left (no dose of this region is known)."
    )


def test_a_limit_already_spent():
    plan, summary = plan_of(
        table(LEFT, LESION), {"kidney_left": {"dose_gy": 23}}, [cycle(1, 9.1)], tumour_dose_gy=50
    )  # fmt: skip
    row = plan.iloc[0]
    assert (row["max_activity_gbq"], row["max_activity_95_gbq"], row["limiting"]) == (0.0, 0.0, "yes")
    assert math.isnan(row["max_activity_sd_gbq"])
    assert row["remaining_gy"] == pytest.approx(23 - 9.1 * 3.75)
    assert row["remark"] == "the cycles given have reached this limit"
    assert summary["statement"].startswith(
        "No activity is left: the cycles given have reached the limit of kidney_left (absorbed dose 23 Gy, 34.1 Gy of "
    )
    assert summary["lesions_insufficient"] == ["L01"]
    assert plan.iloc[1]["course_dose_gy"] == pytest.approx(9.1 * 2.7)


def test_a_limit_met_exactly():
    row = plan_of(table(dose_row("liver", "organ", 2.0, 0.2)), {"liver": {"dose_gy": 8}}, [cycle(1, 4.0)])[0].iloc[0]
    assert (row["remaining_gy"], row["max_activity_gbq"], row["max_activity_95_gbq"]) == (0.0, 0.0, 0.0)
    assert row["remark"] == "the cycles given have reached this limit"


def test_a_spent_limit_needs_no_word_on_lesions():
    _, summary = plan_of(table(LEFT, LESION), {"kidney_left": {"dose_gy": 23}}, [cycle(1, 9.1)])
    assert summary["statement"].endswith("34.1 Gy of it spent).")


def test_a_limit_that_may_be_spent():
    plan, summary = plan_of(table(LEFT), {"kidney_left": {"dose_gy": 23}}, [cycle(1, 5.8)])
    assert 0 < plan.iloc[0]["max_activity_gbq"] < 0.4
    assert plan.iloc[0]["max_activity_95_gbq"] == 0.0
    assert plan.iloc[0]["remark"] == "with a probability above 5 % the cycles given have reached this limit"
    assert "With a probability above 5 % nothing is left of the limit of kidney_left" in summary["statement"]


def test_lesions_that_get_enough_too_little_and_neither():
    doses = table(
        dose_row("kidney_left", "organ", 2.3, 0.2), dose_row("L01", "lesion", 1.0, 0.2),
        dose_row("L02", "lesion", 2.0, 0.4), dose_row("L03", "lesion", 5.0, 0.5),
        dose_row("L04", "lesion", 5.0, math.nan), SMALL | {"region": "L05"},
    )  # fmt: skip
    plan, summary = plan_of(doses, {"kidney_left": {"dose_gy": 23}}, tumour_dose_gy=20)  # at most 10 GBq
    assert list(plan.iloc[1:4]["reached"]) == ["no", "uncertain", "yes"]
    assert plan.iloc[4:]["reached"].isna().all()
    assert summary["lesions_insufficient"] == ["L01"] and summary["lesions_uncertain"] == ["L02"]
    for words in (
        "Insufficient, below 20 Gy at the end of the course: L01 (10 ± 2 Gy).",
        "Not to be told from 20 Gy at the end of the course: L02 (20 ± 4 Gy).",
        "20 Gy are reached with a probability of 95 % in: L03.",
        "Not judged, without an sd: L04.",
        "Nothing is known of the dose of L05.",
    ):
        assert words in summary["statement"]


def test_a_dose_without_sd_is_no_basis_for_an_activity():
    plan, summary = plan_of(
        table(LEFT | {"sd_gy_per_gbq": math.nan}), {"kidney_left": {"dose_gy": 23}}, [cycle(1, 2.0)]
    )
    assert plan.iloc[0]["spent_gy"] == pytest.approx(7.5)
    assert math.isnan(plan.iloc[0]["max_activity_gbq"])
    assert plan.iloc[0]["remark"] == "its dose has no sd"
    assert summary["largest_activity_gbq"] is None


def test_a_cycle_of_another_nuclide_counts_and_without_coefficient_nothing_is_claimed():
    lutetium = dose_row("kidney_left", "organ", 0.91, 0.1, "177Lu", 41.0)
    cycles = [cycle(1, 7.4, "177Lu")]
    limits = {"kidney_left": {"bed_gy": 40, "dose_gy": 23}}
    plan, _ = plan_of(table(lutetium, LEFT), limits, cycles)
    dose = 7.4 * 0.91
    assert plan.iloc[0]["spent_gy"] == pytest.approx(dose + 2.8 / 43.8 / 2.6 * dose**2)
    assert plan.iloc[1]["max_activity_gbq"] == pytest.approx((23 - dose) / 3.75)
    plan, summary = plan_of(table(LEFT), limits, cycles)
    assert plan["max_activity_gbq"].isna().all() and plan["spent_gy"].isna().all()
    assert (plan["remark"] == "no coefficient of 177Lu is known").all()
    assert summary["largest_activity_gbq"] is None


def test_cycles_too_close_for_their_effects_to_add_up():
    close = [cycle(1, 2.0, date="2020-01-01"), cycle(2, 2.0, date="2020-01-08")]  # 168 h < 7 x 25 h
    doses, limits = table(LEFT, LESION), {"kidney_left": {"bed_gy": 60, "dose_gy": 50}}
    plan, summary = plan_of(doses, limits, close)
    assert math.isnan(plan.iloc[0]["max_activity_gbq"]) and math.isnan(plan.iloc[0]["spent_gy"])
    assert "cycles 1 and 2 lie less than 7 effective half-lives apart" in plan.iloc[0]["remark"]
    assert plan.iloc[1]["max_activity_gbq"] == pytest.approx(50 / 3.75 - 4)
    assert "Not checked, and could lower it: kidney_left (cycles 1 and 2" in summary["statement"]
    course = accumulate(doses, "P1", close, DEFAULTS).set_index(["region", "cycle"])
    assert course.loc[("kidney_left", 1), "total_bed_gy"] > 0
    assert math.isnan(course.loc[("kidney_left", 2), "total_bed_gy"])
    assert course.loc[("kidney_left", 2), "total_dose_gy"] == pytest.approx(15.0)


def test_cycles_apart():
    first = cycle(1, 2.0, date="2020-01-01")
    assert cycles_apart(first, cycle(2, 2.0, date="2020-01-09"), 25.0) is True
    assert cycles_apart(first, cycle(2, 2.0, date="2020-01-08"), 25.0) is False
    assert cycles_apart(first, cycle(2, 2.0), 25.0) is None
    assert cycles_apart(first, cycle(2, 2.0, date="early in 2020"), 25.0) is None
    assert cycles_apart(first, cycle(1, 2.0, "177Lu"), 25.0) is False


def test_what_is_written_is_rounded_down():
    _, summary = plan_of(table(dose_row("liver", "organ", 1.0, 0.0)), {"liver": {"dose_gy": 5.799}})
    assert "At most 5.79 ± 0 GBq" in summary["statement"] and "kept up to 5.79 GBq" in summary["statement"]
    for limit, written in ((6.0, "6"), (12.349, "12.3"), (0.0123999, "0.0123"), (10.0, "10")):
        _, summary = plan_of(table(dose_row("liver", "organ", 1.0, 0.0)), {"liver": {"dose_gy": limit}})
        assert f"At most {written} ±" in summary["statement"]


# Limits and cycles as they are written


def test_limits_of_groups_and_organs():
    told = DEFAULTS | {"limits": {"kidney_left": {"bed_gy": 28}, "kidneys": {"bed_gy": 40, "dose_gy": 23}}}
    left, right = {"bed": 28, "dose": 23}, {"bed": 40, "dose": 23}
    expected = {("kidney_left", q): v for q, v in left.items()} | {("kidney_right", q): v for q, v in right.items()}
    assert limits_by_region(told) == expected
    as_one = DEFAULTS | {"organs": ["kidneys"], "limits": {"kidneys": {"dose_gy": 23}}}
    assert limits_by_region(as_one) == {("kidneys", "dose"): 23}


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"kidny": {"dose_gy": 23}}, "no region 'kidny'"),
        ({"bone_marrow": {"dose_gy": 2}}, "or one of red_marrow, red_marrow_blood, whole_body, remainder"),
        ({"kidneys": {"bed": 40}}, "'bed' is none of dose_gy, bed_gy, eqd2_gy"),
        ({"liver": {"bed_gy": 40}}, "liver: bed_gy needs alpha_beta_gy and repair_half_time_h of liver"),
    ],
)
def test_limits_that_could_never_be_checked_are_refused(limits, message):
    with pytest.raises(TheraflowError, match=message):
        check_limits(DEFAULTS | {"limits": limits})


@pytest.mark.parametrize("region", ["red_marrow", "red_marrow_blood"])
def test_both_estimates_of_the_marrow_may_have_a_limit(region):
    check_limits(DEFAULTS | {"limits": {region: {"dose_gy": 2}}})


def test_cycles_are_refused_by_name():
    with pytest.raises(TheraflowError, match="activity_gbq of cycle 2 of P1 is missing"):
        given_cycles("P1", [cycle(1, 2.0), cycle(2, math.nan)])
    with pytest.raises(TheraflowError, match="cycle 1 of P1 stands there twice"):
        given_cycles("P1", [cycle(1, 2.0), cycle(1, 2.0, "Y90")])
    rows = given_cycles(
        "P1", [cycle(10, 2.0), cycle(2, 3.0, "Y-90"), cycle(2, 7.4, "Lu-177"), cycle(1, 1.0, patient="P2")]
    )
    assert [(row["cycle"], row["nuclide"]) for row in rows] == [(2, "177Lu"), (2, "90Y"), (10, "90Y")]


# Sums over cycles


def test_sums_over_cycles():
    cycles = [cycle(1, 7.2, date="2019-01-10"), cycle(2, 9.1, date="2019-04-01")]
    course = accumulate(table(LEFT, BODY, LESION, SMALL), "P1", cycles, DEFAULTS)
    assert tuple(course.columns) == COURSE_COLUMNS
    assert list(course["region"]) == ["kidney_left"] * 2 + ["L01"] * 2 + ["L02"] * 2
    kidney = course.iloc[1]
    doses = np.array([7.2, 9.1]) * 3.75
    bed = doses + 2.8 / 27.8 / 2.6 * doses**2
    assert kidney["dose_gy"] == pytest.approx(doses[1])
    assert kidney["bed_gy"] == pytest.approx(bed[1])
    assert kidney["eqd2_gy"] == pytest.approx(bed[1] / (1 + 2 / 2.6))
    assert kidney["total_dose_gy"] == pytest.approx(doses.sum())
    assert kidney["total_sd_gy"] == pytest.approx(0.6 * 16.3)
    assert kidney["total_bed_gy"] == pytest.approx(bed.sum())
    assert kidney["total_eqd2_gy"] == pytest.approx(bed.sum() / (1 + 2 / 2.6))
    lesion = course.iloc[3]
    assert lesion["total_dose_gy"] == pytest.approx(2.7 * 16.3)
    assert math.isnan(lesion["bed_gy"]) and lesion["remark"] is None
    assert course.iloc[5]["remark"] == "no dose: 0.9 mL is below the limit of 2 mL"
    # A part that is not known makes the sum unknown.
    unknown = accumulate(table(LEFT), "P1", [cycle(1, 7.4, "177Lu"), cycle(2, 5.0)], DEFAULTS)
    assert unknown["total_dose_gy"].isna().all()
    assert accumulate(table(LEFT), "P1", [], DEFAULTS).empty


def test_the_papers_doses():
    """Table 2 and 3 of the study: 1.7 to 9.1 GBq, at most 6.1 to 25.2 Gy to a tumour, 2.7 +- 0.9 Gy/GBq."""
    activities, tumour = np.array([1.7, 7.2, 9.1, 6.6, 8.2]), np.array([6.1, 25.2, 21.8, 9.2, 21.3])
    coefficients = tumour / activities
    assert round(coefficients.mean(), 1) == 2.7 and round(coefficients.std(ddof=1), 1) == 0.9
    for activity, coefficient, dose in zip(activities, coefficients, tumour, strict=True):
        doses = table(dose_row("L01", "lesion", coefficient, 0.1 * coefficient))
        course = accumulate(doses, "P1", [cycle(1, activity)], DEFAULTS)
        assert course.iloc[0]["dose_gy"] == pytest.approx(dose)


def test_published_kidneys_allow_activities_like_those_of_the_study():
    """Haenscheid 2022: kidneys 3.75 (1.48 to 12.2) Gy/GBq of 90Y; 23 Gy then mean 6.1 (1.9 to 15.5) GBq."""
    found = [largest_activity(23.0, Coefficient(c, 0.2 * c), Effect()).gbq for c in (12.2, 3.75, 1.48)]
    assert [round(value, 1) for value in found] == [1.9, 6.1, 15.5]


# The stage


def write_measured(folder: PatientFolder, doses: pd.DataFrame, cycles: list[dict]) -> None:
    """administrations.tsv and cycles.tsv, as the doses have them."""
    told = doses.assign(injected_mbq=200.0, date=None)
    write_table(told, folder.table("administrations"), ADMINISTRATION_COLUMNS)
    write_table(pd.DataFrame(cycles, columns=list(CYCLE_COLUMNS)), folder.table("cycles"), CYCLE_COLUMNS)


def test_a_cycle_that_was_itself_scanned_counts_with_its_own_dose(tmp_path):
    """First cycle of 177Lu 30 % above the coefficient, with another curve; the second predicted."""
    folder = PatientFolder(tmp_path, "P1")
    plain = dose_row("kidney_left", "organ", 0.8, 0.1, "177Lu", 41.0, timepoint="work-up")
    own = dose_row("kidney_left", "organ", 1.04, 0.1, "177Lu", 50.0, timepoint="cycle1")
    write_table(table(plain).reindex(columns=list(DOSE_COLUMNS)), folder.table("doses"), DOSE_COLUMNS)
    given = {"patient": "P1", "region": "kidney_left", "nuclide": "177Lu", "activity_gbq": 7.0}
    rows = [given | {"cycle": 1, "source": "measured in this cycle (cycle1)", "timepoint": "cycle1"},
            given | {"cycle": 2, "source": "coefficient of work-up", "timepoint": "work-up"}]  # fmt: skip
    write_measured(folder, table(plain, own).reindex(columns=list(DOSE_COLUMNS)), rows)
    options = DEFAULTS | {"limits": {"kidney_left": {"dose_gy": 23, "bed_gy": 40}}}
    plan_therapy(folder, options, "177Lu", [cycle(1, 7.0, "177Lu"), cycle(2, 7.0, "177Lu")])
    course = read_table(folder.table("course")).set_index("cycle")
    assert list(course["dose_gy"]) == pytest.approx([7.28, 5.6])
    bed = [d * (1 + 2.8 / (2.8 + t) / 2.6 * d) for d, t in ((7.28, 50.0), (5.6, 41.0))]
    assert list(course["bed_gy"]) == pytest.approx(bed)
    plan = read_table(folder.table("plan")).set_index("limit_quantity")
    assert list(plan["spent_gy"]) == pytest.approx([12.88, sum(bed)])
    assert plan.loc["dose", "max_activity_gbq"] == pytest.approx((23 - 12.88) / 0.8)


def test_the_stage_writes_its_tables(tmp_path):
    folder = PatientFolder(tmp_path, "P1")
    doses = table(LEFT, RIGHT, BODY, LESION).reindex(columns=list(DOSE_COLUMNS))
    write_table(doses, folder.table("doses"), DOSE_COLUMNS)
    write_measured(folder, doses, [])
    options = DEFAULTS | {"limits": {"kidneys": {"bed_gy": 40}}, "tumour_dose_gy": 20}
    plan_therapy(folder, options, "Y-90", [cycle(1, 2.0), cycle(1, 3.0, patient="P2")])
    plan, course = read_table(folder.table("plan")), read_table(folder.table("course"))
    assert tuple(plan.columns) == PLAN_COLUMNS and tuple(course.columns) == COURSE_COLUMNS
    assert set(plan["nuclide"]) == {"90Y"} and set(course["cycle"]) == {1}
    summary = json.loads((folder.root / "dosimetry" / "plan.json").read_text())
    assert summary["largest_activity_gbq"] == pytest.approx(plan["max_activity_gbq"].min())
    assert summary["limiting"][0]["region"] == "kidney_left"
    assert "GBq of 90Y in a next cycle" in summary["statement"]
    with pytest.raises(TheraflowError, match="no region 'kidny'"):
        plan_therapy(folder, DEFAULTS | {"limits": {"kidny": {"dose_gy": 1}}}, "90Y", [])
