"""What a segment stands for, and how it was made."""

from dataclasses import dataclass

from pydicom.sr.coding import Code

import theraflow


@dataclass(frozen=True)
class Made:
    """How a segment was made.

    Attributes:
        by: `AUTOMATIC`, `SEMIAUTOMATIC` or `MANUAL` (PS3.3 C.8.20.2).
        name: of the algorithm or the source; empty for MANUAL.
        family: code of the kind of algorithm (CID 7162 or theraflow's own); None for MANUAL.
        version: of the algorithm.
    """

    by: str
    name: str = ""
    family: Code | None = None
    version: str = theraflow.__version__


@dataclass(frozen=True)
class Segment:
    """One label and what it stands for.

    Attributes:
        label: its number in the map.
        name: what it is called, also when it is imported again.
        category, kind: codes of what it is.
        made: how.
        side: code of the side of `kind`, or None.
        region: code of the organ or region that it lies in, and of its side; or None.
        tracking_uid: of a lesion, the same in all scans of the patient.
        remark: what a reader has to know; may be empty.
    """

    label: int
    name: str
    category: Code
    kind: Code
    made: Made
    side: Code | None = None
    region: tuple[Code, Code | None] | None = None
    tracking_uid: str | None = None
    remark: str = ""
