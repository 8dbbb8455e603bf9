"""Annotations as other programs write them: kinds of DICOM SEG, NRRD of 3D Slicer, names, damaged files."""

import time

import highdicom
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy.spatial.transform import Rotation
from test_dicom_annotation import contour, grid, square, structures

from dicom_series import whole_mask
from theraflow.dicom.annotation import read_annotation
from theraflow.dicom.regions.labelmaps import names_of_labels
from theraflow.errors import TheraflowError
from theraflow.files import write_json

TURNED = Rotation.from_euler("xyz", [0.2, 0.3, -0.4]).as_matrix()


def slices_of(image, heights=None):
    """DICOM headers of the slices of an image; `heights`: mm from the first slice along the normal."""
    axes = np.array(image.GetDirection()).reshape(3, 3)
    spacing = image.GetSpacing()
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    datasets = []
    for k in range(image.GetSize()[2]):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        dataset.Modality, dataset.PatientID, dataset.PatientName = "CT", "SECRET-ID", "Secret^Patient"
        for word in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"):
            setattr(dataset, word, "")
        dataset.ReferringPhysicianName = ""
        dataset.SeriesNumber, dataset.InstanceNumber = 1, k + 1
        dataset.Columns, dataset.Rows = image.GetSize()[:2]
        dataset.PixelSpacing, dataset.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        height = k * spacing[2] if heights is None else heights[k]
        dataset.ImagePositionPatient = [f"{v:.6f}" for v in np.array(image.GetOrigin()) + axes[:, 2] * height]
        dataset.ImageOrientationPatient = [f"{v:.8f}" for v in [*axes[:, 0], *axes[:, 1]]]
        datasets.append(dataset)
    return datasets


