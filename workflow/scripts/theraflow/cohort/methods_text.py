"""The methods paragraph of a paper, from what ran: the configuration, the sidecars and the tables of the cohort.

Each part adds its own sentences, and none where its stage made nothing: a tracer that was not imaged, a dosimetry that
no patient has and a test that is in no table are not told of. Every number is one of the configuration, of a sidecar or
of a table.
"""

import importlib.metadata
import platform
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import theraflow
from theraflow.cohort.figures.drawing import raised
from theraflow.files import read_json, write_text
from theraflow.images import read_sidecar, sidecar_path
from theraflow.layout import PatientFolder, Scan
from theraflow.tables import read_table

TABLES = ("lesions", "doses", "response", "statistics", "detection", "survival")
# Packages that make numbers of the cohort; those of the images stand in their sidecars.
PACKAGES = ("numpy", "scipy", "pandas", "lifelines", "matplotlib", "snakemake")
LINE_LENGTH = 100
# How activities were measured other than by SPECT: words of the column method of doses.tsv, and the sentence.
ACTIVITIES = {
    "planar scaled by SPECT": "Of {}, planar views were scaled by one SPECT, region by region.",
    "planar, conjugate view": "Of {}, activities are those of conjugate planar views, corrected for attenuation.",
    "blood samples": "Of {}, the activity of red marrow is that of blood samples.",
}
MARROW = "marrow"  # kind of a region
# What a group of statistics.tsv takes for independent.
GROUPS = {
    "lesions, pooled": "Tests over pooled lesions take lesions of one patient for independent, which they are not.",
    "lesions, clustered by patient": "Clustered tests allow for lesions of one patient being alike.",
    "patients": "Tests over patients compare one mean a patient.",
}


@dataclass(frozen=True)
class Run:
    """What ran.

    Attributes:
        patients: number of patients in the tables.
        missing: number of patients left out because the run failed for them.
        config: the checked configuration with all defaults.
        scans: all scans of the patients evaluated.
        emissions: sidecar of the emission image of each scan, by (patient, scan).
        organs: sidecar of the organ labels of each scan that has them.
        registrations: `{scan}.json` of the registration of each scan.
        with_ct: (patient, scan) of the scans with a CT.
        cycles: rows of `cycles.tsv` of these patients.
        tables: the cohort's tables by name.
    """

    patients: int
    missing: int
    config: Mapping[str, Any]
    scans: Sequence[Scan]
    emissions: Mapping[tuple[str, str], Mapping[str, Any]]
    organs: Mapping[tuple[str, str], Mapping[str, Any]]
    registrations: Mapping[tuple[str, str], Mapping[str, Any]]
    with_ct: frozenset[tuple[str, str]]
    cycles: Sequence[Mapping[str, Any]]
    tables: Mapping[str, pd.DataFrame]

    def of_tracer(self, tracer: str) -> list[Scan]:
        """The scans with a tracer."""
        return [scan for scan in self.scans if scan.tracer == tracer]

    def values(self, scans: Iterable[Scan], key: str) -> list[Any]:
        """What the sidecars of the emission images of `scans` say under `key`, where they do."""
        found = [self.emissions[scan.patient, scan.scan].get(key) for scan in scans]
        return [value for value in found if value is not None]


def read_run(
    results: Path | str,
    scans: Mapping[str, Sequence[Scan]],
    config: Mapping[str, Any],
    cycles: Sequence[Mapping[str, Any]],
    missing: int,
) -> Run:
    """Gather what ran from the results folder.

    Args:
        results: the results folder.
        scans: the scans of each patient that the cohort's tables hold.
        config: the checked configuration with all defaults.
        cycles: rows of the sheet of cycles.
        missing: number of patients left out because the run failed for them.

    Raises:
        TheraflowError: a table or sidecar is missing or cannot be read.
    """
    own = [(scan, PatientFolder(results, patient)) for patient, rows in scans.items() for scan in rows]
    key = {scan: (scan.patient, scan.scan) for scan, _ in own}
    return Run(
        patients=len(scans),
        missing=missing,
        config=config,
        scans=[scan for scan, _ in own],
        emissions={key[scan]: read_sidecar(folder.emission(scan)) for scan, folder in own},
        organs={
            key[scan]: read_sidecar(folder.organs(scan.scan))
            for scan, folder in own
            if sidecar_path(folder.organs(scan.scan)).is_file()
        },
        registrations={key[scan]: read_json(folder.registration_quality(scan.scan)) for scan, folder in own},
        with_ct=frozenset(key[scan] for scan, folder in own if folder.ct(scan.scan).is_file()),
        cycles=[row for row in cycles if row["patient"] in scans],
        tables={name: read_table(Path(results) / "cohort" / f"{name}.tsv") for name in TABLES},
    )


