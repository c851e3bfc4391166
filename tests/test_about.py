import inspect
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from perturbcore.book import about
from perturbcore.book.source import find_chapters
from perturbcore.core.console import Console
from perturbcore.core.errors import InputError
from perturbcore.core.profile import load_profile
from perturbcore.data import catalogue
from perturbcore.data.sets.base import Dataset
from perturbcore.score.metrics.registry import metric

ROOT = Path(__file__).parents[1]


def test_every_metric_is_listed_with_the_function_that_computes_it():
    table = about.metric_table()
    assert {"L2", "Pearson_delta", "auroc_within"} <= set(table["name"])
    row = table.set_index("name").loc["L2"]
    assert row["better"] == "lower" and row["function"] == "perturbcore.score.metrics.regression.l2"
    text = about.metric_markdown(table)
    lines = text.splitlines()
    assert len(lines) == len(table) + 2
    # a cell that is split by a bar of its formula would give a sixth column
    assert {line.count("|") for line in lines} == {6}
    assert metric("L2").formula in lines[2] and r"\vert T_{20}" in text


def test_every_choice_of_the_protocol_is_a_parameter():
    text = (ROOT / "book" / "protocol.md").read_text()
    choices = re.findall(r"`(\w+)` of \{py:\w+\}`([\w.]+)`", text)
    assert len(choices) >= 4
    for parameter, name in choices:
        assert parameter in inspect.signature(pkgutil.resolve_name(name)).parameters, name


def test_files_and_sources_say_licence_and_terms():
    row = about.file_table(["perturbqa/k562-de"]).iloc[0]
    entry = catalogue.entry("perturbqa/k562-de")
    assert row["sha256"] == entry.sha256 and row["megabytes"] == entry.bytes / 1e6
    assert "Non-commercial" in row["terms"] and entry.commit[:10] in row["where"]
    sources = about.source_table()
    assert sources["files"].sum() == len(catalogue.entries())
    assert sources["bytes"].sum() == catalogue.entries()["bytes"].sum()
    assert sources.loc[sources["restricted"], "terms"].ne("").all()


def test_a_data_set_says_what_it_can_carry():
    data = Dataset(
        "x", "X", "deg_pairs", pd.DataFrame(), notes=("One.", "Two."), citations=("a", "b")
    )
    text = about.dataset_facts(data)
    assert "known for some genes" in text and "- One.\n- Two." in text and "{cite:p}`a,b`" in text


def test_the_gpu_report_says_where_it_ran(tree):
    """Tiny sizes: rows with throughput and loss, which name the GPU or say that there was none."""
    out = tree / "results" / "benchmarks" / "bench_device.json"
    script = ROOT / "benchmarks" / "bench_device.py"
    subprocess.run([sys.executable, script, "--small", "--out", out], check=True)
    rows = about.benchmark_rows()
    assert (rows["benchmark"] == "bench_device").sum() == 5  # these alone are from here
    table = about.benchmark_table(rows[rows["benchmark"] == "bench_device"])
    where = "bfloat16 on" if torch.cuda.is_available() else "no GPU was used"
    assert len(table) == 5 and table["task"].str.contains(where).all()
    assert table["task"].str.contains("examples per second, loss").all()
    assert (table["agreement"].astype(float) < 0.05).all()


def test_benchmarks_are_read_where_they_are(tree):
    given = about.benchmark_rows()
    folder = tree / "results" / "benchmarks"
    folder.mkdir(parents=True)
    row = dict(task="t", ours_seconds=1.0, baseline_seconds=4.0, ratio=4.0, agreement=2e-9)
    row |= dict(benchmark="bench_scale", started="2030-01-01", commit="abc", cores=2)
    (folder / "bench_scale.json").write_text(json.dumps([row]))
    rows = about.benchmark_rows()
    own = rows["benchmark"] == "bench_scale"
    assert own.sum() == 1 and len(rows) == (given["benchmark"] != "bench_scale").sum() + 1
    assert "2030-01-01 with commit abc on 2 cores" in about.measured_said(rows)
    table = about.benchmark_table(rows[own])
    assert list(table.columns) == list(about.BENCHMARK_COLUMNS)
    assert table.loc[0, "ratio"] == 4.0 and table.loc[0, "agreement"] == "2e-09"
    (folder / "c.json").write_text('[{"task": "t"}]')
    with pytest.raises(InputError, match="c.json: no column 'ours_seconds'"):
        about.benchmark_rows()
    (folder / "c.json").write_text("<html>")
    pytest.raises(InputError, about.benchmark_rows).match("c.json is not a table")


