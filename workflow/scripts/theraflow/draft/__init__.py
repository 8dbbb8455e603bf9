"""`theraflow index`: drafts the sheet of scans and the configuration from a tree of DICOM.

Stands apart from the stages of the workflow: none of them imports it.
"""
