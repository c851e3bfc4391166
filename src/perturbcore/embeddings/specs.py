"""Embedding entries of a profile: what they may say, and which of them serve a data set."""

from collections.abc import Iterable, Sequence

from perturbcore.core.errors import ParameterError
from perturbcore.embeddings.registry import Builder, builders, get_builder

KEYS = (
    "name",
    "modality",
    "builder",
    "source",
    "file",
    "of",
    "identifier",
    "cell_line",
    "columns",
    "convert_to",
    "duplicates",
    "aliases",
    "options",
)
LOADER = ("id_column", "obsm", "header", "strip_versions")
ALIASES = "previous_symbols"
WITH_COLUMNS = ("edges", "texts", "drugs", "drugs_of")


def check_spec(spec: dict, names: Iterable[str] = ()) -> tuple[Builder | None, dict]:
    """Check a specification before anything is built.

    Parameters
    ----------
    spec
        See `perturbcore.embeddings.build`.
    names
        Embeddings that ``of`` may name.

    Returns
    -------
    Builder or None
        None: a table of vectors.
    dict
        The builder's options.

    Raises
    ------
    ParameterError
        The message names the embedding and what it may say.
    """
    if not isinstance(spec.get("name"), str) or not spec["name"]:
        raise ParameterError(f"an embedding specification needs a name: {spec}")
    where = f"embedding {spec['name']!r}"
    options = {k: v for k, v in spec.items() if k not in KEYS}
    nested = spec.get("options") or {}
    if not isinstance(nested, dict):
        raise ParameterError(f"{where}: options must map names to values, got {nested!r}")
    options |= nested
    if "file" in spec and "source" in spec:
        raise ParameterError(f"{where}: give either source or file, not both")
    if "duplicates" in spec and "convert_to" not in spec:
        raise ParameterError(f"{where}: duplicates is of use with convert_to alone")
    if spec.get("aliases", ALIASES) != ALIASES:
        raise ParameterError(f"{where}: aliases must be {ALIASES}, got {spec['aliases']!r}")
    title = spec.get("builder") or ("file" if "file" in spec else None)
    if title is None:
        raise ParameterError(f"{where}: give builder: or file:")
    if title == "file":
        unknown = sorted(set(options) - set(LOADER))
        if unknown:
            raise ParameterError(
                f"{where}: a file has no option {', '.join(map(repr, unknown))}; it has "
                f"{', '.join((*KEYS, *LOADER))}"
            )
        return None, options
    builder = get_builder(title, where)
    builder.check_options(options, where)
    if "columns" in spec and builder.kind not in WITH_COLUMNS:
        raise ParameterError(f"{where}: builder {title!r} has no use for columns:")
    if builder.needs_of != ("of" in spec):
        raise ParameterError(
            f"{where}: builder {title!r} "
            + ("needs of: the name of an embedding" if "of" not in spec else "has no use for of:")
        )
    if "of" in spec and spec["of"] not in names:
        raise ParameterError(
            f"{where}: there is no embedding {spec['of']!r} to be made from; there are "
            f"{', '.join(map(str, names)) or 'none'}"
        )
    return builder, options


def depth(spec: dict, by_name: dict, seen: tuple = ()) -> int:
    """How many embeddings a specification stands on, one upon the other."""
    if "of" not in spec:
        return 0
    if spec["name"] in seen:
        raise ParameterError(f"embedding {spec['name']!r} is made from itself; correct of:")
    return 1 + depth(by_name[spec["of"]], by_name, (*seen, spec["name"]))


def entity_of(spec: dict, by_name: dict) -> str:
    """Say what the vectors of a specification stand for: "gene", "drug", or "any" for random ones."""
    if spec.get("identifier") == "drug":
        return "drug"
    builder = builders().get(spec.get("builder"))
    if builder is not None and builder.kind == "embedding" and spec.get("of") in by_name:
        depth(spec, by_name)
        return entity_of(by_name[spec["of"]], by_name)
    return builder.entity if builder is not None else "gene"


def serving(
    specs: Sequence[dict], dataset: str, identifier: str, only: Sequence[str] = ()
) -> tuple[list[dict], list[str]]:
    """Choose the specifications that serve a data set.

    A specification serves a data set of drugs if its vectors stand for drugs, one of genes if they
    stand for genes; ``datasets: [...]`` restricts it to those named.

    Parameters
    ----------
    specs
        All of a profile.
    dataset, identifier
        Name of the data set, and what its perturbations are ("drug", or a kind of gene id).
    only
        No others than these, if given.

    Returns
    -------
    list of dict
        What to build: those that serve, without ``datasets``, and those they are made from.
    list of str
        Names of those that serve.
    """
    specs = [dict(s) for s in specs]
    allowed = {s["name"]: s.pop("datasets", None) for s in specs}
    by_name = {s["name"]: s for s in specs}
    wanted = "drug" if identifier == "drug" else "gene"
    names = []
    for spec in specs:
        named = allowed[spec["name"]]
        if only and spec["name"] not in only:
            continue
        if (named is None or dataset in named) and entity_of(spec, by_name) in (wanted, "any"):
            names.append(spec["name"])
    needed = set()
    for name in names:
        while name in by_name and name not in needed:
            needed.add(name)
            name = by_name[name].get("of")
    return [s for s in specs if s["name"] in needed], names
