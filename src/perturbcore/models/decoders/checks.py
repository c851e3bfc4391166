"""What a decoder is given, looked at before long work."""

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.models.decoders.options import DecoderOptions


def check_labels(perturbation, n: int, vectors: pd.DataFrame):
    """Codes of the `n` cells, names of the perturbations, and their vectors (names x d)."""
    labels = np.asarray(perturbation).astype(str)
    if len(labels) != n:
        raise InputError(f"perturbation: {len(labels)} labels for {n} perturbed cells")
    names, codes = np.unique(labels, return_inverse=True)
    vectors = vectors.set_axis(vectors.index.astype(str))
    bare = [p for p in names if p not in vectors.index]
    if bare:
        raise InputError(
            f"vectors: {len(bare)} perturbations have none ({', '.join(bare[:3])}); leave their cells out"
        )
    table = vectors.loc[names].to_numpy(dtype=np.float64)
    if len(table) != len(names):
        raise InputError("vectors: a perturbation is in its index more than once")
    if not np.isfinite(table).all():
        bad = names[~np.isfinite(table).all(axis=1)]
        raise InputError(f"vectors: values of '{bad[0]}' are not finite; leave its cells out")
    return codes, names, table


def choose_validation(validation, names, seed: int) -> list[str]:
    """Perturbations that are kept out of training: those given, or a share drawn by `seed`."""
    if isinstance(validation, int | float):
        if not 0 <= validation < 1:
            raise ParameterError(
                f"validation={validation}: give a share from 0 to below 1, or perturbations"
            )
        n = max(1, round(validation * len(names))) if validation else 0
        chosen = sorted(np.random.default_rng([seed, 7]).choice(names, n, replace=False).tolist())
    else:
        chosen = sorted({str(v) for v in validation})
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


def batch_codes(options: DecoderOptions, source_batch, target_batch, n_source: int, n_target: int):
    """Give batches of control and perturbed cells common numbers; (None, None) where none matter."""
    if options.partners != "same_batch":
        return None, None
    if source_batch is None or target_batch is None:
        raise ParameterError("partners='same_batch' needs source_batch and target_batch")
    if len(source_batch) != n_source or len(target_batch) != n_target:
        raise InputError(
            f"batches: {len(source_batch)} and {len(target_batch)} labels for {n_source} control and "
            f"{n_target} perturbed cells"
        )
    both = np.concatenate(
        [np.asarray(source_batch).astype(str), np.asarray(target_batch).astype(str)]
    )
    codes = np.unique(both, return_inverse=True)[1]
    return codes[:n_source], codes[n_source:]
