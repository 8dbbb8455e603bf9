"""Images of virtual patients against closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from theraflow.virtual.anatomy import Grid, Pose
from theraflow.virtual.cohort import cohort
from theraflow.virtual.render import (
    PEAK_RADIUS_MM,
    SIGMA_PER_FWHM,
    Ellipsoid,
    Scene,
    _labels,
    activity,
    blurred,
    ct_grid,
    emission_grid,
    hounsfield,
    lesion_uptake,
    locate,
    noisy,
    peak,
    peak_recovery,
    uptake_table,
)

GRID = Grid((48, 44, 30), (1.7, 1.7, 3.0), (-40.0, -37.0, -43.5))


def sphere(radius: float, centre=(0.3, -0.4, 0.2)) -> Ellipsoid:
    return Ellipsoid(np.array(centre), np.full(3, radius), np.eye(3))


def painted(lesion: Ellipsoid, grid: Grid) -> np.ndarray:
    image = np.zeros(grid.size[::-1], np.float32)
    box, share = lesion.coverage(grid)
    image[box] = share
    return image


@settings(max_examples=20, deadline=None)
@given(
    radii=st.tuples(*[st.floats(7.0, 22.0)] * 3),
    centre=st.tuples(*[st.floats(-4.0, 4.0)] * 3),
    seed=st.integers(0, 1000),
)
def test_coverage_sums_to_the_volume_and_lies_in_place(radii, centre, seed):
    axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    lesion = Ellipsoid(np.array(centre), np.array(radii), axes)
    image = painted(lesion, GRID)
    assert image.sum() * math.prod(GRID.spacing) / 1000 == pytest.approx(lesion.volume_ml, rel=4e-3)
    assert 4 / 3 * math.pi * math.prod(radii) / 1000 == pytest.approx(lesion.volume_ml)
    middle = (GRID.points() * image[..., None]).sum(axis=(0, 1, 2)) / image.sum()
    assert np.allclose(middle, centre, atol=0.1)


def test_blur_of_a_sphere_is_that_of_a_gaussian():
    """Against scipy on a grid of 0.5 mm."""
    lesion = sphere(10.0)
    fine = Grid((100, 100, 100), (0.5,) * 3, (-24.75,) * 3)
    reference = gaussian_filter(painted(lesion, fine), 5.8 * SIGMA_PER_FWHM / 0.5, mode="constant")
    image = blurred(painted(lesion, GRID), GRID, fine, 5.8)
    assert np.abs(image - reference).max() < 0.035  # the CT slices of 3 mm are visible, no more
    assert image.sum() == pytest.approx(reference.sum(), rel=2e-3)


@pytest.mark.parametrize("radius", [7.5, 10.0, 15.0])
def test_peak_agrees_with_the_closed_form(radius):
    grid = Grid((60, 60, 60), (1.0, 1.0, 1.0), (-29.5, -29.5, -29.5))
    lesion = sphere(radius)
    assert peak(painted(lesion, grid), grid, lesion, 5.8) == pytest.approx(peak_recovery(radius, 5.8), rel=0.015)


def test_peak_recovery_limits():
    assert peak_recovery(40.0, 5.8) == pytest.approx(1.0, abs=1e-6)
    # a tiny sphere: its volume times the mean of the Gaussian over the 1 cm3 sphere
    sigma = 20.0 * SIGMA_PER_FWHM
    r = np.linspace(0, PEAK_RADIUS_MM, 2001)
    gauss = np.exp(-(r**2) / (2 * sigma**2)) / (2 * math.pi * sigma**2) ** 1.5
    mean = np.trapezoid(gauss * r**2, r) / (PEAK_RADIUS_MM**3 / 3)
    assert peak_recovery(1.0, 20.0) == pytest.approx(4 / 3 * math.pi * mean, rel=5e-3)


def test_noise_is_unbiased_and_grows_with_the_root_of_the_uptake():
    grid = Grid((60, 60, 60), (3.4, 3.4, 3.0), (0.0, 0.0, 0.0))
    rng = np.random.default_rng(0)
    for level in (0.02, 2.0, 8.0):
        image = np.full((60, 60, 60), level, np.float32)
        out = noisy(image, grid, rng, at=2.0, variation=0.06, correlation_mm=4.5)
        assert out.mean() == pytest.approx(level, rel=2e-2 if level < 1 else 2e-3)
        assert out.min() > 0
        assert out.std() / level == pytest.approx(0.06 * math.sqrt(2.0 / level), rel=0.03)
    centred = out - out.mean()
    neighbours = (centred[:, :, 1:] * centred[:, :, :-1]).mean() / out.var()
    assert 0.3 < neighbours < 0.8  # grain, not salt and pepper


def test_emission_grid_lies_on_the_ct():
    anatomy = cohort()[4].anatomy()
    ct = ct_grid(anatomy, 3.0)
    assert ct.size[:2] == (256, 256)
    assert 600 < ct.size[2] * 3.0 < 900
    for kind in ("pet", "spect"):
        emission = emission_grid(ct, kind)
        assert np.allclose([a.mean() for a in emission.axes()], [a.mean() for a in ct.axes()])
        assert emission.size[2] * emission.spacing[2] <= ct.size[2] * ct.spacing[2] + 1e-6


@pytest.fixture(scope="module")
def abdomen() -> Scene:
    """The abdomen of P007 in the pentixafor scan, on a small coarse grid."""
    patient = cohort()[6]
    anatomy = patient.anatomy()
    grid = Grid((100, 70, 50), (4.0, 4.0, 4.0), (-198.0, -138.0, 60.0))
    lesion = next(lesion for lesion in patient.lesions if lesion.site == "liver")
    pose = Pose.draw(np.random.default_rng(3))
    where = locate(lesion, np.array([-60.0, 0.0, 190.0]), pose, "baseline")
    return Scene(patient, patient.scans[1], anatomy, pose, grid, anatomy.labels(grid, pose), {lesion.name: where})


def test_scene_has_the_organs_uptake_and_the_lesion_s(abdomen):
    table = uptake_table(abdomen.plan, abdomen.patient, abdomen.anatomy.weight_kg)
    name = next(iter(abdomen.lesions))
    lesion = next(lesion for lesion in abdomen.patient.lesions if lesion.name == name)
    uptake = lesion_uptake(abdomen, lesion, table)
    image = activity(abdomen, table, {name: uptake})
    assert image[abdomen.labels == 1].max() == pytest.approx(table[1])
    assert 3.0 < table[1] < 4.3 and table[2] == table[3]
    z, y, x = np.rint((abdomen.lesions[name].centre - abdomen.grid.origin) / 4.0).astype(int)[::-1]
    assert image[z, y, x] == pytest.approx(uptake)
    found = peak(image, abdomen.grid, abdomen.lesions[name], 5.8)
    assert found == pytest.approx(lesion.peak["pentixafor"], rel=0.05)


def test_a_lesion_moves_with_the_tissue_and_keeps_its_size(abdomen):
    (where,) = abdomen.lesions.values()
    assert np.allclose(abdomen.pose.to_neutral(where.centre[None]), [[-60.0, 0.0, 190.0]], atol=1e-3)
    assert np.allclose(where.axes.T @ where.axes, np.eye(3), atol=1e-9)
    lesion = next(x for x in abdomen.patient.lesions if x.name in abdomen.lesions)
    assert np.allclose(where.radii_mm, lesion.radii_mm)
    later = locate(lesion, np.array([-60.0, 0.0, 190.0]), abdomen.pose, "followup")
    assert np.allclose(later.radii_mm, 0.88 * np.array(lesion.radii_mm))


def test_ct_values_and_noise(abdomen):
    lesions = list(abdomen.lesions.values())
    images = [
        hounsfield(abdomen.labels, abdomen.grid, lesions, np.random.default_rng(5), portal_venous=p, noise_hu=15.0)
        for p in (False, True)
    ]
    liver = abdomen.labels == 5
    box, _ = lesions[0].coverage(abdomen.grid)
    liver[box] = False
    assert np.median(images[0][liver]) == pytest.approx(58, abs=8)
    assert np.median(images[1][liver]) == pytest.approx(112, abs=8)
    assert images[0][abdomen.labels == 0].mean() < -900
    again = hounsfield(abdomen.labels, abdomen.grid, lesions, np.random.default_rng(5), noise_hu=15.0)
    assert (again == images[0]).all()


def test_pentixather_decays_with_each_organ_s_half_life():
    patient = cohort()[6]
    first, last = (uptake_table(plan, patient, 76.0) for plan in patient.scans if plan.scan in ("lu_24h", "lu_168h"))
    hours = patient.scans[5].hours - patient.scans[2].hours
    kidney, liver = (hours / math.log2(first[label] / last[label]) for label in (2, 5))
    assert kidney == pytest.approx(41, rel=0.25)
    assert liver == pytest.approx(109, rel=0.35)
    assert liver < 6.647 * 24


@pytest.mark.parametrize("patient", cohort(), ids=lambda patient: patient.patient)
def test_every_lesion_of_every_scan_has_its_uptake(patient):
    """Positive lesions stand out, negative ones do not; new ones are there at the follow-up only."""
    anatomy = patient.anatomy()
    grid = Grid((2, 2, 2), (4.0, 4.0, 4.0), (0.0, 0.0, 100.0))
    labels = anatomy.labels(grid)
    for plan in patient.scans:
        table = uptake_table(plan, patient, anatomy.weight_kg)
        present = [lesion for lesion in patient.lesions if lesion.present(plan.timepoint)]
        assert len(present) == len([x for x in patient.lesions if x.peak or plan.scan == "fdg_followup"])
        where = {x.name: locate(x, np.zeros(3), Pose(), plan.timepoint) for x in present}
        scan = Scene(patient, plan, anatomy, Pose(), grid, labels, where)
        for lesion in present:
            uptake = lesion_uptake(scan, lesion, table)
            if scan.emission == "spect":
                assert 0 < uptake < 3 * table[2] * 2 ** (plan.hours / 30)
            elif lesion.planned_peak(plan.tracer, plan.timepoint) is None:
                assert uptake < 1.0
            else:
                assert uptake >= 0.98 * lesion.planned_peak(plan.tracer, plan.timepoint) > 1.2


def test_labels_in_slabs_are_the_same_labels():
    anatomy = cohort()[0].anatomy()
    pose = Pose.draw(np.random.default_rng(2))
    for slice_mm in (3.0, 5.0):
        grid = Grid((64, 64, 59), (6.8, 6.8, slice_mm), (-214.2, -214.2, 0.0))
        assert (_labels(anatomy, grid, pose) == anatomy.labels(grid, pose, couch=True)).all()
