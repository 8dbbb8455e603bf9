"""A job lasts seconds: its script loads what its stage uses, and nothing heavy beside it."""

import ast
import importlib.util
import os
import pkgutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import theraflow
from theraflow.on_demand import names_on_demand

SCRIPTS = Path(theraflow.__file__).parents[1]
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py"))
DEEP_LEARNING = {"torch", "nnunetv2", "totalsegmentator"}
# What only some jobs come to, or come to late: no script waits for it.
ON_FIRST_USE = {"matplotlib", "lifelines", "highdicom",
                *(f"scipy.{part}" for part in ("fft", "integrate", "interpolate", "ndimage", "optimize", "signal",
                                                "sparse", "spatial", "special", "stats")),
                *(f"skimage.{part}" for part in ("measure", "morphology", "segmentation"))}  # fmt: skip
PAGES, OUTLINES, REGISTRATION = {"reportlab", "jinja2"}, {"skimage"}, {"picsl_greedy"}
EXCHANGE = {"nibabel", "pydicom"}
# What a stage has no use for, by its script. That of organs leaves deep learning to a process of its own.
UNUSED = {
    **dict.fromkeys(("import_ct", "import_emission", "import_planar", "normalise_pet"), {"pandas", "scipy"} | PAGES),
    "label_organs": PAGES | REGISTRATION,
    "register_scan": EXCHANGE | PAGES | OUTLINES,
    **dict.fromkeys(("find_candidates", "measure_lesions"), EXCHANGE | PAGES | REGISTRATION),
    **dict.fromkeys(("measure_activity", "measure_planar", "compute_doses", "assess_response", "map_dose",
                     "plan_therapy"), EXCHANGE | PAGES | REGISTRATION | OUTLINES),
    **dict.fromkeys(("report_patient", "report_patient_document", "draw_patient_panel", "draw_figures",
                     "write_methods"), {"scipy"} | EXCHANGE | REGISTRATION | OUTLINES),
    "write_dicom_objects": {"nibabel", "scipy"} | REGISTRATION | OUTLINES,
}  # fmt: skip
PACKAGES = [
    name
    for _, name, is_package in pkgutil.walk_packages([str(SCRIPTS / "theraflow")], "theraflow.")
    if is_package and "names_on_demand" in (SCRIPTS / Path(*name.split(".")) / "__init__.py").read_text()
]


@cache
def loaded(script: str) -> frozenset[str]:
    """The modules that a script has loaded when its imports are done, those inside its job too."""
    statements = ast.walk(ast.parse((SCRIPTS / f"{script}.py").read_text()))
    program = [ast.unparse(node) for node in statements if isinstance(node, ast.Import | ast.ImportFrom)]
    program.append("import sys; print(*sys.modules)")
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    command = [sys.executable, "-c", "\n".join(program)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return frozenset(result.stdout.split())


@pytest.mark.parametrize("script", NAMES)
def test_no_script_loads_deep_learning(script):
    assert not DEEP_LEARNING & loaded(script)


@pytest.mark.parametrize("script", UNUSED)
def test_a_script_loads_nothing_that_its_stage_does_not_use(script):
    assert script in NAMES
    assert not UNUSED[script] & loaded(script)


@pytest.mark.parametrize("script", NAMES)
def test_no_script_waits_for_what_is_loaded_on_first_use(script):
    assert not ON_FIRST_USE & loaded(script)


def test_what_is_used_is_seen_to_be_loaded():
    """The tests above can fail: every name in them is that of a module which some script loads, or can load."""
    assert loaded("report_patient") >= {"pandas", "jinja2"}
    assert loaded("report_patient_document") >= {"reportlab"}
    assert loaded("register_scan") >= {"scipy", *REGISTRATION}
    assert loaded("find_candidates") >= OUTLINES
    assert loaded("write_dicom_objects") >= {"pydicom"}
    assert all(map(importlib.util.find_spec, {"nibabel", *ON_FIRST_USE}))


@pytest.mark.parametrize("package", PACKAGES)
def test_names_on_demand_are_there_and_are_not_modules(package):
    """A name like that of a module would turn into the module as soon as somebody has loaded that."""
    module = importlib.import_module(package)
    names = set(module.__all__)
    assert names and not names & {name for _, name, _ in pkgutil.iter_modules(module.__path__)}
    for name in names:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_a_name_is_loaded_when_it_is_asked_for():
    sys.modules.pop("theraflow.png", None)
    names, load = names_on_demand("theraflow", {"png": ["small_png"]})
    assert names == ["small_png"] and "theraflow.png" not in sys.modules
    assert load("small_png").__name__ == "small_png" and "theraflow.png" in sys.modules
