"""Activity of PET and SPECT, in Bq/mL and in counts: the same truth, however a header states it; refusals by name."""

import datetime
import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import assume, given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence
from scipy.optimize import brentq

from dicom_series import header as seen
from dicom_series import pet, spect, write
from theraflow.dicom import import_emission
from theraflow.dicom.export.index import read_index
from theraflow.dicom.quantity.activity import Counted, quantify_activity
from theraflow.dicom.quantity.camera import Calibration, count_rescale, read_counting, true_rate_cps
from theraflow.dicom.quantity.facts import read_facts
from theraflow.dicom.voxels.frames import Slice
from theraflow.errors import TheraflowError
from theraflow.images import read_sidecar
from theraflow.layout import Scan

LUTETIUM = {"radiopharmaceutical": "[177Lu]pentixather", "nuclide": "177Lu", "quantity": "activity"}
LU_HALF_LIFE_S = 6.647 * 86400
VOXEL_ML = 2.0 * 3.0 * 4.0 / 1000.0  # as `pet` and `spect` state it


def scan(folder="dicom", **overrides):
    return Scan("P001", "spect", "lutetium", "baseline", str(folder), "activity", **overrides)


def activity(headers, counted=None, tracer=LUTETIUM, **overrides):
    facts = read_facts([seen(header) for header in headers], scan(**overrides), tracer, "series")
    return quantify_activity(facts, counted), facts


def injection(header):
    return header.RadiopharmaceuticalInformationSequence[0]


def decay(seconds, half_life_s=LU_HALF_LIFE_S):
    return 2.0 ** (-seconds / half_life_s)


def lutetium_pt():
    header = pet()
    header.AcquisitionDate = header.SeriesDate = "20230504"
    injection(header).RadionuclideHalfLife = LU_HALF_LIFE_S
    injection(header).RadionuclideTotalDose = 7.4e9
    return header


def rotation(views, milliseconds=None, table_mm=None):
    item = Dataset()
    item.NumberOfFramesInRotation = views
    if milliseconds is not None:
        item.ActualFrameDuration = milliseconds
    if table_mm is not None:
        item.TableTraverse = table_mm
    return item


def in_counts(*rotations, stored=None):
    """A reconstruction in counts; 60 views of 20 s unless told otherwise."""
    header = spect(np.ones((3, 4, 5)) if stored is None else stored)
    del header.RealWorldValueMappingSequence
    header.RotationInformationSequence = Sequence(rotations or [rotation(60, 20_000)])
    header.NumberOfRotations = len(header.RotationInformationSequence)
    return header


def counted(header, **calibration):
    counting = read_counting([seen(header)] * 3)
    return Counted(counting, Calibration(**{"sensitivity_cps_per_mbq": 9.0, **calibration}), VOXEL_ML)


# ------------------------------------------------------------------------------------------------ in Bq/mL


def test_activity_is_that_at_the_start_of_the_acquisition():
    started, later = lutetium_pt(), lutetium_pt()
    later.AcquisitionTime = "113000"
    assert activity([started, later])[0].factors == pytest.approx([1.0, 1.0])
    since = 3 * 86400 + 3600
    for header in (started, later):
        header.DecayCorrection = "ADMIN"
    assert activity([started, later])[0].factors == pytest.approx([decay(since)] * 2)
    for header in (started, later):
        header.DecayCorrection, header.CorrectedImage, header.ActualFrameDuration = "NONE", ["ATTN"], 1_800_000
    rate = math.log(2) / LU_HALF_LIFE_S
    over_mean = 1800 * rate / (1 - math.exp(-1800 * rate))
    expected = [over_mean, over_mean / decay(1800)]
    assert activity([started, later])[0].factors == pytest.approx(expected, rel=1e-9)


def test_an_overridden_injection_time_does_not_change_what_the_scanner_has_undone():
    header = lutetium_pt()
    header.DecayCorrection = "ADMIN"
    quantification, facts = activity([header], injected_at="2023-05-01T11:00:00")
    assert quantification.factor == pytest.approx(decay(3 * 86400 + 3600))
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
    header.CorrectedImage = ["SCAT"]
    with pytest.raises(TheraflowError, match="not attenuation-corrected"):
        activity([header])
    header = spect(np.ones((3, 4, 5)))
    del header.CorrectedImage
    assert "that attenuation is corrected for is not stated" in activity([header])[1].flags[0]
    header = spect(np.ones((3, 4, 5)))
    del header.RealWorldValueMappingSequence
    with pytest.raises(TheraflowError, match=r"calibration factor is needed: export .* Bq/mL, or .* calibration with"):
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


