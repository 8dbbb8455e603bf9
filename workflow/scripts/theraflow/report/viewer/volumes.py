"""The scans as the report's viewer shows them: small volumes, on one frame as far as the registrations carry.

What is shown is for looking at; no number of the report is made of it. PET is resampled to voxels of 4 mm, CT to 3 mm
(never finer than the scan) and 256 grey levels. Scans whose registration has not failed are shown where their points
lie in the reference scan, so that one point of the patient is the same place in all of them; the others stay in their
own coordinates.
"""

import base64
import gzip
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from theraflow.files import read_json
from theraflow.images import grid_of, read_image, resample, to_array
from theraflow.images.body import AIR_HU, body_box, shrink
from theraflow.layout import PatientFolder, Scan
from theraflow.nifti import nifti_header
from theraflow.registration.outcome import read_beside_emission
from theraflow.registration.transforms import map_points, read_transform

PET_MM, CT_MM = 4.0, 3.0
SUV_STEP = 0.02
# A voxel that the scan has not seen. Noise below 0, as some reconstructions have it, is shown as 0.
NOT_SEEN = -1
HU_STEP = 8.0
# Of all volumes of a page, as text. With more scans, or longer ones, voxels are larger. The pictures of scans beyond
# the sixth have to fit, too: the page is to stay below 25 MB.
MOST_BYTES, PICTURES_OF_A_SCAN, SCANS_WITH_ROOM = 14e6, 1e6, 6
NIFTI_LABELS = 1002  # intent code of nifti1.h
FAILED = "failed"


@dataclass(frozen=True)
class Place:
    """Where a scan is shown.

    Attributes:
        to_scan: maps points of the frame that is shown to points of the scan (LPS, mm).
        to_frame: the way back.
        frame: the reference scan whose frame it is; None for the scan's own.
        apart: why it is not shown on the reference scan; None where it is.
        verdict: of the registration; None where there is none.
    """

    to_scan: sitk.Transform
    to_frame: sitk.Transform
    frame: str | None
    apart: str | None
    verdict: str | None


@dataclass(frozen=True)
class Volumes:
    """One scan for the viewer.

    Attributes:
        scan: its row of the sheet.
        place: where it is shown.
        images: `pet`, `ct` where there is one, and `lesions`: gzipped NIfTI-1 as base64.
        spacing_mm: of the reduced PET.
        points: centre of each lesion in RAS mm of the frame that is shown.
        labels: its label in `lesions`.
    """

    scan: Scan
    place: Place
    images: Mapping[str, str]
    spacing_mm: float
    points: Mapping[str, tuple[float, float, float]]
    labels: Mapping[str, int]

    @property
    def size(self) -> int:
        """Number of characters in the page."""
        return sum(map(len, self.images.values()))


def read_place(folder: PatientFolder, scan: Scan) -> Place:
    """Where a scan is shown, by the verdict of its registration.

    Raises:
        TheraflowError: the transform of a registration is missing or cannot be read.
    """
    path = folder.registration_quality(scan.scan)
    if not path.is_file():
        return _own_place("it was not registered", None)
    quality = read_json(path)
    if quality["verdict"] == FAILED:
        return _own_place("its registration failed", FAILED)
    to_scan, to_frame = (read_transform(file(scan.scan)) for file in (folder.to_scan, folder.to_reference))
    return Place(to_scan, to_frame, quality["reference"], None, quality["verdict"])


def _own_place(reason: str, verdict: str | None) -> Place:
    still = sitk.Transform(3, sitk.sitkIdentity)
    return Place(still, still, None, reason, verdict)


