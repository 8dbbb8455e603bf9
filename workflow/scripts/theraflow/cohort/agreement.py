"""How far two measurements of the same lesions agree: correlation, concordance, limits of agreement."""

from dataclasses import dataclass

import numpy as np
import scipy

from theraflow.cohort.clusters import CONFIDENCE, normal_quantile, variance_components
from theraflow.cohort.paired import Test

EXACT_PERMUTATIONS = 8  # patients whose n! orders are all visited
_EQUAL = 1e-9  # of correlations


@dataclass(frozen=True)
class Estimate:
    """An estimate with its 95 % interval; NaN where not defined, and `note` says why."""

    value: float
    low: float = np.nan
    high: float = np.nan
    note: str = ""


def spearman(a: np.ndarray, b: np.ndarray) -> tuple[Estimate, Test]:
    """Spearman's rank correlation of independent pairs, with its interval and its test.

    The interval is that of Bonett & Wright (Psychometrika 2000;65:23) on Fisher's z scale with the variance
    (1 + rho^2 / 2) / (n - 3); it needs four pairs and |rho| < 1. The test is exact over all n! orders up to n = 8, with
    Student's t above.

    Args:
        a, b: shape (n,).
    """
    name, n = "Spearman", len(a)
    problem = _problem_of_correlation(a, b)
    if problem:
        return Estimate(np.nan, note=problem), Test(name, np.nan, np.nan, note=problem)
    rho, p_value = map(float, scipy.stats.spearmanr(a, b))
    if n > EXACT_PERMUTATIONS:
        return _fisher(rho, (1 + rho**2 / 2) / (n - 3)), Test(f"{name}, Student's t", rho, p_value)
    ranks = np.array([scipy.stats.rankdata(side) - (n + 1) / 2 for side in (a, b)])
    exact = scipy.stats.permutation_test(
        (ranks[0],),
        lambda orders, axis: np.sum(orders * ranks[1], axis=axis),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=np.inf,
    )
    found, sums = abs(float((ranks[0] * ranks[1]).sum())), np.abs(exact.null_distribution)
    p_value, smallest = (float((sums >= level * (1 - _EQUAL)).mean()) for level in (found, sums.max()))
    interval = _fisher(rho, (1 + rho**2 / 2) / (n - 3)) if n > 3 else Estimate(rho, note="no interval from 3 pairs")
    return interval, Test(f"{name}, exact", rho, p_value, smallest)


def _problem_of_correlation(a: np.ndarray, b: np.ndarray) -> str:
    if len(a) < 3:
        return "not computable: fewer than 3 pairs"
    return "not computable: all values of one side are equal" if np.ptp(a) == 0 or np.ptp(b) == 0 else ""


def _fisher(correlation: float, variance: float) -> Estimate:
    """Limits on Fisher's z scale with the variance given there."""
    if abs(correlation) >= 1 - _EQUAL:
        return Estimate(correlation, note="no interval: the correlation is 1 in size")
    half = normal_quantile() * np.sqrt(variance)
    z = np.arctanh(correlation)
    return Estimate(correlation, float(np.tanh(z - half)), float(np.tanh(z + half)))


def concordance(a: np.ndarray, b: np.ndarray) -> Estimate:
    """Lin's concordance correlation coefficient of independent pairs.

    2 s_ab / (s_a^2 + s_b^2 + (mean a - mean b)^2) with moments over n, and the interval on Fisher's z scale with the
    variance of Lin, Biometrics 1989;45:255, as corrected in 2000;56:324.

    Args:
        a, b: shape (n,).
    """
    problem = _problem_of_correlation(a, b)
    if problem:
        return Estimate(np.nan, note=problem)
    value = concordance_of(a, b)
    rho = float(np.corrcoef(a, b)[0, 1])
    if abs(rho) >= 1 - _EQUAL or abs(rho) < _EQUAL:
        return Estimate(value, note="no interval: the correlation is 0 or 1 in size")
    u2 = float((np.mean(a) - np.mean(b)) ** 2 / (np.std(a) * np.std(b)))
    rest = 1 - value**2
    variance = (
        (1 - rho**2) * value**2 / (rest * rho**2)
        + 2 * value**3 * (1 - value) * u2 / (rho * rest**2)
        - value**4 * u2**2 / (2 * rho**2 * rest**2)
    ) / (len(a) - 2)
    return _fisher(value, variance)


def concordance_of(a: np.ndarray, b: np.ndarray) -> float:
    """Lin's coefficient alone; NaN where neither side has any spread."""
    below = np.var(a) + np.var(b) + (np.mean(a) - np.mean(b)) ** 2
    return float(2 * np.mean((a - np.mean(a)) * (b - np.mean(b))) / below) if below > 0 else np.nan


def limits_of_agreement(difference: np.ndarray) -> tuple[Estimate, Estimate, Estimate]:
    """Bias and 95 % limits of agreement of independent differences.

    Bland & Altman, Stat Methods Med Res 1999;8:135: mean -+ 1.96 s, where the mean has the variance s^2 / n and a limit
    s^2 (1 / n + 1.96^2 / (2 (n - 1))), each with Student's t of n - 1 degrees of freedom.

    Args:
        difference: a - b, shape (n,).

    Returns:
        Bias, lower and upper limit.
    """
    n = len(difference)
    if n < 2:
        missing = Estimate(np.nan, note="not computable: fewer than 2 pairs")
        return missing, missing, missing
    mean, sd = float(np.mean(difference)), float(np.std(difference, ddof=1))
    t = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
    z = normal_quantile()
    half_mean, half_limit = t * sd / np.sqrt(n), t * sd * np.sqrt(1 / n + z**2 / (2 * (n - 1)))
    values = (mean, half_mean), (mean - z * sd, half_limit), (mean + z * sd, half_limit)
    bias, lower, upper = (Estimate(float(value), float(value - half), float(value + half)) for value, half in values)
    return bias, lower, upper


def clustered_agreement(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Spearman's rho, Lin's coefficient, bias and limits of agreement of clustered pairs, shape (5,).

    The limits are those of one more lesion: mean of all differences -+ 1.96 sd with the variance between and within
    patients, taken apart by analysis of variance (Bland & Altman, J Biopharm Stat 2007;17:571, section 3).

    Args:
        values: a and b, shape (n, 2), two pairs at least.
        index: the patients' numbers, shape (n,).
    """
    a, b = values.T
    difference = a - b
    mean, reach = difference.mean(), normal_quantile() * np.sqrt(sum(variance_components(difference, index)))
    return np.array([_rank_correlation(a, b), concordance_of(a, b), mean, mean - reach, mean + reach])


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    ranks = [scipy.stats.rankdata(side) - (len(a) + 1) / 2 for side in (a, b)]
    below = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
    return float((ranks[0] * ranks[1]).sum() / below) if below > 0 else np.nan
