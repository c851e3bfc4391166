"""The decoder: fitted on cells of training perturbations, it draws cells of others."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.core.training.batches import Batches
from perturbcore.core.training.fit import fit
from perturbcore.models.decoders.checks import batch_codes, check_labels, choose_validation
from perturbcore.models.decoders.latent import Latent, VectorScale, check_cells
from perturbcore.models.decoders.learner import DecoderLearner
from perturbcore.models.decoders.options import DecoderOptions
from perturbcore.models.decoders.pairs import Pairs

# cells that go through a network together when sampling, small enough for a processor's cache where each
# is many tokens; random draws are seeded chunk by chunk
CHUNK = {"mlp": 8192, "dit": 512}


class Decoder:
    """Latent diffusion, flow matching or Schrödinger bridge from control to perturbed cells.

    Parameters
    ----------
    options : DecoderOptions
        See `perturbcore.models.decoders.presets`.
    device : {"auto", "cpu", "cuda", "mps"}

    Attributes
    ----------
    latent : Latent
        Fitted on controls and training perturbations.
    trained : perturbcore.core.training.fit.Trained
        History of the losses, best epoch, seconds.
    validation : list of str
        Perturbations that decided when to stop.

    References
    ----------
    Cole et al. 2026, Methods 4.7.4.

    Examples
    --------
    >>> decoder = Decoder(preset("laptop", "flow"))                                  # doctest: +SKIP
    >>> decoder.fit(controls, cells, labels, vectors, folder=folder, seed=0)         # doctest: +SKIP
    >>> generated = decoder.sample(controls, vectors.loc[["TP53"]], seed=0)          # doctest: +SKIP
    """

    def __init__(self, options: DecoderOptions, device: str = "auto"):
        self.options, self.device = options, device

    def fit(
        self,
        source,
        target,
        perturbation: Sequence[str],
        vectors: pd.DataFrame,
        *,
        validation: Sequence[str] | float = 0.1,
        source_batch: Sequence | None = None,
        target_batch: Sequence | None = None,
        folder: Path | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> "Decoder":
        """Fit the latent space and train the network.

        Parameters
        ----------
        source, target : array or sparse matrix, shapes (n_control, n_genes), (n_perturbed, n_genes)
            Log-normalised expression of control and of perturbed cells.
        perturbation : sequence of str, length n_perturbed
        vectors : DataFrame, perturbations x d
            Embedding of every perturbation above (and of others, which is ignored).
        validation : list of str, or float
            Perturbations whose cells are kept out of training and of the latent space and decide when
            to stop; or the share of perturbations to draw for that by `seed`. Empty or 0: none.
        source_batch, target_batch : sequences, optional
            Batch of each cell, for ``partners="same_batch"``.
        folder : path, optional
            Checkpoints and weights go to a subfolder named by what decides the result: a killed fit
            resumes there, a finished one is loaded.
        seed : int
        progress : bool

        Raises
        ------
        InputError
            If cells, labels or vectors are not finite or do not fit together.
        ParameterError
            If `validation` leaves nothing to train on, or early stopping nothing to look at.
        """
        o = self.options
        source, target = (
            check_cells(source, "control cells"),
            check_cells(target, "perturbed cells"),
        )
        if source.shape[1] != target.shape[1]:
            raise InputError(
                f"control cells have {source.shape[1]} genes, perturbed cells {target.shape[1]}"
            )
        codes, names, table = check_labels(perturbation, target.shape[0], vectors)
        self.validation = choose_validation(validation, names, seed)
        if o.patience is not None and not self.validation:
            raise ParameterError(
                f"patience={o.patience} needs validation perturbations: give some, or set patience to None"
            )
        held = np.isin(names, self.validation)
        trains = ~held[codes]
        batches = batch_codes(o, source_batch, target_batch, source.shape[0], target.shape[0])
        self.latent = Latent(o.n_components, o.scaling, seed).fit(
            _stack(source, target[np.flatnonzero(trains)])
        )
        self.vector_scale = VectorScale(o.embedding_scaling).fit(table[~held])
        z0, z1 = self.latent.transform(source), self.latent.transform(target)
        x = self.vector_scale.transform(table)
        # mean over controls of what the latent space does not show of them
        self.unseen = (
            np.asarray(source.mean(axis=0)).ravel()
            - self.latent.inverse(z0.mean(axis=0, keepdims=True))[0]
        )

        def pairs(rows):
            of_target = batches[1][rows] if batches[1] is not None else None
            return Pairs(z0, z1[rows], codes[rows], x, o, batches[0], of_target)

        train = pairs(trains)
        steps = max(1, round((o.epoch_cells or len(train)) / o.batch_size))
        loaders = [Batches(len(train), o.batch_size, train.make, seed=seed, steps=steps), None]
        if self.validation:
            looked = o.validation_batches * o.batch_size
            loaders[1] = Batches(
                looked, o.batch_size, pairs(~trains).make, seed=seed, shuffle=False
            )
        torch.manual_seed(seed)
        self.learner = DecoderLearner(o, o.n_components, x.shape[1], steps * o.max_epochs)
        code = code_digest("perturbcore.models.decoders.model")
        learnt = (z0, z1, codes, x, held.astype(int), *(b for b in batches if b is not None))
        key = digest(_training_options(o), seed, *learnt, code)
        self.trained = fit(
            self.learner, *loaders, max_epochs=o.max_epochs, patience=o.patience,
            folder=Path(folder) / key if folder is not None else None, key=key, grad_clip=o.gradient_clip,
            ema=o.ema, ema_every=o.ema_every, device=self.device, seed=seed, progress=progress,
        )  # fmt: skip
        return self

    def sample(
        self,
        cells,
        vectors,
        index: Sequence[int] | None = None,
        *,
        seed: int = 0,
        sampler: str | None = None,
        steps: int | None = None,
    ) -> np.ndarray:
        """Draw one perturbed cell for each control cell.

        Parameters
        ----------
        cells : array or sparse matrix, shape (n, n_genes)
            Control cells. Many perturbations at once: their control cells one below the other.
        vectors : array or DataFrame, shape (n_vectors, d)
        index : sequence of int, length n, optional
            Row of `vectors` for each cell; may be left out where there is one row for all, or one
            a cell.
        seed : int
            Equal seeds give equal cells.
        sampler, steps : optional
            Others than those of the options.

        Returns
        -------
        ndarray of float32, shape (n, n_genes)
            Log-normalised expression.
        """
        z0 = self.latent.transform(cells)
        z = self.sample_latent(z0, vectors, index, seed=seed, sampler=sampler, steps=steps)
        return self.decode(z, z0, cells)

    def decode(self, z, z0, cells) -> np.ndarray:
        """Latent points `z` drawn from `cells` with latents `z0` to expression, float32 (n, n_genes).

        Linear: means of latents and of cells over any groups decode to the means of decoded cells.
        """
        if self.options.residual == "none":
            return self.latent.inverse(z)
        cells = cells.toarray() if sp.issparse(cells) else np.asarray(cells)
        moved = cells.astype(np.float32, copy=False) + self.latent.shift(np.asarray(z) - z0)
        return moved - self.unseen if self.options.residual == "centred" else moved

    def sample_latent(
        self,
        z0,
        vectors,
        index=None,
        *,
        seed: int = 0,
        sampler: str | None = None,
        steps: int | None = None,
    ) -> np.ndarray:
        """Like `sample`, from latent control cells (n, n_components) to latent perturbed cells."""
        o = self.options
        if not hasattr(self, "learner"):
            raise InputError("this decoder is not fitted: call fit first")
        sampler, steps = sampler or o.sampler, steps or o.steps
        o.changed(sampler=sampler, steps=steps)
        x, index = self._condition(vectors, index, len(z0))
        device = _device(self.device)
        learner = self.learner.to(device).eval()
        chunk = CHUNK[o.backbone]
        bounds = [torch.from_numpy(b).to(device) for b in (self.latent.low, self.latent.high)]
        z0 = torch.from_numpy(np.ascontiguousarray(z0, dtype=np.float32))
        out = np.empty(z0.shape, dtype=np.float32)
        with torch.no_grad():
            for start in range(0, len(z0), chunk):
                rows = slice(start, start + chunk)
                here, condition = z0[rows].to(device), x[index[rows]].to(device)
                noise = _normals(here, np.random.SeedSequence([seed, start // chunk]))
                drawn = learner.process.sample(
                    learner.network, here, condition, noise, sampler=sampler, steps=steps,
                    low=bounds[0], high=bounds[1],
                )  # fmt: skip
                out[rows] = drawn.cpu().numpy()
        return out

    def _condition(self, vectors, index, n):
        values = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
        if values.shape[1] != len(self.vector_scale.mean):
            fitted = len(self.vector_scale.mean)
            raise InputError(
                f"vectors: {values.shape[1]} columns, the decoder was fitted on {fitted}"
            )
        if not np.isfinite(values).all():
            raise InputError(
                "vectors hold values that are not finite: leave these perturbations out"
            )
        if index is None:
            if len(values) not in (1, n):
                raise InputError(
                    f"{len(values)} vectors for {n} cells: give index, the row of each cell's vector"
                )
            index = np.zeros(n, dtype=int) if len(values) == 1 else np.arange(n)
        index = np.asarray(index, dtype=np.int64)
        if len(index) != n or (n and not 0 <= index.min() <= index.max() < len(values)):
            raise InputError(
                f"index: {n} numbers from 0 to {len(values) - 1} are needed, one a cell"
            )
        return torch.from_numpy(self.vector_scale.transform(values)), torch.from_numpy(index)


def _training_options(options):
    """Options but for those that only matter when cells are drawn."""
    later = ("sampler", "steps", "residual", "last_noise")
    return {k: v for k, v in options.as_dict().items() if k not in later}


def _stack(a, b):
    if sp.issparse(a) or sp.issparse(b):
        return sp.vstack([sp.csr_matrix(a), sp.csr_matrix(b)], format="csr")
    return np.concatenate([a, b])


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _normals(like, sequence):
    # drawn on the CPU whatever the device, so that a GPU decodes the same cells
    generator = torch.Generator().manual_seed(int(sequence.generate_state(1)[0]))
    return lambda: torch.randn(like.shape, generator=generator).to(like.device)
