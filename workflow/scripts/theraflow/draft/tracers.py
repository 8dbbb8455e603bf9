"""Which radiopharmaceutical a header tells of, by resources/radiopharmaceuticals.tsv."""

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from theraflow.dicom.export.header import number, text
from theraflow.dicom.export.parse import Header
from theraflow.errors import TheraflowError
from theraflow.nuclides import nuclide
from theraflow.sheets import MISSING

TABLE = Path(__file__).resolve().parents[4] / "resources" / "radiopharmaceuticals.tsv"

# Older designators of SNOMED-RT, with the same code values (PS3.16 section 8).
_SCHEMES = {"SNM3": "SRT", "99SDM": "SRT"}
# A stated half-life is rounded: it means a nuclide within the first, contradicts it beyond the second (relative).
_SAME_HALF_LIFE = 0.015
_OTHER_HALF_LIFE = 0.05

Code = tuple[str, str]


@dataclass(frozen=True)
class Radiopharmaceutical:
    """One row of the table.

    Attributes:
        tracer: key in the configuration; None in a row that is about a nuclide alone.
        name: in words, as `[18F]FDG`; `nuclide`: as `18F`.
        quantity: `suv` or `activity`; `therapy_nuclide`: for which doses are usually predicted, or None.
        codes: coding scheme designator and code value.
        text: what its name looks like in free text, or None.
    """

    tracer: str | None
    name: str
    nuclide: str
    quantity: str | None
    therapy_nuclide: str | None
    codes: frozenset[Code]
    text: re.Pattern[str] | None


@dataclass(frozen=True)
class Told:
    """What a header tells.

    Attributes:
        tracer: the row, or None where it cannot be decided.
        nuclide: as `18F`, or None.
        reason: why undecided; holds text of the header. Empty where decided.
        silent: whether the header says nothing at all, as derived images may.
    """

    tracer: Radiopharmaceutical | None
    nuclide: str | None
    reason: str = ""
    silent: bool = False


@cache
def radiopharmaceuticals() -> tuple[Radiopharmaceutical, ...]:
    """The rows of the table."""
    with TABLE.open(encoding="utf-8") as lines:
        next(lines)  # the source
        rows = [
            {column: None if cell in MISSING else cell for column, cell in row.items()}
            for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]
    return tuple(
        Radiopharmaceutical(
            row["tracer"],
            row["radiopharmaceutical"],
            row["nuclide"],
            row["quantity"],
            row["therapy_nuclide"],
            frozenset(tuple(code.split(":")) for code in (row["codes"] or "").split()),
            re.compile(rf"(?<![a-z0-9])({row['text']})(?![a-z0-9])") if row["text"] else None,
        )
        for row in rows
    )


@cache
def _nuclides() -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.nuclide for row in radiopharmaceuticals()))


def tell_tracer(header: Header) -> Told:
    """The tracer of an emission image: by code, else by name, and always by the nuclide.

    The nuclide is the RadionuclideCodeSequence's, else the one in the names, else that of the half-life. It tells apart
    what has the same name: 68Ga and 177Lu DOTATATE. Nothing is decided where statements contradict each other.
    """
    items = header.items("RadiopharmaceuticalInformationSequence") or (header,)
    told = [_tell(item, text(header, "Modality") == "PT") for item in items]
    if any(one.tracer != told[0].tracer for one in told):
        return Told(None, None, "the header states several radiopharmaceuticals")
    return told[0]


def tracers_in(words: str, of_nuclide: str | None) -> list[Radiopharmaceutical]:
    """The rows whose name occurs in free text, of one nuclide where that is known."""
    plain = _plain(words)
    found = [row for row in radiopharmaceuticals() if row.text and row.text.search(plain)]
    return [row for row in found if of_nuclide in (None, row.nuclide)]


