"""Where a result comes from: versions, commit, hardware."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from perturbcore import __version__

PACKAGES = (
    "numpy scipy pandas scikit-learn anndata scanpy torch lightning torch-geometric rdkit pot "
    "gseapy matplotlib papermill jupyter-book"
).split()


def record() -> dict:
    """Describe the program and the machine that compute right now, in plain values.

    ``perturbcore``, ``commit``, ``dirty``, ``python``, ``packages`` (name to version),
    ``platform``, ``cpu``, ``cores``, ``memory_gib``, ``gpu`` (empty without one) and ``started``
    (UTC, ISO 8601).
    """
    return {**_constant(), "started": datetime.now(UTC).isoformat(timespec="seconds")}


@cache
def _constant() -> dict:
    commit, dirty = _commit()
    return {
        "perturbcore": __version__,
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "packages": {name: v for name in PACKAGES if (v := _version(name))},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": _memory(),
        "gpu": _gpu(),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _commit() -> tuple[str, bool]:
    def git(*words) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD"), bool(changed)
    except FileNotFoundError:
        return "", False


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _gpu() -> str:
    # Importing torch takes seconds: only where it is loaded already or a GPU driver is there.
    if "torch" not in sys.modules and not Path("/proc/driver/nvidia").exists():
        return ""
    try:
        import torch
    except ImportError:
        return ""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
