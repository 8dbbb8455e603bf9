"""Registration of scans whose true correspondence is known: a torso in two poses, and real CTs deformed."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from registration_pairs import ORGANS, errors, organ_points, pose, scan_row, torso, write_scan
from scipy.ndimage import gaussian_filter

from theraflow.errors import TheraflowError
from theraflow.images import read_image, to_array
from theraflow.images.body import find_body
from theraflow.layout import PatientFolder
from theraflow.registration import carry_mask, map_points, passage, read_transform, register
from theraflow.registration.judge import judge
from theraflow.registration.quality import EMISSION_LIMITS, LIMITS, verdict
from theraflow.registration.rigid import best_shift
from theraflow.virtual.anatomy import COUCH, Anatomy, Grid, Pose
from theraflow.virtual.deformation import Deformation, turned_pose

SPACING_MM = (3.0, 3.0, 3.0)
REFERENCE_GRID = Grid.covering((-210, -165, -90), (210, 165, 480), SPACING_MM)
ANATOMY = Anatomy.draw(3, "M", 25.0)


def quality_of(folder: PatientFolder, scan: str) -> dict:
    reference = json.loads(folder.registration_fit(scan).read_text())["reference"]
    judge(scan_row(reference), scan_row(scan), folder)
    return json.loads(folder.registration_quality(scan).read_text())


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Folder and pose of a torso registered to itself after 10 degrees, 30 mm and 15 mm of breathing."""
    folder = PatientFolder(tmp_path_factory.mktemp("results"), "P1")
    moved = pose()
    reference = write_scan(folder, "first", torso(ANATOMY, REFERENCE_GRID, Pose(), 1), "1")
    other = write_scan(folder, "second", torso(ANATOMY, REFERENCE_GRID, moved, 2), "2")
    for scan in (reference, other):
        register(reference, scan, folder, threads=2)
    return folder, moved


def test_points_of_organs_are_found_both_ways(pair):
    folder, moved = pair
    points = organ_points(ANATOMY, (-180, -130, -70), (180, 130, 440))
    assert points.keys() == ORGANS.keys()
    here = np.concatenate(list(points.values()))
    there = moved.from_neutral(here)
    assert np.linalg.norm(here - there, axis=1).mean() > 25.0
    for path, start, truth in (
        (folder.to_scan("second"), here, there),
        (folder.to_reference("second"), there, here),
    ):
        distance = errors(read_transform(path), start, truth)
        print(f"{path.name}: {distance.mean():.2f} mm, 95 % {np.percentile(distance, 95):.2f}")
        assert distance.mean() <= 1.5
        assert np.percentile(distance, 95) <= 4.0


def test_quality_says_what_was_done_and_how_well(pair):
    folder, _ = pair
    quality = quality_of(folder, "second")
    assert quality["method"].startswith("CT to CT")
    assert quality["verdict"] == "good"
    assert quality["limits"] == LIMITS
    assert quality["folding_fraction"] == 0.0
    assert quality["inverse_consistency_p95_mm"] < 0.5
    assert quality["metric_before"] < quality["metric_rigid"] < quality["metric_after"]
    assert quality["body_overlap_dice"] > 0.97
    assert quality["reference"] == "first"


