"""The regions of a label map in NIfTI or NRRD, and what they are called."""

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import scipy
import SimpleITK as sitk

from theraflow.dicom.regions.crops import Crop, nonzero_box, sample_on_grid
from theraflow.errors import TheraflowError
from theraflow.files import read_json
from theraflow.images import grid_of
from theraflow.nifti import Grid, refuse_damaged_nifti

logger = logging.getLogger(__name__)

# Deflate makes nothing smaller than 1/1032; a header that promises more voxels than that is damaged.
_LARGEST_COMPRESSION = 1100


def label_map_regions(path: Path, grid: Grid) -> Iterator[tuple[str, Crop]]:
    """The labels that have voxels, in the order of the segments in an NRRD header, then of layers and labels.

    A warning tells segments that the header names but that have no voxels.

    Args:
        path: `.nii`, `.nii.gz`, `.nrrd` or `.nhdr`.
        grid: the geometry of the result.

    Yields:
        Name of the label, and the voxels of `grid` at whose centres it lies; none where it lies outside.

    Raises:
        TheraflowError: a damaged file, an image of another dimension than 3, values that are no labels.
    """
    image, metadata = _read_label_map(path)
    source = grid_of(image)
    named = {int(m[1]): name for key, name in metadata.items() if (m := re.fullmatch(r"Segment(\d+)_Name", key))}
    layers = image.GetNumberOfComponentsPerPixel()
    segments: dict[tuple[int, int], str] = {}
    for number, name in sorted(named.items()):
        # Slicer before 4.11 gave every segment a layer of its own and no label value.
        layer = int(metadata.get(f"Segment{number}_Layer", number if layers > 1 else 0))
        value = int(metadata.get(f"Segment{number}_LabelValue", 1))
        if (layer, value) in segments or not 0 <= layer < layers:
            raise TheraflowError(f"The segments in the header of {path} do not fit its layers; export it again.")
        segments[layer, value] = name.strip() or f"segment {number}"
    if layers > 1 and not segments:
        raise TheraflowError(f"The label map {path} must be a 3-D image with one value a voxel.")
    arrays = sitk.GetArrayViewFromImage(image).reshape(*source.size[::-1], layers)
    names = {} if segments else names_of_labels(path)
    crops = {}
    for layer in range(layers):
        for value, crop in _labels(arrays[..., layer], source, grid, path):
            crops[layer, value] = crop
            segments.setdefault((layer, value), names.get(value, f"label {value}"))
    for key, name in segments.items():
        if key in crops:
            yield name, crops[key]
        else:
            logger.warning("Region '%s' of %s is empty and is left out.", name, path)


def _read_label_map(path: Path) -> tuple[sitk.Image, Mapping[str, Any]]:
    if path.name.lower().endswith((".nii", ".nii.gz")):
        refuse_damaged_nifti(path, to_the_end=True)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    voxels = int(np.prod(reader.GetSize(), dtype=object)) * reader.GetNumberOfComponents()
    detached = path.name.lower().endswith(".nhdr")
    if reader.GetDimension() != 3:
        raise TheraflowError(f"The label map {path} must be a 3-D image with one value a voxel.")
    # Before it is read, for a damaged size takes all memory there is.
    if not detached and voxels > _LARGEST_COMPRESSION * path.stat().st_size:
        raise TheraflowError(f"The label map {path} is shorter than its header says; export it again.")
    image = reader.Execute()
    return image, {key: image.GetMetaData(key) for key in image.GetMetaDataKeys() if key.startswith("Segment")}


def _labels(array: np.ndarray, source: Grid, grid: Grid, path: Path) -> Iterator[tuple[int, Crop]]:
    """Every label of an array with its voxels on the grid."""
    if array.min() < 0 or (array.dtype.kind == "f" and not np.array_equal(array, np.rint(array))):  # also NaN
        raise TheraflowError(f"The label map {path} holds values that are no labels (whole numbers from 0).")
    start, box = nonzero_box(array)
    values = np.unique(box[box > 0])
    # Numbered one after the other, for labels may be as large as 2^31.
    # Slice by slice: the numbers are first made as eight bytes a voxel.
    numbered = np.empty(box.shape, np.min_scalar_type(len(values)))
    for numbers, labels in zip(numbered, box, strict=True):
        numbers[...] = np.searchsorted(values, labels, side="right")
    first, sampled = sample_on_grid(start, numbered, source, grid, "nearest")
    found = scipy.ndimage.find_objects(sampled, max_label=len(values))
    for number, (value, place) in enumerate(zip(values, found, strict=True), start=1):
        if place is None:
            yield int(value), (first, np.zeros((0, 0, 0), bool))
        else:
            yield int(value), (tuple(a + b.start for a, b in zip(first, place, strict=True)), sampled[place] == number)


def names_of_labels(path: Path | str) -> dict[int, str]:
    """The names of its labels that a NIfTI or NRRD label map brings: in its sidecar, else in a NIfTI header.

    Args:
        path: the label map.

    Returns:
        Name by label; may be empty.

    Raises:
        TheraflowError: a sidecar that cannot be read or whose `labels` are no names of whole numbers.
    """
    path = Path(path)
    stem = path.name
    for suffix in (".gz", ".nii", ".nrrd", ".nhdr", ".seg"):
        stem = stem.removesuffix(suffix)
    sidecar = path.with_name(stem + ".json")
    if sidecar.is_file():
        content = read_json(sidecar)
        labels = content.get("labels") if isinstance(content, dict) else None
        if labels:
            try:
                return {int(label): str(name) for label, name in labels.items()}
            except (AttributeError, ValueError) as error:
                raise TheraflowError(f'`labels` of {sidecar} must be names by label: {{"1": "name"}}.') from error
    return _header_names(path) if path.name.endswith((".nii", ".nii.gz")) else {}


def _header_names(path: Path) -> dict[int, str]:
    """The label table (Connectome Workbench's) in a NIfTI header extension, as TotalSegmentator writes it."""
    import nibabel  # only here: SimpleITK does not read header extensions

    for extension in nibabel.load(path).header.extensions:
        content = extension.get_content()
        text = content.decode("utf-8", errors="replace") if isinstance(content, bytes) else str(content)
        start = text.find("<LabelTable>")
        end = text.find("</LabelTable>")
        if start >= 0 and end >= 0:
            table = ElementTree.fromstring(text[start:end] + "</LabelTable>")
            return {int(label.attrib["Key"]): (label.text or "").strip() for label in table.iter("Label")}
    return {}
