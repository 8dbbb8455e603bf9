"""Tables, sentences and figures of the report on paper: a PDF in the letters and colours of the page.

Nothing here knows what a patient is. The letters are DejaVu Sans, which matplotlib brings: the fonts that every PDF
reader has know neither Greek letters nor ½ and superscripts.
"""

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from reportlab.lib.colors import HexColor, white
from reportlab.lib.enums import TA_CENTER, TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, CondPageBreak, Flowable, Frame, Image, PageTemplate, Paragraph
from reportlab.platypus import Table as Grid

from theraflow.cohort.style import style
from theraflow.files import whole
from theraflow.png import small_png
from theraflow.report.display import Cell, Table
from theraflow.report.quality import BAD, CHECK, GOOD, NONE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FONT, BOLD, ITALIC = "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique"
# Those of style.css.
INK, SOFT, LINE, SHADE = "#1f2328", "#57606a", "#d5dae1", "#f5f7f9"
LIGHTS = {GOOD: "#1a7f37", CHECK: "#9a6700", BAD: "#b3261e", NONE: "#57606a"}
# A4, with margins that let it be printed on Letter unscaled: that is 18 mm shorter.
PAGE_WIDTH, PAGE_HEIGHT = A4
SIDE, TOP, BOTTOM = 15 * mm, 24 * mm, 24 * mm
WIDTH, HEIGHT = PAGE_WIDTH - 2 * SIDE, PAGE_HEIGHT - TOP - BOTTOM
HALF_WIDTH = (WIDTH - 4 * mm) / 2
HEAD_AT, FOOT_AT = PAGE_HEIGHT - 18 * mm, 18 * mm
TEXT_PT, NOTE_PT = 8.5, 7.0
TABLE_SIZES_PT = (7.5, 7.0, 6.5, 6.0)  # tried one after the other until a table is as narrow as the page
PADDING = 2.4
DPI = 200
ROOM_FOR_TABLE = 30 * mm  # a title, the heads of a table and its first rows
TALLEST = HEIGHT - 20 * mm  # of a picture, which has a title and a line or two with it


@dataclass(frozen=True)
class Frontispiece:
    """What stands around the text.

    Attributes:
        title: name of the document, at the head of every page and among the properties of the file.
        made_by: program and version, at the head of every page on the right.
        foot: sentence at the foot of every page.
    """

    title: str
    made_by: str
    foot: str


def write_document(content: Sequence[Flowable], frontispiece: Frontispiece, output: Path | str) -> None:
    """Write the PDF, whole or not at all.

    The same content gives the same bytes: the dates among the file's properties are that of no day.

    Args:
        content: paragraphs, tables and figures as the functions of this module make them.
        frontispiece: what every page has.
        output: the file.
    """

    def furnish(canvas: Canvas, _: BaseDocTemplate) -> None:
        canvas.setFillColor(HexColor(INK))
        canvas.setFont(BOLD, 8)
        canvas.drawString(SIDE, HEAD_AT, frontispiece.title)
        canvas.setFont(FONT, NOTE_PT)
        canvas.setFillColor(HexColor(SOFT))
        canvas.drawRightString(PAGE_WIDTH - SIDE, HEAD_AT, frontispiece.made_by)
        canvas.setFillColor(HexColor(INK))
        canvas.drawString(SIDE, FOOT_AT, frontispiece.foot)
        canvas.setStrokeColor(HexColor(LINE))
        canvas.line(SIDE, HEAD_AT - 2 * mm, PAGE_WIDTH - SIDE, HEAD_AT - 2 * mm)
        canvas.line(SIDE, FOOT_AT + 3.5 * mm, PAGE_WIDTH - SIDE, FOOT_AT + 3.5 * mm)

    register_fonts()
    frame = Frame(
        SIDE,
        BOTTOM,
        WIDTH,
        HEIGHT,
        leftPadding=0,
        rightPadding=0,
        topPadding=0,
        bottomPadding=0,
    )
    with whole(output) as temporary:
        document = BaseDocTemplate(
            str(temporary),
            pagesize=A4,
            title=frontispiece.title,
            author=frontispiece.made_by,
            creator=frontispiece.made_by,
            subject=frontispiece.foot,
            lang="en-GB",
            invariant=1,
            pageTemplates=[PageTemplate("page", [frame], onPage=furnish)],
        )
        document.build(list(content), canvasmaker=_NumberedCanvas)


