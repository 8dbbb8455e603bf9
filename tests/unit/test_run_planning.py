"""Planning faster changes nothing of the plan, and of what Snakemake refuses."""

import functools
import gc
import inspect
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import theraflow
from theraflow.run import planning

LIBRARY = Path(theraflow.__file__).parents[1]
# Two rules with a script for all their jobs, of which one is missing, and one with a script for each job; three with
# a software environment: for all jobs, for each job, or by a parameter; and two of which one writes into the other.
SNAKEFILE = """
import sys

sys.path.insert(0, {library!r})
from theraflow.run.planning import plan_faster

if config["faster"] == "yes":
    plan_faster()


rule all:
    input:
        expand("{{rule}}/{{number}}", rule=config["rules"].split("+"), number=range(3)),


rule there:
    output: "there/{{number}}"
    params: double=lambda wildcards: 2 * int(wildcards.number)
    resources: mem_mb=lambda wildcards, attempt: 100 * attempt
    script: "there.py"


rule missing:
    output: "missing/{{number}}"
    script: "missing.py"


rule of_each:
    output: "of_each/{{number}}"
    script: "of_each_{{wildcards.number}}.py"


rule environment:
    output: "environment/{{number}}"
    conda: "environment.yml"
    script: "there.py"


rule environment_of_each:
    output: "environment_of_each/{{number}}"
    conda: "environment_{{number}}.yml"
    script: "there.py"


rule environment_by_parameter:
    output: "environment_by_parameter/{{number}}"
    params: name=lambda wildcards: f"environment_{{wildcards.number}}.yml"
    conda: lambda wildcards, params: params.name
    script: "there.py"


rule folder:
    output: directory("folder/{{number}}")
    script: "there.py"


rule inside:
    output: "folder/{{number}}/{{part}}"
    script: "there.py"


rule inside_itself:
    output: directory("itself/{{number}}"), "itself/{{number}}/inside"
    script: "there.py"


wildcard_constraints:
    number="[0-9]",
"""


def described(kind):
    def plain(wildcards, input, *, attempt=1): ...

    class Callables:
        def method(self, wildcards, threads): ...

        @classmethod
        def of_class(cls, wildcards): ...

        @staticmethod
        def static(wildcards, output): ...

        def __call__(self, wildcards, resources): ...

    return {
        "function": plain,
        "lambda": lambda wildcards, **others: others,
        "method": Callables().method,
        "the same method unbound": Callables.method,
        "class method": Callables.of_class,
        "static method": Callables.static,
        "object": Callables(),
        "partial": functools.partial(plain, attempt=2),
        "decorated": functools.cache(plain),
        "builtin": len,
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["function", "lambda", "method", "the same method unbound", "class method", "static method", "object", "partial",
     "decorated", "builtin"],
)  # fmt: skip
def test_the_parameters_of_a_function_are_what_python_says(kind):
    function = described(kind)
    remembered = planning.remember(lambda asked: inspect.signature(asked).parameters)
    assert remembered(function) == remembered(function) == inspect.signature(function).parameters


def test_a_method_and_its_function_do_not_answer_for_each_other():
    method, function = described("method"), described("the same method unbound")
    remembered = planning.remember(lambda asked: inspect.signature(asked).parameters)
    assert list(remembered(method)) == ["wildcards", "threads"]
    assert list(remembered(method.__func__)) == list(remembered(function)) == ["self", "wildcards", "threads"]


def test_a_function_is_asked_once_and_forgotten_when_it_is_given_up():
    asked = []

    def parameters_of(function):
        asked.append(function.__name__)
        return inspect.signature(function).parameters

    remembered = planning.remember(parameters_of)
    function = described("function")
    for _ in range(3):
        remembered(function)
    assert asked == ["plain"]
    watched = weakref.ref(function)
    del function
    gc.collect()
    assert watched() is None


def test_snakemake_has_what_is_remembered():
    program = (
        "import gc, snakemake.common as common, snakemake.rules as rules\n"
        "from theraflow.run.planning import ScriptProcessor, plan_faster\n"
        "from theraflow.run.planning import DAG, Job, end_planning\n"
        "asked, looked = rules.get_function_params, ScriptProcessor.process_job\n"
        "environment_of, check = Job.conda_env_spec.fget, DAG.check_directory_outputs\n"
        "plan_faster(); plan_faster()\n"
        "assert common.get_function_params is rules.get_function_params\n"
        "assert rules.get_function_params.__wrapped__ is asked\n"
        "assert ScriptProcessor.process_job.__wrapped__ is looked\n"
        "assert Job.conda_env_spec.fget.__wrapped__ is environment_of\n"
        "assert DAG.check_directory_outputs.__wrapped__ is check\n"
        "assert not gc.isenabled()\n"
        "end_planning()\n"
        "assert gc.isenabled() and gc.get_freeze_count() > 10_000\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def plan(folder, rules, faster):
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "--scheduler", "greedy", "-q", "host",
               "--config", f"faster={faster}", f"rules={rules}"]  # fmt: skip
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    told = (result.stdout + result.stderr).splitlines()
    return result.returncode, [line for line in told if not line.startswith("[")]  # without the moments


@pytest.fixture
def workflow(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(library=str(LIBRARY)))
    for name in ("there", "of_each_0", "of_each_1", "of_each_2"):
        (tmp_path / f"{name}.py").write_text("")
    for name in ("environment", "environment_0", "environment_1", "environment_2"):
        (tmp_path / f"{name}.yml").write_text("dependencies: [python]\n")
    return tmp_path


@pytest.mark.parametrize(
    ("rules", "jobs"),
    [
        ("there+of_each", 7),
        ("environment+environment_of_each+environment_by_parameter", 10),
        ("folder+itself", 7),
    ],
)
def test_the_plan_is_the_same(workflow, rules, jobs):
    slow, fast = (plan(workflow, rules, faster) for faster in ("no", "yes"))
    assert fast == slow
    assert slow[0] == 0
    assert any(line.split() == ["total", str(jobs)] for line in slow[1])


@pytest.mark.parametrize("rules", ["there+missing", "of_each"])
def test_a_script_that_is_missing_is_told_as_before(workflow, rules):
    (workflow / "of_each_2.py").unlink()
    (slow, of_slow), (fast, of_fast) = (plan(workflow, rules, faster) for faster in ("no", "yes"))
    assert slow == fast == 1
    reason = next(line for line in reversed(of_slow) if line)
    assert f"{workflow}/" in reason
    assert reason in of_fast


def test_an_output_inside_that_of_another_rule_is_told_as_before(workflow):
    (slow, of_slow), (fast, of_fast) = (plan(workflow, "folder+folder/1", faster) for faster in ("no", "yes"))
    assert slow == fast == 1
    assert any("is a child to another output" in line for line in of_slow)
    assert of_slow == of_fast


PATHS = st.lists(st.sampled_from(["a", "b", ".", ""]), max_size=3).map(lambda parts: "/".join(["a", *parts]))


@given(st.lists(st.one_of(PATHS, PATHS.map(lambda path: str(Path(path).absolute()))), max_size=6))
def test_a_path_inside_another_is_found(paths):
    absolute = {Path(path).absolute() for path in paths}
    inside = any(folder in path.parents for path in absolute for folder in absolute)
    assert planning.is_one_inside_another(paths) == inside