def _tell(item: Header, positrons: bool) -> Told:
    codes = _codes(item, "RadiopharmaceuticalCodeSequence")
    meanings = (text(code, "CodeMeaning") for code in item.items("RadiopharmaceuticalCodeSequence"))
    words = "; ".join(dict.fromkeys(word for word in (text(item, "Radiopharmaceutical"), *meanings) if word))
    by_code = [row for row in radiopharmaceuticals() if row.tracer and row.codes & codes]
    by_name = tracers_in(words, None)
    stated, contradiction = _nuclide(item, words, positrons)
    if contradiction:
        return Told(None, None, contradiction)
    if stated is None and by_code:
        stated = by_code[0].nuclide
    # A code and a name that mean different things leave two, of which neither is taken.
    fitting = [row for row in dict.fromkeys((*by_code, *by_name)) if stated in (None, row.nuclide)]
    if len(fitting) == 1:
        return Told(fitting[0], fitting[0].nuclide)
    named = f"the header states '{words}'" if words else "the header states no radiopharmaceutical"
    labelled = f"with the nuclide {stated}" if stated else "and no nuclide"
    if fitting:
        return Told(None, stated, f"{named} {labelled}, which may be {', '.join(row.name for row in fitting)}")
    silent = not (words or codes or stated)
    return Told(None, stated, f"{named}{', which is not known,' if words else ''} {labelled}", silent)


def _nuclide(item: Header, words: str, positrons: bool) -> tuple[str | None, str]:
    """The nuclide or None, and what contradicts it."""
    coded = _codes(item, "RadionuclideCodeSequence")
    by_code = {row.nuclide for row in radiopharmaceuticals() if row.tracer is None and row.codes & coded}
    for code in item.items("RadionuclideCodeSequence"):
        try:
            by_code.add(nuclide(text(code, "CodeMeaning") or "").name)
        except TheraflowError:
            continue  # a code value may still be known
    if len(by_code) > 1:
        return None, f"the code of the nuclide and its meaning contradict each other ({', '.join(sorted(by_code))})"
    stated = next(iter(by_code), None) or next((name for name in _nuclides() if _of(name).search(words)), None)
    try:
        half_life_s = number(item, "RadionuclideHalfLife") or None
    except TheraflowError:
        half_life_s = None
    if half_life_s is None:
        return stated, ""
    if stated is not None:
        apart = abs(half_life_s / nuclide(stated).half_life_s - 1.0)
        wrong = f"the half-life of {half_life_s:g} s is not that of {stated}" if apart > _OTHER_HALF_LIFE else ""
        return stated, wrong
    known = [nuclide(name) for name in _nuclides()]
    near = [one for one in known if abs(half_life_s / one.half_life_s - 1.0) < _SAME_HALF_LIFE]
    # 67Ga and 89Zr have the same half-life.
    near = [one for one in near if one.positron_emitter == positrons] or near
    return (near[0].name if len(near) == 1 else None), ""


def _codes(item: Header, keyword: str) -> frozenset[Code]:
    found = ((text(c, "CodingSchemeDesignator") or "", text(c, "CodeValue") or "") for c in item.items(keyword))
    return frozenset((_SCHEMES.get(scheme, scheme), value) for scheme, value in found)


@cache
def _of(name: str) -> re.Pattern[str]:
    """How a nuclide is written in a name: `68Ga-`, `Ga-68`, `^68^Ga`, `(177Lu)`, `F^18^`; `18F` may touch the name."""
    mass, symbol = re.fullmatch(r"(\d+m?)(\D+)", name).groups()
    gap = r"[\s^-]*"
    return re.compile(
        rf"(?<!\d){mass}{gap}{symbol}(?![a-z])|(?<![0-9a-z]){mass}{symbol}|(?<![a-z]){symbol}{gap}{mass}(?![0-9a-z])",
        re.IGNORECASE,
    )


def _plain(words: str) -> str:
    """Lower case, without nuclides, with single blanks in place of everything but letters and digits."""
    for name in _nuclides():
        words = _of(name).sub(" ", words)
    return re.sub(r"[^a-z0-9]+", " ", words.lower())
