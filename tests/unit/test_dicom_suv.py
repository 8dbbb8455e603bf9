"""SUV and activity: the same truth, however a header states it; and refusals by name."""

import datetime
import json
import math

import numpy as np
import pytest
from dicom_series import header as seen
from dicom_series import pet, spect
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence

from theraflow.dicom.activity import quantify_activity
from theraflow.dicom.facts import read_facts
from theraflow.dicom.normalisation import normal_mass_kg
from theraflow.dicom.suv import quantify_suv
from theraflow.errors import TheraflowError
from theraflow.layout import Scan

FDG = {"radiopharmaceutical": "[18F]FDG", "nuclide": "18F", "quantity": "suv"}
HALF_LIFE_S = 6586.236  # of 18F, as `pet()` states it


def scan(quantity="suv", **overrides):
    return Scan("P001", "fdg", "FDG", "baseline", "dicom", quantity, **overrides)


def suv(headers, tracer=FDG, **overrides):
    facts = read_facts([seen(header) for header in headers], scan(**overrides), tracer, "series")
    return quantify_suv(facts), facts


def decay(seconds, half_life_s=HALF_LIFE_S):
    return 2.0 ** (-seconds / half_life_s)


def injection(header):
    return header.RadiopharmaceuticalInformationSequence[0]


# ------------------------------------------------------------------------------------------------ published


def header_of(record):
    """A header from the records of cornerstonejs/calculate-suv."""
    record = dict(record)
    header, item = Dataset(), Dataset()
    header.Modality = "PT"
    for keyword, value in record.pop("PhilipsPETPrivateGroup").items():
        header.add_new(0x70530010, "LO", "Philips PET Private Group")
        element = {"SUVScaleFactor": 0x70531000, "ActivityConcentrationScaleFactor": 0x70531009}[keyword]
        header.add_new(element, "DS", value.strip())
    for keyword, value in record.items():
        within = keyword.startswith(("Radionuclide", "Radiopharmaceutical"))
        setattr(item if within else header, keyword, value.strip() if isinstance(value, str) else value)
    header.RadiopharmaceuticalInformationSequence = Sequence([item])
    return header


@pytest.mark.shared_data
@pytest.mark.parametrize("vendor", ["SIEMENS", "GE_MEDICAL_AND_BQML", "PHILIPS_BQML", "PHILIPS_CNTS_AND_SUV"])
def test_published_factors_of_four_vendors(shared_data, vendor):
    folder = shared_data / "suv_headers"
    expected = json.loads((folder / "expected_factors.json").read_text())["suvbw_factor"][vendor]
    records = json.loads((folder / f"{vendor}-instances.json").read_text())
    quantification, _ = suv([header_of(record) for record in records])
    assert quantification.factors == pytest.approx(expected, rel=1e-6)


def test_masses_against_their_definitions_worked_by_hand():
    # 70 kg, 175 cm: square of W/H is 0.16; BMI 22.857143.
    assert normal_mass_kg("LBMJAMES128", 70, 1.75, "M") == pytest.approx(77 - 128 * 0.16)
    assert normal_mass_kg("LBM", 70, 1.75, "M") == pytest.approx(77 - 120 * 0.16)
    assert normal_mass_kg("LBM", 70, 1.75, "F") == pytest.approx(74.9 - 148 * 0.16)
    assert normal_mass_kg("LBMJANMA", 70, 1.75, "M") == pytest.approx(55.857, abs=1e-3)
    assert normal_mass_kg("LBMJANMA", 70, 1.75, "F") == pytest.approx(45.197, abs=1e-3)
    assert normal_mass_kg("IBW", 70, 1.75, "O") == pytest.approx((72.38 + 66.43) / 2)


# ------------------------------------------------------------------------------------------------ invariance

moments = st.datetimes(datetime.datetime(2020, 1, 1), datetime.datetime(2030, 1, 1)).map(
    lambda moment: moment.replace(microsecond=0)
)


