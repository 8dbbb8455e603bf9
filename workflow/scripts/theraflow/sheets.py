"""The user's sheets (`scans.tsv` and its companions), read with the standard library and checked against a schema.

The Snakefile reads them at every start, on every node: no pandas here.
"""

import codecs
import csv
import logging
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema

from theraflow.dicom.export.sniff import is_planar
from theraflow.errors import TheraflowError
from theraflow.layout import Scan

MISSING = ("", "NA")
# What `theraflow index` writes where it could not decide, and the columns in which it is a person's own word.
UNDECIDED = "?"
_FREE_COLUMNS = ("date", "note", "remark")
_SCAN_COLUMNS = ("lesions", "organs", "series", "injected_mbq", "injected_at", "acquired_at", "weight_kg", "height_cm",
                 "units", "decay_correction")  # fmt: skip
# `12,5` is a number in half of the world; `1,234` may be two, and stays what it is.
_DECIMAL_COMMA = re.compile(r"(?![+-]?[1-9]\d{0,2},\d{3}$)[+-]?\d+,\d+")
# What lesions depend on: a remark may change without a rerun.
_DECISION_COLUMNS = ("patient", "scan", "decision", "x_mm", "y_mm", "z_mm", "voxels", "name", "group", "reader")
_NAMED_BY = ("accept", "add", "split", "merge", "rename")


def read_sheet(path: Path | str, schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a TSV file as dictionaries without the missing cells; numbers where the schema says number.

    A spreadsheet may have saved it: UTF-8 or UTF-16 with a byte-order mark, any line ends, empty rows, and decimal
    commas where they cannot be thousands separators.

    Args:
        path: the sheet; first line is the header, `NA` or nothing is a missing cell.
        schema: JSON schema of one row.

    Raises:
        TheraflowError: the file, a column or a cell is missing or not what the schema asks for; names line and column.
    """
    return [_row(path, line, row, schema) for line, row in _cells(path, schema)]


def require_plain(path: Path | str, schema: Mapping[str, Any]) -> None:
    """Refuse a sheet that later stages, which read it as a plain table, would read otherwise.

    Args:
        path: the sheet.
        schema: JSON schema of one row.

    Raises:
        TheraflowError: it is not UTF-8, or a cell has blanks around it or a decimal comma; names line and column.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise TheraflowError(f"{path} is not UTF-8; save it as tab-separated text in UTF-8.") from error
    rows = [line.split("\t") for line in lines]
    for number, row in enumerate(rows, start=1):
        for name, cell in zip(rows[0], row, strict=False):
            numeric = "number" in str(schema["properties"].get(name.strip(), {}).get("type"))
            if cell != cell.strip() or (numeric and number > 1 and _DECIMAL_COMMA.fullmatch(cell)):
                raise TheraflowError(
                    f"{path}, line {number}, {name.strip()}: {cell!r} has blanks around it or a decimal comma; write "
                    "it without them."
                )


def _cells(path: Path | str, schema: Mapping[str, Any]) -> list[tuple[int, dict[str, str]]]:
    """The rows that are not empty, with their lines; the header has the columns that the schema asks for."""
    try:
        with Path(path).open(encoding=_encoding(path), newline="") as lines:
            reader = csv.DictReader(lines, delimiter="\t")
            header = reader.fieldnames or []
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeError) as error:
        raise TheraflowError(
            f"The sheet {path} cannot be read ({error}); it must be text in UTF-8 (in Excel: Unicode text)."
        ) from error
    for column in schema.get("required", []):
        if column not in header:
            raise TheraflowError(f"The sheet {path} lacks the column {column!r} (columns are separated by tabs).")
    unknown = [column for column in header if column and column not in schema["properties"]]
    if unknown and not schema.get("additionalProperties", True):
        logging.getLogger(__name__).warning("%s: columns not known and not used: %s", path, ", ".join(unknown))
    named = [(line, {column: cell for column, cell in row.items() if column and cell}) for line, row in rows]
    return [(line, row) for line, row in named if not all(_missing(cell) for cell in row.values())]


def _encoding(path: Path | str) -> str:
    with Path(path).open("rb") as file:
        return "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _missing(cell: str) -> bool:
    return cell.strip() in MISSING


