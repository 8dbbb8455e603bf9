"""One patient's scans: what each shows, and a lesion's region on any of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import SimpleITK as sitk

from theraflow.dicom import read_annotation
from theraflow.images import divided, read_image, read_sidecar
from theraflow.layout import PatientFolder, Scan
from theraflow.lesions.candidates import own_levels, rule_level
from theraflow.lesions.contract import CANDIDATE, FINEST_MAP_MM, READER
from theraflow.lesions.decisions import Decision, Proposal, apply_decisions
from theraflow.lesions.detection import outline_of, read_candidates, reference_uptake
from theraflow.lesions.emission import Emission, read_emission
from theraflow.lesions.identity import SUFFICIENT_OVERLAP, Lesion, Observation, overlap_voxels
from theraflow.lesions.outline import Outline, grown_from
from theraflow.lesions.region import Region, carry, centroid_mm, crop_of_grid
from theraflow.lesions.site import organ_at_site, site_of
from theraflow.organs import whole_organs
from theraflow.registration import map_points, passage, read_transform, verdict_of

FAILED = "failed"  # verdict on a registration through which nothing is carried
IN_FIELD_OF_VIEW = 0.9  # a carried lesion of which less lies in the image is not measured there
NOT_MARKED = "the reader has not marked it"
CLICK_OUTLINE = Outline("percent_of_contrast", 50.0)  # where the tracer has no rule


@dataclass(frozen=True)
class Shown:
    """What a scan shows by itself.

    Attributes:
        proposals: the reader's regions and the program's candidates, before any decision.
        automatic: those of them that are lesions, as observations.
        decided: all proposals after the reader's decisions, by their keys.
        observations: those of them that are lesions.
        candidates: the program's own, with the columns of its table.
    """

    proposals: list[Proposal]
    automatic: list[Observation]
    decided: dict[str, Proposal]
    observations: list[Observation]
    candidates: list[dict[str, Any]]


class Patient:
    """One run of the stage: the settings, and the geometry of every scan once it has been read.

    Args:
        folder: the patient's results.
        scans: all scans, in the order of the sheet.
        reference: the scan to whose space all others are registered.
        settings: of the stage, see `theraflow.lesions.measure_lesions`.
        decisions: of the readers about this patient.
    """

    def __init__(
        self,
        folder: PatientFolder,
        scans: Sequence[Scan],
        reference: Scan,
        settings: Mapping[str, Any],
        decisions: Sequence[Decision],
    ) -> None:
        self.folder, self.scans, self.reference, self.settings = folder, scans, reference, settings
        self.decisions = {scan.scan: [row for row in decisions if row.scan == scan.scan] for scan in scans}
        # By the scan's name; only what it shows itself is known of a scan whose registration has failed.
        self.verdict = cache(lambda scan: verdict_of(folder, scan.scan))
        self.organ_centres = cache(lambda scan: organ_centres(folder, scan.scan))
        # One voxel is enough to place regions, so that no more than one scan's image is in memory.
        self.geometry = cache(lambda scan: crop_of_grid(read_image(folder.emission(scan)), (0, 0, 0), (1, 1, 1)))
        self.passage = cache(lambda source, target: passage(folder, source, target))

    def read(self, scan: Scan) -> Emission:
        """A scan's emission image with its organs."""
        return read_emission(self.folder, scan, self.settings["physiologic"])

    def look_at(self, scan: Scan) -> Shown:
        """What the scan itself shows, before and after the reader's decisions."""
        emission = self.read(scan)
        annotated = [
            Proposal(Region(one.start, one.inside), True, READER, f"{scan.scan}:R{number:02d}", one.name, marked=True)
            for number, one in enumerate(read_annotation(scan.lesions, emission.grid) if scan.lesions else (), start=1)
        ]
        proposals, candidates = list(annotated), []
        for row, region in self.candidates_of(scan):
            common = [(overlap_voxels(region, one.region), min(region.voxels, one.region.voxels)) for one in annotated]
            marked = any(voxels for voxels, _ in common) if scan.lesions else None
            candidates.append({**row, "in_reader_annotation": marked})
            if region.voxels and not any(voxels >= SUFFICIENT_OVERLAP * smaller for voxels, smaller in common):
                kept, reason = row["kept"], row["reason"]
                if scan.lesions and kept:
                    kept, reason = False, NOT_MARKED
                key = f"{scan.scan}:{row['candidate']}"
                proposals.append(Proposal(region, bool(kept), CANDIDATE, key, None, reason))
        decided = apply_decisions(proposals, self.decisions[scan.scan], emission.grid, self.grower(scan, emission))
        for row in candidates:
            row |= _fate(f"{scan.scan}:{row['candidate']}", decided)
        automatic = {one.key: self.observe(scan, emission, one) for one in proposals if one.kept}
        known = {id(one) for one in proposals}
        observations = [
            automatic[one.key] if id(one) in known else self.observe(scan, emission, one) for one in decided if one.kept
        ]
        return Shown(proposals, list(automatic.values()), {one.key: one for one in decided}, observations, candidates)

    def candidates_of(self, scan: Scan) -> list[tuple[dict[str, Any], Region]]:
        """The scan's candidates; none for a tracer without a rule and for scans that measure activity."""
        if scan.quantity != "suv" or scan.tracer not in self.settings["candidates"]:
            return []
        table, regions = read_candidates(self.folder, scan)
        return list(zip(table.to_dict("records"), regions, strict=True))

    def unsearched(self, scan: Scan) -> str | None:
        """Why a lesion that no other scan shows would not be found on a PET; None where it would, and on a SPECT."""
        if scan.lesions or scan.quantity != "suv":
            return None
        if scan.tracer not in self.settings["candidates"]:
            return "it has no annotation, and its tracer no rule for candidates"
        labels, _ = self.folder.candidate_files(scan.scan)
        return read_sidecar(labels).get("remark")

    def grower(self, scan: Scan, emission: Emission) -> Callable[[np.ndarray], Region | None]:
        """From a point of the scan the region that the tracer's rule grows from it, organs as candidates meet them."""
        rule = self.settings["candidates"].get(scan.tracer)
        outline = outline_of(rule) if rule else CLICK_OUTLINE
        organs = own_levels(emission.physiologic or ())

        @cache
        def level_suv() -> float:
            level = rule_level(rule, reference_uptake(self.folder, scan, emission)) if rule else None
            return level.suv if level else np.inf

        return lambda point: grown_from(emission.voxels, emission.grid, point, level_suv(), outline, organs)

    def observe(self, scan: Scan, emission: Emission, shown: Proposal) -> Observation:
        """A region of the scan as an observation, carried to the reference scan unless its registration has failed."""
        space, region = self.geometry(self.reference), shown.region
        if scan.scan == self.reference.scan:
            carried = region
        elif self.verdict(scan) == FAILED:
            carried = None
        else:
            carried = carry(region, emission.grid, space, self.passage(scan.scan, self.reference.scan))
        itself = centroid_mm(region, emission.grid)
        centre = itself if carried is None else centroid_mm(carried, space)
        site = site_of(region, emission.landmarks, emission.grid, shown.name)
        organ = organ_at_site(region, emission.organs, site.site)
        middle = self.organ_centres(scan).get(organ)
        return Observation(
            scan.scan, region, carried, centre, shown.source, shown.name, site.site, where=site,
            organ=None if middle is None else organ, from_organ_mm=None if middle is None else itself - middle,
            key=shown.key,
        )  # fmt: skip

    def source_of(self, scan: Scan, lesion: Lesion) -> Scan | None:
        """The scan whose outline of a lesion is measured on a scan: itself, else the nearest; None without any."""
        if scan.scan in lesion:
            return scan
        # A way through a failed registration leads anywhere.
        if self.verdict(scan) == FAILED:
            return None
        able = [other for other in self.scans if other.scan in lesion and self.verdict(other) != FAILED]
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

    def map_grid(self, scan: Scan, emission: Emission, lesions: Sequence[Lesion]) -> sitk.Image:
        """The grid of a scan's lesion map: its emission image's, divided for a SPECT with carried lesions only.

        No uptake is read from a SPECT here, and its voxels are too coarse for the outline of a small lesion, on which
        the correction for partial volume depends.
        """
        if scan.quantity == "suv" or any(scan.scan in lesion for lesion in lesions):
            return emission.grid
        return divided(emission.grid, FINEST_MAP_MM)


def _fate(key: str, decided: Sequence[Proposal]) -> dict[str, Any]:
    """Whether a candidate is kept after the reader's decisions, and why: kept is what a part of is a lesion."""
    made = [one for one in decided if key in one.roots]
    told = [one for one in made if one.kept] or made
    if not told:  # a region of the annotation stands in its place
        return {}
    return {"kept": told[0].kept, "reason": "; ".join(dict.fromkeys(one.reason for one in told))}


def organ_centres(folder: PatientFolder, scan: str) -> dict[str, np.ndarray]:
    """Centres (x y z, LPS mm as its emission image lies) of a scan's organs that are plausible and whole.

    The centre of a part would lie elsewhere.
    """
    if not folder.organs(scan).exists():
        return {}
    organs = whole_organs(folder.organ_table(scan))
    centres = map_points(organs[["x_mm", "y_mm", "z_mm"]].to_numpy(float), read_transform(folder.ct_to_emission(scan)))
    return dict(zip(organs["organ"], centres, strict=True))
