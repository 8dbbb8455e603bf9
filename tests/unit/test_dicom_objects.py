"""DICOM objects of a small patient: what comes back by the imports, by highdicom and by pydicom alone."""

import shutil
import subprocess
from pathlib import Path

import highdicom as hd
import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from patient_on_disk import TRACERS
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicom_series import ct, enhanced, pet, spect, whole_mask, write, write_slices
from theraflow.dicom import import_ct, import_emission, read_annotation
from theraflow.errors import TheraflowError
from theraflow.images import (
    divided,
    from_array,
    grid_of,
    image_of_crop,
    read_image,
    read_sidecar,
    to_array,
    write_image,
)
from theraflow.layout import PatientFolder, Scan
from theraflow.lesions import LESION_COLUMNS
from theraflow.nifti import Grid
from theraflow.objects.codes import organ_code, site_code
from theraflow.objects.dose import build_dose
from theraflow.objects.origin import ct_origin, emission_origin
from theraflow.objects.segmentation import build_segmentation
from theraflow.objects.segments import Made, Segment
from theraflow.objects.stage import write_dicom_objects
from theraflow.organs import ORGAN_IDS, import_organs
from theraflow.tables import read_table, write_table

NAME, BIRTH = "Müller^Jörg", "19510203"
PSEUDONYM = "P001"
# A lesion that is positive in both tracers, one in FDG alone, and one of which the SPECT has no voxel.
ROWS = {
    "L01": {"site": "lymph node", "station": "iliac", "volume_ml": 0.576, "suv_max": 7.776037693023682,
            "suv_mean": 5.4248215252893015, "suv_peak": 6.988637846989759, "sul_peak": 5.630852674993484,
            "tbr": 4.78608997298787, "background_region": "blood_pool", "tlg_ml": 3.1246971985666377,
            "positive": True, "longest_diameter_mm": 21.503488692301577, "source": "reader"},
    "L02": {"site": "kidney left", "volume_ml": 0.384, "suv_max": 1 / 3, "suv_mean": 2e-7, "positive": False,
            "source": "carried"},
    "L03": {"site": None, "volume_ml": 0.096, "suv_max": 12.0, "source": "click"},
}  # fmt: skip


def told(dataset, patient_id="HOSP-4711X"):
    """The same with a patient and a study, in Latin-1 as many scanners write."""
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex = NAME, patient_id, BIRTH, "M"
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber, dataset.StudyID = (
        "20230501",
        "100000",
        "A98765",
        "77",
    )
    dataset.Manufacturer = "Scanner works"
    dataset.AcquisitionDate, dataset.AcquisitionTime = dataset.get("AcquisitionDate", "20230501"), "110000"
    return dataset


def sized(dataset):
    dataset.Rows, dataset.Columns = 10, 12
    dataset.NumberOfFrames = 1  # as some single slices say
    return dataset


def box(shape, *corner_and_size):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, a + n) for a, n in corner_and_size)] = True
    return mask


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """PET with CT, and SPECT without; organs, lesions and a dose map, as the stages leave them."""
    root = tmp_path_factory.mktemp("patient")
    values = np.arange(8 * 10 * 12, dtype=np.uint16).reshape(8, 10, 12)
    write_slices(told(sized(pet())), values, root / "dicom" / "fdg" / "PET")
    write_slices(told(sized(ct())), values + 1000, root / "dicom" / "fdg" / "CT")
    write(told(spect(values)), root / "dicom" / "lu" / "NM")
    scans = [
        Scan(PSEUDONYM, "fdg", "FDG", "baseline", str(root / "dicom" / "fdg"), "suv"),
        Scan(PSEUDONYM, "lu", "pentixather", "dosimetry", str(root / "dicom" / "lu"), "activity"),
    ]
    folder = PatientFolder(root / "results", PSEUDONYM)
    for scan in scans:
        import_emission(scan, TRACERS[scan.tracer], folder.emission(scan))
    import_ct(scans[0], folder.ct("fdg"))
    write_organs(folder)
    write_lesions(folder, scans)
    write_dose_map(folder)
    return folder, scans


def write_organs(folder):
    image = read_image(folder.ct("fdg"))
    labels = np.zeros(image.GetSize()[::-1], np.uint8)
    labels[2:5, 1:6, 1:4] = ORGAN_IDS["liver"]
    labels[1:3, 6:9, 5:8] = ORGAN_IDS["kidney_left"]
    labels[6:8, 2:4, 8:11] = ORGAN_IDS["kidney_cyst_right"]
    labels[0, 0, 11] = ORGAN_IDS["rib_right_12"]
    names = {str(label): name for name, label in ORGAN_IDS.items()}
    sidecar = {"quantity": "organ label", "unit": "1", "labels": names, "source": "TotalSegmentator",
               "miniature_model": True, "versions": {"TotalSegmentator": "2.18.0"}}  # fmt: skip
    write_image(from_array(labels, image), folder.organs("fdg"), sidecar)


