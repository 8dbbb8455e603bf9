"""One scan of the tracer that is followed: its lesions, its reference regions, and how it was made."""

import datetime
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.images import read_image, read_sidecar, resample, to_array
from theraflow.layout import PatientFolder, Scan
from theraflow.organs import implausible_organs
from theraflow.registration import read_beside_emission
from theraflow.response.percist import BLOOD_POOL, LIVER, Acquisition, Lesion, Reference, lean_body_mass_kg
from theraflow.response.reference import blood_pool_cylinder, liver_sphere

FDG = re.compile(r"fdg|flu(oro)?deoxyglucose|fludeoxyglucose", re.IGNORECASE)
ORGANS_OF_REGION = {LIVER: ("liver",), BLOOD_POOL: ("aorta", "heart")}


class Visit:
    """One scan of the tracer that is followed, with what PERCIST asks of it."""

    def __init__(self, folder: PatientFolder, scan: Scan) -> None:
        self.folder, self.scan = folder, scan
        self.facts = read_sidecar(folder.emission(scan))

    @property
    def lean_fraction(self) -> float | None:
        """Lean body mass over body weight: SUL = SUVbw x this; None where weight, height or sex is unknown."""
        weight, height, sex = (self.facts.get(key) for key in ("weight_kg", "height_cm", "sex"))
        if not weight or not height or not sex:
            return None
        mass = lean_body_mass_kg(weight, height, sex)
        return mass / weight if mass else None

    @property
    def acquisition(self) -> Acquisition:
        """How the scan was made, as its sidecar knows."""
        hours = self.facts.get("time_after_injection_h")
        minutes = None if hours is None else 60.0 * hours
        return Acquisition(minutes, self.facts.get("injected_mbq") or None, self.facts.get("scanner") or None)

    @property
    def day(self) -> datetime.date | None:
        """The day of the scan, or None where its time is unknown."""
        time = self.facts.get("acquired_at")
        return datetime.datetime.fromisoformat(time).date() if time else None

    @property
    def unsearched(self) -> str | None:
        """Why new lesions would not have been found on the scan; None where they would."""
        return read_sidecar(self.folder.lesion_map(self.scan.scan)).get("unsearched")

    @property
    def tracer(self) -> str:
        """The radiopharmaceutical, or, where that is not said, the tracer's name."""
        return self.facts.get("radiopharmaceutical") or self.scan.tracer

    @property
    def is_fdg(self) -> bool:
        """Whether the tracer is FDG, for which PERCIST is made."""
        return bool(FDG.search(self.tracer))

    @cached_property
    def regions(self) -> dict[str, Reference | str]:
        """The reference regions in SUV by body weight, or why there is none."""
        scan = self.scan
        if not self.folder.organs(scan.scan).exists():
            return dict.fromkeys(ORGANS_OF_REGION, "the scan has no organ labels")
        grid = read_image(self.folder.emission(scan))
        labels = read_beside_emission(self.folder, scan.scan, self.folder.organs(scan.scan))
        organs = to_array(resample(labels, grid, interpolation="nearest"))
        lesions = to_array(read_image(self.folder.lesion_map(scan.scan))) != 0
        values = to_array(grid)
        doubtful = implausible_organs(self.folder.organ_table(scan.scan))
        found: dict[str, Reference | str] = {}
        for region, measure in ((LIVER, liver_sphere), (BLOOD_POOL, blood_pool_cylinder)):
            wrong = [organ for organ in ORGANS_OF_REGION[region] if organ in doubtful]
            found[region] = "; ".join(f"{organ} is not plausible ({doubtful[organ]})" for organ in wrong) or measure(
                values, organs, lesions, grid
            )
        return found

    def references(self, factor: float) -> dict[str, Reference]:
        """The reference regions that could be measured, in SUV by body weight times `factor`."""
        return {name: one.times(factor) for name, one in self.regions.items() if isinstance(one, Reference)}

    def lesions(self, table: pd.DataFrame, factor: float) -> list[Lesion]:
        """The lesions on this scan, in SUV by body weight times `factor`."""
        found = []
        for row in table[table["scan"] == self.scan.scan].itertuples():
            own = row.source if isinstance(row.source, str) and row.source != "carried" else None
            found.append(
                Lesion(
                    row.lesion, _known(row.site), _scaled(row.suv_peak, factor),
                    None if pd.isna(row.positive) else bool(row.positive),
                    _known(row.longest_diameter_mm) if own else None, _scaled(row.tlg_ml, factor) if own else None, own,
                )
            )  # fmt: skip
        return found


def _known(value: Any) -> Any:
    return None if pd.isna(value) else value


def _scaled(value: float, factor: float) -> float | None:
    return None if pd.isna(value) else float(value) * factor


def slice_distance_mm(path: Path | str) -> float:
    """Distance of an image's axial slices: along the axis closest to the body's. Only the header is read.

    Raises:
        TheraflowError: the image is missing or cannot be read.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise TheraflowError(f"{path} cannot be read as an image; delete it, then name it to snakemake.") from error
    along = int(np.argmax(np.abs(np.array(reader.GetDirection()).reshape(3, 3)[2])))
    return float(reader.GetSpacing()[along])
