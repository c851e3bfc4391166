from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from perturbcore.core.errors import InputError
from perturbcore.report import sentences, summary

# mean score over folds of each method; folds share a small common shift
MEANS = {
    ("good", "knn", "Prior knowledge"): 5.0,
    ("twin", "knn", "Prior knowledge"): 5.01,
    ("dull", "knn", "Protein"): 7.99,
    ("random", "knn", "Negative control"): 8.02,
    ("idealized", "knn", "Positive control"): 3.0,
    ("", "train_mean", "Negative control"): 8.0,
    ("", "no_change", "Negative control"): 9.0,
    ("", "experimental_error", "Positive control"): 4.0,
}


def scores(means=MEANS, metric="L2", task="lfc"):
    rng = np.random.default_rng(0)
    rows = []
    for line in ("A", "B"):
        shift = rng.normal(0, 0.3, 5)
        for (embedding, predictor, modality), mean in means.items():
            for fold in range(5):
                noise = (
                    0 if predictor in ("train_mean", "experimental_error") else rng.normal(0, 0.05)
                )
                rows.append(
                    (line, fold, embedding, predictor, modality, mean + shift[fold] + noise)
                )
    frame = pd.DataFrame(
        rows, columns=["cell_line", "fold", "embedding", "predictor", "modality", "value"]
    )
    return frame.assign(dataset="toy", task=task, metric=metric, seed=0, n_train=80, n_test=20)


def test_the_ranking_puts_the_best_first_and_marks_what_cannot_be_told_apart():
    table = summary.ranking_table(scores())
    competing = table[table["competes"]]
    assert list(competing["display"][:2]) in (["good", "twin"], ["twin", "good"])
    assert set(competing.loc[competing["with_best"], "display"]) == {"good", "twin"}
    assert not table.loc[
        table["display"].isin(["Idealized", "Experimental error"]), "competes"
    ].any()
    gap = table.set_index("display")["gap_closed"]
    assert gap["good"] == pytest.approx(3 / 4, abs=0.03)  # (8 - 5) / (8 - 4)
    assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()


def test_the_headline_names_rivals_and_what_does_not_beat_the_floor():
    told = summary.headline(scores())
    assert told.best in ("good", "twin") and len(told.rivals) == 1
    assert told.useless == ["dull"]
    assert told.n == 3 and told.ceiling_name == "Experimental error"
    assert set(told.gap_by_line) == {"A", "B"}
    text = sentences.one_line(told, "L2")
    assert "75 %" in text or "74 %" in text or "76 %" in text
    assert "1 of 3" in text


def test_without_replicates_the_idealized_embedding_is_the_ceiling():
    means = {k: v for k, v in MEANS.items() if k[1] != "experimental_error"}
    assert summary.headline(scores(means)).ceiling_name == "Idealized"
    bare = {k: v for k, v in means.items() if k[0] != "idealized"}
    with pytest.raises(InputError, match="no ceiling"):
        summary.ranking_table(scores(bare))


def test_where_nothing_beats_the_floor_the_sentence_says_so():
    means = {k: (8.05 if k[2] in ("Prior knowledge", "Protein") else v) for k, v in MEANS.items()}
    rows = scores(means)
    told = summary.headline(rows)
    assert told.best in told.useless
    assert sentences.one_line(told, "L2").startswith("No embedding can be shown to beat")
    assert "lies beyond the Train Mean" in sentences.reading(rows)
    noisy = {**means, ("", "experimental_error", "Positive control"): 8.5}
    assert "cannot be told from noise" in sentences.reading(scores(noisy))
    hard = {**noisy, ("", "no_change", "Negative control"): 7.0}
    assert "does not beat No Change" in sentences.reading(scores(hard))


def test_mixed_tasks_are_refused():
    both = pd.concat([scores(), scores(task="deg_pairs", metric="auroc_within")])
    with pytest.raises(InputError, match="one task"):
        summary.primary_metric(both)


def test_neighbours_and_gaps_cover_every_competing_method():
    table = summary.significant_neighbours(scores(), "L2")
    assert {"good", "twin", "dull", "Random", "Train Mean", "No Change"} == set(table["display"])
    told_apart = table.set_index("display")["distinguishable"]
    assert told_apart[["good", "twin"]].sum() == 1  # only the later of the two is told from dull
    wide = summary.gap_table(scores(), "L2")
    assert (
        wide.loc["No Change", "mean"]
        < 0
        < wide.loc["good", "mean"]
        < 1
        < wide.loc["Idealized", "mean"]
    )


def test_lists_read_as_sentences():
    assert sentences.listed([]) == "none"
    assert sentences.listed(["a"]) == "a"
    assert sentences.listed(["a", "b", "c"]) == "a, b and c"
    assert sentences.percent(float("nan")) == "an undefined part"


def test_the_first_page_says_what_fusion_adds():
    told = summary.headline(scores())
    assert summary.best_fusion(told, scores(), "L2") is None
    fused = scores({("all", "ridge", "Fusion"): 4.5, ("some", "knn", "Fusion"): 6.0})
    name, n, gap = summary.best_fusion(told, fused, "L2")
    assert (name, n) == ("all", 2) and gap == pytest.approx(3.5 / 4, abs=0.05)
    real = SimpleNamespace(simulated=False)
    third = sentences.three_sentences(told, "L2", real, (name, n, gap))[2]
    assert f"the best of 2 fusions of them (all) {round(100 * gap)} %: the rest" in third
    assert "fusion" not in sentences.three_sentences(told, "L2", real)[2]
