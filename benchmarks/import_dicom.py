"""Time the import of a CT and a PET side by side with other converters, on the same files and in one run.

Run from the repository root; see benchmarks/README.md. Only the standard library is loaded here: Linux counts what the
parent of a process has occupied into the peak memory of the process.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
SERIES = {"ct": 600 * 512 * 512, "pet": 400 * 440 * 440}
STORED_BYTES = 2
SUFFIXES = ("nii", "nii.gz")
REFERENCE = "dcm2niix"
# float32 keeps 24 bits, and a factor and a slope may be rounded before their product is.
TOLERANCE = {"ct": 0.0, "pet": 4 * 2.0**-24}
PLACE_TOLERANCE_MM = 1e-3


@dataclass
class Case:
    """One tool's conversion of one series to one format, and what was measured of it.

    Attributes:
        series: `ct` or `pet`.
        suffix: `nii` or `nii.gz`.
        tool: as the table calls it.
        command: the process; its output belongs into `folder`.
        folder: empty before each run.
        seconds: wall time of each run but the first.
        peak_bytes: largest resident memory of the process, or of one of its children if that is larger.
        output_bytes: size of the image.
        difference: largest difference of a voxel from the truth, absolute in HU or relative.
        place_mm: largest distance of a corner of the grid from where it belongs.
        failure: last line that the tool wrote before it failed.
    """

    series: str
    suffix: str
    tool: str
    command: Sequence[str]
    folder: Path
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    output_bytes: int = 0
    difference: float = float("nan")
    place_mm: float = float("nan")
    failure: str = ""

    @property
    def agrees(self) -> bool:
        """Whether all voxels have the right value at the right place."""
        return self.difference <= TOLERANCE[self.series] and self.place_mm <= PLACE_TOLERANCE_MM

    def image(self) -> Path | None:
        """The one image that the tool wrote."""
        images = sorted(self.folder.glob(f"*.{self.suffix}"))
        return images[0] if len(images) == 1 else None


def timed(command: Sequence[str], log: Path) -> tuple[int, float, int]:
    """Run a process to its end.

    Returns:
        exit status, wall time in s, and peak resident memory in bytes of the process or the largest of its children.
    """
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "workflow" / "scripts")}
    write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [(os.POSIX_SPAWN_OPEN, 1, str(log), write, 0o600), (os.POSIX_SPAWN_DUP2, 1, 2)]
    started = time.perf_counter()
    pid = os.posix_spawn(command[0], command, environment, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - started
    # Linux counts in KiB, macOS in bytes.
    return os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def cases(peers: Path, folder: Path, tools: Sequence[str] | None) -> list[list[Case]]:
    """All conversions, grouped by what is compared with each other."""
    python = str(peers / "bin" / "python")
    dcm2niix = subprocess.run(
        [python, "-c", "import dcm2niix; print(dcm2niix.bin)"], check=True, capture_output=True, text=True
    ).stdout.strip()
    groups = []
    for series in SERIES:
        for suffix in SUFFIXES:
            output = folder / "output"
            source = str(folder / series)
            name = f"{series}.{suffix}"
            flags = ["-b", "y", "-f", series, "-o", str(output)]
            commands = {REFERENCE: [dcm2niix, "-z", "n" if suffix == "nii" else "i", *flags, source]}
            if suffix == "nii.gz" and shutil.which("pigz"):
                commands["dcm2niix with pigz"] = [dcm2niix, "-z", "y", *flags, source]
            for tool, interpreter in (("SimpleITK", python), ("dicom2nifti", python), ("theraflow", sys.executable)):
                commands[tool] = [interpreter, str(HERE / "convert.py"), tool, series, source, str(output / name)]
            groups.append(
                [
                    Case(series, suffix, tool, command, output)
                    for tool, command in commands.items()
                    if not tools or tool in tools
                ]
            )
    return groups


def run(case: Case, data: Path, warm_up: bool) -> None:
    """Run one conversion; the first, untimed one is compared with the truth."""
    shutil.rmtree(case.folder, ignore_errors=True)
    case.folder.mkdir()
    # What the tool before has left to be written must not fall into this one's time.
    os.sync()
    log = data / "log.txt"
    status, seconds, peak_bytes = timed(case.command, log)
    image = case.image()
    if status != 0 or image is None:
        lines = log.read_text(errors="replace").strip().splitlines() or ["wrote no image"]
        case.failure = f"exit {status}: {lines[-1]}"
        return
    case.peak_bytes = max(case.peak_bytes, peak_bytes)
    if not warm_up:
        case.seconds.append(seconds)
        return
    case.output_bytes = image.stat().st_size
    comparison = [sys.executable, str(HERE / "series.py"), "compare", str(data), case.series, str(image)]
    if case.tool == "theraflow" and case.series == "pet":
        comparison.append("--suv")
    found = json.loads(subprocess.run(comparison, check=True, capture_output=True, text=True).stdout)
    case.difference, case.place_mm = found["difference"], found["place_mm"]


def rows(groups: list[list[Case]]) -> list[dict]:
    """One row a case, with the numbers as they were measured."""
    table = []
    for group in groups:
        reference = next(
            (statistics.median(case.seconds) for case in group if case.tool == REFERENCE and not case.failure),
            None,
        )
        for case in group:
            row = {"series": case.series, "output": case.suffix, "tool": case.tool}
            if case.failure:
                table.append({**row, "failure": case.failure})
                continue
            median = statistics.median(case.seconds)
            row |= {
                "runs": len(case.seconds),
                "minimum_s": min(case.seconds),
                "median_s": median,
                "maximum_s": max(case.seconds),
                "of_dcm2niix": median / reference if reference else None,
                "output_mb": case.output_bytes / 1e6,
                "peak_mb": case.peak_bytes / 1e6,
                "peak_of_volume": case.peak_bytes / (SERIES[case.series] * STORED_BYTES),
                "difference": case.difference,
                "place_mm": case.place_mm,
                "failure": "",
            }
            table.append(row)
    return table


def markdown(table: list[dict]) -> str:
    """The table for a reader; seconds are minimum / median / maximum."""
    lines = [
        "| series | output | tool | minimum s | median s | maximum s | of dcm2niix | output MB | peak MB "
        "| peak / volume | voxels off by | grid off by mm |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in table:
        start = f"| {row['series'].upper()} | .{row['output']} | {row['tool']} |"
        if row["failure"]:
            lines.append(f"{start} failed: {row['failure']} |" + " |" * 8)
            continue
        ratio = "" if row["of_dcm2niix"] is None else f"{row['of_dcm2niix']:.2f}"
        lines.append(
            f"{start} {row['minimum_s']:.2f} | {row['median_s']:.2f} | {row['maximum_s']:.2f} | {ratio} "
            f"| {row['output_mb']:.1f} | {row['peak_mb']:.0f} | {row['peak_of_volume']:.2f} "
            f"| {row['difference']:.1e} | {row['place_mm']:.1e} |"
        )
    return "\n".join(lines)


def benchmark(arguments: argparse.Namespace, folder: Path) -> list[list[Case]]:
    """Write the series unless they are there, warm up, compare, and time round by round."""
    if not (folder / "pet.npz").exists():
        for series in SERIES:
            shutil.rmtree(folder / series, ignore_errors=True)
        subprocess.run([sys.executable, str(HERE / "series.py"), "write", str(folder)], check=True)
    groups = cases(arguments.peers, folder, arguments.tools)
    for turn in range(arguments.runs + 1):
        for group in groups:
            # Another tool begins each round: none always runs behind the same neighbour.
            first = turn % len(group)
            for case in group[first:] + group[:first]:
                if not case.failure:
                    run(case, folder, warm_up=turn == 0)
        print(f"round {turn} of {arguments.runs} done", file=sys.stderr)
    return groups


def main() -> None:
    """Parse the command line, print the table, and fail if an image of theraflow is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, required=True, help="virtual environment with benchmarks/peers.txt")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each conversion (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where the series are kept for the next time (1.1 GB)")
    parser.add_argument("--output", type=Path, help="the table as TSV")
    parser.add_argument("--tools", nargs="+", help="only these, as the table calls them")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error("--runs must be at least 1.")
    print(f"{os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}, {arguments.runs} runs after a warm-up\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        groups = benchmark(arguments, folder)
        shutil.rmtree(folder / "output", ignore_errors=True)
    table = rows(groups)
    print(markdown(table))
    if arguments.output:
        with arguments.output.open("w", newline="", encoding="utf-8") as file:
            columns = max(table, key=len)
            writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n", restval="NA")
            writer.writeheader()
            writer.writerows({key: "NA" if value is None else value for key, value in row.items()} for row in table)
    wrong = [case for group in groups for case in group if case.tool == "theraflow" and not case.agrees]
    if wrong:
        named = ", ".join(f"{case.series}.{case.suffix}" for case in wrong)
        sys.exit(f"theraflow's image is not the truth or was not written: {named}.")


if __name__ == "__main__":
    main()