class _NumberedCanvas(Canvas):
    """A canvas that knows how many pages there are when it numbers them: all are kept until the last is drawn."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **{**options, "initialFontName": FONT})
        self._pages: list[dict[str, object]] = []

    def showPage(self) -> None:
        self._pages.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        for number, page in enumerate(self._pages, 1):
            self.__dict__.update(page)
            self.setFont(FONT, NOTE_PT)
            self.setFillColor(HexColor(SOFT))
            self.drawRightString(PAGE_WIDTH - SIDE, FOOT_AT, f"Page {number} of {len(self._pages)}")
            super().showPage()
        super().save()


@cache
def register_fonts() -> None:
    """Make the letters known to reportlab."""
    from matplotlib import get_data_path

    folder = Path(get_data_path()) / "fonts" / "ttf"
    for name in (FONT, BOLD, ITALIC):
        pdfmetrics.registerFont(TTFont(name, folder / f"{name}.ttf"))
    pdfmetrics.registerFontFamily(FONT, normal=FONT, bold=BOLD, italic=ITALIC, boldItalic=BOLD)


def _letters(size: float, **options: object) -> ParagraphStyle:
    register_fonts()
    look = {"fontName": FONT, "fontSize": size, "leading": 1.28 * size, "textColor": HexColor(INK)}
    return ParagraphStyle("", **(look | options))


def headline(text: str, detail: str) -> Paragraph:
    """The title of the document, with a few words beside it."""
    words = f'<b>{escape(text)}</b>   <font size="9" color="{SOFT}">{escape(detail)}</font>'
    return Paragraph(words, _letters(17, leading=21, spaceAfter=3))


def heading(text: str, room: float = ROOM_FOR_TABLE) -> list[Flowable]:
    """The title of a section, on the next page where less than `room` (points) is left on this one."""
    return [CondPageBreak(room), Paragraph(escape(text), _letters(11, fontName=BOLD, spaceBefore=9, spaceAfter=3))]


def subheading(text: str, room: float = ROOM_FOR_TABLE) -> list[Flowable]:
    """The title of a part of a section."""
    return [CondPageBreak(room), Paragraph(escape(text), _letters(8.5, fontName=BOLD, spaceBefore=6, spaceAfter=2))]


def paragraph(text: str) -> Paragraph:
    """A sentence or more."""
    return Paragraph(escape(text), _letters(TEXT_PT, spaceAfter=3))


def note(text: str, about: str = "") -> Paragraph:
    """What belongs to a table or picture, in small letters; first, in bold, what it is about."""
    named = f'<font color="{INK}"><b>{escape(about)}</b></font> ' if about else ""
    return Paragraph(named + escape(text), _letters(NOTE_PT, textColor=HexColor(SOFT), spaceAfter=2))


def box(text: str, colour: str, about: str = "") -> Paragraph:
    """Sentences that must not be overlooked, in a frame of `colour`; first, in bold, what they are about."""
    named = f"<b>{escape(about)}</b> " if about else ""
    look = {"borderColor": HexColor(colour), "borderWidth": 0.9, "borderPadding": 4, "spaceBefore": 6, "spaceAfter": 7}
    return Paragraph(named + escape(text), _letters(8, leftIndent=4, rightIndent=4, **look))


def banner(text: str) -> Paragraph:
    """A sentence without which nothing else may be read."""
    look = {"textColor": white, "backColor": HexColor(LIGHTS[BAD]), "borderPadding": 5, "fontName": BOLD}
    return Paragraph(escape(text), _letters(10, leftIndent=5, rightIndent=5, spaceBefore=8, spaceAfter=9, **look))


def picture(figure: "Figure", width: float, letters: float = 1.0) -> Image:
    """A figure with 200 dots an inch on paper.

    Args:
        figure: as for the page.
        width: on paper, points; less where the figure would be taller than a page has room for.
        letters: how much larger its letters shall be, as they shrink with it.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_fontsize(letters * text.get_fontsize())
    across, down = figure.get_size_inches()
    width = min(width, TALLEST * across / down)
    with style():
        content = small_png(figure, round(DPI * width / 72 / across))
    return Image(io.BytesIO(content), width, width * down / across)


