"""The virtual cohort: eight patients after Table 1 to 3 of Hartlapp et al., J Nucl Med 2023;64:1424.

Sites, sex, ages, stages, therapy activities and survival are those of the paper; every lesion is invented.
The paper counts 61 lesions, 60 positive on [18F]FDG, 57 on [68Ga]pentixafor and 56 on both. That leaves four
lesions positive on FDG alone and one on pentixafor alone, whereas its text names five of each (in three
patients each). The counts rule here: FDG-only are both lesions of the CXCR4-negative patient P005 and one
lymph node each in P004 (cervical) and P007 (mediastinal, as in the paper's Figure 3); the lesion on
pentixafor alone is a lymph node of P003. Ascites and intestinal obstruction are no lesions.
"""

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.stats import norm

from theraflow.virtual.anatomy import COUCH, Anatomy, Grid

SEED = 20230904
PEAK_SEED = 1602  # chosen so that the treated patients resemble the paper's, see the tests

# SUVpeak of concordant lesions (minimum, median, maximum): the paper's results.
SUV_PEAK = {"FDG": (1.5, 5.7, 16.6), "pentixafor": (1.7, 4.7, 10.3)}

PERITONEUM, LIVER, SPLEEN = "peritoneum", "liver", "spleen"
NODE_R, NODE_I = "lymph_node_retroperitoneal", "lymph_node_iliac"
NODE_M, NODE_C = "lymph_node_mediastinal", "lymph_node_cervical"
MEDIASTINUM, SOFT = "mediastinum", "soft_tissue"

# Longest diameter in mm: the range that has room at the site.
DIAMETERS_MM = {
    PERITONEUM: (18, 45), LIVER: (18, 36), SPLEEN: (18, 24), NODE_R: (16, 22), NODE_I: (16, 24),
    NODE_M: (16, 22), NODE_C: (15, 20), "diaphragm": (16, 22), "pleura": (16, 24), MEDIASTINUM: (20, 32),
    SOFT: (18, 32), "bone": (16, 24),
}  # fmt: skip

# Least SUVpeak that stands out against the organ around it.
LEAST_PEAK = {
    "FDG": {LIVER: 4.5, SPLEEN: 4.5, "bone": 4.0, MEDIASTINUM: 3.5, NODE_M: 3.5, "diaphragm": 4.5},
    "pentixafor": {LIVER: 3.8, SPLEEN: 7.0, "bone": 4.5, MEDIASTINUM: 3.5, NODE_M: 3.5, "diaphragm": 3.8},
}

# A lesion's surface keeps this distance from organs whose uptake would spill into it.
CLEARANCE_MM = 12.0
HOT = (2, 3, 21, 90)  # kidneys, bladder, brain; and the spleen for lesions outside it
GAP_MM = 15.0  # between the surfaces of two lesions


@dataclass(frozen=True)
class Lesion:
    """A planned lesion: an ellipsoid of uniform uptake.

    Attributes:
        name: the same on all scans of the patient.
        site: as `Anatomy.place` understands.
        radii_mm: semi-axes at baseline.
        axes: 3 x 3, columns are the directions of the semi-axes in the neutral body.
        peak: planned SUVpeak per tracer at baseline (None: not above its surroundings); empty for a lesion
            that appears only at the follow-up.
        followup_peak: planned FDG SUVpeak at the follow-up, or None.
        growth: size at the follow-up relative to the baseline.
        dose_gy_per_gbq: planned 90Y self dose coefficient.
        t_eff_h: effective half-life of 177Lu.
    """

    name: str
    site: str
    radii_mm: tuple[float, float, float]
    axes: np.ndarray
    peak: dict[str, float | None]
    followup_peak: float | None = None
    growth: float = 1.0
    dose_gy_per_gbq: float | None = None
    t_eff_h: float | None = None

    @property
    def largest_radius_mm(self) -> float:
        """Radius of the smallest sphere around it, at baseline and at the follow-up."""
        return max(self.radii_mm) * max(1.0, self.growth)

    def planned_peak(self, tracer: str, timepoint: str) -> float | None:
        """SUVpeak wanted on a PET scan, None where the lesion is negative."""
        return self.followup_peak if timepoint == "followup" else self.peak.get(tracer)

    def present(self, timepoint: str) -> bool:
        """Whether the lesion exists at that time."""
        return bool(self.peak) or timepoint == "followup"


@dataclass(frozen=True)
class ScanPlan:
    """One scan: its sheet row and its times.

    Attributes:
        scan, tracer, timepoint: as in `scans.tsv`.
        injected_at, started_at: injection, and start of the emission scan.
        injected_mbq: activity.
        number: position in the patient's list, for random streams.
    """

    scan: str
    tracer: str
    timepoint: str
    injected_at: datetime.datetime
    started_at: datetime.datetime
    injected_mbq: float
    number: int

    @property
    def hours(self) -> float:
        """Time from injection to scan in h."""
        return (self.started_at - self.injected_at).total_seconds() / 3600.0


