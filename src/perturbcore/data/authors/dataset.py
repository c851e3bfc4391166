"""The authors' data sets as data sets of this project: responses, embeddings, experimental error."""

from functools import partial
from types import MappingProxyType

from perturbcore.core.errors import InputError
from perturbcore.data.authors.inventory import read_embeddings
from perturbcore.data.authors.layout import layout_of
from perturbcore.data.authors.read import read_authors_responses
from perturbcore.data.folds import check_leakage
from perturbcore.data.sets.base import Card, Dataset
from perturbcore.report.reproduction.benchmark import published_ceilings
from perturbcore.score.ceiling.fold_scores import ceiling_scores

SIMULATED = (
    "These files are a small fixture in the authors' layout, written from simulated cells: they say "
    "nothing about real cells or about the models whose file names they bear."
)


def authors_dataset(dataset: str, task: str = "lfc", root=None, embeddings=None) -> Dataset:
    """Load one of the authors' data sets.

    Parameters
    ----------
    dataset : {"essential", "norman", "sciplex", "tahoe"}
    task : {"lfc", "deg"}
    root : path, optional
        Folder of the layout; ``PERTURBCORE_PAPER_DATA``, else ``data/paper``.
    embeddings : list of str, optional
        Only these of the authors' embeddings, by display or published name.

    Returns
    -------
    Dataset
        ``responses`` with the stored folds. ``extras["embeddings"]`` is a function without arguments
        that reads the embeddings of the layout. ``ceiling``: the published experimental error, where
        the published tables are at hand and know every perturbation.

    Raises
    ------
    InputError
        The file is absent or not of the layout.

    Warns
    -----
    UserWarning
        A perturbation lies in different folds in different cell lines.
    """
    layout = layout_of(dataset)
    responses = read_authors_responses(dataset, task, root)
    check_leakage(responses)
    about = responses.uns["perturbcore"]
    obs = responses.obs
    card = Card()
    for line, part in obs.groupby("cell_line", sort=False):
        sizes = part.loc[part["fold"] >= 0, "fold"].value_counts().sort_index()
        card.step(
            str(line),
            perturbations=part["perturbation"].nunique(),
            genes=responses.n_vars,
            note=f"stored folds of {', '.join(str(n) for n in sizes)}",
        )
    notes = [*about["notes"], *([SIMULATED] if about["simulated"] else [])]
    ceiling, why = (None, "") if task != "lfc" else _ceiling(dataset, responses)
    return Dataset(
        name=dataset,
        title=layout.title + (", simulated in the authors' layout" if about["simulated"] else ""),
        task=task,
        responses=responses,
        card=card.frame(),
        ceiling=ceiling,
        citations=layout.citations,
        notes=tuple(n for n in (*notes, why) if n),
        simulated=bool(about["simulated"]),
        extras=MappingProxyType(
            {"embeddings": partial(_embeddings, dataset, responses, root, embeddings)}
        ),
    )


def _embeddings(dataset, responses, root, names):
    return read_embeddings(dataset, responses, root, names=names)[0]


def _ceiling(dataset: str, responses):
    table = published_ceilings()
    if table is None:
        return None, "No experimental error: the published tables are not on this machine."
    table = table[table["dataset"] == dataset]
    metrics = set(table["metric"])
    if not metrics:
        return None, "No experimental error: none is published for these responses."
    try:
        ceiling_scores(table, responses)
    except InputError as error:
        return None, f"No experimental error: {error}."
    return table, ""
