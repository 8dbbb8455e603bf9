"""One light a check: the worst of what it is about, and never a good one for what is not known."""

import pandas as pd
import pytest
from patient_on_disk import scans

from theraflow.dosimetry.contract import DOSE_COLUMNS, PLAN_COLUMNS
from theraflow.lesions import LESION_COLUMNS
from theraflow.report.quality import BAD, CHECK, GOOD, NONE, Light, ScanQuality, summarise, together
from theraflow.response import RESPONSE_COLUMNS


def table(columns, *rows):
    return pd.DataFrame(list(rows), columns=list(columns)) if rows else pd.DataFrame(columns=list(columns))


def lights(lesions=(), unsearched=0, doses=(), plan=(), response=()):
    good = Light(GOOD, "present")
    checks = [ScanQuality(scan, good, good, good, good, good) for scan in scans()]
    rows = [[dict(row).get(name) for name in LESION_COLUMNS] for row in lesions]
    told = summarise(
        checks,
        table(LESION_COLUMNS, *rows),
        unsearched,
        table(DOSE_COLUMNS, *([dict(row).get(name) for name in DOSE_COLUMNS] for row in doses)),
        table(PLAN_COLUMNS, *([dict(row).get(name) for name in PLAN_COLUMNS] for row in plan)),
        table(RESPONSE_COLUMNS, *([dict(row).get(name) for name in RESPONSE_COLUMNS] for row in response)),
    )
    return dict(told)


@pytest.mark.parametrize(
    ("given", "colour", "words"),
    [
        ([GOOD, GOOD], GOOD, "all 2 scans: present"),
        ([GOOD, CHECK], CHECK, "b: 1 remark"),
        ([CHECK, BAD], BAD, "b: failed"),
        ([BAD, BAD], BAD, "all 2 scans: failed"),
        ([NONE, GOOD], GOOD, "b: present"),
        ([NONE, NONE], NONE, "all 2 scans: no CT"),
        ([CHECK], CHECK, "a: 1 remark"),
        ([CHECK] * 4 + [GOOD], CHECK, "4 of 5 scans: 1 remark"),
    ],
)
def test_several_scans_have_the_light_of_the_worst(given, colour, words):
    told = {GOOD: "present", CHECK: "1 remark", BAD: "failed", NONE: "no CT"}
    light = together([(name, Light(one, told[one])) for name, one in zip("abcde", given, strict=False)])
    assert (light.colour, light.words) == (colour, words)


def test_what_is_not_there_has_no_good_light():
    told = lights()
    assert told["Registration"].colour == GOOD
    for name in ("Identity of lesions", "Dosimetry curves", "Dose limits", "Comparable scans"):
        assert told[name].colour == NONE, name


def test_lesions_that_a_person_should_look_at():
    certain = {"lesion": "L1", "scan": "fdg0"}
    doubtful = [certain | {"look": "may be L2"}, {"lesion": "L1", "scan": "fdg1", "look": "may be L2"}]
    assert lights([certain])["Identity of lesions"].colour == GOOD
    light = lights(doubtful)["Identity of lesions"]
    assert (light.colour, light.words) == (CHECK, "1 lesion to look at")
    assert lights([certain], unsearched=2)["Identity of lesions"].words == "2 scans not searched for lesions"


def test_curves_that_fail_a_gate():
    good = [{"region": name, "quality": "good"} for name in ("liver", "liver", "spleen")]  # two nuclides of the liver
    assert lights(doses=good)["Dosimetry curves"] == Light(GOOD, "2 of 2 curves pass all gates")
    poor = [*good, {"region": "L1", "quality": "CV of a parameter 63 %"}]
    assert lights(doses=poor)["Dosimetry curves"] == Light(CHECK, "2 of 3 curves pass all gates")
    late = [*good, {"region": "L1", "quality": "correlation of A and b 0.83"}]  # what scans on days 1 to 7 always give
    assert lights(doses=late)["Dosimetry curves"] == Light(GOOD, "3 of 3 curves pass all gates, correlations apart")
    both = [*good, {"region": "L1", "quality": "CV of b 63 %; correlation of A and b 0.83"}]
    assert lights(doses=both)["Dosimetry curves"].colour == CHECK


@pytest.mark.parametrize(
    ("limit", "largest", "largest_95", "colour", "words"),
    [
        (23.0, 4.1, 3.2, GOOD, "room below 2 limits"),
        (23.0, 0.0, 0.0, BAD, "reached: kidney left"),
        (23.0, None, None, CHECK, "not known: kidney left"),
        (23.0, 0.4, 0.0, CHECK, "may be reached (above 5 %): kidney left"),
        (None, None, None, NONE, "none configured"),
    ],
)
def test_limits_of_the_dose(limit, largest, largest_95, colour, words):
    activities = {"max_activity_gbq": largest, "max_activity_95_gbq": largest_95}
    row = {"region": "kidney_left", "limit_gy": limit, **activities}
    assert lights(plan=[row, row])["Dose limits"] == Light(colour, words)  # of the dose, and of its BED


@pytest.mark.parametrize(
    ("told", "colour"), [(["yes", None], GOOD), (["yes", "unknown"], CHECK), (["unknown", "no"], BAD)]
)
def test_scans_that_cannot_be_compared(told, colour):
    assert lights(response=[{"comparable": word} for word in told])["Comparable scans"].colour == colour
