"""Lesions found, named and judged without a reader, scored against the truth of virtual patients.

    python -m theraflow.virtual.scoring RESULTS TRUTH

RESULTS is the results folder of a run whose `scans.tsv` names no annotation; TRUTH the folder `truth` beside the
virtual patients' DICOM. A true lesion of a scan is found where one of the scan's own lesions lies on it: its centroid
within the true ellipsoid's longest half axis and 5 mm. An own lesion on which no true one, positive on that scan, lies
is a false candidate.
"""

import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from theraflow.tables import read_table

SLACK_MM = 5.0


def match_truth(lesions: pd.DataFrame, truth: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Which true lesion each of the scans' own lesions lies on, and which true lesions are found.

    Args:
        lesions: `lesions.tsv` of one patient.
        truth: `truth_lesions.tsv` of the same.

    Returns:
        Own lesions with the column `true` (a name or None), and those that are positive in truth with `found`.
    """
    own = lesions[(lesions["source"] == "candidate") & lesions["volume_ml"].notna()].assign(true=None)
    truth = _positive(truth[truth["scan"].isin(lesions["scan"])]).assign(found=False)
    for scan, there in truth.groupby("scan"):
        mine = own[own["scan"] == scan]
        distance = cdist(*(table[["x_mm", "y_mm", "z_mm"]].to_numpy(float) for table in (mine, there)))
        near = distance <= there["diameter_mm"].to_numpy() / 2.0 + SLACK_MM
        for row, index in enumerate(mine.index):
            if near[row].any():
                column = int(np.where(near[row], distance[row], np.inf).argmin())
                own.loc[index, "true"] = there["lesion"].iloc[column]
                truth.loc[there.index[column], "found"] = True
    return own, truth


def _positive(truth: pd.DataFrame) -> pd.DataFrame:
    return truth[truth["positive"].astype(str) == "True"]


def count_identity(own: pd.DataFrame) -> tuple[int, int]:
    """Pairs of regions of two scans that are one lesion both in truth and by name, and those that are one by either.

    Args:
        own: as `match_truth` returns it.
    """
    rows = own.dropna(subset=["true"]).to_dict("records")
    either = [
        (a["true"] == b["true"], a["lesion"] == b["lesion"])
        for a, b in combinations(rows, 2)
        if a["scan"] != b["scan"] and (a["true"] == b["true"] or a["lesion"] == b["lesion"])
    ]
    return sum(all(pair) for pair in either), len(either)


def true_concordance(truth: pd.DataFrame) -> dict[str, str]:
    """Of every true lesion that is positive at baseline, with which of the two tracers."""
    baseline = _positive(truth[truth["scan"].isin(["fdg", "pentixafor"])])
    positive = baseline.groupby("lesion")["tracer"].agg(set)
    return {
        lesion: "concordant" if len(tracers) == 2 else f"{next(iter(tracers))}-only"
        for lesion, tracers in positive.items()
    }


def said_concordance(own: pd.DataFrame, lesions: pd.DataFrame) -> dict[str, str]:
    """What `lesions.tsv` says of the concordance of every true lesion that it has found."""
    names = own.dropna(subset=["true"]).groupby("true")["lesion"].agg(lambda name: name.mode()[0])
    said = lesions.groupby("lesion")["concordance"].first()
    return {true: str(said[name]) for true, name in names.items()}


def main(results: Path, truths: Path) -> None:
    """Print what was found of each patient and of all."""
    counts: Counter[str] = Counter()
    agreement: Counter[tuple[str, str]] = Counter()
    for folder in sorted(truths.glob("P*")):
        lesions = read_table(results / folder.name / "lesions" / "lesions.tsv")
        truth = pd.read_csv(folder / "truth_lesions.tsv", sep="\t")
        own, positive = match_truth(lesions, truth)
        false = own[own["true"].isna()]
        right, total = count_identity(own)
        counts += Counter(
            true=len(positive), found=int(positive["found"].sum()), false=len(false), pairs=total, right=right,
            doubled=int(own.dropna(subset=["true"]).duplicated(["scan", "true"]).sum()),
        )  # fmt: skip
        names = ", ".join(false["scan"] + " " + false["lesion"]) or "none"
        print(f"{folder.name}: {int(positive['found'].sum())} of {len(positive)} found, false: {names}")
        for _, row in positive[~positive["found"]].iterrows():
            print(f"    missed {row['scan']} {row['lesion']} {row['site']} SUVpeak {row['suv_peak_blurred']:.2f}")
        said = said_concordance(own, lesions)
        for lesion, is_so in true_concordance(truth).items():
            agreement[is_so, said.get(lesion, "not found")] += 1
            if is_so != said.get(lesion, "not found"):
                print(f"    {lesion} is {is_so}, said {said.get(lesion, 'not found')}")
    print(dict(counts))
    print(*(f"{is_so}: {found}: {n}" for (is_so, found), n in sorted(agreement.items())), sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
