"""What a series must not lack or contradict before anything is computed from it."""

from collections.abc import Sequence

from theraflow.dicom.export.header import tag_name
from theraflow.dicom.quantity.stated import OVERRIDES, Facts
from theraflow.errors import TheraflowError

# An injection longer ago than this many half-lives is a wrong date, not a scan.
_HALF_LIVES_AT_MOST = 10.0
# Columns of scans.tsv that change nothing where the voxels hold an SUV already.
_NOT_FOR_SUV = ("weight_kg", "injected_mbq", "injected_at", "decay_correction")


def require(facts: Facts, what: str, names: Sequence[str]) -> None:
    """Refuse with every missing tag at once, each with the column of scans.tsv that can give it, in brackets.

    Args:
        facts: of the series.
        what: that cannot be computed.
        names: facts, as in `Facts.missing`, that it needs.
    """
    lacking = [name for name in names if name in facts.missing]
    if not lacking:
        return
    tags = {
        tag: f" [{OVERRIDES[name]}]" if name in OVERRIDES else "" for name in lacking for tag in facts.missing[name]
    }
    listed = ", ".join(tag + column for tag, column in tags.items())
    advice = "export the series again"
    if any(tags.values()):
        advice = "give the columns in brackets in scans.tsv"
    if any(tags.values()) and not all(tags.values()):
        advice += "; the others can only come from the scanner: export the series again"
    if "RadionuclideHalfLife" in facts.missing and "RadionuclideHalfLife" not in names:
        advice += (
            f" ({tag_name('RadionuclideHalfLife')} is missing, too, but known: that of {facts.nuclide}, the tracer's "
            "nuclide, is taken)"
        )
    raise TheraflowError(f"{facts.where}: {what} cannot be computed; missing are {listed}; {advice}.")


def refuse_impossible_injection(facts: Facts) -> None:
    """Refuse an injection after the scan or more than ten half-lives before it."""
    if not possible_injection(facts):
        elapsed_s = (facts.acquired_at - facts.injected_at).total_seconds()
        raise TheraflowError(
            f"{facts.where}: the injection at {facts.injected_at} and the scan at {facts.acquired_at} are "
            f"{elapsed_s / 3600:.2f} h apart, which is impossible (half-life {facts.half_life_s / 3600:.3g} "
            f"h); correct {tag_name('RadiopharmaceuticalStartDateTime')} by injected_at in scans.tsv."
        )


def possible_injection(facts: Facts) -> bool:
    """Whether the scan began after the injection, while there was activity left."""
    if facts.injected_at is None or facts.acquired_at is None:
        return True
    elapsed_s = (facts.acquired_at - facts.injected_at).total_seconds()
    return 0 <= elapsed_s <= _HALF_LIVES_AT_MOST * facts.half_life_s


def forget_impossible_injection(facts: Facts) -> None:
    """Where the scanner has normalised already the SUV stands without the injection time."""
    if not possible_injection(facts):
        facts.flags.append("the injection time in the header is impossible and left out")
        facts.injected_at = None


def refuse_uncorrected(facts: Facts, emission: str) -> None:
    """CorrectedImage must name attenuation, and decay where DecayCorrection says so (QIBA)."""
    if facts.corrected is None:
        return
    if "ATTN" not in facts.corrected:
        raise TheraflowError(
            f"{facts.where}: the {emission} is not attenuation-corrected ({tag_name('CorrectedImage')} lacks "
            "ATTN); set `series` in scans.tsv to the corrected one."
        )
    corrected, says = "DECY" in facts.corrected, facts.decay_correction
    overridden = "decay_correction" in facts.overrides
    if says in ("START", "ADMIN") and not corrected:
        contradiction = f"{tag_name('DecayCorrection')} is {says}, but {tag_name('CorrectedImage')} lacks DECY"
        if not overridden:
            raise TheraflowError(
                f"{facts.where}: {contradiction}; export the series again, or say by decay_correction in scans.tsv "
                "which is right."
            )
        facts.flags.append(f"{contradiction}: decay_correction of scans.tsv taken")
    if says == "NONE" and corrected:
        facts.flags.append(f"{tag_name('CorrectedImage')} has DECY, but DecayCorrection is NONE: the latter taken")


def refuse_contradicting_overrides(facts: Facts, why: str, *others: str) -> None:
    """Where values are normalised already, an override that differs from the header would change nothing.

    Args:
        facts: of the series.
        why: it would not.
        others: columns of scans.tsv to which that applies besides those of dose, time, weight and decay correction.
    """
    for column in (*_NOT_FOR_SUV, *others):
        if column in facts.contradicted:
            raise TheraflowError(
                f"{facts.where}: {column} in scans.tsv contradicts the header, but {why}, so that it would "
                "have no effect; remove it or import the series in Bq/mL."
            )
