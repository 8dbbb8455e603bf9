"""What the scripts of the workflow load before they begin: seconds by script.

    python benchmarks/job_start.py [--repeat 3] [script ...]

Each script's imports run in a Python of their own, with the workflow's modules compiled, as from the second job of a
study on; the least of the repetitions counts. What a function imports is not seen: a real job with
`PYTHONPROFILEIMPORTTIME=1` in its environment lists it. CPU seconds depend less than wall seconds on what else the
machine does, but where cores are shared they do, too.
"""

import argparse
import ast
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1] / "workflow" / "scripts"
SHOWN_PACKAGES = 4
SHOWN_S = 0.05
MICROSECONDS = 1e6


def imports_of(script: Path) -> str:
    """The import statements of a script, those inside its job too, as a program."""
    statements = ast.walk(ast.parse(script.read_text(encoding="utf-8")))
    return "\n".join(ast.unparse(node) for node in statements if isinstance(node, ast.Import | ast.ImportFrom))


def run(program: str, *options: str) -> tuple[float, float, str]:
    """CPU and wall seconds of a program of Python, and its standard error."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS), "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, *options, "-c", program]
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall, result.stderr


def heaviest(program: str) -> str:
    """The packages that take longest to load, each without those that it loads itself."""
    seconds: dict[str, float] = defaultdict(float)
    for line in run(program, "-X", "importtime")[2].splitlines():
        own, _, name = line.removeprefix("import time:").split("|")
        if own.strip().isdigit():
            seconds[name.strip().split(".")[0]] += int(own) / MICROSECONDS
    longest = sorted(seconds, key=seconds.__getitem__, reverse=True)[:SHOWN_PACKAGES]
    return ", ".join(f"{name} {seconds[name]:.2f}" for name in longest if seconds[name] >= SHOWN_S)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scripts", nargs="*", help="their names, as import_ct; all unless named")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    print("script\tcpu_s\twall_s\theaviest_packages_s")
    for script in sorted(SCRIPTS.glob("*.py")):
        if arguments.scripts and script.stem not in arguments.scripts:
            continue
        program = imports_of(script)
        taken = [run(program)[:2] for _ in range(arguments.repeat)]
        cpu, wall = map(min, zip(*taken, strict=True))
        print(f"{script.stem}\t{cpu:.2f}\t{wall:.2f}\t{heaviest(program)}", flush=True)


if __name__ == "__main__":
    main()
