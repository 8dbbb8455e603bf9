"""What headers and scans.tsv state of a series: the injection, the patient, overrides; and what is missing."""

import copy
import datetime

import pytest
from pet_statements import GE, add_private, decay, dt, injection, scan, suv
from pydicom import Dataset
from pydicom.sequence import Sequence

from dicom_series import header as seen
from dicom_series import pet
from theraflow.dicom.quantity.facts import read_facts
from theraflow.errors import TheraflowError

PLAIN = 70e3 / (350e6 * decay(3600))  # SUV per Bq/mL of `pet()`
LUTETIUM = {"nuclide": "177Lu"}


def facts_of(*headers, tracer=None, **overrides):
    return read_facts([seen(header) for header in headers], scan(**overrides), tracer or {"nuclide": "18F"}, "series")


def changed(**stated):
    """`pet()` with other values, of the injection or of the image."""
    header = pet()
    for keyword, value in stated.items():
        within = keyword.startswith(("Radionuclide", "RadiopharmaceuticalSt"))
        setattr(injection(header) if within else header, keyword, value)
    return header


# ------------------------------------------------------------------------------------------------ missing


def test_all_missing_tags_are_named_at_once():
    header = changed(RadionuclideTotalDose=0)
    del header.PatientWeight, header.AcquisitionTime, header.DecayCorrection
    del injection(header).RadiopharmaceuticalStartDateTime
    with pytest.raises(TheraflowError) as error:
        suv([header])
    for name in (
        "PatientWeight (0010,1030) [weight_kg]",
        "AcquisitionTime (0008,0032) [acquired_at]",
        "DecayCorrection (0054,1102) [decay_correction]",
        "RadionuclideTotalDose (0018,1074) [injected_mbq]",
        "RadiopharmaceuticalStartDateTime (0018,1078) [injected_at]",
    ):
        assert name in str(error.value)
    assert "AcquisitionDate" not in str(error.value)
    assert "RadionuclideHalfLife" not in str(error.value)


def test_a_tag_that_one_slice_lacks_is_missing():
    lacking = pet()
    del lacking.PatientWeight
    with pytest.raises(TheraflowError, match="PatientWeight"):
        suv([pet(), lacking])


def test_a_missing_half_life_is_that_of_the_tracer_and_said():
    header = changed(RadionuclideHalfLife=0)
    quantification, facts = suv([header])
    # 18F: 1.82951 h by ICRP 107, 6586.236 s.
    assert quantification.factor == pytest.approx(PLAIN, rel=1e-5)
    assert "RadionuclideHalfLife (0018,1075) missing: that of 18F" in facts.flags[0]


def test_times_that_cannot_be_read_are_named():
    for keyword, value in (("AcquisitionTime", "11h00"), ("SeriesTime", "250000"), ("AcquisitionDate", "20230231")):
        header = pet()
        header.add_new(keyword, "LO", value)
        with pytest.raises(TheraflowError, match=rf"{keyword} \(0008,00..\) cannot be read"):
            suv([header])


# ------------------------------------------------------------------------------------------------ injection


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (changed(RadionuclideTotalDose=50_000), "50000 is plausible neither in Bq nor in MBq"),
        (changed(RadionuclideTotalDose=2e11), "plausible neither in Bq nor in MBq"),
        # After the scan; a month before it; 20 h before it, more than 10 half-lives.
        (changed(RadiopharmaceuticalStartDateTime="20230502100000"), "-23.00 h apart, which is impossible"),
        (changed(RadiopharmaceuticalStartDateTime="20230401100000"), "impossible"),
        (changed(RadiopharmaceuticalStartDateTime="20230430150000"), "20.00 h apart, which is impossible"),
        (changed(RadionuclideHalfLife=4062.6), "does not belong to 18F"),
    ],
    ids=lambda case: "" if isinstance(case, Dataset) else case[:30],
)
def test_impossible_injections(header, message):
    with pytest.raises(TheraflowError, match=message):
        suv([header])


def test_an_injection_within_the_examination_is_refused():
    # After the start of the series, to which the values are corrected, and before the first image that is there.
    header = changed(SeriesTime="105500", RadiopharmaceuticalStartDateTime="20230501105700")
    with pytest.raises(TheraflowError, match="the injection is 120 s later than SeriesDate and SeriesTime"):
        suv([header])


def test_a_dose_in_mbq_is_flagged():
    quantification, facts = suv([changed(RadionuclideTotalDose=350)])
    assert quantification.factor == pytest.approx(PLAIN)
    assert facts.flags == ["RadionuclideTotalDose (0018,1074) is 350: taken as MBq"]


