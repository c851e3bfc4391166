"""What every benchmark shares: its options, the median of n, and rows that are printed and kept.

A benchmark has `cases(options)`, which yields a `row` for each comparison, and ends in `main`.
Where a contender needs a process of its own (peak memory is that of a process), `apart` starts the
benchmark again, and its `child` answers.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

SHOWN = ["task", "ours_seconds", "baseline_seconds", "ratio", "agreement"]


class Seconds(float):
    """Median of the seconds of some calls, which are kept."""

    def __new__(cls, times):
        """Take the calls of one contender, in any order."""
        self = super().__new__(cls, np.median(times))
        self.times = sorted(times)
        return self


def timed(function, repeats=3, enough=20):
    """Result of the last of some calls, and their seconds; none begins after `enough` seconds."""
    seconds = []
    while len(seconds) < repeats and sum(seconds) < enough:
        start = time.perf_counter()
        out = function()
        seconds.append(time.perf_counter() - start)
    return out, Seconds(seconds)


def row(task, baseline, ours, theirs=None, agreement=None, **more):
    """One comparison: seconds of both, how many times ours the other takes, how far they differ."""
    ratio = None if theirs is None else theirs / ours
    return {"task": task, "baseline": baseline, "ours_seconds": ours, "ours_range": extremes(ours),
            "baseline_seconds": theirs, "baseline_range": extremes(theirs), "ratio": ratio, **more,
            "agreement": agreement}  # fmt: skip


def extremes(seconds):
    """Least and most of several calls, as text."""
    times = getattr(seconds, "times", [])
    return f"{times[0]:.3g} to {times[-1]:.3g}" if len(times) > 1 else ""


def farthest(a, b):
    """Largest difference of two arrays."""
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())


def peak_mb():
    """Peak memory of this process so far, MB; `ru_maxrss` would count that of its parent, too."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return float("nan")
    return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024


def apart(file, *arguments):
    """Run `child` of a benchmark in a process of its own; returns what it answers."""
    command = [sys.executable, file, "--child", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(about, cases, child=None):
    """Run the cases that the command line asks for, print their table, write it where asked."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="seconds, to see that it works")
    parser.add_argument(
        "--repeats", type=int, default=3, help="of what is quick; the median counts"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], help="all that are there by default")
    parser.add_argument("--folder", type=Path, help="for large files; a temporary one by default")
    parser.add_argument("--out", type=Path, help="write the rows as .json or .csv")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(*options.child)))
        return
    from perturbcore.core.provenance import record

    name, about, rows = Path(sys.argv[0]).stem, record(), []
    versions = " ".join(f"{name} {version}" for name, version in about["packages"].items())
    for case in cases(options):
        load = round(os.getloadavg()[0], 1)
        rows.append({"benchmark": name, **case, "cores": about["cores"], "load": load,
                     "commit": about["commit"][:10], "started": about["started"],
                     "versions": versions})  # fmt: skip
        print(f"{case['task']}: {case['ours_seconds']:.3g} s", file=sys.stderr, flush=True)
    table = pd.DataFrame(rows)
    print(table[SHOWN].to_string(index=False))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        text = (
            table.to_csv(index=False)
            if options.out.suffix == ".csv"
            else json.dumps(rows, default=float)
        )
        options.out.write_text(text)


def together(folder, keep=""):
    """Print the rows of all benchmarks in a folder as one table; "keep": with the package, too."""
    from perturbcore.book.about import MEASURED

    found = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("bench_*.json"))]
    rows = [row for part in found for row in part]
    print(pd.DataFrame(rows)[SHOWN].to_string(index=False))
    if keep == "keep":
        MEASURED.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    together(*sys.argv[1:])