def test_growth_is_per_million_cells_and_costs_are_by_rule_of_three():
    rows = pd.DataFrame({"cells": [1e4, 1e6, np.nan], "ours_seconds": [0.2, 10.0, 5.0]})
    rows = rows.assign(ours_peak_mb=[300, 310, 1], stored_gb=[0.03, 3.0, np.nan])
    grown = about.growth(rows)
    assert grown["value"].tolist() == pytest.approx([20.0, 10.0, 300, 310])
    said = about.growth_said(rows)
    assert "100 times as many, seconds grow 50 times and memory 1.0 times: by 0.01 kB" in said
    assert "3.00 kB on disk" in said
    assert "1 GB in the process" in said
    assert "nan" not in about.growth_said(about.benchmark_rows())  # those kept in the package
    costs = about.cluster_costs(rows.assign(ours_seconds=rows["ours_seconds"] * 10))
    # 10,000 seconds of computing on 64 processes; 300 GB to read
    assert costs["computing"].tolist() == pytest.approx([156.25 / 60] * 3)
    assert costs["reading"].tolist() == pytest.approx([10.0, 2.5, 0.625])
    assert costs["whole"].tolist() == pytest.approx([10.0, 156.25 / 60, 156.25 / 60])


@pytest.fixture
def shown(monkeypatch):
    texts = []
    monkeypatch.setattr("perturbcore.core.console.display", lambda m: texts.append(m.data))
    return texts


def test_a_command_is_shown_as_typed_with_what_it_printed(tree, shown):
    console = Console()
    console.example("tiny.yml", "profiles/tiny.yml")
    assert load_profile(console.mine / "profiles" / "tiny.yml").simulated
    assert shown.pop().startswith("`mine/profiles/tiny.yml`:\n\n~~~~yaml\ntitle: ")
    console.example("mine.yml", "a.txt")
    assert f"file: {console.mine}/annotation.csv" in (console.mine / "a.txt").read_text()
    console.run("ls mine/a*; echo mine/a.txt; pwd; echo $PERTURBCORE_RESULTS")
    assert "`mine/a.txt`" in shown[0] and "file: mine/annotation.csv" in shown[0]
    lines = shown[1].splitlines()
    assert lines[1] == "$ ls mine/a*; echo mine/a.txt; pwd; echo $PERTURBCORE_RESULTS"
    assert lines[2:4] == ["mine/a.txt", "mine/a.txt"] and lines[4:6] == [".", "mine/results"]
    console.run("seq 9; printf 'slow\\rfast\\n'", last=2)
    assert shown[2].splitlines()[2:5] == ["...", "9", "fast"]


def test_long_lines_are_folded_as_a_shell_reads_them(tree, shown):
    command = "echo a " + " ".join(f"--option-{i} 'value {i}'" for i in range(9))
    Console().run(command)
    lines = shown[0].splitlines()[1:-1]
    assert max(map(len, lines)) <= 86
    n = sum(line.endswith("\\") for line in lines) + 1
    folded = "\n".join(lines[:n]).removeprefix("$ ")
    said = [subprocess.check_output(["bash", "-c", c], text=True) for c in (command, folded)]
    assert n > 2 and said[0] == said[1]
    assert " ".join(" ".join(lines[n:]).split()) == said[0].strip()


def test_a_page_fails_where_a_command_does_not_do_what_it_says(tree, shown):
    console = Console()
    pytest.raises(InputError, console.run, "false").match(r"'false' ended with status 1")
    pytest.raises(InputError, console.run, "true", fails=True).match("'true' ended with status 0")
    console.run("perturbcore run frist", fails=True)
    assert "there is no chapter 'frist'" in shown[-1] and "(exit status 2)" in shown[-1]


def test_every_source_that_is_cited_is_in_the_bibliography():
    """What pages cite themselves, and the terms they link, Sphinx looks up in every build."""
    known = set(re.findall(r"^@\w+\{(\w+),", (ROOT / "book" / "references.bib").read_text(), re.M))
    keys = {k for text in catalogue.entries()["citations"] for k in text.split(", ") if k}
    for path in (ROOT / "src" / "perturbcore" / "data" / "sets").glob("*.py"):
        for found in re.findall(r"citations=\((.*?)\)", path.read_text(), re.S):
            keys |= set(re.findall(r'"(\w+)"', found))
    assert len(keys) > 20 and not keys - known


def test_the_run_record_comes_after_the_other_chapters():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    names = re.findall(r"book/chapters/(\w+)", str(toc))
    record = next(c for c in find_chapters() if c.name == "run_record")
    assert set(record.after) == set(names) - {"run_record"}
