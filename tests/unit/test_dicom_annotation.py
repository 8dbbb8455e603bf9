"""A reader's regions on the voxels of an image."""

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from dicom_series import whole_mask
from theraflow.dicom.annotation import read_annotation
from theraflow.dicom.regions.contours import fill_contours
from theraflow.errors import TheraflowError
from theraflow.files import write_json
from theraflow.images import grid_of


def grid(size=(20, 16, 9), spacing=(2.0, 2.5, 3.0), origin=(-7.0, 11.0, 40.0), direction=None):
    image = sitk.Image(size, sitk.sitkUInt8)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(np.eye(3).ravel() if direction is None else direction)
    return image


def contour(image, points, plane):
    """Points in index coordinates x, y of a plane z -> LPS mm."""
    return np.array([image.TransformContinuousIndexToPhysicalPoint((x, y, plane)) for x, y in points], float)


def filled(contours, image, **options):
    """`fill_contours` on the whole image."""
    (z, y, x), inside = fill_contours(contours, grid_of(image), **options)
    mask = np.zeros(image.GetSize()[::-1], bool)
    depth, height, width = inside.shape
    mask[z : z + depth, y : y + height, x : x + width] = inside
    return mask


def square(low, high):
    return [(low, low), (high, low), (high, high), (low, high)]


# Neither corners nor crossings of edges along a diagonal lie on voxel centres, where rounding decides.
coordinates = st.floats(-3, 22).map(lambda value: round(value, 3))


@given(st.lists(st.tuples(coordinates.map(lambda x: x + 0.0001), coordinates.map(lambda y: y + 0.0002)),
                min_size=3, max_size=12))  # fmt: skip
