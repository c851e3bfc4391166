"""Readers of what builders are made from, with errors that name file and line."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from perturbcore.core.errors import InputError
from perturbcore.data.tables import read_table


def read_edges(path: Path | str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read an edge list: columns source, target and, where given, weight.

    `columns` names the two node columns and, if there are weights, the weight column; by default
    ``source, target[, weight]`` if these exist, else the first two columns and ``weight``.
    """
    frame = read_table(path)
    if columns is None:
        ends = ["source", "target"] if {"source", "target"} <= set(frame) else frame.columns[:2]
        columns = [*ends, *(["weight"] if "weight" in frame else [])]
    if set(columns) - set(frame) or len(columns) not in (2, 3):
        raise InputError(
            f"{path}: an edge list needs two node columns (and a weight), got {list(columns)}; "
            f"the file has {list(frame.columns)}"
        )
    names = dict(zip(columns, ("source", "target", "weight"), strict=False))
    edges = frame[list(columns)].rename(columns=names)
    return edges.astype({"source": str, "target": str})


def read_texts(path: Path | str, columns: Sequence[str] | None = None) -> dict[str, str]:
    """Read a text per id from a table: by default its first two columns."""
    frame = read_table(path)
    columns = list(columns or frame.columns[:2])
    if set(columns) - set(frame) or len(columns) != 2:
        raise InputError(
            f"{path}: columns must name an id and a text column, got {columns}; the file has "
            f"{list(frame.columns)}"
        )
    texts = frame.astype(str).set_index(columns[0])[columns[1]]
    if not texts.index.is_unique:
        twice = texts.index[texts.index.duplicated()][0]
        raise InputError(f"{path}: id {twice!r} has several texts; join them into one")
    return texts.to_dict()


def read_gmt(path: Path | str) -> dict[str, list[str]]:
    """Read gene sets from a GMT file: name, description, then genes, separated by tabs.

    A line without genes, without a name, or with the name of an earlier set is refused by number.
    """
    sets: dict[str, list[str]] = {}
    first: dict[str, int] = {}
    for number, line in _lines(path):
        cells = line.split("\t")
        title = cells[0].strip()
        genes = [g.strip() for g in cells[2:] if g.strip()]
        if not genes:
            raise InputError(
                f"{path}:{number}: a set needs a name, a description and genes, separated by "
                f"tabs; this line has {len(cells)} cells and 0 genes"
            )
        if not title:
            raise InputError(f"{path}:{number}: the set has no name")
        if title in sets:
            raise InputError(
                f"{path}:{number}: set {title!r} was already in line {first[title]}; rename one"
            )
        sets[title], first[title] = genes, number
    if not sets:
        raise InputError(f"{path} holds no gene set")
    return sets


def read_fasta(path: Path | str) -> dict[str, list[str]]:
    """Read protein sequences; the id is the header up to the first blank, its entries are isoforms.

    Residues before the first header, or a header without id or residues, are refused by line
    number.
    """
    entries: list[tuple[str, int, list[str]]] = []
    for number, line in _lines(path):
        line = line.strip()
        if line.startswith(">"):
            words = line[1:].split()
            if not words:
                raise InputError(f"{path}:{number}: the header has no id")
            entries.append((words[0], number, []))
        elif not entries:
            raise InputError(f"{path}:{number}: residues before the first '>' header")
        else:
            entries[-1][2].append(line)
    if not entries:
        raise InputError(f"{path} holds no sequence")
    sequences: dict[str, list[str]] = {}
    for name, number, parts in entries:
        if not parts:
            raise InputError(f"{path}:{number}: {name!r} has no residues")
        sequences.setdefault(name, []).append("".join(parts))
    return sequences


def _lines(path: Path | str) -> list[tuple[int, str]]:
    """Lines of a text file that are not blank, with their numbers."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file ({error}); is it compressed?") from None
    return [(n, line) for n, line in enumerate(lines, start=1) if line.strip()]
