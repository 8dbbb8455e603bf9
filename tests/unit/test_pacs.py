"""From and to a PACS that fails in every way: nothing half looks whole, and each failure has its sentence."""

import errno
import logging
import re
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from pacs_studies import IDENTITY, PATIENT_ID, Pacs, datasets, write_study
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AllStoragePresentationContexts
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from services import free_port
from theraflow.__main__ import main
from theraflow.errors import TheraflowError
from theraflow.pacs.association import echo, meaning
from theraflow.pacs.connection import Connection, read_connection
from theraflow.pacs.fetch import Request, fetch, plan, read_requests
from theraflow.pacs.query import find_studies
from theraflow.pacs.retrieve import Reception
from theraflow.pacs.send import find_objects, not_listed, send

ROW = [Request("P001", {"PatientID": PATIENT_ID}, ("PT",))]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def pet(study) -> list[Dataset]:
    """The slices of the PET, read anew."""
    return [dcmread(path) for path in sorted((study / "PET").iterdir())]


def fetched(pacs: Pacs, folder: Path, requests=ROW, timeout_s: float = 60.0):
    """Fetch from a false PACS: what became of the series, and what the plan could not find."""
    with pacs.running(timeout_s) as connection:
        wanted, problems = plan(connection, requests)
        return list(fetch(connection, wanted, folder / "dicom")), problems


def left(folder: Path) -> list[Path]:
    """Files below a folder, hidden ones too."""
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_series_comes_whole_and_once(tmp_path, pet):
    pacs = Pacs(pet)
    ((one,), problems) = fetched(pacs, tmp_path)
    assert (one.problem, one.new, one.instances, problems) == (None, True, 12, [])
    assert datasets(tmp_path) == {dataset.SOPInstanceUID: dataset for dataset in pet}
    assert {path.relative_to(tmp_path).parts[:2] for path in left(tmp_path)} == {("dicom", "P001")}

    def refuse(event):
        raise AssertionError("it is there")

    ((again,), _) = fetched(Pacs(pet, on_get=refuse), tmp_path)
    assert (again.problem, again.new) == (None, False)


@pytest.mark.parametrize("tells_classes", [True, False])
def test_sop_classes_are_asked_for_else_known_by_modality(tmp_path, pet, tells_classes):
    ((one,), _) = fetched(Pacs(pet, tells_classes=tells_classes), tmp_path)
    assert (one.problem, len(left(tmp_path))) == (None, 12)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"given": 7}, "Of 12 instances that the PACS ARCHIVE .* lists, 7 came"),
        ({"given": 0, "get_status": 0xA702}, r"0 came \(C-GET: Failure: Refused: Out of resources.*0xA702\)"),
        ({"counted": 13}, "counts 13 instances but lists 12; it may still be receiving"),
    ],
)
def test_a_series_that_is_not_whole_leaves_nothing(tmp_path, pet, changes, sentence):
    if "given" in changes:
        changes = changes | {"given": pet[: changes["given"]]}
    found, problems = fetched(Pacs(pet, **changes), tmp_path)
    assert not problems
    (one,) = found
    assert re.search(sentence, one.problem)
    assert not left(tmp_path)
    ((again,), _) = fetched(Pacs(pet), tmp_path)
    assert again.problem is None


def test_a_series_that_grew_in_the_archive_is_not_mixed(tmp_path, pet):
    fetched(Pacs(pet[:9]), tmp_path)
    ((one,), _) = fetched(Pacs(pet), tmp_path)
    assert "holds 9 instances, but the PACS now lists 12" in one.problem
    assert len(left(tmp_path)) == 9


def test_what_a_killed_run_has_left_is_not_used(tmp_path, pet):
    waiting = tmp_path / ".dicom.incoming" / pet[0].SeriesInstanceUID
    waiting.mkdir(parents=True)
    (waiting / "1.2.3.dcm").write_bytes(b"half")
    ((one,), _) = fetched(Pacs(pet), tmp_path)
    assert one.problem is None
    assert len(left(tmp_path)) == 12


