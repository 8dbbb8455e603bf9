"""SUV: the same truth, however a header states it; and refusals by name."""

import datetime
import json

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pet_statements import (
    ALL_CORRECTIONS,
    DECAYS,
    DOSES,
    FDG,
    GE,
    HALF_LIFE_S,
    SIEMENS,
    TIMES,
    VALUES,
    VOXEL_ML,
    WEIGHTS,
    Statement,
    add_private,
    decay,
    injection,
    makes_sense,
    suv,
)
from pydicom import Dataset
from pydicom.sequence import Sequence

from dicom_series import enhanced as multi_frame
from dicom_series import pet, write
from theraflow.dicom import import_emission
from theraflow.errors import TheraflowError
from theraflow.layout import Scan

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


# ------------------------------------------------------------------------------------------------ invariance

whenever = st.datetimes(datetime.datetime(2020, 1, 1), datetime.datetime(2030, 1, 1))
before_midnight = whenever.map(lambda moment: moment.replace(hour=23, minute=20 + moment.minute % 40))


@st.composite
def truths(draw):
    """A patient, an injection and a scan of two bed positions; often over midnight."""
    return {
        "suv": draw(st.floats(0.1, 50)),
        "weight_kg": draw(st.floats(35, 120)),
        "height_m": draw(st.floats(1.4, 2.0)),
        "sex": draw(st.sampled_from("MFO")),
        "dose_mbq": draw(st.floats(20, 900)),
        "injected": draw(whenever | before_midnight).replace(microsecond=0),
        "nuclide": draw(st.sampled_from([("18F", 6586.236), ("68Ga", 4062.6)])),
        "delay_s": draw(st.integers(600, 3 * 3600)),
        "bed_s": draw(st.integers(60, 600)),
    }


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(truths(), *(st.sampled_from(ways) for ways in (VALUES, DECAYS, DOSES, WEIGHTS, TIMES)))
def test_suv_does_not_depend_on_how_it_is_stated(truth, values, decays, dose, weight, time):
    assume(makes_sense(values, decays, dose, weight, time))
    found, _ = Statement(truth, values, decays, dose, weight, time).suv()
    # GE's activities are single precision.
    assert found == pytest.approx(truth["suv"], rel=2e-6)


TRUTH = {
    "suv": 4.2, "weight_kg": 63.0, "height_m": 1.68, "sex": "F", "dose_mbq": 240.0, "nuclide": ("18F", HALF_LIFE_S),
    "injected": datetime.datetime(2023, 5, 1, 23, 31), "delay_s": 3720, "bed_s": 150,
}  # fmt: skip


@pytest.mark.parametrize(
    "way",
    [{"values": way} for way in VALUES] + [{"decay": way} for way in DECAYS] + [{"dose": way} for way in DOSES]
    + [{"weight": way} for way in WEIGHTS] + [{"time": way} for way in TIMES],
    ids=lambda way: next(iter(way.values())),
)  # fmt: skip
def test_each_way_to_state_a_scan_over_midnight(way):
    """Every single one at least once, whatever hypothesis draws."""
    found, _ = Statement(TRUTH, **way).suv()
    assert found == pytest.approx([4.2, 4.2], rel=2e-6)


# ------------------------------------------------------------------------------------------------ reference time


def test_the_reference_times_are_ranked_and_their_disagreement_flagged():
    header = pet()
    header.AcquisitionTime = "110200"
    header.FrameReferenceTime, header.ActualFrameDuration = 0, 240_000
    quantification, facts = suv([header])
    assert quantification.reference_source == "SeriesDate and SeriesTime"
    assert quantification.reference_time == datetime.datetime(2023, 5, 1, 11)
    assert quantification.factor == pytest.approx(70e3 / (350e6 * decay(3600)))
    # Computed: 11:02:00 + half of 240 s (less 1 s of decay), 240 s later than the series.
    (flag,) = facts.flags
    assert "FrameReferenceTime it would be 239 s later (2.5 % of the values)" in flag or "240 s later" in flag
    header.SeriesTime = "113000"
    quantification, facts = suv([header])
    assert quantification.reference_source == "FrameReferenceTime"
    assert "after the first acquisition" in facts.flags[0]


