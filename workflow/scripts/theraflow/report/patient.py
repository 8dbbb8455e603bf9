"""The report of one patient."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

import theraflow
from theraflow.dosimetry.contract import DOSE_COLUMNS, PLAN_COLUMNS
from theraflow.files import read_json, write_text
from theraflow.images import read_image, read_sidecar, sidecar_path, to_array
from theraflow.layout import PatientFolder, Scan
from theraflow.lesions.contract import ALL_SITES, BURDEN_COLUMNS
from theraflow.registration.outcome import read_beside_emission
from theraflow.report.display import (
    Cell,
    Columns,
    Table,
    count,
    data_uri,
    fixed,
    is_missing,
    signed,
    significant,
    templates,
    text,
)
from theraflow.report.dosimetry import dosimetry_section
from theraflow.report.lesions import at_least, lesion_section, read_lesions, unsearched_scans
from theraflow.report.pictures import SUV_WINDOW, draw_fused, draw_projections, picture_uri
from theraflow.report.quality import ScanQuality, check_scan, is_miniature, remarks_of, summarise
from theraflow.report.response import response_section
from theraflow.report.rotation import VIEWS, draw_rotation, seen_from
from theraflow.report.tables import optional_table
from theraflow.report.viewer import page_data, read_library, reduce_scans
from theraflow.response.contract import RESPONSE_COLUMNS

RESULT_SUFFIXES = (".tsv", ".nii.gz", ".h5", ".json")
VERSIONED = ("theraflow", "SimpleITK", "numpy")  # by these names in sidecars
# Entries of sidecars that are no provenance: shown elsewhere, too long, or dates.
NOT_SHOWN = {"patient", "scan", "labels", "organs", "acquired_at", "injected_at", "reference_time", "flags"}


def write_patient_report(
    folder: PatientFolder, scans: Sequence[Scan], settings: Mapping[str, Any], viewer: Path | str, output: Path | str
) -> None:
    """Write the patient's report, one HTML file that needs no other.

    Args:
        folder: the patient's results; what is not there (CT, organs, dosimetry) is named with the reason.
        scans: all scans of the patient, in the order of the sheet.
        settings: of the configuration: `tracers` (order and quantity of tracers); all of it is told as provenance.
        viewer: NiiVue's script, as `theraflow.report.viewer.fetch_library` installs it.
        output: the HTML file.

    Raises:
        TheraflowError: an emission image, its sidecar, `lesions.tsv` or the viewer's script is missing or cannot be
            read.
    """
    lesions = read_lesions(folder)
    suv_scans = [scan for scan in scans if scan.quantity == "suv"]
    activity_scans = [scan for scan in scans if scan.quantity == "activity"]
    sidecars = {scan.scan: read_sidecar(folder.emission(scan)) for scan in scans}
    checks = [check_scan(folder, scan) for scan in scans]
    library, files = read_library(viewer), _result_files(folder, scans)
    page = {
        "title": f"Patient {folder.patient}",
        "subtitle": f"{count(len(scans), 'scan')}, {count(lesions['lesion'].nunique(), 'lesion')}",
        "version": theraflow.__version__,
        "miniature": is_miniature(folder, scans),
        "facts": _facts(folder, lesions, suv_scans),
        "lights": summarise(
            checks,
            lesions,
            len(unsearched_scans(folder, suv_scans)),
            optional_table(folder, "doses", DOSE_COLUMNS),
            optional_table(folder, "plan", PLAN_COLUMNS),
            optional_table(folder, "response", RESPONSE_COLUMNS),
        ),
        "checks": checks,
        "remarks": remarks_of(checks),
        "registrations": _registrations(folder, checks),
        "scan_table": _scan_table(scans, sidecars),
        "window": f"{SUV_WINDOW:g}",
        "library": library,
        **_viewer_section(folder, lesions, suv_scans),
        "files": _hashes(folder, files),
        "versions": _versions(files, library.version),
        "parameters": list(_flat(settings)),
        "provenance": _provenance(folder, scans, sidecars),
        **lesion_section(folder, lesions, suv_scans, settings),
        **_picture_section(folder, lesions, suv_scans),
        **dosimetry_section(folder, activity_scans),
        **response_section(folder, suv_scans),
    }
    write_text(templates().get_template("patient.html").render(page), output)


def _facts(folder: PatientFolder, lesions: pd.DataFrame, scans: Sequence[Scan]) -> list[tuple[str, str, str]]:
    """What one wants to know first: name, value, detail."""
    burden = optional_table(folder, "burden", BURDEN_COLUMNS)
    volumes = burden[burden["site"] == ALL_SITES].set_index("scan")
    facts = [_scan_fact(scan, lesions[lesions["scan"] == scan.scan], volumes) for scan in scans]
    doubtful = lesions.loc[lesions["look"].notna(), "lesion"].nunique()
    if doubtful:
        facts.append(("A person should look at", count(doubtful, "lesion"), "see Lesions"))
    for row in optional_table(folder, "response", RESPONSE_COLUMNS).itertuples():
        details = [] if is_missing(row.change_percent) else [f"{signed(row.change_percent).text} %"]
        if not is_missing(row.new_lesions) and row.new_lesions:
            details.append(count(int(row.new_lesions), "new lesion"))
        facts.append((f"{row.criterion}, {row.followup}", str(row.category), ", ".join(details)))
    doses = optional_table(folder, "doses")
    if len(doses):
        therapy = doses["nuclide"].iloc[-1]
        own = doses[(doses["kind"] == "lesion") & (doses["nuclide"] == therapy)].dropna(subset=["dose_gy_per_gbq"])
        if len(own):
            best = own.loc[own["dose_gy_per_gbq"].idxmax()]
            value = f"{significant(best['dose_gy_per_gbq']).text} Gy/GBq"
            facts.append((f"Highest lesion dose, {therapy}", value, str(best["region"])))
    return facts


def _scan_fact(scan: Scan, own: pd.DataFrame, volumes: pd.DataFrame) -> tuple[str, str, str]:
    """How many lesions are positive on a scan, their volume, and how high their uptake is."""
    positive = own[own["positive"].eq(True)]  # NA is neither
    details = []
    if own["positive"].isna().any():
        details.append(f"{own['positive'].isna().sum()} not measured")
    if len(positive) and scan.scan in volumes.index:
        row = volumes.loc[scan.scan]
        details.append(f"{at_least(row['mtv_ml'], row['mtv_measured_ml']).text} mL")
    if len(positive):
        details.append(f"SUVpeak up to {positive['suv_peak'].max():.1f}")
    number = f"{len(positive)} of {len(own)}" if len(own) else "none"
    return f"{scan.tracer}, {scan.timepoint}: positive lesions", number, ", ".join(details)


def _registrations(folder: PatientFolder, checks: Sequence[ScanQuality]) -> list[tuple[str, ScanQuality, str]]:
    """Picture, scan with its light, and measures in words, of every scan that was registered to another."""
    shown = []
    for check in checks:
        path = folder.registration_picture(check.scan.scan)
        if not path.is_file():
            continue
        quality = read_json(folder.registration_quality(check.scan.scan))
        if quality["reference"] != check.scan.scan:
            shown.append((data_uri(path.read_bytes(), "image/png"), check, registration_in_words(quality)))
    return shown


def registration_in_words(quality: Mapping[str, Any]) -> str:
    """The measures of a registration, in a sentence or two.

    Args:
        quality: what `theraflow.registration.judge` writes.
    """
    measures = []
    counted = {name: organ for name, organ in quality["organs"].items() if organ["counts"]}
    if counted and quality["organs_remark"] is None:
        worst = min(counted, key=lambda name: counted[name]["dice"])
        measures += [
            f"Dice of {len(counted)} organs {quality['organ_dice_median']:.2f} (median; least "
            f"{counted[worst]['dice']:.2f}, {worst.replace('_', ' ')})",
            f"distance of their surfaces {quality['organ_surface_median_mm']:.1f} mm (median)",
        ]
    if quality["body_overlap_dice"] is not None:
        measures.append(f"overlap of the bodies {quality['body_overlap_dice']:.2f}")
    measures.append(f"folding {100 * quality['folding_fraction']:.2g} % of the voxels")
    remark = quality["organs_remark"]
    return f"{'; '.join(measures)}." + (f" Organs have no part in the verdict: {remark}." if remark else "")


def _scan_table(scans: Sequence[Scan], sidecars: Mapping[str, Mapping[str, Any]]) -> Table:
    facts = [sidecars[scan.scan] for scan in scans]
    columns = Columns()
    columns.add("Scan", [text(scan.scan, "strong") for scan in scans])
    columns.add("Radiopharmaceutical", [Cell(fact.get("radiopharmaceutical") or scan.tracer)
                                        for scan, fact in zip(scans, facts, strict=True)])  # fmt: skip
    columns.add("Time point", [text(scan.timepoint) for scan in scans])
    columns.add("Injected, MBq", [fixed(fact.get("injected_mbq")) for fact in facts], numeric=True)
    columns.add("After injection, h", [fixed(fact.get("time_after_injection_h"), 2) for fact in facts], numeric=True)
    columns.add("Weight, kg", [fixed(fact.get("weight_kg")) for fact in facts], numeric=True)
    columns.add("Quantity", [text(fact["quantity"]) for fact in facts])
    rules = [fact.get("suv") or {} for fact in facts]
    columns.add("SUV rule", [text(rule.get("rule")) for rule in rules])
    columns.add("Decay correction", [text(rule.get("decay_correction")) for rule in rules])
    return columns.table()


def _picture_section(folder: PatientFolder, lesions: pd.DataFrame, scans: Sequence[Scan]) -> dict[str, Any]:
    projections, slices, absent = [], [], []
    for scan in scans:
        name = _title(scan)
        own = lesions[(lesions["scan"] == scan.scan) & lesions["suv_peak"].notna()]
        names = dict(zip(own["label"].astype(int), own["lesion"].astype(str), strict=True))
        pet, labels = read_image(folder.emission(scan)), read_image(folder.lesion_map(scan.scan))
        projections.append((picture_uri(draw_projections(pet, labels, names), colours=96), name))
        shown = set(np.unique(to_array(labels)).tolist())
        own = own[own["label"].isin(shown)]
        if own.empty:
            absent.append(f"No axial slice of {name}: no lesion was measured on it.")
            continue
        hottest = own.loc[own["suv_peak"].idxmax()]
        path = folder.ct(scan.scan)
        ct = read_beside_emission(folder, scan.scan, path) if path.is_file() else None
        organs, organ_names = _organs(folder, scan)
        figure = draw_fused(pet, labels, int(hottest["label"]), ct, organs, organ_names)
        caption = f"{name}: {hottest['lesion']}, SUVpeak {hottest['suv_peak']:.1f}. "
        if ct is None:
            caption += "PET alone in inverted grey, because the scan has no CT. Lesion outlines light blue."
        else:
            caption += f"PET (colour, SUV 0 to {SUV_WINDOW:g}) on CT (−160 to 240 HU). Lesion outlines light blue."
        slices.append((picture_uri(figure), name, caption))
    return {"projections": projections, "slices": slices, "pictures_absent": absent}


def _viewer_section(folder: PatientFolder, lesions: pd.DataFrame, scans: Sequence[Scan]) -> dict[str, Any]:
    """What the viewer is told, its volumes by name, and the turning projections."""
    reduced = reduce_scans(folder, scans, lesions) if scans else []
    turning = [(_title(scan), *draw_rotation(*map(read_image, (folder.emission(scan), folder.lesion_map(scan.scan)))))
               for scan in scans]  # fmt: skip
    return {
        "viewer": page_data(reduced, lesions),
        "volumes": [(f"{told.scan.scan}-{kind}", content) for told in reduced for kind, content in told.images.items()],
        "turning": turning,
        "seen_from": [seen_from(view) for view in range(VIEWS)],
    }


def _title(scan: Scan) -> str:
    return f"{scan.tracer}, {scan.timepoint} ({scan.scan})"


def _organs(folder: PatientFolder, scan: Scan) -> tuple[sitk.Image | None, dict[int, str]]:
    path = folder.organs(scan.scan)
    if not path.is_file():
        return None, {}
    names = {int(label): name for label, name in read_sidecar(path)["labels"].items()}
    return read_beside_emission(folder, scan.scan, path), names


def _provenance(
    folder: PatientFolder, scans: Sequence[Scan], sidecars: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Name of a file and its entries, for every sidecar of the patient."""
    files: list[tuple[str, Mapping[str, Any]]] = []
    for scan in scans:
        files.append((f"{scan.scan}: {scan.emission}", sidecars[scan.scan]))
        others = {
            "ct": sidecar_path(folder.ct(scan.scan)),
            "organs": sidecar_path(folder.organs(scan.scan)),
            "CT and emission": folder.emission_check(scan.scan),
            "registration": folder.registration_quality(scan.scan),
            "lesions": sidecar_path(folder.lesion_map(scan.scan)),
        }
        files += [(f"{scan.scan}: {name}", read_json(path)) for name, path in others.items() if path.is_file()]
    if sidecar_path(folder.dose_map).is_file():
        files.append(("dose map", read_json(sidecar_path(folder.dose_map))))
    return [(name, list(_flat(content))) for name, content in files]


