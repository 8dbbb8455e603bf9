"""Whether what a label map calls an organ can be that organ: its side, size, density and number of pieces.

The limits are wide. They find label maps that are mirrored, shifted, numbered otherwise or of another patient, and
organs that the segmentation has missed for the most part; they do not tell healthy from diseased.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pandas as pd

from theraflow.organs.labels import GROUPS
from theraflow.tables import read_table

REFERENCE_MASSES = Path(__file__).resolve().parents[4] / "resources" / "organ_reference_masses.csv"
# How far (mm) an organ's centroid may lie beyond the mid-plane: a turned or bent body, or an organ next to it.
SIDE_TOLERANCE_MM = 20.0
# A piece is worth a mention from this fraction of the organ on; pieces farther apart than this are not one organ.
PIECE_FRACTION = 0.1
PIECE_GAP_MM = 20.0
# Of the organs, from how many misplaced ones on nothing in a label map can be trusted.
MISPLACED_FRACTION = 0.25
IN_ONE_PIECE = (
    "liver",
    "spleen",
    "heart",
    "brain",
    *GROUPS["kidneys"],
    *GROUPS["adrenal_glands"],
)
# Organs without left or right in their names that lie on one side.
SIDES = {"liver": "right", "spleen": "left"}
SPINE = (*GROUPS["vertebrae"], "sacrum", "spinal_cord")
# Mean HU of whole organs by how their names begin, from native to arterial, from fatty to calcified, implants
# included. Not there: what holds gas, faeces, urine or swallowed contrast, and may have any value.
HU_LIMITS: Mapping[tuple[str, ...], tuple[float, float]] = {
    ("liver", "spleen", "kidney_left", "kidney_right", "pancreas", "adrenal_gland", "thyroid_gland", "prostate",
     "brain", "heart", "atrial_appendage"): (-50.0, 350.0),
    ("aorta", "pulmonary_vein", "brachiocephalic", "subclavian", "common_carotid", "superior_vena", "inferior_vena",
     "portal_vein", "iliac_artery", "iliac_vena"): (-50.0, 1500.0),
    ("gluteus", "autochthon", "iliopsoas"): (-120.0, 250.0),
    ("lung",): (-1000.0, 150.0),
    ("vertebrae", "sacrum", "humerus", "scapula", "clavicula", "femur", "hip", "skull", "rib", "sternum",
     "costal_cartilages"): (0.0, 3000.0),
}  # fmt: skip


@cache
def volume_limits() -> dict[str, tuple[float, float]]:
    """Smallest and largest volume in mL that an organ may have; an organ that is not there may have any.

    The reference woman's and man's mass over density, divided and multiplied by what `organ_reference_masses.csv`
    allows. Nothing is scaled with age or size.
    """
    table = pd.read_csv(REFERENCE_MASSES, comment="#", index_col="organ")
    reference = table[["female_g", "male_g"]].div(table["density_g_per_ml"], axis=0)
    low, high = reference.min(axis=1) / table["fold_below"], reference.max(axis=1) * table["fold_above"]
    return {organ: (float(low[organ]), float(high[organ])) for organ in table.index}


def hu_limits(organ: str) -> tuple[float, float] | None:
    """Lowest and highest mean HU that an organ may have; None where it may have any."""
    return next((limits for beginnings, limits in HU_LIMITS.items() if organ.startswith(beginnings)), None)


def spine_x_mm(organs: pd.DataFrame) -> float | None:
    """Where the spine lies, x in LPS mm: mean of its parts in a table of organs, by volume; None without any."""
    spine = organs[organs["organ"].isin(SPINE)]
    return float((spine["x_mm"] * spine["volume_ml"]).sum() / spine["volume_ml"].sum()) if len(spine) else None


def judge_organs(organs: pd.DataFrame, midplane_x_mm: float) -> pd.DataFrame:
    """Judge every organ of one scan.

    - Side: an organ with left or right in its name, the liver and the spleen must not lie more than 20 mm beyond
      the mid-plane, nor left and right change places.
    - Mean HU, against `hu_limits`.
    - Volume, against `volume_limits`, and pieces more than 20 mm apart, for organs that are one: not where the organ
      touches the edge of the field of view.

    Where more than a quarter of the organs that have a side or limits of HU, and at least two, have a wrong side or HU,
    the label map is mirrored, shifted or of another scan, and no organ of it is plausible.

    An organ that is not there is never remarked: it may have been taken out.

    Args:
        organs: columns organ, volume_ml, mean_hu, touches_edge, x_mm (centroid, LPS), pieces, gap_mm, see
            `theraflow.organs.measure.organ_statistics`.
        midplane_x_mm: the body's mid-plane, x in LPS mm.

    Returns:
        `organs` with the columns plausible (`yes` or `no`) and remark (in words, or None).
    """
    wrong = _wrong_sides(dict(zip(organs["organ"], organs["x_mm"], strict=True)), midplane_x_mm)
    odd_hu = {organ: _hu(organ, mean) for organ, mean in zip(organs["organ"], organs["mean_hu"], strict=True)}
    judged = [organ for organ in odd_hu if organ in wrong or hu_limits(organ)]
    misplaced = sum(bool(wrong.get(organ) or odd_hu[organ]) for organ in judged)
    elsewhere = misplaced >= 2 and misplaced > MISPLACED_FRACTION * len(judged)
    plausible, remarks = [], []
    for row in organs.itertuples():
        reasons = [wrong.get(row.organ), odd_hu[row.organ]]
        notes = [f"in {row.pieces} pieces"] if row.pieces > 1 else []
        if row.touches_edge:
            notes.append("cut by the field of view")
        else:
            reasons.append(_volume(row.organ, row.volume_ml))
            if row.organ in IN_ONE_PIECE and row.gap_mm > PIECE_GAP_MM:
                notes = []
                reasons.append(f"in {row.pieces} pieces, {row.gap_mm:.0f} mm apart")
        if elsewhere:
            reasons.append(f"the label map does not fit the CT ({misplaced} of {len(judged)} organs by side or HU)")
        found = [reason for reason in reasons if reason]
        plausible.append("no" if found else "yes")
        remarks.append("; ".join(found + notes) or None)
    return organs.assign(plausible=plausible, remark=pd.Series(remarks, organs.index, dtype=object))


def implausible_organs(table: Path | str) -> dict[str, str]:
    """The organs of one scan that are not plausible, and why.

    Args:
        table: `organs.tsv` of the scan.

    Raises:
        TheraflowError: the table cannot be read.
    """
    organs = read_table(table)
    doubtful = organs[organs["plausible"] == "no"]
    return dict(zip(doubtful["organ"], doubtful["remark"], strict=True))


def whole_organs(table: Path | str) -> pd.DataFrame:
    """The rows of `organs.tsv` of organs that are plausible and that the field of view does not cut.

    Raises:
        TheraflowError: the table cannot be read.
    """
    organs = read_table(table)
    return organs[(organs["plausible"] == "yes") & (organs["touches_edge"].astype(str) == "False")]


def _wrong_sides(x_mm: Mapping[str, float], midplane_x_mm: float) -> dict[str, str | None]:
    """Of every organ with a side, in words why it lies on the wrong one, or None."""
    sides = {organ: side for organ in x_mm if (side := _side(organ))}
    # How far each lies beyond the mid-plane; x grows to the patient's left.
    beyond = {organ: (midplane_x_mm - x_mm[organ]) * (1 if side == "left" else -1) for organ, side in sides.items()}
    wrong: dict[str, str | None] = {}
    for organ, side in sides.items():
        other = "right" if side == "left" else "left"
        partner = _partner(organ, side, other)
        wrong[organ] = None
        if beyond[organ] > SIDE_TOLERANCE_MM:
            wrong[organ] = f"lies {beyond[organ]:.0f} mm {other} of the mid-plane"
        elif partner in sides and beyond[partner] <= SIDE_TOLERANCE_MM and beyond[organ] + beyond[partner] > 0:
            wrong[organ] = f"lies {other} of {partner}"
    return wrong


def _side(organ: str) -> str | None:
    return SIDES.get(organ) or next((side for side in ("left", "right") if side in organ.split("_")), None)


def _partner(organ: str, side: str, other: str) -> str:
    return "_".join(other if word == side else word for word in organ.split("_"))


def _hu(organ: str, mean_hu: float) -> str | None:
    limits = hu_limits(organ)
    if limits is None or limits[0] <= mean_hu <= limits[1]:
        return None
    return f"mean {mean_hu:.0f} HU, expected {limits[0]:.0f} to {limits[1]:.0f}"


def _volume(organ: str, volume_ml: float) -> str | None:
    low, high = volume_limits().get(organ, (0.0, float("inf")))
    if low <= volume_ml <= high:
        return None
    return f"{volume_ml:.3g} mL, expected {low:.3g} to {high:.0f} mL in an adult"
