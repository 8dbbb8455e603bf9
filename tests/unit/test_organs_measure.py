"""Volumes, densities, places and pieces of organs, against counting by another library and drawn images."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.images import write_image
from theraflow.organs import ORGAN_IDS, measure_organs, organ_statistics
from theraflow.tables import read_table

COLUMNS = [
    "patient", "scan", "organ", "label", "volume_ml", "mean_hu", "touches_edge", "x_mm", "y_mm", "z_mm", "pieces",
    "gap_mm", "plausible", "remark",
]  # fmt: skip


@pytest.fixture(scope="module")
def published(shared_data):
    return shared_data / "ct_totalsegmentator"


def test_statistics_of_a_drawn_image():
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1:3, 1:3, 1:3] = ORGAN_IDS["liver"]
    labels[3, 4, 5] = ORGAN_IDS["spleen"]
    hu = np.full(labels.shape, -1000, np.int16)
    hu[1, 1:3, 1:3], hu[2, 1:3, 1:3], hu[3, 4, 5] = 40, 60, 45
    grid = sitk.Image((6, 5, 4), sitk.sitkUInt8)
    grid.SetSpacing((10.0, 5.0, 10.0))
    table = organ_statistics(labels, hu, grid).set_index("organ")
    assert table.volume_ml.to_dict() == {"spleen": 0.5, "liver": 4.0}
    assert table.mean_hu.to_dict() == {"spleen": 45.0, "liver": 50.0}
    assert table.touches_edge.to_dict() == {"spleen": True, "liver": False}
    assert table.x_mm.to_dict() == {"spleen": 50.0, "liver": 15.0}
    assert table.z_mm.to_dict() == {"spleen": 30.0, "liver": 15.0}
    assert table.pieces.to_dict() == {"spleen": 1, "liver": 1}


def test_places_are_the_patients_whatever_the_order_of_voxels():
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 2, 1] = ORGAN_IDS["liver"]
    grid = sitk.Image((6, 5, 4), sitk.sitkUInt8)
    grid.SetDirection((-1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0))
    grid.SetOrigin((100.0, -20.0, 7.0))
    row = organ_statistics(labels, labels, grid).iloc[0]
    assert (row.x_mm, row.y_mm, row.z_mm) == (99.0, -19.0, 9.0)


def test_pieces_are_counted_from_a_tenth_on_and_their_gap_is_measured():
    labels = np.zeros((20, 20, 40), np.uint8)
    labels[2:8, 2:8, 2:8] = ORGAN_IDS["kidney_left"]  # 216 voxels
    labels[2:8, 2:8, 24:28] = ORGAN_IDS["kidney_left"]  # 144 voxels; the nearest lie 17 columns away
    labels[15, 15, 30:36] = ORGAN_IDS["kidney_left"]  # 6 voxels: too few
    labels[12:14, 2:4, 2:4], labels[14:16, 4:6, 4:6] = ORGAN_IDS["spleen"], ORGAN_IDS["spleen"]  # by a corner
    grid = sitk.Image((40, 20, 20), sitk.sitkUInt8)
    grid.SetSpacing((2.0, 3.0, 5.0))
    table = organ_statistics(labels, labels, grid).set_index("organ")
    assert table.pieces.to_dict() == {"spleen": 1, "kidney_left": 2}
    assert table.gap_mm["kidney_left"] == pytest.approx(17 * 2.0)
    assert np.isnan(table.gap_mm["spleen"])


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("ct", "labels"),
    [
        ("example_ct_sm.nii.gz", "example_seg.nii.gz"),
        ("example_ct.nii.gz", "example_seg_fast_force_split.nii.gz"),
    ],
)
def test_measures_of_a_real_ct_by_direct_counting(published, tmp_path, ct, labels):
    measure_organs(published / ct, published / labels, tmp_path / "organs.tsv", "P001", "fdg")
    table = read_table(tmp_path / "organs.tsv")
    assert list(table.columns) == COLUMNS
    image, hu = nibabel.load(published / labels), nibabel.load(published / ct).get_fdata()
    data = np.asanyarray(image.dataobj)
    assert set(table.label) == set(np.unique(data)) - {0}
    for row in table.itertuples():
        assert ORGAN_IDS[row.organ] == row.label
        inside = data == row.label
        assert row.volume_ml == pytest.approx(inside.sum() * abs(np.linalg.det(image.affine)) / 1000, rel=1e-6)
        assert row.mean_hu == pytest.approx(hu[inside].mean(), rel=1e-9)
        index = np.argwhere(inside)
        x, y, z = nibabel.affines.apply_affine(image.affine, index.mean(axis=0))  # RAS
        assert (row.x_mm, row.y_mm, row.z_mm) == pytest.approx((-x, -y, z), abs=1e-3)
        assert row.touches_edge == bool((index == 0).any() or (index == np.array(data.shape) - 1).any())


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("ct", "labels"),
    [
        ("example_ct_sm.nii.gz", "example_seg.nii.gz"),
        ("example_ct_sm.nii.gz", "example_seg_fast.nii.gz"),
        ("example_ct.nii.gz", "example_seg_fast_force_split.nii.gz"),
    ],
)
def test_everything_in_a_published_segmentation_is_plausible(published, tmp_path, ct, labels):
    measure_organs(published / ct, published / labels, tmp_path / "organs.tsv", "P001", "fdg")
    table = read_table(tmp_path / "organs.tsv").set_index("organ")
    assert set(table.plausible) == {"yes"}
    assert table.remark["liver"] == "cut by the field of view"
    assert table.remark["pancreas"] == "in 2 pieces"


@pytest.mark.shared_data
def test_a_mirrored_label_map_is_not_plausible_as_a_whole(published, tmp_path):
    ct = published / "example_ct.nii.gz"
    labels = sitk.ReadImage(str(published / "example_seg_fast_force_split.nii.gz"))
    mirrored = sitk.Flip(labels, (True, False, False))
    mirrored.CopyInformation(labels)
    sitk.WriteImage(mirrored, str(tmp_path / "mirrored.nii.gz"))
    measure_organs(ct, tmp_path / "mirrored.nii.gz", tmp_path / "organs.tsv", "P001", "fdg")
    table = read_table(tmp_path / "organs.tsv").set_index("organ")
    assert set(table.plausible) == {"no"}
    assert table.remark["liver"].startswith("lies 69 mm left of the mid-plane")  # 67 mm right of 2 mm before
    assert "the label map does not fit the CT" in table.remark["aorta"]


@pytest.mark.shared_data
def test_organs_beside_the_patient_are_found_by_their_density(published, tmp_path):
    """Moved 12 cm to the right the label liver holds air."""
    labels = sitk.ReadImage(str(published / "example_seg.nii.gz"))
    array = sitk.GetArrayFromImage(labels)
    moved = np.zeros_like(array)
    moved[..., :-40] = array[..., 40:]  # stored from left to right
    image = sitk.GetImageFromArray(moved)
    image.CopyInformation(labels)
    sitk.WriteImage(image, str(tmp_path / "moved.nii.gz"))
    measure_organs(published / "example_ct_sm.nii.gz", tmp_path / "moved.nii.gz", tmp_path / "organs.tsv", "P", "s")
    table = read_table(tmp_path / "organs.tsv").set_index("organ")
    assert "mean -8" in table.remark["kidney_left"]
    assert set(table.plausible) == {"no"}


def test_another_grid_is_refused(tmp_path):
    for name, size in (("ct", (5, 5, 5)), ("organs", (5, 5, 4))):
        write_image(sitk.Image(size, sitk.sitkUInt8), tmp_path / f"{name}.nii.gz", {"quantity": "", "unit": ""})
    with pytest.raises(TheraflowError, match="does not lie on the grid"):
        measure_organs(tmp_path / "ct.nii.gz", tmp_path / "organs.nii.gz", tmp_path / "organs.tsv", "P", "s")


def test_a_scan_without_any_organ_gives_an_empty_table(tmp_path):
    for name in ("ct", "organs"):
        write_image(sitk.Image((5, 5, 5), sitk.sitkUInt8), tmp_path / f"{name}.nii.gz", {"quantity": "", "unit": ""})
    measure_organs(tmp_path / "ct.nii.gz", tmp_path / "organs.nii.gz", tmp_path / "organs.tsv", "P", "s")
    assert len(read_table(tmp_path / "organs.tsv")) == 0
