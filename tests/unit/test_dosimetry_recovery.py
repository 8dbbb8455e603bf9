"""Recovery curves: fitted to known spheres, and their share of the uncertainty against draws."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.ndimage
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from settings import default_settings
from theraflow.dosimetry.activity.partial_volume import sphere_recovery
from theraflow.dosimetry.activity.recovery import RecoveryCurve, fit_recovery, read_recovery
from theraflow.errors import TheraflowError
from theraflow.images import FWHM_PER_SD

# Spheres of the NEMA phantom, 10 to 37 mm.
VOLUMES = np.array([0.52, 1.15, 2.57, 5.57, 11.49, 26.52])


def write_spheres(path: Path, volume, recovery, sd) -> Path:
    table = pd.DataFrame({"volume_ml": volume, "recovery": recovery, "sd": sd})
    path.write_text("# NEMA spheres, 177Lu\n" + table.to_csv(sep="\t", index=False))
    return path


def curve(b1: float = 2.0, b2: float = 1.1, covariance=((0.04, 0.0), (0.0, 0.01))) -> RecoveryCurve:
    return RecoveryCurve(b1, b2, np.array(covariance), 0.5, 26.5, "spheres.tsv")


@given(b1=st.floats(0.3, 10.0), b2=st.floats(0.5, 2.0))
@settings(max_examples=30, deadline=None)
def test_exact_spheres_give_their_curve(tmp_path_factory, b1, b2):
    exact = 1.0 / (1.0 + (b1 / VOLUMES) ** b2)
    fitted = fit_recovery(write_spheres(tmp_path_factory.mktemp("phantom") / "spheres.tsv", VOLUMES, exact, 0.02))
    assert fitted.b1_ml == pytest.approx(b1, rel=1e-3)
    assert fitted.b2 == pytest.approx(b2, rel=1e-3)
    # Half is recovered of b1, and more of more.
    assert fitted.recovery(fitted.b1_ml) == pytest.approx(0.5)
    assert np.all(np.diff([fitted.recovery(v) for v in VOLUMES]) > 0.0)
    assert (fitted.smallest_ml, fitted.largest_ml) == (0.52, 26.52)


def test_sd_of_the_recovery_against_repeated_phantoms(tmp_path):
    """1,500 phantoms whose spheres scatter by their sd: the fitted curves scatter as one fit says of itself."""
    random, sd, volume = np.random.default_rng(3), np.full(6, 0.03), 4.0
    exact = 1.0 / (1.0 + (1.8 / VOLUMES) ** 1.2)
    one = fit_recovery(write_spheres(tmp_path / "exact.tsv", VOLUMES, exact, sd))

    def model(v, b1, b2):
        return 1.0 / (1.0 + (b1 / v) ** b2)

    seen = []
    for _ in range(1500):
        noisy = exact + sd * random.standard_normal(6)
        best, _ = scipy.optimize.curve_fit(model, VOLUMES, noisy, p0=(2.0, 1.0))
        seen.append(math.log(model(volume, *best)))
    assert one.relative_sd(volume) == pytest.approx(np.std(seen), rel=0.06)


def test_spheres_off_the_curve_enlarge_the_covariance(tmp_path):
    exact = 1.0 / (1.0 + (1.8 / VOLUMES) ** 1.2)
    scatter = 0.03 * np.array([2, -2, 2, -2, 2, -2])
    told = fit_recovery(write_spheres(tmp_path / "optimistic.tsv", VOLUMES, exact + scatter, 0.03))
    wide = fit_recovery(write_spheres(tmp_path / "honest.tsv", VOLUMES, exact + scatter, 0.09))
    best = 1.0 / (1.0 + (told.b1_ml / VOLUMES) ** told.b2)
    chi2 = (((exact + scatter - best) / 0.03) ** 2).sum()
    assert chi2 > 4.0
    assert told.covariance == pytest.approx(wide.covariance / 9.0 * chi2 / 4.0, rel=1e-3)


@pytest.mark.parametrize("radius", [8.0, 12.0, 20.0])
def test_volume_enters_activity_and_recovery_together(radius):
    """Draws of the drawn surface: a blurred sphere is measured within it and divided by the recovery of its volume.

    The blurred sphere is an independent one (its radial profile in closed form), the curve a fit to what it recovers.
    """
    fwhm, random = 12.0, np.random.default_rng(7)
    sd = fwhm / FWHM_PER_SD
    radii = np.array([6.0, 8.0, 10.0, 12.0, 15.0, 18.0, 22.0, 28.0])
    volumes = 4.0 / 3.0 * math.pi * radii**3 / 1000.0
    recoveries = [sphere_recovery(r, fwhm) for r in radii]
    (b1, b2), _ = scipy.optimize.curve_fit(
        lambda v, b1, b2: 1.0 / (1.0 + (b1 / v) ** b2), volumes, recoveries, p0=(2.0, 1.0)
    )
    fitted = curve(b1, b2)
    r = np.linspace(1e-3, 80.0, 40_001)
    profile = 0.5 * (
        scipy.special.erf((r + radius) / (math.sqrt(2) * sd)) - scipy.special.erf((r - radius) / (math.sqrt(2) * sd))
    ) - sd / (r * math.sqrt(2 * math.pi)) * (
        np.exp(-0.5 * ((r - radius) / sd) ** 2) - np.exp(-0.5 * ((r + radius) / sd) ** 2)
    )
    counts = np.concatenate(
        [[0.0], np.cumsum(0.5 * np.diff(r) * (profile[1:] * r[1:] ** 2 + profile[:-1] * r[:-1] ** 2))]
    )
    truth = 4.0 / 3.0 * math.pi * radius**3 / 1000.0
    cv = 0.06
    drawn = truth * np.exp(cv * random.standard_normal(4000))
    measured = np.interp((3000.0 * drawn / (4.0 * math.pi)) ** (1 / 3), r, counts)
    activity = np.log(measured / np.array([fitted.recovery(v) for v in drawn]))
    slope = np.cov(activity, np.log(drawn))[0, 1] / np.var(np.log(drawn), ddof=1)
    assert fitted.activity_sensitivity(truth) == pytest.approx(slope, abs=0.04)
    # The concentration (activity over mass) falls by what the activity does not rise: one error, not two.
    concentration = np.std(activity - np.log(drawn))
    assert abs(1.0 - fitted.activity_sensitivity(truth)) * cv == pytest.approx(concentration, rel=0.08)


def test_a_sharp_image_has_the_limit_of_a_sharp_edge():
    sharp = curve(b1=1e-6, b2=1.0)
    assert sharp.recovery(100.0) == pytest.approx(1.0)
    assert sharp.activity_sensitivity(100.0) == pytest.approx(0.5, abs=1e-3)
    assert sharp.relative_sd(100.0) == pytest.approx(0.0, abs=1e-2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("volume_ml\trecovery\n1\t0.5\n", "no column sd"),
        ("volume_ml\trecovery\tsd\n1\t0.4\t0.1\n2\tNA\t0.1\n4\t0.7\t0.1\n", "row 2 has no volume, recovery or sd"),
        ("volume_ml\trecovery\tsd\n1\t0.4\t0\n2\t0.5\t0.1\n4\t0.7\t0.1\n", "row 1"),
        ("volume_ml\trecovery\tsd\n1\t0.4\t0.1\n1\t0.5\t0.1\n4\t0.7\t0.1\n", "2 volumes"),
        ("", "cannot be read"),
    ],
)
def test_refused_tables(tmp_path, text, message):
    path = tmp_path / "spheres.tsv"
    path.write_text(text)
    with pytest.raises(TheraflowError, match=message):
        fit_recovery(path)


def test_one_correction_at_a_time(tmp_path):
    told = default_settings("dosimetry")
    assert read_recovery(told) is None
    path = write_spheres(tmp_path / "spheres.tsv", VOLUMES, VOLUMES / (VOLUMES + 2.0), 0.02)
    assert read_recovery({**told, "recovery": str(path)}).b1_ml == pytest.approx(2.0, rel=1e-3)
    with pytest.raises(TheraflowError, match="spect_fwhm_mm and recovery"):
        read_recovery({**told, "recovery": str(path), "spect_fwhm_mm": 10.0})
    with pytest.raises(TheraflowError, match="cannot be read"):
        read_recovery({**told, "recovery": str(tmp_path / "none.tsv")})
