"""SUVpeak against closed forms, a second derivation and the IBSI's phantoms."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter
from scipy.special import erf

from ibsi_recipe import interpolate
from theraflow.images import read_image, to_array
from theraflow.lesions import Region, ibsi_peaks, percist_peak
from theraflow.lesions.peak import RADIUS_MM

SPACINGS = [(3.0, 4.07, 4.07), (2.03, 4.07, 4.07), (3.27, 2.73, 2.73), (1.65, 1.65, 1.65), (3.27, 5.47, 5.47)]
GAUSSIAN_12_MM = 12.0 / (2.0 * np.sqrt(2.0 * np.log(2.0)))
offsets = st.tuples(*[st.floats(-0.5, 0.5)] * 3)


def mean_in_sphere(profile, radius):
    """Mean of a radial function over a sphere around its centre."""
    return 3.0 / radius**3 * quad(lambda r: r * r * profile(r), 0.0, radius)[0]


def gaussian(r):
    return 1.0 + 9.0 * np.exp(-(r**2) / (2.0 * GAUSSIAN_12_MM**2))


def blurred_ball(r, radius=15.0, sigma=6.0 / 2.3548):
    """A ball of SUV 8 in a background of 1, blurred by 6 mm FWHM (closed form)."""
    r = np.maximum(r, 1e-6)
    a, b = (radius - r) / (np.sqrt(2.0) * sigma), (radius + r) / (np.sqrt(2.0) * sigma)
    tails = sigma / (r * np.sqrt(2.0 * np.pi)) * (np.exp(-(a**2)) - np.exp(-(b**2)))
    return 1.0 + 7.0 * (0.5 * (erf(a) + erf(b)) - tails)


def sampled(profile, spacing, offset, half_width_mm=36.0):
    """The radial function at voxel centres, its own centre `offset` voxels away from the middle voxel's."""
    axes = [
        (np.arange(-int(half_width_mm / s), int(half_width_mm / s) + 1) - o) * s
        for s, o in zip(spacing, offset, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    return profile(np.sqrt(z**2 + y**2 + x**2))


def test_radius_is_that_of_one_cubic_centimetre():
    assert 4.0 / 3.0 * np.pi * RADIUS_MM**3 == pytest.approx(1000.0, rel=1e-12)


@pytest.mark.parametrize("spacing", SPACINGS)
@settings(max_examples=8, deadline=None)
@given(offset=offsets)
def test_a_small_lesion_has_its_analytic_peak_wherever_the_grid_lies(spacing, offset):
    image = sampled(gaussian, spacing, offset)
    found = percist_peak(image, Region.of(image > 5.0), spacing)
    assert found == pytest.approx(mean_in_sphere(gaussian, RADIUS_MM), rel=0.02 if spacing[1] > 5 else 0.01)


@pytest.mark.parametrize("spacing", SPACINGS)
@settings(max_examples=5, deadline=None)
@given(offset=offsets)
def test_a_ball_of_3_cm_has_its_analytic_peak(spacing, offset):
    image = sampled(blurred_ball, spacing, offset)
    found = percist_peak(image, Region.of(image > 4.0), spacing)
    assert found == pytest.approx(mean_in_sphere(blurred_ball, RADIUS_MM), rel=0.01)


@pytest.mark.parametrize("seed", [0, 1])
def test_percist_peak_agrees_with_a_search_by_brute_force(seed):
    """A second derivation: spheres of many points on the spline of `scipy.ndimage`, centred everywhere."""
    random, spacing = np.random.default_rng(seed), np.array([3.0, 4.0, 4.0])
    image = 5.0 + 20.0 * gaussian_filter(random.normal(size=(18, 16, 16)), 1.5)
    mask = np.zeros(image.shape, dtype=bool)
    mask[7:11, 6:10, 6:10] = True
    steps = np.arange(-6, 7) * 1.0
    ball = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    ball = ball[(ball**2).sum(axis=1) <= RADIUS_MM**2]
    centres = [np.arange(a - 0.5, b - 0.49, 1 / 3) for a, b in ((7, 11), (6, 10), (6, 10))]
    centres = np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    coefficients = spline_filter(image, order=3, mode="mirror")
    points = (centres + ball / spacing).reshape(-1, 3).T
    means = map_coordinates(coefficients, points, order=3, mode="mirror", prefilter=False)
    best = means.reshape(len(centres), -1).mean(axis=1).max()
    assert percist_peak(image, Region.of(mask), spacing) == pytest.approx(best, rel=5e-3)


@settings(max_examples=10, deadline=None)
@given(corner=st.tuples(*[st.sampled_from([0, 5])] * 3), value=st.floats(0.1, 50.0))
def test_a_uniform_image_has_its_value_as_peak_even_in_its_corners(corner, value):
    image = np.full((6, 6, 6), value)
    mask = np.zeros(image.shape, dtype=bool)
    mask[corner] = True
    region = Region.of(mask)
    assert percist_peak(image, region, (3.0, 4.0, 4.0)) == pytest.approx(value)
    assert ibsi_peaks(image, region, (3.0, 4.0, 4.0)) == pytest.approx((value, value))


def test_a_single_slice_has_a_peak():
    image = np.full((1, 9, 9), 2.0)
    image[0, 4, 4] = 3.0
    assert 2.0 < percist_peak(image, Region.of(image > 2.5), (5.0, 4.0, 4.0)) < 3.0


def test_a_long_lesion_has_the_peak_of_its_hottest_part():
    spacing = (4.0, 4.0, 4.0)
    image = np.ones((12, 12, 80))
    for place, height in ((8, 6.0), (40, 9.0), (72, 4.0)):
        bump = sampled(gaussian, spacing, (0, 0, 0), half_width_mm=20.0)
        image[1:12, 1:12, place - 5 : place + 6] = 1.0 + (bump - 1.0) * height / 9.0
    whole, part = (
        Region.of(image > 2.0),
        Region.of((image > 2.0) & (np.arange(80) > 24) & (np.arange(80) < 56)),
    )
    assert whole.mask.shape[2] > 60
    assert percist_peak(image, whole, spacing) == pytest.approx(percist_peak(image, part, spacing), rel=1e-3)


def test_the_centre_stays_within_the_lesion():
    """A lesion beside something hotter: the sphere reaches into it, but is not moved there."""
    image = sampled(gaussian, (2.0, 2.0, 2.0), (0, 0, 0))
    beside = np.zeros(image.shape, dtype=bool)
    beside[18, 18, 24] = True  # 12 mm from the hot spot's centre
    centred = percist_peak(image, Region.of(image > 5.0), (2.0, 2.0, 2.0))
    assert percist_peak(image, Region.of(beside), (2.0, 2.0, 2.0)) < 0.6 * centred


@pytest.mark.shared_data
def test_digital_phantom_of_the_ibsi(shared_data):
    folder = shared_data / "ibsi_phantoms" / "digital"
    image, mask = read_image(folder / "image" / "phantom.nii.gz"), read_image(folder / "mask" / "mask.nii.gz")
    peaks = ibsi_peaks(to_array(image), Region.of(to_array(mask)), image.GetSpacing()[::-1])
    assert [round(peak, 1) for peak in peaks] == [2.6, 3.1]


# Configuration: new voxels (x, y, z; 0 keeps the axis), interpolation, range of HU, sd around the mean.
CHEST_CT = {
    "A": (None, None, (-500, 400), None),
    "B": ((2, 2, 0), "linear", (-500, 400), None),
    "C": ((2, 2, 2), "linear", (-1000, 400), None),
    "D": ((2, 2, 2), "linear", None, 3.0),
    "E": ((2, 2, 2), "cubic", (-1000, 400), 3.0),
}


@pytest.mark.shared_data
@pytest.mark.parametrize("configuration", CHEST_CT)
def test_chest_ct_phantom_of_the_ibsi(shared_data, configuration):
    folder = shared_data / "ibsi_phantoms"
    image = read_image(folder / "chest_ct" / "image" / "phantom.nii.gz")
    mask = read_image(folder / "chest_ct" / "mask" / "mask.nii.gz")
    expected = pd.read_csv(folder / "expected_peaks.csv").query("config == @configuration")
    spacing, method, limits, deviations = CHEST_CT[configuration]
    if spacing is None:
        values, inside, grid = to_array(image).astype(float), to_array(mask) > 0, image
    else:
        values, inside, grid = interpolate(image, mask, spacing, method, whole_numbers=True)
    if limits:
        inside &= (values >= limits[0]) & (values <= limits[1])
    if deviations:
        inside &= np.abs(values - values[inside].mean()) <= deviations * values[inside].std()
    local, highest = ibsi_peaks(values, Region.of(inside), grid.GetSpacing()[::-1])
    for code, found in (("VJGA", local), ("0F91", highest)):
        row = expected[expected["ibsi_code"] == code].iloc[0]
        assert found == pytest.approx(row["value"], abs=float(row["tolerance"]))
