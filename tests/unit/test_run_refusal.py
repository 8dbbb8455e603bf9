"""Of what the workflow refuses while it plans, the sentence is left; all other messages stay as they are."""

import logging
from types import SimpleNamespace

import pytest
from snakemake.exceptions import InputFunctionException, WorkflowError

from theraflow.run.refusal import refusal_only

SENTENCE = "scans.tsv has no patient 'P9'."
RULE = SimpleNamespace(workflow=SimpleNamespace(linemaps={}), name="register", lineno=1, snakefile="register.smk")


def said(error: Exception, exception: str = "InputFunctionException") -> str:
    told = InputFunctionException(error, wildcards={"patient": "P9", "scan": "fdg"}, rule=RULE)
    record = logging.LogRecord("snakemake", logging.ERROR, __file__, 1, "In rule register:\n%s", (told,), None)
    record.exception = exception
    assert refusal_only(record)
    return record.getMessage()


@pytest.mark.parametrize("sentence", [SENTENCE, "Of two lines,\nthe second.", "With 100 % of %s."])
def test_a_refusal_is_its_sentence_alone(sentence):
    assert said(WorkflowError(sentence)) == sentence


@pytest.mark.parametrize("error", [KeyError("P9"), ValueError(SENTENCE)])
def test_a_defect_keeps_where_it_is(error):
    told = said(error)
    assert "In rule register" in told
    assert "patient=P9" in told


def test_other_messages_stay():
    assert "In rule register" in said(WorkflowError(SENTENCE), exception="LockException")