def side_by_side(left: Sequence[Flowable], right: Sequence[Flowable]) -> Flowable:
    """Two flows of `HALF_WIDTH` beside each other, never parted by the end of a page."""
    look = [(f"{side}PADDING", (0, 0), (-1, -1), 0) for side in ("LEFT", "RIGHT", "TOP", "BOTTOM")]
    look.append(("FONTNAME", (0, 0), (-1, -1), FONT))  # of the gap too, or the file names another
    widths = [HALF_WIDTH, WIDTH - 2 * HALF_WIDTH, HALF_WIDTH]
    return Grid(
        [[list(left), "", list(right)]], widths, style=[*look, ("VALIGN", (0, 0), (-1, -1), "TOP")], hAlign="LEFT"
    )


def only(content: Table, titles: Collection[str]) -> Table:
    """The columns with these titles."""
    return _columns(content, [i for i, title in enumerate(content.columns) if title in titles])


def _columns(content: Table, kept: Sequence[int]) -> Table:
    """The columns at these places; a group keeps those that are left of it."""
    groups, start = [], 0
    for title, width in content.groups:
        left = sum(start <= place < start + width for place in kept)
        groups += [(title, left)] if left else []
        start += width
    return Table(
        [content.columns[i] for i in kept],
        [[row[i] for i in kept] for row in content.rows],
        frozenset(new for new, old in enumerate(kept) if old in content.numeric),
        groups,
    )


def table(content: Table) -> list[Flowable]:
    """A table in the largest letters that fit, its heads on every page that it reaches.

    One that is too wide even in the smallest is divided between groups of columns, or between columns where there are
    no groups; every part begins with the first column.
    """
    needed = [(size, _needed_widths(content, size)) for size in TABLE_SIZES_PT]
    # Without a line break in any cell rather than in the largest letters, but not in the smallest ones for that.
    for wanted, tried in ((1, needed[:-1]), (0, needed[1:])):
        for size, widths in tried:
            if sum(needs[wanted] for needs in widths) <= WIDTH:
                return [_grid(content, _spread(widths), size)]
    size, widths = needed[-1]
    return [
        _grid(_columns(content, kept), _spread([widths[i] for i in kept]), size)
        for kept in _divided(content, [least for least, *_ in widths])
    ]


def _needed_widths(content: Table, size: float) -> list[tuple[float, float, float]]:
    """Points that each column needs at least, those without any line break in its cells, and in its head neither.

    Numbers and what is in bold, names as a rule, are never broken; all else only between words.
    """
    needed = []
    for i, title in enumerate(content.columns):
        cells = [(row[i].text, BOLD if row[i].look == "strong" else FONT) for row in content.rows]
        words = [
            (part, font) for text, font in cells
            for part in ([text] if i in content.numeric or font == BOLD else text.split())
        ]  # fmt: skip
        least = _widest([*words, *((word, BOLD) for word in title.split())], size)
        unbroken = max(least, _widest(cells, size))
        needed.append((least, unbroken, max(unbroken, _widest([(title, BOLD)], size))))
    return needed


def _widest(texts: Sequence[tuple[str, str]], size: float) -> float:
    """Points that the widest of texts (with their fonts) takes in a column."""
    return max((pdfmetrics.stringWidth(*text, size) for text in texts), default=0.0) + 2 * PADDING + 0.5