def test_another_nuclide_is_refused():
    code = Dataset()
    code.CodeMeaning = "^68^Gallium"
    with pytest.raises(TheraflowError, match=r"says \^68\^Gallium, but the nuclide of the tracer is 18F"):
        suv([changed(RadionuclideCodeSequence=Sequence([code]))])


def test_an_injection_listed_twice_is_one_and_two_are_refused():
    header = pet()
    first, copied = injection(header), copy.deepcopy(injection(header))
    copied.Radiopharmaceutical = "the same, in other words"
    header.RadiopharmaceuticalInformationSequence = Sequence([first, copied])
    quantification, facts = suv([header])
    assert quantification.factor == pytest.approx(PLAIN) and not facts.flags
    copied.RadiopharmaceuticalStartDateTime = "20230501101000"
    with pytest.raises(TheraflowError, match=r"several injections; give in injected_mbq and injected_at"):
        suv([header])
    with pytest.raises(TheraflowError, match="several injections"):
        suv([header], injected_mbq=350.0)
    copied.RadiopharmaceuticalStartDateTime, copied.RadionuclideTotalDose = "20230501100000", 100e6
    with pytest.raises(TheraflowError, match="several injections"):
        suv([header])
    given = {"injected_mbq": 350.0, "injected_at": "2023-05-01 10:00"}
    quantification, facts = suv([header], **given)
    assert quantification.factor == pytest.approx(PLAIN, rel=1e-5)
    assert "the one of scans.tsv taken" in facts.flags[0]
    # To which of them ADMIN refers only the scanner knows.
    header.DecayCorrection = "ADMIN"
    with pytest.raises(TheraflowError, match="ADMIN, but the header lists several injections"):
        suv([header], **given)


def test_an_injection_before_midnight_by_its_time_alone():
    header = changed(AcquisitionTime="001000", SeriesTime="001000", RadiopharmaceuticalStartTime="235000")
    del injection(header).RadiopharmaceuticalStartDateTime
    quantification, facts = suv([header])
    assert facts.injected_at == datetime.datetime(2023, 4, 30, 23, 50)
    assert quantification.factor == pytest.approx(70e3 / (350e6 * decay(1200)))
    assert "taken as the day before" in facts.flags[0]


def test_two_statements_of_the_injection_time():
    header = changed(RadiopharmaceuticalStartTime="100500")
    quantification, facts = suv([header])
    assert quantification.factor == pytest.approx(PLAIN)
    assert "differ by 300 s: the first taken" in facts.flags[0]
    # Across midnight they are close.
    header = changed(RadiopharmaceuticalStartTime="000010", RadiopharmaceuticalStartDateTime="20230430235950")
    header.AcquisitionTime = header.SeriesTime = "010000"
    assert facts_of(header).flags == []


def test_a_long_lived_nuclide_needs_the_day_of_the_injection():
    header = changed(RadionuclideHalfLife=6.647 * 86400, AcquisitionDate="20230504", SeriesDate="20230504")
    item = injection(header)
    del item.RadiopharmaceuticalStartDateTime
    item.RadiopharmaceuticalStartTime = "100000"
    with pytest.raises(TheraflowError, match="a time alone does not tell the day, half-life 160 h"):
        suv([header], LUTETIUM)
    with pytest.raises(TheraflowError, match="write date and time"):
        facts_of(header, tracer=LUTETIUM, injected_at="10:00")
    facts = facts_of(header, tracer=LUTETIUM, injected_at="2023-05-01T10:00:00")
    assert facts.injected_at == datetime.datetime(2023, 5, 1, 10)


def test_forms_of_the_injection_time_in_the_sheet():
    for value in ("2023-05-01T10:00:00", "2023-05-01 10:00", "10:00", "10:00:00"):
        assert suv([pet()], injected_at=value)[0].factor == pytest.approx(PLAIN)
    for value in ("2023-05-01", "ten", "25:00"):
        with pytest.raises(TheraflowError, match=r"injected_at in scans\.tsv"):
            suv([pet()], injected_at=value)


def test_offsets_from_utc_are_understood():
    header = changed(TimezoneOffsetFromUTC="+0200", RadiopharmaceuticalStartDateTime="20230501080000+0000")
    assert suv([header])[0].factor == pytest.approx(PLAIN)
    header = changed(RadiopharmaceuticalStartDateTime="20230501100000+0000")
    quantification, facts = suv([header])
    assert quantification.factor == pytest.approx(PLAIN)
    assert "has an offset from UTC, the other times have none: taken as local time" in facts.flags[0]
    with pytest.raises(TheraflowError, match=r"offset from UTC .* differs between slices"):
        suv([changed(TimezoneOffsetFromUTC="+0200"), changed(TimezoneOffsetFromUTC="+0100")])


