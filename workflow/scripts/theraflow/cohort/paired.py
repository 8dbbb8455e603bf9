"""Tests of paired differences, over lesions and over patients, and the intervals that belong to them."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy

from theraflow.cohort.clusters import CONFIDENCE, cluster_index, variance_components

# Up to here the distribution without ties is enumerated, as scipy and R do; and with ties all 2^n sign patterns are.
EXACT_RANKS, EXACT_TIED_RANKS, EXACT_SIGN_FLIPS = 50, 13, 16
SIGN_FLIP_DRAWS = 19_999
# Differences of SUVs that are equal on paper differ in the 16th digit; a rank test must see them as ties.
TIE_DECIMALS = 10
_ROUNDING = 1e-12  # of sums, relative: two sums of the same terms are equal


@dataclass(frozen=True)
class Test:
    """Result of a test. Where it is not defined, `statistic` and `p_value` are NaN and `note` says why."""

    name: str
    statistic: float
    p_value: float
    smallest_p_value: float = np.nan
    note: str = ""


def wilcoxon(difference: np.ndarray) -> Test:
    """Wilcoxon signed-rank test, two-sided, zero differences discarded.

    Exact without ties up to n = 50 and with ties up to n = 13; otherwise the normal approximation with tie correction
    and without continuity correction. The statistic is the smaller of the two rank sums.

    Args:
        difference: paired differences, shape (n,).
    """
    nonzero, zeros, problem = _without_zeros(difference)
    n, name = len(nonzero), "Wilcoxon signed-rank"
    if n == 0:
        return Test(name, np.nan, np.nan, note=problem)
    tied = len(np.unique(np.abs(nonzero))) < n
    smallest = 2.0 ** (1 - n)
    if not tied and n <= EXACT_RANKS:
        name, method = f"{name}, exact", "exact"
    elif n <= EXACT_TIED_RANKS:
        name, method = f"{name}, exact with ties", scipy.stats.PermutationMethod(n_resamples=2**n)
    else:
        name, method, smallest = f"{name}, normal approximation", "asymptotic", np.nan
    result = scipy.stats.wilcoxon(nonzero, method=method)
    return Test(name, float(result.statistic), float(result.pvalue), smallest, zeros)


def _without_zeros(difference: np.ndarray) -> tuple[np.ndarray, str, str]:
    """Differences that are not zero, a note about the others, and why no test is possible where none is left."""
    difference = np.round(difference, TIE_DECIMALS)
    nonzero = difference[difference != 0]
    zeros = len(difference) - len(nonzero)
    note = f"{zeros} pairs without difference left out of the ranks" if zeros else ""
    return nonzero, note, f"not computable: {'all pairs are equal' if zeros else 'no pairs'}"


def rosner_glynn_lee(difference: np.ndarray, patients: np.ndarray) -> Test:
    """Wilcoxon signed-rank test of clustered pairs, two-sided, zero differences discarded.

    Rosner, Glynn & Lee, Biometrics 2006;62:185. All lesions are ranked together; what is independent is a patient's sum
    of signed ranks. Up to 16 patients the sum T of all signed ranks is referred to all 2^N patterns of the patients'
    signs, which is exact whatever the numbers of lesions; above, to the normal distribution (`rosner_glynn_lee_z`).

    Args:
        difference: paired differences, shape (n,).
        patients: whose they are, shape (n,).
    """
    name = "Rosner-Glynn-Lee clustered signed-rank"
    nonzero, note, problem = _without_zeros(difference)
    if len(nonzero) == 0:
        return Test(name, np.nan, np.nan, note=problem)
    signed, index = _signed_ranks(difference, patients)
    sums = np.bincount(index, signed)
    if len(sums) <= EXACT_SIGN_FLIPS:
        p_value, smallest = _flip(sums)
        return Test(f"{name}, exact", float(sums.sum()), p_value, smallest, note)
    z = rosner_glynn_lee_z(difference, patients)
    return Test(f"{name}, normal approximation", z, float(2 * scipy.stats.norm.sf(abs(z))), note=note)


def rosner_glynn_lee_z(difference: np.ndarray, patients: np.ndarray) -> float:
    """Large-sample statistic of Rosner, Glynn & Lee 2006, standard normal without difference.

    Equal numbers of lesions (section 2): T = sum S_i over the patients' sums S_i of signed ranks, variance sum S_i^2.
    Unequal ones (section 3): patients' means, weighted by w_i = g_i / (1 + (g_i - 1) rho) with the number g_i of
    lesions and the intraclass correlation rho of the signed ranks (analysis of variance, its small-sample correction).

    Args:
        difference, patients: as `rosner_glynn_lee`; not all differences are zero.
    """
    signed, index = _signed_ranks(difference, patients)
    sizes, sums = np.bincount(index), np.bincount(index, signed)
    rho = 0.0 if sizes.min() == sizes.max() else _intraclass_correlation(signed, index)
    parts = sums / (1 + (sizes - 1) * rho)
    return float(parts.sum() / np.sqrt((parts**2).sum()))


def _signed_ranks(difference: np.ndarray, patients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signed ranks of the differences that are not zero, and the numbers of their patients, both of shape (n,)."""
    difference = np.round(difference, TIE_DECIMALS)
    nonzero = difference != 0
    signed = np.sign(difference[nonzero]) * scipy.stats.rankdata(np.abs(difference[nonzero]))
    return signed, cluster_index(np.asarray(patients)[nonzero])


