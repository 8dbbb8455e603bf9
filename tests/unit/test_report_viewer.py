"""What the viewer is given: the same patient in fewer voxels, each point where the registration puts it."""

import base64
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from patient_on_disk import LESIONS, VIEWER, change_sidecar, write_bare_patient, write_patient
from registration_on_disk import write_registration

import theraflow.report.viewer.volumes as volumes_module
from theraflow.errors import TheraflowError
from theraflow.images import read_image, read_sidecar, sidecar_path, write_image
from theraflow.report.lesions import read_lesions
from theraflow.report.viewer import page_data, read_library, reduce_scans
from theraflow.report.viewer.volumes import HU_STEP, encode_density, encode_labels, encode_uptake, opened

MOVED = sitk.Euler3DTransform((0.0, 0.0, 80.0), 0.02, -0.03, 0.05, (12.0, -8.0, 20.0))


def decoded(content, folder):
    """The image as SimpleITK, and not the page's library, reads it: values by slope and intercept, LPS."""
    path = Path(folder) / "image.nii.gz"
    path.write_bytes(base64.b64decode(content))
    return sitk.ReadImage(str(path))


def cubes(size, spacing_mm, origin):
    grid = sitk.Image(list(size), sitk.sitkUInt8)
    grid.SetSpacing([spacing_mm] * 3)
    grid.SetOrigin(origin)
    return grid


@settings(deadline=None, max_examples=25)
@given(st.floats(0.0, 3000.0), st.floats(-1000.0, 1040.0), st.integers(1, 40000))
def test_values_survive_within_half_a_step(tmp_path_factory, suv, hu, label):
    grid, folder = cubes((3, 4, 2), 4.5, (-10.0, 20.0, -300.5)), tmp_path_factory.mktemp("decoded")
    ramp = np.linspace(0.0, 1.0, 24).reshape(2, 4, 3)
    uptake = decoded(encode_uptake(ramp * suv, grid), folder)
    step = max(0.02, suv / 32767)
    np.testing.assert_allclose(sitk.GetArrayFromImage(uptake), ramp * suv, atol=0.51 * step)
    assert uptake.GetSize() == (3, 4, 2)
    assert uptake.GetSpacing() == pytest.approx((4.5, 4.5, 4.5)) and uptake.GetOrigin() == (-10.0, 20.0, -300.5)
    assert uptake.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    density = sitk.GetArrayFromImage(decoded(encode_density(ramp * hu, grid), folder))
    np.testing.assert_allclose(density, ramp * hu, atol=0.51 * HU_STEP)
    labels = np.where(ramp > 0.5, min(label, 32767), 0)
    assert (sitk.GetArrayFromImage(decoded(encode_labels(labels, grid), folder)) == labels).all()


def test_what_the_scan_has_not_seen_is_no_uptake(tmp_path):
    image = decoded(encode_uptake(np.array([[[-1.0, 0.0, 2.0]]]), cubes((3, 1, 1), 4.0, (0.0,) * 3)), tmp_path)
    assert sitk.GetArrayFromImage(image).ravel() == pytest.approx([-0.02, 0.0, 2.0])


def test_uptake_below_zero_is_seen_all_the_same(tmp_path):
    folder, listed = write_bare_patient(tmp_path)
    path = folder.emission(listed[0])
    pet = read_image(path)
    write_image(sitk.Cast(pet - 100.0, sitk.sitkFloat32), path, read_sidecar(path))
    [only] = reduce_scans(folder, listed, read_lesions(folder))
    shown = decoded(only.images["pet"], tmp_path)
    middle = pet.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in pet.GetSize()])
    assert shown[shown.TransformPhysicalPointToIndex(middle)] == 0.0


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """pentixafor lies elsewhere; the follow-up could not be registered."""
    folder, listed = write_patient(tmp_path_factory.mktemp("results"), dosimetry=False)
    write_registration(folder, "fdg0", "fdg0")
    write_registration(folder, "cxcr4", "fdg0", MOVED, verdict="check")
    write_registration(folder, "fdg1", "fdg0", verdict="failed")
    lesions = read_lesions(folder)
    return folder, lesions, reduce_scans(folder, listed, lesions)


