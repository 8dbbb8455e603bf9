"""The tables of the patients one below the other, and the cohort's lesions made ready for statistics."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from theraflow.cohort.comparisons import BASELINE, MEASURES
from theraflow.errors import TheraflowError
from theraflow.tables import read_table

log = logging.getLogger(__name__)

# Headers of the contract, for a cohort in which no patient has the table.
HEADERS = {
    "lesions": [
        "patient", "scan", "tracer", "timepoint", "lesion", "label", "site", "volume_ml", "suv_max",
        "suv_mean", "suv_peak", "tbr", "background_region", "background_suv", "tlg_ml", "positive",
        "concordance", "x_mm", "y_mm", "z_mm", "longest_diameter_mm", "short_axis_mm", "source",
    ],
    "doses": [
        "patient", "region", "kind", "nuclide", "mass_g", "n_timepoints", "model", "t_eff_h", "tia_h",
        "dose_gy_per_gbq", "sd_gy_per_gbq", "method",
    ],
    "response": [
        "patient", "baseline", "followup", "criterion", "category", "measure_baseline", "measure_followup",
        "change_percent", "new_lesions",
    ],
}  # fmt: skip


def concatenate(paths: Sequence[Path], header: Sequence[str]) -> pd.DataFrame:
    """The tables at `paths` one below the other as text, so that no digit and no `NA` changes.

    Args:
        paths: TSV files; those that do not exist are passed over.
        header: columns that come first, in this order; further ones of the files follow.

    Raises:
        TheraflowError: a file cannot be read or lacks a column of `header`.
    """
    tables = []
    for path in paths:
        if not path.is_file():
            log.info("%s does not exist: no rows of this patient.", path)
            continue
        try:
            table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise TheraflowError(f"{path} cannot be read as a table ({error}).") from error
        missing = [column for column in header if column not in table.columns]
        if missing:
            raise TheraflowError(
                f"{path} lacks the columns {', '.join(missing)}; delete it, then name it to snakemake."
            )
        tables.append(table)
    return pd.concat([pd.DataFrame(columns=list(header), dtype=str), *tables], ignore_index=True)


def read_lesions(path: Path | str, tracers: Sequence[str]) -> pd.DataFrame:
    """`lesions.tsv` of the cohort, made ready for statistics.

    Args:
        path: the table.
        tracers: SUV tracers; rows of other tracers are left out.

    Returns:
        The table with `positive` as 1.0, 0.0 or NaN (not assessed), `registration` as good, check, failed or
        NaN (a table that lacks the column), and one row per patient, lesion, tracer and time point: where a
        tracer was imaged twice at a time point, the first scan in the table stands, and the log says so. Of a
        patient without a time point called `baseline` the first one is the baseline.

    Raises:
        TheraflowError: a cell of `positive` is none of true, false, 1, 0 and NA.
    """
    table = read_table(path)
    table = table[table["tracer"].isin(tracers)]
    table = table.reindex(columns=list(dict.fromkeys((*table.columns, "registration"))))
    meaning = {"true": 1.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "0": 0.0, "0.0": 0.0, "nan": float("nan")}
    words = table["positive"].astype(str).str.lower()
    unknown = sorted(set(words) - set(meaning))
    if unknown:
        raise TheraflowError(f"{path}: column positive holds {', '.join(unknown)}; it must be True, False or NA.")
    table = table.assign(positive=words.map(meaning).astype(float))
    table = table.astype({"lesion": str, "timepoint": str, **{column: float for _, column in MEASURES}})
    for patient, own in table.groupby("patient"):
        first = own["timepoint"].iloc[0]
        if (own["timepoint"] != BASELINE).all():
            log.warning("%s has no scan at %s: %s is taken for it.", patient, BASELINE, first)
            table.loc[own.index[own["timepoint"] == first], "timepoint"] = BASELINE
    repeated = table.duplicated(["patient", "lesion", "tracer", "timepoint"])
    for row in table[repeated][["patient", "scan"]].drop_duplicates().itertuples():
        log.warning("%s: %s repeats a tracer and time point; statistics use the earlier scan.", *row[1:])
    return table[~repeated].reset_index(drop=True)
