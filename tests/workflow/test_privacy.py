"""Nothing that tells who the patient is leaves the DICOM headers: every file of a run is searched for it."""

import gzip
import shutil

import pydicom
import pytest

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
TOLD = [NAME, FIRST_NAME, INSTITUTION, "Quarkhausen", "PID554433", "OPID665544", "19560317", "1956-03-17", "7788990",
        "ACC778899", "Hausarztinger", "Oberarztinger", "Technikerinsky", "STUDY334455", "QUARKPET1"]  # fmt: skip


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
    run.write(rows, cohort={"incomplete": "skip"})
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


def test_no_file_of_the_run_does(run):
    folder = run[0].folder
    files = [path for part in ("results", ".snakemake/log") for path in (folder / part).rglob("*") if path.is_file()]
    assert len(files) > 30
    found = []
    for path in files:
        content = path.read_bytes()
        content = (gzip.decompress(content) if path.suffix == ".gz" else content).lower()
        found += [(str(path.relative_to(folder)), word) for word in TOLD if word.lower().encode() in content]
        found += [(path.name, word) for word in TOLD if word.lower() in path.name.lower()]
    assert found == []


def test_what_the_user_reads_on_the_screen_does_not(run):
    assert [word for word in TOLD if word.lower() in run[1].lower()] == []


def test_the_failures_still_say_what_and_where(run):
    failures = "".join(path.read_text() for path in run[0].results("logs").rglob("*.failure"))
    assert "exports/cut" in failures and "truncated" in failures
    assert "exports/unitless" in failures and "PROPCPS" in failures
