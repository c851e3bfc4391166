"""Rules on the comparison with STATE on unseen cell lines (Figures S12, S13)."""

import pandas as pd

from perturbcore.report.published.evidence import (
    HOLDS,
    Evidence,
    Finding,
    percent,
    verdict,
)
from perturbcore.report.published.rules import rule


def _cross(ev: Evidence) -> pd.DataFrame:
    """Mean over held-out lines: (data set, metric) x method, larger is better."""
    out = {}
    for dataset, figure in (("Essential", "S12"), ("Tahoe", "S13")):
        for metric in ev.fig(figure).spec.panels:
            mean = ev.fig(figure).medians(metric).mean()
            out[(dataset, metric)] = mean.rename(
                lambda d: "MLP" if d.startswith("MLP (") and "One" not in d else d
            )
    return pd.DataFrame(out).T


def _change(table: pd.DataFrame, a: str, b: str) -> pd.Series:
    """Relative improvement of a over b; MAE is an error."""
    change = table[a] / table[b] - 1
    error = table.index.get_level_values(1) == "mae"
    return change.where(~error, -change)


@rule("mlp_vs_state")
def mlp_vs_state(ev: Evidence) -> Finding:
    """Embedding MLP against STATE in six settings; similar means within 5%."""
    change = _change(_cross(ev), "MLP", "STATE")
    better, similar = change > 0, (change <= 0) & (change > -0.05)
    n = int(better.sum() + similar.sum())
    return Finding(
        verdict(n == 3 and not similar.any(), n == 3),
        f"better in {int(better.sum())}, within 5% in {int(similar.sum())} of 6",
        "Change of the MLP against STATE, mean over held-out lines: "
        + ", ".join(f"{d} {m} {percent(v)}" for (d, m), v in change.items())
        + ".",
        means=f"{n} of 6",
    )


@rule("mlp_64_percent")
def mlp_64_percent(ev: Evidence) -> Finding:
    """Largest improvement of the MLP over STATE."""
    change = _change(_cross(ev), "MLP", "STATE")
    where = change.idxmax()
    return Finding(
        verdict(0.63 < change.max() < 0.66),
        percent(change.max(), 1),
        f"The largest improvement is {percent(change.max(), 1)} ({where[0]}, {where[1]}); the largest "
        "loss "
        f"is {percent(change.min())} ({change.idxmin()[0]}, {change.idxmin()[1]}).",
        means=percent(change.max(), 1),
    )


@rule("one_hot_similar")
def one_hot_similar(ev: Evidence) -> Finding:
    """Compare the MLP with embeddings with the MLP with one-hot codes; similar means within 10%."""
    change = _change(_cross(ev), "MLP (One-Hot)", "MLP")
    small = change.abs() < 0.1
    return Finding(
        verdict(bool(small.all()), int(small.sum()) > 3) if small.sum() < 4 else HOLDS,
        f"within 10% in {int(small.sum())} of 6",
        "Change when the embedding is replaced by a one-hot code: "
        + ", ".join(f"{d} {m} {percent(v)}" for (d, m), v in change.items())
        + ".",
        means=f"{int(small.sum())} of 6",
    )
