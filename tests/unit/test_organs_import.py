"""Existing label maps: numbers, names, other grids, refusals."""

import json

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.images import divided, read_image, read_sidecar, same_grid, to_array, write_image
from theraflow.organs import ORGAN_IDS, import_organs, organ_mask

HU = {"quantity": "HU", "unit": "HU", "patient": "P001", "scan": "fdg", "virtual_patient": False}


@pytest.fixture
def published(shared_data):
    return shared_data / "ct_totalsegmentator" / "example_seg.nii.gz"


@pytest.fixture
def ct(tmp_path):
    image = sitk.Image((12, 10, 8), sitk.sitkInt16)
    image.SetSpacing((3.0, 3.0, 5.0))
    write_image(image, tmp_path / "ct.nii.gz", HU)
    return tmp_path / "ct.nii.gz"


def write_map(path, ct, array, dtype=np.uint8):
    image = sitk.GetImageFromArray(array.astype(dtype))
    image.CopyInformation(read_image(ct))
    sitk.WriteImage(image, str(path))
    return path


def box(ct, *labels):
    array = np.zeros(to_array(read_image(ct)).shape)
    for position, label in enumerate(labels, start=2):
        array[2:5, 3:6, position] = label
    return array


def volume_and_centre(path, organ):
    image = read_image(path)
    z, y, x = np.nonzero(organ_mask(to_array(image), organ))
    centre = image.TransformContinuousIndexToPhysicalPoint((x.mean(), y.mean(), z.mean()))
    return len(x) * np.prod(image.GetSpacing()) / 1000, np.array(centre)


@pytest.mark.shared_data
def test_a_map_on_the_ct_grid_is_taken_as_it_is(published, tmp_path):
    write_image(read_image(published.with_name("example_ct_sm.nii.gz")), tmp_path / "ct.nii.gz", HU)
    import_organs(published, tmp_path / "ct.nii.gz", tmp_path / "organs.nii.gz")
    assert np.array_equal(to_array(read_image(tmp_path / "organs.nii.gz")), to_array(read_image(published)))
    sidecar = read_sidecar(tmp_path / "organs.nii.gz")
    assert (sidecar["quantity"], sidecar["unit"]) == ("organ label", "TotalSegmentator id")
    assert sidecar["source"] == "imported from example_seg.nii.gz"
    assert sidecar["left_out"] == []
    assert sidecar["miniature_model"] is False
    assert sidecar["patient"] == "P001"


@pytest.mark.shared_data
@pytest.mark.parametrize("flip", [False, True], ids=["same axes", "other axes"])
def test_a_map_on_another_grid_keeps_place_and_volume(published, tmp_path, flip):
    grid = divided(read_image(published), 2.3)
    if flip:  # the same space, stored from left to right and from front to back
        grid = sitk.Flip(grid, (True, True, False))
    write_image(sitk.Cast(grid, sitk.sitkInt16), tmp_path / "ct.nii.gz", HU)
    import_organs(published, tmp_path / "ct.nii.gz", tmp_path / "organs.nii.gz")
    result = read_image(tmp_path / "organs.nii.gz")
    assert same_grid(result, grid)
    assert result.GetPixelID() == sitk.sitkUInt8
    for organ in ("liver", "spleen", "kidney_right", "kidney_left", "vertebrae_L1", "aorta"):
        volume_ml, centre_mm = volume_and_centre(published, organ)
        there_ml, there_mm = volume_and_centre(tmp_path / "organs.nii.gz", organ)
        assert there_ml == pytest.approx(volume_ml, rel=0.05)
        assert np.allclose(there_mm, centre_mm, atol=1.0)


@pytest.mark.shared_data
def test_a_map_of_version_1_is_read_by_the_names_in_its_header(published, tmp_path):
    """TotalSegmentator 1 called label 7 the aorta; version 2 calls it the pancreas."""
    from totalsegmentator.libs import reorder_multilabel_like_v1
    from totalsegmentator.map_to_binary import class_map
    from totalsegmentator.nifti_ext_header import add_label_map_to_nifti

    new = nibabel.load(published)
    data = np.asanyarray(new.dataobj)
    old = nibabel.Nifti1Image(reorder_multilabel_like_v1(data, class_map["total"], class_map["total_v1"]), new.affine)
    nibabel.save(add_label_map_to_nifti(old, class_map["total_v1"]), tmp_path / "v1.nii.gz")
    write_image(read_image(published.with_name("example_ct_sm.nii.gz")), tmp_path / "ct.nii.gz", HU)
    import_organs(tmp_path / "v1.nii.gz", tmp_path / "ct.nii.gz", tmp_path / "organs.nii.gz")
    imported = to_array(read_image(tmp_path / "organs.nii.gz"))
    in_version_1 = [ORGAN_IDS[name] for name in class_map["total_v1"].values() if name in ORGAN_IDS]
    expected = data.transpose(2, 1, 0)
    assert np.array_equal(imported, np.where(np.isin(expected, in_version_1), expected, 0))
    assert (imported == ORGAN_IDS["aorta"]).any()


