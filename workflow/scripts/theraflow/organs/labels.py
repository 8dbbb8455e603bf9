"""Names and numbers of organs: those of TotalSegmentator's task `total`, and groups of them."""

import re
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from theraflow.errors import TheraflowError

# TotalSegmentator 2, class_map["total"] (Wasserthal et al., Radiol Artif Intell 2023;5:e230024); the first
# name is label 1. Written down here because importing TotalSegmentator takes seconds.
_NAMES = tuple(
    """
    spleen kidney_right kidney_left gallbladder liver stomach pancreas adrenal_gland_right
    adrenal_gland_left lung_upper_lobe_left lung_lower_lobe_left lung_upper_lobe_right
    lung_middle_lobe_right lung_lower_lobe_right esophagus trachea thyroid_gland small_bowel duodenum
    colon urinary_bladder prostate kidney_cyst_left kidney_cyst_right sacrum vertebrae_S1 vertebrae_L5
    vertebrae_L4 vertebrae_L3 vertebrae_L2 vertebrae_L1 vertebrae_T12 vertebrae_T11 vertebrae_T10
    vertebrae_T9 vertebrae_T8 vertebrae_T7 vertebrae_T6 vertebrae_T5 vertebrae_T4 vertebrae_T3
    vertebrae_T2 vertebrae_T1 vertebrae_C7 vertebrae_C6 vertebrae_C5 vertebrae_C4 vertebrae_C3
    vertebrae_C2 vertebrae_C1 heart aorta pulmonary_vein brachiocephalic_trunk subclavian_artery_right
    subclavian_artery_left common_carotid_artery_right common_carotid_artery_left
    brachiocephalic_vein_left brachiocephalic_vein_right atrial_appendage_left superior_vena_cava
    inferior_vena_cava portal_vein_and_splenic_vein iliac_artery_left iliac_artery_right iliac_vena_left
    iliac_vena_right humerus_left humerus_right scapula_left scapula_right clavicula_left clavicula_right
    femur_left femur_right hip_left hip_right spinal_cord gluteus_maximus_left gluteus_maximus_right
    gluteus_medius_left gluteus_medius_right gluteus_minimus_left gluteus_minimus_right autochthon_left
    autochthon_right iliopsoas_left iliopsoas_right brain skull rib_left_1 rib_left_2 rib_left_3
    rib_left_4 rib_left_5 rib_left_6 rib_left_7 rib_left_8 rib_left_9 rib_left_10 rib_left_11 rib_left_12
    rib_right_1 rib_right_2 rib_right_3 rib_right_4 rib_right_5 rib_right_6 rib_right_7 rib_right_8
    rib_right_9 rib_right_10 rib_right_11 rib_right_12 sternum costal_cartilages
    """.split()  # noqa: SIM905 one name after the other reads better than 117 quoted ones
)

ORGAN_IDS: dict[str, int] = {name: label for label, name in enumerate(_NAMES, start=1)}


def _starting(*prefixes: str) -> tuple[str, ...]:
    return tuple(name for name in _NAMES if name.startswith(prefixes))


def _pair(name: str) -> tuple[str, str]:
    return f"{name}_left", f"{name}_right"


_BONES = (
    "vertebrae_",
    "sacrum",
    "humerus",
    "scapula",
    "clavicula",
    "femur",
    "hip",
    "skull",
    "rib_",
    "sternum",
)

