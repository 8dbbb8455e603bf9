"""S values against published tables and against random sampling."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theraflow.dosimetry.s_values.kernels import available_nuclides, read_kernel
from theraflow.dosimetry.s_values.spheres import sphere_self_dose
from theraflow.errors import TheraflowError
from theraflow.nuclides import MEV_IN_J, nuclide


def sample_distances(count: int, random: np.random.Generator) -> tuple[np.ndarray, float]:
    """Distances (cm in water) between decay and energy deposition, drawn from the 90Y kernel; MeV per decay."""
    kernel = read_kernel("90Y")
    cumulative = np.concatenate([[0.0], np.cumsum(kernel.electrons + kernel.photons)])
    return np.interp(random.random(count) * cumulative[-1], cumulative, kernel.edges), float(cumulative[-1])


def sample_directions(count: int, random: np.random.Generator) -> np.ndarray:
    vectors = random.standard_normal((count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.shared_data
def test_177lu_spheres_of_olguin(shared_data):
    table = pd.read_csv(shared_data / "dosimetry_reference" / "olguin2020_177Lu_sphere_s.csv", comment="#")
    assert len(table) == 15
    for mass, value in table.itertuples(index=False):
        assert sphere_self_dose("177Lu", mass).gy_per_bq_s == pytest.approx(value, rel=0.01)


@given(st.floats(4e-3, 1e4))
def test_s_times_mass_of_177lu_hardly_changes(mass):
    """Between its electrons alone, with some lost from small spheres, and those plus all photons."""
    product = sphere_self_dose("177Lu", mass).gy_per_bq_s * mass / 1000.0 / MEV_IN_J
    assert 0.12 < product < 0.14792 + 0.031558 + 0.00354


def test_outside_the_computed_range_is_refused():
    for mass in (0.0009, 20_001.0):
        with pytest.raises(TheraflowError, match=r"computed for spheres of 0\.001 to 20000 g"):
            sphere_self_dose("177Lu", mass)
    with pytest.raises(TheraflowError, match="densities"):
        sphere_self_dose("177Lu", 1.0, 0.001)
    assert sphere_self_dose("177Lu", 1800.0).source == "sphere S from transport of 177Lu in water"


@pytest.mark.shared_data
def test_177lu_organs_of_two_systems(shared_data):
    """After scaling by mass: each system's S x mass against the sphere's of the same mass."""
    table = pd.read_csv(shared_data / "dosimetry_reference" / "organ_self_s_177Lu.csv", comment="#")
    soft = table[table["organ"] != "red_marrow"]
    assert len(soft) == 6
    for _, row in soft.iterrows():
        published = row["S_mGy_per_MBq_s"] * 1e-9
        value = sphere_self_dose("177Lu", row["reference_mass_g"]).gy_per_bq_s
        assert value == pytest.approx(published, rel=0.015), (
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


@pytest.mark.parametrize("name", available_nuclides())
def test_a_large_sphere_absorbs_all_electrons(name):
    """All but the bremsstrahlung, 0.4 % for 90Y, and what reaches its surface; photons on top."""
    kernel = read_kernel(name)
    electrons = nuclide(name).electron_mev
    everything = kernel.electrons.sum() + kernel.photons.sum()
    assert kernel.energy_in_sphere(1e6) == pytest.approx(everything, rel=1e-4)
    assert 0.995 * electrons < everything
    product = sphere_self_dose(name, 20_000.0, 1.0).gy_per_bq_s * 20.0 / MEV_IN_J
    assert 0.985 * electrons < product < everything


def test_90y_tiny_sphere_absorbs_what_the_kernel_leaves_near_the_origin():
    """Mean chord of a sphere 4R/3; a point source inside loses energy along 3R/4 on average."""
    kernel = read_kernel("90Y")
    radius = 0.4 * kernel.outer[0]
    first = (kernel.electrons[0] + kernel.photons[0]) / kernel.outer[0]
    assert kernel.energy_in_sphere(radius) == pytest.approx(first * 0.75 * radius, rel=1e-9)


@given(st.sampled_from(["177Lu", "90Y", "131I"]), st.floats(2e-3, 2e3), st.floats(0.3, 1.9))
def test_density_scales_lengths(name, mass, density):
    """In the same radius in g/cm2 the same energy stays: mass goes with radius^3 / density^2."""
    plain = sphere_self_dose(name, mass, 1.0).gy_per_bq_s * mass
    scaled = mass / density**2
    if 1e-3 <= scaled <= 2e4:
        assert sphere_self_dose(name, scaled, density).gy_per_bq_s * scaled == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("mass", [1.0, 10.0, 150.0])
def test_90y_sphere_agrees_with_random_sampling(mass):
    random = np.random.default_rng(7)
    count = 400_000
    density = 1.03
    radius = (3.0 * mass / (4.0 * math.pi * density)) ** (1.0 / 3.0)
    start = sample_directions(count, random) * radius * random.random((count, 1)) ** (1.0 / 3.0)
    distance, energy = sample_distances(count, random)
    end = start + sample_directions(count, random) * distance[:, None] / density
    inside = (np.linalg.norm(end, axis=1) <= radius).mean()
    expected = inside * energy * MEV_IN_J / (mass / 1000.0)
    assert sphere_self_dose("90Y", mass, density).gy_per_bq_s == pytest.approx(expected, rel=0.004)


def test_nuclides_by_mass_follow_their_energy():
    """100 g keep nearly what the electrons have; photons are at most a quarter of that on top."""
    values = {name: sphere_self_dose(name, 100.0).gy_per_bq_s for name in ("177Lu", "161Tb", "67Cu", "131I", "90Y")}
    for name, value in values.items():
        kept = value * 0.1 / MEV_IN_J
        assert 0.92 * nuclide(name).electron_mev < kept < 1.25 * nuclide(name).electron_mev


def test_refusals():
    with pytest.raises(TheraflowError, match="not for 18F"):
        sphere_self_dose("18F", 10.0)
    with pytest.raises(TheraflowError, match="mass"):
        sphere_self_dose("177Lu", 0.0)
    with pytest.raises(TheraflowError, match="mass"):
        sphere_self_dose("177Lu", math.nan)


def write_s_table(path, rows):
    path.write_text("# mine\nnuclide\tmass_g\ts_gy_per_bq_s\n" + "".join("\t".join(map(str, r)) + "\n" for r in rows))
    return path


def test_a_users_table_takes_the_place_of_the_computed_values(tmp_path):
    table = write_s_table(tmp_path / "mine.tsv", [("Lu-177", 100.0, 2e-13), ("177Lu", 1.0, 2e-11), ("90Y", 5.0, 1e-11)])
    value = sphere_self_dose("177Lu", 10.0, table=table)
    assert value.gy_per_bq_s == pytest.approx(2e-12, rel=1e-9)  # a straight line in the logarithms
    assert value.source == "sphere S of mine.tsv"
    with pytest.raises(TheraflowError, match=r"for 1 to 100 g, not for 0\.5 g"):
        sphere_self_dose("177Lu", 0.5, table=table)
    with pytest.raises(TheraflowError, match="no S values of 131I"):
        sphere_self_dose("131I", 10.0, table=table)


def test_a_users_table_is_checked(tmp_path):
    table = write_s_table(tmp_path / "a.tsv", [("177Lu", 1, 1e-11), ("177Lu", 2, "x")])
    with pytest.raises(TheraflowError, match="row 2 has no mass"):
        sphere_self_dose("177Lu", 1.0, table=table)
    (tmp_path / "b.tsv").write_text("nuclide\tmass_g\n177Lu\t1\n")
    with pytest.raises(TheraflowError, match="no column s_gy_per_bq_s"):
        sphere_self_dose("177Lu", 1.0, table=tmp_path / "b.tsv")