def reduce_scans(folder: PatientFolder, scans: Sequence[Scan], lesions: pd.DataFrame) -> list[Volumes]:
    """All scans for the viewer, together not larger than `MOST_BYTES`, with many scans less.

    Args:
        folder: the patient's results.
        scans: those in SUV.
        lesions: `lesions.tsv`.

    Raises:
        TheraflowError: an image or a transform cannot be read.
    """
    places = [read_place(folder, scan) for scan in scans]
    boxes = _boxes(folder, scans, places)
    reduced = [_reduce(folder, *told, lesions, 1.0) for told in zip(scans, places, boxes, strict=True)]
    most = max(MOST_BYTES - PICTURES_OF_A_SCAN * max(len(scans) - SCANS_WITH_ROOM, 0), MOST_BYTES / 4.0)
    excess = sum(volumes.size for volumes in reduced) / most
    if excess > 1.0:
        # Bytes go with the number of voxels; those of noise compress a little worse when they are fewer.
        larger = 1.05 * excess ** (1.0 / 3.0)
        reduced = [_reduce(folder, *told, lesions, larger) for told in zip(scans, places, boxes, strict=True)]
    return reduced


def _boxes(folder: PatientFolder, scans: Sequence[Scan], places: Sequence[Place]) -> list[np.ndarray]:
    """Lowest and highest corner (2, 3) in LPS mm of what is shown of each scan: of all that share a frame, the same."""
    corners = [
        _range(map_points(_corners(folder, scan), place.to_frame)) for scan, place in zip(scans, places, strict=True)
    ]
    shared = [box for box, place in zip(corners, places, strict=True) if place.apart is None]
    whole = _range(np.concatenate(shared)) if shared else None
    return [whole if place.apart is None else box for box, place in zip(corners, places, strict=True)]


def _range(points: np.ndarray) -> np.ndarray:
    return np.array([points.min(axis=0), points.max(axis=0)])


def _corners(folder: PatientFolder, scan: Scan) -> np.ndarray:
    """The corners (8, 3) of the body in a scan in LPS mm; without a CT, of the emission image."""
    path = folder.ct(scan.scan)
    image = read_beside_emission(folder, scan.scan, path) if path.is_file() else read_image(folder.emission(scan))
    slices = body_box(image, 0.0) if path.is_file() else [slice(0, n) for n in image.GetSize()[::-1]]
    edges = [(part.start - 0.5, part.stop - 0.5) for part in slices[::-1]]
    return np.array([image.TransformContinuousIndexToPhysicalPoint(edge) for edge in itertools.product(*edges)])


def _reduce(
    folder: PatientFolder, scan: Scan, place: Place, box: np.ndarray, lesions: pd.DataFrame, larger: float
) -> Volumes:
    """One scan, its voxels `larger` times as long as usual."""
    pet = read_image(folder.emission(scan))
    grid = _grid(box, larger * max(PET_MM, *pet.GetSpacing()[:2]))
    spacing_mm = grid.GetSpacing()[0]
    seen = sitk.Clamp(shrink(pet, spacing_mm), lowerBound=0.0)
    pet = resample(seen, grid, place.to_scan, outside=NOT_SEEN)
    images = {"pet": encode_uptake(to_array(pet), grid)}
    path = folder.ct(scan.scan)
    if path.is_file():
        ct = sitk.Clamp(read_beside_emission(folder, scan.scan, path), lowerBound=AIR_HU)
        grid = _grid(box, larger * max(CT_MM, *ct.GetSpacing()[:2]))
        ct = resample(shrink(ct, grid.GetSpacing()[0]), grid, place.to_scan, outside=AIR_HU)
        images["ct"] = encode_density(to_array(ct), grid)
    # As fine as the CT, which is the lowest layer: outlines are drawn on its voxels.
    labels = resample(read_image(folder.lesion_map(scan.scan)), grid, place.to_scan, interpolation="nearest")
    images["lesions"] = encode_labels(to_array(labels), grid)
    own = lesions[lesions["scan"] == scan.scan].dropna(subset=["x_mm", "y_mm", "z_mm", "label"])
    points = map_points(own[["x_mm", "y_mm", "z_mm"]].to_numpy(float).reshape(-1, 3), place.to_frame)
    names = own["lesion"].astype(str)
    return Volumes(
        scan,
        place,
        images,
        spacing_mm,
        dict(zip(names, map(tuple, (points * [-1.0, -1.0, 1.0]).tolist()), strict=True)),
        dict(zip(names, own["label"].astype(int).tolist(), strict=True)),
    )


