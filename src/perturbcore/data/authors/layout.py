"""Where the authors' preprocessed data lie, and what the published benchmark does with each data set."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from perturbcore.core.errors import InputError, ParameterError

VARIABLE = "PERTURBCORE_PAPER_DATA"
REPOSITORY = "genbio-ai/foundation-models-perturbation"
GENE_EMBEDDINGS = "gene_embeddings"
HOW_TO_GET = (
    f"`make data PROFILE=paper` downloads them (size and licence are shown first); {VARIABLE}=<folder> "
    "uses a copy that is already on disk"
)
TASKS = ("lfc", "deg")


@dataclass(frozen=True)
class Layout:
    """One data set of the documented layout, with the constants of its published benchmark.

    Attributes
    ----------
    name, title : str
    files : mapping
        Task -> file below the root.
    perturbation : str
        Column of obs that embeddings are indexed by.
    identifier : {"ensembl", "drug"}
    lines : tuple of str
        Cell lines in the order of the figures; empty where the file alone says (Tahoe).
    only_line : str
        The one cell line of a file without a column `cell_line`.
    splits : {"test_split", "fold_columns"}
        One column with the fold, or a column a fold that says "test".
    drug_embeddings : str
        File with the drug embeddings; empty for genes.
    dose : float or None
        The dose that is kept.
    n_components : int
        Principal components, also the width of the random embedding.
    k, alpha : tuple
        Grids of the two estimators.

    References
    ----------
    Cole et al. 2026, Supplemental Methods, and the released repository.
    """

    name: str
    title: str
    files: MappingProxyType
    perturbation: str
    identifier: str
    lines: tuple = ()
    only_line: str = ""
    splits: str = "test_split"
    drug_embeddings: str = ""
    dose: float | None = None
    n_components: int = 100
    k: tuple = (20, 40, 60, 80, 100)
    alpha: tuple = (1e-3, 1e-2, 1e-1, 1.0)
    citations: tuple = field(default=("cole2026",))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of obs that a file must have, folds apart."""
        if self.only_line:
            return (self.perturbation,)
        extra = ("drug", "dose") if self.identifier == "drug" else ()
        return tuple(dict.fromkeys((self.perturbation, "cell_line", *extra)))


LAYOUTS = MappingProxyType(
    {
        "essential": Layout(
            "essential",
            "Essential (Replogle et al., Nadig et al.)",
            MappingProxyType(
                {
                    "lfc": "essential/essential_pseudobulk_deltas_all_perts.h5ad",
                    "deg": "essential/essential_deg_with_split.h5ad",
                }
            ),
            "gene_id",
            "ensembl",
            ("K-562", "Hep-G2", "Jurkat", "hTERT-RPE1"),
            citations=("cole2026", "replogle2022", "nadig2025"),
        ),
        "norman": Layout(
            "norman",
            "Norman (single perturbations)",
            MappingProxyType({"lfc": "norman/norman_pseudobulk_deltas.h5ad"}),
            "gene_id",
            "ensembl",
            ("K-562",),
            only_line="K-562",
            n_components=50,
            k=(5, 10, 15, 20),
            citations=("cole2026", "norman2019"),
        ),
        "sciplex": Layout(
            "sciplex",
            "Sci-Plex 3",
            MappingProxyType(
                {
                    "lfc": "sciplex/sciplex3_pseudobulk_filtered.h5ad",
                    "deg": "sciplex/sciplex3_deg_filtered.h5ad",
                }
            ),
            "drug",
            "drug",
            ("MCF7", "K562", "A549"),
            splits="fold_columns",
            drug_embeddings="sciplex/sciplex_drug_embeddings.h5ad",
            dose=10000.0,
        ),
        "tahoe": Layout(
            "tahoe",
            "Tahoe-100M",
            MappingProxyType(
                {
                    "lfc": "tahoe/tahoe_pseudobulk_pert_platematched_withsplits.h5ad",
                    "deg": "tahoe/tahoe_deg_filtered.h5ad",
                }
            ),
            "pubchem_cid",
            "drug",
            splits="fold_columns",
            drug_embeddings="tahoe/tahoe_drug_embeddings.h5ad",
            dose=5.0,
        ),
    }
)


def layout_of(dataset: str) -> Layout:
    """Return the layout of a data set, or say which there are."""
    if dataset not in LAYOUTS:
        raise ParameterError(
            f"no data set '{dataset}' of the authors; there are: {', '.join(LAYOUTS)}"
        )
    return LAYOUTS[dataset]


def data_root(folder=None) -> Path:
    """Folder of the authors' data: `folder`, else ``PERTURBCORE_PAPER_DATA``, else ``data/paper``."""
    if folder is not None:
        return Path(folder).expanduser()
    if declared := os.environ.get(VARIABLE, ""):
        return Path(declared).expanduser()
    from perturbcore.data.catalogue import data_folder

    return Path(data_folder()) / "paper"


def file_of(dataset: str, task: str = "lfc", root=None) -> Path:
    """Path of the responses of a data set, whether or not it is there.

    Raises
    ------
    ParameterError
        There is no such data set, or it has no such task.
    """
    layout = layout_of(dataset)
    if task not in layout.files:
        raise ParameterError(
            f"the authors' data of '{dataset}' have no task '{task}'; there are: "
            f"{', '.join(layout.files)}"
        )
    return data_root(root) / layout.files[task]


def require(path: Path) -> Path:
    """Return a path that is a file, or raise InputError with the way to get it."""
    if not path.is_file():
        raise InputError(f"{path}: no such file of the authors' data; {HOW_TO_GET}")
    return path


def present(task: str = "lfc", root=None) -> tuple[list[str], list[str]]:
    """List the data sets whose responses are there, and one line for each that is left out.

    Parameters
    ----------
    task : {"lfc", "deg"}
    root : path, optional
        See `data_root`.

    Returns
    -------
    names : list of str
    left_out : list of str
        One line a data set.
    """
    names, left_out = [], []
    for name, layout in LAYOUTS.items():
        if task not in layout.files:
            left_out.append(f"{name}: left out, the authors' data have no '{task}' file for it")
        elif file_of(name, task, root).is_file():
            names.append(name)
        else:
            left_out.append(f"{name}: left out, {layout.files[task]} is not in {data_root(root)}")
    return names, left_out
