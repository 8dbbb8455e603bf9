"""Dose maps: deposition, time integration and outlines, against closed formulae, other algorithms and transport."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.ndimage
import scipy.signal
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from theraflow.dosimetry.activity.regions import Region
from theraflow.dosimetry.maps.density import density_of_hu
from theraflow.dosimetry.maps.deposition import Kernels, convolve, kernel_dose, local_dose, per_mass, tissue_of
from theraflow.dosimetry.maps.grids import MOST_VOXELS, Grids
from theraflow.dosimetry.maps.histograms import dose_at_volume, hottest, mean_dose
from theraflow.dosimetry.maps.outlines import in_whole_voxels
from theraflow.dosimetry.maps.time_integration import (
    Scans,
    fit_voxels,
    model_scans,
    share_among_voxels,
    texture,
    voxel_wise_factor,
)
from theraflow.dosimetry.s_values.kernels import read_kernel, voxel_s
from theraflow.dosimetry.s_values.transport.radial import Emissions
from theraflow.dosimetry.s_values.transport.voxels import deposit_in_voxels
from theraflow.errors import TheraflowError
from theraflow.nuclides import MEV_IN_J, nuclide

RESOURCES = Path(__file__).resolve().parents[2] / "resources"
SOFT = 1.03
LN2 = math.log(2.0)
LUTETIUM, YTTRIUM = nuclide("177Lu"), nuclide("90Y")


def empty(size, spacing) -> sitk.Image:
    image = sitk.Image([int(n) for n in size], sitk.sitkFloat32)
    image.SetSpacing([float(s) for s in spacing])
    return image


def grids_of(size=(12, 10, 8), spacing=(4.8, 4.8, 4.8)) -> Grids:
    return Grids.around(np.ones(size[::-1]), empty(size, spacing))


def dose_of(decays: np.ndarray, grids: Grids, name: str, tissue: np.ndarray | None = None) -> np.ndarray:
    tissue = np.full(decays.shape, SOFT, dtype=np.float32) if tissue is None else tissue
    return kernel_dose(decays, tissue, grids, Kernels.of(name, grids, SOFT))


def whole_kernel(eighth: np.ndarray) -> np.ndarray:
    for axis in range(3):
        eighth = np.concatenate([np.flip(np.delete(eighth, 0, axis), axis), eighth], axis=axis)
    return eighth


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 12)] * 3), st.integers(0, 1000))
def test_convolution_is_the_sum_over_all_pairs_of_voxels(shape, kernel_shape, seed):
    random = np.random.default_rng(seed)
    emitted, kernel = random.random(shape), random.random(kernel_shape)
    result = convolve(emitted, kernel)
    assert result.shape == shape
    for place in random.integers(0, shape, (3, 3)):
        offsets = np.abs(np.indices(shape) - place[:, None, None, None])
        near = (offsets < np.array(kernel_shape)[:, None, None, None]).all(axis=0)
        direct = (emitted[near] * kernel[tuple(offsets[:, near])]).sum()
        assert result[tuple(place)] == pytest.approx(direct, rel=1e-9, abs=1e-12)


def test_convolution_agrees_with_scipy_and_single_precision_is_enough():
    random = np.random.default_rng(1)
    emitted = random.random((30, 24, 17)) ** 8
    kernel = voxel_s("177Lu", (4.8, 4.8, 4.8), SOFT, [29, 23, 16])
    expected = scipy.signal.fftconvolve(emitted, whole_kernel(kernel), mode="same")
    np.testing.assert_allclose(convolve(emitted, kernel), expected, rtol=1e-9)
    single = convolve(emitted.astype(np.float32), kernel)
    assert single.dtype == np.float32
    assert np.abs(single / expected - 1.0).max() < 1e-4


@pytest.mark.parametrize("name", ["177Lu", "90Y", "131I"])
def test_a_single_voxel_is_the_kernel(name):
    """Voxels that are not divided: what comes out are the voxel S values, without smoothing."""
    grids = grids_of((9, 9, 9), (2.0, 1.5, 1.9))
    assert grids.parts == (1, 1, 1)
    decays = np.zeros((9, 9, 9))
    decays[4, 4, 4] = 1e12
    dose = dose_of(decays, grids, name)
    expected = whole_kernel(voxel_s(name, (1.9, 1.5, 2.0), SOFT, [4, 4, 4])) * 1e12
    np.testing.assert_allclose(dose, expected, rtol=1e-5, atol=1e-7 * expected.max())


@pytest.mark.parametrize("name", ["177Lu", "131I"])
def test_far_voxels_hold_the_energy_of_the_kernel(name):
    """Photons up to 30 cm, by the values at the centres of the voxels, against the sum of the kernel's shells."""
    value = voxel_s(name, (10.0, 10.0, 10.0), 1.0, [33, 33, 33], ["photons"])
    inside = np.linalg.norm(np.indices(value.shape), axis=0) <= 30.0
    copies = 2 ** (np.indices(value.shape) > 0).sum(axis=0)
    kernel = read_kernel(name)
    expected = np.interp(30.0, kernel.edges, np.concatenate([[0.0], np.cumsum(kernel.photons)]))
    assert (value * copies)[inside].sum() * 1e-3 / MEV_IN_J == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("name", ["177Lu", "90Y"])