def test_makers_go_before_the_standard_and_that_before_the_series():
    """Each 40 s apart, so that every one that is not taken is flagged: 2^(-40 s/T) is 0.42 %."""
    header = pet()
    header.AcquisitionTime = "110300"
    header.DecayCorrectionDateTime = "20230501110040"
    header.add_new(0x00710010, "LO", "SIEMENS MED PT")
    header.add_new(0x00711022, "DT", "20230501110120.000000")
    header.add_new(0x00090010, "LO", "GEMS_PETD_01")
    header.add_new(0x0009100D, "DT", "20230501110200")
    for source, at, others in (
        ("GE", 120, 3),
        ("Siemens", 80, 2),
        ("DecayCorrectionDateTime", 40, 1),
        ("Series", 0, 0),
    ):
        quantification, facts = suv([header])
        assert quantification.reference_source.startswith(source)
        assert quantification.factor == pytest.approx(70e3 / (350e6 * decay(3600 + at)))
        assert len(facts.flags) == others
        if others:
            assert "it would be 40 s earlier (0.42 % of the values)" in facts.flags[0]
        tag = {"GE": 0x0009100D, "Siemens": 0x00711022, "DecayCorrectionDateTime": 0x00189701}.get(source)
        if tag:
            del header[tag]


@pytest.mark.parametrize(
    ("maker", "tag", "name"), [(GE, 0x0009100D, "0009,100D"), (SIEMENS, 0x00711022, "0071,1022")]
)  # fmt: skip
@pytest.mark.parametrize("value", ["20190101110000", "20230501113000"])
def test_a_makers_time_from_before_anonymisation_or_after_the_scan_is_not_used(maker, tag, name, value):
    header = pet()
    header.Manufacturer = maker
    add_private(header, tag, value)
    quantification, facts = suv([header])
    assert quantification.reference_source.startswith("SeriesDate")
    assert name in facts.flags[0]


def test_no_reference_time_left():
    header = pet()
    header.SeriesTime = "113000"
    with pytest.raises(TheraflowError, match=r"SeriesTime lie 1800 s after the first.*acquired_at in scans"):
        suv([header])
    # That the header's start of the acquisition is right, and START refers to it, the sheet can confirm.
    quantification, facts = suv([header], acquired_at="2023-05-01 11:00")
    assert quantification.factor == pytest.approx(70e3 / (350e6 * decay(3600)))
    assert "acquired_at" in quantification.reference_source
    assert facts.overrides == ["acquired_at"] and facts.contradicted == []


def test_contradicting_frames_give_no_reference_time():
    first, second = pet(), pet()
    for header, at, since in ((first, "110000", 60_000), (second, "110300", 60_000)):
        header.SeriesDate = "20400101"
        header.AcquisitionTime, header.FrameReferenceTime, header.ActualFrameDuration = at, since, 120_000
    with pytest.raises(TheraflowError, match="contradict each other by 180 s"):
        suv([first, second])


def enhanced(**stated):
    """One frame of an enhanced PET in Bq/mL, 350 MBq at 10:00 and the scan at 11:00."""
    header = pet()
    del header.DecayCorrection, header.CorrectedImage, header.Units
    header.SOPClassUID, header.RescaleType = "1.2.840.10008.5.1.4.1.1.130", "BQML"
    header.AttenuationCorrected = header.DecayCorrected = "YES"
    injection(header).RadionuclideTotalDose = 350
    for keyword, value in stated.items():
        setattr(header, keyword, value)
    return header


def test_an_enhanced_pet_states_its_reference_time_itself():
    quantification, facts = suv([enhanced(DecayCorrectionDateTime="20230501103000")])
    assert quantification.factor == pytest.approx(70e3 / (350e6 * decay(1800)))
    assert quantification.reference_source == "DecayCorrectionDateTime (0018,9701)"
    assert facts.flags == []  # MBq is what the standard asks for
    # The series time is none of an enhanced PET's ways to state it.
    with pytest.raises(TheraflowError, match=r"DecayCorrectionDateTime \(0018,9701\).*decay_correction"):
        suv([enhanced()])
    with pytest.raises(TheraflowError, match=r"DecayCorrectionDateTime \(0018,9701\)"):
        suv([enhanced()], acquired_at="2023-05-01 11:00")
    stated = suv([enhanced()], acquired_at="2023-05-01 11:00", decay_correction="START")[0]
    assert stated.factor == pytest.approx(70e3 / (350e6 * decay(3600)))
    for impossible in ("20230501095000", "20230502110000"):
        with pytest.raises(TheraflowError, match=r"lies before the injection .* or long after the scan"):
            suv([enhanced(DecayCorrectionDateTime=impossible)])


