"""The claims page in MyST, claim by claim, and the lines of the first page that rest on claims."""

from pathlib import Path
from typing import Any

import pandas as pd

from perturbcore.core.files import read_yaml
from perturbcore.data.published.tables import HOW_TO_GET, PRIMARY, Published, without_line
from perturbcore.report.comparison import Comparison
from perturbcore.report.published.claims import audit
from perturbcore.report.published.draw import markdown_table, plain
from perturbcore.report.published.figures import FIGURES, RUNS, figure_data
from perturbcore.report.text import HEADINGS, signed, tell

# a sign beside the word, so that a verdict is told without colour; and the word for several
SIGNS, PLURAL = HEADINGS["signs of verdicts"], HEADINGS["verdicts of several"]
DETAILS = HEADINGS["details of a claim"]
# the questions of the first page, each with its chapter and claims
LINES = read_yaml(Path(__file__).with_name("front.yml"))


def summary(table: pd.DataFrame, published: Published) -> str:
    """Say in a few sentences how many claims hold, and on what that rests (MyST)."""
    total = audit.counts(table).loc["all"]
    words = [f"**{n}** {PLURAL[v]}" for v, n in total.drop("all").items() if n]
    text = tell("claims.summary", n=total["all"], words=words)
    failed = table.loc[table["verdict"] == audit.FAILS, "id"]
    if len(failed):
        text += " " + tell("claims.failed", links=[f"[{i}](#claim-{i})" for i in failed])
    note = published.note
    if published.level == "medians":
        here = table[table["here"] != audit.NEEDS_TABLES]
        same = int((here["here"] == here["verdict"]).sum())
        about = dict(date=table["date"].max(), same=same, n=len(here), how=HOW_TO_GET)
        note = tell("claims.medians", **about)
    return f"{text}\n\n:::{{note}}\n{note}\n:::\n"


def cards(table: pd.DataFrame, *, dropdown: bool = False) -> str:
    """Write each claim of an audit with its place, words, test, cut-offs, verdict, number, reason.

    `dropdown` folds the details, and the card can be linked to as ``claim-<id>``.
    """
    if table.empty:
        return "None."
    kind, out = "dropdown" if dropdown else "admonition", []
    for row in table.itertuples():
        out += [f"(claim-{row.id})="] if dropdown else []
        out += [f"::::{{{kind}}} {SIGNS[row.verdict]} {row.id}: {row.claim} ({row.verdict})"]
        words = f" “{plain(row.quote)}”" if row.quote else ""
        about = f"Kind: {row.kind}; weight: {row.weight}; scope: {plain(row.scope)}"
        place = f"*{row.paper}, {plain(row.where)}.*{words}"
        out += [place, "", f"{about}. Test: {plain(row.test)}.", ""]
        out += [f"**{plain(row.number)}**", ""] if row.number else []
        out += [plain(row.why), ""]
        details = {name: getattr(row, column, "") for name, column in DETAILS.items()}
        out += [f"- {name}: {plain(value)}" for name, value in details.items() if value]
        out += [f"- Rule: `{row.rule}`"] if row.rule else []
        out += ["::::", ""]
    return "\n".join(out)


def _waiting(published: Published) -> str:
    return f"This is decided on single folds. {published.note}"


def certainty(published: Published, chapter: Any) -> str:
    """Say which neighbours of each ranking are distinguishable; tables go to the chapter."""
    if published.level != "folds":
        return _waiting(published)
    table = chapter.save_table(ranking_certainty(published), "rankings")
    pairs = chapter.save_table(neighbours("1", published), "neighbours-figure-1")
    first = table.set_index("figure").loc["1"]
    clear = list(pairs.loc[pairs["low"] > 0, "method"])
    about = dict(n=len(clear), clear=clear, others=first["methods"] - 1)
    text = tell("claims.certainty", first=first, **about)
    link = f"[Neighbours of Figure 1](tables/{chapter.name}/neighbours-figure-1.csv)"
    return f"{text}\n\n{markdown_table(table)}\n\n{link}\n"


def choice(published: Published, chapter: Any) -> str:
    """Say what choosing a run for each line does in Figure S14; the table goes to the chapter."""
    if published.level != "folds":
        return _waiting(published)
    table = chapter.save_table(run_choice(published), "run-choice")
    gain = table.groupby("model")["gain"].agg(["min", "max"])
    each = [f"{name} {low:.3f} to {high:.3f}" for name, low, high in gain.itertuples()]
    above = (table["drawn"] > table["WaveGC_kNN"]).all()
    still = tell("claims.above" if above else "claims.below")
    text = tell("claims.choice", each=", ".join(each), still=still)
    return f"{text}\n\n{markdown_table(table)}\n"


def unused(published: Published, chapter: Any) -> str:
    """Say what the rows that no figure uses hold; the table goes to the chapter."""
    if published.level != "folds":
        return _waiting(published)
    table = chapter.save_table(unused_rows(published), "unused-rows")
    here = table[(table["dataset"] == "essential") & (table["task"] == "lfc")]
    named = [
        f"{plain(r.display)} ({r.ahead} of {r.n} folds, {signed(r.difference)})"
        for r in here[here["difference"] > 0].itertuples()
    ]
    about = dict(n=len(table), here=len(here), best=here["reference"].iloc[0], named=named)
    text = tell("claims.unused", **about)
    best = table.groupby(["dataset", "task"], sort=False).head(5)
    best = best.drop(columns=["method", "modality"])
    link = f"[All of them](tables/{chapter.name}/unused-rows.csv)"
    return f"{text}\n\n{markdown_table(best)}\n\n{link}\n"


