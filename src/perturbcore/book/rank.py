"""A ranking of embeddings on one's own screen: printed, and as a page that needs no other file."""

import difflib
import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Template

import pandas as pd

from perturbcore import __version__
from perturbcore.book.study import kept_truth
from perturbcore.core.errors import InputError
from perturbcore.core.files import save_table, write_atomically
from perturbcore.core.profile import load_profile
from perturbcore.data.identifiers import of_mouse
from perturbcore.data.responses import cell_lines
from perturbcore.data.sets.base import Dataset
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.build import build_all, serving
from perturbcore.embeddings.controls import random_embedding
from perturbcore.embeddings.coverage import coverage_table
from perturbcore.embeddings.load import SUFFIXES, load_embedding
from perturbcore.embeddings.sources import BuildContext
from perturbcore.models.simple import evaluate_embeddings, predictor
from perturbcore.models.simple.embedding import CONTROLS, OnEmbedding, idealized, mask_only
from perturbcore.models.simple.space import Protocol
from perturbcore.report.comparison import Comparison
from perturbcore.report.marks import svg
from perturbcore.report.noise import calibrated
from perturbcore.report.pages import table_html
from perturbcore.report.text import HEADINGS, number, p_value, percent, unbroken
from perturbcore.score.limits import experimental_error, limit_units
from perturbcore.score.model import COVERING, NEGATIVE
from perturbcore.score.store import ScoreStore, save_scores
from perturbcore.score.task import task_of

K = (3, 5, 10, 20, 40, 80)  # of kNN; those too large for a screen are left out
LEAST = 0.2  # share of the perturbations of a cell line that an embedding must have vectors for
COVERAGE = HEADINGS["coverage of a ranking"]


@dataclass(frozen=True)
class Ranking:
    """Embeddings compared on a data set: scores, their comparison, and who covers what."""

    data: Dataset
    scores: pd.DataFrame
    coverage: pd.DataFrame
    left_out: Sequence[str] = ()

    @property
    def comparison(self) -> Comparison:
        """The scores, compared."""
        return Comparison(self.scores)

    def said(self) -> list[str]:
        """Say in paragraphs what was ranked on what, what is best, and how to read it."""
        responses = self.data.responses
        obs, task = responses.obs, task_of(responses)
        lines = ", ".join(map(str, pd.unique(obs["cell_line"])))
        n, folds = obs["perturbation"].nunique(), obs["fold"].nunique()
        sizes = (
            f"{self.data.title}: {n:,} perturbations x {responses.n_vars:,} genes ({task.title}); "
            f"cell lines: {lines}; {folds} folds, each perturbation held out once."
        )
        simulated = " The cells are simulated." * self.data.simulated
        answer = self.comparison.answer(self.data.title).split("\n\n")
        reading = self.comparison.reading()
        return [sizes + simulated, *answer, reading, *self.data.notes[1:], *self.left_out]


def named_embeddings(
    given: Iterable[str], data: Dataset, profile: str = "real"
) -> tuple[list[Embedding], list[str]]:
    """Load files of vectors, and build those that a profile knows by name, for a data set.

    `given`: paths (``.csv``, ``.npz`` and so on; with the ids that the perturbations have), and
    names such as "STRING"; `profile`: whose embeddings have names, with the options it gives them.

    Returns embeddings with a random one behind them, and a sentence for each that cannot be had.
    """
    declared = data.responses.uns["perturbcore"]["identifier"]
    known = load_profile(profile)
    specs = [{**s, "datasets": None, "chapters": None} for s in known.embeddings]
    names = serving(specs, data.name, declared)[1]
    files, wanted = [], []
    for text in given:
        if text in names:
            wanted.append(text)
        elif text.endswith(SUFFIXES):
            files.append(load_embedding(text, identifier=declared))
        else:
            close = difflib.get_close_matches(text, names, n=1, cutoff=0.5)
            hint = f" (did you mean '{close[0]}'?)" if close else ""
            raise InputError(
                f"no embedding '{text}'{hint}; a file ends in {', '.join(SUFFIXES)}, and profile "
                f"'{known.name}' knows, for perturbations named by {declared}: {', '.join(names)}"
            )
    ids = pd.Index(sorted(data.responses.obs["perturbation"].astype(str).unique()))
    if wanted and declared in ("symbol", "ensembl") and of_mouse(ids):
        raise InputError(
            f"perturbations such as '{ids[0]}' are written as mouse genes are; the vectors of "
            f"'{wanted[0]}' are of human genes: name the perturbations by their human orthologues"
        )
    needed = serving(specs, data.name, declared, wanted)[0] if wanted else []
    needed = [_converted(s, declared) for s in needed]
    left_out: dict[str, str] = {}
    context = BuildContext(dataset=data, folder=known.path.parent)
    made = build_all(needed, context, cache=known.results / "embeddings", left_out=left_out)
    built = [e for name in wanted for e in made if e.name == name]
    said = [f"{name} could not be had: {why}" for name, why in left_out.items()]
    return [*files, *built, random_embedding(list(ids), identifier=declared)], said


def _converted(spec: dict, identifier: str) -> dict:
    """Let a specification of vectors by symbol end in the identifiers of the perturbations."""
    if identifier not in ("ensembl", "entrez") or spec.get("of"):
        return spec
    rest = {k: v for k, v in spec.items() if k not in ("convert_to", "duplicates", "aliases")}
    if rest.get("identifier") == identifier:
        return rest
    return {**rest, "convert_to": identifier, "duplicates": "mean"}


