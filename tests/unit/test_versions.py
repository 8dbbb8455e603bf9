"""pyproject.toml is the one source of versions."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def check(root: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(root / "tools" / "versions.py"), "--check"]
    return subprocess.run(command, capture_output=True, text=True)


def test_lock_and_environment_follow_pyproject():
    result = check(ROOT)
    assert result.returncode == 0, result.stdout


def test_a_difference_is_found(tmp_path):
    (tmp_path / "tools").mkdir()
    for name in ("pyproject.toml", "requirements.lock", "environment.yml", "tools/versions.py", "Dockerfile",
                 "apptainer.def"):  # fmt: skip
        shutil.copy(ROOT / name, tmp_path / name)
    container = tmp_path / "Dockerfile"
    container.write_text(container.read_text().replace("ARG PYTHON=3.11", "ARG PYTHON=3.12"))
    lock = tmp_path / "requirements.lock"
    lock.write_text(lock.read_text().replace("pydicom==3", "pydicom==2") + "torchvision==0.28.0\n")
    result = check(tmp_path)
    assert result.returncode == 1
    assert "pins pydicom 2" in result.stdout
    assert "must not hold torchvision" in result.stdout
    assert "environment.yml differs" in result.stdout
    assert "Dockerfile names Python 3.12" in result.stdout and "apptainer.def" not in result.stdout


def test_the_installed_packages_are_those_of_the_lock():
    from importlib.metadata import version

    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if not line.startswith("#"):
            name, _, pinned = line.partition("==")
            assert version(name) == pinned, name
