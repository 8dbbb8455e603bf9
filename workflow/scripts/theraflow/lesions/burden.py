"""Tumour burden of a scan, and the tumour volume that one of two tracers shows and the other does not.

Lesions may overlap (a tumour inside its oedema), so volumes are of unions of masks, never sums over lesions. A lesion
that a scan does not measure (out of the field of view, or behind a registration that failed) makes a total unknown, not
smaller: the total is NA, and beside it stands what the measured lesions alone have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy
import SimpleITK as sitk

from theraflow.images import voxel_volume_ml
from theraflow.lesions.contract import ALL_SITES, BURDEN_COLUMNS, CARRIED, MISMATCH_COLUMNS, TOLERANCE_MM
from theraflow.lesions.identity import overlap_voxels
from theraflow.lesions.region import Region, spacing_zyx, union

UNKNOWN_SITE = "unknown"


def grown(region: Region, by_mm: float, spacing_mm: np.ndarray) -> Region:
    """The region and all voxels whose centres lie at most `by_mm` from the centre of one of its own.

    Args:
        region: not empty.
        by_mm: 0 or more.
        spacing_mm: voxel size in the order of array axes, shape (3,).
    """
    margin = np.floor(by_mm / np.asarray(spacing_mm)).astype(int)
    padded = np.pad(region.mask, [(n, n) for n in margin])
    near = scipy.ndimage.distance_transform_edt(~padded, sampling=spacing_mm) <= by_mm
    return Region(tuple((region.start - margin).tolist()), near)


def tumour_burden(
    rows: pd.DataFrame, regions: Sequence[Region | None], values: np.ndarray, grid: sitk.Image
) -> pd.DataFrame:
    """Number, volume and uptake of the positive lesions of one PET scan, of all sites and of each.

    Args:
        rows: the scan's rows of the table of lesions, at least one, with `patient`, `scan`, `tracer`, `timepoint`,
            `lesion`, `site`, `positive`, `suv_max` and `suv_peak`.
        regions: each row's region on the scan's grid, None where it is not measured.
        values: the scan's SUV in g/mL, shape (z, y, x).
        grid: its geometry.

    Returns:
        A table with `BURDEN_COLUMNS`; `site` is `all`, then every site in the order of the alphabet (`unknown` where it
        is not known). `n_unmeasured` are lesions of which the scan does not tell whether they are positive; where there
        is one, `mtv_ml`, `tlg_ml` (g/mL x mL), `suv_max`, `suv_peak_max` and `hottest` (the lesion with the highest
        SUVpeak) are NA, and `mtv_measured_ml` and `tlg_measured_ml` are those of the others, NA where there are none.
        Without any positive lesion volumes are 0 and uptakes NA. Of lesions of two sites that overlap, both sites have
        the common voxels, and `all` has them once.
    """
    sites = rows["site"].fillna(UNKNOWN_SITE)
    return pd.DataFrame(
        [
            _burden(site, chosen, rows, regions, values, voxel_volume_ml(grid))
            for site, chosen in [
                (ALL_SITES, np.ones(len(rows), dtype=bool)),
                *((site, (sites == site).to_numpy()) for site in sorted(sites.unique())),
            ]
        ],
        columns=list(BURDEN_COLUMNS),
    )


def _burden(
    site: str,
    chosen: np.ndarray,
    rows: pd.DataFrame,
    regions: Sequence[Region | None],
    values: np.ndarray,
    voxel_ml: float,
) -> dict[str, Any]:
    states = rows["positive"]
    positive = chosen & states.eq(True).to_numpy(bool)
    unmeasured = int((chosen & states.isna().to_numpy()).sum())
    whole = union([regions[place] for place in np.flatnonzero(positive)])
    known = unmeasured < chosen.sum()
    volume = whole.voxels * voxel_ml if known else None
    glycolysis = float(values[whole.box][whole.mask].sum(dtype=float)) * voxel_ml if known else None
    result = {
        **rows.iloc[0][["patient", "scan", "tracer", "timepoint"]], "site": site, "n_lesions": int(chosen.sum()),
        "n_positive": int(positive.sum()), "n_unmeasured": unmeasured, "mtv_measured_ml": volume,
        "tlg_measured_ml": glycolysis,
    }  # fmt: skip
    if unmeasured:
        return result
    result |= {"mtv_ml": volume, "tlg_ml": glycolysis}
    if positive.any():
        hot = rows[positive]
        hottest = hot.loc[hot["suv_peak"].astype(float).idxmax()]
        result |= {
            "suv_max": hot["suv_max"].max(),
            "suv_peak_max": hottest["suv_peak"],
            "hottest": hottest["lesion"],
        }
    return result


@dataclass(frozen=True)
class TracerView:
    """What one tracer's scan of a time point shows of a patient's lesions.

    Attributes:
        rows: the scan's rows of the table of lesions, with `patient`, `timepoint`, `tracer`, `lesion`, `positive` and
            `source`; the same lesions in the same order for both tracers.
        regions: each row's region on the scan's own grid, None where it is not measured.
        voxel_ml: volume of a voxel of that grid.
        in_reference: the same regions carried to the reference scan's grid (or its continuation); None where they
            cannot be carried.
    """

    rows: pd.DataFrame
    regions: Sequence[Region | None]
    voxel_ml: float
    in_reference: Sequence[Region | None]

    @property
    def tracer(self) -> str:
        """The tracer of the scan."""
        return str(self.rows["tracer"].iloc[0])

    def states(self) -> list[bool | None]:
        """Positive, negative or not known, of every lesion."""
        return [None if pd.isna(state) else bool(state) for state in self.rows["positive"]]


def mismatch(a: TracerView, b: TracerView, reference: sitk.Image, tolerance_mm: float = TOLERANCE_MM) -> pd.DataFrame:
    """Tumour volume of one time point that tracer A shows and tracer B does not, and the other way round.

    By lesions, each volume on the tracer's own scan: `a_only_lesions`, `b_only_lesions`, and of lesions positive on
    both `concordant_lesions_a` and `concordant_lesions_b`. By voxels, on the reference scan's grid: the union of A's
    positive lesions without that of B's (`a_not_b`), without B's grown by the tolerance (`a_not_b_tolerance`), both the
    other way round, and what is in both (`both`).

    Only lesions whose state is known on both scans count; where one is not, `volume_ml` is NA and `measured_ml` is that
    of the others, NA where there are none. A lesion that a scan does not outline itself has the other scan's outline
    there: between the two the voxels then cannot differ, which `remark` says.

    Args:
        a, b: the scans of the two tracers, of one patient and time point, at least one lesion.
        reference: image of the reference scan; only its geometry is read.
        tolerance_mm: how far a border may be off by registration.

    Returns:
        A table with `MISMATCH_COLUMNS`; `n_lesions` are the lesions that a measure is made of.

    Raises:
        ValueError: the two do not tell of the same lesions.
    """
    if list(a.rows["lesion"]) != list(b.rows["lesion"]):
        raise ValueError("The two scans must tell of the same lesions in the same order.")
    measures = [*_by_lesions(a, b), *_by_voxels(a, b, reference, tolerance_mm)]
    return pd.DataFrame([_row(a, b, measure) for measure in measures], columns=list(MISMATCH_COLUMNS))


@dataclass(frozen=True)
class _Measure:
    """A volume in mL, made of the lesions at some places of the table; at others it is not known."""

    name: str
    volume_ml: float
    places: Sequence[int]
    unknown: Sequence[int]
    remark: str | None = None


def _row(a: TracerView, b: TracerView, measure: _Measure) -> dict[str, Any]:
    remarks = [measure.remark] if measure.remark else []
    if measure.unknown:
        remarks.insert(0, f"not known on both scans: {_names(a, measure.unknown)}")
    return {
        **a.rows.iloc[0][["patient", "timepoint"]], "tracer_a": a.tracer, "tracer_b": b.tracer,
        "measure": measure.name, "volume_ml": None if measure.unknown else measure.volume_ml,
        "measured_ml": measure.volume_ml if len(measure.unknown) < len(a.rows) else None,
        "n_lesions": len(measure.places), "n_unmeasured": len(measure.unknown), "remark": "; ".join(remarks) or None,
    }  # fmt: skip


def _by_lesions(a: TracerView, b: TracerView) -> list[_Measure]:
    states = list(zip(a.states(), b.states(), strict=True))
    unknown = [place for place, state in enumerate(states) if None in state]
    measures = []
    for name, view, wanted in (
        ("a_only_lesions", a, (True, False)),
        ("b_only_lesions", b, (False, True)),
        ("concordant_lesions_a", a, (True, True)),
        ("concordant_lesions_b", b, (True, True)),
    ):
        places = [place for place, state in enumerate(states) if state == wanted]
        volume_ml = union([view.regions[place] for place in places]).voxels * view.voxel_ml
        measures.append(_Measure(name, volume_ml, places, unknown))
    return measures


def _by_voxels(a: TracerView, b: TracerView, reference: sitk.Image, tolerance_mm: float) -> list[_Measure]:
    known = [
        all(state is False or (state and region is not None) for state, region in pair)
        for pair in zip(zip(a.states(), a.in_reference, strict=True), zip(b.states(), b.in_reference, strict=True),
                        strict=True)
    ]  # fmt: skip
    unknown = [place for place, is_known in enumerate(known) if not is_known]
    in_a, in_b = ([p for p, state in enumerate(view.states()) if known[p] and state] for view in (a, b))
    both = [place for place in in_a if place in in_b]
    sources = a.rows["source"].to_numpy(), b.rows["source"].to_numpy()
    borrowed = [place for place in both if CARRIED in (sources[0][place], sources[1][place])]
    remark = f"outlined on one scan and carried to the other: {_names(a, borrowed)}" if borrowed else None
    ml, spacing = voxel_volume_ml(reference), spacing_zyx(reference)
    whole_a, whole_b = (_united(view, places) for view, places in ((a, in_a), (b, in_b)))
    measures = [_Measure("both", overlap_voxels(whole_a, whole_b) * ml, both, unknown, remark)]
    for name, whole, places, other, (view, others) in (
        ("a_not_b", whole_a, in_a, whole_b, (b, in_b)),
        ("b_not_a", whole_b, in_b, whole_a, (a, in_a)),
    ):
        near = union([grown(view.in_reference[place], tolerance_mm, spacing) for place in others])
        said = f"without all within {tolerance_mm:g} mm of what {view.tracer} shows" + (f"; {remark}" if remark else "")
        for suffix, left_out, remarks in (("", other, remark), ("_tolerance", near, said)):
            volume_ml = (whole.voxels - overlap_voxels(whole, left_out)) * ml
            measures.append(_Measure(name + suffix, volume_ml, places, unknown, remarks))
    return measures


def _united(view: TracerView, places: Sequence[int]) -> Region:
    return union([view.in_reference[place] for place in places])


def _names(view: TracerView, places: Sequence[int]) -> str:
    return ", ".join(view.rows["lesion"].iloc[list(places)])
