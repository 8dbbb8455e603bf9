"""What `statistics.tsv` says of a comparison, in the words of a figure: no figure makes a test of its own."""

from dataclasses import dataclass

import pandas as pd

from theraflow.cohort.figures.drawing import p_value

POOLED, CLUSTERED = "lesions, pooled", "lesions, clustered by patient"
BLAND_ALTMAN = (
    "Bland-Altman bias a - b",
    "Bland-Altman lower limit of agreement",
    "Bland-Altman upper limit of agreement",
)


def rows_of(statistics: pd.DataFrame, comparison: str, stated: str) -> pd.DataFrame:
    """The rows of a comparison, named as in the table, in which the column `stated` is not NA."""
    return statistics[(statistics["comparison"] == comparison) & statistics[stated].notna()]


@dataclass(frozen=True)
class Tests:
    """The rows of `statistics.tsv` of one paired comparison that have an effect or a test."""

    rows: pd.DataFrame

    @property
    def tested(self) -> pd.DataFrame:
        """The rows of tests, also of those that could not be computed."""
        return self.rows.dropna(subset=["test"])

    def medians(self, n: int) -> tuple[float, float] | None:
        """Medians of a and b over the `n` pairs that are drawn, or None where the table has none of just these."""
        own = self.rows[(self.rows["n"] == n) & self.rows["group"].str.contains("lesions")]
        return None if own.empty else (float(own["median_a"].iloc[0]), float(own["median_b"].iloc[0]))

    def short(self) -> list[str]:
        """One line a test, for the panel: `lesions, pooled: P = 0.012`."""
        return [f"{row.group}: {p_value(row.p_value)}" for row in self.tested.itertuples()]

    def sentence(self, measure: str) -> str:
        """The tests of `measure` as a sentence of a caption, with a space before it; empty without any."""
        told = []
        for row in self.tested.itertuples():
            words = f"{row.test} ({row.group}, n = {row.n:.0f}): {p_value(row.p_value)}"
            if pd.notna(getattr(row, "p_holm", None)):
                words += f" ({p_value(row.p_holm)} after Holm)"
            # Where only few patients are there, the test could not have shown a smaller P.
            if pd.notna(row.smallest_p_value) and row.smallest_p_value >= 0.01:
                words += f", the least possible {row.smallest_p_value:.2g}"
            told.append(words)
        return f" {measure}: {'; '.join(told)}." if told else ""


def between_tracers(measure: str, first: str, second: str, timepoint: str) -> str:
    """How `statistics.tsv` names the comparison of two tracers."""
    return f"{measure}, {first} (a) and {second} (b), {timepoint}"


def between_timepoints(measure: str, tracer: str, later: str, earlier: str) -> str:
    """How `statistics.tsv` names the comparison of two time points."""
    return f"{measure} of {tracer}, {later} (a) and {earlier} (b)"


@dataclass(frozen=True)
class Agreement:
    """Bias and 95 % limits of agreement of a paired comparison, one row each.

    Attributes:
        group: over what they are estimated.
        bias, low, high: in the unit of the measure.
    """

    group: str
    bias: float
    low: float
    high: float

    @classmethod
    def of(cls, statistics: pd.DataFrame, comparison: str) -> "Agreement | None":
        """What the table states, clustered by patient if it does, else pooled; None where it states neither."""
        own = statistics[statistics["comparison"] == comparison].dropna(subset=["effect"])
        for group in (CLUSTERED, POOLED):
            values = own[own["group"] == group].drop_duplicates("effect_name").set_index("effect_name")["effect"]
            if set(BLAND_ALTMAN) <= set(values.index):
                return cls(group, *(float(values[name]) for name in BLAND_ALTMAN))
        return None

    def lines(self) -> tuple[tuple[float, str, str], ...]:
        """Value, name and dash of each line of the plot."""
        return (self.bias, "bias", "-"), (self.low, "lower limit", "--"), (self.high, "upper limit", "--")

    def sentence(self, measure: str) -> str:
        """Bias and limits as a sentence of a caption, with a space before it."""
        numbers = f"bias {self.bias:.2f}, limits {self.low:.2f} to {self.high:.2f}".replace("-", "−")
        return f" {measure} ({self.group}): {numbers}."


def dose_against_change(tracer: str, later: str) -> str:
    """How `statistics.tsv` names the correlation of lesion dose with the change of SUVpeak."""
    return f"absorbed dose until {later} (a, Gy) and change of SUVpeak of {tracer} (b, %)"


@dataclass(frozen=True)
class Correlation:
    """The rows of `statistics.tsv` of one correlation that have a test, also of those that could not be computed."""

    rows: pd.DataFrame

    def short(self) -> list[str]:
        """One line a row, for the panel."""
        return [f"{row.group}: {_rho(row.effect)}{p_value(row.p_value)}" for row in self.rows.itertuples()]

    def sentence(self) -> str:
        """The correlations as a sentence of a caption; empty without any."""
        told = [
            f"{row.effect_name} ({row.group}, n = {row.n:.0f}): {_rho(row.effect)}{p_value(row.p_value)}"
            for row in self.rows.itertuples()
        ]
        return f" {'; '.join(told)}." if told else ""


def _rho(value: float) -> str:
    return "" if pd.isna(value) else f"ρ = {value:+.2f}, ".replace("-", "−")


def median_coefficient(statistics: pd.DataFrame, nuclide: str, kind: str, region: str) -> float | None:
    """Median dose coefficient (Gy/GBq) of a region, or of all lesions, as `statistics.tsv` states it."""
    own = statistics[statistics["comparison"] == f"dose coefficient of {nuclide}, Gy/GBq"].set_index("group")
    # A kind with one region only has no row of its own for it.
    groups = [kind] if kind == "lesion" else [f"{kind}: {region}", kind]
    return next((float(own.loc[group, "median_a"]) for group in groups if group in own.index), None)
