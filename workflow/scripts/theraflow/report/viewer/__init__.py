"""The interactive images of the patient's report, drawn by NiiVue inside the page."""

from theraflow.on_demand import names_on_demand

__all__, __getattr__ = names_on_demand(
    __name__,
    {
        "library": ["fetch_library", "read_library"],
        "volumes": ["Volumes", "page_data", "reduce_scans"],
    },
)
