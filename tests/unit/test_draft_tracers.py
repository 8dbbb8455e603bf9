"""The tracer that a header tells of, against the code dictionaries that pydicom makes from PS3.16."""

import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping

from dicom_series import header, pet
from theraflow.draft.tracers import radiopharmaceuticals, tell_tracer, tracers_in
from theraflow.nuclides import nuclide

MEANINGS = {
    (scheme, value): meaning
    for scheme, keywords in concepts.items()
    for values in keywords.values()
    for value, (meaning, _) in values.items()
}
# Newer than the dictionaries of pydicom 3.0: CID 25 and 4021 of 2025.
NEWER = {("SCT", "1263794005"), ("SCT", "764937002"), ("MSH", "C000615038")}
CODES = [(row, scheme, value) for row in radiopharmaceuticals() for scheme, value in sorted(row.codes)]


def code(scheme: str, value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodingSchemeDesignator, item.CodeValue, item.CodeMeaning = scheme, value, meaning
    return item


def told(modality="PT", radionuclide=None, pharmaceutical=None, text=None, half_life_s=None):
    dataset = pet()
    dataset.Modality = modality
    item = Dataset()
    if radionuclide:
        item.RadionuclideCodeSequence = Sequence([code(*radionuclide)])
    if pharmaceutical:
        item.RadiopharmaceuticalCodeSequence = Sequence([code(*pharmaceutical)])
    if text:
        item.Radiopharmaceutical = text
    if half_life_s:
        item.RadionuclideHalfLife = half_life_s
    dataset.RadiopharmaceuticalInformationSequence = Sequence([item])
    return tell_tracer(header(dataset))


def tracer(**stated) -> str | None:
    found = told(**stated).tracer
    return found and found.tracer


@pytest.mark.parametrize(("row", "scheme", "value"), CODES)
def test_codes_mean_what_the_standard_says(row, scheme, value):
    if (scheme, value) in NEWER:
        return
    sct = ("SCT", mapping["SRT"][value]) if scheme == "SRT" else (scheme, value)
    meaning = MEANINGS[sct]
    if row.tracer is None:
        assert nuclide(meaning).name == row.nuclide
    elif sct != ("SCT", "129502002"):  # what FLT was called before: thymidine
        assert row in tracers_in(meaning, row.nuclide)
        mass = "".join(sign for sign in row.nuclide if sign.isdigit())
        assert mass in meaning


def test_no_code_stands_for_two():
    codes = [(scheme, value) for _, scheme, value in CODES]
    assert len(codes) == len(set(codes))
    assert all(nuclide(row.nuclide).name == row.nuclide for row in radiopharmaceuticals())
    assert len({row.tracer for row in radiopharmaceuticals() if row.tracer}) == sum(
        row.tracer is not None for row in radiopharmaceuticals()
    )


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        # As scanners write it: GE, Siemens, Philips; old designators of SNOMED.
        ({"radionuclide": ("99SDM", "C-111A1", "18F"), "text": "FDG -- fluorodeoxyglucose"}, "FDG"),
        ({"pharmaceutical": ("SNM3", "C-B1031", "FDG -- fluorodeoxyglucose")}, "FDG"),
        ({"pharmaceutical": ("SCT", "35321007", "")}, "FDG"),
        ({"radionuclide": ("SCT", "35337001", ""), "text": "Solution"}, None),
        ({"text": "18F-FDG"}, "FDG"),
        ({"text": "F18 PSMA-1007"}, "PSMA-1007"),
        ({"text": "68Ga-PSMA-11"}, "PSMA-11"),
        ({"text": "Ga-68 PSMA"}, None),
        ({"text": "DOTATATE", "half_life_s": 4062.6}, "DOTATATE"),
        ({"text": "DOTATATE", "half_life_s": 574300.0, "modality": "NM"}, "DOTATATE-177Lu"),
        ({"text": "[177Lu]Lu-DOTA-TATE", "modality": "NM"}, "DOTATATE-177Lu"),
        ({"text": "DOTATATE", "radionuclide": ("SRT", "C-127A2", "")}, "DOTATATE-64Cu"),
        ({"text": "DOTATATE"}, None),
        ({"text": "Pentixather", "radionuclide": ("99SDM", "C-101ED", "177 Lutetium")}, "pentixather"),
        ({"text": "F-18 Choline"}, "fluorocholine"),
        ({"text": "C-11 Choline"}, "choline"),
        ({"text": "Fluorodesoxymystery", "half_life_s": 6586.2}, None),
        # A protocol for FDG with which something else was given; a half-life that is another nuclide's.
        ({"pharmaceutical": ("SRT", "C-B1031", "FDG"), "text": "PSMA-1007"}, None),
        ({"pharmaceutical": ("SRT", "C-B1031", ""), "text": "PSMA-1007"}, None),
        ({"text": "FDG", "radionuclide": ("SRT", "C-111A1", "^18^Fluorine"), "half_life_s": 4062.6}, None),
        ({"text": "FDG", "radionuclide": ("SRT", "C-131A3", "^68^Gallium")}, None),
        ({"text": "FDG", "radionuclide": ("SRT", "C-131A3", "^18^Fluorine")}, None),
        ({}, None),
    ],
)
def test_what_headers_tell(stated, expected):
    assert tracer(**stated) == expected
    if expected is None:
        assert told(**stated).reason


def test_equal_half_lives_are_told_apart_by_the_scanner():
    # 67Ga and 89Zr differ by 0.2 %.
    assert told(half_life_s=281_900.0).nuclide == "89Zr"
    assert told(half_life_s=281_900.0, modality="NM").nuclide == "67Ga"


def test_two_radiopharmaceuticals_in_one_header_are_not_decided():
    dataset = pet()
    items = [Dataset(), Dataset()]
    for item, name in zip(items, ("18F-FDG", "68Ga-PSMA-11"), strict=True):
        item.Radiopharmaceutical = name
    dataset.RadiopharmaceuticalInformationSequence = Sequence(items)
    found = tell_tracer(header(dataset))
    assert found.tracer is None
    assert "several radiopharmaceuticals" in found.reason
