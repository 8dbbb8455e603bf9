"""The BIDS dataset against the names of the BIDS schema, and, where it is installed, the official validator."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.exchange.bids import describe_emission, label, labels, write_bids
from theraflow.files import write_text
from theraflow.images import write_image
from theraflow.layout import PatientFolder, Scan

# BIDS schema 1.10, rules/files/deriv: entities in the order of rules/entities.yaml, of the suffixes that are used here.
LABEL = "[0-9a-zA-Z]+"
BIDS_NAMES = [
    r"/(README\.md|dataset_description\.json|participants\.(tsv|json))",
    rf"/(sub-{LABEL})/\1_sessions\.(tsv|json)",
    rf"/(sub-{LABEL})/(ses-{LABEL})/pet/\1_\2_trc-{LABEL}_desc-{LABEL}_pet\.(nii\.gz|json)",
    rf"/(sub-{LABEL})/(ses-{LABEL})/anat/\1_\2_seg-{LABEL}_dseg\.(nii\.gz|json|tsv)",
]
SCANS = {
    "P-1": (
        Scan("P-1", "fdg", "FDG", "baseline", "dicom", "suv"),
        Scan("P-1", "lu_24h", "[177Lu]X", "dosimetry", "dicom", "activity"),
        Scan("P-1", "plane_48h", "[177Lu]X", "dosimetry", "dicom", "activity", planar=True),
    ),
    "P2": (Scan("P2", "fdg", "FDG", "baseline", "dicom", "suv"),),
}
UID, DATE = "1.2.840.99.7", "2017-03-06"


def sidecar(**facts):
    told = {"series_instance_uid": UID, "acquired_at": f"{DATE}T09:15:00", "injected_at": f"{DATE}T08:14:00",
            "radiopharmaceutical": "[18F]FDG", "nuclide": "18F", "injected_mbq": 291.2, "weight_kg": 80.9,
            "time_after_injection_h": 1.25, "scanner": "Maker Model", "suv": None}  # fmt: skip
    return {**told, **facts}


def image(value: int) -> sitk.Image:
    return sitk.GetImageFromArray(np.full((3, 4, 5), value, np.int16))


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Results of two patients: one with everything, one with a PET alone."""
    folder = tmp_path_factory.mktemp("run") / "results"
    for patient, scans in SCANS.items():
        place = PatientFolder(folder, patient)
        for number, scan in enumerate(scans):
            suv = {"decay_correction": "START"} if scan.quantity == "suv" else None
            told = sidecar(quantity="SUVbw", unit="g/mL", suv=suv)
            write_image(image(number + 1), place.emission(scan), told)
        write_text("patient\tscan\tvolume_ml\nP\tfdg\t1.5\nP\tlu_24h\tNA\n", place.table("lesions"))
    place, scan = PatientFolder(folder, "P-1"), "fdg"
    write_image(image(10), place.ct(scan), sidecar(quantity="HU", unit="HU"))
    write_image(image(11), place.organs(scan), sidecar(quantity="organ label", unit="1", labels={"5": "liver"}))
    write_image(image(12), place.lesion_map(scan), sidecar(quantity="lesion label", unit="1", labels={"1": "L01"}))
    told = {"quantity": "absorbed dose per administered activity", "unit": "Gy/GBq", "method": "m", "limits": "l"}
    write_image(image(13), place.dose_map, sidecar(**told, nuclide="90Y", scan="lu_24h"))
    write_image(image(14), place.dose_map_of("177Lu"), sidecar(**told, nuclide="177Lu", scan="lu_24h"))
    return folder


@pytest.fixture(scope="module")
def dataset(results) -> Path:
    sheet = results.parent / "patients.tsv"
    sheet.write_text("patient\tsex\tage_y\tdeath_date\nP-1\tF\t89\t2019-01-02\nP2\tM\t50\tNA\nP3\tNA\tNA\tNA\n")
    write_bids(results / "bids", SCANS, results, sheet)
    return results / "bids"


def names(dataset: Path) -> list[str]:
    return [f"/{path.relative_to(dataset).as_posix()}" for path in dataset.rglob("*") if path.is_file()]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_every_name_is_one_of_bids_or_is_named_in_bidsignore(dataset):
    ignored = dataset.joinpath(".bidsignore").read_text().split()
    found = {name: any(re.fullmatch(pattern, name) for pattern in BIDS_NAMES) for name in names(dataset)}
    assert sum(found.values()) > 15
    for name, known in found.items():
        assert known or name == "/.bidsignore" or set(name.split("/")[1:-1]) & set(ignored), name
    assert not [name for name, known in found.items() if known and set(name.split("/")) & set(ignored)]


