"""Virtual scans as genuine DICOM: CT, PET, NM (SPECT), RTSTRUCT and SEG objects that any viewer opens.

All UIDs follow from the patient, the scan and the role of the object, so that the same cohort is written bit
by bit the same. Images are axial, LPS; slices are numbered from the head to the feet, as scanners do.
"""

import datetime
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import highdicom
import numpy as np
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
    RTStructureSetStorage,
    generate_uid,
)
from pydicom.valuerep import DSfloat
from scipy import ndimage
from skimage.measure import find_contours

import theraflow
from theraflow.nuclides import nuclide

MANUFACTURER = "theraflow"
MODEL = "virtual patient"
BED_MM = 160.0  # axial length that one PET bed position adds

_RADIONUCLIDES = {
    "18F": codes.SCT._18Fluorine,
    "68Ga": codes.SCT._68Gallium,
    "177Lu": codes.SCT._177Lutetium,
}
_POSITRON_FRACTION = {"18F": 0.9673, "68Ga": 0.8891}  # ICRP 107
_RADIOPHARMACEUTICALS = {"[18F]FDG": codes.SCT.FluorodeoxyglucoseF18}


@dataclass(frozen=True)
class Header:
    """What all series of one scan say about the patient and the study.

    Attributes:
        patient, scan: identifiers of the sheet.
        sex: M, F or O.
        age_y, weight_kg, height_cm: at the time of the scan.
        started_at: start of the emission acquisition.
        description: the study in words.
    """

    patient: str
    scan: str
    sex: str
    age_y: float
    weight_kg: float
    height_cm: float
    started_at: datetime.datetime
    description: str

    def uid(self, *role: object) -> str:
        """The UID of an object of this scan, the same in every run."""
        return generate_uid(entropy_srcs=["theraflow virtual", self.patient, self.scan, *map(str, role)])


@dataclass(frozen=True)
class Injection:
    """The administration of a radiopharmaceutical: its name, nuclide (as in `nuclides`), activity and
    time."""

    radiopharmaceutical: str
    nuclide: str
    activity_mbq: float
    at: datetime.datetime

    def remaining(self, moment: datetime.datetime) -> float:
        """Share of the activity that has not decayed at that moment."""
        return math.exp(-nuclide(self.nuclide).decay_constant_per_s * (moment - self.at).total_seconds())


def write_ct(image: sitk.Image, folder: Path | str, header: Header, tube_current_ma: float = 150.0) -> None:
    """Write a CT series, one file a slice.

    Args:
        image: HU, axial; values are clipped to the 12 bits of a scanner (-1024 to 3071).
        folder: created; must be empty.
        header: patient and study.
        tube_current_ma: stated in the header.
    """
    stored = np.clip(np.rint(sitk.GetArrayFromImage(image)) + 1024, 0, 4095).astype(np.uint16)
    # The CT comes first in a hybrid scan, one minute before the emission.
    started = header.started_at - datetime.timedelta(minutes=1)
    dataset = _dataset(header, CTImageStorage, "CT", 2, "CT", started)
    _add_image(dataset, image, started)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.KVP = "120"
    dataset.XRayTubeCurrent = str(int(tube_current_ma))
    dataset.ConvolutionKernel = "SOFT"
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "-1024", "1", "HU"
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"
    _write_slices(dataset, stored, image, Path(folder), header, "CT")