def write_lesions(folder, scans):
    rows = []
    for scan in scans:
        grid = read_image(folder.emission(scan))
        if scan.quantity == "activity":
            grid = divided(grid, 1.6)
        labels = np.zeros(grid.GetSize()[::-1], np.uint8)
        labels[box(labels.shape, (2, 3), (3, 4), (2, 2))] = 1
        labels[box(labels.shape, (4, 2), (1, 2), (6, 4))] = 2
        names = {"1": "L01", "2": "L02"}
        if scan.scan == "fdg":
            labels[7, 9, 0] = 3
            names["3"] = "L03"
        write_image(from_array(labels, grid), folder.lesion_map(scan.scan),
                    {"quantity": "lesion label", "unit": "1", "labels": names})  # fmt: skip
        for label, (name, row) in enumerate(ROWS.items(), start=1):
            kept = {key: value for key, value in row.items() if scan.quantity == "suv" or not key.startswith("su")}
            rows.append({"patient": PSEUDONYM, "scan": scan.scan, "tracer": scan.tracer, "lesion": name,
                         "label": label, **kept})  # fmt: skip
    table = pd.DataFrame(rows).reindex(columns=list(LESION_COLUMNS))
    write_table(table, folder.table("lesions"), LESION_COLUMNS)


def write_dose_map(folder):
    image = read_image(folder.root / "scans" / "lu" / "spect.nii.gz")
    dose = np.geomspace(1e-4, 9.0, to_array(image).size).reshape(image.GetSize()[::-1]).astype(np.float32)
    dose[0, 0, :3] = np.nan
    sidecar = {"quantity": "absorbed dose per administered activity", "unit": "Gy/GBq", "nuclide": "90Y", "scan": "lu"}
    write_image(from_array(dose, image), folder.dose_map, sidecar)
    # The second cycle's own scans show the liver, but not L01.
    cycles = pd.DataFrame({"patient": PSEUDONYM, "cycle": [1.0, 1.0, 2.0, 2.0], "region": ["liver", "L01"] * 2,
                           "nuclide": "90Y", "activity_gbq": [6.6, 6.6, 5.0, 5.0],
                           "source": ["coefficient of dosimetry", "coefficient of dosimetry",
                                      "measured in this cycle (second)", "coefficient of dosimetry"],
                           "timepoint": ["dosimetry", "dosimetry", "second", "dosimetry"]})  # fmt: skip
    write_table(cycles, folder.table("cycles"), list(cycles.columns))


def export(patient, output, organs=("fdg",), dose_map=True, identity="original", scans=None):
    folder, all_scans = patient
    write_dicom_objects(folder, scans or all_scans, organs, dose_map, TRACERS, identity, output)
    return output


@pytest.fixture(scope="module")
def objects(patient, tmp_path_factory):
    return export(patient, tmp_path_factory.mktemp("objects") / "dicom")


def test_every_object_is_listed_with_its_uid_or_with_the_reason_why_there_is_none(objects):
    table = read_table(objects / "objects.tsv")
    written = table.dropna(subset="file").set_index("file")["sop_instance_uid"]
    assert {path.name for path in objects.glob("*.dcm")} == set(written.index)
    assert set(written.index) == {
        "fdg_organs_seg.dcm", "fdg_lesions_seg.dcm", "fdg_lesions_sr.dcm", "fdg_projections_sc.dcm",
        "lu_lesions_seg.dcm", "lu_lesions_sr.dcm", "dose_cycle_1_rtdose.dcm",
    }  # fmt: skip
    for name, uid in written.items():
        assert pydicom.dcmread(objects / name).SOPInstanceUID == uid
    (absent,) = table[table["file"].isna()].to_dict("records")
    assert absent["remark"] == "the doses of cycle 2 are of second, and the dose map is of dosimetry"


def test_exported_organs_are_imported_again_voxel_by_voxel(patient, objects, tmp_path):
    folder, _ = patient
    import_organs(objects / "fdg_organs_seg.dcm", folder.ct("fdg"), tmp_path / "organs.nii.gz")
    assert np.array_equal(to_array(read_image(tmp_path / "organs.nii.gz")), to_array(read_image(folder.organs("fdg"))))


