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
        planar: whether planar views are taken, not a volume.
        before_voiding: whether a planar scan shows all that was injected.
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
    planar: bool = False
    before_voiding: bool = False

    @property
    def emission(self) -> str:
        """`pet`, `spect` or `planar`: the name of the emission image."""
        if self.planar:
            return "planar"
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
        """PET in SUVbw (g/mL), SPECT in Bq/mL or planar views in counts per second."""
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

    def candidate_files(self, scan: str) -> tuple[Path, Path]:
        """Candidate labels on the emission grid of a PET, and the table that tells of each."""
        folder = self.root / "lesions" / "candidates"
        return folder / f"{scan}.nii.gz", folder / f"{scan}.tsv"

    def lesion_map(self, scan: str | None = None) -> Path:
        """Lesion labels on the emission grid of `scan` (divided for a SPECT), or of the reference scan."""
        return self.root / "lesions" / (f"scans/{scan}.nii.gz" if scan else "lesions.nii.gz")

    def table(self, name: str) -> Path:
        """A table by its name in the contract, as `lesions`, `doses`, `response`."""
        lesions = dict.fromkeys(("lesions", "candidates", "tbr", "burden", "mismatch", "decisions_draft"), "lesions")
        response = dict.fromkeys(("response", "targets", "percist_reference", "best_response"), "")
        folder = {**lesions, **response}.get(name, "dosimetry")
        return self.root / folder / f"{name}.tsv"

    @property
    def dosimetry(self) -> Path:
        """All that is made of the scans of activity."""
        return self.root / "dosimetry"

    @property
    def dose_map_files(self) -> list[Path]:
        """Dose maps of all nuclides and what is told of them, as far as they are there."""
        return sorted([*self.dosimetry.glob("dose_gy_per_gbq*"), *map(self.table, ("dvh", "map_doses"))])

    @property
    def dose_map(self) -> Path:
        """Absorbed dose per administered activity of the therapy nuclide, Gy/GBq."""
        return self.root / "dosimetry" / "dose_gy_per_gbq.nii.gz"

    def dose_map_of(self, nuclide: str) -> Path:
        """The same of another nuclide: of the one that was measured, beside that of the therapy."""
        return self.root / "dosimetry" / f"dose_gy_per_gbq_{nuclide}.nii.gz"

    @property
    def plan(self) -> Path:
        """What the limits of the organs still allow, in words and numbers."""
        return self.root / "dosimetry" / "plan.json"

    @property
    def report(self) -> Path:
        """The patient's report."""
        return self.root / "report.html"

    @property
    def document(self) -> Path:
        """The essentials of the report, for paper."""
        return self.root / "report.pdf"

    @property
    def dicom(self) -> Path:
        """DICOM objects for other systems."""
        return self.root / "dicom"

    @property
    def figures(self) -> Path:
        """Figures of the patient for a paper."""
        return self.root / "figures"