def _intraclass_correlation(values: np.ndarray, index: np.ndarray) -> float:
    """Intraclass correlation, 0 to 1, with the small-sample correction of Rosner, Glynn & Lee (section 3)."""
    count = int(index.max()) + 1
    between, within = variance_components(values, index)
    rho = between / (between + within)  # ranks are never all zero
    return min(1.0, rho * (1 + (1 - rho**2) / (count - 2.5)))


def sign_flip(difference: np.ndarray) -> Test:
    """Sign-flip (Fisher-Pitman) test of the mean of independent paired differences, two-sided.

    All 2^n sign patterns up to n = 16, random ones (fixed seed) above. Its smallest attainable p is 2 / 2^n.

    Args:
        difference: one difference per independent unit (patient), shape (n,).
    """
    n, name = len(difference), "sign-flip of patient means"
    name = f"{name}, exact" if n <= EXACT_SIGN_FLIPS else f"{name}, {SIGN_FLIP_DRAWS} random draws"
    if n == 0:
        return Test(name, np.nan, np.nan, note="not computable: no patients")
    if not np.round(difference, TIE_DECIMALS).any():
        return Test(name, 0.0, np.nan, note="not computable: all pairs are equal")
    return Test(name, float(np.mean(difference)), *_flip(difference))


@cache
def _sign_patterns(n: int) -> np.ndarray:
    """All patterns of n signs, shape (2^n, n), or `SIGN_FLIP_DRAWS` random ones where these are too many."""
    if n <= EXACT_SIGN_FLIPS:
        return (1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)).astype(np.int8)
    return np.random.default_rng(0).choice(np.array([-1, 1], np.int8), (SIGN_FLIP_DRAWS, n))


def _flip(values: np.ndarray) -> tuple[float, float]:
    """Two-sided p of the sum of `values` among those with all their signs, and the least p that these can give."""
    rounding = _ROUNDING * np.abs(values).sum()
    sums = np.abs(_sign_patterns(len(values)) @ values)
    extreme = int((sums >= abs(values.sum()) - rounding).sum())
    if len(values) > EXACT_SIGN_FLIPS:
        return (extreme + 1) / (len(sums) + 1), 1 / (len(sums) + 1)
    return extreme / len(sums), float((sums >= sums.max() - rounding).mean())


def shapiro_wilk(values: np.ndarray) -> Test:
    """Shapiro-Wilk test of normality; needs three values that are not all equal."""
    name = "Shapiro-Wilk"
    if len(values) < 3:
        return Test(name, np.nan, np.nan, note="not computable: fewer than 3 values")
    if np.ptp(values) == 0:
        return Test(name, np.nan, np.nan, note="not computable: all values are equal")
    result = scipy.stats.shapiro(values)
    note = "p is approximate for more than 5000 values" if len(values) > 5000 else ""
    return Test(name, float(result.statistic), float(result.pvalue), note=note)


