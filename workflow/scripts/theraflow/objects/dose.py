"""A dose map as RT Dose: absorbed dose of one cycle in Gy.

DoseSummationType PLAN_OVERVIEW, the only term of PS3.3 C.8.8.3 that asks for no RT Plan or treatment record: a therapy
with radiopharmaceuticals has neither, and a reference to a plan that does not exist would be worse than none. The plan
overview names the cycle.
"""

from collections.abc import Iterable

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RTDoseStorage
from pydicom.valuerep import DSfloat

from theraflow.images import axes_of
from theraflow.nifti import Grid
from theraflow.objects.instance import RESEARCH_USE, common, long_string, sealed
from theraflow.objects.origin import Origin

_LARGEST = np.iinfo(np.uint32).max


def build_dose(
    dose_gy_per_gbq: np.ndarray,
    grid: Grid,
    origin: Origin,
    activity_gbq: float,
    label: str,
    summary: str,
    comment: str,
    series_number: int,
) -> Dataset:
    """The dose that an activity gives.

    Voxels in which there is no dose (NaN: gas, or regions that were refused) cannot be told in this object: they are 0,
    and ImageComments says how many.

    Args:
        dose_gy_per_gbq: absorbed dose per administered activity, shape (z, y, x), not negative.
        grid: where it lies, LPS mm.
        origin: a series in the same frame of reference.
        activity_gbq: administered.
        label: of the cycle, at most 16 characters.
        summary: cycle, activity and nuclide, at most 40 characters.
        comment: what the map is, in words.
        series_number: of the series in its study.
    """
    missing = int(np.isnan(dose_gy_per_gbq).sum())
    dose = np.nan_to_num(dose_gy_per_gbq.astype(np.float64)) * activity_gbq
    # One step of room, for the decimal string may be rounded down: the greatest dose has to fit into 32 bits.
    (scaling,) = _decimals([max(float(dose.max()), 1e-30) / (_LARGEST - 1)])
    if missing:
        comment += f" In {missing} voxels there is no dose (gas, or not computed); they are 0 here."
    header = origin.header
    dataset = hd.base.SOPClass(
        study_instance_uid=header.StudyInstanceUID,
        sop_class_uid=RTDoseStorage,
        modality="RTDOSE",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        patient_id=header.PatientID,
        patient_name=header.PatientName,
        patient_birth_date=header.PatientBirthDate,
        patient_sex=header.PatientSex,
        accession_number=header.AccessionNumber,
        study_id=header.StudyID,
        study_date=header.StudyDate,
        study_time=header.StudyTime,
        referring_physician_name=header.ReferringPhysicianName,
        **common(series_number, f"Absorbed dose, {summary}"),
    )
    dataset.copy_patient_and_study_information(header)
    dataset.OperatorsName = ""
    dataset.FrameOfReferenceUID = header.FrameOfReferenceUID
    dataset.PositionReferenceIndicator = header.PositionReferenceIndicator
    _add_image(dataset, grid)
    dataset.ImageComments = f"{comment} {RESEARCH_USE}"
    dataset.DoseUnits = "GY"
    dataset.DoseType = "PHYSICAL"
    dataset.DoseComment = long_string(summary)
    dataset.DoseSummationType = "PLAN_OVERVIEW"
    dataset.PlanOverviewSequence = [_plan_overview(label)]
    dataset.DoseGridScaling = scaling
    dataset.GridFrameOffsetVector = _decimals(np.arange(grid.size[2]) * grid.spacing[2])
    dataset.FrameIncrementPointer = 0x3004000C  # GridFrameOffsetVector
    dataset.PixelData = np.rint(dose / float(scaling)).astype("<u4").tobytes()
    dataset["PixelData"].VR = "OW"
    return sealed(dataset, origin)


def _add_image(dataset: Dataset, grid: Grid) -> None:
    """General Image, Image Plane, Image Pixel and Multi-frame of a volume of 32 bits a voxel."""
    columns, rows, slices = grid.size
    dataset.ImageType = ["DERIVED", "SECONDARY", "DOSE"]
    dataset.ContentDate = dataset.ContentTime = ""
    dataset.PixelSpacing = _decimals(grid.spacing[1::-1])
    (dataset.SliceThickness,) = _decimals(grid.spacing[2:])
    dataset.ImageOrientationPatient = _decimals(axes_of(grid)[:, :2].T.ravel())
    dataset.ImagePositionPatient = _decimals(grid.origin)
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = rows, columns, slices
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 32
    dataset.HighBit = 31
    dataset.PixelRepresentation = 0


def _decimals(values: Iterable[float]) -> list[DSfloat]:
    """Numbers as decimal strings, which have at most 16 characters."""
    return [DSfloat(float(value), auto_format=True) for value in values]


def _plan_overview(label: str) -> Dataset:
    overview = Dataset()
    overview.PlanOverviewIndex = 1
    overview.RTPlanLabel = label
    overview.NumberOfFractionsIncluded = 1
    overview.TreatmentSite = ""
    overview.TreatmentSiteCodeSequence = []
    overview.PrescriptionOverviewSequence = []
    return overview