RANKINGS = ("1", "S2", "S4", "5", "S1", "S7", "S8", "S10", "S14")


def comparison_of(figure: str, published: Published) -> Comparison:
    """Compare the methods of a box plot, by display name and without positive controls."""
    data = figure_data(figure, published)
    rows = data.scores[data.scores["modality"] != "Positive control"]
    rows = rows.assign(method=rows["display"], embedding=rows["display"], predictor="")
    return Comparison(rows, data.spec.metric)


def neighbours(figure: str, published: Published) -> pd.DataFrame:
    """Compare each method of a box plot with the next, paired over folds."""
    c = comparison_of(figure, published)
    return c.neighbours(c.methods.index)


def ranking_certainty(published: Published) -> pd.DataFrame:
    """For each ranking: how many neighbours differ clearly, and how many share the first place."""
    rows = []
    for name in RANKINGS:
        c, pairs = comparison_of(name, published), neighbours(name, published)
        best = c.best_of(c.methods.index)
        rivals = c.gains(best, methods=c.methods.index)
        row = {
            "figure": name,
            "ranking": FIGURES[name].title,
            "methods": len(c.methods),
            "neighbours": len(pairs) - 1,
            "interval_without_0": int((pairs["low"] > 0).sum()),
            "distinguishable": int((pairs["verdict"] == "worse").sum()),
            "best": best,
            "as_good_as_best": int((rivals["verdict"] != "worse").sum()),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def run_choice(published: Published) -> pd.DataFrame:
    """Effect of choosing the run to show for each line in Figure S14."""
    scores = published.scores
    older = scores[(scores["perturbation_set"] == "older") & (scores["metric"] == "L2")]
    runs = older.pivot_table("value", "cell_line", "method", aggfunc="median")
    drawn = figure_data("S14", published).medians()
    tables = []
    for model, prefix in RUNS.items():
        table = pd.DataFrame({f"run_{r}": runs[f"{prefix}_{r}"] for r in ("V1", "R2")}).loc[
            drawn.index
        ]
        worse, shown = table.max(axis=1), drawn[f"{model} (PCA 50)"]
        table = table.assign(drawn=shown, gain=worse - shown, WaveGC_kNN=drawn["STRING WaveGC"])
        table = table.rename_axis("cell_line").reset_index()
        table.insert(0, "model", model)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def unused_rows(published: Published) -> pd.DataFrame:
    """Methods of the full-set tables that no figure shows, next to the best that one shows."""
    figures = {
        name: figure_data(name, published)
        for name, spec in FIGURES.items()
        if not spec.missing and spec.perturbation_set == "full"
    }

    def keyed(rows: pd.DataFrame) -> pd.DataFrame:
        names = zip(rows["method"], rows["cell_line"], strict=True)
        return rows.assign(method=[without_line(m, line) for m, line in names])

    keys = ["dataset", "task", "method"]
    shown = pd.MultiIndex.from_frame(pd.concat([keyed(f.scores)[keys] for f in figures.values()]))
    rows = published.scores
    rows = rows[(rows["perturbation_set"] == "full") & (rows["modality"] != "Positive control")]
    rows = keyed(rows[rows["metric"] == rows["task"].map(PRIMARY)])
    rows = rows[~pd.MultiIndex.from_frame(rows[keys]).isin(shown)]
    out = []
    for figure in (figures[name] for name in ("1", "S1", "S8", "S4", "S10")):
        wide = figure.better(figure.folds())
        best = wide[figure.select("single")].mean().idxmax()
        spec = figure.spec
        here = rows[(rows["dataset"] == spec.dataset) & (rows["task"] == spec.task)]
        by_fold = here.set_index(["cell_line", "fold"])["value"]
        gain = figure.better(by_fold) - wide[best].reindex(by_fold.index)
        here = here.assign(gain=gain.to_numpy(), won=(gain > 0).to_numpy(), reference=best)
        names = ["dataset", "task", "predictor", "display", "method", "modality", "reference"]
        first = {name: (name, "first") for name in names}
        means = dict(n=("value", "size"), mean=("value", "mean"), difference=("gain", "mean"))
        groups = here.groupby(here["method"].rename(None), sort=False)
        out.append(groups.agg(**first, **means, ahead=("won", "sum")))
    by = ["dataset", "task", "difference"]
    columns = [*names[:-1], "n", "mean", "reference", "ahead", "difference"]
    return pd.concat(out)[columns].sort_values(by, ascending=[True, True, False], ignore_index=True)


def answer_of(results: Path, chapter: str) -> str:
    """Read the one-line answer that a chapter of a profile left; "" where it left none."""
    path = results / "answers" / f"{chapter}.md"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def answers_table(results: Path, *, simulated: bool) -> str:
    """Set the answer of each chapter beside published claims, each with its verdict (MyST)."""
    words, kept = {c.id: c for c in audit.claims()}, audit.dated()
    rows = []
    for line in LINES:
        said = []
        for i in line["claims"]:
            verdict, number = kept.loc[i, ["verdict", "number"]]
            link = f"[{SIGNS[verdict]} {verdict}](#claim-{i})"
            said.append(f"{words[i].claim} {link}: {plain(number)}.")
        question = f"[{line['question']}](chapters/{line['chapter']}.ipynb)"
        if ours := answer_of(results, line["chapter"]):
            rows.append(f"| {question} | {ours} | {'<br>'.join(said) or '–'} |")
    here = f"In this build, on {'simulated cells' if simulated else 'real screens'}"
    head = f"| Question | {here} | Published (Cole et al. 2026), and whether it holds |"
    return "\n".join([head, "|---|---|---|", *rows]) + "\n"
