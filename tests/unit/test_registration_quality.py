"""What judges a registration: organs laid upon each other, the verdict and its limits, and the picture."""

import io

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from alignment_on_disk import write_alignment
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from registration_pairs import scan_row

from theraflow.errors import TheraflowError
from theraflow.files import read_json, write_json
from theraflow.images import from_array, write_image
from theraflow.layout import PatientFolder
from theraflow.organs import ORGAN_IDS
from theraflow.registration import verdict_of, write_transform
from theraflow.registration.judge import ORGAN_LIMITS, compare_organs, judge, surface_distances_mm
from theraflow.registration.picture import write_picture
from theraflow.registration.quality import LIMITS
from theraflow.registration.stage import BY_CT, BY_EMISSION, SAME_FRAME, SAME_SCAN
from theraflow.tables import write_table

IDENTITY = sitk.TranslationTransform(3)
GOOD_FIT = {
    "body_overlap_dice": 0.97, "metric_after": 0.9, "folding_fraction": 0.0, "inverse_consistency_p95_mm": 0.1,
    "local_volume_change_p95": 0.1,
}  # fmt: skip
# Centre and radius in mm of balls that stand for organs; the bladder is one of changing filling.
BALLS = {
    "liver": ((-60, 0, 20), 45), "spleen": ((70, 20, 30), 30), "kidney_left": ((60, 20, -60), 25),
    "kidney_right": ((-60, 30, -60), 25), "urinary_bladder": ((0, -40, -70), 28),
}  # fmt: skip


def labels(shapes, spacing_mm=(2.0, 2.0, 2.0), shift=(0, 0, 0)):
    """Label map (240 mm cube about 0) of balls: organ -> (centre, radius), all shifted."""
    image = sitk.Image([round(240 / s) for s in spacing_mm], sitk.sitkUInt8)
    image.SetSpacing(spacing_mm)
    image.SetOrigin([-120 + s / 2 for s in spacing_mm])
    axes = [o + s * np.arange(n) for o, s, n in zip(image.GetOrigin(), spacing_mm, image.GetSize(), strict=True)]
    z, y, x = np.meshgrid(*axes[::-1], indexing="ij", sparse=True)
    result = np.zeros(image.GetSize()[::-1], np.uint8)
    for organ, (centre, radius) in shapes.items():
        a, b, c = np.add(centre, shift)
        result[(x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 <= radius**2] = ORGAN_IDS[organ]
    return from_array(result, image)


def dice_of_balls(radius, shift):
    """Overlap of two equal balls whose centres lie `shift` apart: 1 - 3d/4r + d^3/16r^3."""
    return 1 - 0.75 * shift / radius + shift**3 / (16 * radius**3) if shift < 2 * radius else 0.0


@settings(max_examples=8, deadline=None)
@given(
    radius=st.floats(18, 45),
    direction=st.sampled_from([(1, 0, 0), (0, 0, -1), (0.6, 0.8, 0), (0.48, -0.6, 0.64)]),
    shift=st.floats(0, 24),
)
def test_dice_and_surfaces_of_shifted_balls(radius, direction, shift):
    """Two balls: the overlap by its formula; each point p of one is | |p - shift| - r | from the other."""
    vector = np.array(direction) * shift
    ball = {"liver": ((0, 0, 0), radius)}
    found = compare_organs(labels(ball), labels(ball, shift=vector), IDENTITY, IDENTITY, ["liver"])["liver"]
    assert found.dice == pytest.approx(dice_of_balls(radius, shift), abs=0.03)
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20_000, 3))
    points *= radius / np.linalg.norm(points, axis=1, keepdims=True)
    distance = np.abs(np.linalg.norm(points - vector, axis=1) - radius)
    assert found.surface_mean_mm == pytest.approx(distance.mean(), abs=1.0)
    assert found.surface_p95_mm == pytest.approx(np.percentile(distance, 95), abs=3.0)  # one voxel
    assert found.volume_ml == pytest.approx(4 / 3 * np.pi * radius**3 / 1000, rel=0.05)


def test_the_transform_is_applied_in_its_direction():
    """to_scan maps a point of the reference to the scan, where the ball lies 30 mm farther left."""
    shift = (30.0, 0.0, -9.0)
    way = sitk.TranslationTransform(3, shift)
    pair = labels(BALLS), labels(BALLS, spacing_mm=(3.0, 3.0, 5.0), shift=shift)
    found = compare_organs(*pair, way, way.GetInverse(), list(BALLS))
    assert set(found) == set(BALLS)
    assert all(agreement.dice > 0.9 for agreement in found.values())
    assert all(agreement.surface_mean_mm < 2.0 for agreement in found.values()), found  # slices of 5 mm
    wrong = compare_organs(*pair, way.GetInverse(), way, ["kidney_left"])
    assert wrong["kidney_left"].dice == 0.0