@st.composite
def truths(draw):
    """A patient, an injection and a scan of two bed positions."""
    return {
        "suv": draw(st.floats(0.1, 50)),
        "weight_kg": draw(st.floats(20, 180)),
        "height_m": draw(st.floats(1.4, 2.0)),
        "sex": draw(st.sampled_from("MFO")),
        "dose_mbq": draw(st.floats(20, 900)),
        "injected": draw(moments),
        "nuclide": draw(st.sampled_from([("18F", 6586.236), ("68Ga", 4062.6)])),
        "delay_s": draw(st.integers(600, 3 * 3600)),
        "bed_s": draw(st.integers(60, 600)),
    }


STATEMENTS = (
    "START series", "START GE", "START computed", "ADMIN", "NONE", "GML", "GML LBM", "GML LBMJAMES128",
    "GML LBMJANMA", "GML IBW", "CM2ML", "CNTS to SUV", "CNTS to Bq/mL", "CPS",
)  # fmt: skip


def state(truth, statement, dose_in_mbq, weight_in_g, time_only):
    """Two slices of two bed positions, and the voxel values in them, as `statement` has it."""
    half_life = truth["nuclide"][1]
    rate = math.log(2) / half_life
    started = truth["injected"] + datetime.timedelta(seconds=truth["delay_s"])
    headers, values = [], []
    weight_g = truth["weight_kg"] * 1000
    # Activity concentration of the truth at injection, Bq/mL.
    at_injection = truth["suv"] * truth["dose_mbq"] * 1e6 / weight_g
    for bed in range(2):
        header = pet()
        acquired = started + datetime.timedelta(seconds=bed * truth["bed_s"])
        header.SeriesDate, header.SeriesTime = f"{started:%Y%m%d}", f"{started:%H%M%S}"
        header.AcquisitionDate, header.AcquisitionTime = f"{acquired:%Y%m%d}", f"{acquired:%H%M%S}"
        header.ActualFrameDuration = truth["bed_s"] * 1000
        # Mean over the bed position by integration, and the moment when the activity is equal to it.
        since = (acquired - truth["injected"]).total_seconds()
        integral = at_injection * (math.exp(-rate * since) - math.exp(-rate * (since + truth["bed_s"]))) / rate
        mean = integral / truth["bed_s"]
        header.FrameReferenceTime = (-math.log(mean / at_injection) / rate - truth["delay_s"]) * 1000
        header.PatientWeight = weight_g if weight_in_g else truth["weight_kg"]
        header.PatientSize, header.PatientSex = truth["height_m"], truth["sex"]
        item = injection(header)
        item.RadionuclideHalfLife = half_life
        item.RadionuclideTotalDose = truth["dose_mbq"] * (1 if dose_in_mbq else 1e6)
        item.RadiopharmaceuticalStartDateTime = f"{truth['injected']:%Y%m%d%H%M%S}"
        if time_only:
            del item.RadiopharmaceuticalStartDateTime
            item.RadiopharmaceuticalStartTime = f"{truth['injected']:%H%M%S}"
        value = at_injection * decay(truth["delay_s"], half_life)
        units, _, rest = statement.partition(" ")
        if units in ("GML", "CM2ML"):
            header.Units = units
            if rest:
                header.SUVType = rest
                mass = normal_mass_kg(rest, truth["weight_kg"], truth["height_m"], truth["sex"])
                value = truth["suv"] * mass / truth["weight_kg"]
            elif units == "CM2ML":
                surface = 0.007184 * truth["weight_kg"] ** 0.425 * (truth["height_m"] * 100) ** 0.725 * 1e4
                value = truth["suv"] * surface / weight_g
            else:
                value = truth["suv"]
        elif units == "CNTS":
            header.Units, header.Manufacturer = "CNTS", "Philips Medical Systems"
            header.add_new(0x70531000, "DS", 0.002 if rest == "to SUV" else 0)
            header.add_new(0x70531009, "DS", 4.0)
            value = truth["suv"] / 0.002 if rest == "to SUV" else value / 4.0
        elif units == "CPS":
            header.Units = "CPS"
            header.CorrectedImage = ["ATTN", "DECY", "DCAL"]
            value *= 0.024  # mL: 2 x 3 x 4 mm
        elif rest == "GE":
            header.Manufacturer = "GE MEDICAL SYSTEMS"
            header.add_new(0x0009100D, "UN", f"{started:%Y%m%d%H%M%S}.00".encode())
            header.SeriesTime = "235959" if header.SeriesTime != "235959" else "000000"
        elif rest == "computed":
            header.SeriesDate = "20400101"
        elif statement == "ADMIN":
            header.DecayCorrection, value = "ADMIN", at_injection
        elif statement == "NONE":
            header.DecayCorrection, header.CorrectedImage, value = "NONE", ["ATTN"], mean
        headers.append(header)
        values.append(value)
    return headers, np.array(values)