def write_methods(
    results: Path | str,
    scans: Mapping[str, Sequence[Scan]],
    config: Mapping[str, Any],
    cycles: Sequence[Mapping[str, Any]],
    missing: int,
    markdown: Path | str,
    text: Path | str,
) -> None:
    """Write the methods as Markdown and as plain text.

    Args:
        results, scans, config, cycles, missing: as `read_run`.
        markdown, text: the files.

    Raises:
        TheraflowError: a table or sidecar is missing or cannot be read.
    """
    parts = describe_methods(read_run(results, scans, config, cycles, missing))
    write_text("# Methods\n\n" + "\n".join(f"**{head}.** {words}\n" for head, words in parts), markdown)
    wrapped = ["\n".join(textwrap.wrap(f"{head}. {words}", LINE_LENGTH, break_on_hyphens=False)) + "\n"
               for head, words in parts]  # fmt: skip
    write_text("\n".join(wrapped), text)


def describe_methods(run: Run) -> list[tuple[str, str]]:
    """Heading and sentences of each part of the methods that ran."""
    parts = [(head, describe(run)) for head, describe in PARTS.items()]
    return [(head, " ".join(sentences)) for head, sentences in parts if sentences]


def _patients(run: Run) -> list[str]:
    words = f"In total, {_count(run.patients, 'patient')} {_were(run.patients)} evaluated"
    return [f"{words}; {run.missing} could not be, for their data failed." if run.missing else f"{words}."]


def _imaging(run: Run) -> list[str]:
    sentences = []
    for name, tracer in run.config["tracers"].items():
        scans = run.of_tracer(name)
        if not scans:
            continue
        kinds = Counter(
            ("PET" if scan.quantity == "suv" else "SPECT") + "/CT" * ((scan.patient, scan.scan) in run.with_ct)
            for scan in scans
        )
        what = _list(_count(n, f"{kind} scan") for kind, n in kinds.items())
        points = _list(f"{n} at {point}" for point, n in Counter(scan.timepoint for scan in scans).items())
        patients = _count(len({scan.patient for scan in scans}), "patient")
        agent = raised(tracer["radiopharmaceutical"])
        sentences.append(f"With {agent}, {what} of {patients} {_were(len(scans))} evaluated ({points}).")
        factor, unit = (60, "min") if scans[0].quantity == "suv" else (1, "h")
        waited = _spread([factor * hours for hours in run.values(scans, "time_after_injection_h")], unit)
        # Several scans of one administration count its activity once.
        injections = {(scan.patient, scan.timepoint): scan for scan in reversed(scans)}
        given = _spread(run.values(injections.values(), "injected_mbq"), "MBq")
        told = [f"the injected activity was {given}"] * bool(given) + [f"imaging began after {waited}"] * bool(waited)
        if told:
            sentences.append(f"For {name} {_list(told)}.")
    scanners = sorted(set(run.values(run.scans, "scanner")))
    unknown = len(run.scans) - len(run.values(run.scans, "scanner"))
    if scanners:
        words = f"Scanners: {_list(scanners)}"
        sentences.append(words + (f"; of {_count(unknown, 'scan')} the header names none." if unknown else "."))
    virtual = len([scan for scan in run.values(run.scans, "virtual_patient") if scan])
    if virtual:
        sentences.append(f"Of all scans, {virtual} {_were(virtual)} of virtual patients, not of people.")
    changed = Counter(name for overrides in run.values(run.scans, "overrides") for name in overrides)
    if changed:
        told = _list(f"{name} of {_count(n, 'scan')}" for name, n in sorted(changed.items()))
        sentences.append(f"What the header said was overruled by the sheet of scans for {told}.")
    return sentences + _quantities(run)


