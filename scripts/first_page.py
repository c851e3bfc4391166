"""Recompute every number of the first page from the tables that a reader can download.

    python scripts/first_page.py results/demo

One line per number: of which chapter, the number as it is written, and what it was recomputed as.
Exit status 1 where a number is none of those that the chapter's tables give.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from perturbcore.report.published.claims.page import LINES, answer_of
from perturbcore.report.text import MINUS, number, percent

NUMBER = re.compile(r"(?<![\w.:-])[−+-]?\d+(?:,\d{3})*(?:\.\d+)?(?: %)?(?![\w:])")
# digits that are no numbers, beside those of the names in the tables
WORDS = {"95 % interval", "Sci-Plex 3"}
OPEN = "not recomputed: this script does not know the chapter"
Numbers = dict[str, float]


def of_ranking(table: pd.DataFrame) -> Numbers:
    """Numbers of a ranking: the best, the floor, the ceiling, how many tie or prove nothing."""
    rivals, by = table[table["competes"]], table.set_index("predictor")
    best = rivals.iloc[0]
    names = ["value", "low", "high", "coverage", "gap_closed", "ceiling", "floor"]
    out = {f"{name} of the best": best[name] for name in names}
    out["competitors"], out["tied with it"] = len(rivals), int(rivals["with_best"].sum()) - 1
    out["not shown to beat the floor"] = int((rivals["against_floor"] != "better").sum())
    again = by["value"].get("repeated_experiment", np.nan)
    return out | {"repeated experiment": again}


def of_gain(row: pd.Series, what: str) -> Numbers:
    """Score, gain and interval of one row of gains."""
    names = [n for n in ("value", "reference", "gain", "low", "high") if n in row]
    return {f"{name}, {what}": row[name] for name in names}


def verdicts(table: pd.DataFrame) -> Numbers:
    """How many rows there are, and how many of each verdict."""
    better, worse = ((table["verdict"] == v).sum() for v in ("better", "worse"))
    return {"rows": len(table), "better": better, "worse": worse,
            "neither": len(table) - better - worse}  # fmt: skip


def numbers_of(chapter: str, tables: Path) -> Numbers | None:
    """Recompute what a chapter says on the first page; None where nobody wrote down how."""
    found = {p.stem: pd.read_csv(p, low_memory=False) for p in (tables / chapter).glob("*.csv")}
    if chapter == "answer":
        fused = pd.read_csv(tables / "fusion" / "ranking.csv")
        fused = fused[fused["modality"] == "Fusion"]
        more = {"fusions": len(fused), "gap closed by the best": fused["gap_closed"].max()}
        return of_ranking(found["ranking"]) | more | numbers_of("foundation_models", tables)
    if chapter in ("embedding_ranking", "low_signal"):
        return of_ranking(found["ranking"])
    if chapter == "small_molecules":
        noise, out = found["noise"], of_ranking(found["ranking"])
        out["drugs"] = found["data"]["perturbations"].iloc[-1]
        for name in ("reproducible", "beyond"):
            known = noise[noise[name].notna()]
            out[name] = np.average(known[name], weights=known["drugs"]) if len(known) else np.nan
        return out
    if chapter == "foundation_models":
        gains, alone = found["gains"], found.get("alone", pd.DataFrame({"against": []}))
        controls = {"+ " + name.rsplit(", ", 1)[0] for name in alone["against"]}
        tried, sources = gains[~gains["method"].isin(controls)], found["coverage"]
        known = sources[~sources["modality"].str.endswith("control")]
        known = known[~("+ " + known["embedding"]).isin(gains["method"])]
        out = verdicts(tried) | of_gain(tried.iloc[0], "the best addition")
        return out | {"sources": known["embedding"].nunique()}
    if chapter == "fusion":
        gains, parts = found["gains"], found["parts"]
        kind = parts[parts["what"] == "fusion"]
        higher = (parts["gain"] * (parts["value"] - parts["reference"])).sum() > 0
        kind = kind.sort_values("value", ascending=not higher)["kind"].iloc[0]
        out = verdicts(gains) | of_gain(gains.iloc[0], "the best fusion")
        for _, row in parts[parts["kind"] == kind].iterrows():
            out |= of_gain(row, row["what"])
        for task in ("de", "dir"):
            board = found[f"board-{task}"].groupby("origin")["mean"].max()
            out |= {f"{task}, {origin}": mean for origin, mean in board.items()}
        return out
    if chapter == "fine_tuning":
        gains = found["gains"]
        adapted = gains[gains["adapted"]]
        graphs = adapted[adapted["modality"] != "Expression"]
        top = (graphs if len(graphs) else adapted).iloc[0]
        plain = gains[(gains["embedding"] == top["embedding"]) & ~gains["trained"]]
        out = verdicts(adapted) | of_gain(top, "fine-tuned")
        return out | (of_gain(plain.iloc[0], "another predictor") if len(plain) else {})
    if chapter == "generative_decoders":
        out = {}
        for data, part in found["scores"].groupby("data"):
            decoders = part[part["modality"] == "Advanced"]
            decoders = decoders[decoders["train_seconds"].notna()].sort_values("value")
            best = decoders.iloc[0].drop(["low", "high"])
            best = best.rename({"gain_low": "low", "gain_high": "high"})
            counts = {f"{name}, {data}": n for name, n in verdicts(decoders).items()}
            out |= counts | of_gain(best, data) | {f"times kNN, {data}": round(best["times_knn"])}
        return out
    if chapter == "chemical_deg":
        out = {}
        for name in [n for n in found if n.startswith("ranking-") and n != "ranking-data"]:
            table = found[name]
            rivals = table[table["competes"]]
            out |= {f"{name}, embeddings": len(rivals), f"{name}, best": rivals["value"].iloc[0],
                    f"{name}, beat both": rivals["beats_both"].sum(),
                    f"{name}, floor": rivals["floor"].iloc[0]}  # fmt: skip
            out[f"{name}, random"] = table.loc[table["embedding"] == "random", "value"].max()
        return out
    if chapter == "representation_tasks":
        gains = pd.concat(t for name, t in found.items() if name.startswith("gains-"))
        floor, places = gains["method"] == "shuffled", found["places-data"]
        first = places.loc[places["place"] == 1, "embedding"].value_counts()
        out = {f"{name} of comparisons": n for name, n in verdicts(gains[~floor]).items()}
        out |= {f"first places of {name}": n for name, n in first.items()}
        out["data sets"] = gains["data"].nunique()
        out["rows"] = len(places.drop_duplicates(["data", "metric"]))
        return out | {"not above the floor": (~(gains.loc[floor, "low"] > 0)).sum()}
    if chapter == "cross_context":
        best = found["board-data"].query("competes").sort_values("value").iloc[-1]
        out = {
            f"as cells, {name}": best[name] for name in ("value", "low", "high", "floor", "ceiling")
        }
        table = found["ranking-new_line"]
        out |= {f"value of {m}": v for m, v in zip(table["method"], table["value"], strict=True)}
        # where lines are patients, the card counts them as batches
        return of_ranking(table) | out | {"batches": found["data"]["batches"].iloc[0]}
    if chapter == "leaderboard":
        out = {}
        for task in ("de", "dir"):
            board = found[task].groupby("origin")["mean"].max()
            out |= {f"{task}, {origin}": mean for origin, mean in board.items()}
        return out
    return None


def written(text: str, value: float) -> bool:
    """Whether a number of a sentence is this value, with the digits that are shown."""
    if not np.isfinite(value):
        return False
    digits, plain = len(text.removesuffix(" %").partition(".")[2]), text.lstrip(f"+{MINUS}")
    if text.endswith(" %"):
        return percent(abs(value), digits) == plain
    if digits == 0:
        whole = float(value).is_integer() or abs(value) >= 10
        return whole and number(round(abs(value))) == plain
    signed = text[0] not in f"+{MINUS}" or (text[0] == "+") == (value >= 0)
    return signed and number(abs(float(value)), digits) == plain


def sentences(results: Path) -> Iterator[tuple[str, str]]:
    """Yield what the first page says, with the chapter that says it."""
    notebook = json.loads((results / "chapters" / "answer.ipynb").read_text(encoding="utf-8"))
    for output in [o for cell in notebook["cells"] for o in cell.get("outputs", [])]:
        name = output.get("metadata", {}).get("scrapbook", {}).get("name", "")
        if re.fullmatch(r"answer\d", name):
            yield "answer", "".join(output["data"]["application/papermill.record/text/plain"])
    for line in LINES:
        yield line["chapter"], answer_of(results, line["chapter"])


def trace(results: Path) -> pd.DataFrame:
    """Return chapter, number and what it is, one row per number; empty where it is nothing."""
    rows = []
    for chapter, text in sentences(results):
        names = set(WORDS)
        for path in (results / "tables" / chapter).glob("*.csv"):
            table = pd.read_csv(path, low_memory=False)
            columns = [c for c in ("method", "embedding", "data", "step") if c in table]
            names |= set(table[columns].astype(str).stack()) - {""} if columns else set()
        for name in sorted((n for n in names if not NUMBER.fullmatch(n)), key=len, reverse=True):
            text = text.replace(name, "")  # digits of a name are no numbers
        there = numbers_of(chapter, results / "tables") if text else {}
        for told in NUMBER.findall(text):
            known = (there or {}).items()
            what = next((name for name, value in known if written(told, value)), "")
            rows.append((chapter, told, OPEN if there is None else what))
    return pd.DataFrame(rows, columns=["chapter", "number", "recomputed"])


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="folder of a profile's results")
    table = trace(parser.parse_args().results)
    print(table.to_string(index=False))
    return int((table["recomputed"] == "").any())


if __name__ == "__main__":
    sys.exit(main())