# ------------------------------------------------------------------------------------------------ in counts


def test_counts_worked_by_hand():
    """60 views of 20 s, 9 cps/MBq: 100 MBq/mL in 0.024 mL give 25920 counts, were it not for the decay."""
    header = in_counts()
    quantification, _ = activity([header] * 3, counted(header))
    without_decay = quantification.factors * 9.0 * 1200.0 * 100.0 * 0.024
    # The mean over 20 min of 177Lu is 0.0724 % below the start: half of 1200 s times ln 2 / 574300.8 s.
    assert without_decay == pytest.approx([100e6 * 1.000724] * 3, rel=1e-6)
    assert "mean of the acquisition brought to its start" in quantification.rule


@st.composite
def truths(draw):
    views, frame_ms = 2 * draw(st.integers(10, 60)), draw(st.integers(1_000, 60_000))
    return {
        "activity_mbq": draw(st.floats(1.0, 10_000.0)),
        "views": views,
        "frame_ms": frame_ms,
        "duration_s": views * frame_ms / 1000.0,
        "sensitivity": draw(st.floats(3.0, 300.0)),
        "delay_s": draw(st.integers(3600, 10 * 86400)),
        # Tc-99m decays by some percent while it is scanned.
        "nuclide": draw(st.sampled_from([("177Lu", LU_HALF_LIFE_S), ("99mTc", 6.015 * 3600)])),
        "lost": draw(st.floats(0.0, 0.9)),  # true rate times dead time
    }


STATEMENTS = (
    "counts", "counts, duration outside", "counts, two turns", "counts, two beds", "counts, dead time",
    "counts, corrected to injection", "real world", "NM BQML", "PT ADMIN", "PT START", "PT NONE",
)  # fmt: skip