def test_energy_is_conserved(name):
    """All electrons, and of the photons what stays within the grid: between a ball inside it and one around it."""
    grids = grids_of((40, 40, 40))
    decays = np.zeros([n * 3 for n in (40, 40, 40)], dtype=np.float32)
    decays[58:62, 58:62, 58:62] = 1e9
    kernels = Kernels.of(name, grids, SOFT)
    joule = convolve(decays, kernels.electrons).sum(dtype=float) * SOFT * grids.fine_ml / 1000.0
    kernel = read_kernel(name)
    assert joule / (64e9 * MEV_IN_J) == pytest.approx(kernel.electrons.sum(), rel=2e-4)
    joule = convolve(grids.summed(decays), kernels.photons).sum() * SOFT * grids.spect_ml / 1000.0
    inside = np.concatenate([[0.0], np.cumsum(kernel.photons)])
    low, high = np.interp(np.array([9.0, 9.6 * math.sqrt(3.0)]) * SOFT, kernel.edges, inside)
    assert low < joule / (64e9 * MEV_IN_J) < high


@pytest.mark.parametrize("name", ["177Lu", "90Y"])
def test_uniform_activity_gives_the_equilibrium_dose(name):
    """In the middle of a wide block: all electrons, and the photons of a sphere between those inside and around it."""
    grids = grids_of((30, 30, 30), (6.0, 6.0, 6.0))
    decays = np.full((90, 90, 90), 1e6, dtype=np.float32)
    dose = float(dose_of(decays, grids, name)[45, 45, 45])
    mev = dose * SOFT * grids.fine_ml / 1000.0 / 1e6 / MEV_IN_J
    kernel = read_kernel(name)
    low, high = kernel.energy_inside(np.array([9.0, 9.0 * math.sqrt(3.0)]) * SOFT)
    assert low < mev < high
    electrons = float(convolve(decays, Kernels.of(name, grids, SOFT).electrons)[45, 45, 45])
    assert electrons * SOFT * grids.fine_ml / 1000.0 / 1e6 / MEV_IN_J == pytest.approx(kernel.electrons.sum(), rel=1e-4)


def test_what_one_voxel_gives_another_it_gets_back():
    grids = grids_of((14, 10, 8), (4.4, 4.8, 5.2))
    shape = np.array(grids.fine.GetSize()[::-1])
    places = (4, 7, 10), tuple(shape - (5, 2, 11))  # middles of voxels
    doses = []
    for source, target in (places, places[::-1]):
        decays = np.zeros(shape)
        decays[source] = 1e12
        doses.append(dose_of(decays, grids, "177Lu")[target])
        mirrored = dose_of(np.flip(decays), grids, "177Lu")[tuple(shape - 1 - target)]
        assert mirrored == pytest.approx(doses[-1], rel=1e-4)
    assert doses[0] == pytest.approx(doses[1], rel=0.01) and doses[0] > 0


