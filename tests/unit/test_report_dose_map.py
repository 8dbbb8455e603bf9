"""Isodose lines in the report: levels, orientation, what is drawn where nothing is known."""

import numpy as np
import pytest
import SimpleITK as sitk

from theraflow.layout import PatientFolder
from theraflow.report.dose_map import LINES, draw_isodoses, draw_patient_isodoses, isodose_levels


@pytest.mark.parametrize(
    ("highest", "levels"),
    [(6.3, [0.2, 0.5, 1.0, 2.0, 5.0]), (0.1, [0.002, 0.005, 0.01, 0.02, 0.05]), (0.0, []), (float("nan"), [])],
)
def test_levels_are_round_numbers_below_the_highest_dose(highest, levels):
    assert isodose_levels(highest) == pytest.approx(levels)
    assert len(levels) <= len(LINES)


def ball(shift: float, size=(40, 36, 30)) -> sitk.Image:
    z, y, x = np.ogrid[: size[2], : size[1], : size[0]]
    dose = 4.0 * np.exp(-((x - 28.0 + shift) ** 2 + (y - 10.0) ** 2 + (z - 20.0) ** 2) / 40.0)
    image = sitk.GetImageFromArray(np.where(dose > 0.01, dose, 0.0).astype(np.float32))
    image.SetSpacing([4.8] * 3)
    return image


def test_lines_surround_the_hottest_place_in_both_slices():
    """The ball lies left, in front and high: x 28, y 10, z 20 of the voxels."""
    figure = draw_isodoses(ball(0.0), sitk.Cast(ball(0.0) * 0.0, sitk.sitkFloat32), [28 * 4.8, 10 * 4.8, 20 * 4.8])
    coronal, axial = figure.axes[:2]
    for axes, centre in ((coronal, (28 * 4.8, 20 * 4.8)), (axial, (28 * 4.8, 10 * 4.8))):
        lines = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])
        assert lines.mean(axis=0) == pytest.approx(centre, abs=2.5)
    assert axial.yaxis_inverted() and not coronal.yaxis_inverted()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0.1", "0.2", "0.5", "1", "2"]


def test_an_empty_map_is_drawn_without_lines(tmp_path):
    figure = draw_isodoses(ball(0.0) * 0.0, None, [0.0, 0.0, 0.0])
    assert not figure.legends and not any(axes.collections for axes in figure.axes)
    assert draw_patient_isodoses(PatientFolder(tmp_path, "P1")) is None
