"""Small DICOM series made for tests: what a scanner would write, with one thing changed at a time."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from theraflow.dicom.annotation import Annotation
from theraflow.dicom.export.parse import Header, parse

CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "NM": "1.2.840.10008.5.1.4.1.1.20",
}
ENHANCED = {"CT": "1.2.840.10008.5.1.4.1.1.2.1", "PT": "1.2.840.10008.5.1.4.1.1.130"}
FRAME = "1.2.3.4"


def image(modality: str, uid: str = "1.2.3", shape: tuple[int, int] = (4, 5)) -> Dataset:
    """What CT, PET and NM have in common; no pixels."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CLASSES[modality]
    dataset.Modality = modality
    dataset.StudyInstanceUID = "1.2"
    dataset.SeriesInstanceUID = f"{uid}.{list(CLASSES).index(modality)}"
    dataset.FrameOfReferenceUID = FRAME
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.Rows, dataset.Columns = shape
    dataset.PixelSpacing = [2.0, 3.0]
    dataset.SliceThickness = 4.0
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    return dataset


def pet() -> Dataset:
    """One PET slice: 18F, 70 kg, 350 MBq at 10:00, Bq/mL corrected to the start of the series at 11:00."""
    dataset = image("PT")
    dataset.Units = "BQML"
    dataset.DecayCorrection = "START"
    dataset.CorrectedImage = ["ATTN", "DECY", "SCAT"]
    dataset.SeriesType = ["WHOLE BODY", "IMAGE"]
    dataset.SeriesDate = dataset.AcquisitionDate = "20230501"
    dataset.SeriesTime = dataset.AcquisitionTime = "110000"
    dataset.PatientWeight, dataset.PatientSize, dataset.PatientSex = 70, 1.75, "M"
    injection = Dataset()
    injection.RadiopharmaceuticalStartDateTime = "20230501100000"
    injection.RadionuclideTotalDose = 350e6
    injection.RadionuclideHalfLife = 6586.236
    dataset.RadiopharmaceuticalInformationSequence = Sequence([injection])
    return dataset


def ct(uid: str = "1.2.3") -> Dataset:
    """One CT slice."""
    dataset = image("CT", uid)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.RescaleIntercept = -1024
    return dataset


def spect(stored: np.ndarray, slope: float = 0.5) -> Dataset:
    """One reconstructed NM object with all slices as frames, in Bq/mL; 177Lu 3 days after injection."""
    dataset = image("NM", shape=stored.shape[1:])
    del dataset.RescaleSlope, dataset.RescaleIntercept, dataset.ImageOrientationPatient
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
    dataset.NumberOfFrames = len(stored)
    dataset.FrameIncrementPointer = 0x00540080
    dataset.SliceVector = list(range(1, len(stored) + 1))
    dataset.SpacingBetweenSlices = 4.0
    dataset.CorrectedImage = ["ATTN", "SCAT"]
    dataset.AcquisitionDate, dataset.AcquisitionTime = "20230504", "100000"
    injection = Dataset()
    injection.RadiopharmaceuticalStartDateTime = "20230501100000"
    injection.RadionuclideTotalDose = 200
    dataset.RadiopharmaceuticalInformationSequence = Sequence([injection])
    detector = Dataset()
    detector.ImagePositionPatient = [10.0, 20.0, 30.0]
    detector.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.DetectorInformationSequence = Sequence([detector])
    unit = Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "Bq/ml", "UCUM", "Bq/ml"
    mapping = Dataset()
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = slope, 0.0
    mapping.MeasurementUnitsCodeSequence = Sequence([unit])
    dataset.RealWorldValueMappingSequence = Sequence([mapping])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.PixelData = stored.astype(np.uint16).tobytes()
    return dataset