def write_seg(path, sources, array, kind, names, **options):
    descriptions = [
        highdicom.seg.SegmentDescription(
            number,
            name,
            codes.SCT.MorphologicallyAbnormalStructure,
            codes.SCT.Lesion,
            highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(names, start=1)
    ]
    segmentation = highdicom.seg.Segmentation(
        sources, array, kind, descriptions, generate_uid(), 1, generate_uid(), 1, "maker", "model", "1", "1", **options
    )
    segmentation.save_as(path)
    return path


def three_segments(image):
    """Two overlapping segments, the first with a slice left out, and an empty one; shape (z, y, x, segment)."""
    array = np.zeros((*image.GetSize()[::-1], 3), np.uint8)
    array[1:3, 3:9, 4:12, 0] = array[5, 3:9, 4:12, 0] = 1
    array[2:4, 6:12, 8:14, 1] = 1
    return array


@pytest.mark.parametrize("axes", [np.eye(3), TURNED], ids=["upright", "oblique"])
@pytest.mark.parametrize("kind", ["BINARY", "PROBABILITY", "OCCUPANCY", "LABELMAP"])
def test_every_kind_of_segmentation(tmp_path, caplog, kind, axes):
    image = grid(size=(24, 20, 8), spacing=(1.0, 1.5, 3.0), direction=axes.ravel())
    expected = three_segments(image)
    options, stored = {}, expected
    if kind in ("PROBABILITY", "OCCUPANCY"):
        stored = np.where(expected, 0.75, 0.25 * (np.roll(expected, 3, axis=1) > 0))
        options = {"fractional_type": kind}
    elif kind == "LABELMAP":
        stored = np.where(expected[..., 1], 2, expected[..., 0]).astype(np.uint8)
        expected = np.stack([stored == 1, stored == 2], axis=-1)
    written = "FRACTIONAL" if options else kind
    path = write_seg(tmp_path / "seg.dcm", slices_of(image), stored, written, ["one", "two", "none"], **options)
    one, two = read_annotation(path, image)
    assert (one.name, two.name) == ("one", "two")
    assert np.array_equal(whole_mask(one), expected[..., 0]) and np.array_equal(whole_mask(two), expected[..., 1])
    assert one.inside.shape == (5, 6, 8) and one.start == (1, 3, 4)  # no more than its box is kept
    assert "'none'" in caplog.text and "is empty" in caplog.text


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_a_segmentation_on_another_grid_keeps_place_and_volume(tmp_path, kind):
    drawn_on = grid(size=(60, 50, 40), spacing=(1.0, 1.2, 1.6), origin=(3.0, -8.0, 2.0), direction=TURNED.ravel())
    index = np.argwhere(np.ones(drawn_on.GetSize()[::-1]))[:, ::-1]
    points = np.array(drawn_on.GetOrigin()) + (index * drawn_on.GetSpacing()) @ TURNED.T
    middle = np.array(drawn_on.TransformContinuousIndexToPhysicalPoint((29.3, 25.1, 19.6)))
    ball = (np.linalg.norm(points - middle, axis=1) < 22).reshape(drawn_on.GetSize()[::-1])
    path = write_seg(tmp_path / "seg.dcm", slices_of(drawn_on), ball.astype(np.uint8), kind, ["ball"])
    image = grid(size=(70, 70, 50), spacing=(1.7, 1.5, 2.1), origin=tuple(middle - (59, 50, 51)))
    (one,) = read_annotation(path, image)
    assert whole_mask(one).sum() * 1.7 * 1.5 * 2.1 == pytest.approx(4 / 3 * np.pi * 22**3, rel=0.01)
    z, y, x = np.argwhere(whole_mask(one)).mean(axis=0)
    assert np.allclose(image.TransformContinuousIndexToPhysicalPoint((x, y, z)), middle, atol=0.15)


def test_fractions_are_interpolated_on_a_finer_grid(tmp_path):
    coarse = grid(size=(8, 8, 8), spacing=(4.0, 4.0, 4.0), origin=(0.0, 0.0, 0.0))
    fractions = np.zeros((8, 8, 8, 1))
    fractions[2:6, 2:6, 2:6] = 1.0
    fractions[2:6, 2:6, 6] = 0.75  # along x the fraction falls to 0.5 a third of a voxel further out
    path = write_seg(tmp_path / "seg.dcm", slices_of(coarse), fractions, "FRACTIONAL", ["box"])
    fine = grid(size=(80, 2, 2), spacing=(0.4, 0.4, 0.4), origin=(0.0, 14.0, 14.0))
    (box,) = read_annotation(path, fine)
    x = np.flatnonzero(whole_mask(box)[0, 0]) * 0.4
    assert x[0] == pytest.approx(6.0, abs=0.41) and x[-1] == pytest.approx(24 + 4 / 3, abs=0.41)


def test_a_segmentation_on_uneven_slices(tmp_path):
    """As a real whole-body PET has them: 3.19, 3.27 and 3.29 mm."""
    heights = np.concatenate([[0], np.cumsum(np.resize([3.19, 3.29, 3.27, 3.29], 29))])
    drawn_on = grid(size=(30, 30, 30), spacing=(2.0, 2.0, 3.27), origin=(0.0, 0.0, 0.0))
    array = np.zeros((30, 30, 30), np.uint8)
    array[4:20, 5:15, 6:16] = 1
    array[22, 5:15, 6:16] = 1  # after two slices without a frame
    path = write_seg(tmp_path / "seg.dcm", slices_of(drawn_on, heights), array, "BINARY", ["column"])
    image = grid(size=(30, 30, 1000), spacing=(2.0, 2.0, 0.1), origin=(0.0, 0.0, 0.0))
    (column,) = read_annotation(path, image)
    z = np.flatnonzero(whole_mask(column)[:, 10, 10]) * 0.1
    ends = (heights[1:] + heights[:-1]) / 2  # halfway between slices k and k + 1
    lower, upper = z[z < heights[21]], z[z > heights[21]]
    assert lower[0] == pytest.approx(ends[3], abs=0.5) and lower[-1] == pytest.approx(ends[19], abs=0.5)
    assert upper[0] == pytest.approx(ends[21], abs=0.5) and upper[-1] == pytest.approx(ends[22], abs=0.5)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_segments_keep_their_first_and_last_slice_wherever_they_lie(tmp_path, kind):
    """One at the lower end, one at the upper, one with a gap; stored from above, positions rounded by the maker."""
    heights = np.arange(40) * 3.27 + np.random.default_rng(1).uniform(-0.01, 0.01, 40)
    image = grid(size=(12, 10, 40), spacing=(2.0, 2.5, 3.27), direction=TURNED.ravel())
    array = np.zeros((40, 10, 12), np.uint8)
    array[:3, 2:6, 3:9], array[37:, 4:9, 1:5] = 1, 2
    array[[9, 30], 1:8, 2:4] = 3
    path = write_seg(tmp_path / "seg.dcm", slices_of(image, heights)[::-1], array[::-1], kind, ["low", "high", "gap"])
    found = read_annotation(path, image)
    assert [region.name for region in found] == ["low", "high", "gap"]
    for number, region in enumerate(found, start=1):
        assert np.array_equal(whole_mask(region), array == number)


def write_nrrd(path, layers, fields="", space="left-posterior-superior"):
    """A .seg.nrrd as 3D Slicer writes it; layers: uint8, shape (z, y, x) or (z, y, x, layer)."""
    sizes = " ".join(str(n) for n in reversed(layers.shape))
    several = layers.ndim == 4
    header = (
        f"NRRD0004\ntype: unsigned char\ndimension: {layers.ndim}\nspace: {space}\nsizes: {sizes}\n"
        f"space directions: {'none ' if several else ''}(2,0,0) (0,2.5,0) (0,0,3)\n"
        f"kinds: {'list ' if several else ''}domain domain domain\nendian: little\nencoding: raw\n"
        f"space origin: (-7,11,40)\n{fields}\n"
    )
    path.write_bytes(header.encode() + np.ascontiguousarray(layers, np.uint8).tobytes())
    return path


def test_overlapping_segments_of_slicer(tmp_path, caplog):
    image = grid()  # as in write_nrrd
    layers = np.zeros((9, 16, 20, 2), np.uint8)
    layers[2:5, 4:9, 6:12, 0] = 1
    layers[5:7, 4:9, 6:12, 0] = 2
    layers[3:6, 6:12, 9:15, 1] = 1
    fields = "".join(
        f"Segment{k}_Name:={name}\nSegment{k}_LabelValue:={value}\nSegment{k}_Layer:={layer}\n"
        for k, (name, value, layer) in enumerate([("liver", 1, 0), ("hot spot", 1, 1), ("node", 2, 0), ("none", 3, 1)])
    )
    found = read_annotation(write_nrrd(tmp_path / "a.seg.nrrd", layers, fields), image)
    assert [one.name for one in found] == ["liver", "hot spot", "node"]
    expected = [layers[..., 0] == 1, layers[..., 1] == 1, layers[..., 0] == 2]
    assert all(np.array_equal(whole_mask(one), mask) for one, mask in zip(found, expected, strict=True))
    assert "'none'" in caplog.text
    # Before Slicer 4.11 a segment was a layer.
    layers[..., 0] = layers[..., 0] == 1
    old = write_nrrd(tmp_path / "old.seg.nrrd", layers, "Segment0_Name:=liver\nSegment1_Name:=hot spot\n")
    assert [(one.name, one.inside.sum()) for one in read_annotation(old, image)] == [("liver", 90), ("hot spot", 108)]
    wrong = write_nrrd(tmp_path / "wrong.seg.nrrd", layers, "Segment0_Name:=liver\nSegment0_Layer:=7\n")
    with pytest.raises(TheraflowError, match="do not fit its layers"):
        read_annotation(wrong, image)
    with pytest.raises(TheraflowError, match="one value a voxel"):
        read_annotation(write_nrrd(tmp_path / "vectors.nrrd", layers), image)


def test_nrrd_in_ras_lies_where_it_says(tmp_path):
    array = np.zeros((9, 16, 20), np.uint8)
    array[2, 3, 4] = 1
    path = write_nrrd(tmp_path / "ras.nrrd", array, space="right-anterior-superior")
    # The voxel's centre, RAS (1, 18.5, 46), is LPS (-1, -18.5, 46); it is 2 x 2.5 x 3 mm large.
    (one,) = read_annotation(path, grid(size=(9, 9, 9), spacing=(1.0, 1.0, 1.0), origin=(-5.25, -22.5, 42.0)))
    assert [sorted(set(along.tolist())) for along in np.nonzero(whole_mask(one))] == [[3, 4, 5], [3, 4, 5], [4, 5]]


def test_names_of_labels(tmp_path):
    image = grid()
    array = np.zeros((9, 16, 20), np.int32)
    array[2:4, 3:6, 4:8] = 3
    array[5, 3:6, 4:8] = 2_000_000_000
    labels = sitk.GetImageFromArray(array)
    labels.CopyInformation(image)
    sitk.WriteImage(labels, tmp_path / "map.nii.gz")
    assert names_of_labels(tmp_path / "map.nii.gz") == {}
    assert [one.name for one in read_annotation(tmp_path / "map.nii.gz", image)] == ["label 3", "label 2000000000"]
    stored = nibabel.load(tmp_path / "map.nii.gz")
    table = '<LabelTable><Label Key="3" Red="1">spleen</Label></LabelTable>'
    stored.header.extensions.append(
        nibabel.nifti1.Nifti1Extension(0, f"<CaretExtension>{table}</CaretExtension>".encode())
    )
    nibabel.save(stored, tmp_path / "table.nii.gz")
    first, _ = read_annotation(tmp_path / "table.nii.gz", image)
    assert first.name == "spleen" and np.array_equal(whole_mask(first), array == 3)
    # The sidecar is the reader's latest word.
    write_json({"labels": {"3": "node"}}, tmp_path / "table.json")
    assert read_annotation(tmp_path / "table.nii.gz", image)[0].name == "node"
    sitk.WriteImage(labels, tmp_path / "other.seg.nrrd")
    write_json({"labels": {"3": "rib"}}, tmp_path / "other.json")
    assert read_annotation(tmp_path / "other.seg.nrrd", image)[0].name == "rib"
    write_json({"labels": ["rib"]}, tmp_path / "other.json")
    with pytest.raises(TheraflowError, match="names by label"):
        read_annotation(tmp_path / "other.seg.nrrd", image)


def test_labels_beside_each_other_share_no_voxel_on_another_grid(tmp_path):
    array = np.ones((6, 6, 6), np.uint8)
    array[:, :, 3:] = 2
    labels = sitk.GetImageFromArray(array)
    sitk.WriteImage(labels, tmp_path / "map.nrrd")
    # Voxel centres of this grid lie exactly between those of the map.
    image = grid(size=(5, 5, 5), spacing=(1.0, 1.0, 1.0), origin=(0.5, 0.5, 0.5))
    one, two = read_annotation(tmp_path / "map.nrrd", image)
    assert np.all(whole_mask(one) ^ whole_mask(two))


def test_sixty_regions_take_no_sixty_images(tmp_path):
    image = grid(size=(200, 200, 300))
    drawn = {
        f"lesion {k}": [("CLOSED_PLANAR", contour(image, square(10.5 + k, 20.5 + k), 5 * k + z)) for z in range(3)]
        for k in range(60)
    }
    found = read_annotation(structures(tmp_path / "rs", drawn), image)
    assert len(found) == 60
    assert all(one.inside.shape == (3, 10, 10) and one.inside.base is None for one in found)
    assert whole_mask(found[7]).sum() == 300
    assert whole_mask(found[7]).shape == image.GetSize()[::-1]


def damaged(content, count):
    """Truncated, overwritten and bit-flipped variants of a file's bytes, most of them damaged in the header."""
    random = np.random.default_rng(5)
    for number in range(count):
        changed = bytearray(content)
        places = random.integers(0, min(len(changed), 3000), 1 + number % 20)
        if number % 4 == 0:
            yield bytes(changed[: random.integers(0, len(changed))])
            continue
        for place in places:
            if number % 4 == 1:
                changed[place] ^= 1 << random.integers(0, 8)
            elif number % 4 == 2:
                changed[place] = random.integers(0, 256)
            else:
                changed[place : place + 4] = random.choice([b"\xff\xff\xff\x7f", b"0000", b"9999", b"\x00\x00\x00\x00"])
        yield bytes(changed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["rtstruct", "seg", "labelmap", "nii", "nii.gz", "seg.nrrd"])
def test_damaged_files_give_one_sentence(tmp_path, kind):
    image = grid()
    path = tmp_path / f"whole.{kind}"
    array = np.zeros((9, 16, 20), np.uint8)
    array[3:6, 4:9, 6:12] = 1
    if kind == "rtstruct":
        drawn = {"lesion": [("CLOSED_PLANAR", contour(image, square(2.5, 12.5), plane)) for plane in (3, 4, 6)]}
        structures(path, drawn)
    elif kind in ("seg", "labelmap"):
        written = "BINARY" if kind == "seg" else "LABELMAP"
        write_seg(path, slices_of(image), array, written, ["lesion"])
    elif kind == "seg.nrrd":
        write_nrrd(path, array, "Segment0_Name:=lesion\nSegment0_LabelValue:=1\n")
    else:
        labels = sitk.GetImageFromArray(array)
        labels.CopyInformation(image)
        sitk.WriteImage(labels, path)
    assert len(read_annotation(path, image)) == 1
    refused = 0
    for number, content in enumerate(damaged(path.read_bytes(), 100)):
        broken = tmp_path / f"{number}.{kind}"
        broken.write_bytes(content)
        began = time.monotonic()
        try:
            read_annotation(broken, image)
        except TheraflowError as error:
            refused += 1
            assert "\n" not in str(error) and str(broken) in str(error)
            assert "Secret" not in str(error) and "SECRET" not in str(error)
        assert time.monotonic() - began < 5
    assert refused >= 25  # at least what was cut off
