"""Planar scans from DICOM to doses: the sheet knows them by their files, and the stages follow one another."""

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from planar_patient import INJECTED_MBQ, ORGANS, SENSITIVITY, SOURCES, SPECT_FWHM_MM, Phantom, write_anatomy
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from dicom_series import ct, detector, pet, planar, spect, view_code, write, write_slices
from settings import SCHEMA, default_settings
from theraflow.dicom import import_emission, import_planar
from theraflow.dicom.export.sniff import is_planar
from theraflow.dosimetry.activity import measure_activity, measure_planar
from theraflow.dosimetry.doses import compute_doses
from theraflow.errors import TheraflowError
from theraflow.images import read_image, to_array
from theraflow.layout import PatientFolder, Scan
from theraflow.sheets import read_scans
from theraflow.tables import read_table

LUTETIUM = {"radiopharmaceutical": "[177Lu]pentixather", "nuclide": "177Lu", "quantity": "activity"}
FLUORINE = {"radiopharmaceutical": "[18F]FDG", "nuclide": "18F", "quantity": "suv"}
DURATION_S, PIXEL_MM = 1200.0, 4.0
TIMES_H, SPECT_H = (4.0, 24.0, 72.0, 120.0), 25.0


def moment(dataset: Dataset, hours: float) -> None:
    """So many hours after the injection, at 10:00 of the first of May."""
    dataset.AcquisitionDate = f"202305{1 + int((10 + hours) // 24):02d}"
    dataset.AcquisitionTime = f"{int((10 + hours) % 24):02d}0000"
    dataset.RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose = INJECTED_MBQ


def sweep(rates: np.ndarray, hours: float, seed: int) -> Dataset:
    """One whole-body sweep: the camera behind the patient sees right and left exchanged."""
    counts = np.random.default_rng(seed).poisson(rates * DURATION_S)
    views = [detector(view_code(code)) for code in ("399321004", "399001007")]
    dataset = planar([counts[0], counts[1][:, ::-1]], views)
    dataset.PixelSpacing = [PIXEL_MM, PIXEL_MM]
    limits = Dataset()
    limits.EnergyWindowLowerLimit, limits.EnergyWindowUpperLimit = 187.2, 228.8
    window = Dataset()
    window.EnergyWindowRangeSequence = Sequence([limits])
    dataset.EnergyWindowInformationSequence = Sequence([window])
    moment(dataset, hours)
    return dataset


def volume(image: sitk.Image, hours: float) -> Dataset:
    """A SPECT in Bq/mL on the grid of an image."""
    values = to_array(image)
    slope = float(values.max()) / 65535.0
    dataset = spect(np.rint(values / slope), slope)
    dataset.PixelSpacing = [image.GetSpacing()[1], image.GetSpacing()[0]]
    dataset.SliceThickness = dataset.SpacingBetweenSlices = image.GetSpacing()[2]
    dataset.DetectorInformationSequence[0].ImagePositionPatient = list(image.GetOrigin())
    moment(dataset, hours)
    return dataset


def put(dataset: Dataset, path: Path) -> Path:
    """Save one object without identity of its own."""
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    return write(dataset, path)


def sheet(path: Path, rows: list[dict]) -> dict[str, list[Scan]]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", restval="NA")
        writer.writeheader()
        writer.writerows(rows)
    schema = yaml.safe_load((SCHEMA.parent / "scans.schema.yaml").read_text())
    return read_scans(path, schema, {"pentixather": LUTETIUM, "FDG": FLUORINE})


def row(scan: str, folder: Path, **columns) -> dict:
    return {
        "patient": "P1",
        "scan": scan,
        "tracer": "pentixather",
        "timepoint": "dosimetry",
        "dicom": folder,
        **columns,
    }


