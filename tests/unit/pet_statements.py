"""One and the same PET, stated in every legal way; and the shortest way to its SUV."""

import copy
import datetime
import math
import struct

import numpy as np
from pydicom import Dataset
from pydicom.sequence import Sequence

from dicom_series import header as seen
from dicom_series import pet
from theraflow.dicom.quantity.facts import read_facts
from theraflow.dicom.quantity.suv import quantify_suv
from theraflow.layout import Scan

FDG = {"radiopharmaceutical": "[18F]FDG", "nuclide": "18F", "quantity": "suv"}
HALF_LIFE_S = 6586.236  # of 18F, as `pet()` states it
VOXEL_ML = 0.024  # 2 x 3 x 4 mm, as `pet()` has it
ALL_CORRECTIONS = ["NORM", "DTIM", "ATTN", "SCAT", "DECY", "RANSNG"]
ENHANCED_PET = "1.2.840.10008.5.1.4.1.1.130"
GE, SIEMENS, PHILIPS = "GE MEDICAL SYSTEMS", "SIEMENS", "Philips Medical Systems"


def scan(quantity="suv", **overrides):
    return Scan("P001", "fdg", "FDG", "baseline", "dicom", quantity, **overrides)


def suv(headers, tracer=FDG, **overrides):
    facts = read_facts([seen(header) for header in headers], scan(**overrides), tracer, "series")
    return quantify_suv(facts), facts


def decay(seconds, half_life_s=HALF_LIFE_S):
    return 2.0 ** (-seconds / half_life_s)


def injection(header):
    return header.RadiopharmaceuticalInformationSequence[0]


def dt(moment, zone=None, local="+0000"):
    """A DT of local time; with a zone that instant in it, where the local time is `local` from UTC."""
    if zone is None:
        return f"{moment:%Y%m%d%H%M%S}"
    shift = datetime.datetime.strptime(zone, "%z").utcoffset() - datetime.datetime.strptime(local, "%z").utcoffset()
    return f"{moment + shift:%Y%m%d%H%M%S}{zone}"


def add_private(header, tag, value):
    """GE's and Siemens' elements, as an anonymiser leaves them: without private creator, VR unknown."""
    header.add_new(tag, "UN", struct.pack("<f", value) if isinstance(value, float) else f"{value}.00".encode())


# How things may be stated. Each of these is combined with each of the others, as far as that makes sense.
VALUES = (
    "BQML", "BQML by rescale type", "BQML by mapping", "BQML by scans.tsv", "CNTS to Bq/mL", "CNTS by time, DCAL",
    "CNTS by time, calibration", "CPS, DCAL", "CPS, calibration", "CNTS to SUV", "GML", "GML BW", "GML LBM",
    "GML LBMJAMES128", "GML LBMJANMA", "GML IBW", "CM2ML", "CM2ML BSA",
)  # fmt: skip
DECAYS = (
    "START series", "START GE", "START Siemens", "START DecayCorrectionDateTime", "START computed", "START acquired_at",
    "START by scans.tsv", "ADMIN", "NONE", "enhanced", "enhanced to injection", "enhanced NONE",
    "enhanced NONE by moment",
)  # fmt: skip
DOSES = ("Bq", "MBq", "syringe in Bq", "syringe in MBq", "scans.tsv", "two items", "several injections")
WEIGHTS = ("kg", "g", "scans.tsv", "scans.tsv against the header")
TIMES = ("date and time", "time only", "another zone", "acquisition with zone", "GE", "scans.tsv")


def mass_kg(kind, weight_kg, height_m, sex):
    """Lean and ideal masses, typed from the manual a second time."""
    if sex == "O":
        return (mass_kg(kind, weight_kg, height_m, "M") + mass_kg(kind, weight_kg, height_m, "F")) / 2
    cm, bmi = 100 * height_m, weight_kg / height_m / height_m
    return {
        ("LBM", "M"): 1.10 * weight_kg - 120 * (weight_kg / cm) ** 2,
        ("LBM", "F"): 1.07 * weight_kg - 148 * (weight_kg / cm) ** 2,
        ("LBMJAMES128", "M"): 1.10 * weight_kg - 128 * (weight_kg / cm) ** 2,
        ("LBMJAMES128", "F"): 1.07 * weight_kg - 148 * (weight_kg / cm) ** 2,
        ("LBMJANMA", "M"): 9270 * weight_kg / (6680 + 216 * bmi),
        ("LBMJANMA", "F"): 9270 * weight_kg / (8780 + 244 * bmi),
        ("IBW", "M"): 48.0 + 1.06 * (cm - 152),
        ("IBW", "F"): 45.5 + 0.91 * (cm - 152),
    }[kind, sex]


