"""Nothing that tells who the patient is leaves the DICOM headers: every file of a run is searched for it."""

import shutil

import pydicom
import pytest

from unpacking import contents

pytestmark = pytest.mark.workflow

NAME, FIRST_NAME, INSTITUTION = "Zyxwvutova", "Qwertzuline", "Quarkhausenklinik"
IDENTITY = {
    "PatientName": f"{NAME}^{FIRST_NAME}",
    "PatientID": "PID554433",
    "OtherPatientIDs": "OPID665544",
    "PatientBirthDate": "19560317",
    "PatientBirthName": f"{NAME}geb",
    "PatientMotherBirthName": f"{NAME}mut",
    "PatientAddress": f"{NAME}weg 7, Quarkhausen",
    "PatientTelephoneNumbers": "+49 931 7788990",
    "PatientComments": f"Frau {NAME}",
    "AccessionNumber": "ACC778899",
    "InstitutionName": INSTITUTION,
    "InstitutionAddress": f"{INSTITUTION}allee 1",
    "InstitutionalDepartmentName": f"Nuklearmedizin {INSTITUTION}",
    "ReferringPhysicianName": "Hausarztinger^Dr",
    "PerformingPhysicianName": "Oberarztinger^Dr",
    "OperatorsName": "Technikerinsky",
    "StudyID": "STUDY334455",
    "StudyDescription": f"PET/CT {NAME}",
    "SeriesDescription": f"WB {NAME}, {FIRST_NAME}",
    "ImageComments": f"{NAME} moved",
    "StationName": "QUARKPET1",
}
TOLD = [NAME, FIRST_NAME, INSTITUTION, "Quarkhausen", "PID554433", "OPID665544", "19560317", "1956-03-17",
        "931 7788990", "ACC778899", "Hausarztinger", "Oberarztinger", "Technikerinsky", "STUDY334455",
        "QUARKPET1"]  # fmt: skip


def identified(source, folder):
    """A copy of a patient's DICOM as a hospital exports it: the name in the headers, in folders and in file names."""
    for number, path in enumerate(sorted(source.rglob("*"))):
        if not path.is_file() or path.suffix == ".md":
            continue
        dataset = pydicom.dcmread(path)
        for keyword, value in IDENTITY.items():
            setattr(dataset, keyword, value)
        target = folder / f"{NAME}_{FIRST_NAME}" / path.parent.parent.name / f"{NAME}-{number:04d}.dcm"
        target.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(target)
        if dataset.Modality == "RTSTRUCT":
            outline = target
    # The sheet names the outline by a path that the user has chosen.
    return shutil.copy(outline, folder / "outline")


@pytest.fixture(scope="module")
def run(make_run, repository_cases):
    """One patient who is complete, one whose first PET slice is cut off, one in units that are no SUV."""
    run = make_run("privacy")
    source = next(row for row in repository_cases if row["patient"] == "STS_002")["dicom"]
    rows = []
    for name in ("whole", "cut", "unitless"):
        folder = run.folder / "exports" / name
        outline = identified(source, folder)
        pet = sorted((folder / f"{NAME}_{FIRST_NAME}" / "PET").iterdir())
        if name == "cut":
            pet[0].write_bytes(pet[0].read_bytes()[:-5000])
        if name == "unitless":
            for path in pet:
                dataset = pydicom.dcmread(path)
                dataset.SeriesDescription = f"SUV {NAME}"
                if dataset.Modality == "PT":
                    dataset.Units = "PROPCPS"
                dataset.save_as(path)
        rows.append({"patient": name, "scan": "fdg", "tracer": "FDG", "timepoint": "baseline", "dicom": folder,
                     "lesions": outline})  # fmt: skip
    run.write(rows, cohort={"incomplete": "skip"}, bids=True)
    first = run.snakemake()
    assert first.returncode != 0
    second = run.snakemake()
    assert run.results("cohort", "report.html").exists(), second.stdout
    return run, first.stdout + second.stdout


def test_the_headers_do_tell_who_the_patient_is(run):
    """Otherwise the search below would find nothing because there is nothing."""
    exports = b"".join(path.read_bytes()[:20000] for path in (run[0].folder / "exports").rglob("*.dcm"))
    for word in TOLD:
        assert word == "1956-03-17" or word.encode() in exports


def files_of(folder, *parts):
    """All files of these parts of a working directory, DICOM objects aside: those keep the identity by design."""
    files = [path for part in parts for path in (folder / part).rglob("*") if path.is_file()]
    return [path for path in files if not (path.suffix == ".dcm" and path.parent.name == "dicom")]


def test_no_file_of_the_run_does(run):
    folder = run[0].folder
    files = files_of(folder, "results", ".snakemake")
    suffixes = {path.suffix for path in files}
    assert {".html", ".parquet", ".json", ".gz", ".svg", ".pdf", ".tsv", ".log", ".failure"} <= suffixes
    assert any("bids" in path.parts for path in files) and any("runs" in path.parts for path in files)
    found = []
    for path in files:
        parts = [part.lower() for part in contents(path.read_bytes())]
        found += [
            (str(path.relative_to(folder)), word)
            for word in TOLD
            if any(word.lower().encode() in part for part in parts) or word.lower() in path.name.lower()
        ]
    assert found == []


def test_the_bids_dataset_tells_no_date_and_no_uid_either(run):
    """It is made to be given away; the run's own sidecars name their series and its time, so that they can be found."""
    folder = run[0].folder
    headers = [pydicom.dcmread(path) for path in (folder / "exports" / "whole").rglob("*.dcm")]
    uids = {str(header[tag].value) for header in headers for tag in ("StudyInstanceUID", "SeriesInstanceUID")}
    dates = {str(header[tag].value) for header in headers for tag in ("StudyDate", "SeriesDate")}
    words = {*uids, *dates, *(f"{date[:4]}-{date[4:6]}-{date[6:]}" for date in dates)}
    assert len(words) >= 4
    sidecars = b"".join(path.read_bytes() for path in files_of(folder, "results/whole/scans"))
    assert any(word.encode() in sidecars for word in words)
    for path in files_of(folder, "results/bids"):
        parts = list(contents(path.read_bytes()))
        assert not [word for word in words if any(word.encode() in part for part in parts)], path


def test_what_the_user_reads_on_the_screen_does_not(run):
    assert [word for word in TOLD if word.lower() in run[1].lower()] == []


def test_the_failures_still_say_what_and_where(run):
    failures = "".join(path.read_text() for path in run[0].results("logs").rglob("*.failure"))
    assert "exports/cut" in failures and "truncated" in failures
    assert "exports/unitless" in failures and "PROPCPS" in failures
