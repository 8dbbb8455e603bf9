"""Positive or negative, concordant or not."""

from collections.abc import Mapping, Sequence


def is_positive(
    reader_says: bool | None,
    suv_peak: float,
    shell_mean: float | None,
    blood_pool_mean: float | None,
    positivity_ratio: float,
) -> bool | None:
    """Whether a lesion takes up the tracer of a scan more than its surroundings, and no less than blood.

    A reader's word overrules the program's; without one the peak is compared with the shell around the lesion and
    with the blood pool. In fat, the spill of a vessel is several times the shell: what takes up less than blood counts
    as negative, as in the score 0 of PROMISE (Eiber et al., J Nucl Med 2018;59:469).

    Args:
        reader_says: where the scan has a reader's annotation, whether the lesion is in it; else None.
        suv_peak: SUVpeak of the lesion.
        shell_mean: mean SUV of the shell around it, or None.
        blood_pool_mean: mean SUV of the blood pool, or None where the scan does not tell: it is then not asked.
        positivity_ratio: lowest ratio of peak and shell that is positive.

    Returns:
        None where it cannot be told.
    """
    if reader_says is not None:
        return reader_says
    if blood_pool_mean is not None and suv_peak < blood_pool_mean:
        return False
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