def _quantities(run: Run) -> list[str]:
    sentences = []
    suv = Counter(value["decay_correction"] for value in run.values(run.scans, "suv") if value.get("decay_correction"))
    if any(scan.quantity == "suv" for scan in run.scans):
        words = "Standardised uptake values are normalised to body weight (SUVbw) by the rules of the IBSI SUV manual"
        if suv:
            told = _list(f"{word} in {_count(n, 'scan')}" for word, n in suv.items())
            words += f" (DecayCorrection {told})"
        sentences.append(f"{words}; uptake was read on the scanner's own voxels and never after resampling.")
    rules = Counter(value["rule"] for value in run.values(run.scans, "activity") if value.get("rule"))
    if rules:
        told = _list(f"{rule} ({_count(n, 'scan')})" for rule, n in rules.items())
        sentences.append(f"Activity concentrations stand at the start of each acquisition: {told}.")
    return sentences


def _organs(run: Run) -> list[str]:
    sentences = []
    groups: Counter[str] = Counter()
    for sidecar in run.organs.values():
        if sidecar["source"] == "TotalSegmentator":
            version = sidecar["versions"]["TotalSegmentator"]
            weights = "theraflow's miniature model for virtual patients" if sidecar.get("miniature_model") else (
                f"the published weights {_list(sidecar['model'])}")  # fmt: skip
            device = "a GPU" if str(sidecar["device"]).startswith(("gpu", "cuda")) else "the CPU"
            groups[f"segmented by TotalSegmentator {version} (task {sidecar['task']}, voxels of "
                   f"{sidecar['resolution_mm']:g} mm, {weights}, on {device})"] += 1  # fmt: skip
        else:
            groups["taken from existing label maps"] += 1
    for words, n in groups.items():
        sentences.append(f"Organs of {_count(n, 'CT')} were {words}.")
    return sentences


def _registration(run: Run) -> list[str]:
    moved = [record for record in run.registrations.values() if not record["method"].startswith("identity")]
    if not moved:
        return []
    words = _list(f"{method} ({n})" for method, n in Counter(record["method"] for record in moved).items())
    verdicts = Counter(record["verdict"] for record in moved)
    told = _list(f"{n} {_were(n)} judged “{verdict}”" for verdict, n in verdicts.items())
    reference = run.config.get("reference_tracer")
    scan = f"the patient's {reference} scan at baseline" if reference else "the patient's reference scan"
    return [
        f"In total, {_count(len(moved), 'scan')} {_were(len(moved))} registered to {scan}: {words}; {told}.",
        "Registration carried outlines and told which lesion is which; no image was resampled to read a value.",
    ]


def _lesions(run: Run) -> list[str]:
    lesions = run.tables["lesions"]
    if lesions.empty:
        return []
    config = run.config["lesions"]
    number = len(lesions[["patient", "lesion"]].drop_duplicates())
    outlines = Counter(lesions["source"].dropna())
    words = {"reader": "outlined by a reader", "carried": "carried from another scan of the patient"}
    told = _list(f"{n} {words.get(source, f'found by the program ({source})')}" for source, n in outlines.items())
    sentences = [
        f"In total, {_count(number, 'lesion')} of {_count(lesions['patient'].nunique(), 'patient')} {_were(number)} "
        f"measured, with {_count(sum(outlines.values()), 'outline')} on all scans: {told}."
    ]
    found = lesions[~lesions["source"].isin(words) & lesions["source"].notna()]
    for tracer, rule in config["candidates"].items():
        if (found["tracer"] == tracer).any():
            sentences.append(f"On {tracer} the program took for a candidate what {_rule(rule)}, from "
                             f"{config['minimum_ml']:g} mL on.")  # fmt: skip
    if lesions["suv_peak"].notna().any():
        sentences.append("SUVpeak is the highest mean of a 1 cm³ sphere with its centre in the lesion (PERCIST).")
    regions = Counter(lesions.loc[lesions["tbr"].notna(), "background_region"].dropna())
    if regions:
        told = " or ".join(region.replace("_", " ") for region in regions)
        sentences.append(f"The tumour-to-background ratio (TBR) is SUVpeak over the mean SUV of the {told}.")
    if "positive_by" in lesions:
        judged = Counter(lesions.loc[lesions["positive"].notna(), "positive_by"].dropna())
        if judged["reader"]:
            sentences.append(
                f"A reader's word decided {_count(judged['reader'], 'time')} whether a lesion was positive."
            )
        if judged["program"]:
            sentences.append(
                f"Without a reader's word ({_count(judged['program'], 'time')}) a lesion counted as positive from an "
                f"SUVpeak of {config['positivity_ratio']:g} times the mean of its surroundings on, and not below the "
                f"blood pool."
            )
    return sentences


