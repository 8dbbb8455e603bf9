"""From a hospital's DICOM to images in HU, SUV and Bq/mL, and to a reader's annotation on their grids.

`holds_ct` serves the Snakefile while it plans, so importing this package loads nothing but the standard
library; the other names load pydicom, numpy and SimpleITK when they are first used.
"""

from theraflow.dicom.export.sniff import holds_ct
from theraflow.on_demand import names_on_demand

__all__, __getattr__ = names_on_demand(
    __name__,
    {
        "annotation": ["Annotation", "read_annotation"],
        "ct": ["import_ct"],
        "emission": ["import_emission"],
        "normalised": ["normalise_pet"],
        "planar": ["import_planar"],
    },
)
__all__ += ["holds_ct"]