def changed(dataset: Dataset, **values: str) -> Dataset:
    for keyword, one in values.items():
        setattr(dataset, keyword, one)
    return dataset


def test_another_patients_image_in_the_series_is_refused(tmp_path, study, pet):
    other = changed(dcmread(next(iter(sorted((study / "PET").iterdir())))), PatientID="SOMEBODY-ELSE")
    ((one,), _) = fetched(Pacs(pet, given=[other, *pet[1:]]), tmp_path)
    assert "another PatientID" in one.problem
    assert not left(tmp_path)
    # Where the sheet claims no PatientID, the study is what was asked for.
    by_study = [Request("P001", {"StudyInstanceUID": pet[0].StudyInstanceUID}, ("PT",))]
    ((one,), _) = fetched(Pacs(pet, given=[other, *pet[1:]]), tmp_path, by_study)
    assert one.problem is None


def test_instances_of_another_series_are_refused(tmp_path, study, pet):
    other = changed(dcmread(next(iter(sorted((study / "PET").iterdir())))), SeriesInstanceUID="1.2.3")
    ((one,), _) = fetched(Pacs(pet, given=[other, *pet[1:]]), tmp_path)
    assert "not the series that was asked for" in one.problem
    assert not left(tmp_path)


def test_a_truncated_instance_is_refused(tmp_path, study, pet):
    other = dcmread(next(iter(sorted((study / "PET").iterdir()))))
    other.PixelData = other.PixelData[:-10]
    other.Rows += 1
    del other.PixelData
    ((one,), _) = fetched(Pacs(pet, given=[other, *pet[1:]]), tmp_path)
    assert re.search(r"1 of 12 instances came damaged: \S+\.dcm is truncated", one.problem)
    assert not left(tmp_path)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(errno.ENOSPC, "There is no room left in .*--output"), (errno.EACCES, "cannot be written .*--output")],
)
def test_a_full_disk_ends_the_transfer(tmp_path, pet, monkeypatch, number, sentence):
    write = Path.write_bytes

    def full(path, content):
        if len(left(tmp_path)) == 3:
            raise OSError(number, "told by the test")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    ((one,), _) = fetched(Pacs(pet), tmp_path)
    assert re.search(sentence, one.problem)
    assert not left(tmp_path)


def test_what_was_not_asked_for_is_not_written(tmp_path):
    class Request:
        AffectedSOPInstanceUID = "../../etc/passwd"

    class Event:
        request = Request

    reception = Reception(tmp_path, frozenset({"1.2.3"}))
    assert reception(Event) == 0x0124
    assert not left(tmp_path)


def test_a_pacs_that_is_aborted_or_silent(tmp_path, pet):
    ((one,), _) = fetched(Pacs(pet, on_get=lambda event: event.assoc.abort()), tmp_path)
    assert re.search("broke off the association during C-GET", one.problem)
    silent = Pacs(pet, on_get=lambda event: silent.end.wait(60))
    ((one,), _) = fetched(silent, tmp_path, timeout_s=10)
    assert re.search("silent for 10 s during C-GET.*timeout_s", one.problem)
    assert not left(tmp_path)


def test_a_pacs_without_c_get(tmp_path, pet):
    ((one,), _) = fetched(Pacs(pet, services=(StudyRootQueryRetrieveInformationModelFind,)), tmp_path)
    assert "gives no C-GET; set retrieve: move" in one.problem


def test_c_find_that_fails_says_with_what(pet):
    def wrong(event):
        raise RuntimeError("told by the test")

    with Pacs(pet, on_find=wrong).running() as connection:
        with pytest.raises(TheraflowError, match=r"C-FIND at level STUDY with Failure: Unable to Process \(0xC311\)"):
            find_studies(connection, {"PatientID": "1"})
        with pytest.raises(TheraflowError, match="whole archive"):
            find_studies(connection, {"PatientID": ""})


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_uid_that_is_a_path_is_refused(pet):
    pacs = Pacs([changed(pet[0], SeriesInstanceUID="..")])
    with pacs.running() as connection, pytest.raises(TheraflowError, match="SeriesInstanceUID that is no UID"):
        plan(connection, ROW)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("uid", ["", ".."])