@given(truths(), st.sampled_from(STATEMENTS), st.booleans(), st.booleans(), st.booleans())
def test_suv_does_not_depend_on_how_it_is_stated(truth, statement, dose_in_mbq, weight_in_g, time_only):
    headers, values = state(truth, statement, dose_in_mbq, weight_in_g, time_only)
    quantification, _ = suv(headers, {"nuclide": truth["nuclide"][0]})
    assert values * quantification.factors == pytest.approx(truth["suv"], rel=1e-6)


@given(truths())
def test_overrides_stand_for_the_header(truth):
    headers, values = state(truth, "START series", False, False, False)
    for header in headers:
        header.PatientWeight = None
        header.RadiopharmaceuticalInformationSequence = Sequence([])
    overrides = {
        "weight_kg": truth["weight_kg"],
        "injected_mbq": truth["dose_mbq"],
        "injected_at": truth["injected"].isoformat(),
    }
    quantification, facts = suv(headers, {"nuclide": truth["nuclide"][0]}, **overrides)
    assert values * quantification.factors == pytest.approx(truth["suv"], rel=1e-6)
    assert facts.overrides == ["weight_kg", "injected_mbq", "injected_at"]


def test_an_override_of_the_injection_time_moves_values_corrected_to_injection():
    header = pet()
    header.DecayCorrection = "ADMIN"
    plain = suv([header])[0].factor
    # The scanner has corrected to 10:00, but the injection was at 10:30: its activity then counts.
    moved = suv([header], injected_at="2023-05-01T10:30:00")[0].factor
    assert moved == pytest.approx(plain * decay(1800))


# ------------------------------------------------------------------------------------------------ judgement


def test_the_reference_times_are_ranked_and_their_disagreement_flagged():
    header = pet()
    header.AcquisitionTime = "110200"
    header.FrameReferenceTime, header.ActualFrameDuration = 0, 240_000
    quantification, facts = suv([header])
    assert "SeriesDate and SeriesTime" in quantification.rule
    assert quantification.factor == pytest.approx(70e3 / (350e6 * decay(3600)))
    # Computed: 11:02:00 + half of 240 s (less 1 s of decay), 240 s later than the series.
    (flag,) = facts.flags
    assert "FrameReferenceTime it would be 239 s later (2.5 % of the values)" in flag or "240 s later" in flag
    header.SeriesTime = "113000"
    quantification, facts = suv([header])
    assert "reference time is FrameReferenceTime" in quantification.rule
    assert "after the first acquisition" in facts.flags[0]


def test_a_ge_time_from_before_anonymisation_is_not_used():
    header = pet()
    header.Manufacturer = "GE MEDICAL SYSTEMS"
    header.add_new(0x0009100D, "UN", b"20190101110000.00")
    quantification, facts = suv([header])
    assert "SeriesDate" in quantification.rule
    assert "0009,100D" in facts.flags[0]


def test_private_elements_of_another_maker_are_not_read():
    header = pet()
    header.Units, header.Manufacturer = "CNTS", "SIEMENS"
    header.add_new(0x70531000, "DS", 0.002)
    with pytest.raises(TheraflowError, match=r"CNTS without Philips' factor"):
        suv([header])


def test_philips_factors_that_disagree_are_flagged():
    header = pet()
    header.Units = "CNTS"
    header.add_new(0x70530010, "LO", "Philips PET Private Group")
    header.add_new(0x70531000, "DS", 0.002)
    header.add_new(0x70531009, "DS", 4.0)
    quantification, facts = suv([header])
    assert quantification.factor == 0.002
    assert "differ by" in facts.flags[0]


