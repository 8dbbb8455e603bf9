"""What an uptake is divided by: body weight, lean body mass, ideal body weight or body surface."""

from dataclasses import dataclass

from theraflow.dicom.export.header import tag_name
from theraflow.dicom.quantity.stated import OVERRIDES, Facts
from theraflow.errors import TheraflowError


@dataclass(frozen=True)
class Normalisation:
    """A kind of SUV beside that by body weight.

    Attributes:
        quantity: its name in sidecars; `unit`: its unit; `divisor`: what it is divided by, in words.
        needs: facts besides the weight.
    """

    quantity: str
    unit: str
    divisor: str
    needs: tuple[str, ...]


# By SUVType (0054,1006).
NORMALISATIONS = {
    "LBMJANMA": Normalisation(
        "SUL (Janmahasatian)", "g/mL", "lean body mass (Janmahasatian)", ("height_m", "PatientSex")
    ),
    "LBMJAMES128": Normalisation("SUL (James)", "g/mL", "lean body mass (James, 128)", ("height_m", "PatientSex")),
    "LBM": Normalisation("SUL (Morgan)", "g/mL", "lean body mass (Morgan, 120)", ("height_m", "PatientSex")),
    "IBW": Normalisation("SUVibw", "g/mL", "ideal body weight", ("height_m", "PatientSex")),
    "BSA": Normalisation("SUVbsa", "cm2/mL", "body surface (Du Bois)", ("height_m",)),
}


def normal_mass_kg(kind: str, weight_kg: float, height_m: float, sex: str) -> float:
    """Lean body mass or ideal body weight in kg, by SUVType (0054,1006).

    LBM: Morgan as in DICOM, with 120 for men; LBMJAMES128: James 1976; LBMJANMA: Janmahasatian 2005; IBW. Sex
    O is the mean of both (the manual; Sugawara 1999).

    Raises:
        TheraflowError: weight and height lie outside what the formula is for.
    """
    mass = _mass_kg(kind, weight_kg, height_m, sex)
    if mass <= 0.0:
        raise TheraflowError(
            f"The {NORMALISATIONS[kind].divisor} of a person of {weight_kg:g} kg and {height_m * 100:g} cm would be "
            f"{mass:.3g} kg; correct weight_kg or height_cm in scans.tsv."
        )
    return mass


def _mass_kg(kind: str, weight_kg: float, height_m: float, sex: str) -> float:
    if sex == "O":
        return sum(_mass_kg(kind, weight_kg, height_m, one) for one in "MF") / 2.0
    male, height_cm = sex == "M", height_m * 100.0
    if kind == "IBW":
        return 48.0 + 1.06 * (height_cm - 152.0) if male else 45.5 + 0.91 * (height_cm - 152.0)
    if kind == "LBMJANMA":
        bmi = weight_kg / height_m**2
        return 9270.0 * weight_kg / (6680.0 + 216.0 * bmi if male else 8780.0 + 244.0 * bmi)
    square = (weight_kg / height_cm) ** 2
    if not male:
        return 1.07 * weight_kg - 148.0 * square
    return 1.10 * weight_kg - (120.0 if kind == "LBM" else 128.0) * square


def body_surface_cm2(weight_kg: float, height_m: float) -> float:
    """Body surface by Du Bois 1916 in cm2."""
    return 71.84 * weight_kg**0.425 * (height_m * 100.0) ** 0.725


def from_body_weight(kind: str, weight_kg: float, height_m: float, sex: str | None) -> float:
    """What SUV by body weight (g/mL) has to be multiplied by to become the SUV of `kind`, in its own unit.

    Raises:
        TheraflowError: as `normal_mass_kg`.
    """
    if kind == "BSA":
        return body_surface_cm2(weight_kg, height_m) / (weight_kg * 1000.0)
    return normal_mass_kg(kind, weight_kg, height_m, sex) / weight_kg


def normalisations(facts: Facts) -> dict[str, dict[str, str | float | None]]:
    """For each kind of SUV the factor from SUV by body weight; where there is none it is None, with the reason.

    Returns:
        SUVType -> `quantity`, `unit`, `factor`, `reason`.
    """
    out = {}
    for kind, normalisation in NORMALISATIONS.items():
        factor, reason = None, None
        lacking = [name for name in ("weight_kg", *normalisation.needs) if name in facts.missing]
        if lacking:
            tags = (tag + (f" [{OVERRIDES[name]}]" if name in OVERRIDES else "")
                    for name in lacking for tag in facts.missing[name])  # fmt: skip
            reason = f"missing: {', '.join(tags)}"
        else:
            try:
                factor = from_body_weight(kind, facts.weight_kg, facts.height_m, facts.sex)
            except TheraflowError as error:
                reason = str(error)
        out[kind] = {"quantity": normalisation.quantity, "unit": normalisation.unit, "factor": factor, "reason": reason}
    return out


def refuse_unknown_kind(kind: str) -> None:
    """Raise where `kind` is no SUVType that an image can be turned to."""
    if kind not in NORMALISATIONS:
        raise TheraflowError(f"{kind} is no kind of SUV; {tag_name('SUVType')} may be {', '.join(NORMALISATIONS)}.")
