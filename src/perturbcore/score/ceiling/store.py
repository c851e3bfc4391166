"""Finished perturbations on disk, so that a killed run goes on where it was."""

import sqlite3
from pathlib import Path

import numpy as np

from perturbcore.core.errors import InputError


class Checkpoint:
    """Quantile tables of finished perturbations in one SQLite file.

    Each perturbation is one transaction, keyed by a digest of data, parameters and code, so that a
    file may serve many runs and never answers for another one. A path of None keeps nothing.
    """

    def __init__(self, path=None):
        self._db = None
        if path is None:
            return
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=60, check_same_thread=False)
        try:
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS ceilings (run TEXT, line TEXT, perturbation TEXT, "
                "content BLOB, PRIMARY KEY (run, line, perturbation)) WITHOUT ROWID"
            )
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise InputError(f"checkpoint {path} is not a file of this kind ({error})") from error

    def finished(self, run, line) -> dict:
        """Perturbation to flat float64 values, of one run and cell line."""
        if self._db is None:
            return {}
        rows = self._db.execute(
            "SELECT perturbation, content FROM ceilings WHERE run = ? AND line = ?", (run, line)
        )
        return {name: np.frombuffer(content) for name, content in rows}

    def keep(self, run, line, perturbation, values) -> None:
        """Write one finished perturbation."""
        if self._db is None:
            return
        content = np.ascontiguousarray(values, dtype=np.float64).tobytes()
        with self._db:
            self._db.execute(
                "INSERT OR REPLACE INTO ceilings VALUES (?, ?, ?, ?)",
                (run, line, perturbation, content),
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._db is not None:
            self._db.close()
