"""The demo killed again and again at random moments: does it end with the bytes of a run that nobody disturbed?

From the root of the repository: PYTHONPATH=tests python benchmarks/kill_run.py --folder /somewhere/large --kills 50
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

from kills import Killer, differing, files, temporary_files
from theraflow.files import read_json
from theraflow.run.progress import FILE, FOLDER
from whole_run import Run, make_demo

TABLES = (".tsv",)
# Not the pages, which name the day.
RESULTS = (".tsv", ".json", ".nii.gz", ".h5", ".png", ".svg", ".pdf", ".parquet", ".xlsx", ".dcm")


def main() -> None:
    """Make the demo twice in a folder, killing one of the two, and compare."""
    options = _options()
    calm, killed = (_working_directory(options.folder / name) for name in ("calm", "killed"))
    steps, whole_s = _undisturbed(calm, options.cores)
    print(f"undisturbed: {steps} steps in {whole_s:.0f} s", flush=True)
    killer = Killer(killed, whole_s, steps, options.seed, cores=options.cores)
    orphans = 0
    for number in range(1, options.kills + 1):
        kill = killer.kill_once()
        orphans += len(kill.orphans)
        print(
            f"{number}\tafter {kill.after_s:.1f} s\t{kill.victim}\t{kill.left} steps left\t"
            f"{len(kill.temporary)} temporary files\t{len(kill.orphans)} processes left",
            flush=True,
        )
    killer.finish()
    different, other = differing(calm, killed, *TABLES), differing(calm, killed, *RESULTS)
    left = temporary_files(killed)
    print(f"{len(files(calm, *TABLES))} tables, different: {len(different)} {different}")
    print(f"{len(files(calm, *RESULTS))} results, different: {len(other)} {other}")
    print(f"temporary files left: {len(left)} {list(map(str, left))}; processes left: {orphans}")
    sys.exit(bool(different or left or orphans))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where it works, 3 GB; what is there is used again")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1, help="of the moments and of what is killed")
    parser.add_argument("--cores", type=int, default=2)
    return parser.parse_args()


def _working_directory(folder: Path) -> Run:
    """The demo's input, made once."""
    data = folder.parent / "input"
    if not data.exists():
        data.mkdir(parents=True)
        make_demo(data)
    folder.mkdir(exist_ok=True)
    for name in ("config", "config.yaml"):
        source, target = data / name, folder / name
        shutil.copytree(source, target, dirs_exist_ok=True) if source.is_dir() else shutil.copy2(source, target)
    if not (folder / "data").exists():
        (folder / "data").symlink_to(data / "data")
    return Run(folder)


def _undisturbed(run: Run, cores: int) -> tuple[int, float]:
    """Steps of the undisturbed run, and how long it took."""
    began = time.monotonic()
    if not run.results("cohort", "report.html").exists():
        result = run.snakemake(cores=cores)
        if result.returncode:
            raise SystemExit(result.stdout)
    told = read_json(min(run.results("logs", FOLDER).glob(f"*/{FILE}")))
    return told["steps"]["of"], max(told["seconds"], time.monotonic() - began)


if __name__ == "__main__":
    main()