# ------------------------------------------------------------------------------------------------ syringe


def syringe(before=400.0, before_at="094000", after=20.0, after_at="101500", dose=None):
    """GE's elements: MBq, 20 minutes before the injection at 10:00 and 15 after."""
    header = changed(Manufacturer=GE, RadionuclideTotalDose=dose)
    for tag, value in ((0x00091038, before), (0x0009103C, after)):
        if value is not None:
            add_private(header, tag, value)
    for tag, value in ((0x00091039, before_at), (0x0009103D, after_at)):
        if value is not None:
            add_private(header, tag, f"20230501{value}")
    return header


def test_the_residual_of_the_syringe_is_taken_off():
    facts = facts_of(syringe())
    # By hand: 400 x 2^(-1200/6586.236) = 352.544; 20 x 2^(900/6586.236) = 21.987; difference 330.557 MBq.
    assert facts.injected_bq == pytest.approx(330.557e6, rel=1e-5)
    assert "RadionuclideTotalDose (0018,1074) missing: 330.557 MBq taken" in facts.flags[0]
    in_bq = facts_of(syringe(before=400e6, after=20e6))
    assert in_bq.injected_bq == pytest.approx(330.557e6, rel=1e-5)
    # 0.5 MBq left, stated in Bq, is no more MBq than the 400e6 before.
    small = facts_of(syringe(before=400e6, after=0.5e6))
    assert small.injected_bq == pytest.approx((352.544 - 0.54967) * 1e6, rel=1e-5)
    # A later injection time in scans.tsv: less is left of the dose, and less was still in the syringe then.
    later = facts_of(syringe(), injected_at="2023-05-01 10:10")
    assert later.injected_bq == pytest.approx((400 * decay(1800) - 20 / decay(300)) * 1e6, rel=1e-6)


def test_an_empty_syringe_is_stated_an_unmeasured_one_is_not():
    assert facts_of(syringe(after=0.0, after_at=None)).injected_bq == pytest.approx(352.544e6, rel=1e-5)
    for unknown in ({"after": None}, {"after_at": None}, {"before_at": None}, {"before": None}):
        with pytest.raises(TheraflowError, match=r"RadionuclideTotalDose \(0018,1074\) \[injected_mbq\]"):
            suv([syringe(**unknown)])


def test_the_stated_dose_goes_before_the_syringe_and_a_difference_is_flagged():
    facts = facts_of(syringe(dose=330e6))
    assert facts.injected_bq == pytest.approx(330e6) and facts.flags == []  # 0.2 %
    facts = facts_of(syringe(dose=352e6))
    assert facts.injected_bq == pytest.approx(352e6)
    assert "syringe give 330.557 MBq, RadionuclideTotalDose (0018,1074) 352 MBq: the latter taken" in facts.flags[0]


def test_a_syringe_that_cannot_be_right_is_left_out():
    for wrong, remark in (({"after": 500.0}, "impossible: left out"), ({"before_at": "000000"}, "")):
        header = syringe(**wrong)
        if "before_at" in wrong:
            header[0x00091039].value = b"20190101094000.00"
            remark = "h from the injection: left out"
        with pytest.raises(TheraflowError, match=r"\[injected_mbq\]"):
            suv([header])
        assert remark in facts_of(header).flags[0]
    with pytest.raises(TheraflowError, match=r"GE's tracer activity \(0009,1038\) of 50000"):
        facts_of(syringe(before=50_000.0))
    assert facts_of(syringe(before=50_000.0), injected_mbq=350.0).injected_bq == 350e6


def test_ges_time_of_administration():
    header = changed(Manufacturer=GE)
    add_private(header, 0x0009103B, dt(datetime.datetime(2023, 5, 1, 10, 5)))
    quantification, facts = suv([header])
    assert quantification.factor == pytest.approx(PLAIN)
    assert "(0009,103B) differs from the time of the injection by 300 s: the latter taken" in facts.flags[0]
    del injection(header).RadiopharmaceuticalStartDateTime
    quantification, facts = suv([header])
    assert quantification.factor == pytest.approx(70e3 / (350e6 * decay(3300)))
    assert "GE's time of administration (0009,103B) taken" in facts.flags[0]


# ------------------------------------------------------------------------------------------------ patient


