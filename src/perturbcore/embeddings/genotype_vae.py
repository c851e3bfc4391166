"""GenotypeVAE: genes embedded by a variational autoencoder of the sets that hold them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError
from perturbcore.embeddings.registry import Dim, Positive, register
from perturbcore.embeddings.words import membership

FEWEST_GENES = 20  # below, nothing is left once genes are held out


@register("genotype_vae", kind="sets")
def genotype_vae(
    sets: Mapping[str, Iterable[str]],
    *,
    models: Path | None = None,
    dim: Dim = 128,
    hidden: Dim = 128,
    smallest: Dim = 20,
    lr: Positive = 3e-3,
    batch_size: Dim = 128,
    max_epochs: Dim = 30,
    patience: Dim = 5,
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1,
    seed: int = 0,
):
    """Embed genes by a variational autoencoder of which sets (name to gene ids) hold them.

    A gene is a vector of zeros and ones over the sets of at least `smallest` genes, embedded by its
    latent mean; the epoch is chosen on held-out genes. The published sizes are 10, 128 and 256. Yu
    et al. 2025 (PerturbNet: GenotypeVAE); Cole et al. 2026, section 4.5.2; Kingma and Welling 2014.
    """
    given = {k: v for k, v in locals().items() if k not in ("sets", "models", "smallest")}
    ids, counts, said = membership(sets, smallest)
    if len(ids) < FEWEST_GENES:
        raise InputError(f"{len(ids)} genes in sets are too few to hold out some of them")
    # torch takes seconds to import, and most builds find the embedding in the cache
    from perturbcore.embeddings.vae import autoencode

    key = digest(ids, counts, given, code_digest("perturbcore.embeddings.genotype_vae"))
    folder = Path(models) / f"vae-{key}" if models is not None else None
    X, trained, gained = autoencode(counts, folder=folder, key=key, **given)
    about = (
        f"{said}, variational autoencoder, {dim} dimensions, {trained.epochs} epochs; of held-out "
        f"genes it takes {gained:.0%} off the cross-entropy of the rates of the sets"
    )
    return ids, X, about
