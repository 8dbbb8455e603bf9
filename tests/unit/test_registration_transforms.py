"""Carrying points and masks, against maps and shapes that are known in closed form."""

import time

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from theraflow.errors import TheraflowError
from theraflow.images import from_array, to_array
from theraflow.layout import PatientFolder
from theraflow.registration import Passage, carry_mask, carry_points, passage, read_transform, write_transform


def empty_grid(size, spacing, origin=None) -> sitk.Image:
    grid = sitk.Image(list(size), sitk.sitkUInt8)
    grid.SetSpacing(list(spacing))
    middle = [-s * (n - 1) / 2 for s, n in zip(spacing, size, strict=True)]
    grid.SetOrigin(middle if origin is None else list(origin))
    return grid


def centres(grid: sitk.Image) -> np.ndarray:
    """Voxel centres (nz, ny, nx, 3) of an axis-aligned grid."""
    axes = [o + s * np.arange(n) for o, s, n in zip(grid.GetOrigin(), grid.GetSpacing(), grid.GetSize(), strict=True)]
    z, y, x = np.meshgrid(*axes[::-1], indexing="ij")
    return np.stack([x, y, z], axis=-1)


def sphere(grid: sitk.Image, centre, radius_mm: float) -> sitk.Image:
    return from_array(np.linalg.norm(centres(grid) - np.array(centre), axis=-1) <= radius_mm, grid)


def volume_mm3(mask: sitk.Image) -> float:
    return float(to_array(mask).sum() * np.prod(mask.GetSpacing()))


def centroid(mask: sitk.Image) -> np.ndarray:
    return centres(mask)[to_array(mask) > 0].mean(axis=0)


def rigid(degrees=(4.0, -7.0, 10.0), shift=(12.0, -20.0, 15.0)) -> sitk.Euler3DTransform:
    return sitk.Euler3DTransform((5.0, 3.0, -8.0), *np.radians(degrees).tolist(), shift)


def there_and_back(transform: sitk.Transform) -> Passage:
    return Passage(transform, transform.GetInverse())


def test_passage_leads_through_the_reference_in_the_direction_its_names_say(tmp_path):
    folder = PatientFolder(tmp_path, "P1")
    first, second = rigid(), sitk.TranslationTransform(3, (1.0, 2.0, 3.0))
    for name, to_scan in (("a", first), ("b", second)):
        write_transform(to_scan, folder.to_scan(name))
        write_transform(to_scan.GetInverse(), folder.to_reference(name))
    in_reference = np.array([[10.0, -30.0, 55.0], [0.0, 0.0, 0.0]])
    in_a = np.array([first.TransformPoint(p) for p in in_reference.tolist()])
    in_b = in_reference + np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(carry_points(in_a, passage(folder, "a", "b")), in_b, atol=1e-9)
    np.testing.assert_allclose(carry_points(in_b, passage(folder, "b", "a")), in_a, atol=1e-9)
    np.testing.assert_allclose(carry_points(in_b, passage(folder, "b", "b")), in_b, atol=1e-12)
    assert carry_points(np.empty((0, 3)), passage(folder, "a", "b")).shape == (0, 3)

    grid = empty_grid((50, 50, 50), (3.0, 3.0, 3.0))
    mask = sphere(grid, in_a[0], 12.0)
    way = passage(folder, "a", "b")
    carried = carry_mask(mask, grid, way)
    np.testing.assert_allclose(centroid(carried), carry_points(centroid(mask)[None], way)[0], atol=0.5)


def test_missing_transform_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(TheraflowError, match=r"nothing\.h5 cannot be read as a transform"):
        read_transform(tmp_path / "nothing.h5")


@settings(max_examples=25, deadline=None)
@given(
    radius_mm=st.floats(4.0, 25.0),
    source_mm=st.floats(1.5, 5.0),
    target_mm=st.floats(1.5, 5.0),
    centre=st.tuples(*[st.floats(-15.0, 15.0)] * 3),
)
def test_carried_sphere_keeps_volume_and_place(radius_mm, source_mm, target_mm, centre):
    """A rigid map changes no volume; the exact volume and place are those of the mask that is carried."""
    size = int(2 * (radius_mm + 45) / source_mm)
    source = sphere(empty_grid([size] * 3, (source_mm, source_mm, 1.3 * source_mm)), centre, radius_mm)
    if not to_array(source).any():
        return
    target = empty_grid([int(220 / target_mm)] * 3, [target_mm] * 3)
    transform = rigid()
    carried = carry_mask(source, target, there_and_back(transform))
    voxel = target_mm**3
    assert abs(volume_mm3(carried) - volume_mm3(source)) <= max(0.51 * voxel, 0.01 * volume_mm3(source))
    truth = np.array(transform.TransformPoint(centroid(source).tolist()))
    few = to_array(carried).sum() < 8  # one voxel may lie half its diagonal away
    assert np.linalg.norm(centroid(carried) - truth) < (np.sqrt(3) / 2 if few else 0.5) * target_mm


