"""Red marrow from the vertebrae and from blood, against boxes of known activity."""

import math

import pandas as pd
import pytest
import yaml
from activity_on_disk import VOXEL_ML, write_scan
from jsonschema import ValidationError, validate

from settings import SCHEMA, default_settings
from theraflow.dosimetry.activity import measure_activity
from theraflow.dosimetry.s_values.spheres import marrow_self_dose
from theraflow.errors import TheraflowError
from theraflow.images import read_image, write_image
from theraflow.layout import PatientFolder, Scan
from theraflow.tables import read_table

# Vertebrae of 10 x 10 x 8 voxels of 4 mm: the outermost layer is more than the 3 mm of the cortex.
L3 = (slice(15, 23), slice(15, 25), slice(20, 30))
L2 = (slice(25, 33), slice(15, 25), slice(20, 30))
KIDNEY = (slice(10, 20), slice(15, 25), slice(34, 44))
MARROW = {"red_marrow_fraction": 0.6, "red_marrow_fraction_sd": 0.06, "blood_ratio": "haematocrit"}
SETTINGS = {**default_settings("dosimetry"), "organs": ["kidney_left"], "marrow": MARROW}


def measured(results, scans: list[Scan], settings=SETTINGS, blood=()) -> pd.DataFrame:
    folder = PatientFolder(results, "P1")
    measure_activity(folder, scans, settings, blood)
    return read_table(folder.table("curves")).set_index("region")


def test_concentration_in_the_spongiosa_times_the_mass_of_the_reference_man(tmp_path):
    scan = write_scan(
        tmp_path, "a", 24.0, {"vertebrae_L3": 3.0, "vertebrae_L2": 3.0},
        organs={"vertebrae_L3": L3, "vertebrae_L2": L2, "kidney_left": KIDNEY}, sidecar={"weight_kg": 36.5},
    )  # fmt: skip
    marrow = measured(tmp_path, [scan]).loc["red_marrow"]
    # ICRP 89: 1170 g in a man of 73 kg; half of him has half of it. 1.03 g/mL; six tenths of the spongiosa hold all.
    assert marrow["mass_g"] == pytest.approx(585.0)
    assert marrow["activity_mbq"] == pytest.approx(3.0 / 0.6 * 585.0 / 1.03 / 1000.0)
    assert marrow["kind"] == "marrow"
    assert marrow["remark"] == "mass of ICRP 89 scaled to 36.5 kg"
    # Calibration 5 %, repeatability 5 %, fraction 10 %.
    assert marrow["sd_mbq"] / marrow["activity_mbq"] == pytest.approx(math.hypot(0.05, 0.05, 0.1))


def test_cortex_and_metastases_are_no_marrow(tmp_path):
    """The outermost voxels of the vertebra are hot bone here, and a metastasis sits in its middle."""
    inner = tuple(slice(part.start + 1, part.stop - 1) for part in L3)
    metastasis = (slice(17, 20), slice(18, 21), slice(23, 26))
    scan = write_scan(
        tmp_path, "a", 24.0, {"vertebrae_L3": 30.0, "inner": 3.0, "L01": 90.0},
        organs={"vertebrae_L3": L3}, lesions={"inner": inner, "L01": metastasis},
    )  # fmt: skip
    # `inner` is written to give the spongiosa its own activity; only the metastasis stays a lesion.
    folder = PatientFolder(tmp_path, "P1")
    path = folder.lesion_map("a")
    labels = read_image(path)
    write_image((labels == 2) * 2, path, {"quantity": "label", "unit": "1", "labels": {"2": "L01"}})
    marrow = measured(tmp_path, [scan]).loc["red_marrow"]
    assert marrow["activity_mbq"] == pytest.approx(3.0 / 0.6 * 1170.0 / 1.03 / 1000.0)


def test_woman(tmp_path):
    scan = write_scan(tmp_path, "a", 24.0, {}, organs={"vertebrae_L3": L3}, sidecar={"sex": "F", "weight_kg": 60.0})
    assert measured(tmp_path, [scan]).loc["red_marrow", "mass_g"] == pytest.approx(900.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"organs": {"kidney_left": KIDNEY}}, "none of the vertebrae L2 to L4"),
        ({"ct": False}, "no organ labels"),
        ({"slices": slice(34, 50)}, "is not in the SPECT"),
        ({"organs": {"vertebrae_L3": (slice(15, 18), slice(15, 18), slice(20, 23))}}, "0.1 mL of the vertebrae"),
        ({"sidecar": {"sex": "O"}}, "the sex in the DICOM header is O"),
        ({"sidecar": {"sex": None}}, "the sex in the DICOM header is missing"),
        ({"sidecar": {"weight_kg": None}}, "add weight_kg to scans.tsv"),
    ],
)
def test_without_what_it_needs_marrow_is_missing_with_the_reason(tmp_path, changes, reason):
    scan = write_scan(tmp_path, "a", 24.0, {}, **{"organs": {"vertebrae_L3": L3}, **changes})
    rows = measured(tmp_path, [scan])
    assert math.isnan(rows.loc["red_marrow", "activity_mbq"])
    assert reason in rows.loc["red_marrow", "remark"]
    assert rows.loc["whole_body", "activity_mbq"] > 0


