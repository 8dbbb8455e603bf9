"""How each printed number follows from the printed sheets: the convention in words, and the computation.

A formula takes the sentence of the paper at its word. Where another reading is possible, or a convention decides
(sample or population standard deviation, which lines of therapy count, how long a month is), it is computed beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import pandas as pd

from theraflow.cohort.expression import INTENSITIES
from theraflow.cohort.reproduction import quantities as of
from theraflow.cohort.reproduction.study import Study

Other = tuple[str, Callable[[Study], float]]
Values = Callable[[Study], pd.Series]


@dataclass(frozen=True)
class Formula:
    """How a number is computed.

    Attributes:
        text: in words, with its convention.
        compute: from the sheets.
        others: other readings or conventions, in words and computed.
    """

    text: str
    compute: Callable[[Study], float | str]
    others: tuple[Other, ...] = ()


class Statistic(Enum):
    """What is told of several values: in words, and the method of a pandas series."""

    MEAN = ("mean", "mean")
    SD = ("sample standard deviation (n - 1)", "std")
    MEDIAN = ("median (mean of the two in the middle where n is even)", "median")
    LOWEST = ("smallest", "min")
    HIGHEST = ("largest", "max")

    def of(self, values: Values) -> Callable[[Study], float]:
        """The statistic as a function of the sheets."""
        return lambda study: float(values(study).agg(self.value[1]))


MEAN, SD, MEDIAN, LOWEST, HIGHEST = Statistic


def _values(name: str, values: Values, statistic: Statistic, *others: Other) -> Formula:
    return Formula(f"{statistic.value[0]} of {name}", statistic.of(values), others)


def _population_sd(values: Values) -> Other:
    return "population standard deviation (n)", lambda study: float(values(study).std(ddof=0))


def _patients(words: str, select: Callable[[pd.DataFrame], pd.Series], *others: Other) -> Formula:
    return Formula(f"count of patients: {words}", lambda study: int(select(study.patients).sum()), others)


def _is(column: str, value: str) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda patients: patients[column] == value


def _months(statistic: Statistic) -> Formula:
    name = "(survival from first chemotherapy in months) - (survival from first endoradiotherapy in days) / 30"
    return _values(
        name,
        of.months_to_therapy,
        statistic,
        ("with months of 30.44 days", statistic.of(of.mean_months_to_therapy)),
    )


def _discordant_patients(group: str, tracer: str) -> Formula:
    return Formula(
        f"sum of the patients named, at most as many as lesions: {tracer} minus positive on both",
        lambda study: min(of.patients_named(study, group), of.positive_alone(study, tracer)),
    )


def _discordant_lesions(tracer: str) -> Formula:
    return Formula(f"{tracer} minus positive on both", lambda study: of.positive_alone(study, tracer))


def _both_and_named(*groups: str) -> Callable[[Study], float]:
    return lambda study: study.count("positive on both") + sum(of.named_discordant(study, group) for group in groups)


def _all_but_those_of(other: str, group: str) -> Formula:
    return Formula(
        f"all minus ({other} minus positive on both)",
        lambda study: study.count("all") - of.positive_alone(study, other),
        (("positive on both plus the discordant ones named", _both_and_named(group)),),
    )


def _detected(tracer: str) -> Formula:
    return Formula(
        f"{tracer} lesions over all lesions, in percent", lambda study: 100 * study.count(tracer) / study.count("all")
    )


def _grade(parameter: str, statistic: Statistic) -> Formula:
    return _values(
        "the worst grades of the patients with myeloablative activity",
        lambda study: of.worst_grades(study, parameter),
        statistic,
        ("by cycle", statistic.of(lambda study: of.grades_of_cycles(study, parameter))),
    )


def _units(parameter: str) -> Formula:
    return _values(
        "the units in all cycles of the patients with myeloablative activity",
        lambda study: of.units_of_patients(study, parameter),
        MEAN,
        ("a cycle with myeloablative activity", MEAN.of(lambda study: of.units_of_cycles(study, parameter))),
        ("a treated patient, P001 too", MEAN.of(lambda study: of.units_of_treated(study, parameter))),
    )


SEVERE = Formula(
    "count of patients with AST, bilirubin or creatinine of grade 3 or more in a cycle (Table 2)",
    of.severe_nonhaematologic,
    (
        (
            "without those that Table 2 calls pre-existing",
            lambda study: of.severe_nonhaematologic(study, preexisting=False),
        ),
    ),
)
KNOWN_LESIONS = "by the known lesions alone, as a footnote of Table 3 has P002 (PR)"


def _responding(words: str, patients: Values) -> Formula:
    return Formula(
        f"count of {words} whose PERCIST is CR or PR (Table 3)",
        lambda study: of.responders(patients(study), study, "percist"),
        ((KNOWN_LESIONS, lambda study: of.responders(patients(study), study, "percist_known_lesions")),),
    )


def _not_responding(column: str) -> Callable[[Study], float]:
    return lambda study: len(study.treated) - of.responders(study.treated["patient"], study, column)


TREATED = _patients("ERT yes in Table 1", _is("endoradiotherapy", "yes"))
CYCLES = Formula("count of the columns of Table 2", lambda study: len(study.cycles))
CYCLES_OF_PATIENT_2 = Formula(
    "count of the columns of patient 2 in Table 2", lambda study: int((study.cycles["patient"] == "P002").sum())
)
EXAMINED = Formula(
    "count of patients with a percentage in Table 1", lambda study: study.expression["patient"].nunique()
)
STABLE = Formula("count of patients with RECIST SD in Table 3", of.stable_patients)
DEATH_OF_PATIENT_2 = Formula(
    "days from the second cycle to death, footnote of Table 3", lambda study: of.day_of_death(study, "P002", 2)
)
COEFFICIENT = "greatest tumour dose over activity, one value a cycle"
ACTIVITY = "activity, one value a cycle"
LINES = "lines, previous high-dose chemotherapy counted as one"
BIOPSIES = "first biopsies above 0 %"

METHODS = {
    "patients": Formula("count of the rows of Table 1", lambda study: len(study.patients)),
    "age at diagnosis, median": _values("age", of.ages, MEDIAN),
    "age at diagnosis, lowest": _values("age", of.ages, LOWEST),
    "age at diagnosis, highest": _values("age", of.ages, HIGHEST),
    "patients with confirmed DSRCT": _patients("EWSR1-WT1 positive", _is("ewsr1_wt1", "positive")),
    "patients with undifferentiated sarcoma": _patients("EWSR1-WT1 negative", _is("ewsr1_wt1", "negative")),
    "patients of stage II": _patients("stage II", _is("stage", "II")),
    "patients of stage III": _patients("stage III", _is("stage", "III")),
    "patients of stage IV": _patients("stage IV", _is("stage", "IV")),
    "patients of stage IV with liver metastases": _patients(
        "stage IV with LV among the sites",
        lambda patients: (patients["stage"] == "IV") & patients["sites"].str.split().map(lambda sites: "LV" in sites),
    ),
    "patients treated": TREATED,
    "therapy cycles": CYCLES,
    "biopsies examined": Formula("count of the percentages of Table 1", lambda study: len(study.expression)),
    "patients with biopsies": EXAMINED,
    "steps of the intensity of expression": Formula("count of the intensities 0 to 3", lambda _: len(INTENSITIES)),
}
COHORT = {
    "patients with induction chemotherapy": _patients(
        "one previous line or more", lambda patients: patients["prior_lines"] >= 1
    ),
    "patients with high-dose chemotherapy before": _patients("HD-CT yes", _is("high_dose", "before")),
    "patients with high-dose chemotherapy together with endoradiotherapy": _patients(
        "HD-CT yes (with ERT)", _is("high_dose", "with endoradiotherapy")
    ),
    "previous lines of therapy, median": _values(
        LINES, of.lines, MEDIAN, ("without high-dose chemotherapy", MEDIAN.of(of.lines_without_high_dose))
    ),
    "previous lines of therapy, fewest": _values(LINES, of.lines, LOWEST),
    "previous lines of therapy, most": _values(LINES, of.lines, HIGHEST),
    "patients with debulking surgery before imaging": _patients(
        "CRS yes, without the mark 'after diagnostic CXCR4 PET'",
        of.surgery_before_imaging,
        ("before or after", lambda study: int((study.patients["surgery"] == "yes").sum())),
    ),
    "patients with HIPEC at a surgery before imaging": _patients(
        "HIPEC at a CRS without the mark 'after diagnostic CXCR4 PET'",
        lambda patients: of.surgery_before_imaging(patients) & (patients["hipec"] == "yes"),
        ("before or after", lambda study: int((study.patients["hipec"] == "yes").sum())),
    ),
    "patients with radiotherapy before imaging": _patients("focal RT", _is("radiotherapy", "yes")),
    "first therapy to endoradiotherapy, median": _months(MEDIAN),
    "first therapy to endoradiotherapy, shortest": _months(LOWEST),
    "first therapy to endoradiotherapy, longest": _months(HIGHEST),
    "cycles of patient 2": CYCLES_OF_PATIENT_2,
}
PET = {
    "patients with FDG-positive, CXCR4-negative lesions": _discordant_patients("FDG alone", "FDG-positive"),
    "FDG-positive, CXCR4-negative lesions, sum of those named": _discordant_lesions("FDG-positive"),
    "patients with FDG-negative, CXCR4-positive lesions": _discordant_patients("CXCR4 alone", "CXCR4-positive"),
    "FDG-negative, CXCR4-positive lesions, sum of those named": _discordant_lesions("CXCR4-positive"),
    "lesions": Formula(
        "FDG-positive plus CXCR4-positive minus positive on both",
        lambda study: study.count("FDG-positive") + of.positive_alone(study, "CXCR4-positive"),
    ),
    "lesions, from the concordant and the discordant ones named": Formula(
        "positive on both plus the discordant lesions named, patients times lesions of each",
        _both_and_named("FDG alone", "CXCR4 alone"),
    ),
    "lesions with FDG uptake": _all_but_those_of("CXCR4-positive", "FDG alone"),
    "lesions with FDG uptake, of all": _detected("FDG-positive"),
    "lesions with CXCR4 uptake": _all_but_those_of("FDG-positive", "CXCR4 alone"),
    "lesions with CXCR4 uptake, of all": _detected("CXCR4-positive"),
    "lesions with both": Formula(
        "FDG-positive plus CXCR4-positive minus all",
        lambda study: study.count("FDG-positive") + study.count("CXCR4-positive") - study.count("all"),
        (
            (
                "all minus the discordant ones named",
                lambda study: (
                    study.count("all")
                    - of.named_discordant(study, "FDG alone")
                    - of.named_discordant(study, "CXCR4 alone")
                ),
            ),
        ),
    ),
}
DOSIMETRY = {
    "patients not eligible after PET": Formula(
        "all minus those treated and those left out for another reason",
        lambda study: (
            len(study.patients)
            - len(study.treated)
            - int((~study.selection["reason"].str.startswith("not eligible")).sum())
        ),
    ),
    "dose coefficient of tumours, mean": _values(
        COEFFICIENT,
        of.dose_coefficients,
        MEAN,
        ("first cycles alone", MEAN.of(of.dose_coefficients_of_first_cycles)),
    ),
    "dose coefficient of tumours, sd": _values(
        COEFFICIENT,
        of.dose_coefficients,
        SD,
        _population_sd(of.dose_coefficients),
        ("first cycles alone", SD.of(of.dose_coefficients_of_first_cycles)),
    ),
    "dose coefficient of tumours, lowest": _values(COEFFICIENT, of.dose_coefficients, LOWEST),
    "dose coefficient of tumours, highest": _values(COEFFICIENT, of.dose_coefficients, HIGHEST),
}
SAFETY = {
    "patients treated, again in Results": Formula(
        "count of patients in Table 2", lambda study: study.cycles["patient"].nunique()
    ),
    "therapy cycles, again in Results": CYCLES,
    "therapy activity, mean": _values(ACTIVITY, of.activities, MEAN),
    "therapy activity, sd": _values(ACTIVITY, of.activities, SD, _population_sd(of.activities)),
    "therapy activity, lowest": _values(ACTIVITY, of.activities, LOWEST),
    "therapy activity, highest": _values(ACTIVITY, of.activities, HIGHEST),
    "patients with severe nonhaematologic adverse effects (grade 3 or more)": SEVERE,
    "day of stem cell rescue": Formula("the day of all cycles with stem cells in Table 3", of.day_of_rescue),
    "half-lives of 90Y until stem cell rescue": Formula(
        "day of stem cell rescue over the half-life of 90Y (64.1 h, ICRP 107)", of.half_lives_to_rescue
    ),
    "neutropenia, lowest worst grade after myeloablative activity": _grade("neutrophils", LOWEST),
    "neutropenia, highest worst grade": _grade("neutrophils", HIGHEST),
    "patients with febrile neutropenia": Formula(
        "count of patients with febrile neutropenia in a cycle",
        lambda study: of.patients_with(study, "febrile_neutropenia"),
    ),
    "thrombocytopenia, lowest worst grade after myeloablative activity": _grade("platelets", LOWEST),
    "platelet concentrates a patient": _units("platelet_concentrates"),
    "anaemia, lowest worst grade after myeloablative activity": _grade("haemoglobin", LOWEST),
    "anaemia, highest worst grade": _grade("haemoglobin", HIGHEST),
    "red cell concentrates a patient": _units("red_cell_concentrates"),
    "patients who died of the therapy": Formula(
        "count of patients with death in less than 3 months in Table 2",
        lambda study: of.patients_with(study, "death_within_3_months"),
    ),
    "cycles before the death of patient 2": CYCLES_OF_PATIENT_2,
    "day on which patient 2 died, counted from the second cycle": DEATH_OF_PATIENT_2,
}
EFFICACY = {
    "patients with metabolic response after myeloablative activity": _responding(
        "patients with stem cells planned", lambda study: study.myeloablative["patient"]
    ),
    "patients with stable disease by RECIST": STABLE,
    "PERCIST of patient 2": Formula("Table 3, first cycle", lambda study: of.percist_of(study, "P002", 1)),
    "death of patient 2 after the second cycle": DEATH_OF_PATIENT_2,
    "patients without metabolic response": Formula(
        "count of treated patients whose PERCIST is neither CR nor PR (Table 3)",
        _not_responding("percist"),
        ((KNOWN_LESIONS, _not_responding("percist_known_lesions")),),
    ),
    "progression-free survival, median": Formula(
        "Kaplan-Meier median of Table 3; where the curve lies at one half, the midpoint of that step",
        of.median_progression_free_days,
        (
            ("lower end of that step", lambda study: float(of.progression_free_days(study).quantile(0.5, "lower"))),
            ("upper end of that step", lambda study: float(of.progression_free_days(study).quantile(0.5, "higher"))),
            ("mean", MEAN.of(of.progression_free_days)),
        ),
    ),
    "progression-free survival, shortest": _values("PFS of Table 3", of.progression_free_days, LOWEST),
    "progression-free survival, longest": _values("PFS of Table 3", of.progression_free_days, HIGHEST),
    "progression-free survival of the first evaluable patient": Formula(
        "PFS of patient 3 in Table 3", lambda study: of.of_patient(study, "P003", "pfs_days")
    ),
    "progression-free survival of the second evaluable patient": Formula(
        "PFS of patient 7 in Table 3", lambda study: of.of_patient(study, "P007", "pfs_days")
    ),
}
IMMUNOHISTOCHEMISTRY = {
    "patients with moderate to strong expression": Formula(
        "count of first biopsies above 0 %", lambda study: len(of.positive_biopsies(study))
    ),
    "patients examined": EXAMINED,
    "CXCR4-positive cells, lowest": _values(BIOPSIES, of.positive_biopsies, LOWEST),
    "CXCR4-positive cells, highest": _values(BIOPSIES, of.positive_biopsies, HIGHEST),
    "CXCR4-positive cells, median": _values(
        BIOPSIES, of.positive_biopsies, MEDIAN, ("all eight first biopsies", MEDIAN.of(of.first_biopsies))
    ),
    "CXCR4-positive cells of patient 8": Formula("Table 1", lambda study: of.percent_of(study, "P008", "biopsy")),
    "patients completely negative": Formula(
        "count of patients whose first biopsy has 0 % positive cells",
        lambda study: int((of.first_biopsies(study) == 0).sum()),
    ),
    "CXCR4-positive cells of patient 2, first biopsy": Formula(
        "Table 1", lambda study: of.percent_of(study, "P002", "biopsy")
    ),
    "CXCR4-positive cells of patient 2, autopsy": Formula(
        "Table 1, footnote", lambda study: of.percent_of(study, "P002", "autopsy")
    ),
}
DISCUSSION = {
    "male patients": _patients("sex M", _is("sex", "M")),
    "lesions with FDG uptake, of all, again": _detected("FDG-positive"),
    "lesions with CXCR4 uptake, of all, again": _detected("CXCR4-positive"),
    "patients treated, again in Discussion": TREATED,
    "patients with metabolic response": _responding("treated patients", lambda study: study.treated["patient"]),
    "patients with disease stabilisation": STABLE,
    "overall survival from endoradiotherapy, first of these": Formula(
        "OS from ERT of patient 7 in Table 3", lambda study: of.of_patient(study, "P007", "os_days")
    ),
    "overall survival from endoradiotherapy, second of these": Formula(
        "OS from ERT of patient 3 in Table 3", lambda study: of.of_patient(study, "P003", "os_days")
    ),
    "patients with severe nonhaematologic adverse events, again": SEVERE,
}
TABLES = {
    "patients who died within 3 months": Formula(
        "count of treated patients with OS from ERT of at most 3 months of 30.44 days in Table 3",
        lambda study: int((study.treated["os_days"] <= 3 * of.MEAN_DAYS_OF_MONTH).sum()),
    ),
    "overall survival of patient 2 from the cycle in whose row it stands": Formula(
        DEATH_OF_PATIENT_2.text,
        DEATH_OF_PATIENT_2.compute,
        (("from the first cycle", lambda study: of.day_of_death(study, "P002", 1)),),
    ),
}
FORMULAS: dict[str, Formula] = {
    **METHODS, **COHORT, **PET, **DOSIMETRY, **SAFETY, **EFFICACY, **IMMUNOHISTOCHEMISTRY, **DISCUSSION, **TABLES,
}  # fmt: skip
