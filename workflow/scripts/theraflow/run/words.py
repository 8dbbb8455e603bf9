"""Durations and sizes as a person says them."""


def in_words(seconds: float) -> str:
    """A duration: `0.4 s`, `3 s`, `48 s`, `12 min 22 s`, `3 h 05 min`.

    Args:
        seconds: the duration.
    """
    if seconds < 9.95 and seconds != round(seconds):
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def memory_in_words(mib: float) -> str:
    """A size: `310 MiB`, `1.9 GiB`.

    Args:
        mib: the size in MiB.
    """
    return f"{mib:.0f} MiB" if mib < 1000 else f"{mib / 1024:.1f} GiB"
