"""Whether the frame of reference lies: CT and PET or SPECT of one scan, moved against each other by known amounts."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from alignment_on_disk import write_alignment
from hypothesis import given, settings
from hypothesis import strategies as st
from registration_pairs import errors, organ_points, pose, scan_row, torso, write_scan

from theraflow.dicom import import_ct, import_emission
from theraflow.errors import TheraflowError
from theraflow.images import from_array, read_image, resample, to_array, write_image
from theraflow.layout import PatientFolder, Scan
from theraflow.registration import align_emission, passage, read_beside_emission, read_transform, register, verdict_of
from theraflow.registration.emission import LIMITS, Measures, judge
from theraflow.registration.judge import judge as judge_registration
from theraflow.registration.outcome import move_header
from theraflow.virtual.anatomy import Anatomy, Grid, Pose
from theraflow.virtual.cohort import cohort
from theraflow.virtual.render import FWHM_MM, blurred, emission_of, noisy, uptake_table

CT_GRID = Grid.covering((-210, -165, -180), (210, 165, 500), (5.0, 5.0, 5.0))
# Patient of the virtual cohort and scan: children and adults, three tracers, PET and SPECT.
SCANS = {"man, FDG": ("P003", "fdg"), "child, pentixafor": ("P001", "pentixafor"), "man, 177Lu": ("P007", "lu_24h")}
MOVES = {
    "25 mm along the body": pose((0.0, 0.0, 0.0), (0.0, 0.0, 25.0), 5.0),
    "40 mm and 8 degrees": pose((4.6, -4.6, 4.6), (20.0, -20.0, 28.3), 0.0),
}


class Person:
    """A patient of the virtual cohort, and what a scan shows of him."""

    def __init__(self, patient: str, scan: str) -> None:
        self.patient = next(person for person in cohort() if person.patient == patient)
        self.plan = next(plan for plan in self.patient.scans if plan.scan == scan)
        self.anatomy = self.patient.anatomy()
        self.ct = torso(self.anatomy, CT_GRID, Pose(), 1)

    def emission(self, where: Pose, seed: int) -> sitk.Image:
        """Blurred and with the noise of its tracer, as the virtual patients are written."""
        kind = emission_of(self.plan)
        grid = Grid.covering((-240, -195, -180), (240, 195, 500), (4.8,) * 3 if kind == "spect" else (4.0, 4.0, 3.0))
        uptake = uptake_table(self.plan, self.patient, self.anatomy.weight_kg).astype(np.float32)
        clean = blurred(uptake[self.anatomy.labels(CT_GRID, where)], CT_GRID, grid, FWHM_MM[kind])
        level, variation, grain_mm = {
            "FDG": (2.2, 0.06, 4.5), "pentixafor": (1.7, 0.07, 4.5),
            "pentixather": (30.0 * self.plan.injected_mbq, 0.12, 11.0),
        }[self.plan.tracer]  # fmt: skip
        rng = np.random.default_rng(seed)
        return grid.image(noisy(clean, grid, rng, at=level, variation=variation, correlation_mm=grain_mm))


@pytest.fixture(scope="module", params=SCANS)
def person(request):
    return Person(*SCANS[request.param])


def check(folder: PatientFolder, ct: sitk.Image | None, emission: sitk.Image) -> dict:
    scan = write_scan(folder, "scan", ct, "1.2.3", emission)
    align_emission(scan, folder, threads=1)
    return json.loads(folder.emission_check("scan").read_text())


def is_identity(transform: sitk.Transform) -> bool:
    points = ((0.0, 0.0, 0.0), (100.0, -50.0, 300.0), (-7.0, 80.0, -120.0))
    return all(transform.TransformPoint(point) == point for point in points)


@pytest.mark.parametrize("breathing_mm", [0.0, 15.0])
def test_what_lies_still_or_breathes_is_left_alone(person, tmp_path, breathing_mm):
    folder = PatientFolder(tmp_path, "P1")
    found = check(folder, person.ct, person.emission(Pose(breathing_mm=breathing_mm), 2))
    assert found["verdict"] == ("good" if breathing_mm == 0.0 else found["verdict"])
    assert found["verdict"] in ("good", "check")
    assert is_identity(read_transform(folder.ct_to_emission("scan")))
    assert found["limits"] == LIMITS


@pytest.mark.parametrize("move", MOVES)
def test_a_moved_patient_is_found_again(person, tmp_path, move):
    where = MOVES[move]
    folder = PatientFolder(tmp_path, "P1")
    found = check(folder, person.ct, person.emission(where, 3))
    low, high = person.anatomy.bounding_box(-80.0, 430.0)
    here = np.concatenate(list(organ_points(person.anatomy, low, high, 30).values()))
    there = where.from_neutral(here)
    assert found["verdict"] == "corrected"
    assert found["information_before"] < 0.88 * found["information_after"]
    assert errors(read_transform(folder.ct_to_emission("scan")), here, there).mean() <= 5.0
    assert found["displacement_mean_mm"] == pytest.approx(np.linalg.norm(there - here, axis=1).mean(), abs=8.0)


def test_no_ct_is_the_identity_and_says_so(tmp_path):
    folder = PatientFolder(tmp_path, "P1")
    assert check(folder, None, sitk.Image([4, 4, 4], sitk.sitkFloat32))["verdict"] == "no CT"
    assert is_identity(read_transform(folder.ct_to_emission("scan")))


@pytest.mark.parametrize("content", ["air", "uniform uptake", "elsewhere"])
def test_what_cannot_be_compared_is_not_corrected(tmp_path, content):
    """A CT of nobody, noise without a body, and an emission image that shares no part of the body."""
    anatomy = Anatomy.draw(3, "M", 25.0)
    grid = Grid.covering((-210, -165, 80), (210, 165, 300), (5.0, 5.0, 5.0))
    ct = torso(anatomy, grid, Pose(), 1)
    noise = np.random.default_rng(5).uniform(0.5, 1.5, grid.size[::-1]).astype(np.float32)
    emission = grid.image(noise)
    if content == "air":
        ct = sitk.Image(ct) * 0 - 1000
    if content == "elsewhere":
        emission.SetOrigin((0.0, 0.0, 5000.0))
    folder = PatientFolder(tmp_path, "P1")
    found = check(folder, ct, emission)
    assert found["verdict"] == "not checkable"
    assert found["reason"]
    assert is_identity(read_transform(folder.ct_to_emission("scan")))


MEASURES = Measures(
    displacement_mean_mm=25.0,
    displacement_max_mm=30.0,
    information_before=0.3,
    information_after=0.6,
    disagreement_mm=0.5,
    smallest_loss=0.2,
    body_ml=20000.0,
    overlap=0.95,
)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "corrected"),
        ({"displacement_mean_mm": 4.0}, "good"),
        ({"displacement_mean_mm": 8.0}, "check"),
        ({"information_before": 0.57}, "check"),
        ({"displacement_mean_mm": 90.0}, "check"),
        ({"body_ml": 8000.0}, "check"),
        ({"smallest_loss": 0.01}, "check"),
        ({"disagreement_mm": 12.0}, "check"),
        ({"overlap": 0.4}, "check"),
        ({"smallest_loss": 0.01, "displacement_mean_mm": 2.0}, "not checkable"),
        ({"smallest_loss": 0.01, "information_before": 0.58}, "not checkable"),
        ({"smallest_loss": 0.0, "information_before": 0.0, "information_after": 0.0}, "not checkable"),
    ],
)
def test_only_strong_evidence_corrects(changes, verdict):
    found, reason = judge(Measures(**(vars(MEASURES) | changes)), LIMITS)
    assert found == verdict
    assert (reason is None) == (verdict == "good")


def rigid(angles: tuple[float, ...], shift: tuple[float, ...]) -> sitk.Euler3DTransform:
    return sitk.Euler3DTransform((10.0, -20.0, 30.0), *angles, shift)


# In steps of a milliradian: ITK's resampling leaves out whole images whose direction has entries like 1e-308.
ANGLES = st.tuples(*[st.integers(-500, 500).map(lambda steps: steps / 1000.0)] * 3)
SHIFTS = st.tuples(*[st.floats(-60.0, 60.0)] * 3)


@settings(max_examples=30, deadline=None)
@given(angles=ANGLES, shift=SHIFTS, tilt=ANGLES)
def test_a_moved_header_is_the_image_resampled_through_the_transform(angles, shift, tilt):
    transform = rigid(angles, shift)
    rng = np.random.default_rng(0)
    image = sitk.GetImageFromArray(rng.normal(size=(9, 10, 11)).astype(np.float32))
    image.SetSpacing((3.0, 4.0, 5.0))
    image.SetOrigin((-12.0, -18.0, -20.0))
    image.SetDirection(sitk.Euler3DTransform((0.0, 0.0, 0.0), *tilt).GetMatrix())
    moved = move_header(image, transform)
    assert np.array_equal(to_array(moved), to_array(image))
    grid = Grid.covering((-125, -125, -125), (125, 125, 125), (5.0, 5.0, 5.0)).image(np.zeros((50, 50, 50), np.uint8))
    # Looking the image up at the points that the inverse gives is resampling through the transform.
    expected = to_array(resample(image, grid, transform.GetInverse(), outside=-9.0))
    found = to_array(resample(moved, grid, outside=-9.0))
    inside = (expected != -9.0) & (found != -9.0)  # rounding decides about points on the very edge
    assert inside.sum() > 100
    assert np.abs(expected - found)[inside].max() < 1e-3


def test_what_is_read_beside_the_emission_image_lies_where_the_transform_puts_it(tmp_path):
    folder = PatientFolder(tmp_path, "P1")
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[4, 5, 6] = 3
    image = from_array(labels, sitk.Image([20, 20, 20], sitk.sitkUInt8))
    image.SetSpacing((2.0, 3.0, 4.0))
    write_image(image, folder.organs("fdg"), {"quantity": "organ label", "unit": "1"})
    transform = rigid((0.1, -0.05, 0.2), (5.0, 6.0, -21.0))
    write_alignment(folder, "fdg", transform, "corrected")
    moved = read_beside_emission(folder, "fdg", folder.organs("fdg"))
    assert moved[6, 5, 4] == 3
    assert moved.TransformIndexToPhysicalPoint((6, 5, 4)) == pytest.approx(transform.TransformPoint((12.0, 15.0, 16.0)))
    assert read_image(folder.organs("fdg")).GetOrigin() == (0.0, 0.0, 0.0)
    folder.ct_to_emission("fdg").unlink()
    with pytest.raises(TheraflowError, match="ct_to_emission"):
        read_beside_emission(folder, "fdg", folder.organs("fdg"))


def registered(folder: PatientFolder, frames: tuple[str, str], cts: tuple[sitk.Image | None, sitk.Image | None]):
    """Two scans of which both CTs are said not to lie on their emission images; what `register` says of the second."""
    scans = [write_scan(folder, name, ct, frame) for name, ct, frame in zip(("a", "b"), cts, frames, strict=True)]
    maps = rigid((0.05, 0.0, 0.1), (3.0, 20.0, -8.0)), rigid((0.0, -0.1, 0.0), (-11.0, 4.0, 25.0))
    for scan, transform, ct in zip(scans, maps, cts, strict=True):
        if ct is not None:
            write_alignment(folder, scan.scan, transform, "corrected")
    for scan in scans:
        register(scans[0], scan, folder, threads=1)
    return maps, json.loads(folder.registration_fit("b").read_text())


POINTS = np.array([(60.0, 20.0, 150.0), (-70.0, -30.0, 200.0), (0.0, 50.0, 230.0), (90.0, 0.0, 180.0)])


@pytest.mark.parametrize("frames", [("1", "1"), ("1", "2")])
def test_registration_leads_from_emission_image_to_emission_image(tmp_path, frames):
    """The same CT twice: what lies at x on it lies at a(x) and at b(x) of the two emission images."""
    grid = Grid.covering((-210, -165, 80), (210, 165, 300), (5.0, 5.0, 5.0))
    ct = torso(Anatomy.draw(3, "M", 25.0), grid, Pose(), 1)
    folder = PatientFolder(tmp_path, "P1")
    maps, fit = registered(folder, frames, (ct, ct))
    there = [np.array([one.TransformPoint(point) for point in POINTS.tolist()]) for one in maps]
    assert errors(read_transform(folder.to_scan("b")), there[0], there[1]).max() < 0.5
    assert errors(read_transform(folder.to_reference("b")), there[1], there[0]).max() < 0.5
    assert errors(passage(folder, "b", "a").source_to_target, there[1], there[0]).max() < 0.5
    assert fit["ct_moved_onto_emission"] == ["a", "b"]
    if frames[0] == frames[1]:
        assert "a and b" in fit["doubt"]
        judge_registration(scan_row("a"), scan_row("b"), folder)
        assert verdict_of(folder, "b") == "check"


def test_a_frame_is_believed_where_only_one_scan_has_a_ct(tmp_path):
    grid = Grid.covering((-40, -40, 0), (40, 40, 80), (5.0, 5.0, 5.0))
    folder = PatientFolder(tmp_path, "P1")
    registered(folder, ("1", "1"), (grid.image(np.zeros(grid.size[::-1], np.int16)), None))
    assert is_identity(read_transform(folder.to_scan("b")))
    assert is_identity(read_transform(folder.to_reference("b")))


@pytest.mark.shared_data
@pytest.mark.parametrize("case", [f"STS_{number:03d}" for number in range(1, 11)])
def test_real_crops_around_a_tumour_are_never_corrected(shared_data, tmp_path, case):
    """PET/CT of one frame of reference, 2 to 9 L of body: too little to correct by, enough to see 20 mm sideways."""
    folder = PatientFolder(tmp_path, case)
    scan = Scan(case, "fdg", "FDG", "baseline", str(shared_data / "sts_cohort" / case), "suv")
    folder.ct("fdg").parent.mkdir(parents=True)
    import_ct(scan, folder.ct("fdg"))
    tracer = {"radiopharmaceutical": "[18F]FDG", "nuclide": "18F", "quantity": "suv"}
    import_emission(scan, tracer, folder.emission(scan))
    verdicts = []
    for shift in ((0.0, 0.0, 0.0), (20.0, 0.0, 0.0)):
        moved = move_header(read_image(folder.emission(scan)), sitk.TranslationTransform(3, shift))
        write_image(moved, folder.emission(scan), {"quantity": "SUVbw", "unit": "g/mL"})
        align_emission(scan, folder, threads=1)
        verdicts.append(json.loads(folder.emission_check("fdg").read_text())["verdict"])
        assert is_identity(read_transform(folder.ct_to_emission("fdg")))
    assert verdicts[0] in ("good", "check", "not checkable")
    assert verdicts[1] == "check"
