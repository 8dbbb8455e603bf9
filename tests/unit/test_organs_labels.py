"""Names, numbers and orientation, against TotalSegmentator's own table and published label map."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theraflow.errors import TheraflowError
from theraflow.images import read_image, to_array
from theraflow.organs import GROUPS, ORGAN_IDS, organ_called, organ_labels, organ_mask, refuse_missing_organs


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


@pytest.mark.parametrize(
    ("name", "organ"),
    [
        ("Kidney_L", "kidney_left"), ("left kidney", "kidney_left"), ("KIDNEY-R", "kidney_right"), ("Liver", "liver"),
        ("Lt Kidney", "kidney_left"), ("Aorta", "aorta"), ("A_Aorta", "aorta"),
        ("Glnd_Adrenal_R", "adrenal_gland_right"), ("Glnd_Thyroid", "thyroid_gland"),
        ("Bladder", "urinary_bladder"), ("SpinalCord", "spinal_cord"),
        ("Bowel_Small", "small_bowel"), ("V_Venacava_I", "inferior_vena_cava"), ("VB_L1", "vertebrae_L1"),
        ("vertebra_C1", "vertebrae_C1"), ("Rib_L_10", "rib_left_10"), ("Clavicle_R", "clavicula_right"),
        ("Liver_GTV", None), ("PRV_Kidney_L", None), ("Kidney", None), ("Kidneys", None), ("Aorta_L", None),
        ("Lung_L", None), ("Bladder_L", None), ("", None), ("L", None),
    ],
)  # fmt: skip
def test_names_of_radiotherapy_and_of_other_programs(name, organ):
    """AAPM TG-263 (2018), and MOOSE's vertebra_C1 and bladder."""
    assert organ_called(name, {}) == organ


@given(st.sampled_from(sorted(ORGAN_IDS)), st.randoms())
def test_every_organ_is_known_by_its_own_words_in_any_order(organ, random):
    words = organ.split("_")
    random.shuffle(words)
    assert organ_called(" ".join(words).title(), {}) == organ


def test_the_users_names_come_first():
    names = {"Niere li": "kidney_left", "Liver": "spleen"}
    assert organ_called(" niere LI", names) == "kidney_left"
    assert organ_called("liver", names) == "spleen"
    assert organ_called("Niere", names) is None


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


def test_a_choice_of_organs_must_hold_what_the_configuration_names():
    needed = {"dosimetry: organs": ["kidney_left", "liver"], "lesions: physiologic: FDG": ["bowel"]}
    refuse_missing_organs([], needed)
    refuse_missing_organs(["kidneys", "liver", "small_bowel", "duodenum", "colon"], needed)
    for only, missing in ((["liver", "bowel"], "kidney_left"), (["kidneys", "liver", "colon"], "bowel")):
        with pytest.raises(TheraflowError, match=rf"leaves out {missing}, which .* names; add it there"):
            refuse_missing_organs(only, needed)
    with pytest.raises(TheraflowError, match="no organ 'livre'"):
        refuse_missing_organs(["livre"], {})