@pytest.mark.parametrize("radius_mm", [8.0, 15.0])
def test_carried_spheres_keep_volume_and_place(pair, radius_mm):
    """The truth: that part of the second scan whose neutral points lie in the sphere."""
    folder, moved = pair
    way = passage(folder, "first", "second")

    def around(point: np.ndarray, spacing_mm: float) -> Grid:
        reach = radius_mm + 25.0
        return Grid.covering(point - reach, point + reach, (spacing_mm,) * 3)

    for name, inside in organ_points(ANATOMY, (-180, -130, -70), (180, 130, 440)).items():
        centre = inside.mean(axis=0)
        here = around(centre, 2.0)
        mask = np.linalg.norm(here.points() - centre, axis=-1) <= radius_mm
        there = moved.from_neutral(centre[None])[0]
        target = around(there, 3.5)
        empty = target.image(np.zeros(target.size[::-1], np.uint8))
        carried = carry_mask(here.image(mask.astype(np.uint8)), empty, way)
        found = target.points()[to_array(carried) > 0]

        fine = around(there, 1.0).points().reshape(-1, 3).astype(float)
        truth = fine[np.linalg.norm(moved.to_neutral(fine) - centre, axis=1) <= radius_mm]
        exact = 4 / 3 * np.pi * radius_mm**3
        change = (len(found) * 3.5**3 / (mask.sum() * 2.0**3)) / (len(truth) / exact)
        distance = np.linalg.norm(found.mean(axis=0) - truth.mean(axis=0))
        assert change == pytest.approx(1.0, abs=0.10), name
        assert distance <= 3.0, name


def test_points_there_and_back_return(pair):
    folder, _ = pair
    points = np.concatenate(list(organ_points(ANATOMY, (-180, -130, -70), (180, 130, 440), 20).values()))
    there = map_points(points, read_transform(folder.to_scan("second")))
    back = map_points(there, read_transform(folder.to_reference("second")))
    assert np.linalg.norm(back - points, axis=1).max() < 0.5


def test_same_scan_is_the_identity_and_says_so(pair):
    folder, _ = pair
    point = (12.0, -34.0, 56.0)
    assert read_transform(folder.to_scan("first")).TransformPoint(point) == point
    assert quality_of(folder, "first")["method"] == "identity: the reference scan itself"


def test_same_frame_of_reference_is_the_identity_and_says_so(tmp_path):
    folder = PatientFolder(tmp_path, "P1")
    scans = [write_scan(folder, name, None, "1.2.3") for name in ("first", "second")]
    register(*scans, folder, threads=1)
    assert quality_of(folder, "second")["method"] == "identity: both scans have the same frame of reference"
    assert quality_of(folder, "second")["verdict"] == "good"
    assert read_transform(folder.to_reference("second")).TransformPoint((1.0, 2.0, 3.0)) == (1.0, 2.0, 3.0)


def test_shorter_field_of_view_and_far_away_table_position(pair, tmp_path):
    """A SPECT/CT of the upper abdomen, 250 mm high, with its own origin of z."""
    folder, _ = pair
    moved = pose(degrees=(3.0, 4.0, -6.0), shift_mm=(10.0, 15.0, 400.0), breathing_mm=10.0)
    grid = Grid.covering((-210, -165, 460), (210, 165, 710), (4.0, 4.0, 5.0))
    local = PatientFolder(tmp_path, "P1")
    reference = write_scan(local, "first", None, "1")
    shutil.copy(folder.ct("first"), local.ct("first"))
    other = write_scan(local, "spect", torso(ANATOMY, grid, moved, 4), "3")
    register(reference, other, local, threads=2)
    here = np.concatenate(list(organ_points(ANATOMY, (-180, -130, 90), (180, 130, 280)).values()))
    distance = errors(read_transform(local.to_scan("spect")), here, moved.from_neutral(here))
    print(f"upper abdomen: {distance.mean():.2f} mm, 95 % {np.percentile(distance, 95):.2f}")
    assert distance.mean() <= 1.5
    assert np.percentile(distance, 95) <= 4.0
    assert quality_of(local, "spect")["verdict"] == "good"


def test_same_input_and_threads_give_the_same_map(tmp_path):
    small = Grid.covering((-210, -165, 80), (210, 165, 300), (5.0, 5.0, 5.0))
    transforms = []
    for run in ("a", "b"):
        local = PatientFolder(tmp_path / run, "P1")
        scans = [
            write_scan(local, name, torso(ANATOMY, small, where, 1), name)
            for name, where in (("first", Pose()), ("second", pose()))
        ]
        register(*scans, local, threads=2)
        transforms.append(read_transform(local.to_scan("second")))
    points = [(10.0 * i, -3.0 * i, 100.0 + 7.0 * i) for i in range(20)]
    first, second = ([transform.TransformPoint(point) for point in points] for transform in transforms)
    assert first == second