def test_the_official_validator_finds_no_error(dataset):
    program = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent)) or shutil.which(
        "bids-validator-deno"
    )
    if program is None:
        pytest.skip("bids-validator-deno (PyPI, 100 MB with its deno) is not installed")
    said = subprocess.run([program, "--json", dataset], capture_output=True, text=True)
    issues = json.loads(said.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_every_image_is_there_voxel_by_voxel(dataset):
    first = {
        path.name.removeprefix("sub-P1_"): int(sitk.GetArrayFromImage(sitk.ReadImage(path)).max())
        for path in dataset.joinpath("sub-P1").rglob("*.nii.gz")
    }
    assert first == {
        "ses-fdg_trc-FDG_desc-SUVbw_pet.nii.gz": 1,
        "ses-lu24h_trc-177LuX_desc-activity_spect.nii.gz": 2,
        "ses-plane48h_trc-177LuX_desc-counts_planar.nii.gz": 3,
        "ses-fdg_desc-HU_ct.nii.gz": 10,
        "ses-fdg_seg-organs_dseg.nii.gz": 11,
        "ses-fdg_seg-lesions_dseg.nii.gz": 12,
        "ses-lu24h_trc-177LuX_desc-90Y_dose.nii.gz": 13,
        "ses-lu24h_trc-177LuX_desc-177Lu_dose.nii.gz": 14,
    }


def test_images_take_no_room_twice(dataset, results):
    original = results / "P-1" / "scans" / "fdg" / "pet.nii.gz"
    linked = next(dataset.glob("sub-P1/ses-fdg/pet/*.nii.gz"))
    assert linked.samefile(original)


def test_where_there_are_no_hard_links_images_are_copied(results, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("not supported")

    monkeypatch.setattr("os.link", refuse)
    write_bids(tmp_path / "bids", {"P2": SCANS["P2"]}, results)
    copied = next((tmp_path / "bids").glob("sub-P2/ses-fdg/pet/*.nii.gz"))
    assert copied.read_bytes() == (results / "P2" / "scans" / "fdg" / "pet.nii.gz").read_bytes()
    assert rows(tmp_path / "bids" / "participants.tsv")[0]["sex"] == "n/a"  # without a sheet


def test_labels_map_back_to_the_results(dataset):
    assert rows(dataset / "participants.tsv") == [
        {"participant_id": "sub-P1", "patient": "P-1", "sex": "F", "age": "89+"},
        {"participant_id": "sub-P2", "patient": "P2", "sex": "M", "age": "50"},
    ]
    assert [tuple(row.values()) for row in rows(dataset / "sub-P1" / "sub-P1_sessions.tsv")] == [
        ("ses-fdg", "fdg", "FDG", "baseline"),
        ("ses-lu24h", "lu_24h", "[177Lu]X", "dosimetry"),
        ("ses-plane48h", "plane_48h", "[177Lu]X", "dosimetry"),
    ]
    organs = next(dataset.glob("sub-P1/ses-fdg/anat/*_seg-organs_dseg.tsv"))
    assert rows(organs) == [{"index": "5", "name": "liver"}]


def test_a_label_map_names_the_image_on_whose_voxels_it_lies(dataset):
    for name, kind in (("organs", "ct"), ("lesions", "pet")):
        told = json.loads(next(dataset.glob(f"sub-P1/ses-fdg/anat/*_seg-{name}_dseg.json")).read_text())
        grid = dataset / told["SpatialReference"].removeprefix("bids::")
        assert grid.is_file() and grid.parent.name == kind


def test_the_sidecar_speaks_pet_bids(dataset):
    told = json.loads(next(dataset.glob("sub-P1/ses-fdg/pet/*.json")).read_text())
    assert told == {
        "Description": "SUVbw",
        "Units": "g/mL",
        "ManufacturersModelName": "Maker Model",
        "TracerName": "[18F]FDG",
        "TracerRadionuclide": "F18",
        "InjectedRadioactivity": 291.2,
        "InjectedRadioactivityUnits": "MBq",
        "InjectionStart": 0,
        "ScanStart": 4500.0,
        "BodyWeight": 80.9,
        "BodyWeightUnits": "kg",
        "ImageDecayCorrected": True,
        "SkullStripped": False,
    }


def test_what_is_not_known_is_left_out():
    told = sidecar(quantity="activity concentration", unit="Bq/mL", scanner=None, injected_mbq=None, weight_kg=None,
                   time_after_injection_h=None, nuclide="99mTc")  # fmt: skip
    facts = describe_emission(told)
    assert facts["TracerRadionuclide"] == "Tc99m"
    assert set(facts) == {"Description", "Units", "TracerName", "TracerRadionuclide", "SkullStripped"}


@pytest.mark.parametrize("stated", ["START", "ADMIN", "NONE", None])
def test_suv_is_never_to_be_corrected_for_decay_again(stated):
    told = sidecar(quantity="SUVbw", unit="g/mL", suv={"decay_correction": stated})
    assert describe_emission(told)["ImageDecayCorrected"] is True


def test_tables_have_the_missing_value_of_bids(dataset):
    assert rows(dataset / "sub-P1" / "tables" / "sub-P1_lesions.tsv")[1]["volume_ml"] == "n/a"


def test_there_is_no_date_and_no_uid(dataset):
    text = "".join(path.read_text() for path in dataset.rglob("*") if path.suffix in (".json", ".tsv", ".md"))
    assert UID not in text and DATE not in text and "2019" not in text and "09:15" not in text


def test_names_that_become_the_same_label_are_refused():
    assert label("lu_24h-b") == "lu24hb"
    assert labels(["a", "b"], "patients") == {"a": "a", "b": "b"}
    for pair in (["P-1", "P_1"], ["ab", "AB"]):  # file systems that know no case
        with pytest.raises(TheraflowError, match="Rename one"):
            labels(pair, "patients")
