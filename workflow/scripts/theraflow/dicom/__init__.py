"""From a hospital's DICOM to images in HU, SUV and Bq/mL, and to a reader's annotation on their grids.

`modalities` serves the Snakefile while it plans, so importing this package loads nothing but the standard
library; the other names load pydicom, numpy and SimpleITK when they are first used.
"""

import importlib
from typing import Any

from theraflow.dicom.export.sniff import modalities

_HOMES = {
    "Annotation": "theraflow.dicom.annotation",
    "import_ct": "theraflow.dicom.ct",
    "import_emission": "theraflow.dicom.emission",
    "import_planar": "theraflow.dicom.planar",
    "normalise_pet": "theraflow.dicom.normalised",
    "read_annotation": "theraflow.dicom.annotation",
}

__all__ = [
    "Annotation",
    "import_ct",
    "import_emission",
    "import_planar",
    "modalities",
    "normalise_pet",
    "read_annotation",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module at first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
