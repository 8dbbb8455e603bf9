"""The same patient twice, on one core and on two, in folders of other names: every result is the same to the byte.

The hash seed of Python differs, too, which decides the order of sets. Results are all files of `results/` but the logs,
where times, durations and the memory of the machine stand. Organs by deep learning and dosimetry are not in it.
"""

import datetime
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid

from whole_run import Run

pytestmark = pytest.mark.workflow

SHIFT_MM = (6.0, -4.0, 0.0)  # of the patient on the table at the second visit
LATER = datetime.timedelta(days=60)
CANDIDATES = {"candidates": {"FDG": {"threshold_suv": 2.5, "outline": {"percent_of_maximum": 41}}}}
DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")


def visit_again(source: Path, target: Path) -> None:
    """The same scan as that of a later visit: other UIDs and dates, and the patient lies elsewhere."""
    for path in sorted(source.rglob("*")):
        if not path.is_file() or not pydicom.misc.is_dicom(path) or "mask" in path.parts:
            continue
        dataset = pydicom.dcmread(path)
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
            setattr(dataset, name, generate_uid(entropy_srcs=[str(dataset[name].value)]))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        place = zip(dataset.ImagePositionPatient, SHIFT_MM, strict=True)
        dataset.ImagePositionPatient = [float(at) + by for at, by in place]
        for name in DATES:
            if dataset.get(name):
                day = datetime.datetime.strptime(dataset[name].value, "%Y%m%d") + LATER
                setattr(dataset, name, f"{day:%Y%m%d}")
        copied = target / path.relative_to(source)
        copied.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(copied)


@pytest.fixture(scope="module")
def both(make_run, repository_cases, tmp_path_factory) -> tuple[Run, Run]:
    """A run on one core and one on two."""
    first = {key: value for key, value in repository_cases[0].items() if key != "lesions"}
    again = tmp_path_factory.mktemp("export") / "again"
    visit_again(first["dicom"], again)
    rows = [repository_cases[0], {**first, "scan": "again", "timepoint": "followup", "dicom": again}]
    runs = []
    with pytest.MonkeyPatch.context() as patch:
        for cores in (1, 2):
            run = make_run(f"on {cores}")
            run.write(rows, lesions=CANDIDATES)
            patch.setenv("PYTHONHASHSEED", str(cores))
            result = run.snakemake(cores=cores)
            assert result.returncode == 0, result.stdout
            runs.append(run)
    return tuple(runs)


def contents(run: Run, wanted: Callable[[Path], bool] = lambda path: True) -> dict[str, bytes]:
    """All results by name."""
    root = run.results()
    files = {path.relative_to(root): path for path in root.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in files.items() if name.parts[0] != "logs" and wanted(name)}


def test_every_result_is_the_same_to_the_byte(both):
    one, two = map(contents, both)
    assert set(one) == set(two)
    assert [name for name in sorted(one) if one[name] != two[name]] == []


def test_the_runs_had_something_to_differ_in(both):
    """Registration, lesions, response and every kind of file are among the results."""
    one = contents(both[0])
    suffixes = {Path(name).suffix for name in one}
    assert suffixes >= {".gz", ".json", ".tsv", ".h5", ".png", ".svg", ".pdf", ".html", ".dcm", ".parquet", ".xlsx"}
    moved = [name for name in one if name.endswith("again.to_scan.h5")]
    assert len(moved) == 1 and len(one[moved[0]]) > 100_000  # a field of displacements, not the identity
