"""What an uptake is divided by: body weight, lean body mass, ideal body weight or body surface."""

NORMALISED_BY = {
    "LBM": "lean body mass (Morgan, 120)",
    "LBMJAMES128": "lean body mass (James, 128)",
    "LBMJANMA": "lean body mass (Janmahasatian)",
    "IBW": "ideal body weight",
}


def normal_mass_kg(kind: str, weight_kg: float, height_m: float, sex: str) -> float:
    """Lean body mass or ideal body weight in kg, by SUVType (0054,1006).

    LBM: Morgan as in DICOM, with 120 for men; LBMJAMES128: James 1976; LBMJANMA: Janmahasatian 2005; IBW. Sex
    O is the mean of both (the manual; Sugawara 1999).
    """
    if sex == "O":
        return sum(normal_mass_kg(kind, weight_kg, height_m, one) for one in "MF") / 2.0
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
