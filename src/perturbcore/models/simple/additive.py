"""What needs no embedding to say of new perturbations: sums of single effects, a bilinear model."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from perturbcore.core.errors import InputError
from perturbcore.data.contexts import control_profiles
from perturbcore.data.folds import single_genes
from perturbcore.score.model import Fold, Model, Prediction

SIMPLE = "Advanced"


@dataclass(eq=False)
class Additive(Model):
    """The sum of the effects of both single perturbations (Ahlmann-Eltze et al. 2025).

    A gene that was not perturbed alone in training counts as the mean single perturbation. A single
    perturbation gets the floor.
    """

    embeddings: Any = ()
    name = "Additive"
    modality = SIMPLE
    predictor = "additive"
    tasks = ("expression",)

    def predict(self, fold: Fold) -> Prediction:
        """Add what is known of the parts of each test perturbation."""
        Y, rows = fold.truth, {}
        for i, name in enumerate(fold.train_ids):
            parts = single_genes(name)
            if len(parts) == 1:
                rows[parts[0]] = i
        mean = Y[list(rows.values())].mean(axis=0) if rows else Y.mean(axis=0)
        values = fold.task.floor(Y, len(fold.test_ids), fold.task.missing)
        known = np.zeros(len(values), dtype=bool)
        for i, name in enumerate(fold.test_ids):
            parts = single_genes(name)
            if len(parts) > 1:
                values[i] = sum(Y[rows[p]] if p in rows else mean for p in parts)
                known[i] = all(p in rows for p in parts)
        return Prediction(values, coverage=float(known.mean()), covered=known)


@dataclass(eq=False)
class Bilinear(Model):
    """A linear model of genes by perturbations (Ahlmann-Eltze et al. 2025).

    Genes are told by principal components of the mean expression in training, a perturbation by
    those of the gene that it hits (of two genes: their sum). `n_components`: how many; `penalty`:
    of the two-sided ridge. A perturbed gene that is not measured gets the floor.
    """

    embeddings: Any = ()
    n_components: int = 10
    penalty: float = 0.1
    name = "Bilinear"
    modality = SIMPLE
    predictor = "bilinear"
    tasks = ("expression",)

    def predict(self, fold: Fold) -> Prediction:
        """Fit the weights between both sets of coordinates, and predict."""
        levels = control_profiles(fold.train.var)
        line = fold.cell_lines[0]
        if line not in levels:
            raise InputError(f"bilinear needs the control cells of '{line}': give one with cells")
        genes, level = fold.train.var_names, levels[line].to_numpy()
        both = (fold.train_ids, fold.test_ids)
        at = ([genes.get_indexer(single_genes(name)) for name in ids] for ids in both)
        # no column where one of a perturbation's genes is not measured
        train, asked = ([a if (a >= 0).all() else a[:0] for a in part] for part in at)
        there = [len(a) > 0 for a in train]
        # the control is a perturbation of its own, of no effect and without coordinates
        Y = np.vstack([fold.truth[there], np.zeros(len(genes))]).astype(float)
        expression, shift = (Y + level).T, Y.mean(axis=0)
        q = min(self.n_components, *expression.shape)
        G = PCA(q, svd_solver="full").fit_transform(expression)
        P = np.array([*(G[a].sum(axis=0) for a in train if len(a)), np.zeros(q)])
        eye = self.penalty * np.eye(q)
        W = np.linalg.solve(G.T @ G + eye, G.T @ (Y - shift).T @ P)
        W = np.linalg.solve(P.T @ P + eye, W.T).T
        values = fold.task.floor(fold.truth, len(asked), fold.task.missing)
        covered = np.array([len(a) > 0 for a in asked])
        for i in np.flatnonzero(covered):
            values[i] = G @ W @ G[asked[i]].sum(axis=0) + shift
        return Prediction(values, coverage=float(covered.mean()), covered=covered)
