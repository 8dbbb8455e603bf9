"""Pictures as small PNG files."""

import io
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def small_png(figure: "Figure", dpi: int, colours: int = 256) -> bytes:
    """The figure as a PNG with a palette, a third as large as true colour."""
    raw = io.BytesIO()
    figure.savefig(raw, format="png", dpi=dpi)
    raw.seek(0)
    return palette_png(Image.open(raw), colours)


def palette_png(picture: Image.Image, colours: int = 256) -> bytes:
    """The picture as a PNG with a palette."""
    small = io.BytesIO()
    reduced = picture.convert("RGB").quantize(colours, method=Image.Quantize.MEDIANCUT)
    reduced.save(small, "PNG", optimize=True)
    return small.getvalue()
