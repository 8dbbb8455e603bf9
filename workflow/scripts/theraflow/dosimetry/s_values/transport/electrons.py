"""Electrons in water, followed until they stop: soft scattering condensed, hard collisions one by one.

A step is short against the transport mean free path. At a random point of it (Fernandez-Varea et al., Nucl Instrum
Methods B 1993;73:447) the electron turns by the many small angles of the step together, a Gaussian; at its end
there may be a collision that turns it by a large angle, or that gives another electron more than the threshold,
which is then followed like any other. Between them it loses energy by the restricted stopping power.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from theraflow.dosimetry.s_values.transport.bins import Shells, Voxels
from theraflow.dosimetry.s_values.transport.water import (
    ATOMS,
    ELECTRON_MEV,
    SOFT_HALF,
    Electrons,
    angle_after_transfer,
    charges,
    most_charges,
    screening,
    widest_soft,
)

Batch = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # position, direction, energy, weight
LANES = 20_000
STEP = 0.03  # of a transport mean free path of soft scattering
LONGEST = 0.05  # step, of the path that is left


@dataclass
class Radiated:
    """Bremsstrahlung: where it began, the energy of the electron, and the energy it stands for."""

    position: np.ndarray
    energy: np.ndarray
    radiated: np.ndarray


def follow(
    energy: np.ndarray,
    weight: np.ndarray,
    edges: np.ndarray | Voxels,
    water: Electrons,
    absorbed_below: float,
    random: np.random.Generator,
    step: float = STEP,
    kept_radiation: float = np.inf,
    position: np.ndarray | None = None,
) -> tuple[np.ndarray, Radiated]:
    """Energy deposited in spherical shells around the origin, or in voxels.

    Args:
        energy: start energies, MeV.
        weight: what each electron counts.
        edges: radii of the shells from 0, g/cm2, or voxels.
        water: tables.
        absorbed_below: an electron of less energy stops where it is, MeV.
        random: source of chance.
        step: longest step in transport mean free paths.
        kept_radiation: bremsstrahlung is handed back in portions of this energy, MeV times weight.
        position: start points (N, 3), g/cm2; left out, all start at the origin.

    Returns:
        Weighted MeV per bin, one more entry for what lies beyond the last; and the bremsstrahlung.
    """
    bins = edges if isinstance(edges, Voxels) else Shells(edges)
    deposit = np.zeros(bins.count)
    photons: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    waiting: list[Batch] = []
    for start in range(0, energy.size, LANES):
        part = slice(start, start + LANES)
        count = energy[part].size
        place = np.zeros((count, 3)) if position is None else position[part]
        waiting.append((place, directions(count, random), energy[part], weight[part]))
    while waiting:
        batch = waiting.pop()
        waiting.extend(_run(batch, deposit, photons, bins, water, absorbed_below, random, step, kept_radiation))
    empty = (np.zeros((0, 3)), np.zeros(0), np.zeros(0))
    return deposit, Radiated(*(np.concatenate(column) for column in zip(empty, *photons, strict=True)))


def _run(
    batch: Batch,
    deposit: np.ndarray,
    photons: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
    bins: Shells | Voxels,
    water: Electrons,
    absorbed_below: float,
    random: np.random.Generator,
    step: float,
    kept_radiation: float,
) -> Iterator[Batch]:
    """Follow one batch to its end; what it scores goes to `deposit` and `photons`, its secondaries come back."""
    position, direction, energy, weight = batch
    secondaries = []

    def score(where: np.ndarray, amount: np.ndarray) -> None:
        deposit[:] += np.bincount(bins.of(where), amount, minlength=bins.count)

    while True:
        stopped = energy < absorbed_below
        if stopped.any():
            score(position[stopped], energy[stopped] * weight[stopped])
            moving = ~stopped
            position, direction, energy, weight = (a[moving] for a in (position, direction, energy, weight))
        if not energy.size:
            break
        reach, soft, _, *rates = water.at(energy).T
        longest = np.minimum(step / soft, LONGEST * reach)
        # Half of the mean length of the step: a collision may end it before.
        ahead = 0.5 * -np.expm1(-longest * sum(rates)) / sum(rates)
        middle = water.energy_of(reach - ahead)
        _, soft, radiated, *rates = water.at(middle).T
        rates = np.cumsum(rates, axis=0)
        free = random.exponential(size=energy.size) / rates[-1]
        collides = free < longest
        length = np.where(collides, free, longest)

        after = water.energy_of(reach - length)
        loss = (energy - after) * weight
        turned = turn(direction, _soft_cosine(length * soft, random), random)
        hinge, spot = random.random(energy.size) * length, random.random(energy.size) * length
        before = np.minimum(spot, hinge)[:, None]
        score(position + direction * before + turned * (spot[:, None] - before), loss * (1.0 - radiated))
        if np.isfinite(kept_radiation):
            _radiate(photons, position, middle, loss * radiated, kept_radiation, random)
        position = position + direction * hinge[:, None] + turned * (length - hinge)[:, None]
        direction, energy = turned, after

        kind = (random.random(energy.size) * rates[-1] > rates).sum(axis=0)  # 0 Moller, 1 and more the atom
        for index, (number, _) in enumerate(ATOMS, start=1):
            hit = np.flatnonzero(collides & (kind == index))
            cosine, real = _elastic_cosine(energy[hit], number, water.threshold, random)
            hit, cosine = hit[real], cosine[real]
            direction[hit] = turn(direction[hit], cosine, random)
        struck = np.flatnonzero(collides & (kind == 0) & (energy > 2.0 * water.threshold))
        if struck.size:
            transfer = _moller_transfer(energy[struck], water.threshold, random)
            azimuth = random.random(struck.size) * 2.0 * np.pi
            given = energy[struck]
            recoil = np.sqrt(transfer * (given + 2.0 * ELECTRON_MEV) / (given * (transfer + 2.0 * ELECTRON_MEV)))
            thrown = turn(direction[struck], recoil, random, azimuth + np.pi)
            far = transfer > absorbed_below
            score(position[struck][~far], (transfer * weight[struck])[~far])
            secondaries.append((position[struck][far], thrown[far], transfer[far], weight[struck][far]))
            direction[struck] = turn(direction[struck], angle_after_transfer(given, transfer), random, azimuth)
            energy[struck] -= transfer
    if secondaries:
        joined = tuple(np.concatenate(column) for column in zip(*secondaries, strict=True))
        for start in range(0, joined[2].size, LANES):
            yield tuple(column[start : start + LANES] for column in joined)


def _radiate(
    photons: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
    position: np.ndarray,
    energy: np.ndarray,
    radiated: np.ndarray,
    portion: float,
    random: np.random.Generator,
) -> None:
    """Keep whole portions by chance, so that the mean is right and the list is short."""
    kept = random.random(radiated.size) < radiated / portion
    if kept.any():
        photons.append((position[kept], energy[kept], np.maximum(radiated[kept], portion)))


def _soft_cosine(first: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Cosine of many small deflections together, with the mean exp(-first): exponential in 1 - cos."""
    return np.maximum(1.0 + np.expm1(-first) * random.exponential(size=first.size), -1.0)


