"""The interactive images of the patient's report, drawn by NiiVue inside the page."""

from theraflow.report.viewer.library import fetch_library, read_library
from theraflow.report.viewer.volumes import Volumes, page_data, reduce_scans

__all__ = ["Volumes", "fetch_library", "page_data", "read_library", "reduce_scans"]