def state(truth, statement):
    """One slice of one voxel that holds all activity: header, value of the voxel, and what is known of counts."""
    half_life = truth["nuclide"][1]
    rate = math.log(2) / half_life
    started = datetime.datetime(2023, 5, 1, 10) + datetime.timedelta(seconds=truth["delay_s"])
    concentration = truth["activity_mbq"] * 1e6 / VOXEL_ML
    views, frame_ms, duration = truth["views"], truth["frame_ms"], truth["duration_s"]
    mean = concentration * (1 - math.exp(-rate * duration)) / (rate * duration)
    known = None
    if statement.startswith("PT"):
        header, value = lutetium_pt(), concentration
        header.ActualFrameDuration = round(duration * 1000)
        header.SeriesDate, header.SeriesTime = f"{started:%Y%m%d}", f"{started:%H%M%S}"
        injection(header).RadionuclideHalfLife = half_life
        header.DecayCorrection = statement.split()[1]
        if statement == "PT ADMIN":
            value = concentration * math.exp(rate * truth["delay_s"])
        if statement == "PT NONE":
            header.CorrectedImage, value = ["ATTN"], mean
    elif statement in ("real world", "NM BQML"):
        header, value = spect(np.ones((1, 4, 5))), concentration
        if statement == "NM BQML":
            header.Units = "BQML"
    else:
        turns = {
            "counts, duration outside": [rotation(views)],
            "counts, two turns": [rotation(views // 2, frame_ms, 80.0)] * 2,
            "counts, two beds": [rotation(views, frame_ms, 80.0), rotation(views, frame_ms, 480.0)],
        }
        header = in_counts(*turns.get(statement, [rotation(views, frame_ms)]))
        if statement == "counts, duration outside":
            header.ActualFrameDuration = frame_ms
        value = mean * VOXEL_ML / 1e6 * truth["sensitivity"] * duration
        calibration = {"sensitivity_cps_per_mbq": truth["sensitivity"]}
        if statement == "counts, corrected to injection":
            header.CorrectedImage, header.DecayCorrection = ["ATTN", "DECY"], "ADMIN"
            value *= concentration / mean * math.exp(rate * truth["delay_s"])
        if statement == "counts, dead time":
            true = 40_000.0
            dead_time_s = truth["lost"] / true
            observed = true * math.exp(-true * dead_time_s)
            value *= observed / true
            # A whole number of counts, which the header holds; the rounding stays below 1e-4.
            header.CountsAccumulated = round(observed * duration)
            calibration |= {"dead_time_us": dead_time_s * 1e6} if dead_time_s else {}
        known = counted(header, **calibration)
    header.AcquisitionDate, header.AcquisitionTime = f"{started:%Y%m%d}", f"{started:%H%M%S}"
    return header, value, known


@given(truths(), st.sampled_from(STATEMENTS))
def test_activity_does_not_depend_on_how_it_is_stated(truth, statement):
    name, half_life = truth["nuclide"]
    assume(truth["delay_s"] < 9 * half_life)
    header, value, known = state(truth, statement)
    quantification, facts = activity([header], known, {**LUTETIUM, "nuclide": name})
    found = value * quantification.factors[0] * VOXEL_ML / 1e6
    assert found == pytest.approx(truth["activity_mbq"], rel=1e-3 if statement == "counts, dead time" else 1e-6)
    assert (statement == "counts, two beds") == any("positions of the table" in flag for flag in facts.flags)


def test_all_that_counts_need_is_named_at_once():
    header = in_counts(rotation(0))
    del header.AcquisitionTime
    with pytest.raises(TheraflowError) as error:
        activity([header], counted(header, dead_time_us=1.0))
    for name in (
        "AcquisitionTime (0008,0032)",
        "NumberOfFramesInRotation (0054,0053)",
        "ActualFrameDuration (0018,1242)",
        "CountsAccumulated (0018,0070)",
    ):
        assert name in str(error.value)
    # Without dead time nobody needs the counts.
    with pytest.raises(TheraflowError) as error:
        activity([header], counted(header))
    assert "CountsAccumulated" not in str(error.value)
    del header.RotationInformationSequence
    with pytest.raises(TheraflowError, match=r"missing are .*RotationInformationSequence \(0054,0052\)"):
        activity([header], counted(header))
    header = in_counts(rotation(30, 20_000), rotation(30, 20_000))
    with pytest.raises(TheraflowError, match=r"TableTraverse \(0018,1131\)"):
        activity([header], counted(header))


def test_contradictory_rotations_are_refused():
    header = in_counts(rotation(30, 20_000, 0.0), rotation(30, 10_000, 400.0))
    with pytest.raises(TheraflowError, match="positions of the table were counted for different times"):
        counted(header)
    header = in_counts()
    header.NumberOfRotations = 2
    with pytest.raises(TheraflowError, match=r"NumberOfRotations \(0054,0051\) is 2, but .* has 1 items"):
        counted(header)
    with pytest.raises(TheraflowError, match="differs between files"):
        read_counting([seen(in_counts()), seen(in_counts(rotation(30, 20_000)))])


def test_a_pet_in_counts_is_not_calibrated_by_a_camera():
    header = lutetium_pt()
    header.Units = "CNTS"
    with pytest.raises(TheraflowError, match=r"not in Bq/mL \(Units \(0054,1001\) is CNTS"):
        activity([header], counted(in_counts()))


# ------------------------------------------------------------------------------------------------ dead time


@given(st.floats(0.0, 0.99), st.floats(0.05, 50.0))
def test_dead_time_against_a_search_for_the_root(true_times_dead_time, dead_time_us):
    dead_time_s = dead_time_us * 1e-6
    true = true_times_dead_time / dead_time_s
    observed = true * math.exp(-true * dead_time_s)
    searched = brentq(
        lambda rate: rate * math.exp(-rate * dead_time_s) - observed, 0.0, 1.0 / dead_time_s, xtol=1e-9, rtol=1e-14
    )
    found = true_rate_cps(observed, dead_time_s)
    # At the maximum the curve is flat, so that a rate is known to the root of the precision only.
    assert found == pytest.approx(searched, rel=1e-6, abs=1e-6)
    assert found == pytest.approx(true, rel=1e-6, abs=1e-6)


def test_a_rate_beyond_the_maximum_is_refused():
    # 1 / (e 2 us) = 183940 counts/s.
    assert true_rate_cps(183_900.0, 2e-6) < 500_000.0
    with pytest.raises(TheraflowError, match=r"beyond 183940 counts/s, .* dead time of 2 us"):
        true_rate_cps(184_000.0, 2e-6)
    header = in_counts()
    header.CountsAccumulated = 184_000 * 1200
    with pytest.raises(TheraflowError, match=r"series: the observed rate of 184000 counts/s"):
        activity([header], counted(header, dead_time_us=2.0))


# ------------------------------------------------------------------------------------------------ whole import


def window(*limits):
    ranges = []
    for low, high in limits:
        item = Dataset()
        item.EnergyWindowLowerLimit, item.EnergyWindowUpperLimit = low, high
        ranges.append(item)
    found = Dataset()
    found.EnergyWindowRangeSequence = Sequence(ranges)
    return found


SCATTER, PEAK = window((150.0, 180.0)), window((187.2, 228.8))


def imported(dataset, folder, **tracer):
    write(dataset, folder / "in" / "spect")
    import_emission(scan(folder / "in"), {**LUTETIUM, **tracer}, folder / "spect.nii.gz")
    return sitk.GetArrayFromImage(sitk.ReadImage(folder / "spect.nii.gz")), read_sidecar(folder / "spect.nii.gz")


def test_import_of_counts_with_everything(tmp_path):
    """50 MBq in all; 177Lu for 20 min; a tenth of the counts lost; the peak behind a scatter window."""
    stored = np.arange(120).reshape(6, 4, 5)
    header = in_counts(stored=stored)
    header.EnergyWindowInformationSequence = Sequence([SCATTER, PEAK])
    header.EnergyWindowVector = [1, 1, 1, 2, 2, 2]
    header.SliceVector = [1, 2, 3, 1, 2, 3]
    dead_time_us, lost = 2.0, 0.9
    true_cps = -math.log(lost) / (dead_time_us * 1e-6)
    header.CountsAccumulated = round(true_cps * lost * 1200.0)
    rate = math.log(2) / LU_HALF_LIFE_S
    mean_mbq = 50.0 * (1 - math.exp(-rate * 1200)) / (rate * 1200)
    sensitivity = stored[3:].sum() / lost / 1200.0 / mean_mbq
    array, sidecar = imported(
        header,
        tmp_path,
        photopeak_kev=208,
        calibration={
            "sensitivity_cps_per_mbq": sensitivity,
            "sensitivity_sd_cps_per_mbq": 0.1,
            "dead_time_us": dead_time_us,
        },
    )
    assert array.sum(dtype=float) * VOXEL_ML / 1e6 == pytest.approx(50.0, rel=1e-5)
    assert array[0, 0, 1] / array[0, 0, 0] == pytest.approx(61 / 60)
    told = sidecar["activity"]
    assert told["energy_window_kev"] == [[187.2, 228.8]]
    assert told["duration_s"] == 1200.0
    assert told["dead_time_us"] == 2.0
    assert told["dead_time_factor"] == pytest.approx(1 / lost, rel=1e-6)
    assert told["observed_cps"] == pytest.approx(true_cps * lost, rel=1e-6)
    assert told["sensitivity_cps_per_mbq"] == sensitivity and told["sensitivity_sd_cps_per_mbq"] == 0.1
    assert told["rule"].startswith("counts over duration, sensitivity and voxel volume")


def test_a_calibrated_image_is_not_calibrated_again(tmp_path):
    stored = np.arange(60).reshape(3, 4, 5)
    calibration = {"sensitivity_cps_per_mbq": 9.0, "dead_time_us": 2.0}
    array, sidecar = imported(spect(stored, slope=0.25), tmp_path, calibration=calibration)
    assert np.array_equal(array, stored * np.float32(0.25))
    told = sidecar["activity"]
    assert told["sensitivity_cps_per_mbq"] is None and told["dead_time_factor"] is None


def test_energy_windows(tmp_path):
    stored = np.concatenate([np.full((3, 4, 5), 7), np.full((3, 4, 5), 9)])
    header = spect(stored, slope=1.0)
    header.EnergyWindowInformationSequence = Sequence([PEAK, SCATTER])
    header.EnergyWindowVector = [1, 1, 1, 2, 2, 2]
    header.SliceVector = [1, 2, 3, 1, 2, 3]
    array, sidecar = imported(header, tmp_path, photopeak_kev=208)
    assert array.shape == (3, 4, 5) and (array == 7).all()
    assert sidecar["activity"]["energy_window_kev"] == [[187.2, 228.8]]
    with pytest.raises(TheraflowError, match=r"187.2 to 228.8 keV; 150 to 180 keV\); set photopeak_kev"):
        imported(header, tmp_path)
    with pytest.raises(TheraflowError, match="photopeak of 113 keV lies in 0 of its energy windows"):
        imported(header, tmp_path, photopeak_kev=113)
    # A window over both peaks of 177Lu does not hold what lies between them.
    header.EnergyWindowInformationSequence = Sequence([window((101.7, 124.3), (187.2, 228.8)), SCATTER])
    assert (imported(header, tmp_path, photopeak_kev=113)[0] == 7).all()
    assert (imported(header, tmp_path, photopeak_kev=160)[0] == 9).all()
    header.EnergyWindowInformationSequence = Sequence([PEAK, window((200.0, 230.0))])
    with pytest.raises(TheraflowError, match="lies in 2 of its energy windows"):
        imported(header, tmp_path, photopeak_kev=208)
    header.EnergyWindowInformationSequence = Sequence([PEAK])
    with pytest.raises(TheraflowError, match=r"EnergyWindowVector \(0054,0010\) does not fit"):
        imported(header, tmp_path, photopeak_kev=208)


def test_the_only_window_must_hold_the_photopeak(tmp_path):
    header = spect(np.ones((3, 4, 5)))
    header.EnergyWindowInformationSequence = Sequence([SCATTER])
    with pytest.raises(TheraflowError, match=r"208 keV lies in 0 of its energy windows \(150 to 180 keV\)"):
        imported(header, tmp_path, photopeak_kev=208)
    assert imported(header, tmp_path)[1]["activity"]["energy_window_kev"] == [[150.0, 180.0]]
    del header.EnergyWindowInformationSequence
    assert imported(header, tmp_path, photopeak_kev=208)[1]["activity"]["energy_window_kev"] is None


@pytest.mark.parametrize("count", [0x7FFFFFFF, -3])
def test_an_impossible_number_of_frames_is_refused(tmp_path, count):
    header = spect(np.ones((3, 4, 5)))
    header.NumberOfFrames = count
    with pytest.raises(TheraflowError, match=r"NumberOfFrames \(0028,0008\) is|with -3 slices"):
        imported(header, tmp_path)


# ------------------------------------------------------------------------------------------------ stored values


def first_slice(dataset, folder):
    (series,) = read_index(write(dataset, folder / "one").parent).series
    return Slice(series.instances[0], 0, series.header)


def test_stored_values_to_counts(tmp_path):
    header = in_counts()
    assert count_rescale(first_slice(header, tmp_path)) == (1.0, 0.0)
    header.add_new(0x00330010, "LO", "SIEMENS MED NM")
    header.add_new(0x00331038, "FL", 8.0)
    assert count_rescale(first_slice(header, tmp_path)) == (0.125, 0.0)
    header.RescaleSlope, header.RescaleIntercept = 0.25, 0.0
    assert count_rescale(first_slice(header, tmp_path)) == (0.25, 0.0)
    del header.RescaleIntercept
    with pytest.raises(TheraflowError, match=r"lacks RescaleIntercept"):
        count_rescale(first_slice(header, tmp_path))
    header = spect(np.ones((3, 4, 5)))
    unit = header.RealWorldValueMappingSequence[0].MeasurementUnitsCodeSequence[0]
    unit.CodeValue = "g/ml{SUVbw}"
    with pytest.raises(TheraflowError, match=r"says 'g/ml\{SUVbw\}', neither Bq/ml nor counts"):
        count_rescale(first_slice(header, tmp_path))
    unit.CodeValue = "{counts}"
    assert count_rescale(first_slice(header, tmp_path)) == (1.0, 0.0)


@pytest.mark.shared_data
def test_the_window_of_a_spect_stored_as_pet(shared_data, tmp_path: Path):
    folder = shared_data / "lu177_spect" / "SCAN_001"
    import_emission(scan(folder), {**LUTETIUM, "photopeak_kev": 208.0}, tmp_path / "spect.nii.gz")
    told = read_sidecar(tmp_path / "spect.nii.gz")["activity"]
    (limits,) = told["energy_window_kev"]
    assert limits == pytest.approx([187.56, 229.24], abs=0.01)
    assert told["sensitivity_cps_per_mbq"] is None