def view_code(value: str, scheme: str = "SCT", meaning: str = "") -> Dataset:
    """A code of CID 26, Nuclear Medicine Projections."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def detector(code: Dataset | None = None) -> Dataset:
    """An item of DetectorInformationSequence."""
    item = Dataset()
    if code is not None:
        item.ViewCodeSequence = Sequence([code])
    return item


def planar(frames, detectors=None, vector=None, kind="WHOLE BODY", uid="1.2.3"):
    """One NM object with frames as the camera sees them: whole-body sweep of 20 min, 177Lu, one day."""
    frames = np.asarray(frames)
    dataset = image("NM", uid, frames.shape[1:])
    del dataset.RescaleSlope, dataset.RescaleIntercept, dataset.ImageOrientationPatient
    dataset.ImageType = ["ORIGINAL", "PRIMARY", kind, "EMISSION"]
    dataset.NumberOfFrames = len(frames)
    if detectors is not None:
        dataset.DetectorInformationSequence = Sequence(detectors)
        dataset.DetectorVector = vector or list(range(1, len(detectors) + 1))
    dataset.AcquisitionDate, dataset.AcquisitionTime = "20230502", "100000"
    dataset.ActualFrameDuration = 1_200_000
    dataset.WholeBodyTechnique, dataset.ScanVelocity, dataset.ScanLength = "1PS", 1.6, 1920
    injection = Dataset()
    injection.RadiopharmaceuticalStartDateTime = "20230501100000"
    injection.RadionuclideTotalDose = 200
    dataset.RadiopharmaceuticalInformationSequence = Sequence([injection])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.PixelData = frames.astype(np.uint16).tobytes()
    return dataset


def header(dataset: Dataset) -> Header:
    """What the import sees of a data set."""
    file = io.BytesIO()
    dataset.save_as(file, implicit_vr=False, little_endian=True)
    return parse(file.getvalue(), len(file.getvalue())).header


def whole_mask(annotation: Annotation) -> np.ndarray:
    """A reader's region on the whole grid, bool, z y x."""
    mask = np.zeros(annotation.grid.size[::-1], bool)
    mask[annotation.box] = annotation.inside
    return mask


def stacked(slices: Iterable[np.ndarray]) -> np.ndarray:
    """All slices of a volume; copied, because the arrays that slices come in take turns."""
    return np.stack([one.copy() for one in slices])


def write(dataset: Dataset, path: Path) -> Path:
    """Save one object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_slices(template: Dataset, stored: np.ndarray, folder: Path, changes=(), spacing: float = 4.0) -> list:
    """Save a series; `changes[k]` are attributes of slice k; slice k lies at z = k * spacing."""
    paths = []
    for k, pixels in enumerate(stored):
        dataset = template
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.ImagePositionPatient = [10.0, 20.0, 30.0 + k * spacing]
        for keyword, value in (changes[k] if changes else {}).items():
            setattr(dataset, keyword, value)
        dataset.PixelData = pixels.astype(np.uint16).tobytes()
        paths.append(write(dataset, folder / f"{97 - k:03d}"))
    return paths


def enhanced(modality: str, stored: np.ndarray, order=None, slopes=None, changes=None) -> Dataset:
    """One multi-frame object (Enhanced CT or PET), frame k at z = 30 + 4 * order[k]; `changes[k]`: of its content.

    Orientation and pixel measures are shared; place, rescale and times are of the frame.
    """
    dataset = image(modality, shape=stored.shape[1:])
    moved = ("PixelSpacing", "SliceThickness", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept")
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = dataset.PixelSpacing, dataset.SliceThickness
    orientation.ImageOrientationPatient = dataset.ImageOrientationPatient
    for keyword in moved:
        delattr(dataset, keyword)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = ENHANCED[modality]
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([orientation])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for k, place in enumerate(order if order is not None else range(len(stored))):
        frame, content, position, values = Dataset(), Dataset(), Dataset(), Dataset()
        content.FrameAcquisitionDateTime = f"202305011100{int(place):02d}"
        content.StackID, content.InStackPositionNumber, content.TemporalPositionIndex = "1", int(place) + 1, 1
        for keyword, value in (changes[k] if changes else {}).items():
            setattr(content, keyword, value)
        position.ImagePositionPatient = [10.0, 20.0, 30.0 + 4.0 * place]
        values.RescaleSlope, values.RescaleIntercept = (slopes[k] if slopes is not None else 1), 0
        values.RescaleType = "HU" if modality == "CT" else "US"
        if modality == "CT":
            values.RescaleIntercept = -1024
        frame.FrameContentSequence, frame.PlanePositionSequence = Sequence([content]), Sequence([position])
        frame.PixelValueTransformationSequence = Sequence([values])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    dataset.NumberOfFrames = len(frames)
    dataset.PixelData = stored.astype(np.uint16).tobytes()
    return dataset