@pytest.mark.parametrize(("scan", "names"), [("fdg", ["L01", "L02", "L03"]), ("lu", ["L01", "L02"])])
def test_exported_lesions_are_imported_again_with_names_and_voxels(patient, objects, scan, names):
    folder, _ = patient
    image = read_image(folder.lesion_map(scan))
    found = read_annotation(objects / f"{scan}_lesions_seg.dcm", image)
    assert [one.name for one in found] == names
    for label, one in enumerate(found, start=1):
        assert np.array_equal(whole_mask(one), to_array(image) == label)


def codes_of(items):
    return {(value_of(item), item.CodingSchemeDesignator) for item in items}


def value_of(code):
    """Codes of more than 16 characters have an element of their own."""
    return code.get("CodeValue") or code.LongCodeValue


def test_segments_say_what_they_are_and_on_which_side(objects):
    described = {one.SegmentLabel: one for one in pydicom.dcmread(objects / "fdg_organs_seg.dcm").SegmentSequence}
    kidney = described["kidney_left"].SegmentedPropertyTypeCodeSequence[0]
    assert (kidney.CodeValue, kidney.CodingSchemeDesignator) == ("64033007", "SCT")
    assert codes_of(kidney.SegmentedPropertyTypeModifierCodeSequence) == {("7771000", "SCT")}
    cyst = described["kidney_cyst_right"]
    assert codes_of(cyst.SegmentedPropertyTypeCodeSequence) == {("367643001", "SCT")}
    assert codes_of(cyst.AnatomicRegionSequence) == {("64033007", "SCT")}
    assert codes_of(cyst.AnatomicRegionSequence[0].AnatomicRegionModifierSequence) == {("24028007", "SCT")}
    assert {one.SegmentAlgorithmType for one in described.values()} == {"AUTOMATIC"}
    assert described["kidney_left"].SegmentAlgorithmName == "TotalSegmentator, miniature model"
    lesions = pydicom.dcmread(objects / "fdg_lesions_seg.dcm").SegmentSequence
    assert [one.SegmentAlgorithmType for one in lesions] == ["MANUAL", "AUTOMATIC", "SEMIAUTOMATIC"]
    assert codes_of(lesions[0].AnatomicRegionSequence) == {("84219008", "SCT")}


def test_a_lesion_of_which_the_map_shows_less_than_the_table_measures_says_so(objects):
    """L01 has 24 voxels of 0.024 mL, L03 one of the four that the table counts."""
    described = pydicom.dcmread(objects / "fdg_lesions_seg.dcm").SegmentSequence
    assert "SegmentDescription" not in described[0]
    assert described[2].SegmentDescription.startswith("The lesion has 0.096 mL, of which the segment shows 0.024 mL")


EXPECTED = {  # column: code of the quantity, of the derivation, unit (PS3.16 CID 7180, 7464, 85)
    "volume_ml": ("118565006", None, "ml"),
    "suv_max": ("126401", "56851009", "g/ml{SUVbw}"),
    "suv_mean": ("126401", "373098007", "g/ml{SUVbw}"),
    "suv_peak": ("126401", "126031", "g/ml{SUVbw}"),
    "sul_peak": ("126405", "126031", "g/ml{SUVlbm(Janma)}"),
    "tbr": ("126039", None, "{ratio}"),
    "tlg_ml": ("126033", None, "g"),
    "longest_diameter_mm": ("103339001", None, "mm"),
}


def items_of(item, name):
    """Content items of a code of their name, by pydicom alone."""
    return [one for one in item.get("ContentSequence", ()) if value_of(one.ConceptNameCodeSequence[0]) == name]


def groups_of(report):
    (measurements,) = items_of(report, "126010")
    return items_of(measurements, "125007")


def numbers_of(group):
    found = {}
    for item in group.ContentSequence:
        if item.ValueType == "NUM":
            (value,) = item.MeasuredValueSequence
            derivations = [value_of(one.ConceptCodeSequence[0]) for one in items_of(item, "121401")]
            key = (value_of(item.ConceptNameCodeSequence[0]), *(derivations or [None]),
                   value_of(value.MeasurementUnitsCodeSequence[0]))  # fmt: skip
            found[key] = value.FloatingPointValue
            assert float(value.NumericValue) == pytest.approx(value.FloatingPointValue, rel=1e-9)
    return found


