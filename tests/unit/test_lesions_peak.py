"""SUVpeak against closed forms, a second derivation and the IBSI's phantoms."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter
from scipy.optimize import minimize
from scipy.special import erf

from ibsi_recipe import interpolate
from theraflow.images import read_image, to_array
from theraflow.lesions import Region, ibsi_peaks, percist_peak
from theraflow.lesions.peak import RADIUS_MM

SPACINGS = [(3.0, 4.07, 4.07), (2.03, 4.07, 4.07), (3.27, 2.73, 2.73), (1.65, 1.65, 1.65), (3.27, 5.47, 5.47)]
GAUSSIAN_12_MM = 12.0 / (2.0 * np.sqrt(2.0 * np.log(2.0)))
OFFSETS = np.vstack([np.zeros(3), np.full(3, 0.5), np.random.default_rng(6).uniform(-0.5, 0.5, (48, 3))])


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


def deviations(profile, threshold, spacing):
    """Relative deviation of the peak from the analytic mean in a sphere around the centre, at 50 places of the grid."""
    found = []
    for offset in OFFSETS:
        image = sampled(profile, spacing, offset)
        found.append(percist_peak(image, Region.of(image > threshold), spacing))
    return np.array(found) / mean_in_sphere(profile, RADIUS_MM) - 1.0


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_small_lesion_has_its_analytic_peak_wherever_the_grid_lies(spacing):
    found = deviations(gaussian, 5.0, spacing)
    assert np.abs(found).max() < (0.006 if spacing[1] > 5 else 0.001)
    assert np.ptp(found) < (0.005 if spacing[1] > 5 else 0.001)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_ball_of_3_cm_has_its_analytic_peak(spacing):
    assert np.abs(deviations(blurred_ball, 4.0, spacing)).max() < 0.005


@pytest.mark.parametrize(("seed", "spacing"), [(0, (3.0, 4.0, 4.0)), (1, (3.0, 4.0, 4.0)), (2, (2.0, 1.7, 1.7))])
def test_percist_peak_agrees_with_a_search_by_brute_force(seed, spacing):
    """A second derivation: spheres of many points on the spline of `scipy.ndimage`, first everywhere, then uphill."""
    random = np.random.default_rng(seed)
    image = 5.0 + 20.0 * gaussian_filter(random.normal(size=(30, 28, 28)), 1.2)
    box = [(13, 17), (12, 16), (12, 16)]
    mask = np.zeros(image.shape, dtype=bool)
    mask[tuple(slice(*pair) for pair in box)] = True
    coefficients = spline_filter(image, order=5, mode="mirror")

    # Gauss-Legendre points along the radius and the height, and even ones around.
    (r, of_r), (h, of_h) = np.polynomial.legendre.leggauss(8), np.polynomial.legendre.leggauss(10)
    r, h, angle = np.meshgrid((r + 1.0) / 2.0, h, np.arange(20) * np.pi / 10, indexing="ij")
    across = np.sqrt(1.0 - h**2)
    ball = np.stack([h, across * np.sin(angle), across * np.cos(angle)], axis=-1) * r[..., None] * RADIUS_MM / spacing
    weights = of_r[:, None, None] * of_h[:, None] * r**2
    ball, weights = ball.reshape(-1, 3), weights.ravel() / weights.sum()

    def means(centres):
        points = (np.reshape(centres, (-1, 1, 3)) + ball).reshape(-1, 3).T
        values = map_coordinates(coefficients, points, order=5, mode="mirror", prefilter=False)
        return values.reshape(-1, len(ball)) @ weights

    axes = [np.arange(a - 0.5, b - 0.4, 1 / 2) for a, b in box]
    centres = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    limits = [(a - 0.5, b - 0.5) for a, b in box]
    options = {"xatol": 1e-2, "fatol": 1e-4, "maxfev": 80}
    best = max(
        -minimize(lambda c: -means(c)[0], start, method="Nelder-Mead", bounds=limits, options=options).fun
        for start in centres[np.argsort(-means(centres))[:4]]
    )
    assert percist_peak(image, Region.of(mask), spacing) == pytest.approx(best, rel=3e-4)


@pytest.mark.parametrize("spacing", [(3.27, 5.47, 5.47), (3.27, 2.73, 2.73), (1.65, 1.65, 1.65)])
def test_no_voxel_of_a_noisy_lesion_has_a_higher_peak_than_the_lesion(spacing):
    """White noise, the hardest: which voxels are looked at closely must not cost the highest."""
    for seed in range(4):
        image = np.random.default_rng(seed).normal(5.0, 1.5, (20, 20, 20))
        mask = np.zeros(image.shape, dtype=bool)
        mask[7:13, 7:13, 7:13] = True
        alone = np.zeros(image.shape, dtype=bool)
        peaks = []
        for place in np.argwhere(mask):
            alone[tuple(place)] = True
            peaks.append(percist_peak(image, Region.of(alone), spacing))
            alone[tuple(place)] = False
        assert percist_peak(image, Region.of(mask), spacing) == pytest.approx(max(peaks), rel=3e-4)


def test_of_many_hot_spots_the_one_between_voxels_is_found():
    """The highest spot lies between eight voxels; nine others on voxels have a higher mean around a voxel's centre."""
    spacing = (3.0, 5.4, 5.4)
    axes = [np.arange(n) * s for n, s in zip((40, 40, 40), spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    image = np.ones((40, 40, 40))
    places = [(15 + 10 * (k % 2), 8 + 8 * (k % 4), 8 + 10 * (k // 4)) for k in range(10)]
    for number, place in enumerate(places):
        centre, height = (np.array(place) + 0.5, 10.0) if number == 4 else (np.array(place), 9.0)
        r2 = sum((axis - c * s) ** 2 for axis, c, s in zip((z, y, x), centre, spacing, strict=True))
        image += height * np.exp(-r2 / (2.0 * GAUSSIAN_12_MM**2))
    expected = mean_in_sphere(lambda r: 1.0 + 10.0 * np.exp(-(r**2) / (2.0 * GAUSSIAN_12_MM**2)), RADIUS_MM)
    assert percist_peak(image, Region.of(image > 4.0), spacing) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("spacing", SPACINGS[:4])
@pytest.mark.parametrize("depth", [0.0, 3.0, 6.0])
def test_at_the_edge_the_mean_is_over_what_exists(spacing, depth):
    """A Gaussian whose centre is `depth` mm from the image's face, against the part of the sphere in the image."""
    axes = [(np.arange(-10, 11) + 0.2) * s for s in spacing[:2]] + [(np.arange(20) + 0.5) * spacing[2] - depth]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    image = gaussian(np.sqrt(z**2 + y**2 + x**2))

    def part(centre):
        """Mean over discs perpendicular to the axis through the centre, those within the image."""

        def disc(h):
            squared = RADIUS_MM**2 - (h - centre) ** 2
            exponent = 2.0 * GAUSSIAN_12_MM**2
            return np.pi * (squared + 9.0 * exponent * np.exp(-(h**2) / exponent) * -np.expm1(-squared / exponent))

        low = max(centre - RADIUS_MM, -depth)
        volume = quad(lambda h: np.pi * (RADIUS_MM**2 - (h - centre) ** 2), low, centre + RADIUS_MM)[0]
        return quad(disc, low, centre + RADIUS_MM)[0] / volume

    expected = max(part(centre) for centre in np.arange(-depth, 8.0, 0.1))
    assert percist_peak(image, Region.of(image > 5.0), spacing) == pytest.approx(expected, rel=0.015)


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
