"""Names, numbers, orientation and volumes, against TotalSegmentator's own table and published label map."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from theraflow.errors import TheraflowError
from theraflow.images import read_image, to_array, write_image
from theraflow.organs import GROUPS, ORGAN_IDS, measure_organs, organ_labels, organ_mask, organ_statistics
from theraflow.tables import read_table


@pytest.fixture(scope="module")
def published(shared_data):
    return shared_data / "ct_totalsegmentator" / "example_seg.nii.gz"


def test_the_table_is_totalsegmentators():
    from totalsegmentator.map_to_binary import class_map

    assert {label: name for name, label in ORGAN_IDS.items()} == class_map["total"]


@pytest.mark.parametrize(
    ("group", "size"),
    [("lungs", 5), ("lung_left", 2), ("lung_right", 3), ("lumbar_vertebrae", 5), ("thoracic_vertebrae", 12),
     ("cervical_vertebrae", 7), ("vertebrae", 25), ("ribs", 24), ("kidneys", 2), ("gluteus_maximus", 2)],
)  # fmt: skip
def test_groups_have_as_many_members_as_anatomy(group, size):
    assert len(set(GROUPS[group])) == size
    assert set(GROUPS[group]) <= set(ORGAN_IDS)


@given(st.lists(st.sampled_from([*ORGAN_IDS, *GROUPS]), min_size=1, max_size=4))
def test_a_mask_is_the_union_of_its_organs(names):
    labels = np.arange(120, dtype=np.uint8).reshape(4, 5, 6)
    assert np.array_equal(organ_mask(labels, *names), np.isin(labels, organ_labels(*names)))


def test_an_unknown_organ_is_refused():
    with pytest.raises(TheraflowError, match="no organ 'left kidney'"):
        organ_mask(np.zeros((2, 2, 2), np.uint8), "left kidney")


def test_statistics_of_a_drawn_image():
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1:3, 1:3, 1:3] = ORGAN_IDS["liver"]
    labels[3, 4, 5] = ORGAN_IDS["spleen"]
    hu = np.full(labels.shape, -1000, np.int16)
    hu[1, 1:3, 1:3], hu[2, 1:3, 1:3], hu[3, 4, 5] = 40, 60, 45
    table = organ_statistics(labels, hu, voxel_ml=0.5).set_index("organ")
    assert table.volume_ml.to_dict() == {"spleen": 0.5, "liver": 4.0}
    assert table.mean_hu.to_dict() == {"spleen": 45.0, "liver": 50.0}
    assert table.touches_edge.to_dict() == {"spleen": True, "liver": False}


@pytest.mark.shared_data
def test_volumes_of_the_published_map_by_direct_counting(published, tmp_path):
    ct = published.with_name("example_ct_sm.nii.gz")
    measure_organs(ct, published, tmp_path / "organs.tsv", "P001", "fdg")
    table = read_table(tmp_path / "organs.tsv").set_index("organ")
    assert list(table.columns) == ["patient", "scan", "label", "volume_ml", "mean_hu", "touches_edge"]
    image, ct_image = nibabel.load(published), nibabel.load(ct)
    data, hu = np.asanyarray(image.dataobj), ct_image.get_fdata()
    assert len(table) == len(np.unique(data)) - 1
    for organ, row in table.iterrows():
        inside = data == ORGAN_IDS[organ]
        assert row.volume_ml == pytest.approx(inside.sum() * abs(np.linalg.det(image.affine)) / 1000, rel=1e-6)
        assert row.mean_hu == pytest.approx(hu[inside].mean(), rel=1e-9)
    assert 30 < table.mean_hu["liver"] < 180  # soft tissue, native to portal venous
    assert table.touches_edge["liver"]  # the published scan ends within the liver
    assert not table.touches_edge["adrenal_gland_left"]


@pytest.mark.shared_data
def test_right_is_right(published):
    """In LPS x grows to the patient's left, y to the back, z to the head."""
    image = read_image(published)
    labels = to_array(image)

    def centre(name):
        z, y, x = (axis.mean() for axis in np.nonzero(organ_mask(labels, name)))
        return image.TransformContinuousIndexToPhysicalPoint((x, y, z))

    assert centre("liver")[0] < centre("spinal_cord")[0] < centre("spleen")[0]
    assert centre("kidney_right")[0] < centre("inferior_vena_cava")[0] < centre("aorta")[0] < centre("kidney_left")[0]
    assert centre("costal_cartilages")[1] < centre("aorta")[1] < centre("spinal_cord")[1]
    assert centre("vertebrae_L2")[2] < centre("vertebrae_L1")[2] < centre("vertebrae_T12")[2]


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