@settings(max_examples=10, deadline=None)
@given(radius_mm=st.floats(6.0, 20.0), target_mm=st.floats(2.0, 4.0))
def test_mask_carried_there_and_back_is_the_same_lesion(radius_mm, target_mm):
    grid = empty_grid([60] * 3, [3.0] * 3)
    mask = sphere(grid, (3.0, -5.0, 2.0), radius_mm)
    way = there_and_back(rigid())
    there = carry_mask(mask, empty_grid([int(220 / target_mm)] * 3, [target_mm] * 3), way)
    back = carry_mask(there, grid, Passage(way.target_to_source, way.source_to_target))
    shared = (to_array(mask) & to_array(back)).sum()
    # 6 mm of radius on voxels of 4 mm: a layer of a tenth of the radius may come or go on the way.
    assert 2 * shared / (to_array(mask).sum() + to_array(back).sum()) > 0.8
    assert volume_mm3(back) == pytest.approx(volume_mm3(mask), rel=0.05)


def test_volume_follows_the_map():
    """Stretched by 1.2 x 1.1 x 0.9, a sphere becomes that much larger."""
    stretch = sitk.AffineTransform(np.diag([1.2, 1.1, 0.9]).ravel().tolist(), [0.0] * 3)
    mask = sphere(empty_grid([60] * 3, [2.0] * 3), (4.0, 2.0, -6.0), 15.0)
    carried = carry_mask(mask, empty_grid([70] * 3, [2.5] * 3), there_and_back(stretch))
    assert volume_mm3(carried) == pytest.approx(1.2 * 1.1 * 0.9 * volume_mm3(mask), rel=0.01)
    np.testing.assert_allclose(centroid(carried), centroid(mask) * [1.2, 1.1, 0.9], atol=0.3)


def test_small_lesion_survives_large_voxels_and_lost_ones_are_empty():
    mask = sphere(empty_grid([40] * 3, [2.0] * 3), (1.0, 1.0, 1.0), 2.5)
    way = there_and_back(sitk.TranslationTransform(3, (0.0, 0.0, 0.0)))
    coarse = carry_mask(mask, empty_grid([8] * 3, [12.0] * 3), way)
    assert to_array(coarse).sum() == 1
    elsewhere = carry_mask(mask, empty_grid([10] * 3, [4.0] * 3, origin=(500.0, 0.0, 0.0)), way)
    assert to_array(elsewhere).sum() == 0
    nothing = carry_mask(mask * 0, empty_grid([8] * 3, [4.0] * 3), way)
    assert to_array(nothing).sum() == 0


def test_the_same_transform_gives_the_same_bytes_at_any_time(tmp_path):
    field = sitk.Image([6, 5, 4], sitk.sitkVectorFloat64, 3) + 0.25
    displacement = sitk.DisplacementFieldTransform(field)
    transform = sitk.CompositeTransform([sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), displacement])
    stamped = []
    for second in (0, 1):
        if second:
            time.sleep(1.1)  # HDF5 stamps whole seconds
        write_transform(transform, tmp_path / f"{second}.h5")
        sitk.WriteTransform(transform, str(tmp_path / f"stamped{second}.h5"))
        stamped.append((tmp_path / f"stamped{second}.h5").read_bytes())
    assert stamped[0] != stamped[1]  # as ITK writes it
    assert (tmp_path / "0.h5").read_bytes() == (tmp_path / "1.h5").read_bytes()
    read, as_itk = read_transform(tmp_path / "0.h5"), sitk.ReadTransform(str(tmp_path / "stamped0.h5"))
    assert read.GetParameters() == as_itk.GetParameters() and read.GetFixedParameters() == as_itk.GetFixedParameters()
    assert read.TransformPoint((0.5, 1.5, 2.5)) == as_itk.TransformPoint((0.5, 1.5, 2.5)) != (0.5, 1.5, 2.5)


def test_a_field_is_kept_to_a_tenth_of_a_micrometre_in_little_room(tmp_path):
    z, y, x = np.meshgrid(*(np.linspace(0, 3, n) for n in (30, 40, 50)), indexing="ij")
    shifts = 40.0 * np.stack([np.sin(x + y), np.cos(y * z), np.exp(-x * z)], axis=-1)
    transform = sitk.DisplacementFieldTransform(sitk.GetImageFromArray(shifts, isVector=True))
    write_transform(sitk.CompositeTransform([transform]), tmp_path / "field.h5")
    read = np.array(read_transform(tmp_path / "field.h5").GetParameters())
    assert 0 < np.abs(read - shifts.ravel()).max() < 1e-4 * 0.1
    assert (tmp_path / "field.h5").stat().st_size < shifts.nbytes / 2