@pytest.mark.parametrize("scan", ["fdg", "lu"])
def test_pydicom_reads_the_numbers_of_the_table_to_the_last_digit(patient, objects, scan):
    folder, _ = patient
    table = read_table(folder.table("lesions"))
    table = table[table["scan"] == scan].set_index("lesion")
    groups = groups_of(pydicom.dcmread(objects / f"{scan}_lesions_sr.dcm"))
    names = [items_of(group, "112039")[0].TextValue for group in groups]
    assert names == ["L01", "L02", "L03"][: 3 if scan == "fdg" else 2]
    for name, group in zip(names, groups, strict=True):
        row = table.loc[name]
        known = {column: row[column] for column in EXPECTED if pd.notna(row[column])}
        if scan == "lu" and "tlg_ml" in known:
            uptake = ("lesion_uptake", None, "g")  # not of FDG: no glycolysis
            expected = {uptake: known.pop("tlg_ml")}
        else:
            expected = {}
        assert numbers_of(group) == expected | {EXPECTED[column]: value for column, value in known.items()}


def test_highdicom_reads_the_same_report(patient, objects):
    folder, _ = patient
    table = read_table(folder.table("lesions"))
    table = table[table["scan"] == "fdg"].set_index("lesion")
    report = hd.sr.srread(objects / "fdg_lesions_sr.dcm")
    segmentation = hd.seg.segread(objects / "fdg_lesions_seg.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 3
    for group in groups:
        name = group.tracking_identifier
        (number,) = segmentation.get_segment_numbers(tracking_uid=group.tracking_uid)
        assert segmentation.get_segment_description(number).tracking_id == name
        referenced = group.referenced_segment[0]
        assert referenced.referenced_sop_instance_uid == segmentation.SOPInstanceUID
        assert list(referenced.referenced_segment_numbers) == [number]
        for measured in group.get_measurements(name=codes.DCM.Suvbw):
            column = {"56851009": "suv_max", "373098007": "suv_mean", "126031": "suv_peak"}[measured.derivation.value]
            assert measured.value == table.loc[name, column]
    positive = Code("positive", "99THERAFLOW", "")
    answers = {
        group.tracking_identifier: [one.value.value for one in group.get_qualitative_evaluations(name=positive)]
        for group in groups
    }
    assert answers == {"L01": ["373066001"], "L02": ["373067005"], "L03": []}


def test_a_lesion_is_the_same_in_all_scans_and_no_two_lesions_are(objects):
    uids = {
        scan: {one.TrackingID: one.TrackingUID for one in pydicom.dcmread(path).SegmentSequence}
        for scan, path in ((scan, objects / f"{scan}_lesions_seg.dcm") for scan in ("fdg", "lu"))
    }
    assert all(uids["lu"][name] == uids["fdg"][name] for name in ("L01", "L02"))
    assert len(set(uids["fdg"].values())) == 3


def test_the_dose_is_map_times_activity_where_the_map_lies(patient, objects):
    folder, _ = patient
    image = read_image(folder.dose_map)
    expected = np.asarray(nibabel.load(folder.dose_map).dataobj).T.astype(float) * 6.6
    read = pydicom.dcmread(objects / "dose_cycle_1_rtdose.dcm")
    dose = read.pixel_array * float(read.DoseGridScaling)
    known = np.isfinite(expected)
    # Half a step of the 32 bits is 1e-10 of the greatest dose.
    np.testing.assert_allclose(dose[known], expected[known], rtol=1e-6, atol=2e-10 * np.nanmax(expected))
    assert (dose[~known] == 0).all() and "In 3 voxels there is no dose" in read.ImageComments
    assert (read.DoseUnits, read.DoseType, read.PixelData and read.BitsAllocated) == ("GY", "PHYSICAL", 32)
    k, j, i = 5, 7, 3
    row, column = np.array(read.ImageOrientationPatient, float).reshape(2, 3)
    place = np.array(read.ImagePositionPatient, float) + np.cross(row, column) * read.GridFrameOffsetVector[k]
    place = place + row * i * read.PixelSpacing[1] + column * j * read.PixelSpacing[0]
    np.testing.assert_allclose(place, image.TransformIndexToPhysicalPoint((i, j, k)), atol=1e-3)


def test_without_cycles_the_dose_is_that_of_one_gbq_and_says_so(patient, tmp_path):
    folder, scans = patient
    moved = PatientFolder(tmp_path / "results", PSEUDONYM)
    shutil.copytree(folder.root, moved.root)
    write_table(
        read_table(moved.table("cycles"))[:0], moved.table("cycles"), read_table(folder.table("cycles")).columns
    )
    read = pydicom.dcmread(export((moved, scans), tmp_path / "dicom") / "dose_1_gbq_rtdose.dcm")
    dose = read.pixel_array * float(read.DoseGridScaling)
    np.testing.assert_allclose(dose.max(), 9.0, rtol=1e-6)
    assert read.DoseComment == "normalised to 1 GBq of 90Y" and "No cycle" in read.ImageComments


def test_all_objects_lie_in_study_and_frame_of_the_series_with_its_patient(patient, objects):
    _, (fdg, _) = patient
    for path in objects.glob("*.dcm"):
        read = pydicom.dcmread(path)
        assert (read.StudyInstanceUID, read.PatientID, read.PatientBirthDate) == ("1.2", "HOSP-4711X", BIRTH)
        assert str(read.PatientName) == NAME and read.AccessionNumber == "A98765"
        if path.name.endswith(("seg.dcm", "rtdose.dcm")):
            assert read.FrameOfReferenceUID == "1.2.3.4"
    series = {pydicom.dcmread(path).SeriesInstanceUID for path in objects.glob("*.dcm")}
    assert len(series) == 7
    slices = [pydicom.dcmread(path) for path in Path(fdg.dicom, "PET").iterdir()]
    segmentation = pydicom.dcmread(objects / "fdg_lesions_seg.dcm")
    referred = segmentation.ReferencedSeriesSequence[0]
    assert referred.SeriesInstanceUID == slices[0].SeriesInstanceUID
    assert {one.ReferencedSOPInstanceUID for one in referred.ReferencedInstanceSequence} == {
        one.SOPInstanceUID for one in slices
    }
    # Each frame names the slice that it was drawn on.
    at = {one.SOPInstanceUID: list(one.ImagePositionPatient) for one in slices}
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert at[source] == list(frame.PlanePositionSequence[0].ImagePositionPatient)


def test_a_cycle_whose_own_scans_made_the_map_has_an_object(patient, tmp_path):
    folder, scans = patient
    moved = PatientFolder(tmp_path / "results", PSEUDONYM)
    shutil.copytree(folder.root, moved.root)
    cycles = read_table(moved.table("cycles"))
    cycles["source"] = ["measured in this cycle (dosimetry)", "coefficient of planar"] + ["coefficient of planar"] * 2
    cycles["timepoint"] = ["dosimetry"] + ["planar"] * 3
    write_table(cycles, moved.table("cycles"), cycles.columns)
    table = read_table(export((moved, scans), tmp_path / "dicom") / "objects.tsv")
    doses = table[table["object"] == "RTDOSE"]
    assert doses["file"].tolist() == ["dose_cycle_1_rtdose.dcm", pytest.approx(np.nan, nan_ok=True)]
    assert doses["remark"].iloc[1] == "the doses of cycle 2 are of planar, and the dose map is of dosimetry"


def test_a_number_that_is_none_is_left_out(tmp_path):
    """A weight with a decimal comma, and a size with more than the 16 characters of a decimal string."""
    series = told(sized(ct()))
    series.PatientWeight = "71.25"
    with pydicom.config.disable_value_validation():
        series.PatientSize = "1.7123456789012345"
        write_slices(series, np.full((8, 10, 12), 1000, np.uint16), tmp_path / "fdg" / "CT")
    for path in (tmp_path / "fdg" / "CT").iterdir():
        path.write_bytes(path.read_bytes().replace(b"71.25", b"71,25"))
    scan = Scan(PSEUDONYM, "fdg", "FDG", "baseline", str(tmp_path / "fdg"), "suv")
    import_ct(scan, tmp_path / "ct.nii.gz")
    origin = ct_origin(scan, read_sidecar(tmp_path / "ct.nii.gz"), None)
    assert "PatientWeight" not in origin.header and "PatientSize" not in origin.header
    assert origin.header.PatientID == "HOSP-4711X" and origin.obstacle is None


def test_the_file_of_imported_organs_is_not_named(patient, tmp_path):
    """Its name may be the patient's."""
    folder, scans = patient
    moved = PatientFolder(tmp_path / "results", PSEUDONYM)
    shutil.copytree(folder.root, moved.root)
    source = shutil.copy(folder.organs("fdg"), tmp_path / "Mueller_organs.nii.gz")
    import_organs(source, moved.ct("fdg"), moved.organs("fdg"))
    output = export((moved, scans), tmp_path / "dicom", dose_map=False, identity="pseudonym")
    assert b"Mueller" not in (output / "fdg_organs_seg.dcm").read_bytes()
    algorithm = pydicom.dcmread(output / "fdg_organs_seg.dcm").SegmentSequence[0]
    assert (algorithm.SegmentAlgorithmType, algorithm.SegmentAlgorithmName) == ("SEMIAUTOMATIC", "Imported label map")


def test_with_a_pseudonym_nothing_tells_who_the_patient_is(patient, tmp_path):
    output = export(patient, tmp_path / "dicom", identity="pseudonym")
    for path in output.iterdir():
        content = path.read_bytes()
        for word in ("Müller", "Jörg", "HOSP-4711X", BIRTH, "A98765"):
            assert word.encode() not in content and word.encode("latin-1") not in content, (path, word)
    read = pydicom.dcmread(output / "fdg_lesions_seg.dcm")
    assert (read.PatientID, str(read.PatientName), read.PatientIdentityRemoved) == ("P001", "P001", "YES")
    assert (read.StudyInstanceUID, read.PatientBirthDate, read.AccessionNumber) == ("1.2", "", "")


def test_the_log_does_not_tell_who_the_patient_is(patient, tmp_path, caplog, recwarn):
    """Not even where name and dates are none that the standard allows, of which pydicom and highdicom warn."""
    values = np.arange(8 * 10 * 12, dtype=np.uint16).reshape(8, 10, 12)
    strange = told(sized(pet()), patient_id="HOSP-4711X")
    with pydicom.config.disable_value_validation():
        strange.PatientName, strange.PatientBirthDate, strange.PatientSex = "Zyxwvut", "1951.02.31", "weiblich"
        strange.AccessionNumber = "Zyxwvut with more than 16 letters"
        write_slices(strange, values, tmp_path / "fdg" / "PET")
    scan = Scan(PSEUDONYM, "fdg", "FDG", "baseline", str(tmp_path / "fdg"), "suv")
    caplog.clear()
    recwarn.clear()
    with caplog.at_level("DEBUG"):
        output = export(patient, tmp_path / "dicom", organs=(), dose_map=False, scans=[scan])
    words = caplog.text + "".join(str(one.message) for one in recwarn)
    assert not [word for word in ("Zyxwvut", "1951", "HOSP-4711X", "weiblich") if word in words], words
    for path in output.glob("*.dcm"):
        read = pydicom.dcmread(path)
        assert (str(read.PatientName), read.PatientBirthDate, read.PatientSex) == ("Zyxwvut", "", "")


def test_the_same_results_give_the_same_bytes_and_others_other_uids(patient, objects, tmp_path):
    again = export(patient, tmp_path / "again")
    for path in objects.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name
    folder, scans = patient
    moved = PatientFolder(tmp_path / "results", PSEUDONYM)
    shutil.copytree(folder.root, moved.root)
    image = read_image(folder.lesion_map("fdg"))
    labels = to_array(image)
    labels[7, 9, 1] = 3
    sidecar = {"quantity": "lesion label", "unit": "1", "labels": {"1": "L01", "2": "L02", "3": "L03"}}
    write_image(from_array(labels, image), moved.lesion_map("fdg"), sidecar)
    changed = export((moved, scans), tmp_path / "changed")
    uids = [read_table(one / "objects.tsv").set_index("file")["sop_instance_uid"] for one in (objects, changed)]
    differing = {name for name in uids[0].dropna().index if uids[0][name] != uids[1][name]}
    assert differing == {"fdg_lesions_seg.dcm", "fdg_lesions_sr.dcm", "fdg_projections_sc.dcm"}


def test_a_scan_without_organs_lesions_or_dose_is_ordinary(patient, tmp_path):
    folder, scans = patient
    moved = PatientFolder(tmp_path / "results", PSEUDONYM)
    shutil.copytree(folder.root, moved.root)
    write_table(read_table(folder.table("lesions"))[:0], moved.table("lesions"), LESION_COLUMNS)
    output = export((moved, scans), tmp_path / "dicom", organs=(), dose_map=False)
    table = read_table(output / "objects.tsv")
    assert set(table["file"].dropna()) == {"fdg_projections_sc.dcm"}
    assert set(table["remark"].dropna()) == {"no lesion has a voxel here"}


def test_a_spect_without_frame_of_reference_has_no_objects_and_says_why(patient, tmp_path):
    values = np.arange(8 * 10 * 12, dtype=np.uint16).reshape(8, 10, 12)
    dataset = told(spect(values))
    del dataset.FrameOfReferenceUID
    write(dataset, tmp_path / "lu" / "NM")
    scan = Scan(PSEUDONYM, "lu", "pentixather", "dosimetry", str(tmp_path / "lu"), "activity")
    table = read_table(export(patient, tmp_path / "dicom", organs=(), scans=[scan]) / "objects.tsv")
    assert table["file"].isna().all() and len(table) == 3
    assert table["remark"].str.startswith("the series lacks FrameOfReferenceUID").all()


def test_another_series_than_the_imported_one_is_refused_and_the_old_folder_stays(patient, objects, tmp_path):
    output = tmp_path / "dicom"
    shutil.copytree(objects, output)
    values = np.arange(8 * 10 * 12, dtype=np.uint16).reshape(8, 10, 12)
    write_slices(told(sized(pet())), values, tmp_path / "other" / "PET", changes=[{"SeriesInstanceUID": "1.9"}] * 8)
    scan = Scan(PSEUDONYM, "fdg", "FDG", "baseline", str(tmp_path / "other"), "suv")
    with pytest.raises(TheraflowError, match="delete its images so that they are imported again"):
        export(patient, output, scans=[scan])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dicom", "other"]
    assert len(list(output.iterdir())) == len(list(objects.iterdir()))


def test_a_multi_frame_series_is_referred_to_frame_by_frame(tmp_path):
    """Frames in any order: the one at 30 + 4 * place holds slice `place`."""
    order = [3, 0, 4, 1, 2]
    stored = np.zeros((5, 6, 7), np.uint16)
    write(told(enhanced("CT", stored + 1000, order)), tmp_path / "CT" / "1")
    scan = Scan(PSEUDONYM, "fdg", "FDG", "baseline", str(tmp_path / "CT"), "suv")
    import_ct(scan, tmp_path / "ct.nii.gz")
    origin = ct_origin(scan, read_sidecar(tmp_path / "ct.nii.gz"), None)
    labels = np.zeros((5, 6, 7), np.uint8)
    labels[:, 2, 3] = 9
    organ = Segment(9, "liver", codes.SCT.AnatomicalStructure, organ_code("liver")[0], Made("MANUAL"))
    read = build_segmentation(labels, origin.grid, origin, [organ], "Organs", 9001)
    for frame in read.PerFrameFunctionalGroupsSequence:
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        place = order[int(source.ReferencedFrameNumber) - 1]
        assert frame.PlanePositionSequence[0].ImagePositionPatient[2] == 30.0 + 4.0 * place


@st.composite
def labels_on_a_grid(draw):
    """A label map of any shape, oblique, with anisotropic voxels, its slices along either direction.

    Frames have at least 8 pixels: fewer, as no scanner has, highdicom 0.28 packs in a wrong way.
    """
    shape = draw(st.tuples(st.integers(1, 6), st.integers(2, 7), st.integers(4, 9)))
    labels = draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, 4)))
    labels[tuple(draw(st.integers(0, n - 1)) for n in shape)] = 3
    angles = [draw(st.floats(-3.0, 3.0)) for _ in range(3)]
    axes = np.eye(3)
    for (a, b), angle in zip(((0, 1), (0, 2), (1, 2)), angles, strict=True):
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        axes = axes @ turn
    axes[:, 2] *= draw(st.sampled_from([1, -1]))
    spacing = tuple(draw(st.floats(0.5, 8.0)) for _ in range(3))
    origin = tuple(draw(st.floats(-900.0, 900.0)) for _ in range(3))
    return labels, Grid(shape[::-1], spacing, origin, tuple(axes.ravel().tolist()))


