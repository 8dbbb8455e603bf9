"""Blood samples: activity of the red marrow as far as it is that of the blood which passes through it."""

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any

from theraflow.dosimetry.activity.marrow import BLOOD, KIND, MarrowMass, MarrowUnknown, blood_ratio
from theraflow.dosimetry.administration import read_fact
from theraflow.errors import TheraflowError
from theraflow.layout import PatientFolder, Scan

KBQ_PER_MBQ = 1000.0
METHOD = "blood samples"
SECONDS_PER_HOUR = 3600.0


def blood_points(
    folder: PatientFolder,
    scans: Sequence[Scan],
    samples: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    mass: MarrowMass | MarrowUnknown,
) -> list[dict[str, Any]]:
    """Rows of curves.tsv, one a blood sample of the scans' administration: activity of all red marrow.

    Activity = concentration in blood x ratio of red marrow to blood x volume of the red marrow (Hindorf et al., Eur J
    Nucl Med Mol Imaging 2010;37:1238). What is bound in the marrow is not in it. The concentration is that at the time
    of sampling. Without a sd the sample has none here either; the ratio's error is not in it.

    Args:
        folder: the patient's results.
        scans: the activity scans of one administration, not empty.
        samples: rows of the sheet of blood samples, of any patient and administration.
        settings: section `dosimetry: marrow` of the configuration.
        mass: of all red marrow, or why it is not known: then the rows have no activity and say so.

    Raises:
        TheraflowError: the configuration does not say what the marrow holds of the blood's concentration; a sample
            without a time or haematocrit that is needed.
    """
    own = of_administration(folder, scans, samples)
    if own and "blood_ratio" not in settings:
        raise TheraflowError(
            f"The sheet of blood samples names {folder.patient}, but the configuration does not say how much of the "
            "blood's concentration the red marrow holds; write dosimetry: marrow: blood_ratio (a number, or "
            "haematocrit for 0.19 / (1 - haematocrit))."
        )
    volume, mass_g = (mass.volume_ml, mass.mass_g) if isinstance(mass, MarrowMass) else (math.nan, math.nan)
    points = []
    for number, sample in enumerate(own, start=1):
        if settings["blood_ratio"] == "haematocrit" and "haematocrit" not in sample:
            raise TheraflowError(
                f"Blood sample {number} of {folder.patient} has no haematocrit, which dosimetry: marrow: blood_ratio "
                "asks for; add it to the sheet of blood samples."
            )
        factor = blood_ratio(sample, settings) * volume / KBQ_PER_MBQ
        sd = float(sample["sd_kbq_per_ml"]) * factor if "sd_kbq_per_ml" in sample else math.nan
        points.append({
            "patient": folder.patient, "region": BLOOD, "kind": KIND, "scan": f"blood {number}",
            "time_h": _time_h(folder, scans[0], sample, number),
            "activity_mbq": float(sample["kbq_per_ml"]) * factor, "sd_mbq": sd,
            "volume_ml": volume, "mass_g": mass_g, "sd_independent_mbq": sd,
            "remark": mass.source if isinstance(mass, MarrowMass) else str(mass),
            "method": METHOD,
        })  # fmt: skip
    return points


def of_administration(
    folder: PatientFolder, scans: Sequence[Scan], samples: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The patient's samples after the administration that the scans are of."""
    timepoints = {scan.timepoint for scan in scans}
    return [row for row in samples if row["patient"] == folder.patient and row["timepoint"] in timepoints]


def _time_h(folder: PatientFolder, scan: Scan, sample: Mapping[str, Any], number: int) -> float:
    """Hours between injection and sampling."""
    if ("time_h" in sample) == ("sampled_at" in sample):
        raise TheraflowError(
            f"Blood sample {number} of {folder.patient} needs its time, as time_h (hours after the injection) or as "
            "sampled_at, not both; correct the sheet of blood samples."
        )
    if "time_h" in sample:
        return float(sample["time_h"])
    injected = datetime.datetime.fromisoformat(read_fact(folder, scan, "injected_at", "the time of injection"))
    hours = (_sampled_at(folder, sample, number) - injected).total_seconds() / SECONDS_PER_HOUR
    if hours <= 0.0:
        raise TheraflowError(
            f"Blood sample {number} of {folder.patient} was taken at {sample['sampled_at']}, before the injection at "
            f"{injected:%Y-%m-%d %H:%M}; correct sampled_at."
        )
    return hours


def _sampled_at(folder: PatientFolder, sample: Mapping[str, Any], number: int) -> datetime.datetime:
    text = str(sample["sampled_at"])
    try:
        if ":" not in text:  # a day alone would be taken for its midnight
            raise ValueError
        return datetime.datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        raise TheraflowError(
            f"Blood sample {number} of {folder.patient}: sampled_at is {text!r}; write it as 2023-05-04 10:15."
        ) from None
