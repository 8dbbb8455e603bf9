"""The dose maps of a patient: what every voxel gets per administered activity, and what the regions get by them."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from theraflow.dosimetry.activity.hybrid import NORMALISED
from theraflow.dosimetry.activity.regions import Region, find_body_fraction, find_regions
from theraflow.dosimetry.administration import read_fact
from theraflow.dosimetry.curves.kinetics import read_curve
from theraflow.dosimetry.maps.density import SOURCE, density_of_hu, read_density
from theraflow.dosimetry.maps.deposition import Kernels, kernel_dose, local_dose, tissue_of
from theraflow.dosimetry.maps.grids import Grids
from theraflow.dosimetry.maps.histograms import POINTS, VOLUME_PERCENT, dose_at_volume, hottest, mean_dose
from theraflow.dosimetry.maps.outlines import in_whole_voxels
from theraflow.dosimetry.maps.time_integration import (
    BQ_PER_MBQ,
    REST,
    WHOLE_BODY,
    Model,
    Scans,
    model_scans,
    read_scans,
    rest_of,
    share_among_voxels,
    share_of_region,
    texture,
    voxel_wise_factor,
)
from theraflow.dosimetry.s_values.kernels import available_nuclides
from theraflow.dosimetry.s_values.spheres import density_g_per_ml
from theraflow.images import from_array, read_image, sidecar_path, write_image
from theraflow.layout import PatientFolder, Scan
from theraflow.nuclides import HOUR, Nuclide, nuclide
from theraflow.tables import read_table, write_table

DVH_COLUMNS = ("patient", "region", "nuclide", "dose_gy_per_gbq", "volume_percent")
MAP_DOSE_COLUMNS = (
    "patient", "region", "kind", "nuclide", "volume_ml", "told_percent", "tia_h", "region_tia_h", "mean_gy_per_gbq",
    "min_gy_per_gbq", "max_gy_per_gbq", "d98_gy_per_gbq", "d50_gy_per_gbq", "d2_gy_per_gbq", "self_gy_per_gbq",
    "cross_gy_per_gbq", "region_gy_per_gbq", "map_over_region", "x_mm", "y_mm", "z_mm", "method",
)  # fmt: skip
BQ_PER_GBQ = 1e9
VOXEL_WISE, LOCAL = "voxel-wise", "local"
# Within an organ or a lesion this is soft tissue: fat there is its surroundings, seen through the width of a voxel.
SOFT_HU = (-150.0, 150.5)

log = logging.getLogger(__name__)

Deposit = Callable[[np.ndarray, np.ndarray, Grids], np.ndarray]  # decays, tissue, their grids: Gy


@dataclass(frozen=True)
class Patient:
    """What both nuclides' maps are made of. Arrays are on the divided voxels, z, y, x.

    Attributes:
        grids: the divided voxels, and those of the SPECT around the body.
        regions: organs and lesions.
        body: part of every voxel that lies in the body.
        density: g/mL; None without a CT.
        scans, model: the activity scans, and what they would show of evenly filled regions; voxels of the SPECT.
        texture: how unevenly the activity lies within the regions.
    """

    grids: Grids
    regions: Sequence[Region]
    body: np.ndarray
    density: np.ndarray | None
    scans: Scans
    model: Model
    texture: np.ndarray


def compute_dose_map(
    folder: PatientFolder, scans: Sequence[Scan], settings: Mapping[str, Any], therapy_nuclide: str
) -> None:
    """Write the dose maps on the grid of the earliest activity scan, dvh.tsv and map_doses.tsv.

    Of the therapy nuclide dose_gy_per_gbq.nii.gz, and of the measured one, where it is another, a map beside it. The
    time-integrated activity of each region (doses.tsv) is shared among its voxels as the registered scans show it, or
    each voxel has a curve of its own; what lies outside all regions shares the activity of the remainder. The energy
    is carried away by voxel S values, or stays where it is emitted. A region without a dose in doses.tsv has none in
    the map (NaN); what is known of its activity counts for its surroundings.

    Args:
        folder: the patient's results; curves.tsv, doses.tsv, administrations.tsv and the transforms of the registration
            must be there.
        scans: the patient's SPECT scans; those of the administration that doses.tsv is of are used, or where that has
            planar scans alone, those of the one with the most SPECT scans.
        settings: section `dosimetry` of the configuration.
        therapy_nuclide: nuclide of the first map.

    Raises:
        TheraflowError: a missing time, image or transform, or no kernel of the nuclide.
    """
    therapy = nuclide(therapy_nuclide)
    table, scans, remark = _of_administration(folder, scans)
    times = [float(read_fact(folder, scan, "time_after_injection_h", "the time of the scan")) for scan in scans]
    order = np.argsort(times, kind="stable")
    scans, times = [scans[i] for i in order], [times[i] for i in order]
    measured = nuclide(str(read_fact(folder, scans[0], "nuclide", "the nuclide")))
    emission = read_image(folder.emission(scans[0]))
    patient = read_patient(folder, scans, times, settings, emission)
    part = _part_in_field(patient, table[table["nuclide"] == measured.name].set_index("region"))
    maps = {wanted: folder.dose_map if wanted == therapy else folder.dose_map_of(wanted.name)
            for wanted in _wanted(therapy, measured, settings["dose_map"]["deposition"])}  # fmt: skip
    for path in folder.dose_map.parent.glob(folder.dose_map_of("*").name):
        if path not in maps.values():  # of an earlier run, for another nuclide
            path.unlink()
            sidecar_path(path).unlink(missing_ok=True)
    histograms, rows = [], []
    for wanted, path in maps.items():
        doses = table[table["nuclide"] == wanted.name].set_index("region")
        integrals = doses["tia_h"].to_dict()
        rest = _rest_name(patient)
        integrals[rest] = integrals.get(rest, math.nan) * part
        factor = np.broadcast_to(np.float32(1.0), patient.body.shape)
        if settings["dose_map"]["time_integration"] == VOXEL_WISE:
            injected = float(read_fact(folder, scans[0], "injected_mbq", "the injected activity"))
            factor = _factor(patient, integrals, injected, measured, wanted)
        tissue = _tissue(patient, doses)
        shared = share_among_voxels(patient.texture, patient.regions, patient.body, integrals) * factor
        deposit = _deposition(patient, settings["dose_map"]["deposition"], wanted)
        dose = deposit(shared * HOUR * BQ_PER_GBQ, tissue, patient.grids)

        sidecar = _sidecar(folder, scans, patient, settings, wanted, doses)
        remarks = [remark] if remark else []
        if part < 1.0:
            remarks.append(
                f"The remainder is counted in the whole body: the {100 * part:.0f} % of it that the SPECT shows are in "
                "the map."
            )
        sidecar["limits"] = " ".join([sidecar["limits"], *remarks])
        write_image(_on_spect(dose, tissue, patient.grids, emission), path, sidecar)
        dose[tissue == 0.0] = math.nan  # what of a region lies outside the body is no part of its histogram
        for region in patient.regions:
            told = np.nan_to_num(tissue[region.box])[region.fraction > 0] > 0
            if told.any() and region.name in doses.index:
                rows.append(_row(region, patient, doses.loc[region.name], dose, tissue, factor, deposit))
                histograms += _histogram(region, doses.loc[region.name], dose)
    write_table(pd.DataFrame(histograms, columns=list(DVH_COLUMNS)), folder.table("dvh"), DVH_COLUMNS)
    write_table(pd.DataFrame(rows, columns=list(MAP_DOSE_COLUMNS)), folder.table("map_doses"), MAP_DOSE_COLUMNS)


def _of_administration(folder: PatientFolder, scans: Sequence[Scan]) -> tuple[pd.DataFrame, list[Scan], str | None]:
    """Doses and SPECT scans of one administration, and what is to be said where it is not the one of doses.tsv."""
    table = read_table(folder.table("doses"))
    planned = table["timepoint"].iloc[0]
    own = [scan for scan in scans if scan.timepoint == planned]
    if own:
        return table, own, None
    timepoints = [scan.timepoint for scan in scans]
    other = max(dict.fromkeys(timepoints), key=timepoints.count)
    table = read_table(folder.table("administrations"))
    remark = f"Of {other}: {planned}, by which doses.tsv and planning go, has planar scans alone."
    return table[table["timepoint"] == other], [scan for scan in scans if scan.timepoint == other], remark


def _wanted(therapy: Nuclide, measured: Nuclide, deposition: str) -> list[Nuclide]:
    """Nuclides of the maps: the therapy's, and the measured one where the energy that it gives is known."""
    known = measured.electron_mev is not None if deposition == LOCAL else measured.name in available_nuclides()
    if measured != therapy and not known:
        log.warning("no dose map of %s, whose emissions are not known here: of %s alone", measured.name, therapy.name)
        return [therapy]
    return list(dict.fromkeys((therapy, measured)))