def test_all_missing_tags_are_named_at_once():
    header = pet()
    del header.PatientWeight, header.AcquisitionTime, header.DecayCorrection
    injection(header).RadionuclideTotalDose = 0
    del injection(header).RadiopharmaceuticalStartDateTime
    with pytest.raises(TheraflowError) as error:
        suv([header])
    for name in (
        "PatientWeight (0010,1030) [weight_kg]",
        "AcquisitionTime (0008,0032)",
        "DecayCorrection (0054,1102)",
        "RadionuclideTotalDose (0018,1074) [injected_mbq]",
        "RadiopharmaceuticalStartDateTime (0018,1078) [injected_at]",
    ):
        assert name in str(error.value)
    assert "AcquisitionDate" not in str(error.value)


def test_a_tag_that_one_slice_lacks_is_missing():
    lacking = pet()
    del lacking.PatientWeight
    with pytest.raises(TheraflowError, match="PatientWeight"):
        suv([pet(), lacking])
    other = pet()
    other.Units = "CNTS"
    with pytest.raises(TheraflowError, match=r"Units \(0054,1001\) differs"):
        suv([pet(), other])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"CorrectedImage": ["DECY"]}, "not attenuation-corrected"),
        ({"CorrectedImage": ["ATTN"]}, "lacks DECY"),
        ({"CorrectedImage": None}, r"CorrectedImage \(0028,0051\)"),
        ({"DecayCorrection": "SOMETIMES"}, "SOMETIMES"),
        ({"Units": "PROPCNTS"}, "PROPCNTS cannot be turned into SUV"),
        ({"Units": "CPS"}, "CPS cannot be turned into SUV"),
        ({"Units": "GML", "SUVType": "BSA"}, "BSA with Units GML"),
        ({"Units": "GML", "SUVType": "LBM", "PatientSize": None}, r"PatientSize \(0010,1020\) \[height_cm\]"),
        ({"PatientWeight": 800}, "800 kg is impossible"),
        ({"PatientWeight": "seventy"}, "PatientWeight"),
        ({"AcquisitionTime": "11h00"}, r"AcquisitionTime \(0008,0032\) cannot be read"),
    ],
)  # fmt: skip
def test_refusals(change, message):
    header = pet()
    for keyword, value in change.items():
        if isinstance(value, str) and keyword == "PatientWeight":
            header.add_new(keyword, "LO", value)
        else:
            setattr(header, keyword, value)
    with pytest.raises(TheraflowError, match=message):
        suv([header])


def test_refusals_about_the_injection():
    cases = [
        ({"RadionuclideTotalDose": 50_000}, "plausible neither in Bq nor in MBq"),
        ({"RadiopharmaceuticalStartDateTime": "20230502100000"}, "impossible"),
        ({"RadiopharmaceuticalStartDateTime": "20230401100000"}, "impossible"),
        ({"RadionuclideHalfLife": 4062.6}, "does not belong to 18F"),
    ]
    for change, message in cases:
        header = pet()
        for keyword, value in change.items():
            setattr(injection(header), keyword, value)
        with pytest.raises(TheraflowError, match=message):
            suv([header])
    header = pet()
    code = Dataset()
    code.CodeMeaning = "^68^Gallium"
    injection(header).RadionuclideCodeSequence = Sequence([code])
    with pytest.raises(TheraflowError, match=r"says \^68\^Gallium, but the nuclide of the tracer is 18F"):
        suv([header])
    header = pet()
    header.RadiopharmaceuticalInformationSequence = Sequence([injection(pet()), injection(pet())])
    with pytest.raises(TheraflowError, match="several injections"):
        suv([header])


def test_an_override_that_cannot_act_is_refused():
    header = pet()
    header.Units = "GML"
    assert suv([header], weight_kg=70.0)[0].factor == 1.0
    with pytest.raises(TheraflowError, match=r"weight_kg in scans\.tsv contradicts the header"):
        suv([header], weight_kg=80.0)


def test_forms_of_the_injection_time_in_the_sheet():
    expected = suv([pet()])[0].factor
    for value in ("2023-05-01T10:00:00", "2023-05-01 10:00", "10:00", "10:00:00"):
        assert suv([pet()], injected_at=value)[0].factor == pytest.approx(expected)
    for value in ("2023-05-01", "ten", "25:00"):
        with pytest.raises(TheraflowError, match=r"injected_at in scans\.tsv"):
            suv([pet()], injected_at=value)