def test_weight_and_height_in_other_units_are_flagged():
    facts = facts_of(changed(PatientWeight=70_000, PatientSize=175))
    assert (facts.weight_kg, facts.height_m) == (70.0, 1.75)
    assert facts.flags == [
        "PatientWeight (0010,1030) is 70000: taken as g",
        "PatientSize (0010,1020) is 175: taken as cm",
    ]


@pytest.mark.parametrize("height", [0.05, 2.7, 1750])
def test_an_implausible_height_is_left_out(height):
    quantification, facts = suv([changed(PatientSize=height)])
    assert facts.height_m is None and "height_m" in facts.missing
    assert "is implausible in m and in cm: left out" in facts.flags[0]
    assert quantification.factor == pytest.approx(PLAIN)


def test_weight_and_height_that_do_not_belong_together_are_flagged():
    # Weight and height in each other's place: 1.75 kg and 70 cm.
    (_, flag) = facts_of(changed(PatientWeight=1.75, PatientSize=70)).flags
    assert "body mass index 3.57" in flag
    assert facts_of(changed(PatientWeight=3.4, PatientSize=0.5)).flags == []  # a newborn


def test_an_impossible_weight_is_refused():
    with pytest.raises(TheraflowError, match="800 kg is impossible"):
        suv([changed(PatientWeight=800)])
    for nothing in (0, -70, None):
        with pytest.raises(TheraflowError, match=r"PatientWeight \(0010,1030\) \[weight_kg\]"):
            suv([changed(PatientWeight=nothing)])


def test_a_sex_that_is_none_is_left_out():
    _, facts = suv([changed(PatientSex="X")])
    assert facts.sex is None
    assert facts.flags == ["PatientSex (0010,0040) is neither M nor F nor O: left out"]


# ------------------------------------------------------------------------------------------------ overrides


def test_an_override_that_contradicts_the_header_is_used_and_flagged():
    overrides = {"weight_kg": 80.0, "height_cm": 180.0, "injected_mbq": 300.0, "injected_at": "2023-05-01 09:30",
                 "units": "BQML", "decay_correction": "ADMIN"}  # fmt: skip
    quantification, facts = suv([pet()], **overrides)
    # The scanner has corrected to its own injection time, 10:00, half an hour after the true one.
    assert quantification.factor == pytest.approx(80e3 / (300e6 * decay(1800)))
    assert set(facts.overrides) == set(overrides)
    assert set(facts.contradicted) == set(overrides) - {"units"}
    assert len(facts.flags) == 5
    assert "weight_kg of scans.tsv (80) taken in place of PatientWeight (0010,1030) (70)" in facts.flags


def test_an_override_that_agrees_is_no_contradiction():
    agreeing = {"weight_kg": 70.0, "injected_mbq": 350.0, "injected_at": "2023-05-01 10:00", "units": "BQML",
                "acquired_at": "2023-05-01 11:00", "decay_correction": "START"}  # fmt: skip
    quantification, facts = suv([pet()], **agreeing)
    assert quantification.factor == pytest.approx(PLAIN)
    assert facts.flags == [] and set(facts.overrides) == set(agreeing)


def test_an_override_that_cannot_act_is_refused():
    header = changed(Units="GML")
    assert suv([header], weight_kg=70.0)[0].factor == 1.0
    # The height is only needed for the other kinds of SUV, so that it may be corrected.
    assert suv([header], height_cm=190.0)[0].factor == 1.0
    for contradicting in ({"weight_kg": 80.0}, {"injected_mbq": 300.0}, {"decay_correction": "NONE"}):
        with pytest.raises(TheraflowError, match=rf"{next(iter(contradicting))} in scans\.tsv contradicts the header"):
            suv([header], **contradicting)
    header.SUVType = "LBM"
    with pytest.raises(TheraflowError, match=r"height_cm in scans\.tsv contradicts the header"):
        suv([header], height_cm=190.0)


def test_an_override_of_the_injection_time_moves_values_corrected_to_injection():
    header = changed(DecayCorrection="ADMIN")
    plain = suv([header])[0].factor
    # The scanner has corrected to 10:00, but the injection was at 10:30: its activity then counts.
    moved = suv([header], injected_at="2023-05-01T10:30:00")[0].factor
    assert moved == pytest.approx(plain * decay(1800))