def test_table_is_removed():
    labels = ANATOMY.labels(REFERENCE_GRID, couch=True)
    body = find_body(torso(ANATOMY, REFERENCE_GRID, Pose(), 1), 3.0)
    mask = to_array(body.mask) > 0
    assert body.mask.GetSize() == REFERENCE_GRID.size
    assert mask[labels == COUCH].mean() < 0.1
    anatomy = (labels > 0) & (labels != COUCH)
    assert mask[anatomy].mean() > 0.98


def test_emission_without_ct_is_aligned_rigidly(tmp_path):
    """Two tracers with different uptake in the same organs, 5 degrees and 25 mm apart, blurred and noisy."""
    uptake = {0: 0.01, 5: 2.2, 1: 1.8, 2: 3.0, 3: 3.0, 51: 2.0, 52: 1.6, 21: 12.0}
    other_uptake = {0: 0.01, 5: 1.7, 1: 4.0, 2: 5.0, 3: 5.0, 51: 1.5, 52: 1.6, 21: 9.0}
    grid = Grid.covering((-210, -165, -90), (210, 165, 480), (5.0, 5.0, 5.0))
    moved = pose(degrees=(3.0, -3.0, 3.0), shift_mm=(12.0, -10.0, 20.0), breathing_mm=0.0)
    folder = PatientFolder(tmp_path, "P1")
    scans = []
    for seed, (name, where, values) in enumerate((("first", Pose(), uptake), ("second", moved, other_uptake))):
        table = np.full(256, 0.7, np.float32)
        table[list(values)] = list(values.values())
        table[[10, 11, 12, 13, 14]] = 0.4
        image = gaussian_filter(table[ANATOMY.labels(grid, where)], 0.6)
        image *= np.random.default_rng(seed).normal(1.0, 0.1, image.shape)
        emission = grid.image(image.astype(np.float32))
        scans.append(write_scan(folder, name, None, name, emission))
    register(*scans, folder, threads=2)
    here = np.concatenate(list(organ_points(ANATOMY, (-180, -130, -70), (180, 130, 440)).values()))
    distance = errors(read_transform(folder.to_scan("second")), here, moved.from_neutral(here))
    quality = quality_of(folder, "second")
    assert distance.mean() <= 3.0
    assert quality["method"] == "emission to emission: rigid by mutual information"
    assert quality["metric_after"] > quality["metric_before"]
    assert quality["verdict"] == "check"  # never good: nothing shows the bones


def test_hopeless_pair_is_recorded_not_raised(tmp_path):
    folder = PatientFolder(tmp_path, "P1")
    reference = write_scan(folder, "first", torso(ANATOMY, REFERENCE_GRID, Pose(), 1), "1")
    air = sitk.Image([40, 40, 40], sitk.sitkInt16) - 1000
    air.SetSpacing(SPACING_MM)
    register(reference, write_scan(folder, "air", air, "2"), folder, threads=1)
    quality = quality_of(folder, "air")
    assert quality["verdict"] == "failed"
    assert "no body" in quality["reason"]
    assert read_transform(folder.to_scan("air")).TransformPoint((1.0, 2.0, 3.0)) == (1.0, 2.0, 3.0)


def test_missing_sidecar_is_refused(tmp_path):
    with pytest.raises(TheraflowError, match=r"pet\.json"):
        register(scan_row("first"), scan_row("second"), PatientFolder(tmp_path, "P1"), threads=1)


def test_verdict_follows_the_stated_limits():
    good = {
        "body_overlap_dice": 0.97,
        "metric_after": 0.9,
        "folding_fraction": 0.0,
        "inverse_consistency_p95_mm": 0.1,
        "local_volume_change_p95": 0.1,
    }
    assert verdict(good, LIMITS) == "good"
    assert verdict(good | {"body_overlap_dice": 0.9}, LIMITS) == "check"
    assert verdict(good | {"metric_after": None}, LIMITS) == "check"
    assert verdict(good | {"inverse_consistency_p95_mm": 6.0}, LIMITS) == "failed"
    assert verdict(good | {"folding_fraction": 0.02, "metric_after": None}, LIMITS) == "failed"
    assert verdict({"body_overlap_dice": 1.0}, EMISSION_LIMITS) == "check"


