"""What lets Snakemake plan a large cohort much faster, with the same plan.

For each job Snakemake works out again what is the same for all jobs of a rule: which parameters the rule's functions
take, its software environment, and whether its script can be read. It compares the paths of all outputs to find one
inside another, of which there mostly is none. And Python searches all that it holds for what nobody uses any more,
again and again while the plan grows and nothing of it is given up, and once more at the end, when all of it goes with
the process. docs/cohorts.md has what that costs.
"""

import atexit
import gc
import os
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from inspect import Parameter
from types import FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

import snakemake.api  # before its parts, which need one another
import snakemake.common
import snakemake.rules
from snakemake.dag import DAG, ScriptProcessor
from snakemake.jobs import Job

ParametersOf = Callable[[Callable], Mapping[str, Parameter]]


def plan_faster() -> None:
    """Let this process plan faster, without searches for what nobody uses; a second call changes nothing."""
    gc.disable()
    if hasattr(ScriptProcessor.process_job, "__wrapped__"):
        return
    remembered = remember(snakemake.common.get_function_params)
    for module in (snakemake.common, snakemake.rules):
        module.get_function_params = remembered
    ScriptProcessor.process_job = once_a_script(ScriptProcessor.process_job)
    Job.conda_env_spec = property(without_parameters(Job.conda_env_spec.fget))
    DAG.check_directory_outputs = where_one_is_inside_another(DAG.check_directory_outputs)
    atexit.register(gc.freeze)  # what is frozen is not taken apart object by object


def end_planning() -> None:
    """Let Python search again, but not the plan, which lasts as long as the process."""
    gc.freeze()
    gc.enable()


def remember(parameters_of: ParametersOf) -> ParametersOf:
    """The same answers, of which those for functions and for methods are worked out once.

    A function that is given up is forgotten. All other callables are asked each time, for they may change.
    """
    of_functions: WeakKeyDictionary = WeakKeyDictionary()
    of_methods: WeakKeyDictionary = WeakKeyDictionary()

    @wraps(parameters_of)
    def remembered(function: Callable) -> Mapping[str, Parameter]:
        plain, known = function, of_functions
        if isinstance(function, MethodType):
            plain, known = function.__func__, of_methods
        if not isinstance(plain, FunctionType):
            return parameters_of(function)
        if plain not in known:
            known[plain] = parameters_of(function)
        return known[plain]

    return remembered


def once_a_script(process_job: Callable[[ScriptProcessor, Job], None]) -> Callable[[ScriptProcessor, Job], None]:
    """The same look at a job's script, once a rule where all its jobs have the same."""
    seen: WeakKeyDictionary[ScriptProcessor, set[str]] = WeakKeyDictionary()

    @wraps(process_job)
    def process(self: ScriptProcessor, job: Job) -> None:
        scripts = seen.setdefault(self, set())
        if job.rule.name in scripts:
            return
        process_job(self, job)
        if "{" not in str(getattr(job.rule, self.script_type)):
            scripts.add(job.rule.name)

    return process


def without_parameters(environment_of: Callable[[Job], Any]) -> Callable[[Job], Any]:
    """The same environment of a job; its parameters are worked out only for an environment that depends on them.

    So what is wrong with the parameters of a job shows when it begins: what can be wrong belongs into its inputs.
    """

    @wraps(environment_of)
    def environment(self: Job) -> Any:
        if callable(self.rule.conda_env):
            return environment_of(self)
        return self.rule.expand_conda_env(self.wildcards_dict)

    return environment


def where_one_is_inside_another(check: Callable[[DAG], None]) -> Callable[[DAG], None]:
    """The same check, left out where no output of any job is inside another."""

    @wraps(check)
    def checked(self: DAG) -> None:
        if is_one_inside_another(output for job in self.jobs for output in job.output):
            check(self)

    return checked


def is_one_inside_another(paths: Iterable[str]) -> bool:
    """Whether any of the paths lies in a folder that is one of them, however deep.

    Args:
        paths: relative to the working directory, or absolute.
    """
    # Of a quarter of a million paths for a thousand patients, for which pathlib takes seconds.
    here = os.getcwd()  # noqa: PTH109
    known = {os.path.normpath(os.path.join(here, path)) for path in paths}  # noqa: PTH118
    folders: set[str] = set()
    found = {os.path.dirname(path) for path in known}  # noqa: PTH120
    while found:
        folders |= found
        found = {os.path.dirname(folder) for folder in found} - folders  # noqa: PTH120
    return not known.isdisjoint(folders)