def test_the_order_of_the_axes_does_not_matter():
    random = np.random.default_rng(3)
    size, spacing = (9, 7, 6), (1.7, 2.0, 1.2)
    decays = random.random(size[::-1])
    first = dose_of(decays, grids_of(size, spacing), "90Y")
    turned = dose_of(decays.transpose(1, 2, 0), grids_of((6, 9, 7), (1.2, 1.7, 2.0)), "90Y")
    np.testing.assert_allclose(turned, first.transpose(1, 2, 0), rtol=0.01)


def test_a_sphere_has_the_dose_of_the_closed_form():
    """Its steps of 1.6 mm lose 1 % of 90Y's dose more than a smooth surface."""
    grids = grids_of((20, 20, 20))
    z, y, x = np.ogrid[:60, :60, :60]
    distance = np.sqrt((z - 29.5) ** 2 + (y - 29.5) ** 2 + (x - 29.5) ** 2) * 1.6
    sphere = np.where(distance <= 14.0, 1.0, 0.0)
    region = Region("L01", "lesion", (slice(0, 60),) * 3, sphere)
    tissue = np.full(sphere.shape, SOFT, dtype=np.float32)
    for name in ("177Lu", "90Y"):
        dose = mean_dose(dose_of(sphere * 1e9, grids, name), region, tissue)
        mass_g = sphere.sum() * grids.fine_ml * SOFT
        radius = (3.0 * mass_g / (4.0 * math.pi * SOFT)) ** (1.0 / 3.0)
        mev = read_kernel(name).energy_in_sphere(radius * SOFT)
        expected = sphere.sum() * 1e9 * mev * MEV_IN_J / (mass_g / 1000.0)
        assert dose == pytest.approx(expected, rel=0.015)


def test_electrons_in_a_wide_lung_have_the_dose_of_its_density():
    """Everywhere lung: the electrons' energy over its mass; what photons bring is that of soft tissue."""
    grids = grids_of((16, 16, 16), (2.0, 2.0, 2.0))
    decays = np.full((16, 16, 16), 1e9)
    soft, lung = (dose_of(decays, grids, "90Y", np.full(decays.shape, d, np.float32))[8, 8, 8] for d in (SOFT, 0.26))
    kernels = Kernels.of("90Y", grids, SOFT)
    photons = convolve(decays, kernels.photons)[8, 8, 8]
    assert lung - photons == pytest.approx((soft - photons) * SOFT / 0.26, rel=1e-6)
    local = local_dose(decays, np.full(decays.shape, 0.26, np.float32), grids.fine_ml, "90Y")
    assert local[8, 8, 8] == pytest.approx(1e9 * 0.93311 * MEV_IN_J / (0.26 * 0.008e-3), rel=1e-6)
    with pytest.raises(TheraflowError, match="No electron energy is known for 68Ga"):
        local_dose(decays, np.ones(decays.shape), 1.0, "68Ga")


def test_air_never_gets_a_huge_dose():
    density = np.full((12, 12, 12), SOFT)
    density[4:6, 4:6, 4:6] = [[[0.0012, 0.05]]]  # bowel gas
    density[:, :, 9:] = 0.0012  # beside the patient
    body = np.where(np.arange(12) < 9, 1.0, 0.0) * np.ones((12, 12, 12))
    body[:, :, 8] = 0.3
    density[:, :, 8] = 0.02
    tissue = tissue_of(density, body)
    grids = grids_of((12, 12, 12), (2.0, 2.0, 2.0))
    dose = dose_of(np.full((12, 12, 12), 1e9), grids, "90Y", tissue)
    assert np.isnan(dose[4:6, 4:6, 4:6]).all() and np.isnan(dose).sum() == 8
    assert not dose[:, :, 8:].any()
    told = dose[np.isfinite(dose) & (tissue > 0)]
    assert (told > 0).all() and told.max() <= 1.3 * np.median(told)
    assert not np.isinf(per_mass(np.ones(2), np.zeros(2), 1.0)).any()


