"""What the formulas are made of: values of patients, cycles and specimens from the study's sheets."""

import pandas as pd

from theraflow.cohort.reproduction.study import Study
from theraflow.cohort.survival import fit_kaplan_meier, median_time
from theraflow.nuclides import DAY, nuclide

# With months of 30 days the printed intervals follow to the decimal; with 30.44 days none of the three does.
DAYS_OF_MONTH, MEAN_DAYS_OF_MONTH = 30.0, 365.25 / 12
SEVERE_GRADE = 3
RESPONSES = ("CR", "PR")
NONHAEMATOLOGIC = ("ast", "bilirubin", "creatinine")


def ages(study: Study) -> pd.Series:
    """Age at diagnosis in years."""
    return study.patients["age_y"]


def lines(study: Study) -> pd.Series:
    """Previous lines of systemic therapy; high-dose chemotherapy before imaging counts as one."""
    return study.patients["prior_lines"] + (study.patients["high_dose"] == "before")


def lines_without_high_dose(study: Study) -> pd.Series:
    """Previous lines of systemic therapy without high-dose chemotherapy."""
    return study.patients["prior_lines"]


def surgery_before_imaging(patients: pd.DataFrame) -> pd.Series:
    """Which patients had cytoreductive surgery that is not marked as after the diagnostic CXCR4 PET."""
    return (patients["surgery"] == "yes") & (patients["surgery_relative_to_imaging"] == "before")


def months_to_therapy(study: Study) -> pd.Series:
    """First chemotherapy to first endoradiotherapy in months of 30 days: the difference of the two survival times."""
    treated = study.treated
    return treated["os_from_chemotherapy_months"] - treated["os_days"] / DAYS_OF_MONTH


def mean_months_to_therapy(study: Study) -> pd.Series:
    """The same in months of 30.44 days."""
    treated = study.treated
    return treated["os_from_chemotherapy_months"] - treated["os_days"] / MEAN_DAYS_OF_MONTH


def named_discordant(study: Study, group: str) -> int:
    """Lesions of a discordant group as the text names them: patients times lesions of each, summed."""
    rows = study.lesion_counts[study.lesion_counts["group"] == group]
    return int((rows["patients"] * rows["lesions"]).sum())


def patients_named(study: Study, group: str) -> int:
    """Patients whom the text names with discordant lesions of a group."""
    return int(study.lesion_counts.loc[study.lesion_counts["group"] == group, "patients"].sum())


def positive_alone(study: Study, tracer: str) -> int:
    """Lesions that one tracer alone shows, by the totals."""
    return study.count(tracer) - study.count("positive on both")


def activities(study: Study) -> pd.Series:
    """Therapy activity of every cycle in GBq."""
    return study.cycles["activity_gbq"]


def dose_coefficients(study: Study) -> pd.Series:
    """Greatest tumour dose over activity of every cycle in Gy/GBq."""
    cycles = study.cycles.merge(study.doses, on=["patient", "cycle"], validate="one_to_one")
    return cycles["max_tumour_dose_gy"] / cycles["activity_gbq"]


def dose_coefficients_of_first_cycles(study: Study) -> pd.Series:
    """The same of the first cycle of every patient."""
    return dose_coefficients(study)[study.cycles["cycle"].to_numpy() == 1]


def half_lives_to_rescue(study: Study) -> float:
    """Physical half-lives of 90Y until the stem cells."""
    return day_of_rescue(study) * DAY / nuclide("90Y").half_life_s


def day_of_rescue(study: Study) -> float:
    """Day of the stem cells, the same after every cycle that has them; NaN where the cycles differ."""
    days = study.myeloablative["stem_cells_day"].unique()
    return float(days[0]) if len(days) == 1 else float("nan")


def worst_grades(study: Study, parameter: str) -> pd.Series:
    """Worst grade of every patient with myeloablative activity."""
    return grades_of_cycles(study, parameter).groupby(level="patient").max()


def grades_of_cycles(study: Study, parameter: str) -> pd.Series:
    """Grade of every cycle with myeloablative activity, by patient."""
    return _of_myeloablative(study, parameter)["grade"]