def _result_files(folder: PatientFolder, scans: Sequence[Scan]) -> list[Path]:
    """Images, transforms, tables and sidecars of the listed scans and of the stages before the report."""
    lesions = folder.table("lesions").parent
    places = [(folder.root, "*.tsv"), (lesions, "*"), (lesions / "scans", "*"), (folder.dosimetry, "*")]
    for scan in scans:
        places.append((folder.emission(scan).parent, "*"))
        places.append((lesions / "candidates", f"{scan.scan}.*"))
        places.append((folder.registration_quality(scan.scan).parent, f"{scan.scan}.*"))
    found = (path for place, pattern in places for path in sorted(place.glob(pattern)))
    # A name that begins with a point is a file that another job is about to write.
    return [path for path in found if path.name.endswith(RESULT_SUFFIXES) and not path.name.startswith(".")]


def _hashes(folder: PatientFolder, paths: Sequence[Path]) -> list[tuple[str, str]]:
    """Path within the patient's folder and SHA-256 of each file."""
    hashed = []
    for path in paths:
        with path.open("rb") as file:
            hashed.append((str(path.relative_to(folder.root)), hashlib.file_digest(file, "sha256").hexdigest()))
    return hashed


def _versions(paths: Sequence[Path], viewer: str) -> list[tuple[str, str]]:
    """Program or library, and the versions of it that the sidecars name."""
    found: dict[str, set[str]] = {"theraflow": {theraflow.__version__}, "NiiVue": {viewer}}
    for content in (read_json(path) for path in paths if path.suffix == ".json"):
        for name in VERSIONED:
            if name in content:
                found.setdefault(name, set()).add(str(content[name]))
    return [(name, ", ".join(sorted(versions))) for name, versions in found.items()]


def _flat(content: Mapping[str, Any], prefix: str = "") -> Any:
    """Entries of nested mappings as (`outer.inner`, text)."""
    for key, value in content.items():
        if key in NOT_SHOWN:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield f"{prefix}{key}", ", ".join(str(entry) for entry in value) or "none"
        else:
            yield f"{prefix}{key}", "none" if value is None else str(value)
