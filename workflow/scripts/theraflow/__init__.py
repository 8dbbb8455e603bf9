"""theraflow: the library behind the workflow. All numbers are made here; nothing here knows Snakemake.

One package a stage, used in this order and never backwards: `dicom`, `images`, `organs`, `registration`, `lesions`,
`dosimetry`, `response`, `cohort`, `report`. `draft` (drafts the sheets) and `virtual` (virtual patients) stand
apart from them.
"""

__version__ = "0.1.0"
