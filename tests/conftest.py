"""What all tests share."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the published real data; the test skips where it is absent (a user's clone)."""
    folder = Path(os.environ.get("THERAFLOW_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the published scans are not in {folder} (set THERAFLOW_DATA to their folder)")
    return folder
