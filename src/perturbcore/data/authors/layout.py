"""Where the authors' preprocessed data lie, and the constants of the published benchmark."""

import os
from pathlib import Path
from types import SimpleNamespace

from perturbcore.core.errors import ParameterError
from perturbcore.core.files import read_yaml
from perturbcore.data.catalogue import data_folder

VARIABLE = "PERTURBCORE_PAPER_DATA"
REPOSITORY = "genbio-ai/foundation-models-perturbation"
GENE_EMBEDDINGS = "gene_embeddings"
HOW_TO_GET = (
    "`make data PROFILE=paper` downloads them (size and licence are shown first); "
    f"{VARIABLE}=<folder> uses a copy that is already on disk"
)


class Layout(SimpleNamespace):
    """One data set of the documented layout; ``layout.yml`` says what each attribute means.

    Cole et al. 2026, Supplemental Methods, and the released repository.
    """

    @property
    def chemical(self) -> bool:
        """Whether perturbations are drugs."""
        return self.identifier == "drug"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of obs that a file must have, folds apart."""
        if self.only_line:
            return (self.perturbation,)
        extra = ("drug", "dose") if self.chemical else ()
        return tuple(dict.fromkeys((self.perturbation, "cell_line", *extra)))

    @property
    def declared(self) -> dict[str, str]:
        """What the columns and values of the raw cells mean, for `declare_screen`.

        The published effects count every batch, whether or not it has control cells: unmatched ones
        are kept.
        """
        about = dict(dataset=self.name, identifier=self.identifier)
        return about | dict(scale="counts", unmatched="keep") | self.raw


def _layouts() -> dict[str, Layout]:
    blocks = read_yaml(Path(__file__).with_name("layout.yml"))
    defaults, made = blocks.pop("defaults"), {}
    for name, block in blocks.items():
        values = {"name": name} | defaults | block
        made[name] = Layout(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        )
    return made


LAYOUTS = _layouts()


def layout_of(dataset: str) -> Layout:
    """Return the layout of a data set, or say which there are."""
    if dataset not in LAYOUTS:
        raise ParameterError(
            f"no data set '{dataset}' of the authors; there are: {', '.join(LAYOUTS)}"
        )
    return LAYOUTS[dataset]


def data_root(folder=None) -> Path:
    """Root of the authors' data: `folder`, else ``PERTURBCORE_PAPER_DATA``, else ``data/paper``."""
    declared = folder or os.environ.get(VARIABLE, "")
    return Path(declared).expanduser() if declared else Path(data_folder()) / "paper"


def file_of(dataset: str, task: str = "lfc", root=None) -> Path:
    """Path of the responses of a data set, whether or not it is there."""
    files = layout_of(dataset).files
    if task not in files:
        raise ParameterError(
            f"the authors' data of '{dataset}' have no task '{task}'; there are: {', '.join(files)}"
        )
    return data_root(root) / files[task]


def present(root=None) -> tuple[list[str], list[str]]:
    """List the data sets whose log fold-changes are there, and a line for each left out."""
    names = [name for name in LAYOUTS if file_of(name, "lfc", root).is_file()]
    left_out = [name for name in LAYOUTS if name not in names]
    where = f"is not in {data_root(root)}"
    return names, [f"{n}: left out, {LAYOUTS[n].files['lfc']} {where}" for n in left_out]
