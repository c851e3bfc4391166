"""The little language of the claim files: paths into values, conditions, and texts with values.

A path is a name and what follows it: ``gap.best[K-562]``, ``ranks.value.min``; a method without
parameters is called, ``.n`` is a length. A condition compares a path with a number or another path,
with a quantifier where the path has many values: ``every gap.best >= 0.8``, ``2 easier``.
Conditions are joined by "and", and these by "or". A text holds paths in braces with a format:
``{gap.best:.0%}`` writes one value per line; a part of a text whose value is missing is left out.
"""

import operator
import re
from collections.abc import Mapping
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd

from perturbcore.core.errors import ParameterError
from perturbcore.report.text import MINUS, Texts

_PATH = r"[a-z_]\w*(?:\.\w+|\[[^\]]+\])*"
_STEP = re.compile(r"\.?(\w+)|\[([^\]]+)\]")
_CONDITION = re.compile(
    rf"(?:(?P<how>every|some|most|no|not|\d+) )?(?P<left>{_PATH})"
    r"(?: (?P<op>>=|<=|>|<|=|within|rounds to) (?P<right>.+))?"
)
_OPERATORS = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
    "within": lambda value, width: abs(value) <= width,
}


def look_up(values: Mapping, path: str) -> Any:
    """Follow a path such as ``gap.best[K-562]`` into the values of a claim."""
    out: Any = values
    for name, key in _STEP.findall(path):
        step = key or name
        if isinstance(out, Mapping) and step in out:
            out = out[step]
        elif key and isinstance(out, pd.Series):
            out = out[key]
        elif step == "n" and hasattr(out, "__len__"):
            out = len(out)
        elif hasattr(out, step):
            out = getattr(out, step)
            out = out() if callable(out) else out
        elif out is None:
            return None
        else:
            raise ParameterError(f"a claim asks for {path!r}, and there is no {step!r} in it")
    return out


class _Missing(Exception):
    """A value of a text is not at hand."""


class _Texts(Texts):
    def get_field(self, field_name, args, kwargs):
        return look_up(kwargs, field_name), field_name

    def format_field(self, value, format_spec):
        if value is None:
            raise _Missing
        if isinstance(value, pd.Series):
            return ", ".join(f"{k} {self.format_field(v, format_spec)}" for k, v in value.items())
        text = super().format_field(value, format_spec)
        return text.replace("-", MINUS) if isinstance(value, Number) else text


def fill(text: str | list[str] | None, values: Mapping) -> str:
    """Put values into a text; of a list, each part stands or is left out for itself."""
    out = []
    for part in [text] if isinstance(text, str) else text or []:
        try:
            out.append(_Texts().vformat(part, (), values))
        except _Missing:
            continue
    return " ".join(out)


def _moved(left: Any, right: Any, slack: int, *, literal: bool) -> Any:
    """Move a cut-off to the left by `slack` steps."""
    kind = np.asarray(left).dtype.kind
    if kind in "iu":
        return right if slack > 0 and literal and right == 0 else right - slack
    if kind != "f":
        return right
    step = abs(right) if literal and right else np.nanmedian(np.abs(left - right))
    return right - slack * step / 10


def compare(condition: str, values: Mapping, slack: int = 0) -> Any:
    """Evaluate one comparison without its quantifier: a truth value, or one per line or method.

    With `slack` 1 its cut-off is milder by one step, with -1 stricter.
    """
    match = _CONDITION.fullmatch(condition.strip())
    if not match:
        raise ParameterError(f"a claim has the condition {condition!r}, which cannot be read")
    left, op = look_up(values, match["left"]), match["op"]
    right: Any = match["right"]
    if right is None:
        return left
    if op == "rounds to":
        digits = len(right.partition(".")[2])
        return abs(left - float(right)) < 0.5 * 10**-digits * 2**slack
    literal = bool(re.fullmatch(r"-?[\d.]+", right))
    if literal:
        right = float(right)
    elif re.fullmatch(_PATH, right):
        right = look_up(values, right)
    if not slack:
        return _OPERATORS[op](left, right)
    if op == "=":
        count = np.asarray(left).dtype.kind in "iu"
        return abs(left - right) <= 1 if count and slack > 0 else left == right
    if op == "within":
        return abs(left) <= right * (1 + slack / 10)
    slack = slack if ">" in op else -slack
    return _OPERATORS[op](left, _moved(left, right, slack, literal=literal))


def _one(condition: str, values: Mapping, slack: int) -> bool:
    match = _CONDITION.fullmatch(condition.strip())
    how = match["how"] if match else None
    found = compare(condition, values, -slack if how in ("no", "not") else slack)
    if how is None or how == "not":
        return bool(found) != (how == "not")
    found = np.asarray(found).ravel()
    true, all_of = int(found.sum()), found.size
    if how.isdigit():
        return true >= int(how) - slack
    return {"every": true == all_of, "some": true > 0, "most": true > all_of / 2, "no": not true}[
        how
    ]


def holds(condition: str | bool, values: Mapping, slack: int = 0) -> bool:
    """Whether a condition such as "every gap.best >= 0.8 and not lost.n > 0" is true.

    `slack` moves every cut-off in it by one step, 1 to the milder and -1 to the stricter side.
    """
    if isinstance(condition, bool | Number):
        return bool(condition)
    return any(
        all(_one(part, values, slack) for part in either.split(" and "))
        for either in condition.split(" or ")
    )
