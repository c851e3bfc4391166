import hashlib
from types import SimpleNamespace

import pytest
from huggingface_hub.utils import filter_repo_objects

from perturbcore.book.cli import main
from perturbcore.core.errors import DownloadError
from perturbcore.data.authors import layout

NORMAN, ESM2 = layout.LAYOUTS["norman"].files["lfc"], "gene_embeddings/ESM2_(D=1280).h5ad"
FILES = {NORMAN: b"norman", ESM2: b"esm2" * 9, "essential/raw_data.h5ad": b"not read"}


class Host:
    """Stand for the data's host: files with size and checksum."""

    def __init__(self, files, wrong=()):
        self.files, self.wrong = files, set(wrong)

    def dataset_info(self, repo_id, revision=None, files_metadata=False):
        assert repo_id == layout.REPOSITORY and files_metadata
        siblings = [
            SimpleNamespace(rfilename=n, size=len(c), lfs={"sha256": hashlib.sha256(c).hexdigest()})
            for n, c in self.files.items()
        ]
        card = {"license": "cc-by-nc-4.0"}
        return SimpleNamespace(sha="abc123", siblings=siblings, card_data=card)

    def snapshot_download(self, repo_id, *, repo_type, revision, local_dir, allow_patterns):
        assert (repo_id, repo_type, revision) == (layout.REPOSITORY, "dataset", "abc123")
        for filename in filter_repo_objects(self.files, allow_patterns=allow_patterns):
            path = local_dir / filename
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"cut off" if filename in self.wrong else self.files[filename])


@pytest.fixture(autouse=True)
def no_copy(monkeypatch):
    monkeypatch.delenv(layout.VARIABLE, raising=False)


def test_what_is_read_is_fetched_with_size_and_licence(tmp_path, capsys):
    folder = tmp_path / "paper"
    assert layout.fetch_authors_data(folder, client=Host(FILES)) == folder
    said = capsys.readouterr().err
    assert "cc-by-nc-4.0" in said and "2 files (" in said
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == {NORMAN, ESM2}
    assert (folder / ESM2).read_bytes() == FILES[ESM2]


def test_what_cannot_be_fetched_is_refused_with_a_way_out(tmp_path):
    def refused(message, client):
        with pytest.raises(DownloadError, match=message):
            layout.fetch_authors_data(tmp_path, client=client)

    def away(*args, **kwargs):
        raise OSError("no connection")

    refused("not the file the host states", Host(FILES, wrong=[ESM2]))
    assert not (tmp_path / ESM2).exists() and (tmp_path / NORMAN).exists()
    refused("were they renamed", Host({"other.txt": b"x"}))
    refused(f"no connection.*{layout.VARIABLE}", SimpleNamespace(dataset_info=away))


def test_a_copy_on_disk_is_used_without_a_download(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(layout.VARIABLE, str(tmp_path))
    assert layout.fetch_authors_data(client=Host({})) == tmp_path == layout.data_root()
    assert "nothing is downloaded" in capsys.readouterr().out
    assert main(["data", "fetch", layout.REPOSITORY]) == 0
    monkeypatch.setenv(layout.VARIABLE, str(tmp_path / "no"))
    assert main(["data", "fetch", layout.REPOSITORY]) == 2
