"""Figures as small PNG files."""

import io

from matplotlib.figure import Figure
from PIL import Image


def small_png(figure: Figure, dpi: int, colours: int = 256) -> bytes:
    """The figure as a PNG with a palette, a third as large as true colour."""
    raw = io.BytesIO()
    figure.savefig(raw, format="png", dpi=dpi)
    raw.seek(0)
    small = io.BytesIO()
    reduced = Image.open(raw).convert("RGB").quantize(colours, method=Image.Quantize.MEDIANCUT)
    reduced.save(small, "PNG", optimize=True)
    return small.getvalue()
