"""The figure of a patient: the right scans, the right lesions, at the right place and the right way round."""

from dataclasses import replace

import numpy as np
import pytest
from patient_on_disk import LESIONS, SETTINGS, scans, write_bare_patient, write_patient

from theraflow.layout import PatientFolder
from theraflow.report.panel import _view_scan, choose_lesions, draw_patient_panel
from theraflow.report.pictures import choose_scans
from theraflow.tables import read_table

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    return write_patient(tmp_path_factory.mktemp("results"), dosimetry=False)


def test_scans_are_those_of_baseline_and_the_last_ones_after_it():
    base = scans()[0]
    named = [replace(base, scan=name, tracer=tracer, timepoint=time) for name, tracer, time in (
        ("late", "FDG", "followup3"), ("a", "FDG", "baseline"), ("again", "FDG", "baseline"), ("b", "PSMA", "baseline"),
        ("f1", "FDG", "followup1"), ("f2", "FDG", "followup2"),
    )]  # fmt: skip
    assert [scan.scan for scan in choose_scans(named[1:5])] == ["a", "b", "f1"]
    assert [scan.scan for scan in choose_scans([*named[1:], named[0]])] == ["a", "b", "f2", "late"]


def test_the_hottest_lesion_is_sliced_and_then_a_discordant_one(patient):
    folder, _ = patient
    lesions = read_table(folder.table("lesions"))
    # By LESIONS: L1 is the hottest on FDG; L3 alone is not seen by pentixafor.
    assert choose_lesions(lesions, "fdg0") == ["L1", "L3"]
    concordant = lesions[lesions["lesion"] != "L3"]
    assert choose_lesions(concordant, "fdg0") == ["L1", "L2"]
    assert choose_lesions(lesions.iloc[:0], "fdg0") == []


def test_slices_pass_through_the_lesion_and_left_is_on_the_right(patient):
    folder, listed = patient
    own = read_table(folder.table("lesions"))
    views = _view_scan(folder, listed[0], own[own["scan"] == "fdg0"], ["L1", "L3"])
    for name, cut in zip(("L1", "L3"), views.axial, strict=True):
        lesion = next(one for one in LESIONS if one.name == name)
        mask = next(mask for found, _, mask in cut.outlines if found == name)
        up, across = np.argwhere(mask).mean(axis=0)
        # In voxels of 10 mm the centre is met within one.
        assert np.interp(across, range(len(cut.across)), cut.across) == pytest.approx(lesion.centre[0], abs=10)
        assert -np.interp(up, range(len(cut.up)), cut.up) == pytest.approx(lesion.centre[1], abs=10)
        assert cut.density is not None
    # L1 lies in the liver, on the patient's right: x rises to the left of the patient, which is drawn on the right.
    assert LESIONS[0].centre[0] < 0
    assert np.all(np.diff(views.coronal.across) > 0)
    states = {name: state for name, state, _ in views.coronal.outlines}
    assert states == {"L1": True, "L2": True, "L3": True, "L4": True}


def test_projection_holds_the_maximum_of_every_line(patient):
    folder, listed = patient
    own = read_table(folder.table("lesions"))
    views = _view_scan(folder, listed[1], own[own["scan"] == "cxcr4"], ["L1"])
    assert views.coronal.uptake.max() == views.sagittal.uptake.max()
    assert {name: state for name, state, _ in views.sagittal.outlines}["L3"] is False


def test_panel_of_a_whole_patient_and_of_a_bare_one(patient, tmp_path):
    folder, listed = patient
    drawing = draw_patient_panel(folder, listed, SETTINGS)
    width, height = drawing.figure.get_size_inches() * 2.54
    assert width <= 17.5 + 0.01
    assert height <= 22.0 + 0.01
    assert "(A) FDG, baseline (fdg0); (B) pentixafor, baseline (cxcr4); (C) FDG, followup (fdg1)" in drawing.caption
    assert "L1 and L3" in drawing.caption
    bare, one = write_bare_patient(tmp_path)
    drawing = draw_patient_panel(bare, one, SETTINGS)
    assert drawing.figure is not None
    assert drawing.n == 0


def test_no_panel_without_a_scan_in_suv(tmp_path):
    drawing = draw_patient_panel(PatientFolder(tmp_path, "P9"), [], SETTINGS)
    assert drawing.reason == "the patient has no scan in SUV"
