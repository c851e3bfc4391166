"""The decoder: fitted on cells of training perturbations, it draws cells of others."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.core.training.batches import Batches
from perturbcore.core.training.fit import fit
from perturbcore.core.training.learner import Learner, constant_after_warmup, cosine_after_warmup
from perturbcore.models.decoders.backbones import make_backbone
from perturbcore.models.decoders.latent import Latent, VectorScale, check_cells
from perturbcore.models.decoders.options import DecoderOptions
from perturbcore.models.decoders.pairs import Pairs
from perturbcore.models.decoders.processes import PROCESSES

# cells that go through a network together when sampling, small enough for a processor's cache where
# each is many tokens; random draws are seeded chunk by chunk
CHUNK = {"mlp": 8192, "dit": 512}


@dataclass
class TrainingCells:
    """What a generator may learn from: one cell line, one fold.

    `controls, cells` (n_control, n_genes): log-normalised expression; `perturbation,
    control_batch, cell_batch`: labels of the rows; batches are needed for
    ``partners="same_batch"``; `vectors`: embedding of training and of test perturbations, where
    there is one; `test`: perturbations to be generated; `folder`: checkpoints and weights go to
    a subfolder named by what decides the result: a killed fit resumes there, a finished one is
    loaded.
    """

    controls: sp.csr_matrix | np.ndarray
    cells: sp.csr_matrix | np.ndarray
    perturbation: Sequence[str]
    vectors: pd.DataFrame
    control_batch: Sequence | None = None
    cell_batch: Sequence | None = None
    test: Sequence[str] = ()
    responses: AnnData | None = None
    seed: int = 0
    folder: Path | None = None


class Decoder:
    """Latent diffusion, flow matching or Schrödinger bridge from control to perturbed cells.

    `validation`: perturbations whose cells are kept out of training and of the latent space and
    decide when to stop; or the share of perturbations to draw for that by the seed. Empty or 0:
    none.

    `latent`: fitted on controls and training perturbations; `history`: one row per epoch:
    losses and seconds; see `Trained`.

    Cole et al. 2026, Methods 4.7.4.

    >>> decoder = Decoder(LAPTOP["flow"]).fit(training_cells)                       # doctest: +SKIP
    >>> generated = decoder.draw(controls, vectors.loc[["TP53"]], seed=0)           # doctest: +SKIP
    """

    def __init__(
        self,
        options: DecoderOptions,
        validation: Sequence[str] | float = 0.15,
        device: str = "auto",
    ):
        self.options, self.share, self.device = options, validation, device

    @property
    def spec(self) -> dict:
        """Options and validation perturbations; the device does not decide the result."""
        return {"class": "decoder", "validation": self.share, **self.options.model_dump()}

    def fit(self, data: TrainingCells) -> "Decoder":
        """Fit the latent space and train the network."""
        o, seed = self.options, data.seed
        source = check_cells(data.controls, "control cells")
        target = check_cells(data.cells, "perturbed cells")
        if source.shape[1] != target.shape[1]:
            raise InputError(
                f"control cells have {source.shape[1]} genes, perturbed cells {target.shape[1]}"
            )
        codes, names, table = _labels(data)
        self.vectors = data.vectors
        self.validation = _validation(self.share, names, seed)
        if o.patience is not None and not self.validation:
            raise ParameterError(
                f"patience={o.patience} needs validation perturbations: give some, or set patience "
                "to None"
            )
        held = np.isin(names, self.validation)
        trains = ~held[codes]
        batches = _batches(o, data)
        self.latent = Latent(o.n_components, o.scaling, seed).fit(
            _stack(source, target[np.flatnonzero(trains)])
        )
        self.vector_scale = VectorScale(o.embedding_scaling).fit(table[~held])
        z0, z1 = self.latent.transform(source), self.latent.transform(target)
        x = self.vector_scale.transform(table)
        # mean over controls of what the latent space does not show of them
        seen = self.latent.inverse(z0.mean(axis=0, keepdims=True))[0]
        self.unseen = np.asarray(source.mean(axis=0)).ravel() - seen

        def pairs(rows):
            of_target = batches[1][rows] if batches else None
            return Pairs(
                z0, z1[rows], codes[rows], x, o, batches[0] if batches else None, of_target
            )

        train, check = pairs(trains), None
        steps = max(1, round((o.epoch_cells or len(train)) / o.batch_size))
        if self.validation:
            n, make = o.validation_batches * o.batch_size, pairs(~trains).make
            check = Batches(n, o.batch_size, make, seed=seed, shuffle=False)
        torch.manual_seed(seed)
        self.learner = DecoderLearner(o, o.n_components, x.shape[1], steps * o.max_epochs)
        learnt = (z0, z1, codes, x, held.astype(int), *(batches or ()))
        key = digest(_training_options(o), seed, *learnt, code_digest(type(self)))
        trained = fit(
            self.learner, Batches(len(train), o.batch_size, train.make, seed=seed, steps=steps),
            check, max_epochs=o.max_epochs, patience=o.patience,
            folder=Path(data.folder) / key if data.folder is not None else None, key=key,
            grad_clip=o.gradient_clip, ema=o.ema, ema_every=o.ema_every, device=self.device,
            seed=seed,
        )  # fmt: skip
        self.history, self.seconds = trained.history, trained.seconds
        self.chosen = f"epoch {trained.best_epoch + 1} of {trained.epochs}"
        return self

    def sample(self, controls, index: np.ndarray, names: Sequence[str], seed: int) -> np.ndarray:
        """Draw one cell of perturbation ``names[index]`` from each control cell: (n, n_genes)."""
        return self.draw(controls, self.vectors.loc[list(names)], index, seed=seed)

    def draw(
        self, cells, vectors, index: Sequence[int] | None = None, *, seed: int = 0
    ) -> np.ndarray:
        """Draw one perturbed cell for each control cell; equal seeds give equal cells.

        `cells` (n, n_genes): control cells. Many perturbations at once: their control cells
        one below the other; `vectors` (n_vectors, d); `index`: row of `vectors` for each
        cell; may be left out where there is one row for all.

        Returns (n, n_genes): log-normalised expression.
        """
        if not hasattr(self, "learner"):
            raise InputError("this decoder is not fitted: call fit first")
        z0 = self.latent.transform(cells)
        return self.decode(self.draw_latent(z0, vectors, index, seed=seed), z0, cells)

    def decode(self, z, z0, cells) -> np.ndarray:
        """Turn latents `z`, drawn from `cells` with latents `z0`, into expression, (n, n_genes).

        Linear: means of latents and of cells over any groups decode to the means of decoded cells.
        """
        if self.options.residual == "none":
            return self.latent.inverse(z)
        cells = cells.toarray() if sp.issparse(cells) else np.asarray(cells)
        moved = cells.astype(np.float32, copy=False) + self.latent.shift(np.asarray(z) - z0)
        return moved - self.unseen if self.options.residual == "centred" else moved

    def draw_latent(self, z0, vectors, index=None, *, seed: int = 0) -> np.ndarray:
        """Like `draw`, from latent control cells (n, n_components) to latent perturbed cells."""
        x, index = self._condition(vectors, index, len(z0))
        cuda = self.device == "auto" and torch.cuda.is_available()
        device = torch.device("cuda" if cuda else "cpu" if self.device == "auto" else self.device)
        learner = self.learner.to(device).eval()
        low, high = (torch.from_numpy(b).to(device) for b in (self.latent.low, self.latent.high))
        z0 = torch.from_numpy(np.ascontiguousarray(z0, dtype=np.float32))
        out, chunk = np.empty(z0.shape, dtype=np.float32), CHUNK[self.options.backbone]
        # the process samples as the options say now, which may differ from those of training
        process = PROCESSES[self.options.method](self.options)
        with torch.no_grad():
            for start in range(0, len(z0), chunk):
                rows = slice(start, start + chunk)
                here, condition = z0[rows].to(device), x[index[rows]].to(device)
                noise = _normals(here, np.random.SeedSequence([seed, start // chunk]))
                drawn = process.sample(learner.network, here, condition, noise, low, high)
                out[rows] = drawn.cpu().numpy()
        return out

    def _condition(self, vectors, index, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        values, fitted = np.asarray(vectors, dtype=np.float64), len(self.vector_scale.mean)
        if values.ndim != 2 or values.shape[1] != fitted:
            raise InputError(
                f"vectors of shape {values.shape}: rows of {fitted} columns are needed, as in "
                "fitting"
            )
        if not np.isfinite(values).all():
            raise InputError(
                "vectors hold values that are not finite: leave these perturbations out"
            )
        if index is None and len(values) != 1:
            raise InputError(
                f"{len(values)} vectors for {n} cells: give index, the row of each cell's vector"
            )
        index = np.zeros(n, dtype=np.int64) if index is None else np.asarray(index, dtype=np.int64)
        if len(index) != n or (n and not 0 <= index.min() <= index.max() < len(values)):
            raise InputError(
                f"index: {n} numbers from 0 to {len(values) - 1} are needed, one per cell"
            )
        return torch.from_numpy(self.vector_scale.transform(values)), torch.from_numpy(index)


class DecoderLearner(Learner):
    """Network and process of a decoder, as the training loop wants them.

    The schedule of the learning rate is laid out for `total` steps.
    """

    def __init__(self, options: DecoderOptions, n_latent: int, n_condition: int, total: int):
        super().__init__()
        self.options, self.total = options, total
        self.process = PROCESSES[options.method](options)
        self.network = make_backbone(options, n_latent, n_condition, self.process.channels)

    def loss(self, batch) -> dict[str, torch.Tensor]:
        """Draw times and noise; see the process for the rest."""
        source, target, condition = batch
        time = torch.rand(len(target), device=target.device)
        noise = torch.randn_like(target)
        return {"loss": self.process.loss(self.network, source, target, condition, time, noise)}

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW."""
        o = self.options
        learning = self.network.parameters()
        return torch.optim.AdamW(
            learning, lr=o.learning_rate, weight_decay=o.weight_decay, fused=True
        )

    def schedule(self, optimizer):
        """Warm up, then stay or fall along a cosine."""
        warm = max(1, round(self.options.warmup * self.total))
        if self.options.schedule == "constant":
            return constant_after_warmup(optimizer, warm)
        return cosine_after_warmup(optimizer, warm, self.total)


