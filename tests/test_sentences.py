"""What the book says, scene by scene: `sentences.txt` can be read from top to bottom.

After a change of words on purpose: ``python tests/test_sentences.py > tests/sentences.txt``, and
read it.
"""

import ast
import re
import string
import textwrap
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from test_chapter_rooms import AHEAD, ahead_in
from test_classification import METHODS, part_of, scored
from test_decoder_evaluation import distributions, fake_run
from test_finetuning_page import toy
from test_fusion_page import shifted, toy_scores
from toys import scores

from perturbcore.report import finetuning, labels, leaderboard, text
from perturbcore.report.comparison import Comparison
from perturbcore.report.decoders import page as decoders
from perturbcore.report.fusion import page as fusion
from perturbcore.report.paired import verdict

KEPT = Path(__file__).with_name("sentences.txt")
FLOORS = {"train_mean": 8.0, "no_change": 9.0}
WOBBLE = np.array([0.03, -0.05, 0.01, 0.04, -0.03])


def world(embeddings, ceilings=None, folds=5, coverage=None):
    """Scores (L2) with known means; each method has the wobble of its own turn."""
    ends = {"idealized": "Positive control", "random": "Negative control"}
    means = {(name, "knn", ends.get(name, "Protein")): at for name, at in embeddings.items()}
    for name, at in {**FLOORS, **(ceilings or {})}.items():
        means["", name, "Negative control" if name in FLOORS else "Positive control"] = at
    table = scores(means, noise=0, shift=0, folds=folds)
    turn = table.groupby(["embedding", "predictor"], sort=False).ngroup()
    table["value"] += [
        np.roll(WOBBLE, t)[fold] for t, fold in zip(turn, table["fold"], strict=True)
    ]
    share = table["embedding"].map(coverage or {})
    return table.assign(coverage=share.fillna(table["coverage"]))


def wavering(table, name, by=4.0):
    """The same means, but one embedding is far from its own in every fold."""
    swing = by * np.array([1, -1, 1, -1, 0])
    own = (table["embedding"] == name) * swing[table["fold"]]
    return table.assign(value=table["value"] + own)


IDEAL = {"idealized": 3.0}
SCENES = {
    "One is best, the others are worse": world({"first": 5, "second": 6, "third": 7, **IDEAL}),
    "Two tie at the top": world({"first": 5, "second": 5.01, "third": 7, **IDEAL}),
    "All tie": world({"first": 5, "second": 5.01, "third": 5.02, **IDEAL}),
    "Some do not beat the Train Mean": world({"first": 5, "second": 8.0, "third": 8.3, **IDEAL}),
    "No one can be shown to beat the Train Mean": world({"first": 7.99, "second": 8.01, **IDEAL}),
    "The best wavers, the next is steady": wavering(
        world({"first": 6.9, "second": 7, "third": 8.2, **IDEAL}), "first"
    ),
    "No one is better than the Train Mean": world({"first": 8.2, "second": 8.5, **IDEAL}),
    "One alone": world({"first": 5, **IDEAL}),
    "A noise floor is the ceiling": world({"first": 5, "second": 6, **IDEAL}, {"noise_floor": 4.0}),
    "A repeated experiment stands beside it": world(
        {"first": 5, "second": 6, **IDEAL}, {"noise_floor": 4.0, "repeated_experiment": 5.5}
    ),
    "The best reaches the ceiling": world(
        {"first": 3.9, "second": 6, **IDEAL}, {"noise_floor": 4.0}
    ),
    "The ceiling is no better than the Train Mean": world(
        {"first": 7.9, "second": 8.1, **IDEAL}, {"noise_floor": 8.4}
    ),
    "The Train Mean does not beat No Change": world(
        {"first": 5, "second": 6, **IDEAL}, {"no_change": 7.0}
    ),
    "One lacks vectors": world(
        {"first": 5, "second": 6, "third": 7, **IDEAL}, coverage={"first": 0.9, "second": 0.3}
    ),
    "One looks too good": world({"first": 3.2, "second": 7.4, "third": 7.5, **IDEAL}),
    "One fold only": world({"first": 5, "second": 6, **IDEAL}, folds=1),
}


def adapted(title, uses, floor=10.0, noise=0.2):
    """What is said of uses of one representation with these L2 errors."""
    uses = {("G", use): value for use, value in uses.items()}
    run = toy({**uses, ("H", "knn"): 9.0}, floor=floor, noise=noise)
    said = [finetuning.answer(run), finetuning.surprises(run), finetuning.one_line([run])]
    return f"Fine-tuning: {title}", said


def decoded(title, decoder, ridge=0.1, floor=6.0):
    """What is said of a decoder and of ridge that differ from kNN by so much."""
    return f"Decoders: {title}", [decoders.answer(fake_run(decoder, ridge, floor=floor))]


def labelled(title, better=(), **limits):
    """What is said of labels; `limits`: scores of ceilings, `better` replaces means of methods."""
    methods = METHODS | dict(better)
    methods |= {("", name, "Positive control"): value for name, value in limits.items()}
    part = part_of(scored(methods))
    c = part.comparison("f1_score")
    said = [labels.finding(c, "D"), labels.reading(c, "D"), c.gap_said()]
    return f"Labels: {title}", [*said, labels.one_line({"d": part}, "f1_score")]