@pytest.mark.parametrize("how", ["START", "ADMIN", "NONE"])
def test_a_scanner_whose_clock_is_wrong_is_put_right(how):
    """All that the scanner noted is 40 minutes fast; the injection was noted by the clock of the room."""
    fast = datetime.timedelta(minutes=40)
    began = datetime.datetime(2023, 5, 1, 11, 0)
    header = changed(DecayCorrection=how, ActualFrameDuration=300_000)
    for keyword in ("Series", "Acquisition"):
        setattr(header, f"{keyword}Date", f"{began + fast:%Y%m%d}")
        setattr(header, f"{keyword}Time", f"{began + fast:%H%M%S}")
    # A concentration of 1000 Bq/mL at 11:00, and what the scanner makes of it: with ADMIN it believes that 100 minutes
    # have passed since the injection.
    integral = 6586.236 / 0.6931471805599453 * (1 - decay(300))
    shown = {"START": 1000.0, "ADMIN": 1000.0 / decay(6000), "NONE": 1000.0 * integral / 300}[how]
    if how == "NONE":
        header.CorrectedImage = ["ATTN"]
    quantification, facts = suv([header], acquired_at="2023-05-01T11:00:00")
    assert shown * quantification.factor == pytest.approx(1000.0 * PLAIN)
    assert facts.acquired_at == began
    assert "acquired_at of scans.tsv (2023-05-01 11:00:00) taken in place of" in facts.flags[0]


def test_the_reference_time_moves_along_with_the_start_of_the_acquisition():
    """A cropped series, the clock 40 minutes fast: corrected to 5 minutes before the first image that is there."""
    header = changed(SeriesTime="113500", AcquisitionTime="114000")
    quantification, _ = suv([header], acquired_at="2023-05-01T11:00:00")
    assert quantification.reference_time == datetime.datetime(2023, 5, 1, 10, 55)
    assert quantification.factor == pytest.approx(70e3 / (350e6 * decay(3300)))


def test_bed_positions_keep_their_distance_when_the_start_is_put_right():
    headers = [changed(AcquisitionTime=clock) for clock in ("120000", "120300")]
    facts = facts_of(*headers, acquired_at="2023-05-01T11:00:00")
    assert facts.acquired == [datetime.datetime(2023, 5, 1, 11, minute) for minute in (0, 3)]


def test_one_time_does_not_stand_for_several_bed_positions():
    header = changed(DecayCorrection="NONE", CorrectedImage=["ATTN"], ActualFrameDuration=300_000)
    del header.AcquisitionTime
    assert header.SeriesType[0] == "WHOLE BODY"
    with pytest.raises(TheraflowError, match="each bed position needs its own AcquisitionTime"):
        suv([header], acquired_at="2023-05-01 11:00")
    header.SeriesType = ["STATIC", "IMAGE"]
    integral = 6586.236 / 0.6931471805599453 * (decay(3600) - decay(3900))
    quantification, _ = suv([header], acquired_at="2023-05-01 11:00")
    assert quantification.factor == pytest.approx(70e3 / (350e6 * integral / 300))


def test_the_sheet_can_say_which_of_two_contradicting_statements_on_decay_is_right():
    header = changed(CorrectedImage=["ATTN"])
    with pytest.raises(TheraflowError, match=r"lacks DECY; .*decay_correction in scans\.tsv"):
        suv([header])
    quantification, facts = suv([header], decay_correction="START")
    assert quantification.factor == pytest.approx(PLAIN)
    assert "lacks DECY: decay_correction of scans.tsv taken" in facts.flags[0]


def test_units_of_the_sheet_rule_over_a_mapping():
    header = changed(Units=None)
    unit, mapping = Dataset(), Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "Bq/ml", "UCUM", "Bq/ml"
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 2.0, 0.0
    mapping.MeasurementUnitsCodeSequence = Sequence([unit])
    header.RealWorldValueMappingSequence = Sequence([mapping])
    assert facts_of(header).real_world == [(2.0, 0.0)]
    facts = facts_of(header, units="BQML")
    assert facts.real_world is None and facts.units == "BQML"
    assert "taken in place of RealWorldValueMappingSequence" in facts.flags[0]
    del mapping.RealWorldValueSlope
    with pytest.raises(TheraflowError, match=r"lacks RealWorldValueSlope \(0040,9225\)"):
        facts_of(header)


def test_a_negative_override_is_refused():
    for column in ("weight_kg", "height_cm", "injected_mbq"):
        with pytest.raises(TheraflowError, match=rf"{column} in scans\.tsv is -5; it must be positive"):
            facts_of(pet(), **{column: -5.0})
    with pytest.raises(TheraflowError, match=r"acquired_at in scans\.tsv is '11:00'"):
        facts_of(pet(), acquired_at="11:00")
