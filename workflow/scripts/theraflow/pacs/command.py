"""`theraflow pacs echo | find | fetch | send`."""

import argparse
import csv
import sys
from datetime import datetime
from pathlib import Path

from theraflow.errors import TheraflowError


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the commands below `theraflow pacs`."""
    commands = parser.add_subparsers(dest="service", required=True)

    echo = commands.add_parser("echo", help="ask whether the PACS hears us")
    echo.set_defaults(run=_echo)

    find = commands.add_parser("find", help="list studies; the table on standard output tells who the patients are")
    find.add_argument("--patient-id", default="", metavar="ID", help="PatientID; * and ? stand for any characters")
    find.add_argument("--accession-number", default="", metavar="NUMBER")
    find.add_argument("--from", dest="first", type=_date, metavar="DATE", help="studies since YYYY-MM-DD")
    find.add_argument("--to", dest="last", type=_date, metavar="DATE", help="studies until YYYY-MM-DD")
    find.add_argument("--modality", nargs="+", default=[], type=str.upper, metavar="CODE",
                      help="only studies with PT, CT, NM, ...")  # fmt: skip
    find.set_defaults(run=_find)

    fetch = commands.add_parser("fetch", help="fetch the studies of a sheet into a folder of DICOM")
    fetch.add_argument("sheet", type=Path, metavar="SHEET", help="fetch.tsv: patient; patient_id, accession_number or "
                       "study_instance_uid; modalities")  # fmt: skip
    fetch.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where the DICOM goes")
    fetch.set_defaults(run=_fetch)

    send = commands.add_parser("send", help="send DICOM objects, as those in results/P001/dicom")
    send.add_argument("places", type=Path, nargs="+", metavar="FOLDER", help="folders or files")
    send.set_defaults(run=_send)

    for command in (echo, find, fetch, send):
        command.add_argument("--pacs", type=Path, required=True, metavar="YAML", help="the connection")


def _date(text: str) -> str:
    """A date as DICOM writes it."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").strftime("%Y%m%d")
    except ValueError:
        raise argparse.ArgumentTypeError("a date is written YYYY-MM-DD") from None


def _echo(options: argparse.Namespace) -> None:
    from theraflow.pacs.association import echo
    from theraflow.pacs.connection import read_connection

    connection = read_connection(options.pacs)
    echo(connection)
    print(f"The {connection} answers.")


def _find(options: argparse.Namespace) -> None:
    from theraflow.pacs.connection import read_connection
    from theraflow.pacs.query import STUDY_COLUMNS, find_studies

    between = f"{options.first or ''}-{options.last or ''}" if options.first or options.last else ""
    keys = {"PatientID": options.patient_id, "AccessionNumber": options.accession_number, "StudyDate": between}
    rows = find_studies(read_connection(options.pacs), keys, options.modality)
    if not rows:
        raise TheraflowError("The PACS has no study that matches.")
    writer = csv.DictWriter(sys.stdout, STUDY_COLUMNS.values(), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: "NA" if cell is None else cell for column, cell in row.items()} for row in rows)


def _fetch(options: argparse.Namespace) -> None:
    from theraflow.pacs.connection import read_connection
    from theraflow.pacs.fetch import fetch, plan, read_requests

    connection = read_connection(options.pacs)
    wanted, problems = plan(connection, read_requests(options.sheet))
    for one in fetch(connection, wanted, options.output):
        where = f"{options.output / one.wanted.folder} ({one.wanted.series.modality})"
        if one.problem is None:
            print(f"{where}: {one.instances} instances {'fetched' if one.new else 'are there already'}", flush=True)
        else:
            problems.append(f"{where}: {one.problem}")
    if problems:
        raise TheraflowError("\n".join(["not everything was fetched:", *problems]))


def _send(options: argparse.Namespace) -> None:
    from theraflow.pacs.connection import read_connection
    from theraflow.pacs.send import find_objects, not_listed, send

    connection = read_connection(options.pacs)
    objects, others = find_objects(options.places)
    if others:
        print(f"{others} files are no DICOM and are not sent")
    stored = []
    for one in send(connection, objects):
        print(f"{one.sent.path} ({one.sent.sop_class.name}, {one.sent.uid}): {one.outcome}", flush=True)
        if one.stored:
            stored.append(one.sent)
    try:
        absent = not_listed(connection, stored)
    except TheraflowError as error:
        print(f"Whether the PACS lists them could not be asked: {error}")
        absent = []
    if len(stored) < len(objects):
        raise TheraflowError(f"{len(objects) - len(stored)} of {len(objects)} objects were not stored; see above.")
    if absent:
        raise TheraflowError(
            f"The PACS answered with success but does not list {len(absent)} of {len(objects)} objects, among them "
            f"{absent[0].uid}; look there, and send again later: to send twice does no harm."
        )
