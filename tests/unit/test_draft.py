"""`theraflow index`: what it drafts from a tree as hospitals export it."""

import copy
import csv
import datetime
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from jsonschema import Draft202012Validator
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

import theraflow.dicom.export.index
from dicom_series import ct, pet, spect, write, write_slices
from theraflow.__main__ import main
from theraflow.dicom.export.parse import read_file
from theraflow.draft.sheet import draft_sheets
from theraflow.errors import TheraflowError
from theraflow.sheets import read_scans

SCHEMAS = Path(__file__).resolve().parents[2] / "workflow" / "schemas"
SLICES = np.zeros((4, 4, 5))
# Who they are: none of this may be written. The last is what anonymisation leaves, and is not used either.
PEOPLE = {
    "one": ("Quillfeather^Ottoline", "QF-778123", "19510304"),
    "two": ("Zandvoort^Marijke", "ZV-990017", "19620415"),
    "three": ("ANON", "ANON54121", ""),
}
HOSPITAL, ACCESSION = "Saint Eustachius Infirmary", "ACC4471190"


def identify(dataset: Dataset, person: str, study: str, day: str) -> Dataset:
    """Make it of a person and of a study on a day, with all that identifies them."""
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = PEOPLE[person]
    dataset.InstitutionName, dataset.AccessionNumber = HOSPITAL, ACCESSION
    dataset.StudyInstanceUID = f"1.2.{list(PEOPLE).index(person) + 1}.{study}"
    dataset.FrameOfReferenceUID = f"{dataset.StudyInstanceUID}.9"
    dataset.StudyDate = dataset.AcquisitionDate = day
    if "AcquisitionTime" not in dataset:
        dataset.AcquisitionTime = "105500"
    return dataset


def series(dataset: Dataset, number: int, description: str) -> Dataset:
    """Make it that series of its study."""
    dataset.SeriesInstanceUID = f"{dataset.StudyInstanceUID}.{number}"
    dataset.SeriesDescription = description
    return dataset


def labelled(dataset: Dataset, nuclide: str, name: str | None, half_life_s: float) -> Dataset:
    """With this radiopharmaceutical in words."""
    item = dataset.RadiopharmaceuticalInformationSequence[0]
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "0", "99X", nuclide
    item.RadionuclideCodeSequence = Sequence([code])
    item.RadionuclideHalfLife = half_life_s
    if name:
        item.Radiopharmaceutical = name
    day = dataset.AcquisitionDate
    item.RadiopharmaceuticalStartDateTime = f"{day}100000"
    return dataset


