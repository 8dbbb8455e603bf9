"""The analytic torso: what lies beside what, and how large it is."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from theraflow.virtual.anatomy import AIR, FAT, MUSCLE, RIB, SKIN, Anatomy, Grid, Pose
from theraflow.virtual.cohort import cohort

KIDNEYS = {"right": 2, "left": 3}
# mL; adults, from the 2.5th to the 97.5th percentile or a little wider (ICRP Publication 89 gives the middle).
VOLUMES_ML = {1: (70, 350), 2: (90, 300), 3: (90, 300), 5: (1000, 2500)}


@pytest.fixture(scope="module", params=[2, 4, 6], ids=["P003", "P005", "P007"])
def abdomen(request) -> np.ndarray:
    anatomy = cohort()[request.param].anatomy()
    return anatomy.labels(Grid.covering(*anatomy.bounding_box(0, 320), (3.0,) * 3))


@pytest.mark.parametrize("side", KIDNEYS)
def test_fat_lies_around_the_kidneys(abdomen, side):
    kidney = abdomen == KIDNEYS[side]
    around = abdomen[binary_dilation(kidney) & ~kidney]
    assert np.isin(around, (FAT, MUSCLE, 8, 9)).mean() > 0.97  # the muscle is the body wall; 8 and 9 the adrenal glands
    assert (around == FAT).mean() > 0.8
    assert not np.isin(around, (1, 5)).any()


@pytest.mark.parametrize("label", VOLUMES_ML)
def test_organs_have_the_size_of_an_adult_s(abdomen, label):
    low, high = VOLUMES_ML[label]
    assert low < (abdomen == label).sum() * 0.027 < high


def test_arms_lie_beside_the_trunk_and_change_nothing_in_it():
    anatomy = Anatomy.draw(11, "F", 40.0)
    grid = Grid.covering((-300, -150, -150), (300, 150, 520), (4.0,) * 3)
    pose = Pose.draw(np.random.default_rng(2))
    without, beside = (anatomy.labels(grid, pose, arms=arms) for arms in (False, True))
    added = beside != without
    assert (without[added] == AIR).all()
    assert set(np.unique(beside[added])) == {69, 70, RIB, SKIN, FAT, MUSCLE}
    left = grid.points()[..., 0] > 0
    assert left[beside == 69].all() and not left[beside == 70].any()
