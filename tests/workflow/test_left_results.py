"""What a sheet or a folder of DICOM has no more: nothing of it stays, nor in any number; what is only away stays."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from kills import differing
from theraflow.organs import ORGAN_IDS
from whole_run import Run

pytestmark = pytest.mark.workflow

PATIENT = "STS_002"
TARGETS = [f"results/{PATIENT}/{table}.tsv" for table in ("lesions/lesions", "response")]
RESULTS = (".tsv", ".json", ".nii.gz", ".h5", ".png")
CT_FILES = {"ct.nii.gz", "ct.json"}
ORGAN_FILES = {"organs.nii.gz", "organs.json", "organs.tsv"}


def write_aorta(ct: Path, path: Path) -> None:
    """A label map on the grid of a CT: a block beside the tumour, as large as an aorta, is called one."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(ct)))
    image = reader.Execute()
    labels = np.zeros(image.GetSize()[::-1], np.uint8)
    labels[2:22, 15:55, 100:140] = ORGAN_IDS["aorta"]
    made = sitk.GetImageFromArray(labels)
    made.CopyInformation(image)
    sitk.WriteImage(made, path)


def blood_pool_suv(run: Run) -> list[float]:
    ratios = pd.read_csv(run.results(PATIENT, "lesions", "tbr.tsv"), sep="\t")
    return ratios.loc[ratios["background_region"] == "blood_pool", "background_suv"].tolist()


def of_scan(run: Run) -> set[str]:
    return {path.name for path in run.results(PATIENT, "scans", "fdg").iterdir()}


@pytest.fixture(scope="module")
def row(repository_cases):
    """A scan in a folder `dicom` of the working directory, the reader's outline and the organs beside it."""
    return {**repository_cases[0], "dicom": "dicom", "lesions": "outline.dcm", "organs": "organs.nii.gz"}


@pytest.fixture(scope="module")
def with_organs(make_run, repository_cases, row) -> Run:
    """A run of a scan with CT and organs."""
    run = make_run("with organs")
    shutil.copytree(repository_cases[0]["dicom"], run.folder / "dicom")
    shutil.copy2(repository_cases[0]["lesions"], run.folder / "outline.dcm")
    write_aorta(run.folder / "dicom" / "CT" / "image", run.folder / "organs.nii.gz")
    run.write([row])
    result = run.snakemake(*TARGETS)
    assert result.returncode == 0, result.stdout
    assert of_scan(run) > CT_FILES | ORGAN_FILES
    assert np.isfinite(blood_pool_suv(run)).all()
    return run


@pytest.fixture
def copy(with_organs, tmp_path) -> Run:
    """The same run once more, for a test to go on with."""
    shutil.copytree(with_organs.folder, tmp_path / "copy")
    return Run(tmp_path / "copy")


@pytest.mark.parametrize(("without", "gone"), [("organs", ORGAN_FILES), ("CT", CT_FILES | ORGAN_FILES)])
def test_organs_and_ct_that_are_no_more_count_in_no_number(copy, make_run, row, without, gone):
    never = make_run(f"never {without}")
    if without == "CT":
        shutil.rmtree(copy.folder / "dicom" / "CT")
    else:
        row = {**row, "organs": "NA"}
        copy.write([row])
    for name in ("dicom", "outline.dcm", "organs.nii.gz"):
        source, target = copy.folder / name, never.folder / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
    never.write([row])
    for run in (copy, never):
        result = run.snakemake(*TARGETS)
        assert result.returncode == 0, result.stdout
        assert np.isnan(blood_pool_suv(run)).all()
        assert not of_scan(run) & gone
    told = differing(copy, never, *RESULTS)
    # What the folder held when the PET was imported, which is not done anew.
    assert [name for name in told if not name.endswith(".series.tsv")] == []


def test_of_a_patient_that_the_run_leaves_alone_organs_stay(copy, repository_cases, row):
    """One goes without organs, but another one alone is asked for: the organs are there if they are wanted again."""
    copy.write([{**row, "organs": "NA"}, repository_cases[1]])
    result = copy.snakemake("results/STS_008/scans/fdg/ct.json")
    assert result.returncode == 0, result.stdout
    assert of_scan(copy) > ORGAN_FILES


def test_while_the_dicom_is_away_nothing_is_taken_for_gone(copy):
    copy.folder.joinpath("dicom").rename(copy.folder / "away")
    assert "Nothing to be done" in copy.snakemake(*TARGETS).stdout
    copy.folder.joinpath("dicom").mkdir()  # where the archive would be mounted
    assert "Nothing to be done" in copy.snakemake(*TARGETS).stdout
    result = copy.snakemake(*TARGETS, "--forcerun", "lesions")
    assert result.returncode == 0, result.stdout
    assert of_scan(copy) > CT_FILES | ORGAN_FILES
    (copy.folder / f"results/{PATIENT}/scans/fdg/ct.nii.gz").unlink()
    refused = copy.snakemake(*TARGETS)
    assert refused.returncode != 0 and "Traceback" not in refused.stdout
    assert f"Scan 'fdg' of patient '{PATIENT}' has organs, but the CT that shows them is neither" in refused.stdout
    assert of_scan(copy) > ORGAN_FILES
