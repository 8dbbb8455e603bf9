"""What every script of the workflow does around its work: log, threads, and one sentence where something is wrong."""

import contextlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from theraflow.errors import TheraflowError
from theraflow.files import GOES_ON, writing

FAILURE_SUFFIX = ".failure"
MORE_MEMORY = "run fewer jobs at a time (a smaller --cores), or give the job more memory"
KILLED = (
    "The job was killed before it ended, most likely for lack of memory (else by a time limit, by a person, or with "
    f"its machine): {MORE_MEMORY}, {GOES_ON}."
)
OUT_OF_MEMORY = f"The job needs more memory than there is: {MORE_MEMORY}, {GOES_ON}."


@contextmanager
def job(log: str, threads: int = 1, needs: Iterable[str] = ()) -> Iterator[None]:
    """Run the block as one job of the workflow.

    Messages and warnings go to the file `log`. A `TheraflowError` ends the process with its sentence and status 1; any
    other exception also with its traceback, in the log. While the job runs, and after it has failed or was killed, the
    file `log` + `.failure` holds the reason in one line; it is removed when the job succeeds. The cohort report reads
    it to say why a patient is missing.

    Args:
        log: the log file, replaced.
        threads: number of threads that numerical libraries may use.
        needs: files that the job reads although Snakemake does not know of it: without one of them it ends with a
            sentence, and does not take the patient for one who has no CT, no organs or no dosimetry.
    """
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ[variable] = str(threads)
    failure = Path(log + FAILURE_SUFFIX)
    try:
        with writing(log):
            _begin(Path(log), failure)
        _refuse_missing(needs)
        yield
    except TheraflowError as error:
        _fail(failure, str(error))
    except Exception as error:
        logging.error(traceback.format_exc())
        if _lacks_memory(error):
            _fail(failure, OUT_OF_MEMORY)
        _fail(failure, f"Unexpected {type(error).__name__}: {error} (an error of theraflow; details in {log}).")
    failure.unlink(missing_ok=True)  # on a cluster a job may run on beside the one that was started in its place


def _begin(log: Path, failure: Path) -> None:
    """Open the log, and write what is true if nothing else follows: that the job was killed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    logging.raiseExceptions = False  # on a full disk the log ends, not the job
    logging.basicConfig(filename=log, filemode="w", level=logging.INFO, format="%(levelname)s %(message)s", force=True)
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    failure.write_text(KILLED + "\n", encoding="utf-8")


def _refuse_missing(needs: Iterable[str]) -> None:
    missing = [path for path in needs if not Path(path).exists()]
    if missing:
        others = f" (and {len(missing) - 1} others)" if missing[1:] else ""
        raise TheraflowError(f"{missing[0]} is missing{others}: name it to snakemake, which makes it again.")


def _lacks_memory(error: BaseException) -> bool:
    """Also where a library in C++ says so in words only (ITK, PyTorch)."""
    return isinstance(error, MemoryError) or "bad_alloc" in str(error) or "allocate memory" in str(error)


def _fail(failure: Path, sentence: str) -> None:
    sentence = " ".join(sentence.split())
    logging.error(sentence)
    print(sentence, file=sys.stderr)
    # Over what is there: that takes no new room of a disk that is full.
    with contextlib.suppress(OSError), failure.open("r+", encoding="utf-8") as file:
        file.write(sentence + "\n")
        file.truncate()
    sys.exit(1)