def _labels(data: TrainingCells) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes of the cells, names of the perturbations, and their vectors (names x d)."""
    labels, n = np.asarray(data.perturbation).astype(str), data.cells.shape[0]
    if len(labels) != n:
        raise InputError(f"perturbation: {len(labels)} labels for {n} perturbed cells")
    names, codes = np.unique(labels, return_inverse=True)
    vectors = data.vectors.set_axis(data.vectors.index.astype(str))
    if vectors.index.has_duplicates:
        raise InputError("vectors: a perturbation is in its index more than once")
    table = vectors.reindex(names).to_numpy(dtype=np.float64)
    bad = ~np.isfinite(table).all(axis=1)
    if bad.any():
        raise InputError(
            f"vectors: {bad.sum()} perturbations have none, or one that is not finite "
            f"({', '.join(names[bad][:3])}); leave their cells out"
        )
    return codes, names, table


def _validation(share, names, seed: int) -> list[str]:
    """Perturbations that are kept out of training: those given, or a share drawn by `seed`."""
    if isinstance(share, int | float):
        if not 0 <= share < 1:
            raise ParameterError(
                f"validation={share}: give a share from 0 to below 1, or perturbations"
            )
        n = max(1, round(share * len(names))) if share else 0
        chosen = sorted(np.random.default_rng([seed, 7]).choice(names, n, replace=False).tolist())
    else:
        chosen = sorted({str(v) for v in share})
        lost = [v for v in chosen if v not in names]
        if lost:
            raise ParameterError(
                f"validation: {', '.join(lost[:3])} have no cells among the perturbed cells"
            )
    if len(chosen) >= len(names):
        raise ParameterError(
            f"validation holds all {len(names)} perturbations: none is left to train on"
        )
    return chosen


def _batches(options: DecoderOptions, data: TrainingCells) -> tuple | None:
    """Return common numbers of the batches of all cells; None where batches do not matter."""
    if options.partners != "same_batch":
        return None
    n, given = data.controls.shape[0], (data.control_batch, data.cell_batch)
    if any(b is None for b in given) or [*map(len, given)] != [n, data.cells.shape[0]]:
        raise InputError(
            "partners='same_batch' needs the batch of every control and every perturbed cell"
        )
    codes = np.unique(np.concatenate([np.asarray(b).astype(str) for b in given]), return_inverse=1)
    return codes[1][:n], codes[1][n:]


def _training_options(options: DecoderOptions) -> dict:
    """Options but for those that only matter when cells are drawn."""
    return options.model_dump(exclude={"sampler", "steps", "residual", "last_noise"})


def _stack(a, b):
    if sp.issparse(a) or sp.issparse(b):
        return sp.vstack([sp.csr_matrix(a), sp.csr_matrix(b)], format="csr")
    return np.concatenate([a, b])


def _normals(like, sequence):
    # drawn on the CPU whatever the device, so that a GPU decodes the same cells
    generator = torch.Generator().manual_seed(int(sequence.generate_state(1)[0]))
    return lambda: torch.randn(like.shape, generator=generator).to(like.device)
