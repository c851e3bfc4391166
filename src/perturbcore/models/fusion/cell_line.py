"""The cell line's vector: learned, or the latent of an autoencoder of mean control profiles."""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from perturbcore.core.errors import InputError


class LearnedLine(nn.Module):
    """A learned vector a cell line, normalised, with dropout (Cole et al. 2026, Eq. 20)."""

    def __init__(self, n_lines: int, d: int):
        super().__init__()
        self.vectors, self.norm = nn.Embedding(n_lines, d), nn.LayerNorm(d)

    def forward(self, line: torch.Tensor) -> torch.Tensor:
        """Return (B, d) for line numbers (B,)."""
        return F.dropout(self.norm(self.vectors(line)), 0.1, self.training)


class LineAutoencoder(nn.Module):
    """Autoencoder of the lines' control profiles; its latent, of length one, is the line's vector.

    Parameters
    ----------
    profiles : (n_lines, g) float32 array
        Normalised as `line_profiles` does.
    widths : sequence of int
        Hidden widths, from the profile inwards.
    d : int
        Width of the latent.
    """

    def __init__(self, profiles: np.ndarray, widths, d: int):
        super().__init__()
        self.register_buffer("profiles", torch.as_tensor(profiles), persistent=False)
        sizes = [profiles.shape[1], *widths, d]
        self.encoder = _stack(sizes)
        self.decoder = _stack(sizes[::-1])

    def forward(self, line: torch.Tensor) -> torch.Tensor:
        """Return (B, d) for line numbers (B,); each distinct line is encoded once."""
        lines, code = torch.unique(line, return_inverse=True)
        return F.normalize(self.encoder(self.profiles[lines]), dim=1)[code]

    def loss(self, line: torch.Tensor) -> torch.Tensor:
        """Mean squared error of the reconstructed profiles of the rows' lines."""
        lines, n = torch.unique(line, return_counts=True)
        x = self.profiles[lines]
        each = (self.decoder(self.encoder(x)) - x).square().mean(dim=1)
        return (each * n).sum() / n.sum()


def _stack(sizes) -> nn.Sequential:
    layers = []
    for a, b in zip(sizes[:-2], sizes[1:-1], strict=True):
        layers += [nn.Linear(a, b), nn.ReLU(), nn.LayerNorm(b), nn.Dropout(0.1)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def line_profiles(controls: pd.DataFrame, lines, *, quirk: bool = True) -> np.ndarray:
    """Normalise mean control profiles over cell lines.

    Parameters
    ----------
    controls : pandas.DataFrame
        Mean log1p expression of the control cells, cell lines x genes.
    lines : sequence of str
        Cell lines, in the order of the result.
    quirk : bool
        As published, the table is log1p'd once more before it is z-scored, with mean and standard
        deviation (n - 1) of the table that was not; False z-scores it by its own.

    Returns
    -------
    (n_lines, g) float32 array

    Raises
    ------
    InputError
        A cell line has no profile.

    References
    ----------
    Cole et al. 2026, released code.
    """
    missing = [line for line in lines if line not in controls.index]
    if missing:
        raise InputError(
            f"cell line '{missing[0]}' has no control profile (there are: "
            f"{', '.join(map(str, controls.index))}): add its row, or use line_source='learned'"
        )
    table = controls.loc[list(lines)].to_numpy(dtype=np.float64)
    std = table.std(axis=0, ddof=1) if len(table) > 1 else np.ones(table.shape[1])
    shown = np.log1p(table) if quirk else table
    return ((shown - table.mean(axis=0)) / np.maximum(std, 1e-8)).astype(np.float32)