def units_of_cycles(study: Study, parameter: str) -> pd.Series:
    """Units transfused after every cycle with myeloablative activity, by patient."""
    return _of_myeloablative(study, parameter)["value"]


def units_of_patients(study: Study, parameter: str) -> pd.Series:
    """Units transfused in all cycles of every patient with myeloablative activity."""
    return units_of_cycles(study, parameter).groupby(level="patient").sum()


def units_of_treated(study: Study, parameter: str) -> pd.Series:
    """Units transfused in all cycles of every treated patient."""
    return study.of_parameter(parameter).groupby("patient")["value"].sum()


def _of_myeloablative(study: Study, parameter: str) -> pd.DataFrame:
    rows = study.of_parameter(parameter).merge(study.myeloablative, on=["patient", "cycle"], validate="one_to_one")
    return rows.set_index("patient")


def patients_with(study: Study, parameter: str) -> int:
    """Patients in whom a parameter that is answered with yes or no was yes in a cycle."""
    rows = study.of_parameter(parameter)
    return rows.loc[rows["value"] == 1, "patient"].nunique()


def severe_nonhaematologic(study: Study, preexisting: bool = True) -> int:
    """Patients with grade 3 or more in a cycle of a parameter of Table 2 that is not of the blood.

    Args:
        study: the sheets.
        preexisting: whether those count that Table 2 ascribes to a disease from before.
    """
    rows = study.toxicity
    rows = rows[rows["parameter"].isin(NONHAEMATOLOGIC) & (rows["grade"] >= SEVERE_GRADE)]
    counted = preexisting | ~rows["remark"].astype(str).str.startswith("pre-existing")
    return rows.loc[counted, "patient"].nunique()


def responders(patients: pd.Series, study: Study, column: str) -> int:
    """How many of `patients` have PERCIST CR or PR in a cycle; `column` of Table 3: with or without new lesions."""
    response = study.response[study.response["patient"].isin(patients) & study.response[column].isin(RESPONSES)]
    return response["patient"].nunique()


def stable_patients(study: Study) -> int:
    """Patients with stable disease by RECIST."""
    return study.response.loc[study.response["recist"] == "SD", "patient"].nunique()


def percist_of(study: Study, patient: str, cycle: int) -> str:
    """PERCIST category after a cycle."""
    return study.response.set_index(["patient", "cycle"]).loc[(patient, cycle), "percist"]


def progression_free_days(study: Study) -> pd.Series:
    """Progression-free survival of the treated in days."""
    return study.treated["pfs_days"]


def median_progression_free_days(study: Study) -> float:
    """Kaplan-Meier median of the progression-free survival in days."""
    times = study.treated[["patient", "pfs_days", "pfs_event"]].set_axis(["patient", "days", "event"], axis=1)
    return median_time(fit_kaplan_meier(times).survival_function_.iloc[:, 0])


def of_patient(study: Study, patient: str, column: str) -> float:
    """A number of one patient."""
    return float(study.patients.set_index("patient").loc[patient, column])


def day_of_death(study: Study, patient: str, since_cycle: int) -> float:
    """Day on which a patient died, counted from one of the cycles."""
    events = study.events
    since = f"radioligand therapy, cycle {since_cycle}"
    mine = (events["patient"] == patient) & (events["event"] == "death") & (events["since"] == since)
    return float(events.loc[mine, "day"].iloc[0])


def first_biopsies(study: Study) -> pd.Series:
    """Percentage of CXCR4-positive cells in the first biopsy of every patient."""
    return study.expression.loc[study.expression["specimen"] == "biopsy", "positive_percent"]


def positive_biopsies(study: Study) -> pd.Series:
    """The same of the biopsies with any."""
    percent = first_biopsies(study)
    return percent[percent > 0]


def percent_of(study: Study, patient: str, specimen: str) -> float:
    """Percentage of CXCR4-positive cells in one specimen."""
    return float(study.expression.set_index(["patient", "specimen"]).loc[(patient, specimen), "positive_percent"])