@dataclass(frozen=True)
class VirtualPatient:
    """One patient of the cohort; `cycles` are (date, activity in GBq), survival counts from the first."""

    patient: str
    number: int
    sex: str
    age_y: int
    stage: str
    lesions: tuple[Lesion, ...]
    scans: tuple[ScanPlan, ...]
    cycles: tuple[tuple[datetime.date, float], ...]
    pfs_days: int | None
    os_days: int | None

    def anatomy(self) -> Anatomy:
        """The body of the patient."""
        return Anatomy.draw(SEED + self.number, self.sex, self.age_y)

    def random(self, *purpose: int) -> np.random.Generator:
        """Random numbers of this patient for one purpose, independent of all others."""
        return np.random.default_rng([SEED, self.number, *purpose])


@dataclass(frozen=True)
class _Plan:
    """What the paper says of one patient, and the response that the follow-up shall show."""

    patient: str
    age_y: int
    stage: str
    sites: tuple[str, ...]
    baseline: str
    activities_gbq: tuple[float, ...] = ()
    second_cycle_days: int = 0
    followup_days: int | None = None  # after the first cycle
    uptake_change: float = 1.0
    size_change: float = 1.0
    new: tuple[str, ...] = ()
    pfs_days: int | None = None
    os_days: int | None = None
    most_gy_per_gbq: float | None = None  # tumour dose coefficient of the hottest lesion; None: no dosimetry


def _sites(**counts: int) -> tuple[str, ...]:
    return tuple(site for site, count in counts.items() for _ in range(count))


_PLANS = (
    _Plan(  # RECIST PD, PERCIST PD: little activity
        "P001", 8, "III", _sites(peritoneum=4, lymph_node_retroperitoneal=1, liver=2), "2016-02-08",
        activities_gbq=(1.7,), followup_days=60, uptake_change=1.5, size_change=1.32,
        pfs_days=65, os_days=143, most_gy_per_gbq=3.6,
    ),
    _Plan(  # RECIST PD, PERCIST PD: because of new lesions only
        "P002", 20, "IV",
        _sites(peritoneum=3, lymph_node_retroperitoneal=1, lymph_node_iliac=1, liver=3, spleen=1,
               diaphragm=1, pleura=1, mediastinum=1),
        "2016-09-12",
        activities_gbq=(7.2, 9.1), second_cycle_days=46, followup_days=28, uptake_change=0.6,
        size_change=0.95,
        new=_sites(peritoneum=2, liver=1), pfs_days=28, os_days=61, most_gy_per_gbq=3.5,
    ),
    _Plan(  # RECIST SD, PERCIST SD
        "P003", 26, "II", _sites(peritoneum=4, lymph_node_retroperitoneal=1, lymph_node_iliac=2),
        "2017-03-06",
        activities_gbq=(6.6,), followup_days=56, uptake_change=0.82, size_change=0.97,
        pfs_days=143, os_days=282, most_gy_per_gbq=1.4,
    ),
    _Plan("P004", 31, "IV", _sites(peritoneum=5, lymph_node_cervical=1), "2017-07-10"),
    _Plan("P005", 43, "II", _sites(peritoneum=1, soft_tissue=1), "2018-01-15"),
    _Plan("P006", 37, "IV", _sites(peritoneum=4, liver=3, mediastinum=1), "2018-06-18"),
    _Plan(  # RECIST SD, PERCIST PR
        "P007", 35, "IV",
        _sites(peritoneum=3, lymph_node_retroperitoneal=1, lymph_node_mediastinal=1, liver=2, soft_tissue=2,
               mediastinum=1),
        "2019-02-11",
        activities_gbq=(8.2,), followup_days=60, uptake_change=0.55, size_change=0.88,
        pfs_days=176, os_days=225, most_gy_per_gbq=2.6,
    ),
    _Plan(  # dosimetry with insufficient uptake
        "P008", 23, "IV",
        _sites(peritoneum=3, lymph_node_retroperitoneal=1, lymph_node_iliac=1, liver=1, spleen=1,
               soft_tissue=1, bone=1),
        "2019-10-07", most_gy_per_gbq=0.5,
    ),
)  # fmt: skip

FDG_ONLY = {("P004", 5), ("P005", 0), ("P005", 1), ("P007", 4)}
PENTIXAFOR_ONLY = {("P003", 6)}
TREATED = ("P001", "P002", "P003", "P007")
DAYS_TO_THERAPY = 48  # median from pentixafor PET to therapy
DOSIMETRY_HOURS = {"lu_24h": 23.5, "lu_48h": 47.2, "lu_96h": 95.6, "lu_168h": 167.8}


