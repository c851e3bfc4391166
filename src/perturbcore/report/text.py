"""One way of writing numbers, shares, times and lists, for tables and sentences alike."""

import re
from collections.abc import Iterable, Sized
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from perturbcore.core.files import read_yaml

# what a page calls the columns of a table: table -> column -> heading
HEADINGS = read_yaml(Path(__file__).with_name("headings.yml"))
MINUS, MISSING = "\u2212", "–"


def number(value: Any, digits: int = 3) -> str:
    """Write a number as a table does; a missing one is an en dash."""
    if value is None or value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return MISSING
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}".replace("-", MINUS)
    if isinstance(value, float | np.floating):
        return f"{value:.{digits}f}".replace("-", MINUS)
    return str(value)


def signed(value: float, digits: int = 3) -> str:
    """Write a difference with its sign."""
    return f"{value:+.{digits}f}".replace("-", MINUS) if np.isfinite(value) else "undefined"


def percent(share: float, digits: int = 0) -> str:
    """Write a share as a percentage: 0.75 is "75 %"; an undefined share is said to be so."""
    if not np.isfinite(share):
        return "an undefined share"
    text = f"{100 * share:.{digits}f} %"
    return text.removeprefix("-") if float(text[:-2]) == 0 else text.replace("-", MINUS)


def unbroken(text: str) -> str:
    """Let no line end between a number and its per cent sign."""
    return re.sub(r"(?<=\d)\s(?=%(?!\w))", "\u00a0", text)


def p_value(p: float) -> str:
    """Write a p-value with three decimals; what is smaller is "< 0.001"."""
    return "< 0.001" if p < 0.0005 else number(float(p))


def listed(names: Iterable) -> str:
    """Join names as a sentence does: a, b and c; with semicolons where a name has a comma."""
    words = [str(n) for n in names]
    if len(words) < 2:
        return words[0] if words else "none"
    comma = any("," in w for w in words)
    return f"{('; ' if comma else ', ').join(words[:-1])}{'; and' if comma else ' and'} {words[-1]}"


def plural(n: int | Sized, one: str, many: str | None = None) -> str:
    """Choose the word for one or for many; `many` is `one` with an s by default."""
    count = len(n) if isinstance(n, Sized) else n
    return one if count == 1 else many or f"{one}s"


def duration(seconds: float) -> str:
    """Write a time with the precision it deserves."""
    if not np.isfinite(seconds):
        return "an unknown time"
    if seconds >= 120:
        return f"{seconds / 60:.0f} minutes"
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