@pytest.mark.parametrize(("hu", "density"), [
    (-1000, 0.00121), (-98, 0.93), (-3024, 0.00121), (0, 1.0175), (40, 1.03), (150, 1.03), (500, 1.313),
    (1000, 1.609), (3000, 1.9642),
])  # fmt: skip
def test_density_of_hu(hu, density):
    """Adipose tissue, water to 2 %, soft tissue with and without contrast medium, 1.017 + 0.592 HU/1000 in bone."""
    assert density_of_hu(np.array([float(hu)]))[0] == pytest.approx(density, rel=0.002)


@pytest.mark.parametrize(("name", "electrons", "photons"), [("177Lu", 20_000, 40_000), ("90Y", 20_000, 2_000)])
def test_convolution_agrees_with_transport_in_voxels(name, electrons, photons):
    """Histories from a sphere and a hot voxel beside it, on anisotropic voxels; nothing of the kernels is in them."""
    spacing = np.array([4.8, 2.4, 3.2])  # z, y, x in mm
    z, y, x = np.ogrid[:9, :15, :11]
    decays = np.where(((z - 4) * 4.8) ** 2 + ((y - 7) * 2.4) ** 2 + ((x - 5) * 3.2) ** 2 <= 121.0, 1.0, 0.0)
    decays[2, 4, 3] = 3.0
    mev, sd = deposit_in_voxels(
        Emissions.read(RESOURCES / "emissions.tsv", name), RESOURCES / "photon_cross_sections_water.tsv",
        decays, spacing / 10.0 * SOFT, 7, electrons, photons,
    )  # fmt: skip
    found = convolve(decays, voxel_s(name, spacing, SOFT, [8, 14, 10])) * SOFT * spacing.prod() * 1e-6 / MEV_IN_J
    source = decays > 0
    assert found[source].sum() == pytest.approx(mev[source].sum(), rel=0.005)
    assert found.sum() == pytest.approx(mev.sum(), rel=0.005)
    normal = ((found - mev)[source] / sd[source]).ravel()
    assert np.sqrt((normal**2).mean()) < 1.5  # ten batches: sd of a tenth, and one of nine degrees of freedom


def scans_of(values: np.ndarray, time_h=(24.0, 48.0, 96.0, 168.0)) -> Scans:
    return Scans([f"lu{i}" for i in range(len(values))], np.array(time_h[: len(values)]), values)


def test_curves_of_voxels_are_found_exactly():
    time = np.array([24.0, 48.0, 96.0, 168.0])
    half_life = np.array([20.0, 41.0, 60.0, 100.0, 150.0])
    amplitude = np.array([3.0, 1.0, 0.2, 7.0, 1.0])
    found, rate = fit_voxels(time, amplitude * np.exp(-np.outer(time, LN2 / half_life)), LUTETIUM)
    assert rate == pytest.approx(LN2 / half_life, rel=2e-3)
    assert found / rate == pytest.approx(amplitude * half_life / LN2, rel=2e-3)


def test_voxels_without_a_curve_of_their_own():
    """Rising, slower than physical decay, negative, faster than the scans can see: left to the region."""
    time = np.array([24.0, 48.0, 96.0, 168.0])
    values = np.stack([
        [1.0, 2.0, 3.0, 4.0], np.exp(-time * LN2 / 400.0), [-1.0, -0.5, -0.2, -0.1], np.exp(-time * LN2 / 3.0),
        np.zeros(4), np.exp(-time * LN2 / 50.0),
    ], axis=1)  # fmt: skip
    amplitude, rate = fit_voxels(time, values, LUTETIUM)
    assert np.isnan(amplitude).tolist() == [True] * 5 + [False]
    assert np.isnan(rate).tolist() == [True] * 5 + [False]
    assert np.isnan(fit_voxels(time[:1], values[:1], LUTETIUM)[0]).all()


