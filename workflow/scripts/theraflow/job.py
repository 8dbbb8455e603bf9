"""What every script of the workflow does around its work: log, threads, and one sentence where something is wrong."""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from theraflow.errors import TheraflowError

FAILURE_SUFFIX = ".failure"


@contextmanager
def job(log: str, threads: int = 1) -> Iterator[None]:
    """Run the block as one job of the workflow.

    Messages and warnings go to the file `log`. A `TheraflowError` ends the process with its sentence and status 1; any
    other exception also with its traceback, in the log. While the job runs, and after it has failed or was killed, the
    file `log` + `.failure` holds the reason in one line; it is removed when the job succeeds. The cohort report reads
    it to say why a patient is missing.

    Args:
        log: the log file, replaced.
        threads: number of threads that numerical libraries may use.
    """
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ[variable] = str(threads)
    path = Path(log)
    path.parent.mkdir(parents=True, exist_ok=True)
    failure = Path(log + FAILURE_SUFFIX)
    failure.write_text("The job was killed before it ended (memory, time limit or a stopped machine).\n")
    logging.basicConfig(filename=path, filemode="w", level=logging.INFO, format="%(levelname)s %(message)s", force=True)
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    try:
        yield
    except TheraflowError as error:
        _fail(failure, str(error))
    except Exception as error:
        logging.error(traceback.format_exc())
        _fail(failure, f"Unexpected {type(error).__name__}: {error} (an error of theraflow; details in {log}).")
    failure.unlink()


def _fail(failure: Path, sentence: str) -> None:
    sentence = " ".join(sentence.split())
    logging.error(sentence)
    failure.write_text(sentence + "\n", encoding="utf-8")
    print(sentence, file=sys.stderr)
    sys.exit(1)
