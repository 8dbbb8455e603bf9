"""The user's sheets (`scans.tsv` and its companions), read with the standard library and checked against a schema.

The Snakefile reads them at every start, on every node: no pandas here.
"""

import csv
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema

from theraflow.errors import TheraflowError
from theraflow.layout import Scan

MISSING = ("", "NA")
# What `theraflow index` writes where it could not decide.
UNDECIDED = "?"
_SCAN_COLUMNS = ("lesions", "organs", "series", "injected_mbq", "injected_at", "acquired_at", "weight_kg", "height_cm",
                 "units", "decay_correction")  # fmt: skip


def read_sheet(path: Path | str, schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a TSV file as dictionaries without the missing cells; numbers where the schema says number.

    Args:
        path: the sheet; first line is the header, `NA` or nothing is a missing cell.
        schema: JSON schema of one row.

    Raises:
        TheraflowError: the file, a column or a cell is missing or not what the schema asks for; names line and column.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, delimiter="\t")
            header, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise TheraflowError(f"The sheet {path} cannot be read ({error}).") from error
    for column in schema.get("required", []):
        if column not in header:
            raise TheraflowError(f"The sheet {path} lacks the column {column!r} (columns are separated by tabs).")
    unknown = [column for column in header if column and column not in schema["properties"]]
    if unknown and not schema.get("additionalProperties", True):
        logging.getLogger(__name__).warning("%s: columns not known and not used: %s", path, ", ".join(unknown))
    return [_row(path, number, row, schema) for number, row in enumerate(rows, start=2)]


def _row(path: Path | str, line: int, row: Mapping[str, str], schema: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for column, cell in row.items():
        if not column or cell is None or cell.strip() in MISSING:
            continue
        if cell.strip() == UNDECIDED and column in schema["properties"] and column not in ("date", "note"):
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
    try:
        return float(cell)
    except ValueError:
        return cell


def read_scans(path: Path | str, schema: Mapping[str, Any], tracers: Mapping[str, Any]) -> dict[str, list[Scan]]:
    """`scans.tsv` as scans by patient, in the order of the sheet.

    Raises:
        TheraflowError: as `read_sheet`; a scan named twice; a tracer that the configuration does not know.
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
        patients.setdefault(row["patient"], []).append(
            Scan(**fixed, quantity=tracers[row["tracer"]]["quantity"], **optional)
        )
    return patients


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