GROUPS: dict[str, tuple[str, ...]] = {
    "adrenal_glands": _pair("adrenal_gland"),
    "kidneys": _pair("kidney"),  # parenchyma; cysts have labels of their own
    "lung_left": ("lung_upper_lobe_left", "lung_lower_lobe_left"),
    "lung_right": ("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
    "lungs": _starting("lung_"),
    "bowel": ("small_bowel", "duodenum", "colon"),
    "cervical_vertebrae": _starting("vertebrae_C"),
    "thoracic_vertebrae": _starting("vertebrae_T"),
    "lumbar_vertebrae": _starting("vertebrae_L"),
    "vertebrae": _starting("vertebrae_"),
    "ribs": _starting("rib_"),
    "femurs": _pair("femur"),
    "hips": _pair("hip"),
    "humeri": _pair("humerus"),
    "skeleton": _starting(*_BONES),
    "gluteus_maximus": _pair("gluteus_maximus"),
    "iliac_arteries": _pair("iliac_artery"),
}


def organ_labels(*names: str) -> list[int]:
    """The label numbers of organs and groups, sorted.

    Args:
        names: organs as in `ORGAN_IDS` (`kidney_left`) or groups as in `GROUPS` (`kidneys`).

    Raises:
        TheraflowError: no organ and no group has that name.
    """
    labels: set[int] = set()
    for name in names:
        if name not in ORGAN_IDS and name not in GROUPS:
            raise TheraflowError(
                f"There is no organ {name!r}; use a name of TotalSegmentator's task total (as kidney_left) "
                f"or one of the groups {', '.join(GROUPS)}."
            )
        labels.update(ORGAN_IDS[organ] for organ in GROUPS.get(name, (name,)))
    return sorted(labels)


def refuse_missing_organs(only: Collection[str], needed: Mapping[str, Collection[str]]) -> None:
    """Refuse a choice of organs that leaves out one which another part of the configuration names.

    Args:
        only: organs and groups that are segmented; none means all.
        needed: the organs and groups that each part of the configuration names, by the part.

    Raises:
        TheraflowError: one is left out, or no organ and no group has that name.
    """
    chosen = set(organ_labels(*only))
    for part, names in needed.items():
        for name in names:
            if only and not chosen.issuperset(organ_labels(name)):
                raise TheraflowError(f"organs: only in the config leaves out {name}, which {part} names; add it there.")


def organ_mask(labels: np.ndarray, *names: str) -> np.ndarray:
    """Where `labels` is one of the named organs.

    Args:
        labels: label map of any shape, uint8 with the numbers of `ORGAN_IDS`.
        names: organs or groups; their union is taken.

    Returns:
        bool array of the same shape.

    Raises:
        TheraflowError: no organ and no group has that name.
    """
    wanted = np.zeros(256, dtype=bool)
    wanted[organ_labels(*names)] = True
    return wanted[labels]


def label_names(labels: Iterable[int] | None = None) -> dict[str, str]:
    """`{"1": "spleen", ...}` as sidecars hold it, for all labels or for those given."""
    numbers = range(1, len(_NAMES) + 1) if labels is None else labels
    return {str(label): _NAMES[label - 1] for label in numbers}


# How radiotherapy (AAPM TG-263, Mayo et al. 2018) and other segmentation programs write words of organ names, and
# whole names, without their side, that have other words than TotalSegmentator's.
_WORDS = {
    "l": "left", "lt": "left", "r": "right", "rt": "right", "vb": "vertebrae", "vertebra": "vertebrae",
    "oesophagus": "esophagus", "clavicle": "clavicula",
}  # fmt: skip
_OTHER_NAMES = {
    "A_Aorta": "aorta", "Adrenal": "adrenal_gland", "Bladder": "urinary_bladder", "Bowel_Small": "small_bowel",
    "Glnd_Adrenal": "adrenal_gland", "Glnd_Thyroid": "thyroid_gland", "SpinalCord": "spinal_cord",
    "Thyroid": "thyroid_gland", "V_Venacava_I": "inferior_vena_cava", "V_Venacava_S": "superior_vena_cava",
}  # fmt: skip
_HALVES = {"left", "right"}


def _words(name: str) -> frozenset[str]:
    """The words of a name in whatever order: `L Kidney` is `kidney_left`."""
    return frozenset(_WORDS.get(word, word) for word in re.split(r"[\s_-]+", name.strip().lower()))


_BY_WORDS = {_words(name): name for name in _NAMES}
_BY_OTHER_NAME = {_words(other): _words(name) for other, name in _OTHER_NAMES.items()}


def organ_called(name: str, names: Mapping[str, str]) -> str | None:
    """The organ that a region of a label map, SEG or RTSTRUCT stands for.

    Args:
        name: what the region is called there: by one of `names`, else by the words of an organ in any order, with
            L and R for left and right (`Kidney_L`, `Left Kidney`), or by a name of TG-263 that has other words
            (`Glnd_Adrenal_R`, `VB_L1`, `A_Aorta`). Case does not matter. No part of a name is enough: `Liver_GTV` is
            no liver.
        names: organ (as in `ORGAN_IDS`) by the name that somebody gives it.

    Returns:
        The organ, or None where the name is that of no organ.
    """
    own = {other.strip().lower(): organ for other, organ in names.items()}
    if name.strip().lower() in own:
        return own[name.strip().lower()]
    words = _words(name)
    side = words & _HALVES
    return _BY_WORDS.get(_BY_OTHER_NAME.get(words - side, words - side) | side)