def _rule(rule: Mapping[str, Any]) -> str:
    """A tracer's rule for candidates in words."""
    parts = [f"exceeds an SUV of {rule['threshold_suv']:g}"] if "threshold_suv" in rule else []
    for organ, words in (("liver", "liver"), ("blood_pool", "blood pool")):
        if organ in rule:
            own = rule[organ]
            parts.append(
                f"exceeds {own['times']:g} times the median of the {words} plus {own['plus_sd']:g} standard deviations"
            )
    joined = f" (the {rule['combine']} of these)" if len(parts) > 1 else ""
    outline = rule["outline"]
    if isinstance(outline, Mapping):
        ((kind, percent),) = outline.items()
        end = f"outlined at {percent:g} % of its {kind.removeprefix('percent_of_')}"
    else:
        end = {"threshold": "outlined by the same rule", "gradient": "outlined by the watershed of the gradient"}[
            outline
        ]
    return f"{' or '.join(parts)}{joined}, {end}"


def _dosimetry(run: Run) -> list[str]:
    doses = run.tables["doses"]
    if doses.empty:
        return []
    config = run.config["dosimetry"]
    predicted = doses["method"].astype(str).str.contains("from the kinetics of")
    fitted = doses[~predicted].dropna(subset=["model"])
    known = doses.dropna(subset=["dose_gy_per_gbq"])
    points = sorted({int(n) for n in fitted["n_timepoints"].dropna()})
    spect = "not corrected for partial volume"
    if config["spect_fwhm_mm"]:
        spect = (
            f"corrected for partial volume by the geometric transfer matrix, for a resolution of "
            f"{config['spect_fwhm_mm']:g} mm"
        )
    elif config["recovery"]:
        spect = f"corrected for partial volume by the recovery curve of {Path(config['recovery']).name}"
    told = f", with {_range_words(points)} a curve" if points else ""
    sentences = [
        f"Dosimetry of {_count(doses['patient'].nunique(), 'patient')} followed the MIRD scheme{told}; activities from "
        f"SPECT were {spect}."
    ]
    for way, words in ACTIVITIES.items():
        patients = doses.loc[doses["method"].astype(str).str.contains(way, regex=False), "patient"].nunique()
        sentences += [words.format(_count(patients, "patient"))] * (patients > 0)
    models = Counter(fitted["model"])
    if models:
        told = _list(f"{model} ({n})" for model, n in models.items())
        sentences.append(f"Time-activity curves were sums of exponentials with the physical decay held fixed: {told}.")
    borrowed = known.loc[predicted[known.index], "nuclide"].unique()
    if len(borrowed):
        sentences.append(
            f"Doses of {_list(map(raised, borrowed))} were predicted from the measured kinetics and its own decay."
        )
    if len(known):
        source = f"taken from {Path(config['s_values']).name}" if config["s_values"] else (
            "those of spheres of each region's mass, from electron and photon transport in water")  # fmt: skip
        if (known["kind"] != MARROW).any():
            sentences.append(f"S values were {source}; self-dose only.")
        if (known["kind"] == MARROW).any():
            sentences.append("Red marrow has the electrons of its own activity; no photons.")
        shares = (("calibration", "calibration_cv"), ("repeatability", "repeatability_cv"), ("S value", "s_value_cv"))
        told = _list(f"{words} ({100 * config[name]:g} %)" for words, name in shares)
        draws = known["method"].str.extract(r"sd and interval by (\d+) draws", expand=False)
        for number, own in known.groupby(draws):
            sentences.append(f"Standard deviations of {_count(len(own), 'coefficient')} are those of {number} draws of "
                             f"fit, outline, {told}.")  # fmt: skip
        if draws.isna().any():
            others = " of the others" if draws.notna().any() else ""
            sentences.append(f"Standard deviations{others} propagate, to first order, fit, outline, {told}.")
    if (known["kind"] == "lesion").any():
        sentences.append(f"Lesions below {config['minimum_lesion_ml']:g} mL got no dose.")
    limits = [f"{organ.replace('_', ' ')} {value:g} Gy ({name.removesuffix('_gy').replace('_', ' ')})"
              for organ, own in config["limits"].items() for name, value in own.items()]  # fmt: skip
    if limits:
        sentences.append(f"Limits for all cycles together: {_list(limits)}.")
    return sentences


