"""The configuration's defaults, as the workflow fills them in from the schema."""

from pathlib import Path

from snakemake.utils import validate

SCHEMA = Path(__file__).resolve().parents[1] / "workflow" / "schemas" / "config.schema.yaml"


def default_settings(section: str) -> dict:
    """The settings of one section of an otherwise empty configuration."""
    config = {
        "scans": "scans.tsv",
        "tracers": {"FDG": {"radiopharmaceutical": "", "nuclide": "18F", "quantity": "suv"}},
    }
    validate(config, schema=str(SCHEMA))
    return config[section]
