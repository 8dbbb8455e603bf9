"""What the workflow refuses while it plans, said in its own words alone."""

import logging
import re
import textwrap

# How Snakemake tells of a WorkflowError that a function of a rule has raised.
_TOLD = re.compile(r"Error:\n  WorkflowError:\n(?P<sentence>.*?)\nWildcards:\n", re.DOTALL)


def refusal_only(record: logging.LogRecord) -> bool:
    """Filter of Snakemake's logger that leaves of a refusal its sentence, without rule, line and traceback.

    All messages pass, and those of other errors as they are.
    """
    if getattr(record, "exception", None) == "InputFunctionException" and (told := _TOLD.search(record.getMessage())):
        record.msg, record.args = textwrap.dedent(told["sentence"]), ()
    return True