def test_filling_is_point_in_polygon_at_voxel_centres(points):
    image = grid()
    # An oblique image, and a polygon that may cross itself (even-odd) and leave the image.
    turned = sitk.VersorTransform((0.36, 0.48, 0.8), 0.7)
    image.SetDirection(turned.GetMatrix())
    mask = filled([contour(image, points, 4)], image)
    x, y = np.meshgrid(np.arange(20), np.arange(16))
    corners = np.array(points)
    crossings = np.zeros(x.shape, int)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        spans = (y0 > y) != (y1 > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            crossings += spans & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    assert np.array_equal(mask[4], crossings % 2 == 1)
    assert not mask[[0, 1, 2, 3, 5, 6, 7, 8]].any()


def test_a_convex_region_agrees_with_matplotlib():
    image = grid()
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    circle = np.column_stack([9.3 + 6.2 * np.cos(angles), 7.7 + 5.1 * np.sin(angles)])
    mask = filled([contour(image, circle, 4)], image)
    x, y = np.meshgrid(np.arange(20), np.arange(16))
    expected = Polygon(circle).contains_points(np.column_stack([x.ravel(), y.ravel()])).reshape(x.shape)
    assert np.array_equal(mask[4], expected)


def test_inner_contours_and_keyholes_are_holes():
    image = grid()
    outer, inner = square(2.5, 12.5), square(5.5, 8.5)
    holed = filled([contour(image, outer, 4), contour(image, inner, 4)], image)
    assert holed.sum() == 100 - 9
    keyhole = [*outer, outer[0], inner[0], *inner[::-1], inner[0]]
    assert np.array_equal(filled([contour(image, keyhole, 4)], image), holed)


def test_neighbours_share_no_voxel_and_leave_none_out():
    image = grid()
    left = filled([contour(image, [(2, 2), (6, 2), (6, 9), (2, 9)], 4)], image)
    right = filled([contour(image, [(6, 2), (11, 2), (11, 9), (6, 9)], 4)], image)
    both = filled([contour(image, [(2, 2), (11, 2), (11, 9), (2, 9)], 4)], image)
    assert not (left & right).any()
    assert np.array_equal(left | right, both)


@pytest.mark.parametrize("thickness", [0.5, 1.0, 2.0])
def test_regions_drawn_on_other_slices_keep_their_volume(thickness):
    # The image has slices of 1; contours lie `thickness` apart (index units), offset from its slices.
    image = grid(size=(20, 16, 40))
    planes = 10.2 + thickness * np.arange(int(16 / thickness))
    mask = filled([contour(image, square(2.5, 12.5), plane) for plane in planes], image)
    assert mask.sum() == pytest.approx(100 * 16, rel=0.07)
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    assert np.array_equal(slices, np.arange(slices[0], slices[-1] + 1))


def test_planes_in_the_middle_between_slices_count_once():
    image = grid(size=(20, 16, 40))
    mask = filled([contour(image, square(2.5, 12.5), 10.5 + k) for k in range(16)], image)
    assert np.array_equal(np.flatnonzero(mask.any(axis=(1, 2))), np.arange(10, 26))


def test_a_gap_between_two_parts_stays_open(caplog):
    image = grid(size=(20, 16, 40))
    planes = [5, 6, 7, 20, 21, 22]
    mask = filled([contour(image, square(2.5, 12.5), plane) for plane in planes], image)
    assert np.array_equal(np.flatnonzero(mask.any(axis=(1, 2))), planes)
    assert "in 2 parts" in caplog.text


def test_contours_across_the_slices_are_refused():
    image = grid()
    points = contour(image, square(2, 8), 4)
    points[0, 2] += 6.0
    with pytest.raises(TheraflowError, match="not planar"):
        filled([points], image)


def structures(path, regions):
    """An RTSTRUCT with regions name -> list of (type, points)."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.Modality = "RTSTRUCT"
    dataset.StructureSetROISequence, dataset.ROIContourSequence = Sequence(), Sequence()
    for number, (name, drawn) in enumerate(regions.items(), start=1):
        region, outline = Dataset(), Dataset()
        region.ROINumber = outline.ReferencedROINumber = number
        region.ROIName = name
        outline.ContourSequence = Sequence()
        for kind, points in drawn:
            item = Dataset()
            item.ContourGeometricType = kind
            item.ContourData = [f"{value:.4f}" for value in np.ravel(points)]
            outline.ContourSequence.append(item)
        dataset.StructureSetROISequence.append(region)
        dataset.ROIContourSequence.append(outline)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_structures_are_read_by_name(tmp_path, caplog):
    image = grid()
    drawn = {
        "liver": [("CLOSED_PLANAR", contour(image, square(2.5, 12.5), plane)) for plane in (3, 4)],
        "isocentre": [("POINT", contour(image, [(4, 4)], 4))],
        "node": [("CLOSED_PLANAR", contour(image, square(1.5, 3.5), 7))],
    }
    found = read_annotation(structures(tmp_path / "rs", drawn), image)
    assert [(one.name, int(whole_mask(one).sum())) for one in found] == [("liver", 200), ("node", 4)]
    assert all(one.inside.dtype == bool for one in found)
    assert "isocentre" in caplog.text


def test_contours_that_combine_by_exclusive_or(tmp_path, caplog):
    image = grid()
    outer, inner = contour(image, square(2.5, 12.5), 4), contour(image, square(5.5, 8.5), 4)
    drawn = {
        "ring": [("CLOSEDPLANAR_XOR", outer), ("CLOSEDPLANAR_XOR", inner)],
        "two pieces": [("CLOSED_PLANAR", outer), ("CLOSED_PLANAR", contour(image, square(13.5, 15.5), 4))],
        "written twice": [("CLOSED_PLANAR", outer), ("CLOSED_PLANAR", outer)],
    }
    found = read_annotation(structures(tmp_path / "rs", drawn), image)
    assert [int(one.inside.sum()) for one in found] == [91, 104, 100]
    assert "'written twice'" in caplog.text and "same contour twice" in caplog.text


def test_structures_that_cannot_be_used_are_named(tmp_path):
    image = grid()
    small = {"tiny": [("CLOSED_PLANAR", contour(image, square(2.1, 2.3), 4))]}
    with pytest.raises(TheraflowError, match=r"'tiny'.*holds no voxel of the image"):
        read_annotation(structures(tmp_path / "small", small), image)
    elsewhere = {"far": [("CLOSED_PLANAR", contour(image, square(2, 9), 400))]}
    with pytest.raises(TheraflowError, match=r"'far'.*drawn on another scan"):
        read_annotation(structures(tmp_path / "far", elsewhere), image)
    line = {"ruler": [("OPEN_PLANAR", contour(image, square(2, 9), 4))]}
    with pytest.raises(TheraflowError, match=r"'ruler'.*OPEN_PLANAR"):
        read_annotation(structures(tmp_path / "line", line), image)
    lost = {"lost": [("CLOSED_PLANAR", np.array([(0, 0, 43), (9e9, 0, 43), (0, 9, 43)]))]}
    with pytest.raises(TheraflowError, match=r"'lost'.*no places"):
        read_annotation(structures(tmp_path / "lost", lost), image)
    with pytest.raises(TheraflowError, match="has no region"):
        read_annotation(structures(tmp_path / "none", {}), image)
    with pytest.raises(TheraflowError, match="is no file"):
        read_annotation(tmp_path / "nowhere", image)
    (tmp_path / "text").write_text("no DICOM")
    with pytest.raises(TheraflowError, match="cannot be read"):
        read_annotation(tmp_path / "text", image)


def test_a_label_map_on_another_grid(tmp_path):
    image = grid()
    finer = grid(size=(40, 32, 18), spacing=(1.0, 1.25, 1.5), origin=(-7.5, 10.375, 39.25))
    array = np.zeros((18, 32, 40), np.uint8)
    array[4:8, 6:10, 10:20] = 1  # voxels 2, 3 x 3, 4 x 5..9 of the image
    array[12:14, 20:22, 30:32] = 7
    labels = sitk.GetImageFromArray(array)
    labels.CopyInformation(finer)
    sitk.WriteImage(labels, tmp_path / "labels.nii.gz")
    found = read_annotation(tmp_path / "labels.nii.gz", image)
    assert [one.name for one in found] == ["label 1", "label 7"]
    expected = np.zeros((9, 16, 20), bool)
    expected[2:4, 3:5, 5:10] = True
    assert np.array_equal(whole_mask(found[0]), expected)
    assert whole_mask(found[1]).sum() == 1
    write_json({"labels": {"1": "liver lesion"}}, tmp_path / "labels.json")
    assert [one.name for one in read_annotation(tmp_path / "labels.nii.gz", image)] == [
        "liver lesion",
        "label 7",
    ]


@pytest.fixture(scope="module")
def liver_ct(shared_data):
    folder = shared_data / "dicom_seg_sr" / "ct-3slice"
    return sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))


@pytest.mark.shared_data
def test_a_published_segmentation_lies_on_its_ct(shared_data, liver_ct):
    path = shared_data / "dicom_seg_sr" / "ct_liver_seg.dcm"
    (liver,) = read_annotation(path, liver_ct)
    assert liver.name == "Liver"
    # Frame by frame, by the positions in the file.
    dataset = pydicom.dcmread(path)
    expected = np.zeros((3, 512, 512), bool)
    for frame, groups in zip(dataset.pixel_array, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        place = [float(value) for value in groups.PlanePositionSequence[0].ImagePositionPatient]
        expected[liver_ct.TransformPhysicalPointToIndex(place)[2]] = frame
    assert np.array_equal(whole_mask(liver), expected)
    hounsfield = sitk.GetArrayFromImage(liver_ct)[expected]
    assert 30 < np.median(hounsfield) < 80


@pytest.mark.shared_data
def test_a_segmentation_of_another_image_is_refused(shared_data, liver_ct):
    with pytest.raises(TheraflowError, match=r"'Neoplasm, Primary'.*holds no voxel"):
        read_annotation(shared_data / "dicom_seg_sr" / "seg.dcm", liver_ct)


@pytest.mark.shared_data
def test_fractional_segments_count_from_one_half(shared_data, liver_ct, tmp_path):
    sources = [pydicom.dcmread(path) for path in sorted((shared_data / "dicom_seg_sr" / "ct-3slice").iterdir())]
    fractions = np.zeros((3, 512, 512), np.float32)
    fractions[1, 100:110, 200:220] = 0.75
    fractions[1, 110:120, 200:220] = 0.25
    description = highdicom.seg.SegmentDescription(
        1,
        "lesion",
        codes.SCT.MorphologicallyAbnormalStructure,
        codes.SCT.Lesion,
        highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
    )
    for source in sources:
        source.AccessionNumber, source.SpecificCharacterSet = "", "ISO_IR 100"
    highdicom.seg.Segmentation(
        sources,
        fractions,
        highdicom.seg.SegmentationTypeValues.FRACTIONAL,
        [description],
        generate_uid(),
        1,
        generate_uid(),
        1,
        "test",
        "test",
        "1",
        "1",
        fractional_type=highdicom.seg.SegmentationFractionalTypeValues.PROBABILITY,
    ).save_as(tmp_path / "seg.dcm")
    (lesion,) = read_annotation(tmp_path / "seg.dcm", liver_ct)
    expected = np.zeros((3, 512, 512), bool)
    place = liver_ct.TransformPhysicalPointToIndex([float(v) for v in sources[1].ImagePositionPatient])
    expected[place[2], 100:110, 200:220] = True
    assert np.array_equal(whole_mask(lesion), expected)


def test_an_empty_label_map_says_that_the_reader_saw_nothing(tmp_path):
    grid = sitk.Image(6, 5, 4, sitk.sitkUInt8)
    sitk.WriteImage(grid, str(tmp_path / "nothing.nii.gz"))
    assert read_annotation(tmp_path / "nothing.nii.gz", grid) == []
