"""theraflow: the library behind the workflow. All numbers are made here; nothing here knows Snakemake.

One package a stage, used in this order and never backwards: `dicom`, `images`, `organs`, `registration`, `lesions`,
`dosimetry`, `response`, `cohort`, `report`, and after them `objects` (DICOM for other systems) and `exchange` (formats
of other programs). `draft` (drafts the sheets), `pacs` (from and to an archive), `run` (progress and summary) and
`virtual` (virtual patients) stand apart from them.
"""

__version__ = "0.1.0"
