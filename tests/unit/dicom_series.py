"""Small DICOM series made for tests: what a scanner would write, with one thing changed at a time."""

import io
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from theraflow.dicom.parse import Header, parse

CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "NM": "1.2.840.10008.5.1.4.1.1.20",
}
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


def header(dataset: Dataset) -> Header:
    """What the import sees of a data set."""
    file = io.BytesIO()
    dataset.save_as(file, implicit_vr=False, little_endian=True)
    return parse(file.getvalue(), len(file.getvalue())).header


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
