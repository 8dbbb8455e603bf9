"""Tumour burden and mismatch of tracers against volumes of spheres, caps and boxes worked out by hand."""

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from theraflow.lesions.burden import TracerView, grown, mismatch, tumour_burden
from theraflow.lesions.contract import BURDEN_COLUMNS, MISMATCH_COLUMNS
from theraflow.lesions.region import Region, union

SHAPE = (40, 44, 48)


def grid(spacing=(2.0, 2.0, 2.0)):
    image = sitk.Image([n for n in SHAPE[::-1]], sitk.sitkUInt8)
    image.SetSpacing(spacing)
    return image


def sphere(centre, radius_mm):
    """Voxels of 2 mm whose centres lie in a sphere; centre z, y, x in mm."""
    z, y, x = np.meshgrid(*(2.0 * np.arange(n) for n in SHAPE), indexing="ij", sparse=True)
    return Region.of((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius_mm**2)


def box(start, size):
    return Region(start, np.ones(size, dtype=bool))


def ball_ml(radius_mm):
    return 4 / 3 * np.pi * radius_mm**3 / 1000


def table(positive, sites=None, peaks=None, tracer="FDG", source=None):
    """Rows of one scan, lesions L01, L02, ..."""
    n = len(positive)
    return pd.DataFrame({
        "patient": "P001", "scan": tracer.lower(), "tracer": tracer, "timepoint": "baseline",
        "lesion": [f"L{i:02d}" for i in range(1, n + 1)], "site": sites or ["liver"] * n,
        "positive": pd.array(positive, dtype=object), "suv_max": [1.5 * p for p in peaks or [4.0] * n],
        "suv_peak": peaks or [4.0] * n, "source": source or ["reader"] * n,
    })  # fmt: skip


def burden_of(rows, regions, values=None):
    found = tumour_burden(rows, regions, np.full(SHAPE, 2.0) if values is None else values, grid((10.0, 10.0, 10.0)))
    assert tuple(found.columns) == BURDEN_COLUMNS
    return found.set_index("site")


def test_burden_of_separate_lesions_is_their_sum():
    values = np.full(SHAPE, 2.0)
    values[0, 0, 0] = 7.0
    rows = table([True, True, False], ["liver", "bone", "liver"], [5.0, 6.0, 9.0])
    found = burden_of(rows, [box((0, 0, 0), (1, 2, 3)), box((5, 5, 5), (2, 2, 2)), box((9, 9, 9), (3, 3, 3))], values)
    assert list(found.index) == ["all", "bone", "liver"]
    assert found["mtv_ml"].tolist() == [14.0, 8.0, 6.0]  # voxels of 1 mL
    assert found["tlg_ml"].tolist() == [33.0, 16.0, 17.0]
    assert found["n_lesions"].tolist() == [3, 1, 2]
    assert found["n_positive"].tolist() == [2, 1, 1]
    assert found["hottest"].tolist() == ["L02", "L02", "L01"]
    assert found["suv_peak_max"].tolist() == [6.0, 6.0, 5.0]
    assert found["suv_max"].tolist() == [9.0, 9.0, 7.5]


def test_nested_lesions_count_once():
    found = burden_of(table([True, True]), [box((5, 5, 5), (6, 6, 6)), box((7, 7, 7), (2, 2, 2))])
    assert found.loc["all", "mtv_ml"] == 216.0
    assert found.loc["all", "tlg_ml"] == 432.0


def test_what_two_sites_share_is_in_both_and_once_in_all():
    found = burden_of(table([True, True], ["bone", None]), [box((0, 0, 0), (1, 1, 4)), box((0, 0, 2), (1, 1, 4))])
    assert found["mtv_ml"].to_dict() == {"all": 6.0, "bone": 4.0, "unknown": 4.0}


def test_an_unmeasured_lesion_makes_the_total_unknown():
    found = burden_of(table([True, None, None], ["liver", "liver", "bone"]), [box((0, 0, 0), (1, 1, 3)), None, None])
    assert found["n_unmeasured"].to_dict() == {"all": 2, "bone": 1, "liver": 1}
    assert found[["mtv_ml", "tlg_ml", "suv_max", "suv_peak_max", "hottest"]].isna().all(axis=None)
    assert found.loc["all", ["mtv_measured_ml", "tlg_measured_ml"]].tolist() == [3.0, 6.0]
    assert np.isnan(found.loc["bone", "mtv_measured_ml"])  # nothing of it is measured: not 0


def test_no_positive_lesion_is_a_burden_of_nothing():
    found = burden_of(table([False]), [box((0, 0, 0), (1, 1, 3))]).loc["all"]
    assert (found["mtv_ml"], found["tlg_ml"], found["n_positive"]) == (0.0, 0.0, 0)
    assert pd.isna(found["suv_max"])
    assert pd.isna(found["hottest"])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.tuples(*[st.integers(-4, 20)] * 3), st.tuples(*[st.integers(1, 9)] * 3)), min_size=1, max_size=6
    )
)
def test_the_union_has_every_voxel_once(boxes):
    expected = {
        (start[0] + i, start[1] + j, start[2] + k)
        for start, size in boxes
        for i in range(size[0])
        for j in range(size[1])
        for k in range(size[2])
    }
    whole = union([box(start, size) for start, size in boxes])
    assert {tuple(index) for index in whole.indices().tolist()} == expected


