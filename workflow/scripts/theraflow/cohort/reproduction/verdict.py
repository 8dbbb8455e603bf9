"""Whether a computed value agrees with a printed one."""

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

AGREES, DISAGREES, NOT_DETERMINED = "agrees as rounded", "disagrees", "not determined"
# A mean of decimal numbers may miss an exact half by the last binary digit.
_EXACT_DECIMALS = 9


def round_half_up(value: float, decimals: int) -> Decimal:
    """Round a number as people do on paper: a half goes away from zero (28.5 to 29; Python and R give 28)."""
    return Decimal(repr(round(value, _EXACT_DECIMALS))).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)


def decimals_printed(printed: str) -> int:
    """Decimals of a printed number.

    Raises:
        decimal.InvalidOperation: it is no number.
    """
    return max(0, -int(Decimal(printed).as_tuple().exponent))


def judge(printed: str, computed: float | str) -> str:
    """Verdict on one value.

    Args:
        printed: as in the paper; a number sets by its decimals how the computed one is rounded.
        computed: a number, or a word that must be the same.

    Returns:
        `AGREES` or `DISAGREES`.

    Raises:
        ValueError: one is a number and the other is not.
    """
    if isinstance(computed, str):
        return AGREES if printed == computed else DISAGREES
    try:
        decimals = decimals_printed(printed)
    except InvalidOperation as error:
        raise ValueError(f"{printed!r} is no number, and {computed!r} is.") from error
    return AGREES if round_half_up(computed, decimals) == Decimal(printed) else DISAGREES


def is_half(printed: str, computed: float | str) -> bool:
    """Whether the computed value lies exactly between two printable ones, so that the rule of rounding decides."""
    if isinstance(computed, str):
        return False
    last = Decimal(repr(round(computed, _EXACT_DECIMALS))).scaleb(decimals_printed(printed))
    return abs(last % 1) == Decimal("0.5")
