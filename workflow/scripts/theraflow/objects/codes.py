"""Names to codes: SNOMED CT for anatomy, DICOM and UCUM for measurements."""

import csv
from functools import cache
from pathlib import Path

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

TABLE = Path(__file__).resolve().parents[4] / "resources" / "anatomy_codes.tsv"
# What no public scheme has a code for: PS3.16 section 8 lets designators of local schemes begin with 99.
OWN_SCHEME = "99THERAFLOW"
_SIDES = {"left": codes.SCT.Left, "right": codes.SCT.Right}
LYMPH_NODE = "lymph node"


@cache
def _table() -> dict[str, Code]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader((line for line in file if not line.startswith("#")), delimiter="\t")
        return {row["name"]: Code(row["code"], "SCT", row["meaning"]) for row in rows}


def organ_code(organ: str) -> tuple[Code, Code | None]:
    """Code of an organ of TotalSegmentator's task total, as `kidney_left`, and of its side where it has one.

    Raises:
        KeyError: there is no such organ.
    """
    if organ in _table():
        return _table()[organ], None
    words = organ.split("_")
    (side,) = set(words) & set(_SIDES) or {""}
    return _table()["_".join(word for word in words if word != side)], _SIDES.get(side)


def site_code(site: str | None, station: str | None) -> tuple[Code, Code | None] | None:
    """Code of a lesion's `site` and `station` as lesions.tsv has them, and of the side; None where there is none."""
    if site is None:
        return None
    if site == LYMPH_NODE:
        return _table().get(f"{station} {LYMPH_NODE}", _table()[LYMPH_NODE]), None
    if site in _table():
        return _table()[site], None
    try:
        return organ_code(site.replace(" ", "_"))
    except KeyError:
        return None