def _row(path: Path | str, line: int, row: Mapping[str, str], schema: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for column, cell in row.items():
        if _missing(cell):
            continue
        if cell.strip() == UNDECIDED and column in schema["properties"] and column not in _FREE_COLUMNS:
            raise TheraflowError(
                f"The sheet {path}, line {line}, column {column!r}: '?' stands for what could not be decided; the "
                "column note says why; write what it is in its place."
            )
        kind = schema["properties"].get(column, {}).get("type", "string")
        out[column] = _number(cell) if kind in ("number", "integer") else cell.strip()
    known = {column: value for column, value in out.items() if column in schema["properties"]}
    problem = next(jsonschema.Draft202012Validator(schema).iter_errors(known), None)
    if problem:
        where = f"column {problem.path[0]!r}: " if problem.path else ""
        raise TheraflowError(f"The sheet {path}, line {line}, {where}{problem.message}.")
    return out


def _number(cell: str) -> float | str:
    text = cell.strip()
    try:
        number = float(text.replace(",", ".") if _DECIMAL_COMMA.fullmatch(text) else text)
    except ValueError:
        return cell
    return number if math.isfinite(number) else cell


def read_scans(path: Path | str, schema: Mapping[str, Any], tracers: Mapping[str, Any]) -> dict[str, list[Scan]]:
    """`scans.tsv` as scans by patient, in the order of the sheet.

    Raises:
        TheraflowError: as `read_sheet`; a scan named twice; a tracer that the configuration does not know; planar views
            without any other scan of the patient, or a column that has no meaning of them.
    """
    patients: dict[str, list[Scan]] = {}
    rows = read_sheet(path, schema)
    if not rows:
        raise TheraflowError(f"The sheet {path} names no scan.")
    for (patient, scan), count in Counter((row["patient"], row["scan"]) for row in rows).items():
        if count > 1:
            raise TheraflowError(f"The sheet {path} names scan {scan!r} of patient {patient!r} {count} times; "
                                 "give each scan of a patient its own name.")  # fmt: skip
    for row in rows:
        if row["tracer"] not in tracers:
            raise TheraflowError(f"The sheet {path} names the tracer {row['tracer']!r}, which is no key of `tracers` "
                                 f"in the configuration ({', '.join(tracers)}).")  # fmt: skip
        optional = {column: row[column] for column in _SCAN_COLUMNS if column in row}
        fixed = {column: row[column] for column in ("patient", "scan", "tracer", "timepoint", "dicom")}
        quantity = tracers[row["tracer"]]["quantity"]
        planar = row["planar"] == "yes" if "planar" in row else quantity == "activity" and is_planar(row["dicom"])
        if problem := _problem_of_planar(row, planar, quantity):
            raise TheraflowError(f"The sheet {path}, scan {row['scan']!r} of patient {row['patient']!r}: {problem}.")
        optional |= {"planar": planar, "before_voiding": row.get("before_voiding") == "yes"}
        patients.setdefault(row["patient"], []).append(Scan(**fixed, quantity=quantity, **optional))
    for patient, scans in patients.items():
        if all(scan.planar for scan in scans):
            raise TheraflowError(f"The sheet {path} names only planar scans of patient {patient!r}; their regions and "
                                 "what attenuates them come from a CT: add a scan that has one.")  # fmt: skip
    return patients


def _problem_of_planar(row: Mapping[str, Any], planar: bool, quantity: str) -> str | None:
    if planar and quantity == "suv":
        return f"planar views have no SUV, in which the tracer {row['tracer']!r} is measured"
    if planar and ("lesions" in row or "organs" in row):
        return "on planar views no regions can be drawn; give them with the patient's SPECT/CT or PET/CT"
    if not planar and row.get("before_voiding") == "yes":
        return "before_voiding has no meaning but of planar views"
    return None


def read_decisions(
    path: Path | str, schema: Mapping[str, Any], scans: Mapping[str, list[Scan]]
) -> dict[str, list[dict[str, Any]]]:
    """`decisions.tsv`, the readers' decisions about lesions, by patient.

    Rows without a decision are left out: drafts consist of them. The order of rows does not matter, so they are sorted,
    and neither line numbers nor remarks are kept: a patient's rows change only with that patient's decisions.

    Args:
        path: the sheet, see `config/README.md`.
        schema: JSON schema of one row.
        scans: of every patient, see `read_scans`.

    Returns:
        For every patient with a decision the rows, fit for `theraflow.lesions.Decision(**row)`; points in LPS.

    Raises:
        TheraflowError: as `read_sheet`; a patient or scan that is not in the sheet of scans; a name or group that is
            missing or has no meaning there; positive or negative on a scan that measures activity.
    """
    quantities = {(patient, scan.scan): scan.quantity for patient, own in scans.items() for scan in own}
    patients: dict[str, list[dict[str, Any]]] = {}
    for line, cells in _cells(path, schema):
        if _missing(cells.get("decision", "")):
            continue
        row = _row(path, line, {**cells, "decision": cells["decision"].strip().lower()}, schema)
        problem = _problem_of_decision(row, quantities)
        if problem:
            raise TheraflowError(f"The sheet {path}, line {line}: {problem}.")
        if row.get("axes") == "RAS":
            row |= {"x_mm": -row["x_mm"], "y_mm": -row["y_mm"]}
        patients.setdefault(row["patient"], []).append({c: row[c] for c in _DECISION_COLUMNS if c in row})
    return {patient: sorted(rows, key=lambda row: repr(sorted(row.items()))) for patient, rows in patients.items()}


def _problem_of_decision(row: Mapping[str, Any], quantities: Mapping[tuple[str, str], str]) -> str | None:
    patient, scan, decision = row["patient"], row["scan"], row["decision"]
    if (patient, scan) not in quantities:
        return f"the sheet of scans has no scan {scan!r} of patient {patient!r}"
    if decision in ("positive", "negative") and quantities[patient, scan] != "suv":
        return f"scan {scan!r} measures activity, of which no lesion is {decision}; decide it on a scan in SUV"
    if decision == "rename" and "name" not in row:
        return "rename needs the new name in the column name"
    if decision == "merge" and "group" not in row:
        return "merge needs a word in the column group, the same for all rows that become one lesion"
    if decision not in _NAMED_BY and "name" in row:
        return f"a name has no meaning beside {decision}; write rename in a row of its own"
    if decision != "merge" and "group" in row:
        return f"a group has no meaning beside {decision}; only regions that are merged have one"
    return None


def reference_scan(scans: list[Scan], tracer: str | None) -> Scan:
    """The scan to which all others of the patient are registered.

    The first baseline scan of the reference tracer; without one the first scan of that tracer, then the first SUV scan,
    then the first scan.
    """
    preferences = (
        lambda s: s.tracer == tracer and s.timepoint == "baseline",
        lambda s: s.tracer == tracer,
        lambda s: s.quantity == "suv",
    )
    for wanted in preferences:
        for scan in scans:
            if wanted(scan):
                return scan
    return scans[0]