def _elastic_cosine(
    energy: np.ndarray, number: float, threshold: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of a hard elastic collision, and whether it happens: the rate was that of `most_charges`."""
    eta = screening(energy, number)
    least, most = 1.0 / (1.0 + eta), 1.0 / (SOFT_HALF + eta)
    half = 1.0 / (least + random.random(energy.size) * (most - least)) - eta
    half = np.clip(half, SOFT_HALF, 1.0)
    seen = charges(energy, half, number, widest_soft(energy, threshold))
    return 1.0 - 2.0 * half, random.random(energy.size) * most_charges(number) < seen


def _moller_transfer(energy: np.ndarray, threshold: float, random: np.random.Generator) -> np.ndarray:
    result = np.empty(energy.size)
    open_ = np.arange(energy.size)
    while open_.size:
        e = energy[open_]
        gamma = 1.0 + e / ELECTRON_MEV
        w = threshold / (1.0 - random.random(e.size) * (1.0 - 2.0 * threshold / e))
        ratio = w / (e - w)
        shape = 1.0 + ratio**2 - (2.0 * gamma - 1.0) / gamma**2 * ratio + (w / (e + ELECTRON_MEV)) ** 2
        taken = random.random(e.size) * 2.25 < shape
        result[open_[taken]] = w[taken]
        open_ = open_[~taken]
    return result


def directions(count: int, random: np.random.Generator) -> np.ndarray:
    """Unit vectors, isotropic."""
    cosine = 2.0 * random.random(count) - 1.0
    azimuth = 2.0 * np.pi * random.random(count)
    sine = np.sqrt(1.0 - cosine**2)
    return np.stack([sine * np.cos(azimuth), sine * np.sin(azimuth), cosine], axis=1)


def turn(
    direction: np.ndarray, cosine: np.ndarray, random: np.random.Generator, azimuth: np.ndarray | None = None
) -> np.ndarray:
    """Directions turned by the angles of these cosines, around a random azimuth unless one is given."""
    if azimuth is None:
        azimuth = 2.0 * np.pi * random.random(cosine.size)
    x, y, z = direction.T
    sine = np.sqrt(np.clip(1.0 - cosine**2, 0.0, None))
    # an orthonormal pair without a pole (Duff et al., J Comput Graph Tech 2017;6:1)
    sign = np.copysign(1.0, z)
    a = -1.0 / (sign + z)
    b = x * y * a
    one = np.stack([1.0 + sign * x * x * a, sign * b, -sign * x], axis=1)
    two = np.stack([b, sign + y * y * a, -y], axis=1)
    result = (
        direction * cosine[:, None] + one * (sine * np.cos(azimuth))[:, None] + two * (sine * np.sin(azimuth))[:, None]
    )
    return result / np.sqrt(np.einsum("ij,ij->i", result, result))[:, None]