def test_offsets_from_utc_are_understood():
    header = pet()
    header.TimezoneOffsetFromUTC = "+0200"
    injection(header).RadiopharmaceuticalStartDateTime = "20230501080000+0000"
    assert suv([header])[0].factor == pytest.approx(70e3 / (350e6 * decay(3600)))


# ------------------------------------------------------------------------------------------------ activity

LUTETIUM = {"radiopharmaceutical": "[177Lu]pentixather", "nuclide": "177Lu", "quantity": "activity"}
LU_HALF_LIFE_S = 6.647 * 86400


def activity(headers, **overrides):
    facts = read_facts([seen(header) for header in headers], scan("activity", **overrides), LUTETIUM, "series")
    return quantify_activity(facts), facts


def lutetium_pt():
    header = pet()
    header.AcquisitionDate = header.SeriesDate = "20230504"
    injection(header).RadionuclideHalfLife = LU_HALF_LIFE_S
    injection(header).RadionuclideTotalDose = 7.4e9
    return header


def test_activity_is_that_at_the_start_of_the_acquisition():
    started, later = lutetium_pt(), lutetium_pt()
    later.AcquisitionTime = "113000"
    assert activity([started, later])[0].factors == pytest.approx([1.0, 1.0])
    since = 3 * 86400 + 3600
    for header in (started, later):
        header.DecayCorrection = "ADMIN"
    assert activity([started, later])[0].factors == pytest.approx([decay(since, LU_HALF_LIFE_S)] * 2)
    for header in (started, later):
        header.DecayCorrection, header.CorrectedImage, header.ActualFrameDuration = (
            "NONE",
            ["ATTN"],
            1_800_000,
        )
    rate = math.log(2) / LU_HALF_LIFE_S
    over_mean = 1800 * rate / (1 - math.exp(-1800 * rate))
    expected = [over_mean, over_mean / decay(1800, LU_HALF_LIFE_S)]
    assert activity([started, later])[0].factors == pytest.approx(expected, rel=1e-9)


def test_an_overridden_injection_time_does_not_change_what_the_scanner_has_undone():
    header = lutetium_pt()
    header.DecayCorrection = "ADMIN"
    quantification, facts = activity([header], injected_at="2023-05-01T11:00:00")
    assert quantification.factor == pytest.approx(decay(3 * 86400 + 3600, LU_HALF_LIFE_S))
    assert facts.injected_at.hour == 11


def test_nm_in_bq_per_ml_stands_at_the_acquisition():
    header = spect(np.ones((3, 4, 5)))
    quantification, facts = activity([header] * 3)
    assert np.array_equal(quantification.factors, np.ones(3))
    assert facts.injected_bq == 200e6  # NM states MBq
    assert facts.real_world == [(0.5, 0.0)] * 3
    assert facts.flags == []


def test_nm_refusals():
    header = spect(np.ones((3, 4, 5)))
    header.CorrectedImage = ["ATTN", "DECY"]
    with pytest.raises(TheraflowError, match="does not say to which time"):
        activity([header])
    header = spect(np.ones((3, 4, 5)))
    del header.RealWorldValueMappingSequence
    with pytest.raises(TheraflowError, match="a calibration factor is needed"):
        activity([header])
    header = spect(np.ones((3, 4, 5)))
    del header.RadiopharmaceuticalInformationSequence, header.AcquisitionDate
    with pytest.raises(TheraflowError, match=r"AcquisitionDate \(0008,0022\).*RadionuclideTotalDose .*\[injected_at\]"):
        activity([header])


def test_a_long_lived_nuclide_needs_the_day_of_the_injection():
    header = lutetium_pt()
    item = injection(header)
    del item.RadiopharmaceuticalStartDateTime
    item.RadiopharmaceuticalStartTime = "100000"
    with pytest.raises(TheraflowError, match="a time alone does not tell the day, half-life 160 h"):
        activity([header])
    with pytest.raises(TheraflowError, match="write date and time"):
        activity([header], injected_at="10:00")
    _, facts = activity([header], injected_at="2023-05-01T10:00:00")
    assert facts.injected_at == datetime.datetime(2023, 5, 1, 10)
