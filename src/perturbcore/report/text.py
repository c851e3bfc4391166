"""One way of writing numbers, shares, times, lists and sentences, for all pages alike."""

import re
import string
from collections.abc import Callable, Iterable, Sized
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from perturbcore.core.files import read_yaml

# what a page calls the columns of a table: table -> column -> heading
HEADINGS = read_yaml(Path(__file__).with_name("headings.yml"))
# the long sentences: page -> name -> text with values, see `tell`
TEXTS = read_yaml(Path(__file__).with_name("texts.yml"))
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


def gain_said(row: Any, before: str = "") -> str:
    """Write the gain of a row of gains with its interval."""
    return f"{signed(row['gain'])} ({interval_said(row['low'], row['high'], before)})"


def interval_said(low: float, high: float, before: str = "") -> str:
    """Write an interval; of a single fold there is none."""
    return f"{before}{signed(low)} to {signed(high)}" if np.isfinite(low) else "no interval"


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


class Texts(string.Formatter):
    """Puts values into a text in braces, each written by its format.

    ``{x:.0%}`` is a share, ``{x:+}`` a difference, ``{x:time}`` a time, ``{x:gain}`` a gain;
    ``{x:n line}`` counts ("3 lines") and ``{x:is|are}`` chooses: first for one or yes. A list is
    listed.
    """

    def format_field(self, value: Any, format_spec: str) -> str:
        """Write one value."""
        if "|" in format_spec:
            first, second = format_spec.split("|")
            yes = value if isinstance(value, bool | np.bool_) else plural(value, "one") == "one"
            return first if yes else second
        if format_spec.startswith("n "):
            count = len(value) if isinstance(value, Sized) else value
            return f"{count:,} {plural(count, format_spec[2:])}"
        if format_spec.endswith("%"):
            return percent(value, int(format_spec[1:-1]))
        own: dict[str, Callable] = {"+": signed, "time": duration, "gain": gain_said}
        if format_spec in own:
            return own[format_spec](value)
        if isinstance(value, list | tuple | pd.Index | dict):
            return listed(value)
        text = format(value, format_spec)
        plain = isinstance(value, int | float | np.number) and "e" not in text
        return text.replace("-", MINUS) if plain else text


def tell(key: str, **values: Any) -> str:
    """Put values into one of the `TEXTS`, such as "noise.causes"."""
    page, name = key.split(".")
    return Texts().vformat(TEXTS[page][name], (), values)
