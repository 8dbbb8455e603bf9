"""Twenty virtual patients with bad luck: none lies worse after registration than before, and what failed says so."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import SimpleITK as sitk
from alignment_on_disk import write_alignment
from registration_pairs import errors, organ_points, write_scan
from scipy.spatial.transform import Rotation

from theraflow.layout import PatientFolder
from theraflow.registration import read_transform, register, verdict_of
from theraflow.registration.judge import judge
from theraflow.virtual.anatomy import Anatomy, Grid, Pose
from theraflow.virtual.render import Ellipsoid, hounsfield

LOW, HIGH = (-210.0, -165.0, -30.0), (210.0, 165.0, 400.0)
POINTS = (-180, -130, 0), (180, 130, 370)
DEFORMATION = Pose(Rotation.from_euler("xyz", (4, -3, 5), degrees=True).as_matrix(), np.array([12.0, -9.0, 18.0]), 10.0)
GOOD_MM, CHECKED_MM = 3.0, 6.0  # the mean error up to which a registration may be called good, or worth a look


@dataclass(frozen=True)
class Luck:
    """How a scan differs from the reference scan of the same patient.

    Attributes:
        low, high: corners of its field of view, mm.
        spacing_mm: of its voxels.
        pose: how the body lies.
        arms, portal_venous, lesion: arms beside the body, contrast medium, a lesion of 4 cm in the liver.
        stored: what is done to the image before it is written.
        person: added to the seed of the patient: another than 0 is somebody else.
    """

    low: tuple[float, float, float] = LOW
    high: tuple[float, float, float] = HIGH
    spacing_mm: tuple[float, float, float] = (3.0, 3.0, 4.0)
    pose: Pose = DEFORMATION
    arms: bool = False
    portal_venous: bool = False
    lesion: bool = True
    stored: Callable[[sitk.Image], sitk.Image] = field(default=lambda ct: ct)
    person: int = 0


def feet_first(ct: sitk.Image) -> sitk.Image:
    """The same points in space; slices run towards the feet, rows towards the front."""
    return sitk.DICOMOrient(ct, "LAI")


def on_turned_table(ct: sitk.Image) -> sitk.Image:
    """The same points in space on a grid whose axes are turned by 12 degrees."""
    turn = Rotation.from_euler("z", 12, degrees=True).as_matrix()
    grid = sitk.Image([160, 160, ct.GetSize()[2]], sitk.sitkUInt8)
    grid.SetSpacing(ct.GetSpacing())
    grid.SetDirection(turn.ravel().tolist())
    centre = np.array(ct.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in ct.GetSize()]))
    half = np.array([(n - 1) / 2 * s for n, s in zip(grid.GetSize(), grid.GetSpacing(), strict=True)])
    grid.SetOrigin((centre - turn @ half).tolist())
    return sitk.Resample(ct, grid, sitk.Transform(), sitk.sitkLinear, -1000.0)


def exchanged_sides(ct: sitk.Image) -> sitk.Image:
    """A header that lies: the patient lay feet first, and head first is stated."""
    turned = sitk.Image(ct)
    turned.SetDirection([-1, 0, 0, 0, 1, 0, 0, 0, -1])
    turned.SetOrigin([-ct.GetOrigin()[0], ct.GetOrigin()[1], 370 - ct.GetOrigin()[2]])
    return turned


ARMS_DOWN = Luck(arms=True, low=(-280.0, -165.0, -30.0), high=(280.0, 165.0, 400.0))
LUCKS = {
    "upper abdomen only": Luck(low=(-210, -165, 130), high=(210, 165, 330)),
    "pelvis only": Luck(low=(-210, -165, -30), high=(210, 165, 160)),
    "narrow field of view": Luck(low=(-120, -120, 60), high=(150, 120, 360)),
    "arms down": ARMS_DOWN,
    "feet first": Luck(stored=feet_first),
    "turned table": Luck(stored=on_turned_table),
    "contrast medium": Luck(portal_venous=True),
    "slices of 1.5 mm": Luck(spacing_mm=(3.0, 3.0, 1.5)),
    "slices of 6 mm": Luck(spacing_mm=(3.0, 3.0, 6.0)),
    "lesion gone": Luck(lesion=False),
}
PATIENTS = [(name, seed) for name in LUCKS for seed in (5, 12)]


def ct_of(anatomy: Anatomy, luck: Luck, centre: np.ndarray, rng: np.random.Generator) -> sitk.Image:
    grid = Grid.covering(luck.low, luck.high, luck.spacing_mm)
    labels = anatomy.labels(grid, luck.pose, couch=True, arms=luck.arms)
    there = luck.pose.from_neutral(centre[None])[0]
    lesions = [Ellipsoid(there, np.full(3, 20.0), np.eye(3))] if luck.lesion else []
    hu = hounsfield(labels, grid, lesions, rng, portal_venous=luck.portal_venous)
    return luck.stored(grid.image(np.clip(hu, -1024, 3071).astype(np.int16)))


def registered(root, luck: Luck, seed: int) -> tuple[PatientFolder, dict[str, np.ndarray]]:
    """The patient's folder with two scans registered and judged, and points of the organs in the first."""
    rng = np.random.default_rng(seed)
    sex, age = ("M", 35.0) if seed % 2 else ("F", 15.0)
    anatomy = Anatomy.draw(seed, sex, age)
    folder = PatientFolder(root, "P1")
    scans = []
    for name, where in (("first", Luck(pose=Pose())), ("second", luck)):
        body = anatomy if name == "first" else Anatomy.draw(seed + luck.person, sex, age)
        centre = body.place("liver", 20.0, np.random.default_rng(seed))
        scans.append(write_scan(folder, name, ct_of(body, where, centre, rng), name))
        write_alignment(folder, name)
    register(*scans, folder, threads=1)
    judge(*scans, folder)
    return folder, organ_points(anatomy, *POINTS)


@pytest.mark.parametrize(("name", "seed"), PATIENTS)
def test_nobody_lies_worse_after_registration_and_failures_are_flagged(tmp_path, name, seed):
    luck = LUCKS[name]
    folder, points = registered(tmp_path, luck, seed)
    here = np.concatenate(list(points.values()))
    there = luck.pose.from_neutral(here)
    seen = ((there > np.array(luck.low)) & (there < np.array(luck.high))).all(axis=1)
    assert seen.sum() > 50
    after = errors(read_transform(folder.to_scan("second")), here[seen], there[seen])
    before = np.linalg.norm(there[seen] - here[seen], axis=1)
    verdict = verdict_of(folder, "second")
    print(f"{name}, {seed}: {before.mean():.1f} mm before, {after.mean():.2f} mm after, {verdict}")
    assert after.mean() < before.mean()
    assert np.percentile(after, 95) < np.percentile(before, 95)
    assert after.mean() <= {"good": GOOD_MM, "check": CHECKED_MM, "failed": np.inf}[verdict]


def test_exchanged_sides_have_failed_and_say_where_to_look(tmp_path):
    folder, _ = registered(tmp_path, Luck(stored=exchanged_sides), 5)
    assert verdict_of(folder, "second") == "failed"
    assert "(0018,5100)" in folder.registration_quality("second").read_text()


def test_somebody_else_is_not_called_good(tmp_path):
    folder, _ = registered(tmp_path, Luck(person=1), 5)
    assert verdict_of(folder, "second") != "good"