@pytest.fixture(scope="module")
def any_origin(patient):
    folder, scans = patient
    return emission_origin(scans[0], TRACERS["FDG"], read_sidecar(folder.emission(scans[0])), None)


@given(case=labels_on_a_grid())
@settings(deadline=None, max_examples=25)
def test_any_label_map_on_any_grid_comes_back(any_origin, tmp_path_factory, case):
    labels, grid = case
    present = [int(label) for label in np.unique(labels) if label]
    kind = (codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion, Made("MANUAL"))
    segments = [Segment(label, f"L{label:02d}", *kind) for label in present]
    dataset = build_segmentation(labels, grid, any_origin, segments, "Lesions", 9002)
    path = tmp_path_factory.mktemp("seg") / "seg.dcm"
    dataset.save_as(path)
    found = read_annotation(path, image_of_crop(labels, grid))
    assert [one.name for one in found] == [one.name for one in segments]
    for label, one in zip(present, found, strict=True):
        assert np.array_equal(whole_mask(one), labels == label)


@given(
    dose=arrays.arrays(np.float32, (3, 4, 5), elements=st.floats(0, 1e4, width=32)),
    activity=st.floats(1e-3, 100.0),
)
@settings(deadline=None, max_examples=25)
def test_any_dose_fits_into_32_bits(any_origin, dose, activity):
    grid = Grid((5, 4, 3), (1.0, 2.0, 3.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))
    read = build_dose(dose, grid, any_origin, activity, "Cycle 1", "cycle 1", "A map.", 9004)
    back = np.frombuffer(read.PixelData, "<u4").reshape(dose.shape) * float(read.DoseGridScaling)
    expected = dose.astype(float) * activity
    np.testing.assert_allclose(back, expected, rtol=1e-6, atol=2e-10 * expected.max() + 1e-30)


