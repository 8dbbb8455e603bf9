"""The command line: `theraflow index DICOM_TREE`, or `python -m theraflow index DICOM_TREE`."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from theraflow.errors import TheraflowError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 1 with a sentence on standard error where the user's input is wrong."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        options.run(options)
    except TheraflowError as error:
        print(f"theraflow {options.command}: {error}", file=sys.stderr)
        return 1
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
    return parser


def _index(options: argparse.Namespace) -> None:
    from theraflow.draft.sheet import draft_sheets

    draft = draft_sheets(options.dicom_tree, options.output)
    patients = len({row["patient"] for row in draft.scans})
    print(f"{options.output / 'scans.tsv'}: {len(draft.scans)} scans of {patients} patients")
    if draft.undecided:
        print(f"{draft.undecided} cells are marked ? because they could not be decided; the column note says why")
    print(f"{options.output / 'series.tsv'} says what every series is and why it was taken or not")


if __name__ == "__main__":
    sys.exit(main())