@cache
def cohort() -> tuple[VirtualPatient, ...]:
    """The eight virtual patients, always the same."""
    peaks = _draw_peaks(np.random.default_rng(PEAK_SEED))
    return tuple(_patient(number, plan, peaks) for number, plan in enumerate(_PLANS, start=1))


def _draw_peaks(rng: np.random.Generator) -> dict[tuple[str, int], dict[str, float | None]]:
    """SUVpeak per tracer of every baseline lesion, (patient, index) -> tracer -> value or None.

    The values of the concordant lesions are fixed quantiles between the paper's minimum, median and maximum,
    so that these come out exactly; chance decides which lesion gets which, with a correlation between the
    tracers, higher FDG uptake in the treated patients, and enough uptake to stand out where the organ around
    takes up, too.
    """
    keys = [(plan.patient, i) for plan in _PLANS for i in range(len(plan.sites))]
    site = {(plan.patient, i): plan.sites[i] for plan in _PLANS for i in range(len(plan.sites))}
    concordant = [key for key in keys if key not in FDG_ONLY | PENTIXAFOR_ONLY]
    shared = rng.normal(size=len(concordant))
    peaks: dict[tuple[str, int], dict[str, float | None]] = {key: {} for key in keys}
    for tracer, (low, median, high) in SUV_PEAK.items():
        score = 0.6 * shared + 0.8 * rng.normal(size=len(concordant))
        if tracer == "FDG":
            score += [1.0 if key[0] in TREATED else 0.0 for key in concordant]
        else:
            score -= [0.5 if key[0] == "P008" else 0.0 for key in concordant]
        z = norm.ppf((np.arange(len(concordant)) + 0.5) / len(concordant))
        z /= z.max()
        values = list(median * np.where(z < 0, (median / low) ** z, (high / median) ** z))
        # The least demanding lesions come last: they take what is left.
        demand = [LEAST_PEAK[tracer].get(site[key], 0.0) for key in concordant]
        wanted = {key: values[rank] for key, rank in zip(concordant, np.argsort(np.argsort(score)), strict=True)}
        for place in sorted(range(len(concordant)), key=lambda i: (-demand[i], i)):
            key = concordant[place]
            fitting = [value for value in values if value >= demand[place]]
            taken = min(fitting, key=lambda value: abs(math.log(value / wanted[key])))
            values.remove(taken)
            peaks[key][tracer] = float(taken)
    for keys_of_one, tracer, other in (
        (FDG_ONLY, "FDG", "pentixafor"),
        (PENTIXAFOR_ONLY, "pentixafor", "FDG"),
    ):
        for key in sorted(keys_of_one):
            peaks[key] = {tracer: float(rng.uniform(4.5, 7.0)), other: None}
    return peaks


def _patient(number: int, plan: _Plan, peaks: dict[tuple[str, int], dict[str, float | None]]) -> VirtualPatient:
    rng = np.random.default_rng([SEED, number])
    strongest = max((peaks[plan.patient, i]["pentixafor"] or 0.0) for i in range(len(plan.sites)))
    lesions = []
    for index, site in enumerate((*plan.sites, *plan.new)):
        new = index >= len(plan.sites)
        peak = {} if new else peaks[plan.patient, index]
        low, high = DIAMETERS_MM[site]
        if plan.age_y < 12:
            low, high = 15, min(high, 26)
        elif plan.most_gy_per_gbq:  # dosimetry needs lesions that a SPECT resolves
            low = min(low + 4, 20)
        longest = float(np.exp(rng.uniform(math.log(low), math.log(high))))
        radii = longest / 2 * np.array([1.0, *rng.uniform(0.8, 1.0, 2)])
        axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        noise = float(np.exp(rng.normal(0, 0.06)))
        before = peak.get("FDG")
        after = None
        if plan.followup_days:
            if new:
                after = float(rng.uniform(5.0, 7.0))
            elif before:
                after = max(2.2, before * plan.uptake_change * noise)
        dose = t_eff = None
        if plan.most_gy_per_gbq and not new:
            # More receptor, more dose; a lesion without takes up little.
            relative = math.sqrt(peak["pentixafor"] / strongest) if peak["pentixafor"] else 0.15
            dose, t_eff = plan.most_gy_per_gbq * relative, float(rng.uniform(40, 80))
        lesions.append(
            Lesion(
                f"L{index + 1:02d}", site, tuple(map(float, radii)), axes, peak, after,
                1.0 if new else plan.size_change, dose, t_eff,
            )
        )  # fmt: skip
    scans, cycles = _schedule(plan, rng)
    return VirtualPatient(
        plan.patient,
        number,
        "M",
        plan.age_y,
        plan.stage,
        tuple(lesions),
        scans,
        cycles,
        plan.pfs_days,
        plan.os_days,
    )


