"""From and to a real PACS: Orthanc holds a PET/CT, gives it, and takes results."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from pacs_studies import ACCESSION, IDENTITY, NAME, PATIENT_ID, datasets, write_study
from pydicom import dcmread

import theraflow
from orthanc import orthanc
from services import free_port
from theraflow.__main__ import main
from theraflow.errors import TheraflowError
from theraflow.pacs.association import echo
from theraflow.pacs.connection import Connection
from theraflow.pacs.query import find_studies
from theraflow.pacs.send import find_objects, not_listed, send

pytestmark = pytest.mark.orthanc
OTHER = "ZV-990017"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"), slices=40)


@pytest.fixture(scope="module")
def pacs(debian_program, tmp_path_factory, study) -> Iterator[Connection]:
    """Orthanc with the study of one patient and the PET of another."""
    other = write_study(tmp_path_factory.mktemp("other"), OTHER, slices=3)
    with orthanc(debian_program("Orthanc"), tmp_path_factory.mktemp("orthanc")) as connection:
        assert {one.outcome for one in send(connection, find_objects([study, other / "PET"])[0])} == {"stored"}
        yield connection


@pytest.fixture
def written(pacs, tmp_path) -> Path:
    """The connection as a file, for C-GET."""
    return write_connection(pacs, tmp_path)


def write_connection(pacs: Connection, folder: Path) -> Path:
    keys = ("host", "port", "called_ae_title", "calling_ae_title", "retrieve", "listen_port")
    path = folder / "pacs.yaml"
    path.write_text(yaml.safe_dump({key: getattr(pacs, key) for key in keys}))
    return path


def write_sheet(folder: Path, **row: str) -> Path:
    path = folder / "fetch.tsv"
    row = {"patient": "P001"} | row
    path.write_text("\t".join(row) + "\n" + "\t".join(row.values()) + "\n")
    return path


def series_below(folder: Path) -> set[Path]:
    return {path.parent for path in folder.rglob("*.dcm")}


def test_echo(written, capsys):
    assert main(["pacs", "echo", "--pacs", str(written)]) == 0
    assert capsys.readouterr().out.endswith("answers.\n")


def test_wrong_ae_titles(pacs):
    with pytest.raises(TheraflowError, match="rejects the association: Called AE title not recognised; check both AE"):
        echo(replace(pacs, called_ae_title="ELSEWHERE"))
    with pytest.raises(TheraflowError, match=r"called by STRANGER\) .* administrator"):
        find_studies(replace(pacs, calling_ae_title="STRANGER"), {"PatientID": PATIENT_ID})


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        (["--patient-id", PATIENT_ID], [PATIENT_ID]),
        (["--patient-id", "?V-99*"], [OTHER]),
        (["--accession-number", ACCESSION], [PATIENT_ID, OTHER]),
        (["--from", "2023-05-01", "--to", "2023-05-01", "--modality", "PT", "NM"], [PATIENT_ID, OTHER]),
        (["--from", "2023-05-01", "--modality", "SEG"], [PATIENT_ID]),
        (["--to", "2023-04-30"], []),
        (["--patient-id", "NOBODY"], []),
    ],
)
def test_find(written, capsys, keys, found):
    assert main(["pacs", "find", "--pacs", str(written), *keys]) == (0 if found else 1)
    printed = capsys.readouterr()
    rows = list(csv.DictReader(printed.out.splitlines(), delimiter="\t"))
    assert [row["patient_id"] for row in rows] == found
    assert not found or (rows[0]["patient_name"], rows[0]["accession_number"]) == (NAME, ACCESSION)
    assert printed.err == ("" if found else "theraflow pacs: The PACS has no study that matches.\n")


def test_what_is_found_is_what_was_sent(pacs, study):
    (row,) = find_studies(pacs, {"PatientID": PATIENT_ID})
    first = dcmread(study / "PET" / "0001.dcm")
    assert row["study_instance_uid"] == first.StudyInstanceUID
    assert row["study_description"] == "[18F]FDG PET/CT"
    assert (set(row["modalities"].split(", ")), row["instances"]) == ({"CT", "PT", "SEG"}, "46")


@pytest.mark.parametrize("retrieve", ["get", "move"])
def test_fetched_is_what_was_sent(pacs, study, tmp_path, capsys, caplog, retrieve):
    connection = write_connection(replace(pacs, retrieve=retrieve), tmp_path)
    sheet, dicom = write_sheet(tmp_path, patient_id=PATIENT_ID), tmp_path / "dicom"
    command = ["pacs", "fetch", "--pacs", str(connection), str(sheet), "--output", str(dicom)]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.out.count("fetched\n") == 3
    came, sent = datasets(dicom), datasets(study)
    assert came == sent  # every element, and the pixels bit by bit
    for uid, dataset in came.items():
        assert dataset.file_meta.TransferSyntaxUID == sent[uid].file_meta.TransferSyntaxUID
        assert dataset.PixelData == sent[uid].PixelData
        assert Path(dataset.filename).relative_to(dicom).parts == (
            "P001", dataset.StudyInstanceUID, dataset.SeriesInstanceUID, f"{uid}.dcm",
        )  # fmt: skip
    before = {path: path.stat().st_mtime_ns for path in dicom.rglob("*")}
    assert main(command) == 0
    again = capsys.readouterr()
    assert again.out.count("are there already\n") == 3
    assert {path: path.stat().st_mtime_ns for path in dicom.rglob("*")} == before
    for word in IDENTITY:
        assert word not in (printed.out + printed.err + again.out + again.err + caplog.text).lower()


def test_the_index_drafts_the_sheet_of_what_was_fetched(written, tmp_path):
    sheet, dicom = write_sheet(tmp_path, accession_number=ACCESSION, patient_id=PATIENT_ID), tmp_path / "dicom"
    assert main(["pacs", "fetch", "--pacs", str(written), str(sheet), "--output", str(dicom)]) == 0
    assert main(["index", str(dicom), "--output", str(tmp_path)]) == 0
    (scan,) = csv.DictReader((tmp_path / "scans.tsv").read_text().splitlines(), delimiter="\t")
    assert (scan["patient"], scan["tracer"], scan["timepoint"]) == ("P001", "FDG", "baseline")
    assert Path(scan["dicom"]).parts[:2] == ("dicom", "P001")
    assert scan["lesions"].endswith(".dcm")


def test_only_the_modalities_of_the_sheet(written, tmp_path):
    sheet, dicom = write_sheet(tmp_path, patient_id=PATIENT_ID, modalities="CT"), tmp_path / "dicom"
    assert main(["pacs", "fetch", "--pacs", str(written), str(sheet), "--output", str(dicom)]) == 0
    assert {dataset.Modality for dataset in datasets(dicom).values()} == {"CT"}


def test_an_unknown_patient(written, tmp_path, capsys):
    sheet = write_sheet(tmp_path, patient_id="NOBODY")
    assert main(["pacs", "fetch", "--pacs", str(written), str(sheet), "--output", str(tmp_path / "dicom")]) == 1
    assert "patient 'P001' by PatientID: the PACS has no such study" in capsys.readouterr().err


def killed_at_work(arguments: list[str], folder: Path) -> bool:
    """Run theraflow until three instances lie in a folder, then SIGKILL it; False where it was done before."""
    environment = os.environ | {"PYTHONPATH": str(Path(theraflow.__file__).parents[1])}
    command = [sys.executable, "-P", "-m", "theraflow", *arguments]
    running = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while running.poll() is None and time.monotonic() < until and len(list(folder.glob("*"))) < 3:
        time.sleep(0.005)
    running.kill()
    return running.wait() == -signal.SIGKILL and folder.is_dir()


def test_a_run_that_is_killed_is_taken_up_again(written, study, tmp_path):
    """What is in place is whole; the next run fetches what is not."""
    sheet, dicom = write_sheet(tmp_path, patient_id=PATIENT_ID), tmp_path / "dicom"
    arguments = ["pacs", "fetch", "--pacs", str(written), str(sheet), "--output", str(dicom)]
    pet = tmp_path / ".dicom.incoming" / dcmread(study / "PET" / "0001.dcm").SeriesInstanceUID
    for _ in range(5):
        if killed_at_work(arguments, pet):
            break
        shutil.rmtree(dicom)
    assert 3 <= len(list(pet.iterdir())) <= 40
    assert {len(list(folder.iterdir())) for folder in series_below(dicom)} <= {1, 5}  # CT and SEG, if first; no PET
    assert main(arguments) == 0
    assert datasets(dicom) == datasets(study)
    assert not pet.parent.exists()


def test_the_archive_lists_what_it_was_sent(pacs, study, written, capsys):
    objects, _ = find_objects([study / "SEG"])
    assert not_listed(pacs, objects) == []
    assert not_listed(pacs, [replace(objects[0], uid="1.2.3")]) == [replace(objects[0], uid="1.2.3")]
    assert main(["pacs", "send", "--pacs", str(written), str(study / "SEG")]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith(f"(Segmentation Storage, {objects[0].uid}): stored")


def test_c_move_needs_a_port_that_is_free_and_known(pacs, tmp_path, capsys):
    sheet = write_sheet(tmp_path, patient_id=PATIENT_ID, modalities="SEG")
    for port, sentence in (
        (pacs.port, f"Port {pacs.port} cannot be listened at"),
        (unknown := free_port(), f"it has to know THERAFLOW at this computer's port {unknown}"),
    ):
        connection = write_connection(replace(pacs, retrieve="move", listen_port=port), tmp_path)
        command = ["pacs", "fetch", "--pacs", str(connection), str(sheet), "--output", str(tmp_path / "dicom")]
        assert main(command) == 1
        assert sentence in capsys.readouterr().err
        assert not series_below(tmp_path)
