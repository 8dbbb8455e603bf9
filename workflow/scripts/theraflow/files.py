"""Files that are either whole or not there."""

import csv
import errno
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from theraflow.errors import TheraflowError


@contextmanager
def whole(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same suffixes; it becomes `path` only when the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def temporary_room() -> Iterator[None]:
    """Say in one sentence that the disk was full while the block worked with temporary files."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TheraflowError(
            f"There was no room left for temporary files: free some in {tempfile.gettempdir()}, or set the environment "
            f"variable TMPDIR to a folder with room."
        ) from error


def write_text(text: str, path: Path | str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(content: Any, path: Path | str) -> None:
    """Write JSON, whole or not at all. NaN is refused: a missing number is null."""
    write_text(json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n", path)


def write_tsv(rows: Sequence[Mapping[str, Any]], path: Path | str, columns: Sequence[str]) -> None:
    """Write a small tidy TSV, whole or not at all, without loading pandas; None becomes `NA`."""
    with whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows({column: "NA" if row[column] is None else row[column] for column in columns} for row in rows)


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        TheraflowError: the file is missing or no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TheraflowError(f"{path} cannot be read as JSON ({error}).") from error
