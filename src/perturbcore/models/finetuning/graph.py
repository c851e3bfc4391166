"""A pretrained graph network fine-tuned to predict responses, as a model that is scored by folds."""

import copy
import shutil
from collections.abc import Sequence
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.core.training.batches import Batches
from perturbcore.core.training.fit import fit
from perturbcore.embeddings.gcn import Pretrained, normalised
from perturbcore.models.finetuning.graph_objectives import GraphObjective, Neighbourhood
from perturbcore.models.simple.labels import Labels, best_threshold, pair_labels
from perturbcore.score.joint import Prediction

KINDS = {"lfc": "lfc", "deg": "deg", "deg_pairs": "pairs", "dir_pairs": "pairs"}
LEAST_TRAINING = 10
LRS, BATCH_SIZES = (1e-3, 1e-4, 1e-5), (16, 32, 64)


class GraphModel:
    """A graph network with a linear head, trained on the responses of one cell line at a time.

    A tenth of the training perturbations is set aside. For every learning rate and batch size the
    network is trained on the others, from its pretrained weights; the combination and epoch with the
    least validation loss predict. Test perturbations take no part in that. Perturbations that are no
    node of the graph are not trained on, and are predicted at the mean of all training responses.

    Parameters
    ----------
    pretrained : Pretrained
        Left as it is: each training works on a copy.
    nodes : pandas.Series
        Node number, indexed by perturbation name (several names may lead to one node).
    lrs, batch_sizes : sequences
        To choose from; the published grids by default.
    epochs, patience : int
        Upper limit of epochs; stop after so many without a better validation loss.
    dropout : float, optional
        In fine-tuning; that of pretraining by default.
    weight_decay : float
    validation : float
        Share of the training perturbations set aside.
    frozen : bool
        Ablation: the head alone is trained.
    seed : int
    folder : path, optional
        Checkpoints of a fold while it is trained: a killed run resumes there.
    device : str
    name, modality : str
        Columns of the scores.

    References
    ----------
    Cole et al. 2026, section 4.8.2, Eq. 17-18.
    """

    joint = False

    def __init__(
        self,
        pretrained: Pretrained,
        nodes: pd.Series,
        *,
        lrs: Sequence[float] = LRS,
        batch_sizes: Sequence[int] = BATCH_SIZES,
        epochs: int = 50,
        patience: int = 5,
        dropout: float | None = None,
        weight_decay: float = 0.0,
        validation: float = 0.1,
        frozen: bool = False,
        seed: int = 0,
        folder: Path | None = None,
        device: str = "auto",
        name: str = "GNN",
        modality: str = "Prior knowledge",
    ):
        if not lrs or min(lrs) <= 0 or not batch_sizes or min(batch_sizes) < 1:
            raise ParameterError(
                f"lrs={list(lrs)} must be above 0, batch_sizes={list(batch_sizes)} at least 1"
            )
        if epochs < 1 or patience < 1 or not 0 < validation < 1:
            raise ParameterError(
                f"epochs={epochs} and patience={patience} must be at least 1, validation={validation} in (0, 1)"
            )
        self.pretrained, self.nodes = pretrained, nodes
        self.lrs, self.batch_sizes = tuple(map(float, lrs)), tuple(map(int, batch_sizes))
        self.epochs, self.patience, self.weight_decay = epochs, patience, weight_decay
        self.dropout = pretrained.network.dropout if dropout is None else dropout
        self.validation, self.frozen, self.seed = validation, frozen, seed
        self.folder, self.device = None if folder is None else Path(folder), device
        self.name, self.modality = name, modality
        self.predictor = "frozen + linear" if frozen else "fine-tuned"
        self._near = Neighbourhood(normalised(pretrained.A), len(pretrained.network.convolutions))

    @property
    def spec(self) -> dict:
        """Every hyperparameter."""
        own = ("epochs", "patience", "dropout", "weight_decay", "validation", "frozen", "seed")
        grids = {"lrs": list(self.lrs), "batch_sizes": list(self.batch_sizes)}
        return {"class": "GraphModel"} | grids | {k: getattr(self, k) for k in own}

    @cached_property
    def digest(self) -> str:
        """Content of the pretrained network, the graph and the names of the nodes."""
        weights = {
            k: digest(v.numpy()) for k, v in sorted(self.pretrained.network.state_dict().items())
        }
        return digest(weights, self.pretrained.A, self.nodes)

    def fit_predict(self, train: AnnData, test: AnnData, *, fold: int) -> Prediction:
        """Train on `train`, line by line, and predict the rows of `test`.

        Parameters
        ----------
        train, test : AnnData
            Responses; of `test` only the names are read.
        fold : int
            Seeds the choice of validation perturbations together with `seed`.

        Returns
        -------
        Prediction
            `note` holds per line what was chosen and the validation loss of each combination.

        Raises
        ------
        InputError
            A line has no training perturbation, or training diverged with every combination.
        """
        task = train.uns["perturbcore"]["task"]
        kind = KINDS[task]
        shape = (3, *test.shape) if kind == "deg" else test.shape
        values = np.empty(shape, dtype=np.float32)
        chosen, note, cut, known = [], {}, {}, 0
        for line in pd.unique(test.obs["cell_line"].astype(str)):
            a = (train.obs["cell_line"].astype(str) == line).to_numpy()
            b = (test.obs["cell_line"].astype(str) == line).to_numpy()
            if not a.any():
                raise InputError(f"cell line {line!r} has no training perturbation in fold {fold}")
            names, asked_names = (
                r.obs["perturbation"].astype(str)[m] for r, m in ((train, a), (test, b))
            )
            at, asked = (self._nodes_of(n) for n in (names, asked_names))
            known += int((at >= 0).sum() + (asked >= 0).sum())
            data = _Data(train[a], task)
            found, about = self._line(data, at, names.to_numpy(), asked, line, fold)
            values[..., b, :] = found
            if about.get("threshold") is not None:
                cut[line] = about["threshold"]
            note[line] = about
            chosen.append(about["chosen"])
        return Prediction(
            values, cut or None, "; ".join(chosen), known / (train.n_obs + test.n_obs), note
        )

    def _nodes_of(self, names) -> np.ndarray:
        return self.nodes.reindex(list(names)).fillna(-1).to_numpy().astype(np.int64)

    def _line(self, data: "_Data", at, names, asked, line, fold):
        values = np.repeat(data.floor[..., None, :], len(asked), axis=-2)
        rows, ask = np.flatnonzero(at >= 0), np.flatnonzero(asked >= 0)
        about = {"covered": len(ask), "missing": int(len(asked) - len(ask))}
        if len(rows) < LEAST_TRAINING or not len(ask):
            return values, about | {
                "chosen": "training mean: too few perturbations are nodes of the graph"
            }
        # by name, so that the order of the file decides nothing
        order = rows[np.argsort(names[rows], kind="stable")]
        order = order[np.random.default_rng([self.seed, fold, 7]).permutation(len(order))]
        n_out = max(1, round(self.validation * len(order)))
        parts = order[n_out:], order[:n_out]
        best, losses, folders = None, {}, []
        for lr, size in product(self.lrs, self.batch_sizes):
            objective = self._objective(data, at[parts[0]], lr)
            folder, key = self._place(data, at, line, fold, lr, size)
            folders.append(folder)
            try:
                done = fit(
                    objective, self._batches(data, at, parts[0], size), self._batches(data, at, parts[1], None),
                    max_epochs=self.epochs, patience=self.patience, grad_clip=1.0, device=self.device,
                    seed=self.seed + fold, folder=folder, key=key,
                )  # fmt: skip
            except InputError:
                continue  # a rate at which training diverges is not chosen
            losses[f"lr {lr:g}, batch {size}"] = error = float(done.history["val"].min())
            if best is None or error < best[0]:
                best = error, f"lr {lr:g}, batch {size}, epoch {done.best_epoch + 1}", objective
        if best is None:
            raise InputError(
                f"model {self.name!r}: training diverged with every learning rate of {list(self.lrs)} in cell "
                f"line {line!r}; add smaller ones"
            )
        for folder in filter(None, folders):  # the fold is done: nothing is left to resume
            shutil.rmtree(folder, ignore_errors=True)
        _, chosen, objective = best
        found = self._predict(objective, asked[ask])
        values[..., ask[:, None], data.columns] = found
        about |= {"chosen": chosen, "losses": losses, "threshold": None}
        if data.kind == "pairs":
            label, mask = data.label[parts[1]], data.known[parts[1]]
            about["threshold"] = best_threshold(
                label[mask], self._predict(objective, at[parts[1]])[mask]
            )
        return values, about

    def _objective(self, data, at, lr) -> GraphObjective:
        network = copy.deepcopy(self.pretrained.network)
        network.dropout = self.dropout
        z = self._vectors[at]
        scale = np.maximum(z.std(axis=0), 1e-6)
        return GraphObjective(
            network, z.mean(axis=0), scale, data.bias(), task=data.kind, lr=lr,
            weight_decay=self.weight_decay, frozen=self.frozen,
        )  # fmt: skip

    @cached_property
    def _vectors(self) -> np.ndarray:
        return self.pretrained.vectors()

    def _read(self, nodes: np.ndarray) -> dict:
        # the vectors of a frozen network are known beforehand
        return (
            {"vectors": torch.as_tensor(self._vectors[nodes])}
            if self.frozen
            else self._near.around(nodes)
        )

    def _batches(self, data, at, rows, size) -> Batches:
        def make(index):
            chosen = rows[index]
            batch = {"label": torch.as_tensor(data.label[chosen]), **self._read(at[chosen])}
            if data.known is not None:
                batch["known"] = torch.as_tensor(data.known[chosen])
            return batch

        return Batches(len(rows), size or len(rows), make, seed=self.seed, shuffle=size is not None)

    @torch.no_grad()
    def _predict(self, objective, nodes) -> np.ndarray:
        objective.eval()
        found = objective(**self._read(nodes))
        if objective.task == "deg":
            found = torch.softmax(found, dim=0)
        elif objective.task == "pairs":
            found = torch.sigmoid(found)
        return found.numpy()

    def _place(self, data, at, line, fold, lr, size):
        if self.folder is None:
            return None, ""
        key = digest(self.spec, self.digest, data.label, data.known, at, line, fold, lr, size,
                     code_digest(type(self)))  # fmt: skip
        return self.folder / f"graph-{key}", key