def _spread(needed: Sequence[tuple[float, float, float]]) -> list[float]:
    """Widths of columns, together no more than that of the page: as much as it holds of what each would like."""
    totals = [sum(each) for each in zip(*needed, strict=True)]
    if totals[0] > WIDTH:
        return [WIDTH * least / totals[0] for least, *_ in needed]
    for fewer in (1, 0):
        if totals[fewer] <= WIDTH < totals[fewer + 1]:
            share = (WIDTH - totals[fewer]) / (totals[fewer + 1] - totals[fewer])
            return [needs[fewer] + share * (needs[fewer + 1] - needs[fewer]) for needs in needed]
    return [most for *_, most in needed]


def _divided(content: Table, widths: Sequence[float]) -> list[list[int]]:
    """Places of the columns of each part of a table that is too wide."""
    ends = set(accumulate(width for _, width in content.groups)) or set(range(1, len(widths) + 1))
    parts, start = [], 1
    while start < len(widths):
        later = [end for end in sorted(ends) if end > start]
        fitting = [end for end in later if widths[0] + sum(widths[start:end]) <= WIDTH]
        end = max(fitting, default=later[0])
        parts.append([0, *range(start, end)])
        start = end
    return parts


def _grid(content: Table, widths: Sequence[float], size: float) -> Grid:
    text = {False: _letters(size), True: _letters(size, alignment=TA_RIGHT)}
    head = {right: _letters(size, fontName=BOLD, alignment=look.alignment) for right, look in text.items()}
    group = _letters(size, alignment=TA_CENTER, textColor=HexColor(SOFT))
    numeric = [i in content.numeric for i in range(len(widths))]
    rows = [[Paragraph(escape(title), head[right]) for title, right in zip(content.columns, numeric, strict=True)]]
    look = [
        ("FONTNAME", (0, 0), (-1, -1), FONT),
        ("VALIGN", (0, 0), (-1, -1), "TOP"), ("TOPPADDING", (0, 0), (-1, -1), 1.4),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 1.8), ("LEFTPADDING", (0, 0), (-1, -1), PADDING),
        ("RIGHTPADDING", (0, 0), (-1, -1), PADDING),
    ]  # fmt: skip
    if content.groups:
        above, start = [""] * len(widths), 0
        for title, width in content.groups:
            above[start] = Paragraph(escape(title), group)
            look.append(("SPAN", (start, 0), (start + width - 1, 0)))
            if title:
                look.append(("LINEBELOW", (start, 0), (start + width - 1, 0), 0.4, HexColor(LINE)))
            start += width
        rows.insert(0, above)
    heads = len(rows)
    rows += [[Paragraph(_markup(cell), text[right]) for cell, right in zip(row, numeric, strict=True)]
             for row in content.rows]  # fmt: skip
    look += [
        ("VALIGN", (0, 0), (-1, heads - 1), "BOTTOM"),
        ("LINEBELOW", (0, heads - 1), (-1, heads - 1), 0.6, HexColor(INK)),
        ("LINEBELOW", (0, heads), (-1, -1), 0.3, HexColor(LINE)),
        ("ROWBACKGROUNDS", (0, heads), (-1, -1), [white, HexColor(SHADE)]),
    ]  # fmt: skip
    return Grid(rows, widths, repeatRows=heads, style=look, hAlign="LEFT", spaceBefore=2, spaceAfter=4)


def _markup(cell: Cell) -> str:
    """A cell in the look that style.css gives it; of a light the sign in its colour, the words beside it."""
    if cell.look in LIGHTS:
        sign, _, words = cell.text.partition(" ")
        return f'<font color="{LIGHTS[cell.look]}"><b>{escape(sign)}</b></font> {escape(words)}'
    text = escape(cell.text)
    return {"strong": f"<b>{text}</b>", "guess": f"<i>{text}</i>", "faint": f'<font color="{SOFT}">{text}</font>'}.get(
        cell.look, text
    )
