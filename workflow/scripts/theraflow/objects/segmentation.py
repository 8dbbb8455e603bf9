"""Labels as a DICOM Segmentation.

BINARY, one bit a voxel and segment, frames without any voxel left out: what every PACS and viewer reads. The label map
of 2024 (Supplement 243) is a tenth as large, but most of them do not know it yet.
"""

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.sr.coding import Code

from theraflow.images import axes_of
from theraflow.nifti import Grid
from theraflow.objects.instance import common, long_string, own_scheme, sealed
from theraflow.objects.origin import Origin
from theraflow.objects.segments import Segment


def build_segmentation(
    labels: np.ndarray, grid: Grid, origin: Origin, segments: Sequence[Segment], description: str, series_number: int
) -> hd.seg.Segmentation:
    """A label map as a Segmentation on its own grid, in the study and frame of reference of a series.

    Args:
        labels: label map, shape (z, y, x), whole numbers; labels that no segment has are left out.
        grid: where it lies, LPS mm.
        origin: the series that was segmented, with a frame of reference.
        segments: those that have voxels, in the order of their numbers in the object.
        description: of the series.
        series_number: of the series in its study.
    """
    lookup = np.zeros(max(int(labels.max()), *(one.label for one in segments)) + 1, np.min_scalar_type(len(segments)))
    for number, one in enumerate(segments, start=1):
        lookup[one.label] = number
    # highdicom counts slices, rows, columns.
    affine = np.eye(4)
    affine[:3, :3] = (axes_of(grid) * grid.spacing)[:, ::-1]
    affine[:3, 3] = grid.origin
    volume = hd.Volume(
        lookup[labels], affine, coordinate_system="PATIENT", frame_of_reference_uid=origin.header.FrameOfReferenceUID
    )
    segmentation = hd.seg.Segmentation(
        source_images=origin.images,
        pixel_array=volume,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(number, one) for number, one in enumerate(segments, start=1)],
        content_description=long_string(description),
        coding_schemes=own_scheme(),
        **common(series_number, description),
    )
    return sealed(segmentation, origin)


def _description(number: int, segment: Segment) -> hd.seg.SegmentDescription:
    made = segment.made
    algorithm = None
    if made.by != "MANUAL":
        algorithm = hd.AlgorithmIdentificationSequence(long_string(made.name), made.family, long_string(made.version))
    described = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=long_string(segment.name),
        segmented_property_category=segment.category,
        segmented_property_type=segment.kind,
        algorithm_type=made.by,
        algorithm_identification=algorithm,
        tracking_uid=segment.tracking_uid,
        tracking_id=segment.name if segment.tracking_uid else None,
        anatomic_regions=[segment.region[0]] if segment.region else None,
    )
    if segment.side:
        described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = _coded(segment.side)
    if segment.region and segment.region[1]:
        described.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = _coded(segment.region[1])
    if segment.remark:
        described.SegmentDescription = segment.remark
    return described


def _coded(code: Code) -> list[Dataset]:
    return [hd.sr.CodedConcept(*code)]