def test_surface_distance_of_two_parallel_planes_and_of_one_point_far_away():
    plane = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0), [0.0]), axis=-1).reshape(-1, 3)
    assert surface_distances_mm(plane, plane + np.array([0, 0, 4.0])) == pytest.approx((4.0, 4.0))
    outlier = np.concatenate([plane, [[0.0, 0.0, 100.0]]])
    mean, p95 = surface_distances_mm(plane, outlier)
    assert mean == pytest.approx(100 / 801)
    assert p95 == 0.0  # one of 401 points is no part of the 95th percentile


def test_an_organ_that_one_scan_lacks_is_left_out():
    found = compare_organs(
        labels(BALLS), labels({"liver": BALLS["liver"]}), IDENTITY, IDENTITY, ["liver", "spleen", "brain"]
    )
    assert set(found) == {"liver"}
    assert compare_organs(labels({}), labels(BALLS), IDENTITY, IDENTITY, ["liver"]) == {}


def lay_down(folder, name, shapes, shift=(0, 0, 0), cut=(), odd=()):
    """Organ labels of a scan and their table, in which some organs are cut by the field of view or not plausible."""
    write_image(labels(shapes, shift=shift), folder.organs(name), {"quantity": "organ label", "unit": "1"})
    rows = [{"organ": o, "plausible": "no" if o in odd else "yes", "touches_edge": o in cut} for o in shapes]
    write_table(pd.DataFrame(rows), folder.organ_table(name), ("organ", "plausible", "touches_edge"))
    write_alignment(folder, name)


def judged(root, method=BY_CT, shift=(0, 0, 0), fit=GOOD_FIT, limits=LIMITS, reason=None, organs=True, **second):
    """The quality file of a scan whose organs lie `shift` mm beside where the transforms (identities) say."""
    folder = PatientFolder(root, "P1")
    if organs:
        lay_down(folder, "first", BALLS)
        lay_down(folder, "second", BALLS, shift, **second)
    for path in (folder.to_scan("second"), folder.to_reference("second")):
        write_transform(IDENTITY, path)
    content = {"method": method, "reference": "first", "reason": reason, "doubt": None, "limits": limits, **fit}
    write_json(content, folder.registration_fit("second"))
    judge(scan_row("first"), scan_row("second"), folder)
    assert verdict_of(folder, "second") == read_json(folder.registration_quality("second"))["verdict"]
    return read_json(folder.registration_quality("second"))


# The balls that count have radii of 45, 30, 25 and 25 mm. Their median Dice when shifted by d is that of 27.5 mm to
# within a hundredth, the mean distance of their surfaces about d / 2.
@pytest.mark.parametrize(("shift", "expected"), [(0, "good"), (3, "good"), (9, "check"), (24, "failed")])
def test_organs_beside_each_other_make_the_verdict_worse(tmp_path, shift, expected):
    quality = judged(tmp_path, shift=(0, 0, -shift))
    assert quality["verdict"] == expected
    assert quality["organ_dice_median"] == pytest.approx(dice_of_balls(27.5, shift), abs=0.03)
    assert quality["organ_surface_median_mm"] == pytest.approx(shift / 2, abs=1.2)
    assert quality["limits"] == {**LIMITS, **ORGAN_LIMITS}
    assert quality["organs_remark"] is None
    assert {name for name, organ in quality["organs"].items() if organ["counts"]} == BALLS.keys() - {"urinary_bladder"}
    assert GOOD_FIT.items() <= quality.items()


def test_the_worst_measure_decides(tmp_path):
    assert judged(tmp_path / "a", fit=GOOD_FIT | {"folding_fraction": 0.02})["verdict"] == "failed"
    assert judged(tmp_path / "b", fit=GOOD_FIT | {"body_overlap_dice": 0.9})["verdict"] == "check"
    assert judged(tmp_path / "c", fit=GOOD_FIT | {"metric_after": None})["verdict"] == "check"


def test_a_full_bladder_has_no_part_in_the_verdict_and_is_listed(tmp_path):
    folder = PatientFolder(tmp_path, "P1")
    judged(tmp_path)
    lay_down(folder, "second", BALLS | {"urinary_bladder": ((0, -40, -40), 50)})
    judge(scan_row("first"), scan_row("second"), folder)
    quality = read_json(folder.registration_quality("second"))
    assert quality["verdict"] == "good"
    assert quality["organs"]["urinary_bladder"]["dice"] < 0.6
    assert quality["organs"]["urinary_bladder"]["counts"] is False


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        ({"organs": False}, "no organ labels of first and second"),
        ({"shift": (0, 0, -24), "cut": ("liver", "spleen")}, "2 organs could be compared"),
        ({"shift": (0, 0, -24), "odd": ("liver", "kidney_left")}, "2 organs could be compared"),
    ],
)
def test_organs_that_cannot_be_compared_make_nothing_worse_and_it_is_said(tmp_path, change, remark):
    quality = judged(tmp_path, **change)
    assert quality["verdict"] == "good"
    assert quality["limits"] == LIMITS
    assert quality["organ_dice_median"] is None
    assert quality["organs_remark"].startswith(remark)
    assert not set(change.get("cut", ())) & quality["organs"].keys()


