"""Pictures show the patient to scale and the right way round, however the image is stored."""

import base64
import io

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from patient_on_disk import grid, inside
from PIL import Image

from theraflow.dosimetry.contract import FITTED_COLUMNS
from theraflow.dosimetry.curves.kinetics import written
from theraflow.images import from_array
from theraflow.report.pictures import (
    along_patient,
    body_range,
    draw_fused,
    draw_projections,
    picture_uri,
    shared_name,
    spread,
)
from theraflow.report.plots import draw_curves, draw_dvh

pytestmark = pytest.mark.filterwarnings("error")


def pixels(figure):
    """The figure as drawn: grey values 0 (black) to 255, row 0 at the top."""
    raw = base64.b64decode(picture_uri(figure).partition(",")[2])
    return np.array(Image.open(io.BytesIO(raw)).convert("L")).astype(int)


def picture_with_a_cube(order):
    """A faint body and a hot cube of 80 mm in the upper left front of the patient, stored along `order`."""
    image = grid((5, 8, 10), (72, 36, 60))  # x +-180, y +-144, z -220 to 380
    values = np.where(inside(image, (0, 0, 80), (150, 110, 280)), 1.0, 0.0)
    x, y, z = (image.GetOrigin()[i] + image.GetSpacing()[i] * np.arange(image.GetSize()[i]) for i in range(3))
    cube = (np.abs(x - 70) <= 40)[None, None] & (np.abs(y + 40) <= 40)[None, :, None]
    cube = cube & (np.abs(z - 200) <= 40)[:, None, None]
    values[cube] = 20.0
    pet = sitk.DICOMOrient(from_array(values.astype(np.float32), image), order)
    return pet, sitk.DICOMOrient(from_array(cube, image), order)


@pytest.mark.parametrize("order", ["LPS", "RAS", "PIR", "ASL"])
def test_projections_are_to_scale_and_the_right_way_round(order):
    figure = draw_projections(*picture_with_a_cube(order), {})
    picture = pixels(figure)
    rows, columns = np.nonzero(picture < 30)
    middle = picture.shape[1] * figure.axes[1].get_position().x0  # coronal on its left, sagittal on its right
    for here, left_of in ((columns < middle, False), (columns >= middle, True)):
        # Letters are as black as the cube, but small and at the top.
        body = here & (rows > 40)
        height, width = np.ptp(rows[body]) + 1, np.ptp(columns[body]) + 1
        assert width == pytest.approx(height, abs=3)  # a cube stays square though voxels are 5 x 8 x 10 mm
        seen = np.nonzero((picture < 240).any(axis=0))[0]
        own = seen[seen < middle] if not left_of else seen[seen >= middle]
        centre = (own.min() + own.max()) / 2
        assert (columns[body].mean() < centre) == left_of  # patient's left is right, the front is left
        assert rows[body].mean() < picture.shape[0] / 2  # head up


def test_axial_slice_has_the_front_up_and_the_left_on_the_right():
    pet, labels = picture_with_a_cube("LPS")
    picture = pixels(draw_fused(pet, labels, 1, None, None, {}))
    rows, columns = np.nonzero(picture < 30)
    inner = rows > 25
    assert columns[inner].mean() > picture.shape[1] / 2
    assert rows[inner].mean() < picture.shape[0] / 2
    assert np.ptp(columns[inner]) == pytest.approx(np.ptp(rows[inner]), abs=4)


def test_fused_slice_lies_at_the_hottest_voxel_of_the_lesion():
    pet, labels = picture_with_a_cube("LPS")
    values = sitk.GetArrayFromImage(pet)
    values[:5] = 99.0  # hotter, but outside of the lesion
    pet = from_array(values, pet)
    ct = from_array(np.full(values.shape, 40, np.int16), pet)
    figure = draw_fused(pet, labels, 1, ct, labels, {1: "liver"})
    assert [line.get_label() for line in figure.axes[0].get_lines()] == ["liver"]
    uptake = figure.axes[0].get_images()[1].get_array()
    assert uptake.max() == pytest.approx(20.0)


