"""Blood samples: red marrow by Sgouros' ratio, computed by hand; times; refusals."""

from pathlib import Path

import pytest
import SimpleITK as sitk
import yaml

from theraflow.dosimetry.activity.blood import blood_points
from theraflow.dosimetry.activity.marrow import MarrowMass
from theraflow.errors import TheraflowError
from theraflow.images import write_image
from theraflow.layout import PatientFolder, Scan
from theraflow.sheets import read_sheet

SCHEMA = Path(__file__).resolve().parents[2] / "workflow" / "schemas" / "blood.schema.yaml"
MASS = MarrowMass(1030.0, "a reference")  # 1 L
SAMPLE = {"patient": "P1", "timepoint": "dosimetry", "time_h": 2.0, "kbq_per_ml": 5.0, "haematocrit": 0.47}


@pytest.fixture
def patient(tmp_path) -> tuple[PatientFolder, list[Scan]]:
    folder, scan = PatientFolder(tmp_path, "P1"), Scan("P1", "spect1", "t", "dosimetry", "", "activity")
    sidecar = {"quantity": "activity concentration", "unit": "Bq/mL", "injected_at": "2023-05-04T09:00:00"}
    write_image(sitk.Image([2, 2, 2], sitk.sitkFloat32), folder.emission(scan), sidecar)
    return folder, [scan]


def test_ratio_of_sgouros_and_of_the_configuration(patient):
    (row,) = blood_points(*patient, [SAMPLE], {"blood_ratio": "haematocrit"}, MASS)
    # J Nucl Med 1993;34:689: at a haematocrit of 0.47 the ratio is 0.36. 5 kBq/mL in 1 L of marrow.
    assert row["activity_mbq"] == pytest.approx(0.36 * 5.0, rel=0.005)
    assert (row["region"], row["kind"], row["scan"], row["time_h"]) == ("red_marrow_blood", "marrow", "blood 1", 2.0)
    assert row["mass_g"] == 1030.0
    (one,) = blood_points(*patient, [SAMPLE], {"blood_ratio": 1.0}, MASS)
    assert one["activity_mbq"] == pytest.approx(5.0)
    # Nothing known of the sample's error: nothing said.
    assert one["sd_mbq"] != one["sd_mbq"]
    (told,) = blood_points(*patient, [{**SAMPLE, "sd_kbq_per_ml": 0.5}], {"blood_ratio": 1.0}, MASS)
    assert told["sd_independent_mbq"] == pytest.approx(0.5)


def test_time_of_day_and_other_patients(patient):
    samples = [
        {**SAMPLE, "patient": "P2"},
        {**SAMPLE, "timepoint": "another"},
        {key: value for key, value in SAMPLE.items() if key != "time_h"} | {"sampled_at": "2023-05-05 10:30"},
    ]
    rows = blood_points(*patient, samples, {"blood_ratio": 1.0}, MASS)
    assert [row["time_h"] for row in rows] == [25.5]
    assert blood_points(*patient, samples[:2], {}, MASS) == []


@pytest.mark.parametrize(
    ("changes", "ratio", "message"),
    [
        ({}, {}, "does not say how much"),
        ({"haematocrit": None}, {"blood_ratio": "haematocrit"}, "sample 1 of P1 has no haematocrit"),
        ({"time_h": None}, {"blood_ratio": 1.0}, "needs its time"),
        ({"sampled_at": "2023-05-05 10:30"}, {"blood_ratio": 1.0}, "not both"),
        ({"time_h": None, "sampled_at": "2023-05-05"}, {"blood_ratio": 1.0}, "write it as 2023-05-04 10:15"),
        ({"time_h": None, "sampled_at": "5.5.23 9:00"}, {"blood_ratio": 1.0}, "write it as 2023-05-04 10:15"),
        ({"time_h": None, "sampled_at": "2023-05-04 08:00"}, {"blood_ratio": 1.0}, "before the injection"),
    ],
)
def test_refusals(patient, changes, ratio, message):
    sample = {key: value for key, value in (SAMPLE | changes).items() if value is not None}
    with pytest.raises(TheraflowError, match=message):
        blood_points(*patient, [sample], ratio, MASS)


def test_sheet(tmp_path):
    path = tmp_path / "blood.tsv"
    path.write_text(
        "patient\ttimepoint\ttime_h\tsampled_at\tkbq_per_ml\tsd_kbq_per_ml\thaematocrit\n"
        "P1\tdosimetry\t0,5\tNA\t12,5\t0.4\t0.41\nP1\tdosimetry\tNA\t2023-05-05 10:30\t3\tNA\tNA\n"
    )
    first, second = read_sheet(path, yaml.safe_load(SCHEMA.read_text()))
    assert first == {"patient": "P1", "timepoint": "dosimetry", "time_h": 0.5, "kbq_per_ml": 12.5,
                     "sd_kbq_per_ml": 0.4, "haematocrit": 0.41}  # fmt: skip
    assert second == {"patient": "P1", "timepoint": "dosimetry", "sampled_at": "2023-05-05 10:30", "kbq_per_ml": 3.0}
    path.write_text("patient\ttimepoint\ttime_h\tkbq_per_ml\thaematocrit\nP1\tdosimetry\t1\t2\t41\n")
    with pytest.raises(TheraflowError, match="haematocrit"):
        read_sheet(path, yaml.safe_load(SCHEMA.read_text()))