def test_blood_beside_the_image(tmp_path):
    scan = write_scan(tmp_path, "a", 24.0, {}, organs={"vertebrae_L3": L3})
    samples = [
        {"patient": "P1", "timepoint": "dosimetry", "time_h": hours, "kbq_per_ml": kbq, "haematocrit": 0.47}
        for hours, kbq in ((1.0, 8.0), (24.0, 1.0))
    ]
    rows = measured(tmp_path, [scan], blood=samples)
    blood = rows.loc["red_marrow_blood"]
    assert list(blood["scan"]) == ["blood 1", "blood 2"]
    assert blood["activity_mbq"].iloc[0] == pytest.approx(0.19 / 0.53 * 8.0 * 1170.0 / 1.03 / 1000.0)
    assert blood["activity_mbq"].iloc[0] / blood["activity_mbq"].iloc[1] == pytest.approx(8.0)
    # Of a person without a sex in the header nothing is assumed: the rows are there and say why they are empty.
    unknown = write_scan(tmp_path, "a", 24.0, {}, organs={"vertebrae_L3": L3}, sidecar={"sex": None})
    told = measured(tmp_path, [unknown], blood=samples).loc["red_marrow_blood"]
    assert told["activity_mbq"].isna().all() and told["remark"].str.contains("the sex in the DICOM header").all()
    # One scan that tells is enough: gamma cameras often leave sex and weight out of the header of a planar scan.
    later = write_scan(tmp_path, "b", 48.0, {}, organs={"vertebrae_L3": L3})
    both = measured(tmp_path, [unknown, later], blood=samples).loc["red_marrow_blood"]
    assert both["activity_mbq"].to_numpy() == pytest.approx(blood["activity_mbq"].to_numpy())
    # Without the configuration's word there is no marrow, samples or not.
    plain = {key: value for key, value in SETTINGS.items() if key != "marrow"}
    assert set(measured(tmp_path, [scan], plain, samples).index) == {"whole_body"}
    # Marrow is part of the rest of the body: nothing is taken off for it.
    assert rows.loc["whole_body", "activity_mbq"] == pytest.approx(100_000 * VOXEL_ML / 1000.0)


@pytest.mark.parametrize(
    ("section", "accepted"),
    [
        (MARROW, True),
        ({"blood_ratio": 1.0}, True),
        ({"red_marrow_fraction": 0.6}, False),
        ({}, False),
        ({"blood_ratio": "plasma"}, False),
        ({"red_marrow_fraction": 1.2, "red_marrow_fraction_sd": 0.1}, False),
    ],
)
def test_configuration(section, accepted):
    schema = yaml.safe_load(SCHEMA.read_text())["properties"]["dosimetry"]["properties"]["marrow"]
    if accepted:
        validate(section, schema)
    else:
        with pytest.raises(ValidationError):
            validate(section, schema)


def test_self_dose_of_the_marrow_against_olinda():
    # shared/data/dosimetry_reference/organ_self_s_177Lu.csv: OLINDA 2, adult male, 1170 g: 1.15e-5 mGy/(MBq s).
    bound = marrow_self_dose("177Lu", 1170.0)
    assert 1.15e-14 / bound.gy_per_bq_s == pytest.approx(0.57, abs=0.005)
    assert "upper bound" in bound.source
    told = marrow_self_dose("177Lu", 1170.0, {"Lu-177": 0.57})
    assert told.gy_per_bq_s == pytest.approx(1.15e-14, rel=0.01)
    assert "57 %" in told.source
    # By hand: 0.93311 MeV of 90Y (ICRP 107) in 1 kg.
    assert marrow_self_dose("90Y", 1000.0, {"177Lu": 0.5}).gy_per_bq_s == pytest.approx(0.93311 * 1.602176634e-13)


@pytest.mark.parametrize(("nuclide", "mass", "message"), [("99mTc", 1000.0, "99mTc"), ("177Lu", 0.0, "mass of 0")])
def test_self_dose_refuses(nuclide, mass, message):
    with pytest.raises(TheraflowError, match=message):
        marrow_self_dose(nuclide, mass)