def test_every_organ_has_a_code_and_those_that_dicom_lists_mean_it():
    listed = {code for found in concepts["SCT"].values() for code in found}
    # Codes of SNOMED CT that PS3.16 does not list: TotalSegmentator's table has them.
    absent = set()
    for organ in ORGAN_IDS:
        code, side = organ_code(organ)
        assert code.scheme_designator == "SCT" and code.value.isdigit()
        named = {word for word in ("left", "right") if word in organ.split("_")}
        assert {side.meaning.lower()} == named if side else not named or named <= set(code.meaning.lower().split())
        if code.value not in listed:
            absent.add("rib" if organ.startswith("rib") else organ.removesuffix("_left").removesuffix("_right"))
    assert absent == {
        "rib", "vertebrae_S1", "portal_vein_and_splenic_vein", "gluteus_maximus", "gluteus_medius",
        "gluteus_minimus", "autochthon", "iliopsoas",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("site", "station", "expected"),
    [
        ("lymph node", "iliac", codes.SCT.IliacLymphNode),
        ("lymph node", "portal", codes.SCT.LymphNode),
        ("lymph node", None, codes.SCT.LymphNode),
        ("peritoneum", None, Code("15425007", "SCT", "")),
        ("liver", None, codes.SCT.Liver),
        ("bone", None, codes.SCT.Bone),
        ("kidney left", None, codes.SCT.Kidney),
    ],
)
def test_sites_have_the_codes_of_dicom(site, station, expected):
    code, side = site_code(site, station)
    assert code.value == expected.value
    assert (side and side.meaning) == ("Left" if site.endswith("left") else None)


