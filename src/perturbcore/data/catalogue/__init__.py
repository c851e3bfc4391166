"""Every file the project reads from elsewhere: where it is, what it is, and on what terms."""

from perturbcore.data.catalogue.download import data_folder, fetch, fetch_many, verify
from perturbcore.data.catalogue.records import (
    Entry,
    entries,
    entry,
    licence_notice,
    licences_markdown,
)

__all__ = [
    "Entry",
    "data_folder",
    "entries",
    "entry",
    "fetch",
    "fetch_many",
    "licence_notice",
    "licences_markdown",
    "verify",
]