def test_noise_of_voxels_averages_out():
    """20 % counting noise: the mean integral of a uniform region stays within 2 %, no voxel's exceeds tenfold."""
    random = np.random.default_rng(5)
    time = np.array([24.0, 48.0, 96.0, 168.0])
    mean = 25.0 * np.exp(-(time - 24.0) * LN2 / 50.0)
    values = random.poisson(mean[:, None], (4, 40_000)).astype(float)
    amplitude, rate = fit_voxels(time, values, LUTETIUM)
    own = np.isfinite(rate)
    truth = 25.0 * 2.0 ** (24.0 / 50.0) * 50.0 / LN2
    assert own.mean() > 0.8
    shared = values.sum(axis=0) / values.sum(axis=0).mean() * truth
    assert np.where(own, amplitude / rate, shared).mean() == pytest.approx(truth, rel=0.02)
    assert (amplitude[own] / rate[own]).max() < 10.0 * truth


def blurred_patient(fwhm_mm: float = 10.0):
    """Two spheres, one twice as hot as the other, in a body of a fifth; blurred, on voxels of 4.8 mm."""
    grids = grids_of((30, 24, 20))
    z, y, x = np.ogrid[:60, :72, :90]
    regions = []
    for name, centre in (("L01", (30, 30, 30)), ("L02", (30, 45, 60))):
        inside = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= 10.0**2
        regions.append(Region(name, "lesion", (slice(0, 60), slice(0, 72), slice(0, 90)), inside.astype(np.float32)))
    body = np.ones((60, 72, 90), dtype=np.float32)
    curves, values = [], []
    for i, time in enumerate((24.0, 48.0, 96.0, 168.0)):
        image = np.zeros(body.shape)
        for name, (level, half_life, inside) in blurred_truth(regions, body).items():
            now = level * 2.0 ** (-time / half_life) * inside
            image += now
            curves.append({"region": name, "scan": f"lu{i}", "activity_mbq": now.sum() * grids.fine_ml / 1e6})
        image = scipy.ndimage.gaussian_filter(image, fwhm_mm / 2.3548200450309493 / 1.6, mode="nearest")
        values.append(grids.mean(image))
    return grids, regions, body, scans_of(np.array(values)), pd.DataFrame(curves)


def blurred_truth(regions, body) -> dict[str, tuple[float, float, np.ndarray]]:
    """Concentration at the injection in Bq/mL, effective half-life in h, and place of every region."""
    rest = body - regions[0].fraction - regions[1].fraction
    return {
        "L01": (1000.0, 40.0, regions[0].fraction), "L02": (2000.0, 80.0, regions[1].fraction),
        "remainder": (200.0, 60.0, rest),
    }  # fmt: skip


def test_an_evenly_filled_region_comes_out_even():
    """Blurred, its edge has half of the activity and its surroundings much of the rest: both are undone."""
    grids, regions, body, scans, curves = blurred_patient()
    model = model_scans(scans, regions, body, curves, 10.0, grids)
    even = texture(scans, model, grids)
    for region in regions:
        inside = even[region.fraction > 0]
        assert inside.mean() == pytest.approx(1.0, abs=0.01)
        assert inside.std() < 0.03
    around = scipy.ndimage.binary_dilation(regions[1].fraction > 0, iterations=4) & (regions[1].fraction == 0)
    assert even[around].mean() == pytest.approx(1.0, abs=0.03)
    uncorrected = texture(scans, model_scans(scans, regions, body, curves, None, grids), grids)
    assert uncorrected[around].mean() > 1.7


def test_a_region_without_an_activity_in_the_scan_is_modelled_by_its_image():
    """As in hybrid dosimetry, where curves.tsv has the planar points and the SPECT is in their scale."""
    grids, regions, body, scans, curves = blurred_patient()
    model = model_scans(scans, regions, body, curves[curves["region"] == "remainder"], 10.0, grids)
    even = texture(scans, model, grids)
    for region in regions:
        assert even[region.fraction > 0].std() < 0.1 * even[region.fraction > 0].mean()
    around = scipy.ndimage.binary_dilation(regions[1].fraction > 0, iterations=4) & (regions[1].fraction == 0)
    assert even[around].mean() == pytest.approx(1.0, abs=0.3)