def test_a_study_without_a_uid_does_not_ask_for_the_whole_archive(pet, uid):
    pacs = Pacs([changed(pet[0], StudyInstanceUID=uid)])
    with pacs.running() as connection, pytest.raises(TheraflowError, match="StudyInstanceUID that is no UID"):
        plan(connection, ROW)


def test_studies_are_found_by_modality_and_date_as_people_write_them(tmp_path, pet, capsys):
    with Pacs(pet).running() as connection:
        find = ["pacs", "find", "--pacs", str(write_connection(tmp_path, connection)), "--patient-id", PATIENT_ID]
        for one in pet:
            one.ModalitiesInStudy = "PT"
        assert main([*find, "--modality", "pt"]) == 0
        assert PATIENT_ID in capsys.readouterr().out
        with pytest.raises(SystemExit):
            main([*find, "--from", "2023-02-30"])
        assert "a date is written YYYY-MM-DD" in capsys.readouterr().err


def test_a_key_of_several_people_fetches_nobody(tmp_path, pet):
    other = changed(pet[1], StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.4", PatientBirthDate="19620415")
    results, (problem,) = fetched(Pacs([pet[0], other]), tmp_path)
    assert not results
    assert "patient 'P001' by PatientID: the PACS holds studies of several people" in problem
    assert "PatientBirthDate" in problem


def test_a_pacs_that_ignores_keys_cannot_mix_patients(tmp_path, pet):
    other = changed(pet[1], StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.4", PatientID="ELSE")
    (one, *more), _ = fetched(Pacs([pet[0], other]), tmp_path)
    assert not more
    assert one.wanted.series.study_uid == pet[0].StudyInstanceUID


def test_nothing_found(tmp_path, pet):
    rows = [
        Request("P002", {"PatientID": "NOBODY"}, ("PT",)),
        Request("P001", {"PatientID": PATIENT_ID}, ("NM",)),
    ]
    results, problems = fetched(Pacs(pet), tmp_path, rows)
    assert not results
    assert problems == [
        "patient 'P002' by PatientID: the PACS has no such study; correct the sheet.",
        "patient 'P001' by PatientID: the PACS has no series of NM in them; correct the sheet.",
    ]


@pytest.mark.parametrize("modality", ["PT", "CT"])
def test_one_study_is_not_of_two_patients(tmp_path, study, modality):
    everything = list(datasets(study).values())
    rows = [*ROW, Request("P002", {"StudyInstanceUID": everything[0].StudyInstanceUID}, (modality,))]
    with pytest.raises(TheraflowError, match="as patient 'P001' and as 'P002'"):
        fetched(Pacs(everything), tmp_path, rows)


def test_the_pacs_cannot_be_reached():
    closed = Connection("127.0.0.1", free_port(), "PACS", "THERAFLOW", timeout_s=5)
    with pytest.raises(
        TheraflowError, match=rf"PACS PACS at 127.0.0.1:{closed.port} \(called by THERAFLOW\) cannot be"
    ):
        echo(closed)
    with pytest.raises(TheraflowError, match=r"no-such-host\.invalid:\d+ .* cannot be reached"):
        echo(replace(closed, host="no-such-host.invalid"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mute = replace(closed, port=silent.getsockname()[1], timeout_s=2)
        with pytest.raises(TheraflowError, match=r"does not answer as DICOM within 2 s"):
            echo(mute)
    with Pacs().running() as connection, pytest.raises(TheraflowError, match=r"offers none .*Verification SOP Class"):
        echo(connection)


def test_sending_tells_of_every_object(tmp_path, study, capsys, caplog):
    objects, others = find_objects([study])
    assert (len(objects), others) == (18, 0)
    refused = objects[3].uid

    def store(event):
        return {refused: 0xA700, objects[4].uid: 0xB000}.get(event.request.AffectedSOPInstanceUID, 0x0000)

    with Pacs(datasets(study).values(), store=store).running() as connection:
        written = write_connection(tmp_path, connection)
        assert main(["pacs", "send", "--pacs", str(written), str(study)]) == 1
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert sum(line.endswith(": stored") for line in lines) == 11
    # The CT is compressed, and this PACS takes it only as it is not.
    assert sum("not stored: No presentation context for 'CT Image Storage'" in line for line in lines) == 5
    (line,) = (line for line in lines if refused in line)
    assert line.endswith("not stored: Failure: Refused: Out of Resources (0xA700)")
    assert "stored; Warning: Coercion of Data Elements (0xB000)" in printed.out
    assert printed.err == "theraflow pacs: 6 of 18 objects were not stored; see above.\n"


def test_success_that_the_archive_does_not_list_is_no_success(tmp_path, study, pet, capsys):
    with Pacs(pet[1:]).running() as connection:
        assert not_listed(connection, find_objects([study / "PET"])[0])[0].uid == pet[0].SOPInstanceUID
        written = write_connection(tmp_path, connection)
        assert main(["pacs", "send", "--pacs", str(written), str(study / "PET")]) == 1
    assert f"does not list 1 of 12 objects, among them {pet[0].SOPInstanceUID}" in capsys.readouterr().err
    with Pacs(services=()).running() as connection:
        written = write_connection(tmp_path, connection)
        assert main(["pacs", "send", "--pacs", str(written), str(study / "PET")]) == 0
    assert "Whether the PACS lists them could not be asked" in capsys.readouterr().out


def test_an_aborted_association_ends_sending(study):
    objects, _ = find_objects([study])
    sentence = f"broke off the association during C-STORE of {objects[0].uid}"
    pacs = Pacs(store=lambda event: event.assoc.abort() or 0)
    with pacs.running() as connection, pytest.raises(TheraflowError, match=sentence):
        list(send(connection, objects))


def test_more_kinds_of_objects_than_one_association_can_propose(tmp_path):
    classes = [context.abstract_syntax for context in AllStoragePresentationContexts[:90]]
    for number, sop_class in enumerate(classes):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2", "1.2.3"
        dataset.save_as(tmp_path / str(number), enforce_file_format=True)
    pacs = Pacs()
    with pacs.running() as connection:
        assert all(one.stored for one in send(connection, find_objects([tmp_path])[0]))
    assert len(set(pacs.stored)) == 90
    assert len(pacs.contexts) == 2
    assert max(pacs.contexts) <= 128


def test_an_object_in_a_makers_own_transfer_syntax_does_not_stop_the_others(tmp_path, study):
    for path in sorted((study / "PET").iterdir())[:2]:
        shutil.copy(path, tmp_path)
    strange = dcmread(tmp_path / "0001.dcm")
    strange.file_meta.TransferSyntaxUID = "1.2.840.113619.5.9"
    strange.save_as(tmp_path / "0001.dcm", implicit_vr=False, little_endian=True)
    with Pacs().running() as connection:
        outcomes = {one.sent.path.name: one.outcome for one in send(connection, find_objects([tmp_path])[0])}
    assert outcomes["0002.dcm"] == "stored"
    assert outcomes["0001.dcm"].startswith("not stored: ")


def test_what_cannot_be_sent_is_said_before_anything_is(tmp_path, study):
    (tmp_path / "notes.txt").write_text("no DICOM")
    with pytest.raises(TheraflowError, match="No DICOM file lies in"):
        find_objects([tmp_path])
    with pytest.raises(TheraflowError, match="does not exist"):
        find_objects([tmp_path / "absent"])
    whole = next(iter((study / "PET").iterdir())).read_bytes()
    (tmp_path / "cut").write_bytes(whole[:400])
    with pytest.raises(TheraflowError, match=r"cut is broken DICOM: .*nothing was sent"):
        find_objects([tmp_path])


def test_nothing_but_the_table_that_was_asked_for_tells_who_it_is(tmp_path, study, capsys, caplog):
    caplog.set_level(logging.DEBUG)
    with Pacs(list(datasets(study).values())).running() as connection:
        written = write_connection(tmp_path, connection)
        sheet = tmp_path / "fetch.tsv"
        sheet.write_text(f"patient\tpatient_id\nP001\t{PATIENT_ID}\nP002\tALSO-{PATIENT_ID}\n")
        assert main(["pacs", "fetch", "--pacs", str(written), str(sheet), "--output", str(tmp_path / "dicom")]) == 1
        assert main(["pacs", "find", "--pacs", str(written), "--patient-id", f"{PATIENT_ID}*", "--modality", "PT"]) == 0
    printed = capsys.readouterr()
    assert "12 instances fetched" in printed.out
    assert "patient 'P002' by PatientID: the PACS has no such study" in printed.err
    fetching, _, table = printed.out.partition("patient_id\t")
    assert PATIENT_ID in table
    for word in IDENTITY:
        assert word not in (fetching + printed.err + caplog.text).lower()


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("patient\tpatient_id\nP001\t*\n", "wildcard or a backslash in a key of patient 'P001'"),
        ("patient\tpatient_id\nP001\tQF-778123\\ZV\n", "wildcard or a backslash"),
        ("patient\tpatient_id\nP001\tNA\n", "names no study of patient 'P001'"),
        ("patient\tpatient_id\n../P001\tQF-778123\n", "column 'patient'"),
        ("patient_id\nQF-778123\n", "lacks the column 'patient'"),
        ("patient\tpatient_id\n", "nothing to fetch"),
    ],
)
def test_a_sheet_that_asks_for_too_much_or_nothing(tmp_path, rows, sentence):
    (tmp_path / "fetch.tsv").write_text(rows)
    with pytest.raises(TheraflowError, match=re.escape(sentence)) as refused:
        read_requests(tmp_path / "fetch.tsv")
    assert "778123" not in str(refused.value)


def test_the_sheet(tmp_path):
    (tmp_path / "fetch.tsv").write_text(
        "patient\tpatient_id\taccession_number\tmodalities\tstudy_date\n"
        "P001\t0012\tNA\tpt, CT\t20230501\n"
        "P002\t\t4471\t\t\n"
    )  # fmt: skip
    first, second = read_requests(tmp_path / "fetch.tsv")
    assert (first.keys, first.modalities) == ({"PatientID": "0012"}, ("PT", "CT"))
    assert (second.keys, second.modalities) == ({"AccessionNumber": "4471"}, ("CT", "PT", "NM", "RTSTRUCT", "SEG"))


def write_connection(folder: Path, connection: Connection) -> Path:
    path = folder / "pacs.yaml"
    path.write_text(
        f"host: {connection.host}\nport: {connection.port}\ncalled_ae_title: {connection.called_ae_title}\n"
        f"calling_ae_title: {connection.calling_ae_title}\n"
    )
    return path


VALID = {"host": "pacs", "port": 104, "called_ae_title": "PACS", "calling_ae_title": "THERA FLOW"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"port": "104a"}, "key 'port'"),
        ({"called_ae_title": "SEVENTEEN LETTERS"}, "key 'called_ae_title'"),
        ({"called_ae_title": "A\\\\B"}, "key 'called_ae_title'"),
        ({"called_ae_title": ""}, "key 'called_ae_title'"),
        ({"password": "secret"}, "'password' was unexpected"),
        ({"retrieve": "move"}, "'listen_port' is a required property"),
        ({"timeout_s": 0}, "key 'timeout_s'"),
    ],
)
def test_a_connection_that_is_none(tmp_path, changes, sentence):
    path = tmp_path / "pacs.yaml"
    path.write_text("".join(f"{key}: {one}\n" for key, one in VALID.items()))
    assert read_connection(path) == Connection(**VALID)
    path.write_text("".join(f"{key}: {one}\n" for key, one in (VALID | changes).items()))
    with pytest.raises(TheraflowError, match=re.escape(sentence)):
        read_connection(path)
    with pytest.raises(TheraflowError, match="cannot be read as YAML"):
        read_connection(tmp_path / "absent.yaml")


def test_a_status_that_no_table_knows():
    assert meaning(0x1234, {}) == "Failure: unknown status (0x1234)"
    assert meaning(0x0124, {}) == "Failure: Refused: Not Authorised (0x0124)"