def test_a_site_that_is_not_known_has_no_code():
    assert site_code(None, None) is None and site_code("somewhere", None) is None


@pytest.mark.dicom3tools
def test_a_validator_finds_no_error(objects, debian_program, tmp_path):
    """dciodvfy (2022) knows neither 32 bits a pixel, at which it aborts, nor plan overviews, of which it only warns."""
    program = debian_program("dciodvfy")
    for path in objects.glob("*.dcm"):
        if path.name.endswith("rtdose.dcm"):
            dose = pydicom.dcmread(path)
            dose.PixelData = (dose.pixel_array >> 16).astype("<u2").tobytes()
            dose.BitsAllocated = dose.BitsStored = 16
            dose.HighBit = 15
            path = tmp_path / path.name
            dose.save_as(path)
        told = subprocess.run([program, path], capture_output=True, text=True, timeout=60)
        assert told.returncode == 0 and "Error" not in told.stdout + told.stderr, (path.name, told.stderr)


@pytest.mark.shared_data
def test_a_published_segmentation_comes_back_through_ours(shared_data, tmp_path):
    """Three slices of a real CT and the liver that was published with it."""
    folder = shared_data / "dicom_seg_sr"
    scan = Scan(PSEUDONYM, "ct", "FDG", "baseline", str(folder / "ct-3slice"), "suv")
    import_ct(scan, tmp_path / "ct.nii.gz")
    image = read_image(tmp_path / "ct.nii.gz")
    (published,) = read_annotation(folder / "ct_liver_seg.dcm", image)
    origin = ct_origin(scan, read_sidecar(tmp_path / "ct.nii.gz"), None)
    liver = Segment(1, "liver", codes.SCT.AnatomicalStructure, codes.SCT.Liver, Made("MANUAL"))
    mask = whole_mask(published)
    dataset = build_segmentation(mask.astype(np.uint8), grid_of(image), origin, [liver], "Organs", 9001)
    dataset.save_as(tmp_path / "seg.dcm")
    (back,) = read_annotation(tmp_path / "seg.dcm", image)
    assert mask.sum() > 0 and np.array_equal(whole_mask(back), mask)
