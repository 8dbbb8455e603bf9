"""The two series of the benchmark, written as a scanner writes them, and what an import of them must give.

Both are drawn from a seed, so that every machine converts the same bytes. A process of its own runs this file: the
memory that it takes must not count as that of a converter.
"""

import argparse
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from scipy.ndimage import gaussian_filter

SEED = 20240229
CLASSES = {"ct": "1.2.840.10008.5.1.4.1.1.2", "pet": "1.2.840.10008.5.1.4.1.1.128"}
# slices, rows, columns
SHAPES = {"ct": (600, 512, 512), "pet": (400, 440, 440)}
# z, y, x
SPACING_MM = {"ct": (1.5, 0.9765625, 0.9765625), "pet": (2.25, 1.65, 1.65)}
DATE = "20240229"
INJECTED_S, STARTED_S = 10 * 3600, 11 * 3600 + 5 * 60
DOSE_BQ, WEIGHT_KG, HALF_LIFE_S = 241.7e6, 73.5, 6586.2


def plane(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the pixels of a slice lie, in mm from the rotation axis: to the left, to the back, and the distance."""
    _, rows, columns = SHAPES[kind]
    _, row_mm, column_mm = SPACING_MM[kind]
    y = (np.arange(rows) - (rows - 1) / 2)[:, None] * row_mm
    x = (np.arange(columns) - (columns - 1) / 2)[None, :] * column_mm
    return x, y, np.hypot(x, y)


def noise(kind: str, k: int, blur_px: float) -> np.ndarray:
    """Noise of unit standard deviation in slice `k`, correlated as a reconstruction's."""
    white = np.random.default_rng([SEED, list(SHAPES).index(kind), k]).standard_normal(SHAPES[kind][1:], np.float32)
    blurred = gaussian_filter(white, blur_px)
    return blurred / blurred.std()


def ellipse(x: np.ndarray, y: np.ndarray, centre: tuple[float, float], axes: tuple[float, float]) -> np.ndarray:
    """Inside of an ellipse; lengths in mm."""
    return ((x - centre[0]) / axes[0]) ** 2 + ((y - centre[1]) / axes[1]) ** 2 < 1


def ct_slice(k: int) -> np.ndarray:
    """Slice `k` of the CT in HU, int16: trunk with fat, muscle, lungs, spine, ribs, table; -1024 out of the circle."""
    x, y, radius = plane("ct")
    along = k / SHAPES["ct"][0]
    width, depth = 175 + 20 * math.sin(7 * along), 115 + 10 * math.cos(5 * along)
    trunk = ellipse(x, y, (0, 0), (width, depth))
    muscle = ellipse(x, y, (0, 0), (width - 22, depth - 18))
    texture = gaussian_filter(np.random.default_rng([SEED, k // 8]).standard_normal(SHAPES["ct"][1:], np.float32), 9)
    texture *= 12 / texture.std()
    hu = np.full(SHAPES["ct"][1:], -1003.0, np.float32)
    hu[ellipse(x, y, (0, 175), (210, 30)) & ~ellipse(x, y, (0, 165), (205, 30))] = -350
    hu[trunk] = -105
    hu[muscle] = 52 + texture[muscle]
    lung = 1 - ((along - 0.65) / 0.2) ** 2
    if lung > 0:
        for side in (-1, 1):
            inside = ellipse(x, y, (side * 75, -10), (58 * lung, 75 * lung))
            hu[inside] = -850 + 4 * texture[inside]
        angle = np.arctan2(y, x)
        ribs = trunk & ~muscle & (np.sin(14 * angle + 60 * along) > 0.75)
        hu[ribs] = 350
    hu[ellipse(x, y, (-70, -5), (60, 50)) & (0.35 < along < 0.48)] = 110
    hu[ellipse(x, y, (0, 70), (24, 20))] = 260
    hu[ellipse(x, y, (0, 70), (20, 16))] = 170 + 25 * math.sin(130 * along)
    deviation = np.where(trunk, 19.0, 11.0) * (1 + 0.35 * np.exp(-((radius / 120) ** 2)))
    hu += noise("ct", k, 0.6) * deviation
    hu[radius > 250] = -1024
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def pet_slice(k: int) -> np.ndarray:
    """Slice `k` of the PET in Bq/mL, float64 and not negative: trunk with organs and lesions, quiet around it."""
    x, y, _ = plane("pet")
    along = k / SHAPES["pet"][0]
    activity = np.full(SHAPES["pet"][1:], 12.0)
    activity[ellipse(x, y, (0, 0), (185, 115))] = 2400
    if 0.5 < along < 0.8:
        for side in (-1, 1):
            activity[ellipse(x, y, (side * 75, -10), (55, 70))] = 1100
    if 0.35 < along < 0.48:
        activity[ellipse(x, y, (-70, -5), (60, 50))] = 6200
    if 0.53 < along < 0.58:
        activity[ellipse(x, y, (30, -30), (35, 30)) & ~ellipse(x, y, (30, -30), (22, 18))] = 21000
    if along < 0.06:
        activity[ellipse(x, y, (0, -20), (30, 25))] = 64000
    if k % 37 < 5:
        activity[ellipse(x, y, (55 - k % 110, 20), (9, 9))] = 17000
    activity = gaussian_filter(activity, 1.6)
    return np.maximum(activity + noise("pet", k, 1.3) * (14 + 0.16 * activity), 0)


def time_of(seconds: float) -> str:
    """A DICOM time."""
    return f"{int(seconds // 3600):02d}{int(seconds // 60 % 60):02d}{seconds % 60:09.6f}"


def uid(name: str, *numbers: int) -> str:
    """A UID of the benchmark, the same in every run."""
    return generate_uid(entropy_srcs=[str(SEED), name, *map(str, numbers)])


def item(**elements) -> Dataset:
    """A sequence item or a data set with these elements."""
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def code(value: str, scheme: str, meaning: str) -> list[Dataset]:
    """A code sequence of one item."""
    return [item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)]


def template(kind: str) -> Dataset:
    """What all slices of a series share: about as many elements as the scanners of three vendors write."""
    _, rows, columns = SHAPES[kind]
    thickness, *spacing = SPACING_MM[kind]
    started = time_of(STARTED_S if kind == "pet" else STARTED_S - 120)
    dataset = item(
        SpecificCharacterSet="ISO_IR 100",
        ImageType=["ORIGINAL", "PRIMARY", *(["AXIAL", "CT_SOM5 SPI"] if kind == "ct" else [])],
        InstanceCreationDate=DATE,
        InstanceCreationTime=time_of(STARTED_S + 1200),
        SOPClassUID=CLASSES[kind],
        StudyDate=DATE,
        SeriesDate=DATE,
        AcquisitionDate=DATE,
        ContentDate=DATE,
        StudyTime=time_of(STARTED_S - 600),
        SeriesTime=started,
        AcquisitionTime=started,
        ContentTime=started,
        AccessionNumber="B0000001",
        Modality={"ct": "CT", "pet": "PT"}[kind],
        Manufacturer="Benchmark",
        InstitutionName="Example hospital",
        InstitutionAddress="Street 1\r\nTown\r\nDistrict\r\nXX",
        ReferringPhysicianName="Example^Physician",
        StationName="PETCT1",
        StudyDescription="PET/CT whole body",
        ProcedureCodeSequence=code("NPONK", "99LOCAL", "PET/CT whole body"),
        SeriesDescription={"ct": "CT WB 1.5 Br38", "pet": "PET WB AC"}[kind],
        PhysiciansOfRecord="Example^Physician",
        PerformingPhysicianName="Example^Physician",
        OperatorsName="Example^Operator",
        ManufacturerModelName="Scanner 128",
        ReferencedStudySequence=[
            item(ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1", ReferencedSOPInstanceUID=uid("study", 8))
        ],
        ReferencedPerformedProcedureStepSequence=[
            item(ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.3", ReferencedSOPInstanceUID=uid("study", 9))
        ],
        ReferencedImageSequence=[
            item(ReferencedSOPClassUID=CLASSES["ct"], ReferencedSOPInstanceUID=uid("topogram", 1))
        ],
        IrradiationEventUID=uid("study", 10),
        PatientName="Benchmark^Series",
        PatientID="B1",
        IssuerOfPatientID="1.2.3.4.5",
        PatientBirthDate="19600101",
        PatientSex="M",
        PatientAge="064Y",
        PatientSize="1.76",
        PatientWeight=str(WEIGHT_KG),
        PregnancyStatus=4,
        BodyPartExamined="WHOLEBODY",
        SliceThickness=str(thickness),
        DeviceSerialNumber="60064",
        SoftwareVersions="VG80B",
        ProtocolName="FDG_WB",
        DateOfLastCalibration=DATE,
        TimeOfLastCalibration=time_of(7 * 3600),
        PatientPosition="HFS",
        StudyInstanceUID=uid("study", 1),
        SeriesInstanceUID=uid(kind, 1),
        StudyID="1",
        SeriesNumber={"ct": "2", "pet": "3"}[kind],
        AcquisitionNumber="1",
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        FrameOfReferenceUID=uid("frame", 1),
        PositionReferenceIndicator="",
        ImageComments="",
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=rows,
        Columns=columns,
        PixelSpacing=[f"{mm}" for mm in spacing],
        BitsAllocated=16,
        WindowCenter=["40", "300"],
        WindowWidth=["300", "1500"],
        WindowCenterWidthExplanation=["WINDOW1", "WINDOW2"],
        LossyImageCompression="00",
        RequestingPhysician="Example^Physician",
        RequestedProcedureDescription="PET/CT whole body",
        RequestedProcedureCodeSequence=code("NPONK", "99LOCAL", "PET/CT whole body"),
        PerformedProcedureStepStartDate=DATE,
        PerformedProcedureStepStartTime=time_of(STARTED_S - 600),
        PerformedProcedureStepID="NM20240229105500",
        PerformedProcedureStepDescription="PET/CT whole body",
        PerformedProtocolCodeSequence=code("100", "99LOCAL", "Whole body"),
        RequestAttributesSequence=[
            item(
                ScheduledProcedureStepDescription="PET/CT whole body",
                ScheduledProcedureStepID="30543134",
                RequestedProcedureID="30543134",
            )
        ],
    )
    dataset.update(ct_elements() if kind == "ct" else pet_elements())
    private = dataset.private_block(0x0029, "BENCHMARK CSA HEADER", create=True)
    private.add_new(0x08, "CS", "SOM 5")
    private.add_new(0x09, "LO", "VA10A 971201")
    # What vendors keep in private groups: binary, much longer than all that the standard defines.
    private.add_new(0x10, "OB", np.random.default_rng(SEED).bytes(1336))
    application = private.get_tag(0x40)
    dataset.add_new(application, "SQ", [])
    for name in ("ORIG WINDOW", "NULLPOSITION"):
        entry = Dataset()
        block = entry.private_block(0x0029, "BENCHMARK MEDCOM HEADER", create=True)
        block.add_new(0x41, "CS", name)
        block.add_new(0x42, "LO", name)
        block.add_new(0x44, "OB", b"-000005160\0\0")
        dataset[application].value.append(entry)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CLASSES[kind]
    return dataset


def ct_elements() -> Dataset:
    """Elements of the CT alone; 12 bits stored without sign, HU = stored - 1024."""
    dataset = item(
        BitsStored=12,
        HighBit=11,
        PixelRepresentation=0,
        RescaleIntercept="-1024",
        RescaleSlope="1",
        RescaleType="HU",
        ContrastBolusAgent="APPLIED",
        KVP="120",
        DataCollectionDiameter="500",
        ContrastBolusVolume="0",
        ContrastBolusTotalDose="0",
        ContrastFlowRate="0",
        ContrastFlowDuration="0",
        ReconstructionDiameter="500",
        DistanceSourceToDetector="1085.6",
        DistanceSourceToPatient="595",
        GantryDetectorTilt="0",
        TableHeight="188",
        RotationDirection="CW",
        ExposureTime="330",
        FilterType="FLAT",
        GeneratorPower="56",
        FocalSpots="0.9",
        ConvolutionKernel=["Br38f", "3"],
        SingleCollimationWidth=1.2,
        TotalCollimationWidth=19.2,
        TableSpeed=46.3,
        TableFeedPerRotation=15.3,
        SpiralPitchFactor=0.8,
        ExposureModulationType="XYZ_EC",
        EstimatedDoseSaving=29.7297,
        CTDIvol=18.541843087058826,
        CTDIPhantomTypeCodeSequence=code("113691", "DCM", "IEC Body Dosimetry Phantom"),
    )
    private = dataset.private_block(0x0019, "BENCHMARK CT COAD", create=True)
    for element, value in ((0x90, "0"), (0x92, "0.9236"), (0x93, "-1.6565"), (0xB0, "15.3")):
        private.add_new(element, "DS", value)
    return dataset


def pet_elements() -> Dataset:
    """Elements of the PET alone: [18F]FDG, Bq/mL, corrected for decay to the start of the series."""
    return item(
        BitsStored=16,
        HighBit=15,
        PixelRepresentation=1,
        RescaleIntercept="0",
        Units="BQML",
        DecayCorrection="START",
        CorrectedImage=["NORM", "DTIM", "ATTN", "SCAT", "DECY", "RAN"],
        SeriesType=["WHOLE BODY", "IMAGE"],
        CountsSource="EMISSION",
        NumberOfSlices=SHAPES["pet"][0],
        RandomsCorrectionMethod="DLYD",
        AttenuationCorrectionMethod="measured,AC_CT",
        ReconstructionMethod="PSF+TOF 4i5s",
        ScatterCorrectionMethod="Model-based",
        AxialAcceptance="49",
        FrameReferenceTime="1065341.5",
        ActualFrameDuration="120000",
        ScatterFractionFactor="0.311",
        DoseCalibrationFactor="28120000",
        CollimatorType="NONE",
        TypeOfDetectorMotion="NONE",
        ConvolutionKernel="XYZ Gauss4.00",
        RadiopharmaceuticalInformationSequence=[
            item(
                Radiopharmaceutical="Fluorodeoxyglucose",
                RadiopharmaceuticalVolume="0",
                RadiopharmaceuticalStartTime=time_of(INJECTED_S),
                RadiopharmaceuticalStartDateTime=DATE + time_of(INJECTED_S),
                RadionuclideTotalDose=f"{DOSE_BQ:.0f}",
                RadionuclideHalfLife=str(HALF_LIFE_S),
                RadionuclidePositronFraction="0.967",
                RadionuclideCodeSequence=code("C-111A1", "SRT", "^18^Fluorine"),
                RadiopharmaceuticalCodeSequence=code("C-B1031", "SRT", "Fluorodeoxyglucose F^18^"),
            )
        ],
        PatientOrientationCodeSequence=code("F-10450", "SRT", "recumbent"),
        PatientGantryRelationshipCodeSequence=code("F-10470", "SRT", "headfirst"),
    )


def stored_slices(kind: str) -> Iterator[tuple[np.ndarray, dict]]:
    """The stored pixels of each slice, and the elements that this slice alone has."""
    for k in range(SHAPES[kind][0]):
        if kind == "ct":
            current = 400 + round(200 * math.sin(k / 40))
            elements = {"XRayTubeCurrent": str(current), "Exposure": str(round(current * 0.41))}
            yield (ct_slice(k) + 1024).astype(np.uint16), elements
        else:
            activity = pet_slice(k)
            slope = f"{activity.max() / 32767:.6g}"
            bed = k // 40
            elements = {
                "RescaleSlope": slope,
                "AcquisitionTime": time_of(STARTED_S + 120 * bed),
                "DecayFactor": f"{2 ** (120 * bed / HALF_LIFE_S):.6g}",
                "ImageIndex": k + 1,
            }
            yield np.clip(np.rint(activity / float(slope)), 0, 32767).astype(np.uint16), elements


def origin_mm(kind: str, k: int) -> tuple[float, float, float]:
    """Centre of the first pixel of slice `k` in patient coordinates (LPS: x, y, z)."""
    _, rows, columns = SHAPES[kind]
    z, y, x = SPACING_MM[kind]
    return -(columns - 1) / 2 * x, -(rows - 1) / 2 * y - 188, -1100 + k * z


def write(kind: str, folder: Path) -> None:
    """Write the series into `folder/kind` under names that tell nothing, and its stored values into `folder`."""
    (folder / kind).mkdir(parents=True)
    dataset = template(kind)
    volume = np.empty(SHAPES[kind], np.int16)
    slopes = []
    for k, (stored, elements) in enumerate(stored_slices(kind)):
        volume[k] = stored
        position = origin_mm(kind, k)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid(kind, 2, k + 1)
        dataset.InstanceNumber = str(k + 1)
        dataset.ImagePositionPatient = [f"{mm:.6f}".rstrip("0") for mm in position]
        dataset.SliceLocation = str(position[2])
        dataset.SmallestImagePixelValue, dataset.LargestImagePixelValue = int(stored.min()), int(stored.max())
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        slopes.append(float(elements.get("RescaleSlope", 1)))
        dataset.PixelData = stored.tobytes()
        name = hashlib.sha256(f"{kind} {k}".encode()).hexdigest()[:16]
        dataset.save_as(folder / kind / name, enforce_file_format=True)
    np.savez(folder / f"{kind}.npz", stored=volume, slopes=np.array(slopes))


def expected(kind: str, folder: Path, suv: bool) -> np.ndarray:
    """HU (int16) of the CT, or Bq/mL or SUVbw (float64) of the PET, by the definitions alone; z y x as written."""
    with np.load(folder / f"{kind}.npz") as truth:
        stored, slopes = truth["stored"], truth["slopes"]
    if kind == "ct":
        return stored - np.int16(1024)
    remaining_bq = DOSE_BQ * 0.5 ** ((STARTED_S - INJECTED_S) / HALF_LIFE_S)
    factor = WEIGHT_KG * 1000 / remaining_bq if suv else 1.0
    return stored * (slopes * factor)[:, None, None]


def compare(kind: str, folder: Path, image: Path, suv: bool) -> dict:
    """Compare an image with the truth, voxel by voxel and place by place.

    Returns:
        `difference`: largest difference of a value, relative to the value for a PET and in HU for a CT;
        `place_mm`: largest distance of a corner of the grid from where it belongs.
    """
    truth = expected(kind, folder, suv)
    loaded = nibabel.as_closest_canonical(nibabel.load(image))
    # Canonical is x to the right and y to the front; DICOM's coordinates point left and back.
    values = np.asarray(loaded.dataobj).transpose(2, 1, 0)[:, ::-1, ::-1]
    if values.shape != truth.shape:
        return {"difference": math.inf, "place_mm": math.inf}
    difference = 0.0
    for ours, right in zip(values, truth, strict=True):
        distance = np.abs(ours.astype(np.float64) - right)
        if kind == "pet":
            distance = distance / np.maximum(right, right.max() / 32767)
        difference = max(difference, float(distance.max()))
    size = np.array(values.shape[::-1]) - 1
    spacing = np.array(SPACING_MM[kind][::-1])
    first = np.array(origin_mm(kind, 0))
    place = 0.0
    for corner in np.ndindex(2, 2, 2):
        right = (first + size * corner * spacing) * (-1, -1, 1)
        index = size * (1 - corner[0], 1 - corner[1], corner[2])
        place = max(place, float(np.abs(loaded.affine @ [*index, 1] - [*right, 1]).max()))
    return {"difference": difference, "place_mm": place}


def main() -> None:
    """Write both series, or compare one image and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write")
    writing.add_argument("folder", type=Path)
    comparing = commands.add_parser("compare")
    comparing.add_argument("folder", type=Path)
    comparing.add_argument("kind", choices=SHAPES)
    comparing.add_argument("image", type=Path)
    comparing.add_argument("--suv", action="store_true")
    arguments = parser.parse_args()
    if arguments.command == "write":
        for kind in SHAPES:
            write(kind, arguments.folder)
    else:
        print(json.dumps(compare(arguments.kind, arguments.folder, arguments.image, arguments.suv)))


if __name__ == "__main__":
    main()
