"""Quality checks as traffic lights: what the stages before have remarked, and what is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from theraflow.files import read_json
from theraflow.images import read_sidecar, sidecar_path
from theraflow.layout import PatientFolder, Scan
from theraflow.organs import implausible_organs
from theraflow.registration.emission import ALIGNED, CORRECTED, DOUBTFUL, NO_CT, NOT_CHECKABLE

GOOD, CHECK, BAD, NONE = "good", "check", "bad", "none"
# A light is never told by its colour alone.
VERDICTS: Mapping[str, str] = {"good": GOOD, "check": CHECK, "failed": BAD}
SIGNS: Mapping[str, str] = {GOOD: "✓", CHECK: "!", BAD: "✗", NONE: "–"}


@dataclass(frozen=True)
class Light:
    """One check: its colour, and in words what was found."""

    colour: str
    words: str

    @property
    def sign(self) -> str:
        """The mark inside the light."""
        return SIGNS[self.colour]


@dataclass
class ScanQuality:
    """The checks of one scan, and remarks that need a sentence each."""

    scan: Scan
    image: Light
    ct: Light
    alignment: Light
    organs: Light
    registration: Light
    remarks: list[str] = field(default_factory=list)


def check_scan(folder: PatientFolder, scan: Scan) -> ScanQuality:
    """Read the sidecars of one scan and judge them."""
    remarks: list[str] = []
    return ScanQuality(
        scan,
        _image(folder, scan, remarks),
        _ct(folder, scan, remarks),
        judge_alignment(read_json(folder.emission_check(scan.scan)), remarks),
        _organs(folder, scan, remarks),
        _registration(folder, scan, remarks),
        remarks,
    )


def is_miniature(folder: PatientFolder, scans: Sequence[Scan]) -> bool:
    """Whether the organs of any scan come from the miniature model."""
    paths = [folder.organs(scan.scan) for scan in scans]
    return any(read_sidecar(path).get("miniature_model") for path in paths if sidecar_path(path).is_file())


def _image(folder: PatientFolder, scan: Scan, remarks: list[str]) -> Light:
    sidecar = read_sidecar(folder.emission(scan))
    flags, overrides = sidecar.get("flags") or [], sidecar.get("overrides") or []
    remarks += flags
    if overrides:
        remarks.append(f"Taken from scans.tsv in place of the DICOM header: {', '.join(overrides)}.")
    found = _count(len(flags), "remark")
    if flags or overrides:
        return Light(CHECK, found if flags else "values of the sheet")
    return Light(GOOD, "no remark")


def _ct(folder: PatientFolder, scan: Scan, remarks: list[str]) -> Light:
    if not folder.ct(scan.scan).is_file():
        remarks.append(
            "No CT in the scan's DICOM folder: no organs, no registration by CT, nor what follows from them."
        )
        return Light(NONE, "no CT")
    flags = read_sidecar(folder.ct(scan.scan)).get("flags") or []
    remarks += flags
    return Light(CHECK, _count(len(flags), "remark")) if flags else Light(GOOD, "present")


def judge_alignment(check: Mapping[str, Any], remarks: list[str]) -> Light:
    """The light of a scan's CT on its emission image; what is not good goes to `remarks`.

    Args:
        check: what `theraflow.registration.align_emission` writes: `verdict`, `reason`, and, where the two could be
            compared, `displacement_mean_mm`, `information_before` and `information_after`.
        remarks: sentences of the scan.
    """
    verdict, reason = check["verdict"], check["reason"]
    if verdict == NO_CT:
        return Light(NONE, "no CT")
    if verdict == NOT_CHECKABLE:
        remarks.append(f"Whether CT and emission image lie on each other could not be checked: {reason}.")
        return Light(CHECK, verdict)
    shown = f"{verdict}, {check['displacement_mean_mm']:.0f} mm"
    information = f"mutual information {check['information_before']:.2f} to {check['information_after']:.2f}"
    if verdict == CORRECTED:
        remarks.append(
            f"CT and emission image do not lie on each other: {reason} ({information}). CT and organs were moved "
            "rigidly onto the emission image. If attenuation was corrected by the CT as it lay, uptake is doubtful; "
            "a region that was outlined on the CT has not been moved."
        )
    elif verdict == DOUBTFUL:
        remarks.append(
            f"CT and emission image may not lie on each other: {reason} ({information}). Nothing was moved; look at "
            "the organs on the emission image."
        )
    return Light(GOOD if verdict == ALIGNED else CHECK, shown)


def _organs(folder: PatientFolder, scan: Scan, remarks: list[str]) -> Light:
    if not folder.organs(scan.scan).is_file():
        if folder.ct(scan.scan).is_file():
            remarks.append("No organs: segmentation is switched off in the configuration and none were given.")
        return Light(NONE, "no organs")
    sidecar = read_sidecar(folder.organs(scan.scan))
    flags = sidecar.get("flags") or []
    remarks += flags
    doubtful = implausible_organs(folder.organ_table(scan.scan))
    remarks += [
        f"Organ {organ.replace('_', ' ')} is not plausible: {reason}. It is no background region; a dose of it is "
        "as doubtful as its outline."
        for organ, reason in doubtful.items()
    ]
    if sidecar.get("miniature_model"):
        return Light(BAD, "miniature model")
    if doubtful:
        return Light(CHECK, f"{len(doubtful)} not plausible")
    return Light(CHECK, _count(len(flags), "remark")) if flags else Light(GOOD, "present")


def _registration(folder: PatientFolder, scan: Scan, remarks: list[str]) -> Light:
    path = folder.registration_quality(scan.scan)
    if not path.is_file():
        remarks.append("Not registered: lesions of this scan could not be matched with those of others.")
        return Light(BAD, "not registered")
    return judge_registration(read_json(path), remarks)


def judge_registration(quality: Mapping[str, Any], remarks: list[str]) -> Light:
    """The light of a registration by its own `verdict`; its reason and what is not good go to `remarks`.

    Args:
        quality: what `theraflow.registration.judge` writes: `verdict` (good, check or failed), `method`,
            `reason`, measures by name, and `limits` (by measure: good_from, good_to, failed_below,
            failed_above).
        remarks: sentences of the scan.
    """
    remarks += [str(quality[key]) for key in ("reason", "doubt") if quality.get(key)]
    for name, limit in quality.get("limits", {}).items():
        value = quality[name]
        good = value is not None and (value >= limit.get("good_from", np.inf) or value <= limit.get("good_to", -np.inf))
        if not good:
            shown = "not measured" if value is None else f"{value:.3g}"
            wanted = ", ".join(f"{word.replace('_', ' ')} {bound:g}" for word, bound in limit.items())
            remarks.append(f"Registration: {name.replace('_', ' ')} {shown} ({wanted}).")
    verdict = str(quality["verdict"])
    return Light(VERDICTS[verdict], f"{verdict}, {quality['method'].partition(':')[0]}")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