def test_names_in_a_sidecar_count_and_strangers_are_left_out(ct, tmp_path, caplog):
    source = write_map(tmp_path / "map.nii.gz", ct, box(ct, 1, 2, 300), np.uint16)
    (tmp_path / "map.json").write_text(
        json.dumps({"labels": {"1": "Kidney Left", "2": "vertebrae_l4", "300": "parotid_left"}})
    )
    import_organs(source, ct, tmp_path / "organs.nii.gz")
    array = to_array(read_image(tmp_path / "organs.nii.gz"))
    assert set(np.unique(array)) == {0, ORGAN_IDS["kidney_left"], ORGAN_IDS["vertebrae_L4"]}
    assert read_sidecar(tmp_path / "organs.nii.gz")["left_out"] == ["parotid_left"]
    assert "parotid_left" in caplog.text


def test_a_map_stored_as_float_is_read(ct, tmp_path):
    source = write_map(tmp_path / "map.nii.gz", ct, box(ct, 5), np.float32)
    import_organs(source, ct, tmp_path / "organs.nii.gz")
    assert set(np.unique(to_array(read_image(tmp_path / "organs.nii.gz")))) == {0, 5}


@pytest.mark.parametrize(
    ("labels", "dtype", "names", "match"),
    [
        ((5, 118), np.uint8, None, "label 118 is none of"),
        ((5, -1), np.int16, None, "no labels"),
        ((5, 0.4), np.float32, None, "no labels"),
        ((5, 7), np.uint8, {"5": "liver"}, "label 7 is missing in the table"),
        ((5, 7), np.uint8, {"5": "tumour", "7": "node"}, "has no organ of .* only tumour, node"),
        ((), np.uint8, None, "No organ of"),
    ],
)
def test_what_is_no_organ_map_is_refused(ct, tmp_path, labels, dtype, names, match):
    source = write_map(tmp_path / "map.nii.gz", ct, box(ct, *labels), dtype)
    if names:
        (tmp_path / "map.json").write_text(json.dumps({"labels": names}))
    with pytest.raises(TheraflowError, match=match):
        import_organs(source, ct, tmp_path / "organs.nii.gz")
    assert not (tmp_path / "organs.nii.gz").exists()


def test_a_map_of_another_place_is_refused(ct, tmp_path):
    image = sitk.GetImageFromArray(box(ct, 5).astype(np.uint8))
    image.CopyInformation(read_image(ct))
    image.SetOrigin((5000.0, 0.0, 0.0))
    sitk.WriteImage(image, str(tmp_path / "map.nii.gz"))
    with pytest.raises(TheraflowError, match="lies within"):
        import_organs(tmp_path / "map.nii.gz", ct, tmp_path / "organs.nii.gz")


@pytest.mark.shared_data
def test_a_dicom_seg_is_read_by_the_names_of_its_segments(shared_data, tmp_path):
    """A published segmentation (dcmqi): one segment, Liver, on a CT of three slices."""
    folder = shared_data / "dicom_seg_sr"
    series = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder / "ct-3slice"))
    write_image(sitk.ReadImage(series), tmp_path / "ct.nii.gz", HU)
    import_organs(folder / "ct_liver_seg.dcm", tmp_path / "ct.nii.gz", tmp_path / "organs.nii.gz")
    liver = to_array(read_image(tmp_path / "organs.nii.gz")) == ORGAN_IDS["liver"]
    frames = pydicom.dcmread(folder / "ct_liver_seg.dcm").pixel_array
    assert liver.sum() == np.count_nonzero(frames)


@pytest.mark.shared_data
def test_the_users_names_hold_for_the_segments_of_a_dicom_seg(shared_data, tmp_path):
    folder = shared_data / "dicom_seg_sr"
    series = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder / "ct-3slice"))
    write_image(sitk.ReadImage(series), tmp_path / "ct.nii.gz", HU)
    seg, names = folder / "ct_liver_seg.dcm", {"liver": "spleen"}
    import_organs(seg, tmp_path / "ct.nii.gz", tmp_path / "organs.nii.gz", names)
    assert set(np.unique(to_array(read_image(tmp_path / "organs.nii.gz")))) == {0, ORGAN_IDS["spleen"]}
    assert read_sidecar(tmp_path / "organs.nii.gz")["renamed"] == {"Liver": "spleen"}


