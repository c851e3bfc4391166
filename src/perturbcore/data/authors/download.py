"""Fetch the authors' preprocessed data: size and licence first, resumed, verified."""

import os
import sys
from fnmatch import fnmatch
from pathlib import Path

from tqdm import tqdm

from perturbcore.core.errors import DownloadError
from perturbcore.data.authors import layout
from perturbcore.data.authors.layout import GENE_EMBEDDINGS, LAYOUTS, REPOSITORY, VARIABLE
from perturbcore.data.catalogue.download import hash_of

# what the readers open; the raw matrices and the fusion caches are not among it
PATTERNS = (
    *(name for one in LAYOUTS.values() for name in one.files.values()),
    *(one.drug_embeddings for one in LAYOUTS.values() if one.drug_embeddings),
    f"{GENE_EMBEDDINGS}/*.h5ad",
)


def fetch_authors_data(folder=None, *, client=None, progress: bool = True) -> Path:
    """Download the files of the layout that are not there yet.

    Each file is checked against the size and sha256 that the host states; one that is there and
    right is not downloaded again, one that is cut off is taken up where it stopped.

    `folder`: ``data/paper`` by default. Nothing is downloaded where ``PERTURBCORE_PAPER_DATA``
    is set; `client`: with `dataset_info` and `hf_hub_download` of ``huggingface_hub.HfApi``,
    which it is by default.
    """
    root = layout.data_root(folder)
    if folder is None and os.environ.get(VARIABLE, ""):
        if not root.is_dir():
            raise DownloadError(f"{VARIABLE}={root} is not a folder; correct or unset it")
        print(f"authors' data: the copy at {root} ({VARIABLE}); nothing is downloaded")
        return root
    client = _client() if client is None else client
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
    todo = [f for f in wanted if not _right(root, f)]
    size = sum(f.size or 0 for f in todo)
    licence = (getattr(about, "card_data", None) or {}).get("license") or "not stated at the host"
    print(
        f"authors' data: {REPOSITORY} at {about.sha}, {len(wanted)} files, "
        f"{len(todo)} to download ({size / 1e9:.2f} GB) into {root}\n"
        f"licence: {licence}; the data are the authors', read their terms at their host first",
        file=sys.stderr,
        flush=True,
    )
    with tqdm(total=size, unit="B", unit_scale=True, disable=not progress, desc="fetch") as bar:
        for one in todo:
            bar.set_postfix_str(one.rfilename)
            _fetch(client, one, about.sha, root)
            bar.update(one.size or 0)
    return root


def _client():
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise DownloadError(
            "downloading the authors' data needs the package huggingface_hub: "
            f"`pip install huggingface_hub`, or set {VARIABLE} to a folder that holds the files"
        ) from error
    return HfApi()


def _fetch(client, one, revision: str, root: Path) -> None:
    where = dict(repo_type="dataset", revision=revision, local_dir=root)
    try:
        client.hf_hub_download(REPOSITORY, one.rfilename, **where)
    except Exception as error:  # as above
        raise DownloadError(
            f"{one.rfilename} of {REPOSITORY}: {error}; run again, what has come is kept"
        ) from error
    path = root / one.rfilename
    if not _right(root, one):
        path.unlink(missing_ok=True)
        raise DownloadError(
            f"{path}: what came is not the file the host states (size {one.size}, sha256 "
            f"{_sha(one)}); it was removed, run again"
        )


def _right(root: Path, one) -> bool:
    """Whether a file is there with the size and sha256 that the host states."""
    path = root / one.rfilename
    if not path.is_file() or one.size not in (None, path.stat().st_size):
        return False
    return _sha(one) in (None, hash_of(path))


def _sha(one) -> str | None:
    stored = getattr(one, "lfs", None)
    return stored["sha256"] if isinstance(stored, dict) else getattr(stored, "sha256", None)
