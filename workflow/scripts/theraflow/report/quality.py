"""Quality checks as traffic lights: what the stages before have remarked, and what is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from theraflow.files import read_json
from theraflow.images import read_sidecar, sidecar_path
from theraflow.layout import PatientFolder, Scan
from theraflow.organs import implausible_organs
from theraflow.registration.outcome import ALIGNED, CORRECTED, DOUBTFUL, NO_CT, NOT_CHECKABLE
from theraflow.report.display import count

GOOD, CHECK, BAD, NONE = "good", "check", "bad", "none"
# A light is never told by its colour alone.
VERDICTS: Mapping[str, str] = {"good": GOOD, "check": CHECK, "failed": BAD}
SIGNS: Mapping[str, str] = {GOOD: "✓", CHECK: "!", BAD: "✗", NONE: "–"}
SPOKEN: Mapping[str, str] = {GOOD: "good", CHECK: "to look at", BAD: "not good", NONE: "does not apply"}
WORST_FIRST = (BAD, CHECK, GOOD, NONE)
NAMED = 3  # so many scans are named in a light of several; of more their number is told
# What `doses.tsv` says of a curve that passes all gates, and of one whose parameters are correlated.
CURVE_GOOD, CORRELATED = "good", "correlation of "


@dataclass(frozen=True)
class Light:
    """One check: its colour, and in words what was found."""

    colour: str
    words: str

    @property
    def sign(self) -> str:
        """The mark inside the light."""
        return SIGNS[self.colour]

    @property
    def spoken(self) -> str:
        """The mark for those who hear the page."""
        return SPOKEN[self.colour]


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
    if scan.planar:  # no volume: CT and regions are those of another scan
        none = Light(NONE, "planar")
        return ScanQuality(scan, _image(folder, scan, remarks), none, none, none, none, remarks)
    return ScanQuality(
        scan,
        _image(folder, scan, remarks),
        _ct(folder, scan, remarks),
        judge_alignment(read_json(folder.emission_check(scan.scan)), remarks),
        _organs(folder, scan, remarks),
        _registration(folder, scan, remarks),
        remarks,
    )


def remarks_of(checks: Sequence[ScanQuality]) -> list[tuple[str, str]]:
    """Every remark once, with the scans that it concerns before it."""
    scans: dict[str, list[str]] = {}
    for check in checks:
        for sentence in check.remarks:
            scans.setdefault(sentence, []).append(check.scan.scan)
    return [(", ".join(names), sentence) for sentence, names in scans.items()]


def summarise(
    checks: Sequence[ScanQuality],
    lesions: pd.DataFrame,
    unsearched: int,
    doses: pd.DataFrame,
    plan: pd.DataFrame,
    response: pd.DataFrame,
) -> list[tuple[str, Light]]:
    """All checks of a patient, each as one light: the worst of its scans, lesions or regions.

    Args:
        checks: of every scan.
        lesions: `lesions.tsv`.
        unsearched: number of scans in which nobody has looked for lesions.
        doses, plan, response: the tables of these names; empty where the patient has none.

    Returns:
        Name of the check and its light, in the order of the stages.
    """
    by_scan = [
        (name, together([(check.scan.scan, getattr(check, part)) for check in checks]))
        for name, part in (
            ("Header and SUV", "image"), ("CT", "ct"), ("CT on emission", "alignment"), ("Organs", "organs"),
            ("Registration", "registration"),
        )
    ]  # fmt: skip
    return [
        *by_scan,
        ("Identity of lesions", _identity(lesions, unsearched)),
        ("Dosimetry curves", _curves(doses)),
        ("Dose limits", _limits(plan)),
        ("Comparable scans", _comparable(response)),
    ]


def together(lights: Sequence[tuple[str, Light]]) -> Light:
    """One light for several scans: the colour of the worst, and which ones have it.

    Args:
        lights: name of the scan, and its light.
    """
    colours = {light.colour for _, light in lights}
    worst = next(colour for colour in WORST_FIRST if colour in colours)
    same = [(name, light.words) for name, light in lights if light.colour == worst]
    told = list(dict.fromkeys(words for _, words in same))
    which = f"all {len(lights)} scans" if len(lights) > 1 else lights[0][0]
    if len(same) < len(lights):
        which = ", ".join(name for name, _ in same) if len(same) <= NAMED else f"{len(same)} of {len(lights)} scans"
    if worst == GOOD:  # measures of each scan are in its own row
        told = list(dict.fromkeys(words.partition(",")[0] for words in told))
    return Light(worst, f"{which}: {'; '.join(told[:2])}{'; …' if len(told) > 2 else ''}")


def _identity(lesions: pd.DataFrame, unsearched: int) -> Light:
    if unsearched:
        return Light(CHECK, f"{count(unsearched, 'scan')} not searched for lesions")
    if lesions.empty:
        return Light(NONE, "no lesion")
    doubtful = lesions.loc[lesions["look"].notna(), "lesion"].nunique()
    return Light(CHECK, f"{count(doubtful, 'lesion')} to look at") if doubtful else Light(GOOD, "no doubt remarked")


def _curves(doses: pd.DataFrame) -> Light:
    if doses.empty:
        return Light(NONE, "no dosimetry")
    judged = doses.drop_duplicates("region").dropna(subset="quality")
    if judged.empty:
        return Light(NONE, "not judged")
    good = int(judged["quality"].map(_passes).sum())
    apart = ", correlations apart" if judged["quality"].str.contains(CORRELATED).any() else ""
    words = f"{good} of {count(len(judged), 'curve')} pass all gates{apart}"
    return Light(GOOD if good == len(judged) else CHECK, words)


def _passes(quality: str) -> bool:
    """Whether a curve passes all gates but that of correlation, which the times of the scans decide alone."""
    return all(gate == CURVE_GOOD or gate.startswith(CORRELATED) for gate in quality.split("; "))


def _limits(plan: pd.DataFrame) -> Light:
    limited = plan[plan["limit_gy"].notna()]
    if limited.empty:
        return Light(NONE, "none configured" if len(plan) else "no plan")
    for colour, what, concerned in (
        (BAD, "reached", limited["max_activity_gbq"] <= 0.0),
        (CHECK, "not known", limited["max_activity_gbq"].isna()),
        (CHECK, "may be reached (above 5 %)", limited["max_activity_95_gbq"] <= 0.0),
    ):
        if concerned.any():
            regions = limited.loc[concerned, "region"].unique()  # one may have several limits
            return Light(colour, f"{what}: {', '.join(regions).replace('_', ' ')}")
    return Light(GOOD, f"room below {count(len(limited), 'limit')}")


def _comparable(response: pd.DataFrame) -> Light:
    told = response["comparable"].dropna()
    if told.empty:
        return Light(NONE, "nothing to compare")
    if "no" in set(told):
        return Light(BAD, "no, see Response")
    return Light(CHECK, "not fully known, see Response") if "unknown" in set(told) else Light(GOOD, "yes")


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
    found = count(len(flags), "remark")
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
    return Light(CHECK, count(len(flags), "remark")) if flags else Light(GOOD, "present")


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
    return Light(CHECK, count(len(flags), "remark")) if flags else Light(GOOD, "present")


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