def test_a_registered_scan_lies_on_the_reference_scan(patient, tmp_path):
    """Each voxel of the reduced PET is that of the PET at the carried point, by interpolation."""
    folder, _, (fdg, cxcr4, _) = patient
    shown = decoded(cxcr4.images["pet"], tmp_path)
    own = read_image(folder.root / "scans/cxcr4/pet.nii.gz")
    for lesion in LESIONS:
        index = shown.TransformPhysicalPointToIndex(MOVED.GetInverse().TransformPoint(lesion.centre))
        point = MOVED.TransformPoint(shown.TransformIndexToPhysicalPoint(index))
        expected = own.EvaluateAtPhysicalPoint(point, sitk.sitkLinear)
        assert shown[index] == pytest.approx(expected, abs=0.011)
        x, y, z = cxcr4.points[lesion.name]
        assert MOVED.TransformPoint((-x, -y, z)) == pytest.approx(lesion.centre, abs=1e-6)
        x, y, z = lesion.centre
        assert fdg.points[lesion.name] == pytest.approx((-x, -y, z))
    reference = decoded(fdg.images["pet"], tmp_path)
    assert (shown.GetSize(), shown.GetOrigin()) == (reference.GetSize(), reference.GetOrigin())


def test_labels_and_ct_lie_on_the_pet(patient, tmp_path):
    for volumes in patient[2]:
        labels = decoded(volumes.images["lesions"], tmp_path)
        ct = decoded(volumes.images["ct"], tmp_path)
        assert labels.GetSize() == ct.GetSize()
        for name, (x, y, z) in volumes.points.items():
            index = labels.TransformPhysicalPointToIndex((-x, -y, z))
            assert labels[index] == volumes.labels[name]
        x, y, z = volumes.points["L1"]  # in the liver of 60 HU
        assert ct[ct.TransformPhysicalPointToIndex((-x, -y, z))] == pytest.approx(60.0, abs=40.0)  # 12 HU of noise


def test_scans_are_linked_as_their_registrations_say(patient):
    _, lesions, reduced = patient
    data = json.loads(json.dumps(page_data(reduced, lesions), allow_nan=False))
    told = data["scans"]
    assert data["opened"] == [0, 1]
    assert [scan["frame"] for scan in told] == ["fdg0", "fdg0", "fdg1"]
    assert [scan["remark"] for scan in told] == [
        "", "Shown as registered to fdg0 (registration: check, look twice).",
        "fdg1 is not linked: its registration failed. It is shown in its own coordinates.",
    ]  # fmt: skip
    assert {lesion["name"]: lesion["suv_peak"] for lesion in told[1]["lesions"]} == {
        lesion.name: lesion.suv["pentixafor"] for lesion in LESIONS
    }


def test_another_tracer_of_the_same_time_is_opened_beside_the_first_scan(patient):
    fdg, cxcr4, later = patient[2]
    assert opened([fdg, later, cxcr4]) == [0, 2]
    assert opened([fdg, later]) == [0, 1]
    assert opened([later, cxcr4]) == [0, 1]
    assert opened([fdg]) == [0]
    assert opened([]) == []


def test_a_scan_without_ct_lesions_or_registration_is_shown_alone(tmp_path):
    folder, listed = write_bare_patient(tmp_path)
    lesions = read_lesions(folder)
    [only] = reduce_scans(folder, listed, lesions)
    assert set(only.images) == {"pet", "lesions"}
    assert page_data([only], lesions)["scans"][0]["remark"].startswith("only is not linked: it was not registered.")
    pet = read_image(folder.emission(listed[0]))
    shown = decoded(only.images["pet"], tmp_path)
    covered = np.array(shown.GetSize()) * shown.GetSpacing()
    assert (covered >= np.array(pet.GetSize()) * pet.GetSpacing() - 1e-3).all()
    assert shown.GetSpacing()[0] == pytest.approx(12.0)  # never finer than the scan


def test_many_voxels_become_larger_ones(patient, monkeypatch):
    folder, lesions, reduced = patient
    most = 0.5 * sum(volumes.size for volumes in reduced)
    monkeypatch.setattr(volumes_module, "MOST_BYTES", most)
    smaller = reduce_scans(folder, [volumes.scan for volumes in reduced], lesions)
    assert 0.5 * most < sum(volumes.size for volumes in smaller) <= most
    assert smaller[0].spacing_mm > 1.2 * reduced[0].spacing_mm


def test_the_library_is_read_with_version_and_licences(tmp_path):
    library = read_library(VIEWER)
    assert library.version == "0.0.0" and "niivue" in library.script
    assert "Copyright (c) 2021, Niivue" in library.licences
    with pytest.raises(TheraflowError, match="run `snakemake viewer`"):
        read_library(tmp_path / "dist" / "niivue.umd.js")
    folder = shutil.copytree(VIEWER.parents[1], tmp_path / "package")
    script = folder / "script" / "niivue.umd.js"
    script.write_text('document.write("</SCRIPT>")')
    with pytest.raises(TheraflowError, match="cannot stand inside a page"):
        read_library(script)


def test_nothing_of_the_header_goes_to_the_page(patient):
    folder, lesions, reduced = patient
    change_sidecar(sidecar_path(folder.emission(reduced[0].scan)), patient_name="Mustermann^Max")
    told = json.dumps(page_data(reduced, lesions))
    assert "Mustermann" not in told and "/hospital" not in told