def _schedule(
    plan: _Plan, rng: np.random.Generator
) -> tuple[tuple[ScanPlan, ...], tuple[tuple[datetime.date, float], ...]]:
    """Scans in the order of time, and therapy cycles."""
    small = 0.45 if plan.age_y < 12 else 1.0
    day = datetime.datetime.fromisoformat(plan.baseline)
    therapy = (day + datetime.timedelta(days=1 + DAYS_TO_THERAPY)).date()
    scans: list[ScanPlan] = []

    def pet(scan: str, tracer: str, timepoint: str, date: datetime.datetime, mbq: float, minutes: float) -> None:
        injected = date + datetime.timedelta(hours=8, minutes=int(rng.integers(10, 120)))
        start = injected + datetime.timedelta(minutes=round(minutes + rng.uniform(-4, 4)))
        scans.append(
            ScanPlan(
                scan,
                tracer,
                timepoint,
                injected,
                start,
                round(mbq * small * rng.uniform(0.92, 1.08), 1),
                len(scans),
            )
        )

    pet("fdg", "FDG", "baseline", day, 290.0, 62)
    pet("pentixafor", "pentixafor", "baseline", day + datetime.timedelta(days=1), 150.0, 60)
    if plan.most_gy_per_gbq:
        injected = day + datetime.timedelta(days=14, hours=10)
        mbq = round(180.0 * small * rng.uniform(0.85, 1.15), 1)
        for scan, hours in DOSIMETRY_HOURS.items():
            start = injected + datetime.timedelta(hours=hours, minutes=int(rng.integers(-30, 30)))
            scans.append(ScanPlan(scan, "pentixather", "dosimetry", injected, start, mbq, len(scans)))
    if plan.followup_days:
        date = datetime.datetime.combine(therapy, datetime.time()) + datetime.timedelta(days=plan.followup_days)
        pet("fdg_followup", "FDG", "followup", date, 290.0, 62)
    starts = (0, plan.second_cycle_days)
    cycles = tuple(
        (therapy + datetime.timedelta(days=after), gbq) for after, gbq in zip(starts, plan.activities_gbq, strict=False)
    )
    return tuple(scans), cycles


def place_lesions(anatomy: Anatomy, lesions: Sequence[Lesion], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Centres of the lesions in the neutral body, name -> (3,) in mm.

    Lesions keep `GAP_MM` from one another and `CLEARANCE_MM` from kidneys, bladder, brain and spleen (unless
    they lie in it), and lie within the body.

    Raises:
        RuntimeError: no room was found.
    """
    spacing = 4.0
    grid = Grid.covering(*anatomy.bounding_box(), (spacing,) * 3)
    labels = anatomy.labels(grid)
    inside = distance_transform_edt((labels > 0) & (labels != COUCH), sampling=spacing)
    from_hot = distance_transform_edt(~np.isin(labels, HOT), sampling=spacing)
    from_spleen = distance_transform_edt(labels != 1, sampling=spacing)

    def fits(centre: np.ndarray, lesion: Lesion, placed: dict[str, tuple[np.ndarray, float]]) -> bool:
        radius = lesion.largest_radius_mm
        index = np.rint((centre - grid.origin) / spacing).astype(int)[::-1]
        if (index < 0).any() or (index >= labels.shape).any():
            return False
        voxel = tuple(index)
        if inside[voxel] < radius + 3:
            return False
        away = from_hot[voxel] if lesion.site == SPLEEN else min(from_hot[voxel], from_spleen[voxel])
        if away < radius + CLEARANCE_MM:
            return False
        return all(np.linalg.norm(centre - other) >= radius + size + GAP_MM for other, size in placed.values())

    # The peritoneum has most room and comes last; large lesions come before small ones.
    order = sorted(lesions, key=lambda lesion: (lesion.site == PERITONEUM, -lesion.largest_radius_mm))
    for _ in range(40):
        placed: dict[str, tuple[np.ndarray, float]] = {}
        for lesion in order:
            for _ in range(60):
                centre = anatomy.place(lesion.site, lesion.largest_radius_mm, rng)
                if fits(centre, lesion, placed):
                    placed[lesion.name] = centre, lesion.largest_radius_mm
                    break
            else:
                break
        if len(placed) == len(lesions):
            return {lesion.name: placed[lesion.name][0] for lesion in lesions}
    missing = [lesion.name for lesion in lesions if lesion.name not in placed]
    raise RuntimeError(f"no room for {missing}")
