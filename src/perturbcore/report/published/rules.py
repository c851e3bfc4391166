"""Registry of the rules that decide the claims: id -> function of the evidence."""

from collections.abc import Callable

from perturbcore.core.errors import ParameterError
from perturbcore.report.published.evidence import Evidence, Finding

Rule = Callable[[Evidence], Finding]
RULES: dict[str, Rule] = {}


def rule(name: str) -> Callable[[Rule], Rule]:
    """Register a rule under the id that the claims table uses."""

    def register(function: Rule) -> Rule:
        if name in RULES:
            raise ParameterError(f"two rules are called {name!r}")
        RULES[name] = function
        return function

    return register
