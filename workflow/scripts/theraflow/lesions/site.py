"""Where a lesion lies: an organ or a region of the body, and for a lymph node its station.

Three sources, the first that can tell: the reader's name of the lesion; the organ that holds half of it; the organs
around it. The last is a guess by anatomical rules, marked as such, for nodes, the peritoneum and the pleura have no
label of their own. Any set of labels will do: a rule whose organs are missing does not apply.

Distances to organs are those of the lesion's voxels, and "near" means that half of the lesion is: a chain of nodes
wraps its vessel, whereas a large implant may touch it with one side only.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy
import SimpleITK as sitk
import skimage

from theraflow.lesions.contract import READER, SURROUNDINGS
from theraflow.lesions.region import Box, Region, centroid_mm, physical_points, spacing_zyx, surroundings
from theraflow.organs import GROUPS, ORGAN_IDS, organ_labels

BONES = ("vertebrae", "sacrum", "rib", "hip", "femur", "humerus", "scapula", "clavicula", "sternum", "skull",
         "costal")  # fmt: skip
MUSCLES = ("gluteus", "autochthon", "iliopsoas")
# What a reader's name of a lesion says about its site, and of a node about its station.
SITE_WORDS = {
    "lymph node": r"lymph|nod(e|al)|\bln\b",
    "diaphragm": r"diaphragm",
    "pleura": r"(?<!sub)pleura",
    "mediastinum": r"mediastin",
    "retroperitoneum": r"retroperiton",
    "liver": r"liver|(?<!peri)hepat",
    "spleen": r"(?<!peri)(spleen|splenic)",
    "lung": r"lung|pulmon",
    "bone": r"bone|osse",
    "peritoneum": r"periton|\boment|perihepat|perisplen",
    "soft tissue": r"soft[ _-]?tissue",
}
STATION_WORDS = {
    "supraclavicular": r"supraclav",
    "cervical": r"cervical|\bneck",
    "axillary": r"axill",
    "mediastinal": r"mediastin|tracheal|carinal",
    "hilar": r"\bhil(ar|um|us)",
    "retroperitoneal": r"retroperiton|para ?aort|aorto|caval|retrocrur",
    "mesenteric": r"mesenter",
    "iliac": r"iliac|obturator",
    "inguinal": r"inguin|femoral",
}

NODE, PERITONEUM, SOFT_TISSUE, MEDIASTINUM = "lymph node", "peritoneum", "soft tissue", "mediastinum"
ORGAN = "organ"

VESSELS_ABDOMEN = ("aorta", "inferior_vena_cava")
VESSELS_PELVIS = ("iliac_artery_left", "iliac_artery_right", "iliac_vena_left", "iliac_vena_right")
# What the mediastinal stations of the IASLC's map (Rusch et al., J Thorac Oncol 2009;4:568) are named after.
MEDIASTINAL = ("trachea", "esophagus", "aorta", "superior_vena_cava", "brachiocephalic_trunk", "subclavian_artery_left",
               "subclavian_artery_right", "brachiocephalic_vein_left", "brachiocephalic_vein_right",
               "common_carotid_artery_left", "common_carotid_artery_right", "pulmonary_vein")  # fmt: skip
# A tumour of their own walls is rarer than a node or an implant beside them that the segmentation took for them.
SWALLOWING = (*VESSELS_ABDOMEN, *VESSELS_PELVIS, *MEDIASTINAL[3:], "trachea", "heart", "atrial_appendage_left",
              "portal_vein_and_splenic_vein", "bowel")  # fmt: skip
# Also a muscle beside which nodes lie; where no station fits, it is the site all the same.
HALF_SWALLOWING = ("iliopsoas_left", "iliopsoas_right")
SEROUS = ("bowel", "liver", "spleen", "stomach", "gallbladder", "urinary_bladder")  # covered by peritoneum
RETROPERITONEAL = ("kidneys", "adrenal_glands", "iliopsoas_left", "iliopsoas_right")
SUBPHRENIC = ("liver", "spleen", "stomach")
ABDOMINAL = (*SEROUS, "kidneys", "adrenal_glands", "pancreas")
# What lies around the abdominal and pelvic cavity or in it.
CAVITY = (*ABDOMINAL, *VESSELS_ABDOMEN, *VESSELS_PELVIS, "prostate", "sacrum", "hips", "iliopsoas_left",
          "iliopsoas_right")  # fmt: skip
WALL = ("ribs", "hips", "sternum", "costal_cartilages", "scapula_left", "scapula_right", "gluteus_maximus",
        "gluteus_medius_left", "gluteus_medius_right", "gluteus_minimus_left", "gluteus_minimus_right",
        "autochthon_left", "autochthon_right")  # fmt: skip
CLAVICLES, SCAPULAE = ("clavicula_left", "clavicula_right"), ("scapula_left", "scapula_right")

REACH_MM = 80.0  # an organ farther away says nothing of a lesion's place
SAMPLING_MM = 3.0  # of the organs around
LEVEL_MM = 10.0  # an organ within this height above or below the lesion's centre is at its level
LESION_POINTS = 400  # voxels of a lesion that are asked for their distances
PIECE = 0.1  # of an organ's largest piece; less elsewhere is a mistake of the segmentation
PART_IN_BONE = 1 / 3  # a destroyed bone loses its label, and a flat one is thinner than the blur of a PET
NEAR_VESSEL_MM = 15.0  # half of a node of up to 3 cm that touches a vessel, or of a chain around it
TOUCHING_MM = 3.0  # no more than a voxel of a PET between a lesion and the organ whose lining it grows on
BREATHING_MM = 10.0  # the diaphragm's excursion in quiet breathing
BETWEEN_LUNGS = 0.75  # part of each lung that lies lateral of what is in the mediastinum
MIDLINE_MM = 15.0  # nodes of the neck lie beside the great vessels; nearer the midline are larynx, pharynx and thyroid
CLAVICLE_MM = 30.0  # depth of the fossa above it
AXILLA_MM = 40.0  # from the blade of the shoulder to the front of the armpit
GROIN_MM = 50.0  # from the femur's head to the skin of the groin
NECK_MM = 70.0  # half the width of a neck; beyond are the shoulders


@dataclass(frozen=True)
class Site:
    """Where a lesion lies, and how that is known.

    Attributes:
        site: `lymph node`, `peritoneum`, `bone`, `lung`, `soft tissue`, `mediastinum`, `pleura`, `diaphragm`,
            `retroperitoneum`, or an organ's own name with spaces; None where it cannot be told.
        station: of a lymph node `cervical`, `supraclavicular`, `axillary`, `mediastinal`, `hilar`,
            `retroperitoneal`, `portal`, `mesenteric` (by the reader only), `iliac` or `inguinal`; else None.
        by: `reader`, `organ` or `surroundings`; None where the site is.
        reason: one sentence without its full stop.
    """

    site: str | None
    station: str | None = None
    by: str | None = None
    reason: str = ""

    @property
    def certain(self) -> bool:
        """Whether a reader or the organ around it says so; a site by the surroundings is a guess."""
        return self.by in (READER, ORGAN)


def site_of(region: Region, organs: np.ndarray | None, grid: sitk.Image, annotation: str | None = None) -> Site:
    """Where a lesion lies: as the reader's name says, else the organ that holds half of it, else by what is around.

    Bones are `bone`, lung lobes `lung`, muscles `soft tissue`, other organs bear their own names. Vessels, heart,
    airway and bowel are no site: what is labelled so is judged by its surroundings.

    Args:
        region: the lesion, within the grid, not empty.
        organs: organ labels on the same grid, shape (z, y, x), once a scan freed from crumbs by `main_pieces`; or None.
        grid: the geometry of both, in LPS mm; its voxels are not read.
        annotation: the reader's name of the lesion, or None.
    """
    named = _named(annotation)
    if organs is None:
        return named or Site(None, reason="there are no organ labels")
    if named and (named.site != NODE or named.station):
        return named
    around = _Surroundings(region, organs, grid)
    if named:
        guess = _by_surroundings(around)
        reasons = [named.reason, guess.reason] if guess.station else [named.reason]
        return replace(named, station=guess.station, reason="; ".join(reasons))
    return _by_organ(around) or _by_surroundings(around)


def main_pieces(organs: np.ndarray) -> np.ndarray:
    """Organ labels without the crumbs that a segmentation strews about the body.

    A few voxels of a femur in the neck would be a landmark there. Of every organ remain its largest connected piece (26
    neighbours) and all that have at least a tenth of its voxels.

    Args:
        organs: organ labels (z, y, x).

    Returns:
        A copy with 0 in place of the crumbs.
    """
    box = Region.of(organs).box  # the air around a body takes most of an image
    labelled = organs[box] > 0
    pieces = skimage.measure.label(organs[box], background=0, connectivity=3)[labelled]
    sizes = np.bincount(pieces, minlength=1)
    organ_of = np.zeros(len(sizes), dtype=organs.dtype)
    organ_of[pieces] = organs[box][labelled]
    largest = np.zeros(256, dtype=int)
    np.maximum.at(largest, organ_of, sizes)
    organ_of[sizes < PIECE * largest[organ_of]] = 0
    cleaned = np.zeros_like(organs)
    cleaned[box][labelled] = organ_of[pieces]
    return cleaned


def organ_at_site(region: Region, organs: np.ndarray | None, site: str | None) -> str | None:
    """The one organ of a lesion's site, as `ORGAN_IDS` names it.

    A site that is one organ (`liver`, also by the reader's word) is that organ. Of a site of many organs (`bone`,
    `lung`, `soft tissue`) it is the one that holds half of the lesion. Nodes and the peritoneum have none.

    Args:
        region: the lesion, within the grid, not empty.
        organs: organ labels on the same grid, or None.
        site: `Site.site`, as `site_of` gives it.
    """
    if organs is None or site is None:
        return None
    name = site.replace(" ", "_")
    if name in ORGAN_IDS:
        return name
    voxels = {organ: n for organ, n in _voxels_in_organs(region, organs).items() if _site_of_organ(organ) == site}
    organ = max(voxels, key=voxels.__getitem__, default=None)
    return organ if organ and voxels[organ] >= math.ceil(region.voxels / 2) else None


def _voxels_in_organs(region: Region, organs: np.ndarray) -> dict[str, int]:
    counts = np.bincount(organs[region.box][region.mask])
    return {_NAMES[label]: int(counts[label]) for label in np.flatnonzero(counts).tolist() if label in _NAMES}


_NAMES = {label: name for name, label in ORGAN_IDS.items()}


def _site_of_organ(name: str) -> str:
    if name.startswith(BONES):
        return "bone"
    if name.startswith("lung"):
        return "lung"
    return SOFT_TISSUE if name.startswith(MUSCLES) else name.replace("_", " ")


def _named(annotation: str | None) -> Site | None:
    words = re.sub(r"[_\d-]+", " ", annotation or "").lower()
    for site, pattern in SITE_WORDS.items():
        if re.search(pattern, words):
            stations = (station for station, word in STATION_WORDS.items() if re.search(word, words))
            station = next(stations, None) if site == NODE else None
            return Site(site, station, READER, f"the reader calls it {annotation}")
    return None


class _Surroundings:
    """The organs around a lesion as points in LPS mm, asked by the names of organs and groups of them."""

    def __init__(self, region: Region, organs: np.ndarray, grid: sitk.Image) -> None:
        self.region, self.organs, self.grid = region, organs, grid
        self.centre = centroid_mm(region, grid)
        inside = region.indices()
        self.lesion = physical_points(inside[:: -(-len(inside) // LESION_POINTS)], grid)
        spacing = spacing_zyx(grid)
        self._half_voxel = float(spacing.mean()) / 2.0
        box = surroundings(region, organs.shape, spacing, REACH_MM)
        self._labels, self._points = self._cloud(box)
        # The planes at the lesion's level are seen from side to side, for a wide abdomen reaches farther than the box.
        labels, points = self._cloud(self._planes(box))
        level = np.abs(points[:, 2] - self.centre[2]) <= LEVEL_MM
        self._level_labels, self._level_points = labels[level], points[level]

    def _planes(self, box: Box) -> Box:
        """The whole planes of the grid that may hold voxels at the lesion's level, as far along the body as `box`."""
        shape = self.organs.shape
        along = 2 - int(np.argmax(np.abs(np.array(self.grid.GetDirection()).reshape(3, 3)[2])))
        origin, *steps = physical_points(np.vstack((np.zeros(3), np.eye(3))), self.grid)[:, 2]
        steps = np.subtract(steps, origin)
        tilts = np.delete(steps * (np.array(shape) - 1), along)
        lowest, highest = origin + tilts.clip(max=0.0).sum(), origin + tilts.clip(min=0.0).sum()
        ends = (self.centre[2] + np.array([-LEVEL_MM - highest, LEVEL_MM - lowest])) / steps[along]
        first = max(box[along].start, math.floor(ends.min()))
        stop = min(box[along].stop, math.ceil(ends.max()) + 1)
        return tuple(slice(first, max(first, stop)) if axis == along else slice(0, n) for axis, n in enumerate(shape))

    def _cloud(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Labels and places of the organs' voxels in a box, without those of the lesion itself."""
        steps = np.maximum(1, (SAMPLING_MM / spacing_zyx(self.grid)).astype(int))
        every = tuple(slice(None, None, step) for step in steps.tolist())
        labels = np.where(self.region.on_box(box)[every], 0, self.organs[box][every])
        found = np.argwhere(labels)
        start = [part.start for part in box]
        return labels[labels != 0], physical_points(found * steps + start, self.grid)

    def points(self, *names: str) -> np.ndarray:
        """Places of the named organs' voxels within reach, shape (N, 3)."""
        return self._points[np.isin(self._labels, organ_labels(*names))]

    def at_level(self, *names: str) -> np.ndarray:
        """Places of the named organs' voxels at the lesion's level, however far to a side, shape (N, 3)."""
        return self._level_points[np.isin(self._level_labels, organ_labels(*names))]

    def within(self, *names: str) -> float:
        """Part of the lesion that is labelled as one of the named organs."""
        labels = self.organs[self.region.box][self.region.mask]
        return float(np.isin(labels, organ_labels(*names)).mean())

    def distances(self, *names: str) -> np.ndarray:
        """Distance in mm of the lesion's points to the surface of the nearest of the named organs; infinite without."""
        points = self.points(*names)
        if not len(points):
            return np.full(len(self.lesion), np.inf)
        # The surface lies half a voxel before the centre of an organ's first voxel.
        return np.maximum(scipy.spatial.cKDTree(points).query(self.lesion)[0] - self._half_voxel, 0.0)

    def half_within(self, *names: str) -> float:
        """The distance in mm from the named organs within which half of the lesion lies; 0 where half is in them."""
        return 0.0 if self.within(*names) >= 0.5 else float(np.median(self.distances(*names)))

    def nearest(self, *names: str) -> float:
        """The least distance in mm between the surfaces of lesion and organs; 0 where a part is in them."""
        return 0.0 if self.within(*names) > 0.0 else max(float(self.distances(*names).min()) - self._half_voxel, 0.0)

    def nearest_point(self, *names: str) -> np.ndarray | None:
        """The place of the named organs that is nearest to the lesion's centre."""
        points = self.points(*names)
        return points[np.argmin(np.linalg.norm(points - self.centre, axis=1))] if len(points) else None

    def enclosed_by(self, *names: str) -> bool:
        """Whether the named organs lie on all sides at the lesion's level: no gap of half a circle or more."""
        points = self.at_level(*names)
        if len(points) < 3:
            return False
        angles = np.sort(np.arctan2(*(points[:, :2] - self.centre[:2]).T))
        return bool(np.diff(angles, append=angles[0] + 2 * np.pi).max() < np.pi)

    def beyond_the_wall(self, *names: str) -> bool:
        """Whether bone or muscle of the trunk's wall lies between the lesion's centre and the nearest named organ."""
        target = self.nearest_point(*names)
        if target is None:
            return False
        steps = max(2, round(float(np.linalg.norm(target - self.centre))))
        line = self.centre + np.linspace(0.0, 1.0, steps)[:, None] * (target - self.centre)
        index = [self.grid.TransformPhysicalPointToIndex(point)[::-1] for point in line.tolist()]
        index = np.clip(index, 0, np.array(self.organs.shape) - 1)
        return bool(np.isin(self.organs[tuple(index.T)], organ_labels(*WALL)).any())

    def lateral_part(self, side: str) -> float:
        """Part of one lung, at the lesion's level, that lies lateral of the lesion's centre; NaN without that lung."""
        x = self.at_level(f"lung_{side}")[:, 0]
        if not len(x):
            return math.nan
        return float(np.mean(x > self.centre[0] if side == "left" else x < self.centre[0]))

    def middle_x(self) -> float | None:
        """Where the spine runs at the lesion's level, or nearest to it, along x in mm."""
        for points in (self.at_level("vertebrae", "sacrum"), self.points("vertebrae", "sacrum", "spinal_cord")):
            if len(points):
                return float(points[:, 0].mean())
        return None

    def vertebra(self) -> str | None:
        """The vertebra whose middle is nearest in height to the lesion's centre, of those at its level."""
        heights = {
            name: abs(float(points[:, 2].mean()) - self.centre[2])
            for name in GROUPS["vertebrae"]
            if len(points := self.at_level(name))
        }
        return min(heights, key=heights.__getitem__, default=None)


def _by_organ(around: _Surroundings) -> Site | None:
    parts: dict[str, float] = {}
    for organ, voxels in _voxels_in_organs(around.region, around.organs).items():
        if ORGAN_IDS[organ] not in _NO_SITES:
            site = _site_of_organ(organ)
            parts[site] = parts.get(site, 0.0) + voxels / around.region.voxels
    site = max(parts, key=parts.__getitem__, default=None)
    if site == "lung" and parts[site] >= 0.5 and around.nearest(*SUBPHRENIC) <= BREATHING_MM:
        below = "an organ below the diaphragm is so near that breathing may have moved it from there"
        return Site(site, None, SURROUNDINGS, f"{parts[site]:.0%} of it is in lung, but {below}")
    if site and parts[site] >= 0.5:
        return Site(site, None, ORGAN, f"{parts[site]:.0%} of it is in {site}")
    if site == "bone" and parts[site] >= PART_IN_BONE:
        return Site(site, None, SURROUNDINGS, f"{parts[site]:.0%} of it is in bone and less in any other organ")
    return None


_NO_SITES = set(organ_labels(*SWALLOWING, *HALF_SWALLOWING))


def _by_surroundings(around: _Surroundings) -> Site:
    """The first rule that applies. Nodes outside of the cavities come first, for their landmarks are the plainest."""
    rules: tuple[Callable[[_Surroundings], Site | None], ...] = (_neck, _axilla, _groin)
    if _in_chest(around):
        rules += (_diaphragm, _chest)
    else:
        rules += (_great_vessels, _pelvic_vessels, _psoas, _diaphragm, _abdomen)
    for rule in rules:
        found = rule(around)
        if found:
            return found
    return Site(None, reason="the organs around it do not tell")


def _guess(site: str, reason: str, station: str | None = None) -> Site:
    return Site(site, station, SURROUNDINGS, reason)


def _in_chest(around: _Surroundings) -> bool:
    """At the level of a lung, and nearer to lung or heart than to an abdominal organ."""
    if not len(around.at_level("lungs")):
        return False
    return around.half_within("lungs", "heart") < around.half_within(*ABDOMINAL)


def _neck(around: _Surroundings) -> Site | None:
    """Beside the cervical spine, or above the first thoracic vertebra where no cervical one is labelled."""
    middle, vertebra = around.middle_x(), around.vertebra()
    if middle is None or len(around.at_level("lungs", "skull", "brain")):
        return None
    first = around.points("vertebrae_T1")
    above = not len(around.points("cervical_vertebrae")) and len(first) and around.centre[2] > first[:, 2].max()
    if not (above or vertebra in (*GROUPS["cervical_vertebrae"], "vertebrae_T1")):
        return None
    aside = abs(around.centre[0] - middle)
    bone = around.nearest_point(*CLAVICLES)
    if bone is not None and around.half_within(*CLAVICLES) <= CLAVICLE_MM:
        if aside >= MIDLINE_MM and around.centre[2] >= bone[2]:
            return _guess(NODE, "it lies above the clavicle, beside the midline", "supraclavicular")
        return None
    if MIDLINE_MM <= aside <= NECK_MM:
        return _guess(NODE, f"it lies in the neck, {aside:.0f} mm from the midline", "cervical")
    return None


def _axilla(around: _Surroundings) -> Site | None:
    """In front of the shoulder blade and outside of the chest's wall, at the level of the lungs."""
    if not len(around.at_level("lungs")) or around.half_within(*SCAPULAE) > AXILLA_MM:
        return None
    middle, blade, lung = around.middle_x(), around.nearest_point(*SCAPULAE), around.nearest_point("lungs")
    if middle is None or around.nearest("lungs") < 2 * TOUCHING_MM:  # the ribs and what is between them
        return None
    outside = lung is None or abs(around.centre[0] - middle) > abs(lung[0] - middle)
    if outside and around.centre[1] < blade[1] - MIDLINE_MM and around.half_within(*CLAVICLES) > NEAR_VESSEL_MM:
        return _guess(NODE, "it lies between the shoulder blade and the wall of the chest", "axillary")
    return None


def _groin(around: _Surroundings) -> Site | None:
    """In front of the hip joint: there the femoral vessels lie, 1 to 4 cm before the femur's head."""
    femurs = around.at_level("femurs")
    side = femurs[np.abs(femurs[:, 0] - around.centre[0]) <= GROIN_MM]
    if not len(side) or around.enclosed_by(*CAVITY) or around.nearest(*SEROUS) <= TOUCHING_MM:
        return None
    before = side[:, 1].mean() - around.centre[1]
    if before >= MIDLINE_MM and around.half_within("femurs") <= GROIN_MM:
        return _guess(NODE, f"it lies {before:.0f} mm in front of the hip joint", "inguinal")
    return None


def _diaphragm(around: _Surroundings) -> Site | None:
    """Between the lung above and liver, spleen or stomach below, touching both."""
    above = ("lungs", "heart")
    if max(around.nearest(*above), around.nearest(*SUBPHRENIC)) > TOUCHING_MM:
        return None
    high, low = around.nearest_point(*above), around.nearest_point(*SUBPHRENIC)
    if high is not None and low is not None and high[2] > around.centre[2] > low[2]:
        return _guess("diaphragm", "it touches lung or heart above and an abdominal organ below")
    return None


def _chest(around: _Surroundings) -> Site | None:
    """Mediastinum or hilum, lung, pleura, or the wall of the chest."""
    lateral = [around.lateral_part(side) for side in ("left", "right")]
    if all(part >= BETWEEN_LUNGS for part in lateral) and around.enclosed_by("lungs", "heart", "sternum"):
        distance = around.half_within(*MEDIASTINAL)
        if around.nearest("lungs") <= TOUCHING_MM and around.half_within("pulmonary_vein") <= NEAR_VESSEL_MM:
            return _guess(NODE, "it lies between a lung and its vein", "hilar")
        if distance <= NEAR_VESSEL_MM:
            return _guess(NODE, f"it lies between the lungs, {distance:.0f} mm from airway or vessels", "mediastinal")
        return _guess(MEDIASTINUM, "it lies between the lungs, away from airway and vessels")
    if around.nearest("lungs") <= TOUCHING_MM:
        if any(around.enclosed_by(f"lung_{side}") for side in ("left", "right")):
            return _guess("lung", "lung lies on all sides of it")
        if not around.beyond_the_wall("lungs"):
            return _guess("pleura", "it lies on the lung, which does not go around it")
    if any(math.isnan(part) for part in lateral) or not len(around.at_level("vertebrae")):
        return None
    return _guess(SOFT_TISSUE, "it lies outside of the lungs and not between them")


def _great_vessels(around: _Surroundings) -> Site | None:
    """Half of it along the aorta, the inferior vena cava or the portal vein."""
    distance = around.half_within(*VESSELS_ABDOMEN)
    if distance <= NEAR_VESSEL_MM:
        reason = f"half of it lies within {distance:.0f} mm of aorta or inferior vena cava"
        return _guess(NODE, reason, "retroperitoneal")
    distance = around.half_within("portal_vein_and_splenic_vein")
    if distance <= NEAR_VESSEL_MM / 2:
        return _guess(NODE, f"half of it lies within {distance:.0f} mm of the portal vein", "portal")
    return None


def _pelvic_vessels(around: _Surroundings) -> Site | None:
    """Half of it along the iliac vessels or, where these are not labelled, at the medial border of iliopsoas."""
    if not len(around.at_level("hips", "sacrum")):
        return None
    distance = around.half_within(*VESSELS_PELVIS)
    if distance <= NEAR_VESSEL_MM:
        return _guess(NODE, f"half of it lies within {distance:.0f} mm of the iliac vessels", "iliac")
    middle = around.middle_x()
    if len(around.points(*VESSELS_PELVIS)) or middle is None:
        return None
    side = "left" if around.centre[0] > middle else "right"
    muscle = around.at_level(f"iliopsoas_{side}")
    # The external iliac vessels run along the medial border of the muscle.
    if not len(muscle) or around.half_within(f"iliopsoas_{side}") > NEAR_VESSEL_MM / 2:
        return None
    if abs(around.centre[0] - middle) < abs(muscle[:, 0].mean() - middle) and around.nearest("hips") > TOUCHING_MM:
        return _guess(NODE, "it lies at the medial border of iliopsoas, where the iliac vessels run", "iliac")
    return None


def _psoas(around: _Surroundings) -> Site | None:
    """In the muscle, and at no station beside it."""
    part = around.within(*HALF_SWALLOWING)
    return Site(SOFT_TISSUE, None, ORGAN, f"{part:.0%} of it is in iliopsoas") if part >= 0.5 else None


def _abdomen(around: _Surroundings) -> Site | None:
    """In the cavity of abdomen and pelvis, behind it, or in its wall."""
    # Without spine and bowel nobody knows how far the cavity reaches.
    if not len(around.at_level("vertebrae", "sacrum", "hips")) or not len(around.points("bowel")):
        return None
    lining = (*SEROUS, "kidneys", "adrenal_glands")
    on_an_organ = around.nearest(*lining) <= TOUCHING_MM and not around.beyond_the_wall(*lining)
    if not on_an_organ and not around.enclosed_by(*CAVITY):
        return _guess(SOFT_TISSUE, "it lies outside of the abdominal and pelvic organs")
    # In the pelvis the psoas lies beside the bowel.
    above_pelvis = not len(around.at_level("hips"))
    if above_pelvis and around.half_within(*RETROPERITONEAL) < around.half_within(*SEROUS):
        reason = "it lies nearer to kidney, adrenal gland or psoas than to what peritoneum covers"
        return _guess("retroperitoneum", reason)
    return _guess(PERITONEUM, "it lies in the abdominal or pelvic cavity, away from the great vessels")