@settings(max_examples=15, deadline=None)
@given(radius=st.floats(10, 18), by=st.floats(2, 8))
def test_a_grown_sphere_lies_between_two_spheres(radius, by):
    """No voxel beyond radius + growth, by the triangle inequality, and all within it less a voxel's diagonal."""
    wide = grown(sphere((40, 44, 48), radius), by, np.full(3, 2.0))
    largest, smallest = (sphere((40, 44, 48), radius + by - less) for less in (0.0, 2.0 * np.sqrt(3.0)))
    assert np.array_equal(wide.on_box(largest.box) & largest.mask, wide.on_box(largest.box))
    assert wide.voxels == np.count_nonzero(wide.on_box(largest.box))
    assert wide.on_box(smallest.box)[smallest.mask].all()
    assert grown(sphere((40, 44, 48), radius), 0.0, np.full(3, 2.0)).voxels == sphere((40, 44, 48), radius).voxels


def test_growing_follows_the_size_of_the_voxels():
    wide = grown(box((3, 3, 3), (1, 1, 1)), 4.0, np.array([4.0, 2.0, 1.0]))
    assert (wide.start, wide.mask.shape) == ((2, 1, -1), (3, 5, 9))
    # Offsets i, j, k in an ellipsoid with 16 i^2 + 4 j^2 + k^2 <= 16: two at i = +-1, and at i = 0 the plane's
    # 9 at j = 0, 2 x 7 at j = +-1, 2 x 1 at j = +-2.
    assert wide.voxels == 2 + 9 + 14 + 2


def view(positive, regions, tracer="FDG", source=None, in_reference=None):
    rows = table(positive, tracer=tracer, source=source)
    return TracerView(rows, regions, 0.008, regions if in_reference is None else in_reference)


def volumes(a, b, **settings_of):
    found = mismatch(a, b, grid(), **settings_of)
    assert tuple(found.columns) == MISMATCH_COLUMNS
    assert (found["tracer_a"] == "FDG").all()
    assert (found["tracer_b"] == "pentixafor").all()
    return found.set_index("measure")


def test_mismatch_of_concentric_spheres():
    """FDG 20 mm, pentixafor 12 mm in radius: the difference of two balls; with tolerance of larger ones."""
    wide, narrow = sphere((40, 44, 48), 20.0), sphere((40, 44, 48), 12.0)
    found = volumes(view([True], [wide]), view([True], [narrow], "pentixafor"))["volume_ml"]
    assert found["a_not_b"] == pytest.approx(ball_ml(20) - ball_ml(12), rel=0.03)
    # A grown mask of voxels has at most the grown ball, so that somewhat more is left.
    assert 0.99 < found["a_not_b_tolerance"] / (ball_ml(20) - ball_ml(17)) < 1.1
    assert found["both"] == pytest.approx(ball_ml(12), rel=0.03)
    assert found["b_not_a"] == found["b_not_a_tolerance"] == 0.0
    assert found["a_only_lesions"] == found["b_only_lesions"] == 0.0
    assert found["concordant_lesions_a"] == pytest.approx(ball_ml(20), rel=0.03)
    assert found["concordant_lesions_b"] == pytest.approx(ball_ml(12), rel=0.03)