def _grid(box: np.ndarray, spacing_mm: float) -> sitk.Image:
    """An empty image along LPS of cubes that covers a box."""
    grid = sitk.Image([int(n) for n in np.ceil((box[1] - box[0]) / spacing_mm)], sitk.sitkUInt8)
    grid.SetSpacing([spacing_mm] * 3)
    grid.SetOrigin((box[0] + spacing_mm / 2.0).tolist())
    return grid


def encode_uptake(suv: np.ndarray, grid: sitk.Image) -> str:
    """PET (z, y, x) in steps of SUV 0.02; what is negative is voxels that the scan has not seen."""
    step = max(SUV_STEP, float(suv.max()) / np.iinfo(np.int16).max)
    return _encode(np.where(suv < 0, NOT_SEEN, np.rint(suv / step)).astype(np.int16), grid, slope=step)


def encode_density(hu: np.ndarray, grid: sitk.Image) -> str:
    """CT (z, y, x) from air to 1040 HU in steps of 8 HU."""
    return _encode(np.clip(np.rint((hu - AIR_HU) / HU_STEP), 0, 255).astype(np.uint8), grid, HU_STEP, AIR_HU)


def encode_labels(labels: np.ndarray, grid: sitk.Image) -> str:
    """Labels (z, y, x) of lesions."""
    return _encode(labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.int16), grid, intent=NIFTI_LABELS)


def _encode(array: np.ndarray, grid: sitk.Image, slope: float = 1.0, intercept: float = 0.0, intent: int = 0) -> str:
    """Gzipped NIfTI-1 as base64; the value of a voxel is `slope` times what is stored, plus `intercept`."""
    header = nifti_header(grid_of(grid), array.dtype, slope, intercept, intent)
    return base64.b64encode(gzip.compress(header + array.tobytes(), 6, mtime=0)).decode("ascii")


def page_data(reduced: Sequence[Volumes], lesions: pd.DataFrame) -> dict[str, Any]:
    """What the page's script is told of the scans, as JSON takes it.

    Args:
        reduced: what `reduce_scans` gives.
        lesions: `lesions.tsv`: its numbers, from the image itself, stand beside a lesion.
    """
    return {
        "opened": opened(reduced),
        "scans": [
            {
                "scan": volumes.scan.scan,
                "title": f"{volumes.scan.tracer}, {volumes.scan.timepoint} ({volumes.scan.scan})",
                "frame": volumes.place.frame or volumes.scan.scan,
                "remark": _remark(volumes),
                "spacing_mm": round(volumes.spacing_mm, 2),
                "ct": "ct" in volumes.images,
                "lesions": _lesions_of(volumes, lesions[lesions["scan"] == volumes.scan.scan].set_index("lesion")),
            }
            for volumes in reduced
        ],
    }


def opened(reduced: Sequence[Volumes]) -> list[int]:
    """Which scans are side by side at first: the first one, and of the others the best to compare it with.

    That is another tracer at the same time point, else any other scan; in the order of the sheet.
    """
    if not reduced:
        return []
    first, *others = (volumes.scan for volumes in reduced)
    other_tracer = [scan.tracer != first.tracer and scan.timepoint == first.timepoint for scan in others]
    return [0, 1 + (other_tracer.index(True) if any(other_tracer) else 0)] if others else [0]


def _lesions_of(volumes: Volumes, own: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "label": volumes.labels[name],
            "point": [round(part, 3) for part in point],
            "suv_peak": None if pd.isna(own.loc[name, "suv_peak"]) else float(own.loc[name, "suv_peak"]),
        }
        for name, point in volumes.points.items()
    ]


def _remark(volumes: Volumes) -> str:
    """What is to be said of where a scan is shown."""
    place, name = volumes.place, volumes.scan.scan
    if place.apart:
        return f"{name} is not linked: {place.apart}. It is shown in its own coordinates."
    if place.frame == name:
        return ""
    doubt = "" if place.verdict == "good" else f" (registration: {place.verdict}, look twice)"
    return f"Shown as registered to {place.frame}{doubt}."
