"""Every way to write a file: where the process is killed in the middle, nothing bears the final name."""

import errno
import fcntl
import multiprocessing
import os
import platform
import resource
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from matplotlib.figure import Figure
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from theraflow.cohort.documents import Document, write_documents
from theraflow.cohort.figures import write_drawings
from theraflow.cohort.figures.drawing import Drawing
from theraflow.errors import TheraflowError
from theraflow.exchange.parquet import write_parquet
from theraflow.files import temporary_folder, temporary_room, whole, whole_folder, write_json, write_tsv, writing
from theraflow.nifti import Grid, write_nifti
from theraflow.registration.transforms import write_transform
from theraflow.report.paper import Frontispiece, paragraph, write_document
from theraflow.tables import write_table

NOISE = np.random.default_rng(5)
TABLE = pd.DataFrame(NOISE.normal(size=(3000, 4)), columns=list("abcd"))
GRID = Grid((40, 40, 40), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))


def volume(path: Path) -> None:
    write_nifti(NOISE.normal(size=(40, 40, 40)), GRID, np.float32, path)


def deformation(path: Path) -> None:
    field = sitk.GetImageFromArray(NOISE.normal(size=(20, 20, 20, 3)), isVector=True)
    write_transform(sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64)), path)


def parquet(path: Path) -> None:
    source = path.parent.parent / "source.tsv"
    source.write_text("cell\n" + "\n".join(map(str, NOISE.integers(10**9, size=5000))) + "\n")
    write_parquet(source, path, {})


def document(path: Path) -> None:
    words = [paragraph(" ".join(map(str, NOISE.integers(10**9, size=100)))) for _ in range(50)]
    write_document(words, Frontispiece("Noise", "theraflow", "made up"), path)


def figures(folder: Path) -> None:
    figure = Figure()
    figure.add_subplot().plot(NOISE.normal(size=5000))
    write_drawings([Drawing("noise", figure)], folder)


def objects(folder: Path) -> None:
    """A folder of DICOM objects, as the stage `objects` writes it: each without a temporary name of its own."""
    with whole_folder(folder) as place:
        for number in range(3):
            content = Dataset()
            content.SOPClassUID, content.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.66", f"1.2.{number}"
            content.PixelData, content["PixelData"].VR = NOISE.bytes(20000), "OB"
            content.file_meta = FileMetaDataset()
            content.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            content.save_as(place / f"{number}.dcm", enforce_file_format=True)


WRITERS = {
    "text.json": lambda path: write_json(list(range(20000)), path),
    "small.tsv": lambda path: write_tsv(TABLE.to_dict("records"), path, list("abcd")),
    "table.tsv": lambda path: write_table(TABLE, path, list("abcd")),
    "image.nii.gz": volume,
    "image.nii": volume,
    "way.h5": deformation,
    "table.xlsx": lambda path: write_documents([Document("table_1", "Noise", TABLE.astype(str))], path),
    "table.parquet": parquet,
    "report.pdf": document,
    "figures": figures,
    "dicom": objects,
}  # fmt: skip
FULL = (errno.ENOSPC, errno.EDQUOT)


def outcome(work: Callable[[], None], at_most: int | None = None) -> int | None:
    """How a process ends that works, and which the kernel kills when a file of it grows larger than `at_most` bytes."""

    def child() -> None:
        if at_most is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python would go on
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (at_most, at_most))
        work()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("at_most", [0, 5000])
def test_a_writer_killed_in_the_middle_leaves_nothing_that_looks_whole(name, at_most, tmp_path):
    final = tmp_path / "made" / name
    assert outcome(lambda: WRITERS[name](final), at_most) == -signal.SIGXFSZ
    assert not final.exists()
    assert all(path.name.startswith(".") for path in final.parent.glob(f"*{name}"))
    assert outcome(lambda: WRITERS[name](final)) == 0
    assert final.exists()
    assert not [path for path in final.parent.rglob("*") if path.name.startswith(".")]  # nor what the killed one left


def test_a_killed_writer_leaves_the_former_file(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("as it was\n")
    assert outcome(lambda: write_table(TABLE, path, list("abcd")), 5000) == -signal.SIGXFSZ
    assert path.read_text() == "as it was\n"


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "figures"
    for names in (("a", "b"), ("b", "c")):
        with whole_folder(folder) as place:
            for name in names:
                (place / name).write_text(name)
    assert sorted(path.name for path in folder.iterdir()) == ["b", "c"]
    with pytest.raises(RuntimeError), whole_folder(folder) as place:
        (place / "d").write_text("half")
        raise RuntimeError
    assert sorted(path.name for path in folder.iterdir()) == ["b", "c"]
    assert list(tmp_path.iterdir()) == [folder]


def test_what_another_file_is_being_written_as_is_left_alone(tmp_path):
    with whole(tmp_path / "fdg.ct.json") as other:
        other.write_text("at work")
        write_json(1, tmp_path / "ct.json")
        assert other.read_text() == "at work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct.json", "fdg.ct.json"]