def _therapy(run: Run) -> list[str]:
    if not run.cycles:
        return []
    patients = {row["patient"] for row in run.cycles}
    given = _spread([row["activity_gbq"] for row in run.cycles], "GBq")
    nuclides = _list(dict.fromkeys(raised(row["nuclide"]) for row in run.cycles))
    number = len(run.cycles)
    received = f"{_count(len(patients), 'patient')} received {_count(number, 'therapy cycle')} of {nuclides}"
    return [f"In total, {received}; the activity of a cycle was {given}."]


def _response(run: Run) -> list[str]:
    response = run.tables["response"]
    if response.empty:
        return []
    criteria = _list(response["criterion"].unique())
    sentences = [f"Response of {_count(response['patient'].nunique(), 'patient')} was judged by {criteria}."]
    if "measure" in response:
        measures = response.loc[response["criterion"].str.startswith("PERCIST"), "measure"].dropna().unique()
        if len(measures):
            sentences.append(f"PERCIST compared {_list(measures)}.")
    if response["criterion"].str.startswith("RECIST").any():
        sentences.append("Diameters for RECIST are those of the PET outlines, not of a diagnostic CT.")
    return sentences


def _statistics(run: Run) -> list[str]:
    statistics = run.tables["statistics"]
    made = statistics[statistics["n"] > 0]
    sentences = ["Values are given as median and range and as mean and standard deviation."] if len(made) else []
    tested = made.dropna(subset=["p_value"])
    if len(tested):
        tests = dict.fromkeys(re.split(r",| by ", str(test))[0] for test in tested["test"].dropna())
        groups = [group for group in dict.fromkeys(tested["group"]) if group in GROUPS]
        sentences.append(f"Tests: {_list(tests)}; P values are two-sided.")
        sentences += [GROUPS[group] for group in groups]
    found = made.loc[made["effect"].notna(), "effect_name"].dropna()
    effects = dict.fromkeys(str(name).split(",")[0] for name in found)
    if effects:
        sentences.append(f"Effects with 95 % intervals: {_list(effects)}.")
    adjusted = "p_holm" in made and made["p_holm"].notna().any()
    if len(tested):
        sentences.append("P values stand as computed and, within their family, adjusted by Holm." if adjusted
                         else "P values are not adjusted for their number.")  # fmt: skip
    if (run.tables["detection"]["n_lesions"] > 0).any():
        sentences.append("Detection rates have Wilson 95 % intervals.")
    survival = run.tables["survival"].query("n > 0")
    if len(survival):
        convention = survival["convention"].iloc[0].split("; NA:")[0]
        sentences.append(f"Survival ({_list(survival['endpoint'])}): {convention}.")
    return sentences


def _software(run: Run) -> list[str]:
    named: dict[str, set[str]] = {}
    for sidecar in (*run.emissions.values(), *run.organs.values(), *run.registrations.values()):
        found = {name: sidecar[name] for name in ("theraflow", "SimpleITK", "numpy") if name in sidecar}
        for name, version in {**found, **sidecar.get("versions", {})}.items():
            named.setdefault(name, set()).add(str(version))
    images = [f"{name} {' and '.join(sorted(versions))}" for name, versions in sorted(named.items())]
    cohort = _list(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return [
        *([f"Images were processed with {_list(images)}."] if images else []),
        f"Cohort tables, figures and this text were made with theraflow {theraflow.__version__}, Python "
        f"{platform.python_version()}, {cohort}.",
    ]


PARTS: Mapping[str, Callable[[Run], list[str]]] = {
    "Patients": _patients,
    "Imaging": _imaging,
    "Organs": _organs,
    "Registration": _registration,
    "Lesions": _lesions,
    "Dosimetry": _dosimetry,
    "Therapy": _therapy,
    "Response": _response,
    "Statistics": _statistics,
    "Software": _software,
}


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _were(n: int) -> str:
    return "was" if n == 1 else "were"


def _list(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = list(words)
    return f"{', '.join(first)} and {last}" if first else last


def _spread(values: Sequence[float], unit: str) -> str:
    """`a median of 301 MBq (range 280 to 320)`, or the value that all share; empty without values."""
    if not values:
        return ""
    low, high = (f"{number:.3g}" for number in (min(values), max(values)))
    if low == high:
        return f"{low} {unit}"
    return f"a median of {np.median(values):.3g} {unit} (range {low} to {high})"


def _range_words(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return _count(numbers[0], "time point")
    return f"{numbers[0]} to {numbers[-1]} time points"
