"""From count rates of planar scans to activities: by the camera's sensitivity, or by one SPECT, region by region.

Hybrid: A(t) = r(t) A_SPECT(t_s) / r(t_s), r the rate in the planar views (Koral et al., J Nucl Med 2003;44:457).
The planar views then give the course in time alone: sensitivity, attenuation, scatter and whatever else is alike at all
times cancels.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from theraflow.dosimetry.activity.regions import WHOLE_BODY, WHOLE_VIEW
from theraflow.dosimetry.administration import read_fact
from theraflow.dosimetry.s_values.spheres import density_g_per_ml
from theraflow.errors import TheraflowError
from theraflow.images import read_sidecar
from theraflow.layout import PatientFolder, Scan
from theraflow.nuclides import HOUR, nuclide
from theraflow.tables import read_table

SPECT, CONJUGATE = "SPECT", "planar, conjugate view"
NORMALISED = "planar, normalised to the injected activity"
REMAINDER = "remainder"

# Regions whose planar rates have a greater relative sd, in the middle of all scans, have no planar points: what is no
# region, and moves, shows as much as they do.
GREATEST_CV = 0.3

log = logging.getLogger(__name__)


def with_planar(
    folder: PatientFolder,
    planar: Sequence[Scan],
    spect: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """The rows of curves.tsv of SPECT and planar scans together.

    With a SPECT the planar series is scaled by the one that is nearest to a planar scan in time. One point of that pair
    is kept, the SPECT's, for the other is the same by construction. Where no planar scan is near, the planar curve is
    interpolated, and the SPECT is in the scale alone.

    Args:
        folder: the patient's results; planar.tsv must be there.
        planar: planar scans of the administration.
        spect: rows of the SPECT scans of the same administration, with `sd_independent_mbq`.
        settings: section `dosimetry` of the configuration.

    Raises:
        TheraflowError: neither a SPECT nor a calibration; a SPECT that no planar scan is near or around.
    """
    table = read_table(folder.table("planar"))
    table = table[table["scan"].isin([scan.scan for scan in planar])]
    measured = _scaled(folder, planar, table, spect, settings) if spect else _absolute(folder, planar, table, settings)
    first = min(planar, key=lambda scan: float(read_fact(folder, scan, "time_after_injection_h", "its time")))
    if first.before_voiding:
        # What a SPECT or a CT shows of the body is not the whole of it: the two make no one curve.
        regions = [row for row in measured if row["region"] not in (WHOLE_BODY, REMAINDER)]
        bodies = _normalised(folder, first, table, settings)
        names = {scan.scan for scan in planar}
        # As in `_scaled`: what has no planar points belongs to the remainder.
        remainders = _remainders(bodies, [row for row in regions if row["scan"] in names])
        measured = regions + bodies + remainders
    elif any(scan.before_voiding for scan in planar):
        raise TheraflowError(
            f"scans.tsv says before_voiding of a planar scan of {folder.patient} that is not the first; only the first "
            "can hold all that was injected."
        )
    return sorted(measured, key=lambda row: row["time_h"])


def _scaled(
    folder: PatientFolder,
    planar: Sequence[Scan],
    table: pd.DataFrame,
    spect: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """SPECT rows and planar rows scaled by one SPECT."""
    times = table.drop_duplicates("scan").set_index("scan")["time_h"]
    gaps = {(row["scan"], row["time_h"]): float((times - row["time_h"]).abs().min()) for row in spect}
    (reference, time_h), gap = min(gaps.items(), key=lambda item: item[1])
    partner = str((times - time_h).abs().idxmin()) if gap <= settings["planar"]["spect_within_h"] else None
    if partner is None and not times.min() < time_h < times.max():
        raise TheraflowError(
            f"The planar scans of {folder.patient} cannot be scaled by SPECT {reference}: it was taken {gap:.3g} h "
            "from the nearest and not between two of them (dosimetry: planar: spect_within_h)."
        )
    decay_per_h = nuclide(read_fact(folder, planar[0], "nuclide", "the nuclide")).decay_constant_per_s * HOUR
    scale_rows = {row["region"]: row for row in spect if row["scan"] == reference}
    scaled: list[dict[str, Any]] = []
    for region, points in _known(folder, table).groupby("region", sort=False):
        scale_row = scale_rows.get(region)
        if scale_row is None:
            log.warning("%s, %s: no planar points, SPECT %s does not show it", folder.patient, region, reference)
            continue
        rate = _rate_at(time_h, points, partner, decay_per_h)
        if not (rate > 0.0 and scale_row["activity_mbq"] > 0.0):
            log.warning("%s, %s: no planar points, nothing to scale them by", folder.patient, region)
            continue
        factor = scale_row["activity_mbq"] / rate
        # What the scale errs by, the SPECT's own error and that of the planar rate there, is common to all points.
        seen = points[points["rate_per_s"] > 0.0]
        near = seen.loc[(seen["time_h"] - time_h).abs().idxmin()]
        planar_cv = _independent_sd(near, settings) / float(near["rate_per_s"])
        shared = math.hypot(scale_row["sd_mbq"] / scale_row["activity_mbq"], planar_cv)
        method = f"planar scaled by SPECT {reference}"
        for _, point in points[points["scan"] != partner].iterrows():
            row = _row(point, factor, shared, method, settings)
            scaled.append(row | {key: scale_row[key] for key in ("volume_ml", "mass_g")})
    scaled += _remainders(_bodies(scaled), scaled)
    # Of the regions without planar points nobody knows what they hold then: at all times they belong to the remainder.
    regions = {row["region"] for row in scaled}
    rest = _remainders(_bodies(spect), [row for row in spect if row["region"] in regions])
    rows = [*(row for row in spect if row["region"] != REMAINDER), *rest]
    # Without a partner the SPECT is no point of its own, but of regions that no planar view shows it is the only one.
    in_scale = regions if partner is None else set()
    return [dict(row) for row in rows if row["scan"] != reference or row["region"] not in in_scale] + scaled


def _rate_at(time_h: float, points: pd.DataFrame, partner: str | None, decay_per_h: float) -> float:
    """Planar rate of a region at the time of the SPECT; NaN where it cannot be told.

    Interpolated in the logarithm; before the first and after the last point by physical decay from the partner.
    """
    points = points[points["rate_per_s"] > 0.0].sort_values("time_h")
    times, rates = points["time_h"].to_numpy(float), points["rate_per_s"].to_numpy(float)
    if times.size and times[0] <= time_h <= times[-1]:
        return float(np.exp(np.interp(time_h, times, np.log(rates))))
    near = (points["scan"] == partner).to_numpy()
    return float(rates[near][0] * np.exp(-decay_per_h * (time_h - times[near][0]))) if near.any() else math.nan


def _absolute(
    folder: PatientFolder, planar: Sequence[Scan], table: pd.DataFrame, settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Planar rows by the sensitivity of the camera."""
    per_mbq = {scan.scan: read_sidecar(folder.emission(scan))["counting"]["sensitivity_cps_per_mbq"] for scan in planar}
    uncalibrated = [scan for scan, sensitivity in per_mbq.items() if not sensitivity]
    if uncalibrated:
        raise TheraflowError(
            f"The planar scan {uncalibrated[0]} of {folder.patient} gives no activity: there is neither a SPECT of the "
            "same timepoint to scale it by nor a sensitivity of the camera (tracers: calibration)."
        )
    if settings["planar"]["attenuation_per_cm"] is None:
        raise TheraflowError(
            f"The planar scan {planar[0].scan} of {folder.patient} gives no activity without a SPECT unless dosimetry: "
            "planar: attenuation_per_cm says how water attenuates the counts of this camera, which hold scatter."
        )
    shared = math.hypot(settings["calibration_cv"], settings["planar"]["systematic_cv"])
    rows = [
        _row(point, 1.0 / per_mbq[point["scan"]], shared, CONJUGATE, settings)
        for _, point in _known(folder, table).iterrows()
    ]
    return rows + _remainders(_bodies(rows), rows)


