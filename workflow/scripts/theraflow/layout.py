"""Where everything lies: the one place that names the files of a run."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scan:
    """One row of `scans.tsv`, with what the configuration says about its tracer.

    Attributes:
        patient, scan, tracer, timepoint, dicom: as in the sheet.
        quantity: `suv` or `activity`, from the tracer's configuration.
        lesions, organs: paths of a reader's annotation and of an existing organ label map, or None.
        series: SeriesInstanceUID that must be taken, or None.
        injected_mbq, injected_at, acquired_at, weight_kg, height_cm, units, decay_correction: overrides of the DICOM
            header, or None.
    """

    patient: str
    scan: str
    tracer: str
    timepoint: str
    dicom: str
    quantity: str
    lesions: str | None = None
    organs: str | None = None
    series: str | None = None
    injected_mbq: float | None = None
    injected_at: str | None = None
    weight_kg: float | None = None
    height_cm: float | None = None
    acquired_at: str | None = None
    units: str | None = None
    decay_correction: str | None = None

    @property
    def emission(self) -> str:
        """`pet` or `spect`: the name of the emission image."""
        return "pet" if self.quantity == "suv" else "spect"


@dataclass(frozen=True)
class PatientFolder:
    """The results of one patient: `results/{patient}`."""

    results: Path | str
    patient: str

    @property
    def root(self) -> Path:
        """`results/{patient}`."""
        return Path(self.results) / self.patient

    def ct(self, scan: str) -> Path:
        """CT of a scan in HU."""
        return self.root / "scans" / scan / "ct.nii.gz"

    def emission(self, scan: Scan) -> Path:
        """PET in SUVbw (g/mL) or SPECT in Bq/mL."""
        return self.root / "scans" / scan.scan / f"{scan.emission}.nii.gz"

    def organs(self, scan: str) -> Path:
        """Organ labels (TotalSegmentator ids) on the CT grid."""
        return self.root / "scans" / scan / "organs.nii.gz"

    def organ_table(self, scan: str) -> Path:
        """What the organs of a scan measure, and whether they are plausible."""
        return self.root / "scans" / scan / "organs.tsv"

    def to_scan(self, scan: str) -> Path:
        """Transform that maps points of the reference scan to points of `scan`."""
        return self.root / "registration" / f"{scan}.to_scan.h5"

    def to_reference(self, scan: str) -> Path:
        """Transform that maps points of `scan` to points of the reference scan."""
        return self.root / "registration" / f"{scan}.to_reference.h5"

    def registration_fit(self, scan: str) -> Path:
        """How `scan` was registered, and what that measured itself: what the verdict is made of."""
        return self.root / "registration" / f"{scan}.fit.json"

    def registration_quality(self, scan: str) -> Path:
        """Method, quality and verdict of the registration of `scan`."""
        return self.root / "registration" / f"{scan}.json"

    def ct_to_emission(self, scan: str) -> Path:
        """Transform that maps points of the CT of `scan` to points of its emission image."""
        return self.root / "registration" / f"{scan}.ct_to_emission.h5"

    def emission_check(self, scan: str) -> Path:
        """Whether the CT and the emission image of `scan` lie on each other."""
        return self.root / "registration" / f"{scan}.ct_to_emission.json"

    def registration_picture(self, scan: str) -> Path:
        """Both scans upon each other, before and after the registration of `scan`."""
        return self.root / "registration" / f"{scan}.png"

    def lesion_map(self, scan: str | None = None) -> Path:
        """Lesion labels on the emission grid of `scan` (divided for a SPECT), or of the reference scan."""
        return self.root / "lesions" / (f"scans/{scan}.nii.gz" if scan else "lesions.nii.gz")

    def table(self, name: str) -> Path:
        """A table by its name in the contract, as `lesions`, `doses`, `response`."""
        folder = {"lesions": "lesions", "candidates": "lesions", "response": ""}.get(name, "dosimetry")
        return self.root / folder / f"{name}.tsv"

    @property
    def dose_map(self) -> Path:
        """Absorbed dose per administered activity of the therapy nuclide, Gy/GBq."""
        return self.root / "dosimetry" / "dose_gy_per_gbq.nii.gz"

    @property
    def report(self) -> Path:
        """The patient's report."""
        return self.root / "report.html"
