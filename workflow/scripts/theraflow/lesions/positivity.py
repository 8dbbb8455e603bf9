"""Positive or negative, concordant or not."""

from collections.abc import Mapping, Sequence


def is_positive(
    reader_says: bool | None, suv_peak: float, shell_mean: float | None, positivity_ratio: float
) -> bool | None:
    """Whether a lesion takes up the tracer of a scan more than its surroundings.

    A reader's word overrules the program's; without one the peak is compared with the shell around the
    lesion.

    Args:
        reader_says: where the scan has a reader's annotation, whether the lesion is in it; else None.
        suv_peak: SUVpeak of the lesion.
        shell_mean: mean SUV of the shell around it, or None.
        positivity_ratio: lowest ratio of the two that is positive.

    Returns:
        None where it cannot be told.
    """
    if reader_says is not None:
        return reader_says
    return None if shell_mean is None else suv_peak >= positivity_ratio * shell_mean


def concordance(positive: Mapping[str, Sequence[bool | None]]) -> str | None:
    """How the tracers agree about one lesion at one time point.

    Args:
        positive: for every tracer scanned, in order, whether the lesion is positive in each of its scans.

    Returns:
        `concordant`, `none`, `FDG-only` (with more than two tracers also `FDG+PSMA-only`); None with a single
        tracer or where a tracer cannot tell.
    """
    if len(positive) < 2 or any(True not in seen and None in seen for seen in positive.values()):
        return None
    seen_by = [tracer for tracer, seen in positive.items() if True in seen]
    if len(seen_by) == len(positive):
        return "concordant"
    return "+".join(seen_by) + "-only" if seen_by else "none"