@pytest.mark.shared_data
def test_an_rtstruct_is_read_by_the_users_names(shared_data, tmp_path):
    """A published RTSTRUCT with one region in 16 planes; its voxels against the areas of its polygons."""
    folder = shared_data / "suv_dro" / "DRO_0_0"
    series = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder / "PT"))
    write_image(sitk.ReadImage(series), tmp_path / "ct.nii.gz", HU)
    (rtstruct,) = folder.glob("RS/*.dcm")
    with pytest.raises(TheraflowError, match=r"only region_1; .*organs: names"):
        import_organs(rtstruct, tmp_path / "ct.nii.gz", tmp_path / "organs.nii.gz")
    import_organs(rtstruct, tmp_path / "ct.nii.gz", tmp_path / "organs.nii.gz", {"Region_1": "kidney_left"})
    (region,) = pydicom.dcmread(rtstruct).ROIContourSequence
    area_mm2 = 0.0
    for contour in region.ContourSequence:
        x, y, _ = np.array(contour.ContourData, float).reshape(-1, 3).T
        area_mm2 += abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2  # the shoelace formula
    organs = read_image(tmp_path / "organs.nii.gz")
    voxels = np.count_nonzero(to_array(organs) == ORGAN_IDS["kidney_left"])
    assert voxels == pytest.approx(area_mm2 / np.prod(organs.GetSpacing()[:2]), rel=0.01)


def test_an_nrrd_of_slicer_is_read_by_the_users_names_and_by_those_of_radiotherapy(ct, tmp_path, caplog):
    image = sitk.GetImageFromArray(box(ct, 4, 9, 2).astype(np.uint8))
    image.CopyInformation(read_image(ct))
    for number, (label, name) in enumerate(((4, "Niere li"), (9, "Kidney_R"), (2, "Milzhilus"))):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", str(label))
    sitk.WriteImage(image, str(tmp_path / "Segmentation.seg.nrrd"))
    source, names = tmp_path / "Segmentation.seg.nrrd", {"Niere li": "kidney_left", "Niere re": "kidney_right"}
    import_organs(source, ct, tmp_path / "organs.nii.gz", names)
    expected = box(ct, ORGAN_IDS["kidney_left"], ORGAN_IDS["kidney_right"], 0)
    assert np.array_equal(to_array(read_image(tmp_path / "organs.nii.gz")), expected)
    sidecar = read_sidecar(tmp_path / "organs.nii.gz")
    assert sidecar["renamed"] == {"Niere li": "kidney_left", "Kidney_R": "kidney_right"}
    assert sidecar["left_out"] == ["Milzhilus"]
    assert "Milzhilus" in caplog.text


def test_several_regions_may_be_one_organ(ct, tmp_path):
    """MOOSE has two lobes of the thyroid."""
    source = write_map(tmp_path / "map.nii.gz", ct, box(ct, 1, 2))
    (tmp_path / "map.json").write_text(json.dumps({"labels": {"1": "thyroid_left", "2": "thyroid_right"}}))
    names = {"thyroid_left": "thyroid_gland", "thyroid_right": "thyroid_gland"}
    import_organs(source, ct, tmp_path / "organs.nii.gz", names)
    thyroid = ORGAN_IDS["thyroid_gland"]
    assert np.array_equal(to_array(read_image(tmp_path / "organs.nii.gz")), box(ct, thyroid, thyroid))


def test_numbers_of_another_program_can_be_named(ct, tmp_path):
    """Once one number of a map without names is named, none of the others is TotalSegmentator's."""
    source = write_map(tmp_path / "map.nii.gz", ct, box(ct, 6, 8, 4))
    import_organs(source, ct, tmp_path / "organs.nii.gz", {"label 6": "kidney_left", "label 8": "liver"})
    expected = box(ct, ORGAN_IDS["kidney_left"], ORGAN_IDS["liver"], 0)
    assert np.array_equal(to_array(read_image(tmp_path / "organs.nii.gz")), expected)
    assert read_sidecar(tmp_path / "organs.nii.gz")["left_out"] == ["label 4"]
    import_organs(source, ct, tmp_path / "organs.nii.gz", {"Leber": "liver"})
    assert np.array_equal(to_array(read_image(tmp_path / "organs.nii.gz")), box(ct, 6, 8, 4))


def test_names_that_lead_to_no_organ_are_refused(ct, tmp_path):
    source = write_map(tmp_path / "map.nii.gz", ct, box(ct, 5))
    with pytest.raises(TheraflowError, match="takes 'Niere li' to 'left kidney', which is no organ"):
        import_organs(source, ct, tmp_path / "organs.nii.gz", {"Niere li": "left kidney"})


def test_a_missing_file_names_the_column(ct, tmp_path):
    with pytest.raises(TheraflowError, match=r"column organs of scans\.tsv"):
        import_organs(tmp_path / "map.nii.gz", ct, tmp_path / "organs.nii.gz")


def test_a_map_with_another_checksum_is_refused(ct, tmp_path):
    source = tmp_path / "labels.nii.gz"
    noise = np.random.default_rng(0).integers(0, 2, (60, 100, 100), np.uint8)  # a tiny file SimpleITK does refuse
    sitk.WriteImage(sitk.GetImageFromArray(5 * noise), source)
    import_organs(source, ct, tmp_path / "organs.nii.gz")
    content = bytearray(source.read_bytes())
    content[-6] ^= 1  # the last eight bytes are checksum and length
    source.write_bytes(content)
    with pytest.raises(TheraflowError, match="damaged"):
        import_organs(source, ct, tmp_path / "organs.nii.gz")