def test_from_dicom_to_doses(tmp_path):
    phantom, folder = Phantom(), PatientFolder(tmp_path / "results", "P1")
    write_anatomy(folder, Scan("P1", "spect1", "pentixather", "dosimetry", "", "activity"), phantom, SPECT_H)
    write(
        volume(read_image(folder.root / "scans" / "spect1" / "spect.nii.gz"), SPECT_H), tmp_path / "dicom" / "s" / "0"
    )
    rows = [row("spect1", tmp_path / "dicom" / "s")]
    for number, hours in enumerate(TIMES_H, start=1):
        rates = phantom.rates(hours, SENSITIVITY, PIXEL_MM, (280, 128), (-250.0 + 3.0 * number, 555.0 - 9.0 * number))
        write(sweep(rates, hours, number), tmp_path / "dicom" / f"p{number}" / "0")
        rows.append(row(f"wb{number}", tmp_path / "dicom" / f"p{number}"))
    scans = sheet(tmp_path / "scans.tsv", rows)["P1"]
    assert [scan.planar for scan in scans] == [False, True, True, True, True]
    for scan in scans:
        (import_planar if scan.planar else import_emission)(scan, LUTETIUM, folder.emission(scan))
    default = default_settings("dosimetry")
    settings = {
        **default, "organs": list(ORGANS), "spect_fwhm_mm": SPECT_FWHM_MM,
        "planar": {**default["planar"], "fwhm_mm": 12.0},
    }  # fmt: skip
    measure_planar(folder, scans[1:], scans[:1], settings)
    measure_activity(folder, scans, settings)
    compute_doses(folder, scans, settings, "90Y", [])
    curves = read_table(folder.table("curves"))
    assert list(curves[curves["region"] == "spleen"]["scan"]) == ["wb1", "spect1", "wb3", "wb4"]
    doses = read_table(folder.table("doses")).set_index(["region", "nuclide"])
    for region in ORGANS:
        source = SOURCES[region]
        found = doses.loc[(region, "177Lu")]
        assert found["t_eff_h"] == pytest.approx(source.half_life_h, rel=0.03)
        uptake = source.activity_mbq / INJECTED_MBQ
        assert found["tia_h"] == pytest.approx(uptake * source.half_life_h / np.log(2.0), rel=0.06)
        assert doses.loc[(region, "90Y"), "dose_gy_per_gbq"] > 0.0


# ------------------------------------------------------------------------------------------------ known by their files


def flat(kind: str = "WHOLE BODY") -> Dataset:
    return planar(np.ones((2, 4, 5)), kind=kind)


def pt() -> Dataset:
    dataset = pet()
    dataset.PixelData = np.zeros((4, 5), np.uint16).tobytes()
    return dataset


@pytest.mark.parametrize(
    ("datasets", "expected"),
    [
        ([flat()], True),
        ([flat("STATIC")], True),
        ([flat("DYNAMIC")], False),
        ([flat("TOMO")], False),
        ([flat(), spect(np.ones((3, 4, 5)))], False),
        ([flat(), pt()], False),
        ([spect(np.ones((3, 4, 5)))], False),
        ([], False),
    ],
)
def test_planar_views_are_known_by_their_files(tmp_path, datasets, expected):
    for k, dataset in enumerate(datasets):
        put(dataset, tmp_path / "in" / f"{k}")
    assert is_planar(tmp_path / "in") is expected


def test_a_ct_and_broken_files_beside_the_views_change_nothing(tmp_path):
    put(flat(), tmp_path / "in" / "views" / "0")
    write_slices(ct(), np.zeros((3, 4, 5)), tmp_path / "in" / "ct")
    (tmp_path / "in" / "notes.txt").write_text("no DICOM")
    path = put(flat(), tmp_path / "in" / "cut" / "0")
    path.write_bytes(path.read_bytes()[:200])
    assert is_planar(tmp_path / "in")
    assert not is_planar(tmp_path / "nowhere")


def test_the_sheet_decides_where_a_folder_holds_both(tmp_path):
    put(flat(), tmp_path / "in" / "0")
    put(spect(np.ones((3, 4, 5))), tmp_path / "in" / "1")
    rows = [row("wb", tmp_path / "in", planar="yes", before_voiding="yes"), row("spect", tmp_path / "in")]
    wb, volume_ = sheet(tmp_path / "scans.tsv", rows)["P1"]
    assert (wb.planar, wb.before_voiding, wb.emission) == (True, True, "planar")
    assert (volume_.planar, volume_.before_voiding, volume_.emission) == (False, False, "spect")
    (tmp_path / "in" / "1").unlink()
    (forced, _) = sheet(tmp_path / "scans.tsv", [row("a", tmp_path / "in", planar="no"), rows[0]])["P1"]
    assert not forced.planar


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tracer": "FDG"}, "planar views have no SUV, in which the tracer 'FDG' is measured"),
        ({"lesions": "lesions.nii.gz"}, "on planar views no regions can be drawn"),
        ({"planar": "no", "before_voiding": "yes"}, "before_voiding has no meaning but of planar views"),
        ({"planar": "maybe"}, "'maybe' is not one of"),
    ],
)
def test_what_has_no_meaning_of_planar_views_is_refused(tmp_path, change, message):
    rows = [row("spect", tmp_path), row("wb", tmp_path, planar="yes") | change]
    with pytest.raises(TheraflowError, match=message):
        sheet(tmp_path / "scans.tsv", rows)


def test_planar_views_alone_are_refused(tmp_path):
    with pytest.raises(TheraflowError, match="names only planar scans of patient 'P1'"):
        sheet(tmp_path / "scans.tsv", [row("wb", tmp_path, planar="yes")])
