"""Embeddings of genes by a cell foundation model, from the control cells of a screen."""

from pathlib import Path
from typing import Annotated, Literal

from anndata import AnnData
from pydantic import Field

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.cell_models.tokens import control_cells, drawn_controls
from perturbcore.embeddings.language_model import find_model
from perturbcore.embeddings.registry import Dim, register

MODALITY = "Cell model"
EVERY_CELL = 2**62


@register("cell_model", kind="screen", modality=MODALITY, prepare=find_model)
def cell_model(
    screen: AnnData, *, source: str = "control cells", cell_line: str | None = None,
    models: Path | None = None, model: str = "",
    encoding: Literal["rank", "values", "bins"] = "rank",
    use: Literal["cells", "knock-out", "input"] = "cells",
    max_cells: Annotated[int, Field(ge=2)] | None = None, batch_size: Dim = 32,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32", seed: int = 0,
):  # fmt: skip
    """Embed genes by what a cell foundation model makes of control cells, line by line.

    `model`: a folder with a saved transformer and its genes; `encoding`: how it reads expression,
    see `perturbcore.embeddings.cell_models.huggingface.load_huggingface`; `use`: "cells", a gene's
    embedding averaged over the control cells that have it; "knock-out", what setting it to zero in
    the average control cell changes in the mean embedding of all genes; "input", the model's own
    table of gene vectors; `max_cells`: a random part; `device`, `dtype`: where, and with which
    numbers, the model computes. Sums are kept in the folder `models`: a killed run goes on. Cole et
    al. 2026, section 4.5.1, Eq. 10 and 11.
    """
    from perturbcore.embeddings.cell_models.huggingface import (
        input_vectors,
        knock_outs,
        load_huggingface,
        placed,
        streamed_means,
    )

    cells = control_cells(screen, seed=seed)
    encoder = load_huggingface(model, cells, encoding=encoding)
    own = cells.take(encoder.genes)
    encoder, kept = placed(encoder, device, dtype), Path(models or ".")
    made = []
    for line, rows, n_all in drawn_controls(
        screen, None if cell_line is None else [cell_line], max_cells or EVERY_CELL, seed
    ):
        if use == "input":
            X = input_vectors(encoder)
        elif use == "knock-out":
            X = knock_outs(encoder, own.mean[own.position(line)], batch_size)
        else:
            given = [model, encoding, dtype, line, rows, encoder.genes, screen.X.shape]
            key = digest(given, cells.digest, code_digest("perturbcore.embeddings.cell_model"))
            part = kept / f"cell-model-{key}.npz" if models is not None else None
            X = streamed_means(encoder, screen, rows, batch_size, part)
        known = X.any(axis=1)
        if not known.any():
            raise InputError(f"the model reads no gene in the control cells of {line!r}")
        about = (
            f"{source} of {line}; {len(rows)} of {n_all} cells, {Path(model).name}, "
            f"{encoding}, {use}; {len(known) - known.sum()} genes in none of them have no vector"
        )
        ids = encoder.genes[known]
        made.append(Embedding(MODALITY, MODALITY, ids, X[known], own.identifier, line, about))
    return made