def annotation(image: Dataset, number: int, refers: bool = True, names: tuple[str, ...] = ("tumour",)) -> Dataset:
    """A structure set without contours, of which only the header matters here."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.Modality = "RTSTRUCT"
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "StudyDate"):
        setattr(dataset, keyword, getattr(image, keyword))
    dataset.SeriesInstanceUID = f"{image.StudyInstanceUID}.{number}"
    frame, study, referenced = Dataset(), Dataset(), Dataset()
    frame.FrameOfReferenceUID = image.FrameOfReferenceUID
    if refers:
        referenced.SeriesInstanceUID = image.SeriesInstanceUID
        study.RTReferencedSeriesSequence = Sequence([referenced])
        frame.RTReferencedStudySequence = Sequence([study])
    dataset.ReferencedFrameOfReferenceSequence = Sequence([frame])
    rois = [Dataset() for _ in names]
    for roi, name in zip(rois, names, strict=True):
        roi.ROIName = name
    dataset.StructureSetROISequence = Sequence(rois)
    return dataset


def write_fdg(folder: Path, person: str, study: str, day: str, number: int = 1) -> Dataset:
    """A PET/CT with FDG: PET with and without attenuation correction, CT for it, thin CT of the chest, scout."""
    image = labelled(identify(pet(), person, study, day), "^18^Fluorine", "FDG", 6588.0)
    image.SeriesDate = day
    write_slices(series(image, number, "PET WB AC"), SLICES, folder / "a")
    kept = copy.deepcopy(image)
    image.CorrectedImage = ["DECY"]
    write_slices(series(image, number + 1, f"PET NAC {PEOPLE[person][0].partition('^')[0]}"), SLICES, folder / "b")
    low = identify(ct(), person, study, day)
    write_slices(series(low, number + 2, "CT low dose"), SLICES, folder / "c")
    chest = identify(ct(), person, study, day)
    write_slices(series(chest, number + 3, "CT chest"), SLICES[:3], folder / "d", spacing=1.0)
    scout = identify(ct(), person, study, day)
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_slices(series(scout, number + 4, "Topogram"), SLICES[:1], folder / "e")
    return kept


def write_spect(folder: Path, person: str, study: str, moment: datetime.datetime, injected: str | None) -> None:
    """A SPECT/CT with 177Lu."""
    image = identify(spect(SLICES), person, study, f"{moment:%Y%m%d}")
    image.AcquisitionTime = f"{moment:%H%M%S}"
    labelled(image, "Lu-177", "[177Lu]pentixather", 574300.0)
    item = image.RadiopharmaceuticalInformationSequence[0]
    del item.RadiopharmaceuticalStartDateTime
    if injected:
        item.RadiopharmaceuticalStartDateTime = injected
    write(series(image, 1, "SPECT"), folder / "s" / study)
    low = identify(ct(), person, study, f"{moment:%Y%m%d}")
    low.AcquisitionTime = f"{moment:%H%M%S}"
    write_slices(series(low, 2, "CT low dose"), SLICES, folder / "t" / study)


def write_tree(folder: Path) -> None:
    """Three patients: one with FDG, pentixafor, four SPECTs and a follow-up; two and three with one PET each."""
    kept = write_fdg(folder / "1", "one", "10", "20230501")
    write(annotation(kept, 90), folder / "1" / "rs")
    cxcr4 = labelled(identify(pet(), "one", "20", "20230503"), "68Ga", "Ga-68 Pentixafor", 4080.0)
    cxcr4.SeriesDate = "20230503"
    write_slices(series(cxcr4, 1, "PET"), SLICES, folder / "2" / "p")
    write_slices(series(identify(ct(), "one", "20", "20230503"), 2, "CT"), SLICES, folder / "2" / "c")
    start = datetime.datetime(2023, 6, 1, 10)
    for k, hours in enumerate((24, 48, 96, 168)):
        moment = start + datetime.timedelta(hours=hours)
        write_spect(folder / "3", "one", f"{30 + k}", moment, "20230601100000")
    write_fdg(folder / "4", "one", "40", "20230901")
    write_fdg(folder / "5", "two", "10", "20220901")
    other = labelled(identify(pet(), "three", "10", "20240901"), "68Ga", None, 4062.0)
    other.SeriesDate = "20240901"
    write_slices(series(other, 1, "PET Prostata"), SLICES, folder / "6")


def flatten(folder: Path, target: Path, seed: int) -> None:
    """All files into one folder under names that say nothing."""
    target.mkdir()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    random.Random(seed).shuffle(files)
    for number, path in enumerate(files):
        shutil.copy(path, target / f"IM{number:05d}")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    write_tree(folder)
    return folder


@pytest.fixture(scope="module")
def drafted(tree, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("work")
    assert main(["index", str(tree), "--output", str(output)]) == 0
    return output


def test_a_tree_becomes_a_sheet(drafted):
    found = [(r["patient"], r["scan"], r["tracer"], r["timepoint"], r["date"]) for r in rows(drafted / "scans.tsv")]
    assert found == [
        ("P001", "FDG_baseline", "FDG", "baseline", "2022-09-01"),
        ("P002", "FDG_baseline", "FDG", "baseline", "2023-05-01"),
        ("P002", "pentixafor_baseline", "pentixafor", "baseline", "2023-05-03"),
        ("P002", "pentixather_dosimetry_1", "pentixather", "dosimetry", "2023-06-02"),
        ("P002", "pentixather_dosimetry_2", "pentixather", "dosimetry", "2023-06-03"),
        ("P002", "pentixather_dosimetry_3", "pentixather", "dosimetry", "2023-06-05"),
        ("P002", "pentixather_dosimetry_4", "pentixather", "dosimetry", "2023-06-08"),
        ("P002", "FDG_followup", "FDG", "followup", "2023-09-01"),
        ("P003", "68Ga_baseline", "?", "baseline", "2024-09-01"),
    ]
    unknown = rows(drafted / "scans.tsv")[-1]
    assert "no radiopharmaceutical with the nuclide 68Ga" in unknown["note"]
    assert "no CT" in unknown["note"]


def test_the_drafted_sheet_is_read_once_the_question_is_answered(drafted, tmp_path):
    schema = yaml.safe_load((SCHEMAS / "scans.schema.yaml").read_text())
    config = yaml.safe_load((drafted / "config.yaml").read_text())
    Draft202012Validator(yaml.safe_load((SCHEMAS / "config.schema.yaml").read_text())).validate(config)
    assert config["tracers"]["pentixather"]["therapy_nuclide"] == "90Y"
    assert config["reference_tracer"] == "FDG"
    with pytest.raises(TheraflowError, match=r"line 10, column 'tracer': '\?' stands for what could not be decided"):
        read_scans(drafted / "scans.tsv", schema, config["tracers"])
    answered = tmp_path / "scans.tsv"
    answered.write_text((drafted / "scans.tsv").read_text().replace("\t?\t", "\tFDG\t"))
    scans = read_scans(answered, schema, config["tracers"])
    assert [len(scans[patient]) for patient in ("P001", "P002", "P003")] == [1, 7, 1]
    assert [scan.quantity for scan in scans["P002"]] == ["suv"] * 2 + ["activity"] * 4 + ["suv"]
    folders = [drafted / scan.dicom for patient in scans for scan in scans[patient]]
    assert all(folder.is_dir() for folder in folders)
    assert (drafted / scans["P002"][0].lesions).read_bytes()


def test_series_are_named_where_the_folder_holds_others(drafted, tree, tmp_path):
    by_scan = {row["scan"]: row for row in rows(drafted / "scans.tsv") if row["patient"] == "P002"}
    # Emission image and CT of the four SPECTs lie in two folders that hold those of the others, too.
    assert by_scan["pentixather_dosimetry_2"]["series"] == "1.2.1.31.1, 1.2.1.31.2"
    assert by_scan["FDG_baseline"]["series"] == "NA"
    flat = tmp_path / "flat"
    flatten(tree, flat, 0)
    draft = draft_sheets(flat, tmp_path)
    by_scan = {row["scan"]: row for row in draft.scans if row["patient"] == "P002"}
    assert by_scan["FDG_baseline"]["dicom"] == "flat"
    assert by_scan["FDG_baseline"]["series"] == "1.2.1.10.1, 1.2.1.10.3"
    # A scan without CT cannot say so in a folder that holds the CTs of others.
    alone = next(row for row in draft.scans if row["patient"] == "P003")
    assert alone["dicom"] == "?"
    assert "the scan has no CT, but a CT of another scan lies in the folder" in alone["note"]


def test_what_is_forced_is_what_the_import_takes(tree, tmp_path):
    from theraflow.dicom.export.choice import choose_ct, choose_emission
    from theraflow.dicom.export.index import read_index

    flat = tmp_path / "flat"
    flatten(tree, flat, 1)
    draft = draft_sheets(flat, tmp_path)
    index = read_index(flat)
    taken = {}
    for row in draft.scans[:-1]:
        quantity = "activity" if row["tracer"] == "pentixather" else "suv"
        emission = choose_emission(index, quantity, row["series"]).series
        taken[row["patient"], row["scan"]] = (emission.uid, choose_ct(index, emission, row["series"]).series.uid)
    assert taken["P001", "FDG_baseline"] == ("1.2.2.10.1", "1.2.2.10.3")
    assert taken["P002", "FDG_followup"] == ("1.2.1.40.1", "1.2.1.40.3")
    assert taken["P002", "pentixafor_baseline"] == ("1.2.1.20.1", "1.2.1.20.2")
    assert taken["P002", "pentixather_dosimetry_4"] == ("1.2.1.33.1", "1.2.1.33.2")


def test_names_and_order_of_files_do_not_matter(tree, tmp_path):
    drafts = []
    for seed in (1, 2):
        work = tmp_path / str(seed)
        work.mkdir()
        flatten(tree, work / "flat", seed)
        draft = draft_sheets(work / "flat", work)
        # Only the annotation is named by its file.
        drafts.append(([{**row, "lesions": bool(row["lesions"])} for row in draft.scans], draft.series))
    assert drafts[0] == drafts[1]
    assert sum(row["lesions"] for row in drafts[0][0]) == 1


def test_every_series_has_a_row_with_a_reason(drafted):
    table = {row["series_instance_uid"]: row for row in rows(drafted / "series.tsv")}
    assert len(table) == 5 * 3 + 1 + 2 + 4 * 2 + 1
    assert all(row["reason"] not in ("", "NA") for row in table.values())
    assert (table["1.2.1.10.1"]["used_as"], table["1.2.1.10.1"]["scan"]) == ("emission", "FDG_baseline")
    assert table["1.2.1.10.2"]["reason"] == "not attenuation-corrected"
    assert table["1.2.1.10.3"]["used_as"] == "CT"
    assert table["1.2.1.10.4"]["used_as"] == "NA"
    assert table["1.2.1.10.5"]["kind"] == "CT scout"
    assert table["1.2.1.10.90"]["used_as"] == "lesions"


@pytest.mark.parametrize("shape", ["nested", "flat"])
def test_nothing_that_identifies_is_written(tree, tmp_path, shape, capsys, caplog):
    source = tree
    if shape == "flat":
        source = tmp_path / "flat"
        flatten(tree, source, 3)
    assert main(["index", str(source), "--output", str(tmp_path / "work")]) == 0
    printed = capsys.readouterr()
    written = [path.read_text() for path in (tmp_path / "work").iterdir()]
    assert len(written) == 3
    text = "\n".join([*written, printed.out, printed.err, caplog.text]).lower()
    for name, identifier, birth in PEOPLE.values():
        for word in (*name.split("^"), identifier, identifier.rpartition("-")[2], birth):
            assert not word or word.lower() not in text
    assert ACCESSION.lower() not in text
    assert "eustachius" not in text


def test_a_sheet_is_never_overwritten(tree, tmp_path, capsys):
    (tmp_path / "scans.tsv").write_text("mine")
    (tmp_path / "config.yaml").write_text("mine, too")
    assert main(["index", str(tree), "--output", str(tmp_path)]) == 1
    assert "exists already and is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "scans.tsv").read_text() == "mine"
    (tmp_path / "scans.tsv").unlink()
    assert main(["index", str(tree), "--output", str(tmp_path)]) == 0
    assert (tmp_path / "config.yaml").read_text() == "mine, too"


def test_bad_input_is_one_sentence(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    write_slices(ct(), SLICES, tmp_path / "ct")
    for folder, sentence in {
        "absent": "does not exist; give the folder of the DICOM export.",
        "empty": "No DICOM file lies in",
        "ct": "no PET or SPECT volume that can be measured",
    }.items():
        assert main(["index", str(tmp_path / folder), "--output", str(tmp_path / "out")]) == 1
        captured = capsys.readouterr().err
        assert sentence in captured
        assert captured.count("\n") == 1
        assert "scans.tsv" not in captured
    assert not (tmp_path / "out").exists()


def test_damaged_files_are_listed_and_named_beside_the_scan(tmp_path):
    write_fdg(tmp_path / "in", "one", "10", "20230501")
    victim = next((tmp_path / "in" / "d").iterdir())
    victim.write_bytes(victim.read_bytes()[:-20])
    draft = draft_sheets(tmp_path / "in", tmp_path)
    (damaged,) = [row for row in draft.series if row["kind"] == "damaged file"]
    assert victim.name in damaged["reason"]
    assert "truncated" in damaged["reason"]
    assert "1 damaged files in this folder stop the import" in draft.scans[0]["note"]


def test_same_patient_id_different_birth_dates_are_two_patients(tmp_path):
    for person, day, birth in (("one", "20230501", "19510304"), ("two", "20230601", "19620415")):
        image = labelled(identify(pet(), person, "10", day), "18F", "FDG", 6588.0)
        image.PatientID, image.PatientBirthDate = "ANONYMOUS", birth
        write_slices(series(image, 1, "PET"), SLICES, tmp_path / "in" / person)
    third = labelled(identify(pet(), "three", "10", "20230701"), "18F", "FDG", 6588.0)
    third.PatientID = "ANONYMOUS"
    write_slices(series(third, 1, "PET"), SLICES, tmp_path / "in" / "three")
    draft = draft_sheets(tmp_path / "in", tmp_path)
    assert [row["patient"] for row in draft.scans] == ["P001", "P002", "?"]
    assert "this one lacks them" in draft.scans[2]["note"]


def test_without_patient_id_nobody_is_made_up(tmp_path):
    for study in ("10", "20"):
        image = labelled(identify(pet(), "three", study, "20230501"), "18F", "FDG", 6588.0)
        image.PatientID = ""
        write_slices(series(image, 1, "PET"), SLICES, tmp_path / "in" / study)
    draft = draft_sheets(tmp_path / "in", tmp_path)
    assert [row["patient"] for row in draft.scans] == ["?", "?"]
    assert "no PatientID" in draft.scans[0]["note"]


def test_two_reconstructions_alike_are_left_to_the_user(tmp_path):
    image = labelled(identify(pet(), "one", "10", "20230501"), "18F", "FDG", 6588.0)
    for number in (1, 2):
        write_slices(series(image, number, f"PET {number}"), SLICES, tmp_path / "in" / str(number))
    (row,) = draft_sheets(tmp_path / "in", tmp_path).scans
    assert row["series"] == "?"
    assert "1.2.1.10.1, 1.2.1.10.2" in row["note"]


def test_a_derived_reconstruction_is_mentioned(tmp_path):
    image = labelled(identify(pet(), "one", "10", "20230501"), "18F", "FDG", 6588.0)
    write_slices(series(image, 1, "PET"), SLICES, tmp_path / "in" / "1")
    image.ImageType = ["DERIVED", "PRIMARY"]
    del image.RadiopharmaceuticalInformationSequence  # it lost its tracer, and is no scan of its own
    write_slices(series(image, 2, "PET filtered for Quillfeather"), SLICES, tmp_path / "in" / "2")
    (row,) = draft_sheets(tmp_path / "in", tmp_path).scans
    assert row["tracer"] == "FDG"
    assert "not taken: PET filtered for … (derived)" in row["note"]


def test_dosimetry_in_one_study_is_as_many_scans_as_days(tmp_path):
    for k, hours in enumerate((4, 24, 96)):
        moment = datetime.datetime(2023, 6, 1, 10) + datetime.timedelta(hours=hours)
        image = identify(spect(SLICES), "one", "10", f"{moment:%Y%m%d}")
        image.AcquisitionTime = f"{moment:%H%M%S}"
        labelled(image, "Lu-177", "Lutathera", 574300.0)
        write(series(image, k, "SPECT"), tmp_path / "in" / str(k))
        low = identify(ct(), "one", "10", f"{moment:%Y%m%d}")  # one frame of reference for all
        low.AcquisitionTime = f"{moment:%H%M%S}"
        write_slices(series(low, 10 + k, "CT"), SLICES[: 4 - k % 2], tmp_path / "in" / f"ct{k}")
    draft = draft_sheets(tmp_path / "in", tmp_path)
    assert [row["scan"] for row in draft.scans] == [f"DOTATATE-177Lu_dosimetry_{k}" for k in (1, 2, 3)]
    assert [row["series"] for row in draft.scans] == [f"1.2.1.10.{k}, 1.2.1.10.{10 + k}" for k in range(3)]


@pytest.mark.parametrize(
    ("injections", "timepoints"),
    [
        (("20230601100000", "20230601103000"), ["dosimetry", "dosimetry"]),
        (("20230601100000", "20230722100000"), ["dosimetry", "dosimetry2"]),
        ((None, None), ["dosimetry", "dosimetry2"]),
    ],
)
def test_cycles_are_told_apart_by_injection_else_by_half_life(tmp_path, injections, timepoints):
    days = (datetime.datetime(2023, 6, 2, 10), datetime.datetime(2023, 7, 23, 10))
    for study, moment, injected in zip(("10", "20"), days, injections, strict=True):
        write_spect(tmp_path / "in", "one", study, moment, injected)
    assert [row["timepoint"] for row in draft_sheets(tmp_path / "in", tmp_path).scans] == timepoints


def test_scans_within_thirty_days_are_one_staging(tmp_path):
    for study, day in (("10", "20230501"), ("20", "20230531"), ("30", "20230601"), ("40", "20231001")):
        image = labelled(identify(pet(), "one", study, day), "18F", "FDG", 6588.0)
        write_slices(series(image, 1, "PET"), SLICES, tmp_path / "in" / study)
    draft = draft_sheets(tmp_path / "in", tmp_path)
    assert [row["timepoint"] for row in draft.scans] == ["baseline", "baseline", "followup", "followup2"]
    assert "a second time, 30 days after" in draft.scans[1]["note"]


def test_organs_are_not_taken_for_lesions(tmp_path):
    kept = write_fdg(tmp_path / "in", "one", "10", "20230501")
    write(annotation(kept, 90, names=("Liver", "kidney left")), tmp_path / "in" / "organs")
    (row,) = draft_sheets(tmp_path / "in", tmp_path).scans
    # The import knows kidney_left, but not this: it is left to the user.
    assert (row["organs"], row["lesions"]) == (None, None)
    assert "in/organs" in row["note"]
    write(annotation(kept, 91, names=("liver", "kidney_left")), tmp_path / "in" / "organs")
    (tmp_path / "scans.tsv").unlink()
    (row,) = draft_sheets(tmp_path / "in", tmp_path).scans
    assert (row["organs"], row["lesions"]) == ("in/organs", None)


def test_of_several_annotations_the_one_on_the_image_is_taken(tmp_path):
    kept = write_fdg(tmp_path / "in", "one", "10", "20230501")
    write(annotation(kept, 90, refers=False), tmp_path / "in" / "somewhere")
    (row,) = draft_sheets(tmp_path / "in", tmp_path / "a").scans
    assert row["lesions"] == "../in/somewhere"
    write(annotation(kept, 91), tmp_path / "in" / "on_it")
    (row,) = draft_sheets(tmp_path / "in", tmp_path / "b").scans
    assert row["lesions"] == "../in/on_it"
    assert "lesions: not ../in/somewhere" in row["note"]
    write(annotation(kept, 92), tmp_path / "in" / "on_it_too")
    (row,) = draft_sheets(tmp_path / "in", tmp_path / "c").scans
    assert row["lesions"] is None
    assert "nothing tells which of ../in/" in row["note"]


def test_no_file_is_read_twice(tree, tmp_path, monkeypatch):
    read = []

    def counted(path):
        read.append(path)
        return read_file(path)

    monkeypatch.setattr(theraflow.dicom.export.index, "read_file", counted)
    draft_sheets(tree, tmp_path)
    assert sorted(read) == sorted(path for path in tree.rglob("*") if path.is_file())


@pytest.mark.shared_data
def test_real_scans_as_one_tree(shared_data, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("sts_cohort", "lu177_spect", "suv_dro", "sts_001_wholebody"):
        (tree / name).symlink_to(shared_data / name)
    draft = draft_sheets(tree, tmp_path)
    assert [row["patient"] for row in draft.scans] == [f"P{number:03d}" for number in range(1, 13)]
    assert [row["tracer"] for row in draft.scans].count("FDG") == 11
    by_folder = {row["dicom"]: row for row in draft.scans}
    # The whole-body PET of patient 1 goes before the piece cut out of it; the CT cut out of his does not cover it.
    assert "no CT that covers it" in by_folder["tree/sts_001_wholebody/FDG_PET/image"]["note"]
    for number in range(2, 11):
        row = by_folder[f"tree/sts_cohort/STS_{number:03d}"]
        assert row["lesions"] == f"tree/sts_cohort/STS_{number:03d}/PET/mask/RS.dcm"
        assert row["series"] is None
    spect_row = by_folder["tree/lu177_spect/SCAN_001/image"]
    assert (spect_row["tracer"], spect_row["timepoint"]) == ("?", "dosimetry")
    # Nine PETs of one study at one time: only the user knows which.
    assert by_folder["tree/suv_dro"]["series"] == "?"
    assert draft.undecided == 2