def _rest_name(patient: Patient) -> str:
    return REST if patient.regions else WHOLE_BODY


def _part_in_field(patient: Patient, doses: pd.DataFrame) -> float:
    """Part of the remainder that the first SPECT shows.

    1 where the remainder was measured in that field. Whole-body sweeps normalised to the injected activity count also
    what lies beyond: of their remainder, at the time of the SPECT, the map holds what the image has beside the regions.

    Args:
        patient: scans and regions.
        doses: of the measured nuclide, by region, with the curves.
    """
    rest = _rest_name(patient)
    if rest not in doses.index or NORMALISED not in str(doses["method"][rest]):
        return 1.0

    def activity_mbq(name: str) -> float:
        amplitudes, rates = read_curve(doses["exponentials"][name])
        return float(np.exp(-rates * patient.scans.time_h[0]) @ amplitudes)

    curves = set(doses.index[doses["exponentials"].notna()])
    if rest not in curves:
        return 1.0
    seen = float(np.nansum(patient.scans.images[0])) * patient.grids.spect_ml / BQ_PER_MBQ
    seen -= sum(activity_mbq(region.name) for region in patient.regions if region.name in curves)
    return float(np.clip(seen / activity_mbq(rest), 0.0, 1.0))


def read_patient(
    folder: PatientFolder, scans: Sequence[Scan], times_h: Sequence[float], settings: Mapping[str, Any],
    emission: sitk.Image,
) -> Patient:  # fmt: skip
    """Regions, body, density and activity of a patient on the grids of the map.

    Args:
        folder: the patient's results.
        scans: the activity scans in the order of time.
        times_h: of the scans, after the injection.
        settings: section `dosimetry` of the configuration.
        emission: image of the first scan.
    """
    grids = Grids.around(find_body_fraction(folder, scans[0], emission), emission)
    found = find_regions(folder, scans[0], settings, grids.fine)
    regions = in_whole_voxels(found, grids.fine.GetSize()[::-1])
    body = find_body_fraction(folder, scans[0], grids.fine)
    seen = read_scans(folder, scans, times_h, grids.spect)
    model = model_scans(seen, regions, body, read_table(folder.table("curves")), settings["spect_fwhm_mm"], grids)
    density = read_density(folder, scans[0], grids.fine)
    return Patient(grids, regions, body, density, seen, model, texture(seen, model, grids))


def _factor(
    patient: Patient, integrals_h: Mapping[str, float], injected_mbq: float, measured: Nuclide, wanted: Nuclide
) -> np.ndarray:
    """What curves of the voxels' own make of the regions' shares, in every divided voxel."""
    shared = share_among_voxels(patient.texture, patient.regions, patient.body, integrals_h)
    grids = patient.grids
    factor = voxel_wise_factor(
        patient.scans, patient.model, grids.summed(shared), injected_mbq, measured, wanted, grids
    )  # fmt: skip
    return grids.repeated(factor.astype(np.float32))


def _tissue(patient: Patient, doses: pd.DataFrame) -> np.ndarray:
    """Density of every voxel, NaN where no dose can be told: gas in the body, and regions without an estimate.

    Organs and lesions of soft tissue have the density by which doses.tsv knows their mass.
    """
    soft = density_g_per_ml("soft tissue")
    everywhere = np.broadcast_to(soft, patient.body.shape)
    tissue = tissue_of(everywhere if patient.density is None else patient.density, patient.body)
    estimates = doses["dose_gy_per_gbq"]
    low, high = density_of_hu(np.array(SOFT_HU))
    for region in patient.regions:
        own = tissue[region.box]
        own[(region.fraction >= 0.5) & (own > low) & (own < high)] = soft
        if not math.isfinite(estimates.get(region.name, math.nan)):
            tissue[region.box][region.fraction >= 0.5] = math.nan
    if not math.isfinite(doses["tia_h"].get(_rest_name(patient), math.nan)):
        tissue[(rest_of(patient.regions, patient.body) > 0.5) & (tissue > 0)] = math.nan
    return tissue


def _deposition(patient: Patient, method: str, wanted: Nuclide) -> Deposit:
    """The function that makes a dose of decays, tissue and grids."""
    if method == LOCAL:
        return lambda decays, tissue, grids: local_dose(decays, tissue, grids.fine_ml, wanted.name)
    kernels = Kernels.of(wanted.name, patient.grids, density_g_per_ml("soft tissue"))
    return lambda decays, tissue, grids: kernel_dose(decays, tissue, grids, kernels)


def _on_spect(dose: np.ndarray, tissue: np.ndarray, grids: Grids, emission: sitk.Image) -> sitk.Image:
    """The dose on the whole grid of the SPECT, float32.

    A voxel has the mean over its mass; none, where no dose is told in half of it or more; 0 outside the body.
    """
    mass = np.nan_to_num(tissue)
    energy, total = grids.summed(np.nan_to_num(dose) * mass), grids.summed(mass)
    mean = np.divide(energy, total, out=np.zeros_like(total), where=total > 0)
    mean[grids.mean(np.isnan(tissue)) >= 0.5] = math.nan
    result = np.zeros(emission.GetSize()[::-1], dtype=np.float32)
    result[grids.box] = mean
    return from_array(result, emission)


def _row(
    region: Region, patient: Patient, known: pd.Series, dose: np.ndarray, tissue: np.ndarray, factor: np.ndarray,
    deposit: Deposit,
) -> dict[str, Any]:  # fmt: skip
    """A row of map_doses.tsv."""
    own = share_of_region(patient.texture, region, known["tia_h"]) * factor[region.box]
    mean = mean_dose(dose, region, tissue)
    volume = region.volume_ml(patient.grids.fine_ml)
    told = float(region.fraction[np.nan_to_num(tissue[region.box]) > 0].sum()) * patient.grids.fine_ml / volume
    spread = dose_at_volume(dose, region, np.array(list(POINTS.values())))
    self_dose = _self_dose(region, own, patient.grids, tissue, deposit)
    z, y, x = hottest(dose, region)
    place = patient.grids.fine.TransformIndexToPhysicalPoint((x, y, z))
    return {
        "patient": known["patient"], "region": region.name, "kind": region.kind, "nuclide": known["nuclide"],
        "volume_ml": volume, "told_percent": 100.0 * told, "tia_h": own.sum(), "region_tia_h": known["tia_h"],
        "mean_gy_per_gbq": mean,
        **{f"{name}_gy_per_gbq": float(value) for name, value in zip(POINTS, spread, strict=True)},
        "self_gy_per_gbq": self_dose, "cross_gy_per_gbq": mean - self_dose,
        "region_gy_per_gbq": known["dose_gy_per_gbq"], "map_over_region": mean / known["dose_gy_per_gbq"],
        **dict(zip(("x_mm", "y_mm", "z_mm"), place, strict=True)),
        "method": known["method"],
    }  # fmt: skip


