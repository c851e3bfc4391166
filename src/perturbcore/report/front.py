"""The lines of the first page: what each chapter answers, with what is published beside it."""

from pathlib import Path

from perturbcore.core.files import read_yaml
from perturbcore.report.published.claims.audit import claims, dated
from perturbcore.report.published.claims.page import SIGNS
from perturbcore.report.published.draw import plain

LINES = read_yaml(Path(__file__).with_suffix(".yml"))


def answer_of(results: Path, chapter: str) -> str:
    """Read the one-line answer that a chapter of a profile left; "" where it left none."""
    path = results / "answers" / f"{chapter}.md"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def answers_table(results: Path, *, simulated: bool) -> str:
    """Set the answer of each chapter beside published claims, each with its verdict (MyST)."""
    words, kept = {c.id: c for c in claims()}, dated()
    rows = []
    for line in LINES:
        said = [f"{words[i].claim} {_verdict(i, kept.loc[i])}" for i in line["claims"]]
        question = f"[{line['question']}](chapters/{line['chapter']}.ipynb)"
        if ours := answer_of(results, line["chapter"]):
            rows.append(f"| {question} | {ours} | {'<br>'.join(said) or '–'} |")
    here = f"In this build, on {'simulated cells' if simulated else 'real screens'}"
    head = f"| Question | {here} | Published (Cole et al. 2026), and whether it holds |"
    return "\n".join([head, "|---|---|---|", *rows]) + "\n"


def _verdict(claim: str, kept) -> str:
    link = f"[{SIGNS[kept['verdict']]} {kept['verdict']}](#claim-{claim})"
    return f"{link}: {plain(kept['number'])}."