def test_best_shift_is_that_of_two_windows_on_one_volume():
    rng = np.random.default_rng(0)
    world = gaussian_filter(rng.normal(0, 100, (40, 36, 60)), 1.5) * 20
    fixed, moving = world[5:30, :, 10:40], world[12:38, 4:, 2:35]
    seen = [np.ones(part.shape, np.uint8) for part in (fixed, moving)]
    value, shift = best_shift(fixed, seen[0], moving, seen[1])
    assert shift == (7, 4, -8)
    assert value > 0


def moved_body(ct: sitk.Image) -> Deformation:
    """15 degrees, 40 mm and 20 mm of breathing, most of it in the upper third of the scan."""
    length_mm = ct.GetSize()[2] * ct.GetSpacing()[2]
    centre = np.array(ct.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in ct.GetSize()]))
    return Deformation(turned_pose(15.0, 40.0, 20.0, np.random.default_rng(41)), centre - (0, 0, 240 - length_mm / 6))


def grid_around(ct: sitk.Image, deformation: Deformation) -> sitk.Image:
    """The grid of `ct`, shifted so that its centre shows what was there."""
    centre = np.array(ct.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in ct.GetSize()]))
    there = deformation.pose.from_neutral(centre - deformation.origin_mm) + deformation.origin_mm
    grid = sitk.Image(ct.GetSize(), sitk.sitkUInt8)
    grid.CopyInformation(ct)
    grid.SetOrigin((np.array(ct.GetOrigin()) + there - centre).tolist())
    return grid


def abdomen(shared_data) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    folder = shared_data / "ct_abdomen" / "CRLM-CT-1004" / "image"
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def torso_of_totalsegmentator(shared_data) -> sitk.Image:
    return read_image(shared_data / "ct_totalsegmentator" / "example_ct.nii.gz")


@pytest.mark.shared_data
@pytest.mark.parametrize("read", [abdomen, torso_of_totalsegmentator])
def test_real_ct_with_known_deformation(shared_data, tmp_path, read):
    ct = sitk.Cast(read(shared_data), sitk.sitkInt16)
    rng = np.random.default_rng(1)
    deformation = moved_body(ct)
    moved = deformation.moved(ct, grid_around(ct, deformation), rng)
    folder = PatientFolder(tmp_path, "P1")
    scans = [write_scan(folder, "real", ct, "1"), write_scan(folder, "moved", moved, "2")]
    register(*scans, folder, threads=2)

    body = find_body(moved, 5.0)
    inside = np.argwhere((to_array(body.mask) > 0) & (to_array(body.image) > -200))[:, ::-1]
    there = np.array([body.mask.TransformIndexToPhysicalPoint(i) for i in rng.choice(inside, 1000).tolist()])
    here = deformation.to_original(there)
    index = np.array([ct.TransformPhysicalPointToContinuousIndex(p) for p in here.tolist()])
    seen = ((index >= 0) & (index <= np.array(ct.GetSize()) - 1)).all(axis=1)
    assert np.linalg.norm(here - there, axis=1).mean() > 40.0
    for path, start, end in (
        (folder.to_reference("moved"), there[seen], here[seen]),
        (folder.to_scan("moved"), here[seen], there[seen]),
    ):
        distance = errors(read_transform(path), start, end)
        print(f"{read.__name__}, {path.name}: {distance.mean():.2f} mm, 95 % {np.percentile(distance, 95):.2f}")
        assert distance.mean() <= 2.0
        assert np.percentile(distance, 95) <= 5.0
    assert quality_of(folder, "moved")["folding_fraction"] == 0.0
    assert verdict(quality_of(folder, "moved"), LIMITS) == "good"