def test_an_enhanced_pet_without_correction_is_refused_by_name():
    with pytest.raises(TheraflowError, match="not attenuation-corrected"):
        suv([enhanced(AttenuationCorrected="NO", DecayCorrectionDateTime="20230501110000")])
    # Not decay-corrected: mean over 10 minutes from 11:00 on, integrated; without the duration it cannot be told.
    frame = enhanced(DecayCorrected="NO", FrameAcquisitionDuration=600_000.0)
    integral = HALF_LIFE_S / np.log(2) * (decay(3600) - decay(4200))
    assert suv([frame])[0].factor == pytest.approx(70e3 / (350e6 * integral / 600))
    with pytest.raises(TheraflowError, match=r"ActualFrameDuration \(0018,1242\)"):
        suv([enhanced(DecayCorrected="NO")])


@pytest.mark.parametrize("stated", ["RescaleType", "mapping"])
def test_an_enhanced_pet_from_file_to_suv(tmp_path, stated):
    """Three bed positions of 2 minutes as frames of one object, in Bq/mL without decay correction; slopes differ."""
    stored = np.arange(60).reshape(3, 4, 5)
    changes = [{"FrameAcquisitionDateTime": f"2023050111{minute:02d}00", "FrameAcquisitionDuration": 120_000.0}
               for minute in (4, 2, 0)]  # fmt: skip
    dataset = multi_frame("PT", stored, slopes=(1, 2, 5), changes=changes)
    dataset.PatientWeight, dataset.AttenuationCorrected, dataset.DecayCorrected = 70, "YES", "NO"
    item = Dataset()
    item.RadiopharmaceuticalStartDateTime, item.RadionuclideTotalDose = "20230501100000", 350
    item.RadionuclideHalfLife = HALF_LIFE_S
    dataset.RadiopharmaceuticalInformationSequence = Sequence([item])
    slopes = np.array([1.0, 2.0, 5.0])
    if stated == "RescaleType":
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            frame.PixelValueTransformationSequence[0].RescaleType = "BQML"
    else:
        mapped = Statement(TRUTH, "BQML by mapping").headers[0].RealWorldValueMappingSequence
        dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = mapped
        slopes[:] = 2.0  # the mapping is from stored values
    write(dataset, tmp_path / "in" / "pet")
    row = Scan("P001", "scan1", "FDG", "baseline", str(tmp_path / "in"), "suv")
    import_emission(row, FDG, tmp_path / "pet.nii.gz")
    found = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "pet.nii.gz"))
    for k, minute in enumerate((4, 2, 0)):
        since = 3600 + 60 * minute
        mean = HALF_LIFE_S / np.log(2) * (decay(since) - decay(since + 120)) / 120
        assert found[k] == pytest.approx(stored[k] * slopes[k] * 70e3 / (350e6 * mean), rel=1e-6)


# ------------------------------------------------------------------------------------------------ units


def test_private_elements_of_another_maker_are_not_read():
    header = pet()
    header.Units, header.Manufacturer, header.ActualFrameDuration = "CNTS", "SIEMENS", 120_000
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
    # 4 Bq/mL are 4 x 70e3 / (350e6 x 2^(-3600/T)) = 0.001168 SUV, 42 % less.
    assert "differ by 42 %" in facts.flags[0]
    header.PatientWeight = None
    quantification, facts = suv([header])
    assert quantification.factor == 0.002
    assert "cannot be checked by (7053,1009): the SUV cannot be computed; missing are PatientWeight" in facts.flags[0]


def count_rate(units, **stated):
    header = pet()
    header.Units, header.CorrectedImage, header.ActualFrameDuration = units, list(ALL_CORRECTIONS), 120_000
    for keyword, value in stated.items():
        setattr(header, keyword, value)
    return header