def test_a_shift_below_the_tolerance_is_no_mismatch():
    """Two balls 4 mm apart: the lens of two caps is common, and nothing is left with 5 mm of tolerance."""
    here, there = sphere((40, 44, 46), 15.0), sphere((40, 44, 50), 15.0)
    found = volumes(view([True], [here]), view([True], [there], "pentixafor"))["volume_ml"]
    height = 15.0 - 2.0
    lens_ml = 2 * np.pi * height**2 * (3 * 15.0 - height) / 3 / 1000
    assert found["both"] == pytest.approx(lens_ml, rel=0.03)
    assert found["a_not_b"] == pytest.approx(ball_ml(15) - lens_ml, rel=0.08)
    assert found["a_not_b"] == found["b_not_a"] > 0.0
    assert found["a_not_b_tolerance"] == found["b_not_a_tolerance"] == 0.0


def test_mismatch_by_lesions_is_measured_on_each_tracers_own_scan():
    """FDG-only, pentixafor-only, concordant and negative, of 1, 2, 3 (4 on pentixafor) and 5 voxels."""
    boxes = [box((i, 0, 0), (1, 1, n)) for i, n in enumerate((1, 2, 3, 5))]
    far = [box((i + 20, 0, 0), (1, 1, 10)) for i in range(4)]  # in the reference they have other volumes
    fdg = view([True, False, True, False], boxes, in_reference=far)
    pentixafor = view([False, True, True, False], [*boxes[:2], box((2, 0, 0), (1, 1, 4)), boxes[3]], "pentixafor",
                      in_reference=far)  # fmt: skip
    found = volumes(fdg, pentixafor)
    assert found["volume_ml"].to_dict() == pytest.approx({
        "a_only_lesions": 0.008, "b_only_lesions": 0.016, "concordant_lesions_a": 0.024,
        "concordant_lesions_b": 0.032, "both": 0.08, "a_not_b": 0.08, "b_not_a": 0.08,
        # Rows 2 mm apart: with 5 mm all of the neighbouring row is near.
        "a_not_b_tolerance": 0.0, "b_not_a_tolerance": 0.0,
    })  # fmt: skip
    assert found["n_lesions"].to_dict() == {
        "a_only_lesions": 1, "b_only_lesions": 1, "concordant_lesions_a": 1, "concordant_lesions_b": 1, "both": 1,
        "a_not_b": 2, "a_not_b_tolerance": 2, "b_not_a": 2, "b_not_a_tolerance": 2,
    }  # fmt: skip


def test_a_lesion_not_known_on_both_scans_makes_volumes_unknown():
    boxes = [box((0, 0, 0), (1, 1, 3)), box((20, 0, 0), (1, 1, 4))]
    found = volumes(view([True, True], boxes), view([False, None], [boxes[0], None], "pentixafor"))
    assert found["volume_ml"].isna().all()
    assert found.loc["a_only_lesions", "measured_ml"] == found.loc["a_not_b", "measured_ml"] == pytest.approx(0.024)
    assert (found["n_unmeasured"] == 1).all()
    assert found["remark"].str.contains("not known on both scans: L02").all()
    alone = volumes(view([True], boxes[:1]), view([None], [None], "pentixafor"))
    assert alone[["volume_ml", "measured_ml"]].isna().all(axis=None)


def test_where_a_registration_failed_lesions_are_known_and_voxels_are_not():
    boxes = [box((0, 0, 0), (1, 1, 3))]
    found = volumes(view([True], boxes), view([True], boxes, "pentixafor", in_reference=[None]))
    assert found.loc["concordant_lesions_b", "volume_ml"] == pytest.approx(0.024)
    assert found.loc[["both", "a_not_b", "b_not_a"], "volume_ml"].isna().all()


def test_one_outline_for_both_tracers_is_said():
    boxes = [box((0, 0, 0), (1, 1, 3))]
    found = volumes(view([True], boxes), view([True], boxes, "pentixafor", source=["carried"]))
    assert found.loc[["both", "a_not_b", "b_not_a_tolerance"], "remark"].str.contains("carried to the other: L01").all()
    assert pd.isna(found.loc["concordant_lesions_a", "remark"])


def test_other_lesions_are_refused():
    boxes = [box((0, 0, 0), (1, 1, 3))]
    with pytest.raises(ValueError, match="same lesions"):
        mismatch(view([True], boxes), view([True, True], boxes * 2, "pentixafor"), grid())