def write_pet(
    image: sitk.Image,
    folder: Path | str,
    header: Header,
    injection: Injection,
    bed_s: float = 150.0,
    reconstruction: str = "OSEM PSF TOF",
) -> None:
    """Write a PET series in Bq/mL, decay-corrected to the start of the series, with a rescale slope of its
    own per slice.

    Bed positions follow each other from the feet to the head; acquisition times, frame reference times and
    decay factors are those of each slice's bed (DICOM PS3.3 C.8.9.4).

    Args:
        image: activity concentration in Bq/mL at `header.started_at`.
        folder: created; must be empty.
        header: patient and study.
        injection: the administration.
        bed_s: duration of one bed position in s.
        reconstruction: ReconstructionMethod.
    """
    array = sitk.GetArrayFromImage(image)
    dataset = _dataset(header, PositronEmissionTomographyImageStorage, "PT", 3, "PET", header.started_at)
    _add_image(dataset, image, header.started_at)
    _add_orientation(dataset)
    decay = nuclide(injection.nuclide).decay_constant_per_s
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.Units = "BQML"
    dataset.CountsSource = "EMISSION"
    dataset.SeriesType = ["WHOLE BODY", "IMAGE"]
    dataset.NumberOfSlices = array.shape[0]
    dataset.CorrectedImage = ["DECY", "ATTN", "SCAT", "DTIM", "RAN", "NORM", "DCAL"]
    dataset.RandomsCorrectionMethod = "DLYD"
    dataset.AttenuationCorrectionMethod = "CT"
    dataset.ScatterCorrectionMethod = "model-based"
    dataset.ReconstructionMethod = reconstruction
    dataset.DecayCorrection = "START"
    dataset.CollimatorType = "NONE"
    dataset.ActualFrameDuration = str(int(bed_s * 1000))
    dataset.DoseCalibrationFactor = "1"
    dataset.RescaleIntercept = "0"
    dataset.RadiopharmaceuticalInformationSequence = Sequence([_radiopharmaceutical(injection)])
    peak = array.reshape(array.shape[0], -1).max(axis=1)
    # An empty slice takes the least slope of the others: readers that judge the pixel type by the first slice
    # would round the whole volume to integers where its slope were 1.
    slopes = np.where(peak > 0, peak, peak[peak > 0].min(initial=32767.0)) / 32767.0
    slopes = np.array([float(_decimal(slope)) for slope in slopes])  # what the file can hold
    stored = np.clip(np.rint(array / slopes[:, None, None]), 0, 65535).astype(np.uint16)
    # Mean activity of a bed position over that at its start; reached at the frame reference time.
    mean_over_start = -math.expm1(-decay * bed_s) / (decay * bed_s)
    spacing = image.GetSpacing()[2]
    window = float(np.percentile(array[:: max(1, array.shape[0] // 32)], 99.9)) or 1.0
    dataset.WindowCenter, dataset.WindowWidth = _decimal(window / 2), _decimal(window)

    def own(k: int) -> dict[str, object]:
        offset = bed_s * int(k * spacing / BED_MM)
        acquired = header.started_at + datetime.timedelta(seconds=offset)
        return {
            "AcquisitionDate": _date(acquired),
            "AcquisitionTime": _time(acquired),
            "FrameReferenceTime": _decimal(1000.0 * (offset - math.log(mean_over_start) / decay)),
            "DecayFactor": _decimal(math.exp(decay * offset) / mean_over_start),
            "RescaleSlope": _decimal(slopes[k]),
            "ImageIndex": array.shape[0] - k,
        }

    _write_slices(dataset, stored, image, Path(folder), header, "PET", own)


def write_spect(
    image: sitk.Image, folder: Path | str, header: Header, injection: Injection, frame_s: float = 20.0
) -> None:
    """Write a reconstructed SPECT as one multi-frame NM object; a real-world value mapping gives Bq/mL
    (UCUM).

    The values are not decay-corrected: CorrectedImage has no DECY.

    Args:
        image: activity concentration in Bq/mL at `header.started_at`.
        folder: created; the object is `spect.dcm` in it.
        header: patient and study.
        injection: the administration; its date and time are written as RadiopharmaceuticalStartDateTime, too.
        frame_s: time per projection in s.
    """
    array = sitk.GetArrayFromImage(image)
    count = array.shape[0]
    dataset = _dataset(header, NuclearMedicineImageStorage, "NM", 3, "SPECT", header.started_at)
    _add_image(dataset, image, header.started_at)
    _add_orientation(dataset)
    slope = float(array.max()) / 65535.0 or 1.0
    stored = np.clip(np.rint(array / slope), 0, 65535).astype(np.uint16)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
    dataset.CorrectedImage = ["ATTN", "SCAT", "DTIM", "UNIF"]
    dataset.NumberOfFrames = str(count)
    dataset.FrameIncrementPointer = 0x00540080
    dataset.SliceVector = list(range(1, count + 1))
    dataset.NumberOfSlices = count
    dataset.NumberOfEnergyWindows = 1
    dataset.NumberOfDetectors = 2
    dataset.CountsAccumulated = int(array.sum(dtype=float) / 1e3)
    dataset.SpacingBetweenSlices = _decimal(image.GetSpacing()[2])
    dataset.WindowCenter, dataset.WindowWidth = "8192", "16384"

    window = Dataset()
    window.EnergyWindowName = "photopeak"
    limits = Dataset()
    limits.EnergyWindowLowerLimit, limits.EnergyWindowUpperLimit = "187.2", "228.8"  # 208 keV +- 10 %
    window.EnergyWindowRangeSequence = Sequence([limits])
    dataset.EnergyWindowInformationSequence = Sequence([window])
    dataset.RadiopharmaceuticalInformationSequence = Sequence([_radiopharmaceutical(injection)])

    detector = Dataset()
    detector.CollimatorType, detector.FocalDistance = "PARA", "0"
    detector.XFocusCenter, detector.YFocusCenter = "0", "0"
    detector.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    detector.ImagePositionPatient = [_decimal(v) for v in image.GetOrigin()]
    dataset.DetectorInformationSequence = Sequence([detector, detector])

    rotation = Dataset()
    rotation.StartAngle, rotation.AngularStep, rotation.ScanArc = "0", "6", "180"
    rotation.RotationDirection, rotation.NumberOfFramesInRotation = "CC", 30
    rotation.ActualFrameDuration = str(int(frame_s * 1000))
    rotation.RadialPosition = "250"
    dataset.RotationInformationSequence = Sequence([rotation])
    dataset.NumberOfRotations = 1

    mapping = Dataset()
    mapping.LUTExplanation, mapping.LUTLabel = "activity concentration at acquisition", "Bq/ml"
    mapping.add_new(0x00409216, "US", 0)  # RealWorldValueFirstValueMapped
    mapping.add_new(0x00409211, "US", 65535)  # RealWorldValueLastValueMapped
    mapping.RealWorldValueIntercept, mapping.RealWorldValueSlope = 0.0, slope
    mapping.MeasurementUnitsCodeSequence = Sequence([_code(codes.UCUM.BecquerelsPerMilliliter)])
    dataset.RealWorldValueMappingSequence = Sequence([mapping])

    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = header.uid("NM", 1)
    dataset.InstanceNumber = "1"
    dataset.PixelData = stored.tobytes()
    path = Path(folder) / "spect.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def write_rtstruct(masks: Mapping[str, np.ndarray], series: Path | str, path: Path | str, header: Header) -> None:
    """Write outlines as an RTSTRUCT that refers to an image series.

    Args:
        masks: name -> coverage of each voxel of the series, 0 to 1 (z, y, x; slices from the feet to the
            head). The outlines hold the volume of the coverage; those of a bool mask run between voxel
            centres, so that it comes back exactly when they are filled by voxel centres.
        series: folder of the image series, as written by `write_ct` or `write_pet`.
        path: the file.
        header: patient and study.
    """
    images = _read_series(series)
    dataset = _dataset(header, RTStructureSetStorage, "RTSTRUCT", 10, "reader's outlines", header.started_at)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = header.uid("RTSTRUCT", 1)
    dataset.InstanceNumber = "1"
    dataset.OperatorsName = ""
    dataset.StructureSetLabel = "lesions"
    dataset.StructureSetDate, dataset.StructureSetTime = dataset.SeriesDate, dataset.SeriesTime
    dataset.ApprovalStatus = "UNAPPROVED"

    frame = Dataset()
    frame.FrameOfReferenceUID = images[0].FrameOfReferenceUID
    study, referenced = Dataset(), Dataset()
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management, as PS3.3 C.8.8.5 asks
    study.ReferencedSOPInstanceUID = images[0].StudyInstanceUID
    referenced.SeriesInstanceUID = images[0].SeriesInstanceUID
    referenced.ContourImageSequence = Sequence([_reference(image) for image in images])
    study.RTReferencedSeriesSequence = Sequence([referenced])
    frame.RTReferencedStudySequence = Sequence([study])
    dataset.ReferencedFrameOfReferenceSequence = Sequence([frame])

    regions, outlines, observations = [], [], []
    colours = _colours(len(masks))
    for number, (name, coverage) in enumerate(masks.items(), start=1):
        region = Dataset()
        region.ROINumber, region.ROIName = str(number), name
        region.ReferencedFrameOfReferenceUID = images[0].FrameOfReferenceUID
        region.ROIGenerationAlgorithm = "MANUAL"
        regions.append(region)
        outline = Dataset()
        outline.ReferencedROINumber = str(number)
        outline.ROIDisplayColor = colours[number - 1]
        outline.ContourSequence = Sequence(_contours(np.asarray(coverage, np.float32), images))
        outlines.append(outline)
        observation = Dataset()
        observation.ObservationNumber = observation.ReferencedROINumber = str(number)
        observation.RTROIInterpretedType, observation.ROIInterpreter = "", ""
        observations.append(observation)
    dataset.StructureSetROISequence = Sequence(regions)
    dataset.ROIContourSequence = Sequence(outlines)
    dataset.RTROIObservationsSequence = Sequence(observations)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def write_seg(masks: Mapping[str, np.ndarray], series: Path | str, path: Path | str, header: Header) -> None:
    """Write masks as a binary DICOM SEG on the grid of an image series.

    Args:
        masks: name -> mask (z, y, x; slices from the feet to the head); where it is a coverage, voxels of 0.5
            and more.
        series: folder of the image series.
        path: the file.
        header: patient and study.
    """
    images = [dcmread(file) for file in sorted(Path(series).glob("*.dcm"))]
    images.sort(key=lambda image: float(image.ImagePositionPatient[2]))
    manual = highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
    segments = [
        highdicom.seg.SegmentDescription(
            number,
            name,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type=manual,
            tracking_id=f"{header.patient} {name}",
            tracking_uid=generate_uid(entropy_srcs=["theraflow virtual", header.patient, "lesion", name]),
        )
        for number, name in enumerate(masks, start=1)
    ]
    segmentation = highdicom.seg.Segmentation(
        images,
        np.stack([_most_covered(np.asarray(mask, np.float32)) for mask in masks.values()], axis=-1),
        highdicom.seg.SegmentationTypeValues.BINARY,
        segments,
        series_instance_uid=header.uid("SEG", "series"),
        series_number=11,
        sop_instance_uid=header.uid("SEG", 1),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL,
        software_versions=theraflow.__version__,
        device_serial_number="1",
        content_label="LESIONS",
    )
    # highdicom stamps the clock and draws a UID; the same patient must be written the same every time.
    for name in ("ContentDate", "InstanceCreationDate", "SeriesDate"):
        setattr(segmentation, name, _date(header.started_at))
    for name in ("ContentTime", "InstanceCreationTime", "SeriesTime"):
        setattr(segmentation, name, _time(header.started_at))
    for equipment in segmentation.get("ContributingEquipmentSequence", ()):
        equipment.ContributionDateTime = _date(header.started_at) + _time(header.started_at)
    organization = header.uid("SEG", "dimensions")
    segmentation.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in segmentation.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    segmentation.save_as(path)


def _colours(count: int) -> list[list[int]]:
    """Well distinguishable display colours (RGB, 0 to 255), by golden-ratio steps of the hue."""
    import colorsys

    return [[round(255 * part) for part in colorsys.hsv_to_rgb((0.618034 * i) % 1.0, 0.8, 1.0)] for i in range(count)]


def _dataset(
    header: Header,
    sop_class: str,
    modality: str,
    number: int,
    description: str,
    started: datetime.datetime,
) -> Dataset:
    """Patient, study, series, equipment and frame of reference: what all objects share."""
    dataset = Dataset()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationVersionName = "THERAFLOW"
    dataset.file_meta = meta
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = _date(started), _time(started)
    dataset.PatientName = f"Virtual^{header.patient}"
    dataset.PatientID = header.patient
    dataset.PatientBirthDate = ""
    dataset.PatientSex = header.sex
    dataset.PatientAge = f"{int(header.age_y):03d}Y"
    dataset.PatientWeight = _decimal(header.weight_kg)
    dataset.PatientSize = _decimal(header.height_cm / 100.0)
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "virtual patient: nobody's data"
    dataset.StudyInstanceUID = header.uid("study")
    dataset.StudyID = header.scan[:16]
    dataset.StudyDescription = header.description
    study_start = header.started_at - datetime.timedelta(minutes=5)
    dataset.StudyDate, dataset.StudyTime = _date(study_start), _time(study_start)
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.Modality = modality
    dataset.SeriesInstanceUID = header.uid(modality, "series")
    dataset.SeriesNumber = str(number)
    dataset.SeriesDescription = description
    dataset.SeriesDate, dataset.SeriesTime = _date(started), _time(started)
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MODEL
    dataset.SoftwareVersions = theraflow.__version__
    dataset.FrameOfReferenceUID = header.uid("frame of reference")
    dataset.PositionReferenceIndicator = ""
    return dataset


def _add_image(dataset: Dataset, image: sitk.Image, started: datetime.datetime) -> None:
    """Attributes of all image objects: pixels of 16 bits, geometry in the plane, times."""
    columns, rows, _ = image.GetSize()
    x, y, z = image.GetSpacing()
    if dataset.Modality == "CT":  # PET and NM say it by codes
        dataset.PatientPosition = "HFS"
    dataset.BodyPartExamined = "WHOLEBODY"
    dataset.AcquisitionNumber = "1"
    dataset.AcquisitionDate, dataset.AcquisitionTime = _date(started), _time(started)
    dataset.ContentDate, dataset.ContentTime = _date(started), _time(started)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.PixelSpacing = [_decimal(y), _decimal(x)]
    dataset.SliceThickness = _decimal(z)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 0


def _add_orientation(dataset: Dataset) -> None:
    """The NM/PET Patient Orientation module: supine, head first."""
    position = _code(codes.SCT.Recumbent)
    position.PatientOrientationModifierCodeSequence = Sequence([_code(codes.SCT.Supine)])
    dataset.PatientOrientationCodeSequence = Sequence([position])
    dataset.PatientGantryRelationshipCodeSequence = Sequence([_code(codes.SCT.Headfirst)])


def _radiopharmaceutical(injection: Injection) -> Dataset:
    item = Dataset()
    item.Radiopharmaceutical = injection.radiopharmaceutical
    item.RadiopharmaceuticalRoute = "IV"
    item.RadiopharmaceuticalVolume = ""
    item.RadiopharmaceuticalStartTime = _time(injection.at)
    item.RadiopharmaceuticalStartDateTime = injection.at.strftime("%Y%m%d%H%M%S.000000")
    # NM states MBq (PS3.3 C.8.4.10), PET Bq (C.8.9.2).
    in_mbq = injection.nuclide not in _POSITRON_FRACTION
    item.RadionuclideTotalDose = _decimal(injection.activity_mbq * (1.0 if in_mbq else 1e6))
    if not in_mbq:
        item.RadionuclideHalfLife = _decimal(nuclide(injection.nuclide).half_life_s)
        item.RadionuclidePositronFraction = _decimal(_POSITRON_FRACTION[injection.nuclide])
    item.RadionuclideCodeSequence = Sequence([_code(_RADIONUCLIDES[injection.nuclide])])
    item.AdministrationRouteCodeSequence = Sequence([_code(codes.SCT.IntravenousRoute)])
    if injection.radiopharmaceutical in _RADIOPHARMACEUTICALS:
        known = _RADIOPHARMACEUTICALS[injection.radiopharmaceutical]
        item.RadiopharmaceuticalCodeSequence = Sequence([_code(known)])
    return item


def _write_slices(
    dataset: Dataset,
    stored: np.ndarray,
    image: sitk.Image,
    folder: Path,
    header: Header,
    role: str,
    own: Callable[[int], dict[str, object]] = lambda k: {},
) -> None:
    """Write one file a slice, numbered from the head.

    What all slices share is encoded once: hundreds of files then take a second instead of ten.

    Args:
        dataset: what all slices share.
        stored: pixels (z, y, x), slices from the feet to the head.
        image: the geometry.
        folder: created.
        header: for the UIDs.
        role: for the UIDs.
        own: further attributes of slice k, counted from the feet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = stored.shape[0]
    origin, spacing = image.GetOrigin(), image.GetSpacing()
    dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    shared = _encoded(dataset)
    for k in range(count):
        number = count - k
        z = origin[2] + k * spacing[2]
        slice_ = Dataset()
        slice_.SOPInstanceUID = header.uid(role, number)
        slice_.InstanceNumber = str(number)
        slice_.ImagePositionPatient = [_decimal(v) for v in (origin[0], origin[1], z)]
        slice_.SliceLocation = _decimal(z)
        for name, value in own(k).items():
            setattr(slice_, name, value)
        slice_.add_new(0x7FE00010, "OW", stored[k].tobytes())
        elements = shared | _encoded(slice_)
        dataset.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID
        file = DicomBytesIO()
        file.is_little_endian, file.is_implicit_VR = True, False
        write_file_meta_info(file, dataset.file_meta)
        content = b"".join(elements[tag] for tag in sorted(elements))
        (folder / f"{number:04d}.dcm").write_bytes(b"\0" * 128 + b"DICM" + file.getvalue() + content)


def _encoded(dataset: Dataset) -> dict[int, bytes]:
    """Every element in Explicit VR Little Endian, by its tag."""
    out = {}
    for element in dataset:
        file = DicomBytesIO()
        file.is_little_endian, file.is_implicit_VR = True, False
        write_data_element(file, element, ["utf-8"])
        out[int(element.tag)] = file.getvalue()
    return out


def _read_series(folder: Path | str) -> list[Dataset]:
    """Headers of an image series from the feet to the head."""
    images = [dcmread(file, stop_before_pixels=True) for file in Path(folder).glob("*.dcm")]
    return sorted(images, key=lambda image: float(image.ImagePositionPatient[2]))


def _most_covered(coverage: np.ndarray) -> np.ndarray:
    """The mask of as many voxels as the coverage amounts to, those with most of it."""
    count = round(float(coverage.sum(dtype=float)))
    mask = np.zeros(coverage.shape, bool)
    if count:
        mask.flat[np.argsort(-coverage, axis=None, kind="stable")[:count]] = True
    return mask


def _contours(coverage: np.ndarray, images: list[Dataset]) -> list[Dataset]:
    """Closed planar contours (PS3.3 C.8.8.6) of a coverage, in mm, LPS."""
    wanted = float(coverage.sum(dtype=float))
    # Along a line of equal coverage, but at 0.5 a curved outline would lose volume: the level that keeps it.
    low, high = 0.02, 0.98
    for _ in range(8):
        level = (low + high) / 2
        area = sum(_area(outline) for _, outline in _outlines(coverage, level))
        low, high = (level, high) if area > wanted else (low, level)
    contours = []
    rows_mm, columns_mm = map(float, images[0].PixelSpacing)
    for k, outline in _outlines(coverage, level):
        x0, y0, z = map(float, images[k].ImagePositionPatient)
        x, y = x0 + outline[:, 1] * columns_mm, y0 + outline[:, 0] * rows_mm
        contour = Dataset()
        contour.ContourImageSequence = Sequence([_reference(images[k])])
        contour.ContourGeometricType = "CLOSED_PLANAR"
        contour.NumberOfContourPoints = str(len(outline))
        points = np.column_stack([x, y, np.full(len(outline), z)])
        contour.ContourData = [f"{value:.3f}" for value in points.ravel()]
        contours.append(contour)
    return contours


def _outlines(coverage: np.ndarray, level: float) -> list[tuple[int, np.ndarray]]:
    """Lines of equal coverage: slice, and points (n, 2) in rows and columns, not repeating the first."""
    box = ndimage.find_objects((coverage > 0).astype(np.uint8))[0]
    first = np.array([part.start for part in box])
    return [
        (int(first[0]) + k, outline[:-1] - 1.0 + first[1:])  # the border of 1 keeps outlines closed
        for k, plane in enumerate(coverage[box])
        for outline in find_contours(np.pad(plane, 1), level)
    ]


def _area(outline: np.ndarray) -> float:
    """Area of a polygon (n, 2), by the shoelace formula."""
    y, x = outline.T
    return 0.5 * abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1)))


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = image.SOPClassUID
    item.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return item


def _code(code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = (
        code.value,
        code.scheme_designator,
        code.meaning,
    )
    return item


def _decimal(value: float) -> DSfloat:
    """A decimal string of at most 16 characters."""
    return DSfloat(float(value), auto_format=True)


def _date(moment: datetime.datetime) -> str:
    return moment.strftime("%Y%m%d")


def _time(moment: datetime.datetime) -> str:
    return moment.strftime("%H%M%S.000000")