def hodges_lehmann(difference: np.ndarray) -> tuple[float, float, float]:
    """Hodges-Lehmann estimate of the paired difference, and its interval from the signed-rank distribution.

    The median of the Walsh averages (d_i + d_j) / 2, i <= j, of all differences, zeros too; the 95 % interval by
    inverting the signed-rank test (Hollander & Wolfe, Nonparametric Statistical Methods, sections 3.2 and 3.3): exact
    up to n = 50, normal approximation above. With n < 6 no two-sided 95 % interval exists: NaN.

    Returns:
        Estimate, lower and upper limit; NaN where not defined.
    """
    n = len(difference)
    if n == 0:
        return np.nan, np.nan, np.nan
    walsh = np.empty(n * (n + 1) // 2)  # 400 MB for 10,000 pairs: ordered in place
    start = 0
    for i in range(n):
        walsh[start : start + n - i] = (difference[i:] + difference[i]) / 2
        start += n - i
    rank = _signed_rank_quantile(n, (1 - CONFIDENCE) / 2)
    middle = [(len(walsh) - 1) // 2, len(walsh) // 2]
    limits = [rank - 1, len(walsh) - rank] if rank >= 1 else []
    walsh.partition(sorted({*middle, *limits}))
    low, high = walsh[limits] if limits else (np.nan, np.nan)
    return float(walsh[middle].mean()), float(low), float(high)


def _signed_rank_quantile(n: int, alpha: float) -> int:
    """Largest k with P(W+ <= k - 1) <= alpha under the null hypothesis; 0 where there is none."""
    if n > EXACT_RANKS:
        mean, sd = n * (n + 1) / 4, np.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return int(np.floor(mean + scipy.stats.norm.ppf(alpha) * sd))
    probability = np.ones(1)
    for rank in range(1, n + 1):
        step = np.zeros(rank + 1)
        step[[0, rank]] = 0.5
        probability = np.convolve(probability, step)
    # Sums of powers of 1/2 are exact up to n = 50, so no tolerance is needed.
    return int(np.searchsorted(np.cumsum(probability), alpha, side="right"))


def clustered_shift(difference: np.ndarray, patients: np.ndarray) -> tuple[float, float, float]:
    """Hodges-Lehmann estimate, and the shifts that the test of Rosner, Glynn & Lee does not refuse at 5 %.

    Args:
        difference, patients: as `rosner_glynn_lee`.

    Returns:
        Estimate, lower and upper limit; NaN where so few patients can refuse no shift (fewer than 6).
    """
    estimate, patients = hodges_lehmann(difference)[0], cluster_index(patients)

    def margin(shift: float) -> float:
        p_value = rosner_glynn_lee(difference - shift, patients).p_value
        return (1.0 if np.isnan(p_value) else p_value) - (1 - CONFIDENCE)

    if len(difference) == 0 or margin(estimate) <= 0:
        return estimate, np.nan, np.nan
    beyond = max(np.ptp(difference), np.abs(difference).max(), 1.0)
    ends = difference.min() - beyond, difference.max() + beyond
    if max(map(margin, ends)) > 0:
        return estimate, np.nan, np.nan
    low, high = (scipy.optimize.bisect(margin, end, estimate, xtol=1e-9) for end in ends)
    return estimate, float(low), float(high)


def mean_shift(difference: np.ndarray) -> tuple[float, float, float]:
    """Mean of independent differences, and the shifts that the sign-flip test does not refuse at 5 %.

    The means of all subsets part the line into pieces of equal probability (Hartigan, J Am Stat Assoc 1969;64:1303): of
    the 2^n - 1 of them in order, the k-th from either end with k = 0.025 x 2^n, rounded down. Fewer than 6 have none.

    Args:
        difference: one per patient, shape (n,).

    Returns:
        Estimate, lower and upper limit; NaN where not defined.
    """
    n = len(difference)
    if n == 0:
        return np.nan, np.nan, np.nan
    chosen = _sign_patterns(n) > 0
    sizes = chosen.sum(axis=1)
    subsets = np.sort((chosen[sizes > 0] @ difference) / sizes[sizes > 0])
    rank = int((1 - CONFIDENCE) / 2 * (len(subsets) + 1))
    low, high = (subsets[rank - 1], subsets[-rank]) if rank >= 1 else (np.nan, np.nan)
    return float(np.mean(difference)), float(low), float(high)


def rank_biserial(difference: np.ndarray) -> float:
    """Matched-pairs rank-biserial correlation (Kerby 2014): rank sums of increases less decreases over their total.

    1 where every difference is positive, -1 where every one is negative; NaN where all are zero.
    """
    difference = np.round(difference, TIE_DECIMALS)
    nonzero = difference[difference != 0]
    ranks = scipy.stats.rankdata(np.abs(nonzero))
    return float((np.sign(nonzero) * ranks).sum() / ranks.sum()) if len(nonzero) else np.nan


def holm(p_values: np.ndarray) -> np.ndarray:
    """P values adjusted for their number (Holm, Scand J Stat 1979;6:65), shape (m,), as R's p.adjust."""
    order = np.argsort(p_values)
    steps = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted
