"""The stage itself: from the scans of one patient to `lesions.tsv`, `candidates.tsv` and the label maps."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from theraflow.dicom import read_annotation
from theraflow.errors import TheraflowError
from theraflow.images import divided, from_array, read_image, resample, to_array, voxel_volume_ml, write_image
from theraflow.layout import PatientFolder, Scan
from theraflow.lesions.candidates import find_candidates, physiologic_mask
from theraflow.lesions.identity import Lesion, Observation, follow, overlap_voxels
from theraflow.lesions.positivity import concordance, is_positive
from theraflow.lesions.region import Region, carry, centroid_mm, crop_of_grid
from theraflow.lesions.uptake import (
    BACKGROUNDS,
    MINIMUM_BACKGROUND_ML,
    SHELL,
    Background,
    geometry,
    organ_at_site,
    organ_background,
    organs_of_background,
    shell_background,
    site_of,
    uptake,
)
from theraflow.organs import implausible_organs
from theraflow.registration import map_points, passage, read_beside_emission, read_transform, verdict_of
from theraflow.tables import read_table, write_table

log = logging.getLogger(__name__)

LESION_COLUMNS = (
    "patient", "scan", "tracer", "timepoint", "lesion", "label", "site", "volume_ml", "suv_max", "suv_mean",
    "suv_peak", "tbr", "background_region", "background_suv", "tlg_ml", "positive", "concordance",
    "x_mm", "y_mm", "z_mm", "longest_diameter_mm", "short_axis_mm", "source",
    "suv_peak_ibsi_local", "suv_peak_ibsi_global", "annotation", "background_remark",
    "registration", "matched_by", "carried_from", "volume_change",
)  # fmt: skip
CANDIDATE_COLUMNS = (
    "patient", "scan", "tracer", "candidate", "site", "volume_ml", "suv_max", "x_mm", "y_mm", "z_mm",
    "in_reader_annotation",
)  # fmt: skip
FINEST_MAP_MM = 2.0  # voxels of the lesion map of a SPECT are divided until none is longer
FAILED = "failed"  # verdict on a registration through which nothing is carried
IN_FIELD_OF_VIEW = 0.9  # a carried lesion of which less lies in the image is not measured there


def measure_lesions(folder: PatientFolder, scans: Sequence[Scan], reference: Scan, settings: Mapping[str, Any]) -> None:
    """Find the patient's lesions, follow them through all scans, measure each on every scan.

    Reads the emission images, organ labels where there are any, the readers' annotations and the transforms
    of `theraflow.registration`. Writes the tables `lesions` and `candidates`, the label map of every scan on
    its own emission grid, and that of the reference scan once more as `lesions.nii.gz`.

    Where a scan has a reader's annotation, its lesions are the reader's and candidates are only listed; where
    it has none, the candidates are its lesions (not where physiologic organs are configured but no organ
    labels exist, for then brain and bladder would be lesions). A lesion is measured on every scan: through
    its own region, or through the mask carried from the scan that is closest: one of the same time point,
    else of the same tracer, else the first. Where the field of view leaves out a carried lesion, the row is
    NA.

    The column `registration` has the verdict on the scan's registration. Where it is `failed`, the scan's own
    regions are matched by organ and distance only (see `theraflow.lesions.identity`), and no mask is carried to
    the scan or from it: a lesion that it does not show itself is NA there, `source` too. `matched_by` says how a
    scan's own region was found to be a lesion that an earlier scan of the sheet shows. `carried_from` is the scan
    whose outline is measured where the scan has none of its own, and `volume_change` the volume that outline has
    here over its volume there.

    An organ that is not plausible (see `theraflow.organs.judge_organs`) is no background. Where a scan has no
    background, TBR is NA, and `background_remark` says why.

    Lesions may overlap (a tumour inside its oedema): each is measured with all of its voxels; in a label map,
    which has one label a voxel, the smaller one wins.

    Args:
        folder: the patient's results.
        scans: all scans of the patient, in the order of the sheet, which is also the order that names
            lesions.
        reference: the scan to whose space all others are registered; its time point is the baseline of
            concordance.
        settings: `candidates` (by tracer: `threshold_suv`; a tracer not listed has none), `minimum_ml`,
            `physiologic` (by tracer: organs), `match_distance_mm`, `positivity_ratio` and `background`
            (`blood_pool`, `liver`, `gluteal_muscle` or `shell`).

    Raises:
        TheraflowError: an unknown background, or an input that cannot be read.
    """
    if settings["background"] not in BACKGROUNDS:
        raise TheraflowError(
            f"The background {settings['background']!r} in the configuration is not known; "
            f"choose one of {', '.join(BACKGROUNDS)}."
        )
    patient = _Patient(folder, reference, settings)
    observations, candidates = [], []
    for scan in scans:
        found, listed = patient.look_at(scan)
        observations.append(found)
        candidates += listed
    lesions = follow(observations, settings["match_distance_mm"])
    rows = [row for scan in scans for row in patient.measure(scan, scans, lesions)]
    table = _with_concordance(pd.DataFrame(rows, columns=list(LESION_COLUMNS)), scans, reference)
    order = {scan.scan: place for place, scan in enumerate(scans)}
    table = table.iloc[np.lexsort([table["scan"].map(order), table["label"]])] if len(table) else table
    write_table(
        pd.DataFrame(candidates, columns=list(CANDIDATE_COLUMNS)),
        folder.table("candidates"),
        CANDIDATE_COLUMNS,
    )
    write_table(table, folder.table("lesions"), LESION_COLUMNS)


@dataclass(frozen=True)
class _Emission:
    """An emission image in memory, with what the organ labels say about its voxels."""

    voxels: np.ndarray
    grid: sitk.Image
    organs: np.ndarray | None
    physiologic: np.ndarray | None


class _Patient:
    """One run of the stage: the settings, and the geometry of every scan once it has been read."""

    def __init__(self, folder: PatientFolder, reference: Scan, settings: Mapping[str, Any]) -> None:
        self.folder, self.reference, self.settings = folder, reference, settings
        # By the scan's name; only what it shows itself is known of a scan whose registration has failed.
        self.verdict = cache(lambda scan: verdict_of(folder, scan.scan))
        self.organ_centres = cache(lambda scan: organ_centres(folder, scan.scan))
        # One voxel is enough to place regions, so that no more than one scan's image is in memory.
        self.geometry = cache(lambda scan: crop_of_grid(read_image(folder.emission(scan)), (0, 0, 0), (1, 1, 1)))
        self.passage = cache(lambda source, target: passage(folder, source, target))

    def read(self, scan: Scan) -> _Emission:
        """The scan's emission image, and organ labels by nearest neighbour on its grid."""
        grid = read_image(self.folder.emission(scan))
        organs = physiologic = None
        if self.folder.organs(scan.scan).exists():
            labels = read_beside_emission(self.folder, scan.scan, self.folder.organs(scan.scan))
            organs = to_array(resample(labels, grid, interpolation="nearest"))
            names = self.settings["physiologic"].get(scan.tracer, ())
            physiologic = physiologic_mask(organs, names, grid)
        return _Emission(to_array(grid), grid, organs, physiologic)

    def look_at(self, scan: Scan) -> tuple[list[Observation], list[dict[str, Any]]]:
        """What the scan itself shows, and its rows of the table of candidates."""
        emission = self.read(scan)
        annotated = self.annotated_regions(scan, emission)
        found = self.candidate_regions(scan, emission)
        listed = []
        for number, region in enumerate(found, start=1):
            size = geometry(region, emission.grid)
            in_annotation = any(overlap_voxels(region, other) for _, other in annotated) if scan.lesions else None
            listed.append(
                {"patient": scan.patient, "scan": scan.scan, "tracer": scan.tracer,
                 "candidate": f"C{number:02d}", "site": site_of(region, emission.organs),
                 "volume_ml": size["volume_ml"],
                 "suv_max": float(emission.voxels[region.box][region.mask].max()),
                 "x_mm": size["x_mm"], "y_mm": size["y_mm"], "z_mm": size["z_mm"],
                 "in_reader_annotation": in_annotation}
            )  # fmt: skip
        if scan.lesions:
            shown = [("reader", name, region) for name, region in annotated]
        elif emission.organs is None and self.settings["physiologic"].get(scan.tracer):
            if found:
                log.warning(
                    "Scan %s has no organ labels, so physiologic uptake cannot be told from lesions: "
                    "its %d candidates are listed but do not count.", scan.scan, len(found),
                )  # fmt: skip
            shown = []
        else:
            shown = [("candidate", None, region) for region in found]
        return [self.observe(scan, emission, *what) for what in shown], listed

    def annotated_regions(self, scan: Scan, emission: _Emission) -> list[tuple[str, Region]]:
        """The reader's names and regions."""
        return [
            (annotation.name, Region(annotation.start, annotation.inside))
            for annotation in (read_annotation(scan.lesions, emission.grid) if scan.lesions else ())
        ]

    def candidate_regions(self, scan: Scan, emission: _Emission) -> list[Region]:
        """The scan's candidates; none for a tracer without a rule and for scans that measure activity."""
        rule = self.settings["candidates"].get(scan.tracer)
        if scan.quantity != "suv" or rule is None:
            return []
        minimum_ml = self.settings["minimum_ml"]
        return find_candidates(emission.voxels, emission.grid, rule["threshold_suv"], minimum_ml, emission.physiologic)

    def observe(
        self, scan: Scan, emission: _Emission, source: str, annotation: str | None, region: Region
    ) -> Observation:
        """A region of the scan as an observation, carried to the reference scan unless its registration has failed."""
        space = self.geometry(self.reference)
        if scan.scan == self.reference.scan:
            carried = region
        elif self.verdict(scan) == FAILED:
            carried = None
        else:
            carried = carry(region, emission.grid, space, self.passage(scan.scan, self.reference.scan))
        itself = centroid_mm(region, emission.grid)
        centre = itself if carried is None else centroid_mm(carried, space)
        site = site_of(region, emission.organs, annotation)
        organ = organ_at_site(region, emission.organs, site)
        middle = self.organ_centres(scan).get(organ)
        return Observation(
            scan.scan, region, carried, centre, source, annotation, site,
            organ=None if middle is None else organ, from_organ_mm=None if middle is None else itself - middle,
        )  # fmt: skip

    def measure(self, scan: Scan, scans: Sequence[Scan], lesions: Sequence[Lesion]) -> list[dict[str, Any]]:
        """Rows of all lesions on one scan; writes the scan's label map."""
        emission = self.read(scan)
        grid = self.map_grid(scan, emission, lesions)
        sources = [self.source_of(scan, scans, lesion) for lesion in lesions]
        regions = [self.region_on(scan, grid, lesion, source) for lesion, source in zip(lesions, sources, strict=True)]
        self.write_map(scan, grid, lesions, regions)
        anywhere = np.zeros(grid.GetSize()[::-1], dtype=bool)
        for region in regions:
            if region is not None:
                anywhere[region.box] |= region.mask
        background, remark = None, None
        if scan.quantity == "suv" and self.settings["background"] != SHELL:
            background, remark = self.background_of(scan, emission, anywhere)
        rows = []
        for label, (lesion, region, source) in enumerate(zip(lesions, regions, sources, strict=True), start=1):
            own = lesion.get(scan.scan)
            row = {
                "patient": scan.patient, "scan": scan.scan, "tracer": scan.tracer,
                "timepoint": scan.timepoint, "lesion": lesion_name(label), "label": label,
                "site": _site(lesion), "source": _source(lesion, scan) if source else None,
                "annotation": own.annotation if own else None,
                "registration": self.verdict(scan), "matched_by": own.matched_by if own else None,
            }  # fmt: skip
            if region is not None:
                row |= geometry(region, grid)
                if own is None:
                    there_ml = lesion[source.scan].region.voxels * voxel_volume_ml(self.geometry(source))
                    row |= {"carried_from": source.scan, "volume_change": row["volume_ml"] / there_ml}
                if scan.quantity == "suv":
                    # In an annotated scan the reader has seen what is there, and what is not.
                    reader_says = own is not None if scan.lesions else None
                    row |= self.uptake_row(emission, region, anywhere, background, reader_says)
                    row["background_remark"] = remark
            rows.append(row)
        return rows

    def background_of(
        self, scan: Scan, emission: _Emission, anywhere: np.ndarray
    ) -> tuple[Background | None, str | None]:
        """The background of all lesions of a scan, from organs, and what is to be said of it."""
        name = self.settings["background"]
        if emission.organs is None:
            background, remark = None, "the scan has no organ labels"
        else:
            doubtful = implausible_organs(self.folder.organ_table(scan.scan))
            own = organs_of_background(name)
            without = {organ: doubtful[organ] for organ in own if organ in doubtful}
            background = organ_background(
                name, emission.voxels, emission.organs, anywhere, emission.grid, without=without
            )
            remarks = [f"{organ} is not plausible ({reason})" for organ, reason in without.items()]
            if background is None and len(without) < len(own):
                remarks.append(f"less than {MINIMUM_BACKGROUND_ML:g} mL inside its edge and away from lesions")
            remark = "; ".join(remarks) or None
        if background is None:
            log.warning("Scan %s: background %s and TBR are NA: %s.", scan.scan, name, remark)
        elif remark:
            log.warning(
                "Scan %s: background %s is measured without what is not plausible: %s.", scan.scan, name, remark
            )
        return background, remark

    def uptake_row(
        self,
        emission: _Emission,
        region: Region,
        anywhere: np.ndarray,
        background: Background | None,
        reader_says: bool | None,
    ) -> dict[str, Any]:
        """The columns of a lesion that only a scan in SUV has."""
        row = uptake(emission.voxels, region, emission.grid)
        shell = shell_background(emission.voxels, region, anywhere, emission.physiologic, emission.grid)
        if self.settings["background"] == SHELL:
            background = shell
        if background is not None:
            row |= {"background_region": background.region, "background_suv": background.mean,
                    "tbr": row["suv_peak"] / background.mean if background.mean > 0 else None}  # fmt: skip
        row["positive"] = is_positive(
            reader_says, row["suv_peak"], shell.mean if shell else None, self.settings["positivity_ratio"]
        )
        return row

    def map_grid(self, scan: Scan, emission: _Emission, lesions: Sequence[Lesion]) -> sitk.Image:
        """The grid of a scan's lesion map: its emission image's, divided for a SPECT with carried lesions only.

        No uptake is read from a SPECT here, and its voxels are too coarse for the outline of a small lesion, on which
        the correction for partial volume depends.
        """
        if scan.quantity == "suv" or any(scan.scan in lesion for lesion in lesions):
            return emission.grid
        return divided(emission.grid, FINEST_MAP_MM)

    def source_of(self, scan: Scan, scans: Sequence[Scan], lesion: Lesion) -> Scan | None:
        """The scan whose outline of a lesion is measured on a scan: itself, else the nearest; None without any."""
        if scan.scan in lesion:
            return scan
        # A way through a failed registration leads anywhere.
        if self.verdict(scan) == FAILED:
            return None
        able = [other for other in scans if other.scan in lesion and self.verdict(other) != FAILED]
        return min(able, key=lambda s: (s.timepoint != scan.timepoint, s.tracer != scan.tracer), default=None)

    def region_on(self, scan: Scan, grid: sitk.Image, lesion: Lesion, source: Scan | None) -> Region | None:
        """A lesion's region on a grid of a scan: its own, or carried; None outside the field of view."""
        if source is None:
            return None
        if source.scan == scan.scan:
            return lesion[scan.scan].region
        way = self.passage(source.scan, scan.scan)
        whole = carry(lesion[source.scan].region, self.geometry(source), grid, way)
        visible = whole.clipped(grid.GetSize()[::-1])
        return visible if visible.voxels >= max(1, IN_FIELD_OF_VIEW * whole.voxels) else None

    def write_map(
        self,
        scan: Scan,
        grid: sitk.Image,
        lesions: Sequence[Lesion],
        regions: Sequence[Region | None],
    ) -> None:
        """Write the label map of a scan on `grid`; that of the reference scan also as the patient's."""
        labels = np.zeros(grid.GetSize()[::-1], dtype=np.uint8 if len(lesions) < 256 else np.uint16)
        present = [(label, region) for label, region in enumerate(regions, start=1) if region is not None]
        for label, region in sorted(present, key=lambda pair: -pair[1].voxels):
            labels[region.box][region.mask] = label
        sidecar = {
            "quantity": "lesion label", "unit": "1", "patient": scan.patient, "scan": scan.scan,
            "labels": {str(label): lesion_name(label) for label, _ in present},
            "sources": {
                lesion_name(label): _source(lesions[label - 1], scan) for label, _ in present
            },
            "voxel_volume_ml": voxel_volume_ml(grid),
            "overlap": "where lesions overlap the smaller one has the label; the table has all voxels",
        }  # fmt: skip
        image = from_array(labels, grid)
        write_image(image, self.folder.lesion_map(scan.scan), sidecar)
        if scan.scan == self.reference.scan:
            write_image(image, self.folder.lesion_map(), sidecar)


def organ_centres(folder: PatientFolder, scan: str) -> dict[str, np.ndarray]:
    """Centres (x y z, LPS mm as its emission image lies) of a scan's organs that are plausible and whole.

    The centre of a part would lie elsewhere.
    """
    if not folder.organs(scan).exists():
        return {}
    table = read_table(folder.organ_table(scan))
    table = table[(table["plausible"] == "yes") & (table["touches_edge"].astype(str) == "False")]
    centres = map_points(table[["x_mm", "y_mm", "z_mm"]].to_numpy(float), read_transform(folder.ct_to_emission(scan)))
    return dict(zip(table["organ"], centres, strict=True))


def lesion_name(label: int) -> str:
    """`L01` for label 1."""
    return f"L{label:02d}"


def _source(lesion: Lesion, scan: Scan) -> str:
    return lesion[scan.scan].source if scan.scan in lesion else "carried"


def _site(lesion: Lesion) -> str | None:
    """The first site that any scan, in their order, can tell; a reader's observations come first."""
    shown = sorted(lesion.values(), key=lambda observation: observation.source != "reader")
    return next((observation.site for observation in shown if observation.site), None)


def _with_concordance(table: pd.DataFrame, scans: Sequence[Scan], reference: Scan) -> pd.DataFrame:
    """Fill `concordance` from the SUV scans of the reference scan's time point."""
    tracers = list(dict.fromkeys(s.tracer for s in scans if s.quantity == "suv" and s.timepoint == reference.timepoint))
    at_baseline = table[table["timepoint"] == reference.timepoint]
    agreement = {}
    for lesion, rows in at_baseline.groupby("lesion"):
        positive = {
            tracer: [None if pd.isna(p) else bool(p) for p in rows.loc[rows["tracer"] == tracer, "positive"]]
            for tracer in tracers
        }
        agreement[lesion] = concordance(positive)
    return table.assign(concordance=table["lesion"].map(agreement))
