"""The command line: `theraflow index DICOM_TREE`, `theraflow progress`, or `python -m theraflow ...`."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from theraflow.errors import TheraflowError
from theraflow.pacs.command import add_commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 1 with a sentence on standard error where the user's input is wrong."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        options.run(options)
    except TheraflowError as error:
        print(f"theraflow {options.command}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left must not fail at the exit
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="theraflow", description="What comes before and beside the workflow.")
    commands = parser.add_subparsers(dest="command", required=True)
    index = commands.add_parser("index", help="draft scans.tsv and config.yaml from a tree of DICOM")
    index.add_argument("dicom_tree", type=Path, metavar="DICOM_TREE", help="folder with all patients, in any order")
    index.add_argument(
        "--output", type=Path, default=Path(), metavar="FOLDER", help="where the sheets go (default: here)"
    )
    index.set_defaults(run=_index)
    add_commands(commands.add_parser("pacs", help="studies from a PACS, results to it"))
    progress = commands.add_parser("progress", help="how far the workflow is: patients, stages, time left, memory")
    progress.add_argument(
        "results", type=Path, nargs="?", default=Path("results"), metavar="RESULTS",
        help="folder of results (default: results)",
    )  # fmt: skip
    progress.add_argument("--follow", action="store_true", help="print again and again until the run has ended")
    progress.set_defaults(run=_progress)
    return parser


def _index(options: argparse.Namespace) -> None:
    from theraflow.draft.sheet import draft_sheets

    draft = draft_sheets(options.dicom_tree, options.output)
    patients = len({row["patient"] for row in draft.scans})
    print(f"{options.output / 'scans.tsv'}: {len(draft.scans)} scans of {patients} patients")
    if draft.undecided:
        print(f"{draft.undecided} cells are marked ? because they could not be decided; the column note says why")
    print(f"{options.output / 'series.tsv'} says what every series is and why it was taken or not")


def _progress(options: argparse.Namespace) -> None:
    from theraflow.run.terminal import show_progress

    show_progress(options.results, options.follow)


if __name__ == "__main__":
    sys.exit(main())