def test_what_a_live_process_is_writing_under_the_same_name_is_left_alone(tmp_path):
    """The twin of a job that was submitted again."""
    path = tmp_path / "ct.json"
    with whole(path) as first:
        first.write_text("1")
        assert outcome(lambda: write_json(2, path)) == 0
        assert (first.read_text(), path.read_text()) == ("1", "2\n")
    assert path.read_text() == "1"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("machine", ["node7", "node7.cluster.example.org"])
def test_what_another_machine_is_writing_is_left_alone_for_a_day(machine, tmp_path, monkeypatch):
    path = tmp_path / "ct.json"

    def killed() -> None:
        monkeypatch.setattr(platform, "node", lambda: machine)  # in the child only
        with whole(path) as temporary:
            temporary.write_text("1")
            os.kill(os.getpid(), signal.SIGKILL)

    assert outcome(killed) == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    write_json(2, path)
    assert {*tmp_path.iterdir()} == {left, path}
    yesterday = time.time() - 25 * 3600
    os.utime(left, (yesterday, yesterday))
    write_json(3, path)
    assert {*tmp_path.iterdir()} == {path}


@pytest.mark.parametrize("number", FULL)
def test_a_full_disk_is_told_with_the_file(number, tmp_path):
    path = tmp_path / "ct.nii.gz"
    with (
        pytest.raises(TheraflowError, match=rf"The disk is full: {path} could not be written\. Make room"),
        whole(path),
    ):
        raise OSError(number, os.strerror(number))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_behind_a_librarys_own_error_is_told(tmp_path):
    """matplotlib raises an AttributeError while it tidies up, xlsxwriter an error of its own."""
    with pytest.raises(TheraflowError, match="The disk is full"), whole(tmp_path / "a.pdf"):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise AttributeError("'Stream' object has no attribute 'pos'")  # noqa: B904 - as matplotlib does


def test_an_error_that_leads_to_itself_is_told(tmp_path):
    """isal raises what a thread of its has met, and again when the file is closed."""
    full = OSError(errno.ENOSPC, "No space left on device")
    full.__context__ = RuntimeError()
    full.__context__.__context__ = full
    with pytest.raises(TheraflowError, match="The disk is full"), whole(tmp_path / "ct.nii.gz"):
        raise full


def test_of_a_folder_the_final_name_is_told(tmp_path):
    with pytest.raises(TheraflowError) as told, whole_folder(tmp_path / "bids") as place, whole(place / "README.md"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert f"{tmp_path / 'bids'} could not be written" in str(told.value)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_folder_in_which_nothing_may_be_written_is_told(number, tmp_path):
    path = tmp_path / "ct.nii.gz"
    with pytest.raises(TheraflowError, match=rf"{path} may not be written: give yourself the right"), writing(path):
        raise OSError(number, os.strerror(number), str(path))


def test_an_input_that_may_not_be_read_is_no_output_that_may_not_be_written(tmp_path):
    with pytest.raises(PermissionError), writing(tmp_path / "results" / "ct.nii.gz"):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "dicom" / "0001.dcm"))


def test_other_errors_pass_as_they_are(tmp_path):
    with pytest.raises(ZeroDivisionError), whole(tmp_path / "a.tsv"):
        raise ZeroDivisionError


def test_a_full_folder_of_temporary_files_is_told_as_such(tmp_path):
    with pytest.raises(TheraflowError, match=r"temporary files.*TMPDIR"), temporary_room(), whole(tmp_path / "ct.nii"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_what_a_killed_process_left_among_temporary_files_goes_with_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    monkeypatch.setattr(platform, "node", lambda: "node7.example.org")

    def killed() -> None:
        with temporary_folder("organs_") as folder:
            (folder / "ct.nii").write_bytes(b"0" * 1000)
            os.kill(os.getpid(), signal.SIGKILL)

    assert outcome(killed) == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    prefix = "organs_node7-example-org"
    assert left.name.startswith(f"{prefix}_")
    in_use, young = tmp_path / f"{prefix}_in_use", tmp_path / f"{prefix}_young"
    # Of other machines, whose locks may not be seen here.
    others = [tmp_path / f"{prefix}2_a", tmp_path / "organs_node8_a", tmp_path / "organs_a"]
    for folder in (in_use, young, *others):
        folder.mkdir()
    for old in (left, in_use, *others):
        os.utime(old, (0, 0))
    held = os.open(in_use, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with temporary_folder("organs_") as own:
        assert {*tmp_path.iterdir()} == {own, in_use, young, *others}
    os.close(held)
    assert {*tmp_path.iterdir()} == {in_use, young, *others}
