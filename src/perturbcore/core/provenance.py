"""Where a result comes from: versions, commit, hardware."""

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

import joblib

from perturbcore import __version__

PACKAGES = (
    "numpy scipy pandas scikit-learn anndata scanpy torch torch-geometric rdkit pot "
    "gseapy matplotlib papermill jupyter-book"
).split()
# what a score can change with, besides our own code
COMPUTING = "numpy scipy scikit-learn torch torch-geometric numba rdkit".split()


@cache
def computing() -> dict[str, str]:
    """Return the versions of the packages that compute, for keys of what is kept."""
    return {name: version(name) for name in COMPUTING}


def record() -> dict:
    """Describe the program and the machine that compute right now, in plain values."""
    return {**_constant(), "started": datetime.now(UTC).isoformat(timespec="seconds")}


@cache
def _constant() -> dict:
    (commit, dirty), info = _commit(), Path("/proc/cpuinfo")
    cpu = re.search(r"model name\s*: (.+)", info.read_text() if info.is_file() else "")
    return {
        "perturbcore": __version__,
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu[1].strip() if cpu else platform.processor() or platform.machine(),
        "cores": joblib.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": _gpu(),
    }


def _commit() -> tuple[str, bool]:
    """Return the commit of the checkout, and whether tracked files differ from it."""
    words = "describe --always --exclude=* --abbrev=40 --dirty".split()
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True
        )
    except FileNotFoundError:
        return "", False
    said = done.stdout.strip()
    return said.removesuffix("-dirty"), said.endswith("-dirty")


def _gpu() -> str:
    # Importing torch takes seconds: only where it is loaded already or a GPU driver is there.
    if "torch" not in sys.modules and not Path("/proc/driver/nvidia").exists():
        return ""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
