"""Where finished units live: one SQLite file a profile, safe against a kill at any moment.

A unit is written in one transaction when it is finished, under a key made of everything its scores
depend on. A second run finds the key and does not compute; a changed input has another key.
"""

import io
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from perturbcore.core.digest import digest
from perturbcore.core.files import open_sqlite, save_table
from perturbcore.score.task import task_of

COLUMNS = [
    "dataset", "task", "cell_line", "fold", "embedding", "modality", "predictor", "seed", "metric",
    "value", "n_train", "n_test", "coverage", "seconds", "chosen", "key", "version", "commit",
    "device", "finished",
]  # fmt: skip
IDENTITY = ["dataset", "task", "cell_line", "fold", "embedding", "predictor", "seed", "metric"]

# scopes of runs with other parameters than the book's: kept for resuming, never exported
ASIDE = "aside/"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS units (key TEXT PRIMARY KEY, about TEXT NOT NULL, metrics TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS detail (
    key TEXT, metric TEXT, perturbations TEXT, value BLOB, PRIMARY KEY (key, metric));
CREATE TABLE IF NOT EXISTS arrays (digest TEXT PRIMARY KEY, content BLOB);
CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, arrays TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, note TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS scorings (scope TEXT, key TEXT, about TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS members (scope TEXT, key TEXT, touched REAL, PRIMARY KEY (scope, key));
"""


@dataclass
class UnitResult:
    """Scores of one unit under its content key.

    `metrics`: name -> value; `detail`: name -> (perturbations, values); `note`: plain values to
    keep; `kept`: `Task.kept`, and the names of the rows as "perturbation".
    """

    key: str
    about: dict
    metrics: dict
    detail: dict = field(default_factory=dict)
    note: dict = field(default_factory=dict)
    kept: dict = field(default_factory=dict)


class ScoreStore:
    """Finished units of a profile in a SQLite file, made where absent; ":memory:" keeps nothing."""

    def __init__(self, path=":memory:"):
        self.path = path if str(path) == ":memory:" else Path(path)
        if isinstance(self.path, Path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        other = "{path}: not a score store ({error}); move it away to compute the units again"
        self._db = open_sqlite(self.path, _SCHEMA, other)

    def have(self, keys: Iterable[str]) -> set[str]:
        """Return those of `keys` that are finished."""
        known = {k for (k,) in self._db.execute("SELECT key FROM units")}
        return known.intersection(keys)

    def put(self, results: Iterable[UnitResult], log: str | None = None) -> None:
        """Write finished units, all or none; with `log`, a scope, each is a row of `scorings`."""
        with self._db as db:
            for r in results:
                unit = (r.key, json.dumps(r.about), json.dumps(r.metrics))
                db.execute("INSERT OR REPLACE INTO units VALUES (?, ?, ?)", unit)
                if log is not None:
                    db.execute("INSERT INTO scorings VALUES (?, ?, ?)", (log, r.key, unit[1]))
                if r.note:
                    note = (r.key, json.dumps(r.note))
                    db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", note)
                for metric, (names, values) in r.detail.items():
                    blob = np.asarray(values, dtype=np.float32).tobytes()
                    row = (r.key, metric, json.dumps(list(map(str, names))), blob)
                    db.execute("INSERT OR REPLACE INTO detail VALUES (?, ?, ?, ?)", row)
                if r.kept:
                    self._keep(r)

    def _keep(self, unit: UnitResult) -> None:
        """Write arrays by their content: the methods of a fold share all that is not their own."""
        named = {name: digest(array) for name, array in unit.kept.items()}
        for name, key in named.items():
            if not self._db.execute("SELECT 1 FROM arrays WHERE digest = ?", (key,)).fetchone():
                file = io.BytesIO()
                np.savez_compressed(file, array=unit.kept[name])
                row = (key, file.getvalue())
                self._db.execute("INSERT OR IGNORE INTO arrays VALUES (?, ?)", row)
        names = json.dumps(named)
        self._db.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (unit.key, names))

    def scorings(self) -> pd.DataFrame:
        """Return every scoring of a published test split, oldest first; no run deletes one."""
        columns = ["finished", "commit", "scope", "dataset", "task", "cell_line", "fold"]
        rows = self._db.execute("SELECT * FROM scorings ORDER BY rowid").fetchall()
        return pd.DataFrame(
            [json.loads(about) | {"scope": s, "settings": k} for s, k, about in rows],
            columns=[*columns, "embedding", "predictor", "settings"],
        )

    def claim(self, scope: str, keys: Sequence[str]) -> None:
        """Declare that the units of `scope` are now exactly `keys` (older ones leave the table)."""
        with self._db as db:
            db.execute("DELETE FROM members WHERE scope = ?", (scope,))
            now = time.time()
            db.executemany("INSERT INTO members VALUES (?, ?, ?)", [(scope, k, now) for k in keys])

    def keys_of(self, scope: str) -> list[str]:
        """Return the keys of the units of `scope`."""
        query = "SELECT key FROM members WHERE scope = ?"
        return [k for (k,) in self._db.execute(query, (scope,))]

    def scores(self, keys: Iterable[str]) -> pd.DataFrame:
        """Return the tidy scores of `keys`, one row per metric and unit."""
        wanted = set(keys)
        found = [r for r in self._db.execute("SELECT * FROM units") if r[0] in wanted]
        rows = []
        for key, about, metrics in found:
            shared = {**json.loads(about), "key": key}
            rows += [{**shared, "metric": m, "value": v} for m, v in json.loads(metrics).items()]
        frame = pd.DataFrame(rows, columns=COLUMNS)
        frame["value"] = frame["value"].astype(float)
        return frame.sort_values([*IDENTITY, "key"], ignore_index=True)

    def compared(self, keys: Iterable[str]) -> pd.DataFrame:
        """Scores with `common`, the value on perturbations that all embeddings cover."""
        scores = self.scores(keys)
        at = ["dataset", "task", "cell_line", "fold"]
        units = scores.drop_duplicates("key").set_index("key")[at]
        covered = self.per_perturbation(units.index, "covered").join(units, on="key")
        least = covered.groupby([*at, "perturbation"])["value"].min()
        shared = least.index[least > 0]
        values = scores.groupby("key")[["metric", "value"]]
        full = {key: dict(part.to_numpy()) for key, part in values}
        whole = self._on_some(units, shared, set(least.index.droplevel("perturbation")), full)
        found = {m: self.per_perturbation(units.index, m) for m in scores["metric"].unique()}
        found = {m: table for m, table in found.items() if len(table)}
        if found:
            each = pd.concat(found, names=["metric"]).reset_index(level=0).join(units, on="key")
            each = each[~each["key"].isin({key for key, _ in whole})]
            each = each[pd.MultiIndex.from_frame(each[[*at, "perturbation"]]).isin(shared)]
            mean = each.astype({"value": float}).groupby(["key", "metric"])["value"].mean()
            whole |= mean.to_dict()
        named = pd.MultiIndex.from_tuples(whole, names=["key", "metric"])
        common = pd.Series(list(whole.values()), named, dtype=float, name="common")
        return scores.join(common, on=["key", "metric"])

    def _on_some(self, units, shared: pd.MultiIndex, known: set, full: dict) -> dict:
        """Score units of which arrays are kept on `shared`: (key, metric) -> value."""
        names = pd.Series(shared.get_level_values("perturbation"), shared.droplevel("perturbation"))
        names = {where: set(part) for where, part in names.groupby(level=list(range(4)))}
        out: dict[tuple[str, str], float] = {}
        read = cache(self._array)
        for key, arrays in self._db.execute("SELECT * FROM kept").fetchall():
            if key not in units.index or (where := tuple(units.loc[key])) not in known:
                continue
            kept = json.loads(arrays)
            here = np.isin(read(kept.pop("perturbation")), list(names.get(where, ())))
            found = full[key] if here.all() else {}
            if here.any() and not here.all():
                own = {name: read(array) for name, array in kept.items()}
                found = task_of(where[1]).score_some(own, here)
            out |= {(key, m): found.get(m, np.nan) for m in found or [""]}
        return out

    def kept(self, key: str) -> dict[str, np.ndarray]:
        """Return the arrays that are kept of a unit, see `UnitResult`."""
        row = self._db.execute("SELECT arrays FROM kept WHERE key = ?", (key,)).fetchone()
        return {n: self._array(d) for n, d in json.loads(row[0]).items()} if row else {}

    def _array(self, key: str) -> np.ndarray:
        query = "SELECT content FROM arrays WHERE digest = ?"
        with np.load(io.BytesIO(self._db.execute(query, (key,)).fetchone()[0])) as file:
            return file["array"]

    def per_perturbation(self, keys: Iterable[str], metric: str) -> pd.DataFrame:
        """Return one value per test perturbation: columns `key`, `perturbation`, `value`."""
        wanted, parts = set(keys), []
        query = "SELECT key, perturbations, value FROM detail WHERE metric = ?"
        for key, names, blob in self._db.execute(query, (metric,)):
            if key in wanted:
                about = {"key": key, "perturbation": json.loads(names)}
                parts.append(pd.DataFrame(about | {"value": np.frombuffer(blob, np.float32)}))
        empty = pd.DataFrame(columns=["key", "perturbation", "value"])
        return pd.concat(parts, ignore_index=True) if parts else empty

    def notes(self, keys: Iterable[str]) -> dict[str, dict]:
        """Return what models noted with those of `keys` that have a note."""
        wanted = set(keys)
        return {k: json.loads(n) for k, n in self._db.execute("SELECT * FROM notes") if k in wanted}

    def export(self, path) -> Path:
        """Write the scores of every scope of the book atomically, with their `chapter`."""
        query = "SELECT DISTINCT scope FROM members WHERE scope NOT LIKE ? ORDER BY scope"
        with self._db as db:
            db.execute("BEGIN IMMEDIATE")  # no older table is written after a newer one
            scopes = [s for (s,) in self._db.execute(query, (f"{ASIDE}%",))]
            parts = [self.scores(self.keys_of(s)).assign(chapter=s.split("/")[0]) for s in scopes]
            empty = pd.DataFrame(columns=[*COLUMNS, "chapter"])
            save_scores(pd.concat(parts, ignore_index=True) if parts else empty, path)
        return Path(path)


# what a floor has for an embedding in CSV files, where an empty field would be read as missing
NO_EMBEDDING = "(no embedding)"


def save_scores(scores: pd.DataFrame, path) -> None:
    """Write scores as `.parquet` or `.csv`, atomically."""
    path = Path(path)
    if path.suffix == ".csv":
        scores = scores.assign(embedding=scores["embedding"].replace("", NO_EMBEDDING))
    save_table(scores, path)