def surface_cm2(weight_kg, height_m):
    """Du Bois in m2, times 1e4."""
    return 0.007184 * weight_kg**0.425 * (100 * height_m) ** 0.725 * 1e4


class Statement:
    """Headers of two slices of two bed positions, the voxel values in them and the overrides that go with them."""

    def __init__(self, truth, values="BQML", decay="START series", dose="Bq", weight="kg", time="date and time"):
        self.truth, self.values, self.decay, self.dose, self.weight, self.time = (
            truth, values, decay, dose, weight, time,
        )  # fmt: skip
        self.half_life_s = truth["nuclide"][1]
        self.rate = math.log(2) / self.half_life_s
        self.injected = truth["injected"]
        self.started = self.injected + datetime.timedelta(seconds=truth["delay_s"])
        # Activity concentration of the truth at injection, Bq/mL.
        self.at_injection = truth["suv"] * truth["dose_mbq"] * 1e6 / (truth["weight_kg"] * 1000)
        self.overrides = {}
        made = [self._slice(bed) for bed in range(2)]
        self.headers, self.voxels = [one for one, _ in made], np.array([value for _, value in made])

    def suv(self):
        quantification, facts = suv(self.headers, {"nuclide": self.truth["nuclide"][0]}, **self.overrides)
        return self.voxels * quantification.factors, facts

    def _slice(self, bed):
        header = pet()
        header.CorrectedImage = list(ALL_CORRECTIONS)
        self._state_patient(header)
        self._state_times(header, bed)
        self._state_injection(header)
        concentration = self._state_decay(header, bed)
        return header, self._state_values(header, concentration)

    def _concentration(self, since_s):
        return self.at_injection * math.exp(-self.rate * since_s)

    def _mean(self, bed):
        """Mean concentration during a bed position, by integration."""
        from_s = self.truth["delay_s"] + bed * self.truth["bed_s"]
        to_s = from_s + self.truth["bed_s"]
        return (self._concentration(from_s) - self._concentration(to_s)) / self.rate / self.truth["bed_s"]

    def _state_patient(self, header):
        weight = self.truth["weight_kg"]
        header.PatientWeight = {"kg": weight, "g": weight * 1000, "scans.tsv": None}.get(self.weight, weight * 1.3)
        if self.weight.startswith("scans.tsv"):
            self.overrides["weight_kg"] = weight
        header.PatientSize, header.PatientSex = self.truth["height_m"], self.truth["sex"]

    def _state_times(self, header, bed):
        acquired = self.started + datetime.timedelta(seconds=bed * self.truth["bed_s"])
        header.SeriesDate, header.SeriesTime = f"{self.started:%Y%m%d}", f"{self.started:%H%M%S}"
        header.ActualFrameDuration = self.truth["bed_s"] * 1000
        if self.time == "acquisition with zone":
            del header.AcquisitionDate, header.AcquisitionTime
            header.AcquisitionDateTime = dt(acquired) + "+0900"
        else:
            header.AcquisitionDate, header.AcquisitionTime = f"{acquired:%Y%m%d}", f"{acquired:%H%M%S}"

    def _state_injection(self, header):
        item, mbq = injection(header), self.truth["dose_mbq"]
        item.RadionuclideHalfLife = self.half_life_s
        item.RadionuclideTotalDose = mbq if self.dose == "MBq" else mbq * 1e6
        item.RadiopharmaceuticalStartDateTime = dt(self.injected)
        if self.time == "time only":
            del item.RadiopharmaceuticalStartDateTime
            item.RadiopharmaceuticalStartTime = f"{self.injected:%H%M%S}"
        elif self.time == "another zone":
            header.TimezoneOffsetFromUTC = "+0530"
            item.RadiopharmaceuticalStartDateTime = dt(self.injected, "-0800", local="+0530")
        elif self.time == "acquisition with zone":
            item.RadiopharmaceuticalStartDateTime = dt(self.injected, "+0100", local="+0900")
        elif self.time == "GE":
            header.Manufacturer = GE
            del item.RadiopharmaceuticalStartDateTime
            add_private(header, 0x0009103B, dt(self.injected))
        elif self.time == "scans.tsv":
            item.RadiopharmaceuticalStartDateTime = None
            self.overrides["injected_at"] = self.injected.isoformat()
        if self.dose.startswith("syringe"):
            self._state_syringe(header, item, mbq * (1.0 if self.dose == "syringe in MBq" else 1e6))
        elif self.dose == "scans.tsv":
            item.RadionuclideTotalDose = None
            self.overrides["injected_mbq"] = mbq
        elif self.dose in ("two items", "several injections"):
            other = copy.deepcopy(item)
            header.RadiopharmaceuticalInformationSequence = Sequence([item, other])
            if self.dose == "several injections":
                other.RadionuclideTotalDose = 40e6
                self.overrides |= {"injected_mbq": mbq, "injected_at": self.injected.isoformat()}

    def _state_syringe(self, header, item, activity):
        """The syringe 20 minutes before the injection, and what was left in it 10 minutes after."""
        header.Manufacturer = GE
        item.RadionuclideTotalDose = None
        minutes = datetime.timedelta(minutes=1)
        left = 0.05 * activity
        # At the injection the syringe held what was given and what was left; 2^(t/T) and 2^(-t/T) away from it.
        add_private(header, 0x00091038, float((activity + left) * 2 ** (20 * 60 / self.half_life_s)))
        add_private(header, 0x00091039, dt(self.injected - 20 * minutes))
        add_private(header, 0x0009103C, float(left * 2 ** (-10 * 60 / self.half_life_s)))
        add_private(header, 0x0009103D, dt(self.injected + 10 * minutes))

    def _state_decay(self, header, bed):
        """State to which time the values are corrected; the concentration that they then show."""
        how, at_start = self.decay, self._concentration(self.truth["delay_s"])
        if how.startswith("enhanced"):
            return self._state_enhanced(header, bed)
        if how == "ADMIN":
            header.DecayCorrection = "ADMIN"
            return self.at_injection
        if how == "NONE":
            header.DecayCorrection = "NONE"
            header.CorrectedImage.remove("DECY")
            return self._mean(bed)
        if how == "START series":
            return at_start
        # Someone has processed the series a day later.
        header.SeriesDate = f"{self.started + datetime.timedelta(days=1):%Y%m%d}"
        if how == "START GE":
            header.Manufacturer = GE
            add_private(header, 0x0009100D, dt(self.started))
        elif how == "START Siemens":
            header.Manufacturer = SIEMENS
            add_private(header, 0x00711022, dt(self.started))
        elif how == "START DecayCorrectionDateTime":
            header.DecayCorrectionDateTime = dt(self.started)
        elif how == "START computed":
            # The moment when the concentration is the mean over the bed position, since the start of the series.
            moment_s = math.log(self.at_injection / self._mean(bed)) / self.rate
            header.FrameReferenceTime = (moment_s - self.truth["delay_s"]) * 1000
        else:
            del header.SeriesDate, header.SeriesTime
            if self.time != "acquisition with zone":
                del header.AcquisitionDate, header.AcquisitionTime
            self.overrides["acquired_at"] = self.started.isoformat()
            if how == "START by scans.tsv":
                del header.DecayCorrection
                self.overrides["decay_correction"] = "START"
        return at_start

    def _state_enhanced(self, header, bed):
        acquired = self.started + datetime.timedelta(seconds=bed * self.truth["bed_s"])
        header.SOPClassUID = ENHANCED_PET
        del header.DecayCorrection, header.CorrectedImage, header.SeriesDate, header.SeriesTime, header.SeriesType
        if "AcquisitionDate" in header:
            del header.AcquisitionDate, header.AcquisitionTime
        zone = "+0900" if self.time == "acquisition with zone" else ""
        header.FrameAcquisitionDateTime = dt(acquired) + zone
        del header.ActualFrameDuration
        header.FrameAcquisitionDuration = float(self.truth["bed_s"] * 1000)
        header.AttenuationCorrected, header.DecayCorrected = "YES", "NO" if "NONE" in self.decay else "YES"
        if self.decay == "enhanced to injection":
            header.DecayCorrectionDateTime = dt(self.injected)
            return self.at_injection
        if self.decay == "enhanced":
            # Any time will do: here a third of the way from the injection to the scan.
            third = int(self.truth["delay_s"] / 3)
            header.DecayCorrectionDateTime = dt(self.injected + datetime.timedelta(seconds=third))
            return self._concentration(third)
        if self.decay == "enhanced NONE by moment":
            del header.FrameAcquisitionDuration
            header.FrameReferenceDateTime = dt(acquired + datetime.timedelta(seconds=30))
            return self._concentration(self.truth["delay_s"] + bed * self.truth["bed_s"] + 30)
        return self._mean(bed)

    def _state_values(self, header, concentration):
        units, _, how = self.values.partition(" ")
        units = units.rstrip(",")
        header.Units = units
        truth = self.truth
        if units == "BQML":
            if how:
                del header.Units
            if how == "by rescale type":
                header.RescaleType = "BQML"
            elif how == "by scans.tsv":
                self.overrides["units"] = "BQML"
            elif how == "by mapping":
                unit, mapping = Dataset(), Dataset()
                unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "Bq/ml", "UCUM", "Bq/ml"
                mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 2.0, 0.0
                mapping.MeasurementUnitsCodeSequence = Sequence([unit])
                header.RealWorldValueMappingSequence = Sequence([mapping])
            return concentration
        if units in ("GML", "CM2ML"):
            kind = header.SUVType = how or None
            if units == "CM2ML":
                return truth["suv"] * surface_cm2(truth["weight_kg"], truth["height_m"]) / truth["weight_kg"] / 1000
            if kind in (None, "BW"):
                return truth["suv"]
            mass = mass_kg(kind, truth["weight_kg"], truth["height_m"], truth["sex"])
            return truth["suv"] * mass / truth["weight_kg"]
        if how.startswith("to"):
            header.Manufacturer = PHILIPS
            header.add_new(0x70531000, "DS", 0.002 if how == "to SUV" else 0)
            header.add_new(0x70531009, "DS", 4.0)
            return truth["suv"] / 0.002 if how == "to SUV" else concentration / 4.0
        seconds = truth["bed_s"] if units == "CNTS" else 1.0
        if how.endswith("calibration"):
            header.DoseCalibrationFactor = 3.5
            return concentration * VOXEL_ML / 3.5 * seconds
        header.CorrectedImage = [*(header.get("CorrectedImage") or []), "DCAL"]
        return concentration * VOXEL_ML * seconds


def makes_sense(values, decay, dose, weight, time):
    """Whether these go together in one header."""
    suv_already = values.startswith(("GML", "CM2ML")) or values == "CNTS to SUV"
    philips = "to " in values
    # Philips' elements count only where Philips is the maker, GE's where GE is, and so on.
    makers = [decay == "START GE" or dose.startswith("syringe") or time == "GE", decay == "START Siemens", philips]
    return (
        sum(makers) <= 1
        # What the scanner has computed with stays, whatever scans.tsv says.
        and not (suv_already and weight == "scans.tsv against the header")
        and not (decay == "ADMIN" and dose == "several injections")
        # An enhanced PET states its dose in MBq and its corrections one by one: no DCAL, NORM and so on.
        and not (decay.startswith("enhanced") and values.startswith(("CPS", "CNTS by time")))
        and not (decay == "enhanced NONE by moment" and "by time" in values)
        # One time for all bed positions, and the day of the injection, need a stated start.
        and not (decay.startswith(("START acquired_at", "START by")) and time == "acquisition with zone")
        and not (dose == "several injections" and time != "date and time")
    )