def _normalised(
    folder: PatientFolder, first: Scan, table: pd.DataFrame, settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Whole body: all counts of each sweep by those of the first, which holds all that was injected."""
    points = table[table["region"] == WHOLE_VIEW]
    start = points[points["scan"] == first.scan]
    if start.empty:
        raise TheraflowError(
            f"scans.tsv says before_voiding of scan {first.scan} of {folder.patient}, which is no whole-body sweep and "
            "cannot tell how much the body holds."
        )
    injected = float(read_fact(folder, first, "injected_mbq", "the injected activity"))
    decay_per_h = nuclide(read_fact(folder, first, "nuclide", "the nuclide")).decay_constant_per_s * HOUR
    there = injected * math.exp(-decay_per_h * float(start["time_h"].iloc[0]))
    factor, shared = there / float(start["rate_per_s"].iloc[0]), settings["planar"]["repeatability_cv"]
    return [
        _row(point, factor, shared, NORMALISED, settings) | {"region": WHOLE_BODY, "kind": WHOLE_BODY}
        for _, point in points.iterrows()
    ]


def _known(folder: PatientFolder, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of planar.tsv of the regions whose rates are known well enough, and of the body."""
    table = table[table["kind"] != "view"]
    sd = np.hypot(table["sd_per_s"], table["structure_per_s"])
    relative = (sd / table["rate_per_s"]).where(table["rate_per_s"] > 0.0, math.inf)
    middle = relative.groupby(table["region"]).median()
    for region, cv in middle[middle > GREATEST_CV].items():
        log.warning(
            "%s, %s: no planar points, their rates have a relative sd of %.0f %%", folder.patient, region, 100 * cv
        )
    return table[table["region"].map(middle) <= GREATEST_CV]


def _independent_sd(point: pd.Series, settings: Mapping[str, Any]) -> float:
    """Sd of a rate by what is not common to all planar scans, 1/s."""
    repeatability = settings["planar"]["repeatability_cv"] * float(point["rate_per_s"])
    return math.hypot(float(point["sd_per_s"]), float(point["structure_per_s"]), repeatability)


def _bodies(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["region"] == WHOLE_BODY]


def _remainders(bodies: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is left of the whole body at each of its points where all regions have been measured."""
    parts = [row for row in rows if row["kind"] in ("organ", "lesion") and math.isfinite(row["activity_mbq"])]
    regions = {row["region"] for row in parts}
    remainders = []
    for body in bodies:
        own = [row for row in parts if row["scan"] == body["scan"]]
        if own and {row["region"] for row in own} == regions:
            remainders.append({
                **body, "region": REMAINDER, "kind": REMAINDER,
                "activity_mbq": body["activity_mbq"] - sum(row["activity_mbq"] for row in own),
                **{name: math.hypot(*(row[name] for row in (body, *own))) for name in ("sd_mbq", "sd_independent_mbq")},
            })  # fmt: skip
    return remainders


def _row(
    point: pd.Series, factor_mbq_s: float, shared_cv: float, method: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """A row of curves.tsv from one of planar.tsv."""
    activity = float(point["rate_per_s"]) * factor_mbq_s
    independent = _independent_sd(point, settings) * factor_mbq_s
    volume = float(point["volume_ml"])
    return {
        "patient": point["patient"], "region": point["region"], "kind": point["kind"], "scan": point["scan"],
        "time_h": float(point["time_h"]), "activity_mbq": activity,
        "sd_mbq": math.hypot(independent, shared_cv * activity),
        "volume_ml": volume, "mass_g": volume * density_g_per_ml(point["region"]),
        "sd_independent_mbq": independent, "method": method,
    }  # fmt: skip
