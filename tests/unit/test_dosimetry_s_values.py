"""S values against published tables and against random sampling."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theraflow.dosimetry.s_values import absorbed_energy_mev, beta_kernel, sphere_self_dose
from theraflow.errors import TheraflowError
from theraflow.nuclides import MEV_IN_J, nuclide


def sample_distances(count: int, random: np.random.Generator) -> np.ndarray:
    """Distances (cm in water) between decay and energy deposition, drawn from the 90Y kernel."""
    shells, energy = beta_kernel()
    edges = np.concatenate([[0.0], shells[:, 1]])
    cumulative = np.concatenate([[0.0], np.cumsum(energy)]) / energy.sum()
    return np.interp(random.random(count), cumulative, edges)


def sample_directions(count: int, random: np.random.Generator) -> np.ndarray:
    vectors = random.standard_normal((count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.shared_data
def test_177lu_spheres_of_olguin(shared_data):
    table = pd.read_csv(shared_data / "dosimetry_reference" / "olguin2020_177Lu_sphere_s.csv", comment="#")
    assert len(table) == 15
    for mass, value in table.itertuples(index=False):
        assert sphere_self_dose("177Lu", mass).gy_per_bq_s == pytest.approx(value, rel=1e-9)


@given(st.floats(1e-3, 1e4))
def test_s_times_mass_of_177lu_hardly_changes(mass):
    """Between its electrons alone, with some lost from small spheres, and those plus all photons."""
    product = sphere_self_dose("177Lu", mass).gy_per_bq_s * mass / 1000.0 / MEV_IN_J
    assert 0.12 < product < 0.14792 + 0.031558 + 0.00354


def test_outside_the_table_says_so():
    assert "scaled by mass from 932 g" in sphere_self_dose("177Lu", 1800.0).source
    assert "scaled" not in sphere_self_dose("177Lu", 150.0).source


@pytest.mark.shared_data
def test_177lu_organs_of_two_systems(shared_data):
    """A sphere is no organ: 5 % for its shape (measured: at most 1.8 %)."""
    table = pd.read_csv(shared_data / "dosimetry_reference" / "organ_self_s_177Lu.csv", comment="#")
    soft = table[table["organ"] != "red_marrow"]
    assert len(soft) == 6
    for _, row in soft.iterrows():
        published = row["S_mGy_per_MBq_s"] * 1e-9
        value = sphere_self_dose("177Lu", row["reference_mass_g"]).gy_per_bq_s
        assert value == pytest.approx(published, rel=0.05), (
            row["organ"],
            row["system"],
            value / published - 1,
        )


@pytest.mark.shared_data
def test_dose_of_the_snmmi_kidney(shared_data):
    """The reference program takes 1 mL as 1 g and the mean of the volumes."""
    case = json.loads((shared_data / "dosimetry_reference" / "snmmi_patient4_left_kidney.json").read_text())
    mass = float(np.mean(case["left_kidney_volume_mL"]))
    dose = case["TIA_MBq_h"] * 1e6 * 3600.0 * sphere_self_dose("177Lu", mass).gy_per_bq_s
    assert dose == pytest.approx(case["absorbed_dose_Gy"], rel=0.03)
    # With the density of soft tissue the dose is that much lower.
    heavier = case["TIA_MBq_h"] * 1e6 * 3600.0 * sphere_self_dose("177Lu", 1.03 * mass).gy_per_bq_s
    assert heavier == pytest.approx(case["absorbed_dose_Gy"], rel=0.03)


@pytest.mark.shared_data
def test_90y_kernel_is_the_published_one(shared_data):
    name = "graves2019_90Y_beta_shells.csv"
    table = pd.read_csv(shared_data / "dosimetry_reference" / name, comment="#")
    shells, energy = beta_kernel()
    assert np.array_equal(shells[:, 1], table["r_outer_cm"])
    assert np.array_equal(energy, table["E_MeV"])


def test_90y_energy_is_conserved():
    """A large sphere absorbs the beta energy, all but the bremsstrahlung (0.3 %)."""
    assert absorbed_energy_mev(1e4) == pytest.approx(nuclide("90Y").electron_mev, rel=0.005)
    assert absorbed_energy_mev(1e4) == pytest.approx(beta_kernel()[1].sum(), rel=1e-3)


def test_90y_tiny_sphere_absorbs_what_the_kernel_leaves_near_the_origin():
    """Mean chord of a sphere 4R/3; a point source inside loses energy along 3R/4 on average."""
    radius = 0.002
    first = beta_kernel()[1][0] / 0.01
    assert absorbed_energy_mev(radius) == pytest.approx(first * 0.75 * radius, rel=1e-9)


@pytest.mark.parametrize("mass", [1.0, 10.0, 150.0])
def test_90y_sphere_agrees_with_random_sampling(mass):
    random = np.random.default_rng(7)
    count = 400_000
    density = 1.03
    radius = (3.0 * mass / (4.0 * math.pi * density)) ** (1.0 / 3.0)
    start = sample_directions(count, random) * radius * random.random((count, 1)) ** (1.0 / 3.0)
    distance = sample_distances(count, random)[:, None] / density
    end = start + sample_directions(count, random) * distance
    inside = (np.linalg.norm(end, axis=1) <= radius).mean()
    expected = inside * beta_kernel()[1].sum() * MEV_IN_J / (mass / 1000.0)
    assert sphere_self_dose("90Y", mass, density).gy_per_bq_s == pytest.approx(expected, rel=0.004)


@pytest.mark.shared_data
@pytest.mark.parametrize("size_mm", ["3", "4.42", "4.8"])
def test_90y_kernel_gives_the_published_voxel_s(shared_data, size_mm):
    """Kernel, densities and units: self-dose of a cubic voxel of soft tissue (1.04 g/mL), Lanconelli 2012."""
    file = shared_data / "dosimetry_reference" / "voxel_s_lanconelli" / f"90Y{size_mm}mmsoft.txt"
    line = next(text for text in file.read_text(encoding="latin-1").splitlines() if text.startswith("0\t0\t0"))
    published = float(line.split()[3])
    random = np.random.default_rng(3)
    count, density, edge = 1_000_000, 1.04, float(size_mm) / 10.0
    start = random.random((count, 3)) * edge
    end = start + sample_directions(count, random) * sample_distances(count, random)[:, None] / density
    inside = np.all((end > 0) & (end < edge), axis=1).mean()
    value = inside * beta_kernel()[1].sum() * MEV_IN_J / (edge**3 * density / 1000.0) * 1e9
    assert value == pytest.approx(published, rel=0.02)


def test_refusals():
    with pytest.raises(TheraflowError, match="not for 131I"):
        sphere_self_dose("131I", 10.0)
    with pytest.raises(TheraflowError, match="mass"):
        sphere_self_dose("177Lu", 0.0)
