"""Makes requirements.lock and environment.yml from pyproject.toml, the one source of versions.

    python tools/versions.py --write    resolve pyproject.toml (needs `uv`) and write both files
    python tools/versions.py --check    fail where either file differs from what pyproject.toml says

PyTorch is special: PyPI's Linux wheels of torch and torchvision carry CUDA (several GB). The lock leaves both out;
`make env` installs the CPU build of torch by default, the CUDA build with `make env TORCH=cuda`. torchvision is not
needed: only timm, which nnU-Net brings but never calls here, asks for it.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
ENVIRONMENT = ROOT / "environment.yml"
# Where the version of Python must be written once more, for nothing but a literal will do there.
CONTAINERS = {"Dockerfile": r"^ARG PYTHON=(\S+)$", "apptainer.def": r"^ +PYTHON=(\S+)$"}
PYTHON = "3.11"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
# The torchvision that belongs to the pinned torch; named only for conda users, whose pip follows dependencies.
TORCHVISION = "0.28.0"
LEFT_OUT = re.compile(r"^(torch|torchvision|triton|nvidia-.*|cuda-.*)$")


def requirements() -> list[Requirement]:
    """All direct requirements of the project, the development tools included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = project["dependencies"] + project["optional-dependencies"]["dev"]
    return [Requirement(line) for line in listed]


def resolve() -> dict[str, str]:
    """Exact version of every package, direct or not, as `uv` resolves them for the supported Python."""
    command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--extra", "dev"]
    command += [
        "--index-strategy",
        "unsafe-best-match",
        "--python-version",
        PYTHON,
        str(ROOT / "pyproject.toml"),
    ]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    pins = dict(line.split("==") for line in out.splitlines() if "==" in line)
    return {re.sub(r"\[.*\]", "", name): version for name, version in pins.items()}


def lock_text(pins: dict[str, str]) -> str:
    """The text of requirements.lock for the given exact versions."""
    head = "# Made by tools/versions.py from pyproject.toml. torch is installed beside it: see `make env`.\n"
    kept = sorted(name for name in pins if not LEFT_OUT.match(name))
    return head + "".join(f"{name}=={pins[name]}\n" for name in kept)


def read_lock() -> dict[str, str]:
    """Exact versions in requirements.lock."""
    lines = (line for line in LOCK.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("==") for line in lines)


def torch_version() -> str:
    """The exact torch version that pyproject.toml asks for."""
    (torch,) = (item for item in requirements() if item.name == "torch")
    return str(torch.specifier).removeprefix("==")


def environment_text(pins: dict[str, str]) -> str:
    """The text of environment.yml for the given exact versions."""
    lines = [
        "# Made by tools/versions.py from pyproject.toml: do not edit by hand.",
        "name: theraflow",
        "channels: [conda-forge, nodefaults]",
        "dependencies:",
        f"  - python={PYTHON}",
        "  - pip",
        "  - pip:",
        f"      - --extra-index-url {TORCH_INDEX}",
        f"      - torch=={torch_version()}+cpu",
        f"      - torchvision=={TORCHVISION}+cpu",
    ]
    lines += [f"      - {name}=={version}" for name, version in sorted(pins.items())]
    return "\n".join(lines) + "\n"


def differences() -> list[str]:
    """One sentence for each way in which the files differ from pyproject.toml."""
    pins = read_lock()
    found = []
    for item in requirements():
        version = pins.get(canonicalize_name(item.name))
        if LEFT_OUT.match(item.name):
            continue
        if version is None:
            found.append(f"requirements.lock lacks {item.name}, which pyproject.toml names.")
        elif version not in item.specifier:
            found.append(f"requirements.lock pins {item.name} {version}, but pyproject.toml asks for {item}.")
    found += [f"requirements.lock must not hold {name}." for name in pins if LEFT_OUT.match(name)]
    if ENVIRONMENT.read_text() != environment_text(pins):
        found.append("environment.yml differs from requirements.lock: run `python tools/versions.py --write`.")
    for name, pattern in CONTAINERS.items():
        named = set(re.findall(pattern, (ROOT / name).read_text(), re.MULTILINE))
        if named != {PYTHON}:
            found.append(f"{name} names Python {', '.join(sorted(named)) or 'nowhere'}, but the lock is for {PYTHON}.")
    return found


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true")
    action.add_argument("--check", action="store_true")
    if parser.parse_args().write:
        pins = resolve()
        LOCK.write_text(lock_text(pins))
        ENVIRONMENT.write_text(environment_text(read_lock()))
    found = differences()
    print("\n".join(found) or "pyproject.toml, requirements.lock, environment.yml and the containers agree.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
