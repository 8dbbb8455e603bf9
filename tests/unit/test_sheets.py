"""The user's sheets: what is accepted, and the sentence where something is wrong."""

from pathlib import Path

import pytest
import yaml

from theraflow.errors import TheraflowError
from theraflow.layout import Scan
from theraflow.sheets import read_scans, read_sheet, reference_scan, require_plain

SCHEMAS = Path(__file__).resolve().parents[2] / "workflow" / "schemas"
TRACERS = {"FDG": {"quantity": "suv"}, "pentixather": {"quantity": "activity"}}
HEADER = "patient\tscan\ttracer\ttimepoint\tdicom\tweight_kg\n"


def schema(name: str) -> dict:
    return yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text())


def scans(tmp_path: Path, text: str) -> dict[str, list[Scan]]:
    path = tmp_path / "scans.tsv"
    path.write_text(text, encoding="utf-8")
    return read_scans(path, schema("scans"), TRACERS)


def test_rows_become_scans_by_patient_in_order(tmp_path):
    text = HEADER + "B\tpet\tFDG\tbaseline\tin\t70.5\nA\tx\tFDG\tbaseline\tin\tNA\nB\tlu\tpentixather\tday1\tin\t\n"
    found = scans(tmp_path, "\ufeff" + text)  # Excel writes a byte-order mark
    assert list(found) == ["B", "A"]
    assert [scan.scan for scan in found["B"]] == ["pet", "lu"]
    assert found["B"][0].weight_kg == 70.5
    assert found["A"][0].weight_kg is None
    assert found["B"][1].emission == "spect"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("patient\tscan\ttracer\ttimepoint\nA\tx\tFDG\tbaseline\n", "lacks the column 'dicom'"),
        (
            HEADER + "A\tx\tFDG\tbaseline\tin\theavy\n",
            "line 2, column 'weight_kg': 'heavy' is not of type 'number'",
        ),
        (HEADER + "A\tx\tFDG\tbaseline\tin\t7000\n", "line 2, column 'weight_kg': 7000.0 is greater than"),
        (HEADER + "A\tx\tFDG\tbaseline\t\t70\n", "line 2, 'dicom' is a required property"),
        (HEADER + "A\tx\tPSMA\tbaseline\tin\t70\n", "tracer 'PSMA', which is no key of `tracers`"),
        (HEADER + "A\tx\tFDG\tbaseline\tin\t70\n" * 2, "names scan 'x' of patient 'A' 2 times"),
        (HEADER + "../A\tx\tFDG\tbaseline\tin\t70\n", "column 'patient': '../A' does not match"),
        (HEADER + "cohort\tx\tFDG\tbaseline\tin\t70\n", "column 'patient': 'cohort' does not match"),
        (HEADER, "names no scan"),
    ],
)
def test_a_wrong_sheet_is_refused_with_its_place(tmp_path, text, sentence):
    with pytest.raises(TheraflowError) as error:
        scans(tmp_path, text)
    assert sentence in str(error.value)
    assert "scans.tsv" in str(error.value)


def test_a_date_that_finds_no_scans_is_refused(tmp_path):
    """A cycle's date finds its own scans: one that is written otherwise would leave its dose to a prediction."""
    path = tmp_path / "cycles.tsv"
    path.write_text("patient\tcycle\tdate\tnuclide\tactivity_gbq\nA\t1\t08.01.2024\t177Lu\t7.4\n")
    with pytest.raises(TheraflowError, match=r"line 2, column 'date': '08\.01\.2024' does not match"):
        read_sheet(path, schema("cycles"))


def test_a_missing_sheet_is_named(tmp_path):
    with pytest.raises(TheraflowError, match=r"nowhere\.tsv cannot be read"):
        read_sheet(tmp_path / "nowhere.tsv", schema("cycles"))


def test_an_unknown_column_is_told(tmp_path, caplog):
    scans(tmp_path, "patient\tscan\ttracer\ttimepoint\tdicom\tlesion\nA\tx\tFDG\tbaseline\tin\tmask\n")
    assert "columns not known and not used: lesion" in caplog.text


def test_the_reference_is_the_baseline_of_the_reference_tracer():
    def scan(name, tracer, timepoint, quantity="suv"):
        return Scan("A", name, tracer, timepoint, "in", quantity)

    lu, late, first = (
        scan("lu", "L", "day1", "activity"),
        scan("late", "FDG", "followup"),
        scan("first", "FDG", "baseline"),
    )
    assert reference_scan([lu, late, first], "FDG") is first
    assert reference_scan([lu, late], "FDG") is late
    assert reference_scan([lu, late], "PSMA") is late
    assert reference_scan([lu], "FDG") is lu


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"patient\tage_y\nP1 \t30\n", "line 2, patient"),
        (b"patient\tage_y\nP1\t30,5\n", "line 2, age_y"),
        ("patient\tage_y\nP1\t30\n".encode("utf-16"), "not UTF-8"),
    ],
)
def test_a_sheet_that_others_read_as_a_plain_table_must_be_one(tmp_path, content, message):
    path = tmp_path / "patients.tsv"
    path.write_bytes(content)
    schema = {"properties": {"patient": {"type": "string"}, "age_y": {"type": "number"}}}
    with pytest.raises(TheraflowError, match=message):
        require_plain(path, schema)
    path.write_text("patient\tage_y\tnote\nP1\t30.5\tM\u00fcller, 2\n", encoding="utf-8")
    require_plain(path, schema)
