"""What fusion learned: attention to each source, and predictions with fewer sources."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from perturbcore.core.errors import ParameterError
from perturbcore.models.fusion.fitted import Fitted

WAYS = ("rollout", "cls", "neighbours")


def source_attention(
    fitted: Fitted, rows: Sequence[int] | None = None, *, way: str = "rollout"
) -> pd.DataFrame:
    """Say how much each response draws on each of its sources.

    Parameters
    ----------
    fitted : Fitted
    rows : sequence of int, optional
        Rows of `fitted.obs`; the test rows by default.
    way : {"rollout", "cls", "neighbours"}
        "rollout": attention of CLS followed through all layers, residual connections counting half;
        "cls": attention of CLS to each source, averaged over layers and heads; "neighbours": weight
        of each source's kernel in the attention to training perturbations (settings
        ``neighbours=True``), shared out over the sources that the perturbation has.

    Returns
    -------
    pandas.DataFrame
        Columns `perturbation`, `cell_line`, `source`, `attention`: shares of the sources that a
        response has, adding up to 1; NaN for those it has not.

    Raises
    ------
    ParameterError
        Unknown `way`, or "neighbours" of a model that has none.

    References
    ----------
    Abnar & Zuidema 2020 (rollout).
    """
    if way not in WAYS:
        raise ParameterError(f"way '{way}' is not one of: {', '.join(WAYS)}")
    rows = np.arange(fitted.n_train, len(fitted.obs)) if rows is None else np.asarray(rows)
    share = np.mean([_shares(one, fitted, rows, way) for one in fitted.learners], axis=0)
    present = fitted.sources.present[rows]
    share = np.where(present, share, 0)
    total = share.sum(axis=1, keepdims=True)
    share = np.where(present, share / np.where(total > 0, total, 1), np.nan)
    names = fitted.sources.names
    obs = fitted.obs.iloc[np.repeat(rows, len(names))].reset_index(drop=True)
    return obs.assign(source=np.tile(names, len(rows)), attention=share.ravel())


def _shares(learner, fitted, rows, way) -> np.ndarray:
    import torch

    learner.eval()
    if way == "neighbours" and getattr(learner, "neighbours", None) is None:
        raise ParameterError(
            "way='neighbours' is for models with neighbours=True: use 'rollout' or 'cls'"
        )
    out = []
    with torch.no_grad():
        for part in torch.as_tensor(rows).split(256):
            at, line = learner.at[part], learner.line[part]
            vector, _, (layers, order, alive) = learner.network.encode(
                learner.tables, at, line, weights=True
            )
            if way == "neighbours":
                out.append(learner.neighbours.source_weights(vector).cpu().numpy())
                continue
            first = 2 if learner.settings.line == "token" else 1
            to = _from_cls(layers, way)
            # back from packed places to sources; places cut off are of missing ones
            full = torch.zeros(len(part), first + len(fitted.sources.names), device=to.device)
            full.scatter_(1, order[:, : to.shape[1]], to * alive)
            out.append(full[:, first:].cpu().numpy())
    return np.concatenate(out)


def _from_cls(layers, way):
    import torch

    if way == "cls":
        return torch.stack([a[:, 0] for a in layers]).mean(dim=0)
    flow = None
    for attention in layers:
        n = attention.shape[2]
        step = 0.5 * attention[:, :n] + 0.5 * torch.eye(n, device=attention.device)
        flow = step if flow is None else step @ flow
    return flow[:, 0]


def leave_one_out(model, *, retrain: bool = False) -> list:
    """Return the model without each of its sources in turn, named "<name> without <source>".

    Parameters
    ----------
    model : TransformerFusion
        With a `folder`, hiding costs no training: the weights of `model` are loaded.
    retrain : bool
        Train without the source, rather than hide it at prediction.
    """
    out = []
    for source in model.sources:
        name = f"{model.name} without {source}"
        rest = [s for s in model.sources if s != source]
        if not rest:
            raise ParameterError(f"'{source}' is the only source: nothing is left without it")
        out.append(
            model.with_only(rest, name) if retrain else replace(model, hidden=(source,), name=name)
        )
    return out


def only_one(model, *, retrain: bool = False) -> list:
    """Return the model with each of its sources alone, named "<name>, only <source>"."""
    return [
        some_sources(model, [s], f"{model.name}, only {s}", retrain=retrain) for s in model.sources
    ]


def growing(model, order: Sequence[str], *, retrain: bool = False) -> list:
    """Return the model with the first, the first two, ... of its sources in an order.

    Named "<name>, <n> sources". All of them is the last.
    """
    return [
        some_sources(model, order[: n + 1], f"{model.name}, {n + 1} sources", retrain=retrain)
        for n in range(len(order))
    ]


def some_sources(model, sources: Sequence[str], name: str, *, retrain: bool = False):
    """Return the model with some of its sources, hidden at prediction or trained without.

    Raises
    ------
    ParameterError
        One of `sources` is not there.
    """
    unknown = sorted(set(sources) - set(model.sources))
    if unknown:
        raise ParameterError(f"no source '{unknown[0]}'; there are: {', '.join(model.sources)}")
    if retrain:
        return model.with_only(sources, name)
    return replace(
        model, hidden=tuple(s for s in model.sources if s not in set(sources)), name=name
    )
