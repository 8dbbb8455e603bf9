"""A digest of the library's own code, so that a change of code reruns what depends on it, and nothing else."""

import ast
import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent


@cache
def code_digest(module: str, *tables: Path) -> str:
    """Digest over the source of a module of theraflow and of all modules of theraflow that it imports, at any depth.

    Args:
        module: for example `theraflow.organs`.
        tables: files of the repository that the module reads, which count as its code: as inputs of a rule they would
            make it run again after each new clone.
    """
    digest = hashlib.sha256()
    for path in [*sorted(_reached(module)), *tables]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _reached(module: str) -> set[Path]:
    waiting, found = set(_files(module)), set()
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting |= _imports(path) if path.suffix == ".py" else set()
    return found


@cache
def _files(module: str) -> frozenset[Path]:
    """The files of a module: a package brings all that lies in it, templates too."""
    parts = module.split(".")[1:]
    folder = ROOT.joinpath(*parts)
    if parts and folder.is_dir():
        return frozenset(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    path = folder.with_suffix(".py") if parts else ROOT / "__init__.py"
    return frozenset({path} if path.is_file() else ())


@cache
def _imports(path: Path) -> frozenset[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    ours = {name for name in names if name.split(".")[0] == "theraflow" and "." in name}
    return frozenset().union(*map(_files, ours)) if ours else frozenset()