def test_count_rates_only_where_the_corrections_prove_them():
    per_bq_per_ml = 70e3 / (350e6 * decay(3600))
    calibrated = count_rate("CPS", CorrectedImage=[*ALL_CORRECTIONS, "DCAL"])
    assert suv([calibrated])[0].factor == pytest.approx(per_bq_per_ml / VOXEL_ML)
    # DCAL says that the factor has been applied: it must not be applied again.
    calibrated.DoseCalibrationFactor = 3.5
    assert suv([calibrated])[0].factor == pytest.approx(per_bq_per_ml / VOXEL_ML)
    factor, facts = suv([count_rate("CPS", DoseCalibrationFactor=3.5)])
    assert factor.factor == pytest.approx(per_bq_per_ml * 3.5 / VOXEL_ML)
    assert "DoseCalibrationFactor (0054,1322) applied" in facts.flags[0]
    # Each slice has its own factor and its own duration.
    headers = [count_rate("CNTS", DoseCalibrationFactor=factor, ActualFrameDuration=ms)
               for factor, ms in ((2.0, 60_000), (4.0, 240_000))]  # fmt: skip
    expected = [per_bq_per_ml * 2.0 / 60 / VOXEL_ML, per_bq_per_ml * 4.0 / 240 / VOXEL_ML]
    assert suv(headers)[0].factors == pytest.approx(expected)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (count_rate("CPS"), "lacks DCAL and DoseCalibrationFactor"),
        # PS3.3 C.8.9.4.1.8: one, where no dose calibration was applied.
        (count_rate("CPS", DoseCalibrationFactor=1), "lacks DCAL and DoseCalibrationFactor"),
        (count_rate("CPS", DoseCalibrationFactor=0), "lacks DCAL and DoseCalibrationFactor"),
        (count_rate("CPS", CorrectedImage=["ATTN", "DECY", "DCAL"]), "lacks NORM, DTIM, SCAT, RAN"),
        (count_rate("CPS", DoseCalibrationFactor=3.5, SliceThickness=None), r"SliceThickness \(0018,0050\)"),
        (count_rate("CNTS", DoseCalibrationFactor=3.5, ActualFrameDuration=0), r"ActualFrameDuration \(0018,1242\)"),
        (count_rate("PROPCNTS"), "PROPCNTS cannot be turned into SUV: the factor between the values and counts"),
        (count_rate("PROPCPS"), "PROPCPS cannot be turned into SUV: the factor between the values and count rates"),
        (count_rate("1CM"), "1CM cannot be turned into SUV: they are an attenuation map"),
        (count_rate("UMOLML"), "UMOLML cannot be turned into SUV: they are no activity concentration"),
        (count_rate("GML", SUVType="BSA"), "BSA with Units GML is not known"),
        (count_rate("GML", SUVType="XYZ"), "XYZ with Units GML is not known"),
        (count_rate("CM2ML", SUVType="LBM"), "LBM with Units CM2ML is not known"),
        (count_rate("GML", SUVType="LBM", PatientSize=None), r"PatientSize \(0010,1020\) \[height_cm\]"),
        (count_rate("GML", SUVType="LBM", PatientSex=None), r"PatientSex \(0010,0040\)"),
        (count_rate("CM2ML", PatientWeight=0), r"PatientWeight \(0010,1030\) \[weight_kg\]"),
        (count_rate("GML", SUVType="IBW", PatientSize=1.02, PatientWeight=16), "ideal body weight .* would be -5 kg"),
    ],
    ids=lambda case: "" if isinstance(case, Dataset) else case[:40],
)
def test_units_that_are_refused_by_name(header, message):
    with pytest.raises(TheraflowError, match=message):
        suv([header])


def test_units_and_suv_type_are_the_same_in_all_slices():
    other = pet()
    other.Units = "CNTS"
    with pytest.raises(TheraflowError, match=r"Units \(0054,1001\) differs"):
        suv([pet(), other])
    first, second = count_rate("GML", SUVType="BW"), count_rate("GML", SUVType="LBM")
    with pytest.raises(TheraflowError, match=r"SUVType \(0054,1006\) differs"):
        suv([first, second])


def test_a_mapping_to_bq_per_ml_rules_over_units_that_say_less():
    header = Statement(TRUTH, "BQML by mapping").headers[0]
    header.Units = "CNTS"
    quantification, facts = suv([header])
    assert quantification.factor == pytest.approx(63e3 / (240e6 * decay(3720)))
    assert "Units (0054,1001) CNTS, but a real-world value mapping to Bq/ml exists" in facts.flags[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"CorrectedImage": ["DECY"]}, "not attenuation-corrected"),
        ({"CorrectedImage": ["ATTN"]}, "lacks DECY"),
        ({"CorrectedImage": None}, r"CorrectedImage \(0028,0051\)"),
        ({"DecayCorrection": "SOMETIMES"}, "SOMETIMES"),
    ],
)
def test_corrections_that_are_refused(change, message):
    header = pet()
    for keyword, value in change.items():
        setattr(header, keyword, value)
    with pytest.raises(TheraflowError, match=message):
        suv([header])
