"""Where the authors' preprocessed data lie, their constants, and fetching them."""

import os
import sys
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

from perturbcore.core.errors import DownloadError, check_choice
from perturbcore.core.files import read_yaml
from perturbcore.data.catalogue import data_folder, hash_of

VARIABLE = "PERTURBCORE_PAPER_DATA"
REPOSITORY = "genbio-ai/foundation-models-perturbation"
GENE_EMBEDDINGS = "gene_embeddings"
HOW_TO_GET = (
    "`make data PROFILE=paper` downloads them (size and licence are shown first); "
    f"{VARIABLE}=<folder> uses a copy that is already on disk"
)


class Layout(SimpleNamespace):
    """One data set of the documented layout; ``layout.yml`` says what each attribute means."""

    def __init__(self, **values):
        super().__init__(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

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
        """What the columns and values of the raw cells mean, for `declare_screen`."""
        about = dict(dataset=self.name, identifier=self.identifier)
        return about | dict(scale="counts", unmatched="keep") | self.raw


_BLOCKS = read_yaml(Path(__file__).with_name("layout.yml"))
_DEFAULTS = _BLOCKS.pop("defaults")
LAYOUTS = {n: Layout(**{"name": n} | _DEFAULTS | block) for n, block in _BLOCKS.items()}
# what the readers open; the raw matrices and the fusion caches are not among it
PATTERNS = (
    *(name for one in LAYOUTS.values() for name in one.files.values()),
    *(one.drug_embeddings for one in LAYOUTS.values() if one.drug_embeddings),
    *(one.controls for one in LAYOUTS.values() if one.controls),
    f"{GENE_EMBEDDINGS}/*.h5ad",
)


def layout_of(dataset: str) -> Layout:
    """Return the layout of a data set, or say which there are."""
    return LAYOUTS[check_choice("data set of the authors", dataset, LAYOUTS)]


def data_root(folder=None) -> Path:
    """Root of the authors' data: `folder`, else ``PERTURBCORE_PAPER_DATA``, else ``data/paper``."""
    declared = folder or os.environ.get(VARIABLE, "")
    return Path(declared).expanduser() if declared else Path(data_folder()) / "paper"


def file_of(dataset: str, task: str = "lfc", root=None) -> Path:
    """Path of the responses of a data set, whether or not it is there."""
    files = layout_of(dataset).files
    return data_root(root) / files[check_choice(f"task of the authors' '{dataset}'", task, files)]


def absent(dataset: str = "essential", task: str = "lfc", root=None, **_) -> str:
    """Say which file a data set cannot do without and has not; empty where it has them all."""
    path, root = file_of(dataset, task, root), data_root(root)
    if not path.is_file():
        return f"{path.relative_to(root)} is not in {root}"
    embeddings = layout_of(dataset).drug_embeddings or f"{GENE_EMBEDDINGS}/*.h5ad"
    return "" if any(root.glob(embeddings)) else f"{embeddings} is not in {root}"


def present(root=None) -> tuple[list[str], list[str]]:
    """List the data sets that can be scored, and a line for each left out."""
    why = {name: absent(name, root=root) for name in LAYOUTS}
    left_out = [f"{name}: left out, {text}" for name, text in why.items() if text]
    return [name for name in LAYOUTS if not why[name]], left_out


def fetch_authors_data(folder=None, *, client=None) -> Path:
    """Download the files of the layout that are not there yet, checked as the host states them."""
    root = data_root(folder)
    if folder is None and os.environ.get(VARIABLE, ""):
        if not root.is_dir():
            raise DownloadError(f"{VARIABLE}={root} is not a folder; correct or unset it")
        print(f"authors' data: the copy at {root} ({VARIABLE}); nothing is downloaded")
        return root
    from huggingface_hub import HfApi  # it takes a second

    client = HfApi() if client is None else client
    try:
        about = client.dataset_info(REPOSITORY, files_metadata=True)
    except Exception as error:  # the library raises its own and those of two HTTP libraries
        raise DownloadError(
            f"the authors' data ({REPOSITORY}) cannot be asked for: {error}; with a copy of the "
            f"files on disk, set {VARIABLE} to its folder"
        ) from error
    wanted = [f for f in about.siblings if any(fnmatch(f.rfilename, p) for p in PATTERNS)]
    if not wanted:
        raise DownloadError(
            f"{REPOSITORY} at {about.sha} holds none of the files of the layout, such as "
            f"{PATTERNS[0]}; were they renamed?"
        )
    size = sum(f.size or 0 for f in wanted)
    licence = (getattr(about, "card_data", None) or {}).get("license") or "not stated at the host"
    print(
        f"authors' data: {REPOSITORY} at {about.sha}, {len(wanted)} files ({size / 1e9:.2f} GB) "
        f"into {root}; what is there already is kept\n"
        f"licence: {licence}; the data are the authors', read their terms at their host first",
        file=sys.stderr,
        flush=True,
    )
    where = dict(repo_type="dataset", revision=about.sha, local_dir=root)
    try:
        client.snapshot_download(REPOSITORY, allow_patterns=list(PATTERNS), **where)
    except Exception as error:  # as above
        raise DownloadError(f"{REPOSITORY}: {error}; run again, what has come is kept") from error
    if wrong := [f for f in wanted if not _right(root, f)]:
        path = root / wrong[0].rfilename
        path.unlink(missing_ok=True)
        raise DownloadError(
            f"{path}: what came is not the file the host states (size {wrong[0].size}, sha256 "
            f"{_sha(wrong[0])}); it was removed, run again"
        )
    return root


def _right(root: Path, one) -> bool:
    """Whether a file is there with the size and sha256 that the host states."""
    path = root / one.rfilename
    there = path.is_file() and one.size in (None, path.stat().st_size)
    return there and _sha(one) in (None, hash_of(path))


def _sha(one) -> str | None:
    stored = getattr(one, "lfs", None)
    return stored["sha256"] if isinstance(stored, dict) else getattr(stored, "sha256", None)