def rank(
    data: Dataset,
    embeddings: Sequence[Embedding],
    *,
    way: str = "knn",
    trials: tuple[int, int] = (10, 10),
    seed: int = 0,
    n_jobs: int = 1,
    store: Path | None = None,
    left_out: Sequence[str] = (),
) -> Ranking:
    """Score embeddings on a data set by nested cross-validation, with floors and ceilings.

    A noise ceiling counts only where it is near the truth on simulated screens like this one.

    `way`: the predictor; `trials`: of the experimental error, over batches and over cells, where
    the data set has cells; `store`: file that keeps finished units, to resume; `left_out`:
    sentences on embeddings that could not be had.
    """
    coverage = coverage_table(embeddings, data.responses)
    none = coverage.groupby("embedding")["n_covered"].sum() == 0
    if none.any():
        row = coverage[coverage["embedding"] == none.index[none][0]].iloc[0]
        first = next(e for e in embeddings if e.name == row["embedding"]).ids[0]
        raise InputError(
            f"embedding '{row['embedding']}' has a vector for none of the perturbations: its ids "
            f"look like '{first}', the perturbations like '{row['missing'].split(',')[0]}'"
            f"{'; ' if row['hint'] else ''}{row['hint']}"
        )
    share = coverage.groupby("embedding")["coverage"].max()
    sparse = [e.name for e in embeddings if share[e.name] < LEAST]
    embeddings = [e for e in embeddings if e.name not in sparse]
    left_out = [*left_out, *(
        f"{name} was left out: only {percent(share[name])} of the perturbations have a vector."
        for name in sparse
    )]  # fmt: skip
    if all(e.modality == NEGATIVE for e in embeddings):
        raise InputError(f"nothing is left to rank. {' '.join(left_out)}")
    task, limits, more = task_of(data.responses), [], mask_only(data.responses)
    options = {"grid": K} if way == "knn" else {}
    if data.screen is not None:
        outer, inner = trials
        error = experimental_error(
            data, n_outer=outer, n_inner=inner, n_trials=outer, options={}, n_jobs=n_jobs
        )
        limits = limit_units(error, data.responses, seed, dataset=data.name)
    controls = CONTROLS
    if way == "lasso":
        controls = tuple(c for c in CONTROLS if c in task.floors)
        ideal = [idealized(data.responses, line, Protocol()) for line in cell_lines(data.responses)]
        more = [OnEmbedding(e, predictor("knn", task, grid=K)) for e in ideal]
        left_out = [*left_out, "Idealized is scored with kNN: lasso takes too long on it."]
    scores = evaluate_embeddings(
        data.responses, embeddings, [predictor(way, task, **options)], models=more, seed=seed,
        controls=controls, dataset=data.name, also=limits, n_jobs=n_jobs,
        store=ScoreStore(store or ":memory:"),
    )  # fmt: skip
    scores = calibrated(scores, data, partial(kept_truth, n_jobs))
    return Ranking(data, scores, coverage, left_out)


def printed(ranking: Ranking) -> str:
    """Write a ranking for a terminal: sizes, the table, sentences, and hints on names."""
    c = ranking.comparison
    heads = c.columns()
    table = c.ranking()[list(heads)]
    for column in table:
        write = p_value if column.startswith("p_") else number
        table[column] = [v if isinstance(v, str) else write(v) for v in table[column]]
    hints = ranking.coverage[ranking.coverage["hint"] != ""]
    said = [f"{r.embedding}, {r.cell_line}: {r.hint}" for r in hints.itertuples()]
    first, *rest = (re.sub(r"\*\*", "", text) for text in ranking.said())
    return "\n\n".join([first, table.rename(columns=heads).to_string(index=False), *rest, *said])


def write_report(ranking: Ranking, folder: Path, command: str = "") -> Path:
    """Write ``index.html``, which needs no other file, and its numbers beside it as tables.

    `command`: what was typed, shown at the end. Returns the page.
    """
    c = ranking.comparison
    table = c.ranking()
    save_table(table, folder / "ranking.csv")
    save_scores(ranking.scores, folder / "scores.csv")
    save_table(ranking.coverage, folder / "coverage.csv")
    drawn = svg(c.figure(), live=True)
    sentences = [re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(s)) for s in ranking.said()]
    caption = (
        f"{c.label}: means over cell lines and folds, with their 95 % interval. Bold: the best, "
        "and those that cannot be told apart from it. Controls do not compete, nor does what "
        f"covers less than {percent(COVERING)} of the perturbations. Gap closed: (score - Train "
        "Mean) / (ceiling - Train Mean)."
    )
    page = Template((Path(__file__).parent / "examples" / "report.html").read_text("utf-8"))
    text = page.substitute(
        title=html.escape(f"Embeddings on {ranking.data.title}"),
        answer=html.escape(c.one_line()),
        figure=drawn[drawn.index("<svg") :],
        sentences="\n".join(f"<p>{s}</p>" for s in sentences),
        ranking=table_html(table, c.columns(), "ranking", caption=caption, bold="with_best"),
        coverage=table_html(
            ranking.coverage, COVERAGE, "coverage", caption="Who has vectors for what."
        ),
        made=html.escape(f"perturbcore {__version__}: {command}"),
    )
    write_atomically(folder / "index.html", unbroken(text).encode())
    return folder / "index.html"