def test_voxel_wise_integrals_are_those_of_the_regions():
    grids, regions, body, scans, curves = blurred_patient()
    model = model_scans(scans, regions, body, curves, 10.0, grids)
    even = texture(scans, model, grids)
    injected = 100.0
    integrals = {}
    for wanted in (LUTETIUM, YTTRIUM):
        for name, (level, half_life, inside) in blurred_truth(regions, body).items():
            rate = LN2 / half_life + (wanted.decay_constant_per_s - LUTETIUM.decay_constant_per_s) * 3600.0
            integrals[name] = level * inside.sum() * grids.fine_ml / 1e6 / injected / rate
        # the region's fit twice too high: curves of the voxels do not follow it
        doubled = {name: 2.0 * value for name, value in integrals.items()}
        shared = share_among_voxels(even, regions, body, doubled)
        factor = voxel_wise_factor(scans, model, grids.summed(shared), injected, LUTETIUM, wanted, grids)
        own = shared * grids.repeated(factor)
        for region in regions:
            core = scipy.ndimage.binary_erosion(region.fraction > 0, iterations=4)
            expected = integrals[region.name] / region.fraction.sum()
            assert own[core].mean() == pytest.approx(expected, rel=0.03)
            assert (own * region.fraction).sum() == pytest.approx(integrals[region.name], rel=0.06)


def test_regions_in_whole_voxels_keep_their_volume_and_do_not_overlap():
    random = np.random.default_rng(8)
    smooth = scipy.ndimage.gaussian_filter(random.random((30, 30, 30)), 4.0)
    left = np.clip(0.5 + (smooth - smooth.mean()) * 600.0, 0.0, 1.0).astype(np.float32)
    box = (slice(0, 30),) * 3
    whole = in_whole_voxels([Region("a", "organ", box, left), Region("b", "organ", box, 1.0 - left)], left.shape)
    for region, before in zip(whole, (left, 1.0 - left), strict=True):
        assert set(np.unique(region.fraction)) == {0.0, 1.0}
        assert region.fraction.sum() == pytest.approx(before.sum(), rel=0.01)
    assert (whole[0].fraction + whole[1].fraction).max() == 1.0
    assert whole[0].fraction[left > 0.9].all()


def test_grids_enclose_the_body_and_are_not_too_fine():
    body = np.zeros((20, 18, 16))
    body[3:9, 4:12, 5:15] = 1.0
    grids = Grids.around(body, empty((16, 18, 20), (4.8, 4.4, 2.0)))
    assert grids.box == (slice(3, 9), slice(4, 12), slice(5, 15))
    assert grids.parts == (1, 3, 3)
    values = np.random.default_rng(0).random((6, 24, 30))
    expected = values.reshape(6, 1, 8, 3, 10, 3).sum(axis=(1, 3, 5))
    np.testing.assert_allclose(grids.summed(values), expected)
    np.testing.assert_allclose(grids.mean(grids.repeated(expected)), expected)
    inner, fine = grids.around_fine((slice(2, 4), slice(4, 8), slice(10, 11)))
    assert fine == (slice(2, 4), slice(3, 9), slice(9, 12))
    assert inner.fine.TransformIndexToPhysicalPoint((0, 0, 0)) == pytest.approx(
        grids.fine.TransformIndexToPhysicalPoint((9, 3, 2))
    )
    whole = Grids.around(np.zeros((200, 128, 128)), empty((128, 128, 200), (4.8, 4.8, 4.8)))
    assert whole.box == (slice(0, 200), slice(0, 128), slice(0, 128))
    assert whole.fine.GetNumberOfPixels() <= MOST_VOXELS


def test_histogram_leaves_out_voxels_without_a_dose():
    dose = np.arange(27.0).reshape(3, 3, 3)
    dose[0] = math.nan
    region = Region("liver", "organ", (slice(0, 3),) * 3, np.ones((3, 3, 3)))
    assert dose_at_volume(dose, region, np.array([0.0, 50.0, 100.0])).tolist() == [26.0, 17.5, 9.0]
    tissue = np.where(np.isnan(dose), np.nan, 1.0)
    tissue[1] = 3.0
    assert mean_dose(dose, region, tissue) == pytest.approx((13.0 * 3 + 22.0) / 4)
    assert hottest(dose, region) == (2, 2, 2)