def test_what_could_not_be_aligned_has_failed_whatever_the_organs_say(tmp_path):
    quality = judged(tmp_path, limits={}, reason="The CT shows no body.")
    assert (quality["verdict"], quality["organs_remark"]) == ("failed", "nothing was aligned")


def test_one_frame_of_reference_is_judged_by_organs_too(tmp_path):
    """Scanners that give every study the same frame of reference exist."""
    assert judged(tmp_path / "a", SAME_FRAME, limits={})["verdict"] == "good"
    assert judged(tmp_path / "b", SAME_FRAME, limits={}, shift=(0, 0, -24))["verdict"] == "failed"
    assert judged(tmp_path / "c", SAME_FRAME, limits={}, organs=False)["verdict"] == "good"


def test_the_reference_itself_is_good(tmp_path):
    folder = PatientFolder(tmp_path, "P1")
    write_json({"method": SAME_SCAN, "reason": None, "doubt": None, "limits": {}}, folder.registration_fit("first"))
    judge(scan_row("first"), scan_row("first"), folder)
    assert verdict_of(folder, "first") == "good"


def test_a_missing_verdict_is_no_verdict(tmp_path):
    folder = PatientFolder(tmp_path, "P1")
    with pytest.raises(TheraflowError, match=r"first\.json"):
        verdict_of(folder, "first")
    write_json({"method": SAME_SCAN}, folder.registration_quality("first"))
    with pytest.raises(TheraflowError, match="no verdict"):
        verdict_of(folder, "first")


def picture(root, method, by_ct, shift=(0.0, 0.0, 0.0), reason=None, name="second"):
    """Colours (rows, columns, 3) of the picture of a box of water of which the scan's lies `shift` mm away."""
    folder = PatientFolder(root, "P1")
    for scan, offset in (("first", (0, 0, 0)), ("second", shift)):
        ball = sitk.GetArrayFromImage(labels({"liver": ((0, 0, 0), 70)}, (4.0, 4.0, 4.0), offset)) > 0
        image = labels({}, (4.0, 4.0, 4.0))
        if by_ct:
            ct = from_array(np.where(ball, 100, -1000).astype(np.int16), image)
            write_image(ct, folder.ct(scan), {"quantity": "HU", "unit": "HU"})
            write_alignment(folder, scan)
        else:
            pet = from_array(np.where(ball, 5.0, 0.001).astype(np.float32), image)
            write_image(pet, folder.emission(scan_row(scan)), {"quantity": "SUVbw", "unit": "g/mL"})
    write_transform(sitk.TranslationTransform(3, shift), folder.to_scan(name))
    write_json({"method": method, "reason": reason}, folder.registration_fit(name))
    write_picture(scan_row("first"), scan_row(name), folder)
    content = folder.registration_picture(name).read_bytes()
    assert len(content) < 300_000
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), float)


def coloured(part):
    """Share of the pixels that are green or magenta."""
    return float((np.abs(part[..., 1] - part[..., 0]) > 60).mean())


@pytest.mark.parametrize(("method", "by_ct"), [(BY_CT, True), (BY_EMISSION, False)])
def test_the_picture_is_coloured_before_and_grey_after_a_registration_that_worked(tmp_path, method, by_ct):
    pixels = picture(tmp_path, method, by_ct, shift=(24.0, 16.0, -20.0))
    panels = np.array_split(pixels, 6, axis=1)  # before and after of each of three planes of a cube
    for before, after in zip(panels[::2], panels[1::2], strict=True):
        assert coloured(before) > 0.1
        assert coloured(after) < 0.02


def test_the_picture_of_one_frame_of_reference_and_of_a_hopeless_pair_shows_the_scans_as_recorded(tmp_path):
    shift = (24.0, 16.0, -20.0)
    assert coloured(picture(tmp_path, SAME_FRAME, True, shift)) > 0.1
    assert coloured(picture(tmp_path, BY_CT, True, shift, reason="no body")) > 0.1
    assert coloured(picture(tmp_path, SAME_SCAN, True, shift, name="first")) == 0.0


def test_a_picture_of_air_is_drawn_all_the_same(tmp_path):
    folder = PatientFolder(tmp_path, "P1")
    for name in ("first", "second"):
        air = from_array(np.full((60, 60, 60), -1000, np.int16), labels({}, (4.0, 4.0, 4.0)))
        write_image(air, folder.ct(name), {"quantity": "HU", "unit": "HU"})
        write_alignment(folder, name)
    write_json({"method": BY_CT, "reason": "The CT shows no body."}, folder.registration_fit("second"))
    write_picture(scan_row("first"), scan_row("second"), folder)
    assert folder.registration_picture("second").read_bytes().startswith(b"\x89PNG")