class _Data:
    """Training responses of a line in the form of its task, with what they say of every gene.

    `label` and `known` hold the genes `columns` only: of partial labels those with a known one.
    """

    def __init__(self, rows: AnnData, task: str):
        self.kind, self.known = KINDS[task], None
        if self.kind == "lfc":
            self.label = np.asarray(rows.X, dtype=np.float32)
        elif self.kind == "deg":
            self.label = np.asarray(rows.layers["deg"], dtype=np.int8)
        else:
            label, self.known = pair_labels(rows)
            self.label = label.astype(np.float32)
        self.floor = self._floor()
        self.columns = np.arange(rows.n_vars)
        if self.known is not None:
            self.columns = np.flatnonzero(self.known.any(axis=0))
            self.label = np.ascontiguousarray(self.label[:, self.columns])
            self.known = np.ascontiguousarray(self.known[:, self.columns])

    def _floor(self) -> np.ndarray:
        """Mean response, rate of positives, or share of each class, of every gene."""
        if self.kind == "lfc":
            return self.label.mean(axis=0, dtype=np.float64).astype(np.float32)
        if self.kind == "pairs":
            return Labels.from_dense(self.label, self.known).rates().astype(np.float32)
        counts = np.stack([(self.label == c).sum(axis=0) for c in (-1, 0, 1)]) + 1.0
        return (counts / counts.sum(axis=0)).astype(np.float32)

    def bias(self) -> np.ndarray:
        """Return what the head starts from: the floor of its genes, on the scale of its output."""
        floor = self.floor[..., self.columns]
        if self.kind == "lfc":
            return floor
        if self.kind == "deg":
            return np.log(floor)
        inside = np.clip(floor, 1e-4, 1 - 1e-4)
        return np.log(inside / (1 - inside))