def _self_dose(region: Region, own_h: np.ndarray, grids: Grids, tissue: np.ndarray, deposit: Deposit) -> float:
    """Mean dose of a region by the decays in it alone."""
    around, box = grids.around_fine(region.box)
    local = Region(region.name, region.kind, tuple(slice(0, part.stop - part.start) for part in box),
                   region.within(box))  # fmt: skip
    inner = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(region.box, box, strict=True))
    decays = np.zeros_like(local.fraction)
    decays[inner] = own_h * HOUR * BQ_PER_GBQ
    return mean_dose(deposit(decays, tissue[box], around), local, tissue[box])


def _histogram(region: Region, known: pd.Series, dose: np.ndarray) -> list[dict[str, Any]]:
    """Rows of dvh.tsv of one region."""
    values = dose_at_volume(dose, region, VOLUME_PERCENT)
    return [
        {"patient": known["patient"], "region": region.name, "nuclide": known["nuclide"], "dose_gy_per_gbq": value,
         "volume_percent": percent}
        for percent, value in zip(VOLUME_PERCENT, values, strict=True)
    ]  # fmt: skip


def _sidecar(
    folder: PatientFolder, scans: Sequence[Scan], patient: Patient, settings: Mapping[str, Any], wanted: Nuclide,
    doses: pd.DataFrame,
) -> dict[str, Any]:  # fmt: skip
    names = [region.name for region in patient.regions if region.name in doses.index]
    without = [name for name in names if not math.isfinite(doses["dose_gy_per_gbq"][name])]
    return {
        "quantity": "absorbed dose per administered activity", "unit": "Gy/GBq", "nuclide": wanted.name,
        "patient": folder.patient, "scan": scans[0].scan, "scans": list(patient.scans.names),
        "time_integration": settings["dose_map"]["time_integration"],
        "deposition": settings["dose_map"]["deposition"],
        "electron_voxels_mm": list(patient.grids.fine.GetSpacing()),
        "photon_voxels_mm": list(patient.grids.spect.GetSpacing()),
        "spect_fwhm_mm": settings["spect_fwhm_mm"],
        "density": SOURCE if patient.density is not None else "no CT: soft tissue in the whole image",
        "method": _method(settings), "limits": _limits(scans, patient, settings, without),
        "regions": doses["method"][names].to_dict(),
    }  # fmt: skip


def _method(settings: Mapping[str, Any]) -> str:
    shared = "The time-integrated activity of each region is shared among its voxels as the registered scans show it"
    if settings["spect_fwhm_mm"]:
        shared += ", each relative to what evenly filled regions would show (region-based voxel-wise correction)"
    if settings["dose_map"]["time_integration"] == VOXEL_WISE:
        shared += (
            "; a voxel whose points allow an exponential of its own has the integral of that, and the region's total "
            "is not kept"
        )
    if settings["dose_map"]["deposition"] == LOCAL:
        return f"{shared}. The energy of all electrons is absorbed in the voxel of the decay (local deposition)."
    return (
        f"{shared}. Voxel S values from transport in water, in soft tissue of "
        f"{density_g_per_ml('soft tissue'):g} g/mL: electrons on divided voxels, over the voxel's own mass; photons on "
        "those of the SPECT."
    )


def _limits(scans: Sequence[Scan], patient: Patient, settings: Mapping[str, Any], without: Sequence[str]) -> str:
    """What the map does not know, in sentences."""
    said = []
    left_out = [scan.scan for scan in scans if scan.scan not in patient.scans.names]
    if left_out:
        said.append(f"Not used, because a registration has failed: {', '.join(left_out)}.")
    if settings["spect_fwhm_mm"]:
        said.append("Within a region the image is blurred and noisy.")
    else:
        said.append("Blurred by the SPECT: no correction for partial volume.")
    if settings["dose_map"]["deposition"] == LOCAL:
        said.append("No electron leaves its voxel, no photon is absorbed.")
    else:
        said.append(
            "Ranges are those in soft tissue: within some millimetres of lung or bone the dose by electrons is not "
            "reliable; the body counts as endless for photons."
        )
    if patient.density is None:
        said.append("Without a CT the body's outline and its densities are not known: soft tissue everywhere.")
    if without:
        said.append(f"No estimate, and no dose in the map: {', '.join(without)}.")
    return " ".join(said)