def test_oblique_images_are_straightened():
    image = grid((5, 5, 5), (40, 40, 40))
    angle = np.radians(20)
    image.SetDirection([np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1])
    image[30, 20, 10] = 100.0
    place = np.array(image.TransformIndexToPhysicalPoint((30, 20, 10)))
    volume = along_patient(sitk.SmoothingRecursiveGaussian(image, 8.0))
    k, j, i = np.unravel_index(volume.array.argmax(), volume.array.shape)
    assert np.array([volume.x[i], volume.y[j], volume.z[k]]) == pytest.approx(place, abs=5.0)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20), st.floats(0.1, 5))
def test_names_never_overlap(wanted, step):
    positions = spread(sorted(wanted), step, 0.0, 100.0)
    assert np.all(np.diff(positions) >= step - 1e-9)
    assert positions[-1] <= 100.0 + 1e-9
    assert positions[0] >= -1e-9  # 20 names of 5 need 95


def test_body_range_ignores_noise_and_survives_nothing():
    coordinates = np.arange(0.0, 1000.0, 10.0)
    profile = np.where((coordinates >= 400) & (coordinates <= 600), 100.0, 0.01)
    assert body_range(profile, coordinates) == pytest.approx((385, 615))
    assert body_range(np.zeros(100), coordinates) == (0, 990)


def test_organs_with_one_name():
    names = {"rib_left_4": "ribs", "vertebrae_L3": "vertebrae", "lung_upper_lobe_left": "lungs"}
    assert all(shared_name(organ) == name for organ, name in names.items())
    assert shared_name("kidney_left") == "kidney left"


def test_curves_of_any_values_are_drawn():
    activities = {"liver": [10.0, 5.0], "spleen": [0.0, 0.0], "L1": [-0.1, 3.0], "L2": [np.nan, np.nan]}
    curves = pd.DataFrame(
        [
            {"region": region, "kind": "organ", "time_h": time, "activity_mbq": value, "sd_mbq": sd}
            for region, values in activities.items()
            for time, value, sd in zip((4.0, 24.0), values, (0.5, np.nan), strict=True)
        ]
    )
    rates = np.log(2) / np.array([50.0, 3.0])
    told = written([12.0, -12.0], rates)  # uptake and clearance
    doses = pd.DataFrame({"region": ["liver", "L2"], "nuclide": "177Lu", "exponentials": [told, None]})
    figure = draw_curves(curves, doses, pd.DataFrame(columns=list(FITTED_COLUMNS)), "177Lu")
    picture_uri(figure)
    assert [axes.get_yscale() for axes in figure.axes[::2]] == ["log", "linear", "linear", "linear"]
    lines = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) > 2]
    assert len(lines) == 1
    time = lines[0].get_xdata()
    np.testing.assert_allclose(lines[0].get_ydata(), 12.0 * (2 ** (-time / 50) - 2 ** (-time / 3)), atol=1e-12)


def test_histograms_of_organs_and_lesions_have_a_panel_each():
    dvh = pd.DataFrame({"region": ["liver"] * 3 + ["L1"] * 3, "dose_gy_per_gbq": [3.0, 2, 1, 0, 0, 0],
                        "volume_percent": [0.0, 50, 100] * 2})  # fmt: skip
    figure = draw_dvh(dvh, ["L1"])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["organs", "lesions"]
    assert len(draw_dvh(dvh.iloc[:3], []).axes) == 1


def test_names_stay_where_there_is_room_and_share_the_shift_where_not():
    assert spread([10.0, 50.0, 90.0], 5.0, 0.0, 100.0) == [10.0, 50.0, 90.0]
    assert spread([50.0, 50.0, 50.0], 4.0, 0.0, 100.0) == pytest.approx([46.0, 50.0, 54.0])
