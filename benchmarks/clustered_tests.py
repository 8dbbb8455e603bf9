"""How often tests of paired uptake refuse a difference that is not there, and how often intervals over patients cover.

    PYTHONPATH=workflow/scripts python benchmarks/clustered_tests.py [--replicates 10000] [--intervals 300]

Lesions of one patient are alike: differences are normal with an intraclass correlation, around 0. Printed by
correlation: the part of the replicates in which each test has p <= 0.05, and in which each interval holds 0. The
intervals of agreement are those of a rank correlation of 0.58.
"""

import argparse

import numpy as np

from theraflow.cohort.agreement import clustered_agreement
from theraflow.cohort.clusters import resample_patients
from theraflow.cohort.paired import mean_shift, rosner_glynn_lee, rosner_glynn_lee_z, sign_flip, wilcoxon

SEED = 2023
CORRELATIONS = (0.0, 0.1, 0.3, 0.5)
RANK_CORRELATION = 6 / np.pi * np.arcsin(0.6 / 2)


def draw(rng: np.random.Generator, patients: np.ndarray, correlation: float) -> np.ndarray:
    """Standard normal values of all lesions, alike within a patient by the intraclass correlation."""
    shared, own = rng.normal(size=patients.max() + 1)[patients], rng.normal(size=len(patients))
    return np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own


def refused(difference: np.ndarray, patients: np.ndarray) -> list[bool]:
    """Of one replicate: whether Wilcoxon, Rosner-Glynn-Lee by Z and exact, and the sign-flip refuse at 5 %."""
    means = np.bincount(patients, difference) / np.bincount(patients)
    _, low, high = mean_shift(means)
    return [
        wilcoxon(difference).p_value <= 0.05,
        abs(rosner_glynn_lee_z(difference, patients)) >= 1.959964,
        rosner_glynn_lee(difference, patients).p_value <= 0.05,
        sign_flip(means).p_value <= 0.05,
        not low <= 0 <= high,
    ]


def covered(a: np.ndarray, b: np.ndarray, patients: np.ndarray) -> list[bool]:
    """Of one replicate: whether jackknife and bootstrap of patients hold the rank correlation."""
    found = resample_patients(
        lambda values, index: clustered_agreement(values, index)[:1],
        np.column_stack([a, b]),
        patients,
        np.array([True]),
    )
    limits = (found.low, found.high), (found.bootstrap_low, found.bootstrap_high)
    return [bool(low[0] <= RANK_CORRELATION <= high[0]) for low, high in limits]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, number in (("--replicates", 10_000), ("--intervals", 300), ("--patients", 7), ("--lesions", 8)):
        parser.add_argument(name, type=int, default=number)
    asked = parser.parse_args()
    patients = np.repeat(np.arange(asked.patients), asked.lesions)
    print("correlation  Wilcoxon  RGL Z  RGL exact  sign-flip  interval of means misses | jackknife  bootstrap cover")
    for correlation in CORRELATIONS:
        rng = np.random.default_rng(SEED)
        tests = [refused(draw(rng, patients, correlation), patients) for _ in range(asked.replicates)]
        intervals = []
        for _ in range(asked.intervals):
            a, own = draw(rng, patients, correlation), draw(rng, patients, correlation)
            intervals.append(covered(a, 0.6 * a + 0.8 * own, patients))
        levels = "  ".join(f"{level:.4f}" for level in np.mean(tests, axis=0))
        coverage = "  ".join(f"{part:.3f}" for part in np.mean(intervals, axis=0))
        print(f"{correlation:<11}  {levels} | {coverage}", flush=True)


if __name__ == "__main__":
    main()