def pages():
    """Yield titles and what pages say of runs with known differences."""
    uses = {"knn": 6.0, "fine-tuned": 5.0, "frozen + linear": 5.6}
    yield adapted("a gain, and ridge has more", uses | {"ridge": 4.5}, noise=0.01)
    yield adapted("a loss", uses | {"fine-tuned": 7.0})
    yield adapted("a tie", uses | {"fine-tuned": 6.0})
    yield adapted("a gain where the Train Mean wins", uses, floor=4.0)
    yield adapted("a gain where the Train Mean ties", uses, floor=5.0)
    yield adapted("nothing to adapt", {"knn": 6.0})
    yield decoded("a gain, and ridge has half of it", -0.5, -0.3)
    yield decoded("a gain, and ridge has more", -0.5, -0.6)
    yield decoded("a gain, and ridge has none", -0.5, 0.2)
    yield decoded("a loss", 0.5)
    yield decoded("a loss where the Train Mean wins", 0.5, floor=4.0)
    yield decoded("a tie", 0.001)
    two = [fake_run(-0.5), fake_run(0.5, title="Other (cells)")]
    yield "Decoders: two data sets", [decoders.take_home(two, None)]
    for name, energy in (("closer", 0.3), ("farther", 0.7), ("as close", 0.5)):
        yield f"Generated cells: {name}", [decoders.distribution_answer(distributions(energy))]
    f = toy_scores()
    deep = shifted(f, "Simple fusion", -4.0)
    yield "Fusion: the simple one is best", [fusion.answer(f), fusion.one_line(f, "on a board 0.7")]
    yield "Fusion: the transformer is best", [fusion.answer(deep), fusion.one_line(deep)]
    tie = pd.Series({"gain": 0.2, "low": 0.1, "high": 0.3, "verdict": "tie"})
    yield "Fusion: a tie once adjusted", [fusion.effect("fusion", tie)]
    for lines in AHEAD:
        ours = ahead_in(lines)
        line = leaderboard.one_line(ours, ours[ours["predictor"] != "train_mean"])
        said = [leaderboard.verdict(ours), leaderboard.one_line(ours), line]
        yield f"Leaderboard: ahead in {len(lines)} lines", said
    low = {("random", "logistic", "Negative control"): 0.30}
    yield labelled("two beat both floors")
    yield labelled("random vectors are below the Train Mean", low)
    yield labelled("none beats them", {key: 0.5 for key in METHODS})
    error, floor = dict(experimental_error=0.90), dict(noise_floor=0.80)
    yield labelled("a ceiling", **error)
    yield labelled("three ceilings", **error, **floor, repeated_experiment=0.70)
    yield labelled("a repeat beyond the floor", **error, **floor, repeated_experiment=0.85)
    wanted = {"Simple": {"preset": "deg_sciplex"}, "Full": {"preset": "lfc_full", "max_epochs": 9}}
    fused = {("Simple", "transformer", "Fusion"): 0.65, ("Full", "transformer", "Fusion"): 0.55}
    yield "Labels: fused", [labels.fused_said(part_of(scored(METHODS | fused)), wanted)]
    nothing = [labels.fused_said(part_of(scored(METHODS)), {}), labels.absent_said({}, {})]
    lacking = replace(part_of(scored(METHODS)), left_out=["GO", "STRING"])
    absent = [labels.one_line({}, "f1_score"), labels.absent_said({"d": lacking}, {"x": "gone"})]
    yield "Labels: none at hand", [*absent, *nothing]


@cache
def told() -> str:
    """Write every scene with what is said of it."""
    parts = []
    for title, table in SCENES.items():
        c = Comparison(table)
        said = [*c.answer("a toy screen").split("\n\n"), c.reading()]
        said += [f"In one line: {c.one_line()}", c.verdict_said("a toy screen")]
        parts.append("\n".join([f"## {title}", *said]))
    parts += ["\n".join([f"## {title}", *said]) for title, said in pages()]
    words = {
        "verdict": [verdict(*x) for x in [(1, 0.01), (-1, 0.01), (1, 0.5), (1, np.nan)]],
        "listed": [text.listed(x) for x in [[], "a", "ab", "abc", ["a, b", "c"]]],
        "percent": [text.percent(x) for x in (0.5, 1.426, -0.004, -0.2, np.nan)],
        "plural": [f"{n} {text.plural(n, 'fold')}" for n in (0, 1, 2)],
        "number": [text.number(x) for x in (None, 3, 12345, -0.5, True, np.nan)],
        "signed": [text.signed(x) for x in (0.25, -0.25, np.nan)],
        "p_value": [text.p_value(x) for x in (0.5, 0.0004)],
        "duration": [text.duration(x) for x in (0.01, 2.5, 45, 600, np.nan)],
    }
    lines = [f"{name}: {' | '.join(values)}" for name, values in words.items()]
    whole = "\n\n".join([*parts, "\n".join(["## Words", *lines])])
    return "\n".join(w for x in whole.splitlines() for w in textwrap.wrap(x, 98) or [""]) + "\n"


def test_what_is_said_is_what_was_read():
    assert told() == KEPT.read_text(encoding="utf-8")


def test_no_sentence_shows_an_object_or_an_empty_join():
    said = told().replace("< 0.001", "")
    for wrong in (r"\bNone\b", r"\bnan\b", "  ", r" [.,](?!\w)", "<", r"\(\)", r"\.\."):
        assert not re.search(wrong, said), wrong


def test_every_text_gets_the_values_that_it_names():
    found = 0
    for path in (Path(__file__).parents[1] / "src").rglob("*.py"):
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        for call in calls:
            name = getattr(call.func, "id", "")
            if name != "tell" or not isinstance(call.args[0], ast.Constant):
                continue
            page, key = call.args[0].value.split(".")
            fields = [field for _, field, *_ in string.Formatter().parse(text.TEXTS[page][key])]
            wanted = {re.split(r"[.[]", field)[0] for field in fields if field}
            given, found = {k.arg for k in call.keywords}, found + 1
            assert None in given or given == wanted, (path.name, call.args[0].value)
    assert found > 100


if __name__ == "__main__":
    print(told(), end="")
