"""What lets Snakemake plan a large cohort in about half the time, with the same plan.

For each job Snakemake works out again what is the same for all jobs of a rule: which parameters the rule's functions
take, and whether its script can be read. And Python searches all that it holds for what nobody uses any more, again and
again while the plan grows and nothing of it is given up. docs/cohorts.md has what that costs.
"""

import gc
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import Parameter
from types import FunctionType, MethodType
from weakref import WeakKeyDictionary

import snakemake.api  # before its parts, which need one another
import snakemake.common
import snakemake.rules
from snakemake.dag import ScriptProcessor
from snakemake.jobs import Job

# New objects until a search among the new, such searches until one among the middle-aged, and these until one in all.
# Python's own 700, 10 and 10 are made for programs that hold little.
OBJECTS, YOUNG, MIDDLE_AGED = 200_000, 50, 1000

ParametersOf = Callable[[Callable], Mapping[str, Parameter]]


def plan_faster() -> None:
    """Let this process plan faster; a second call changes nothing."""
    gc.set_threshold(OBJECTS, YOUNG, MIDDLE_AGED)
    if hasattr(ScriptProcessor.process_job, "__wrapped__"):
        return
    remembered = remember(snakemake.common.get_function_params)
    for module in (snakemake.common, snakemake.rules):
        module.get_function_params = remembered
    ScriptProcessor.process_job = once_a_script(ScriptProcessor.process_job)


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
