"""What several test files build: tiny tokenizers, and comparisons that ignore signs."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

ROOT = Path(__file__).parents[1]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def tokenizer_of(words, split=None):
    """A tokenizer of `SPECIAL` and these words, parted by `split`, by default at blanks."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *words]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = split or pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep")}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def states(folder, text):
    """Last hidden states of one text by itself, of an encoder: tokens x dimensions."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder).eval()
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    with torch.no_grad():
        ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
        return encoder(input_ids=ids).last_hidden_state[0].numpy()


def smaller(name, overlay):
    """Lay a file of the tests over a profile: the values it gives for what is there; null drops."""
    profile = yaml.safe_load((ROOT / f"notebooks/profiles/{name}.yml").read_text())
    less = yaml.safe_load((ROOT / "tests" / overlay).read_text())
    for kind in {"datasets", "embeddings"} & set(less):
        there = {entry["name"]: entry for entry in profile[kind]}
        assert not set(less[kind]) - set(there)
        given = {name: less[kind].get(name, {}) for name in there}
        profile[kind] = [there[name] | new for name, new in given.items() if new is not None]
    profile["without"] = less.get("without", [])
    for name, values in less["chapters"].items():
        profile["chapters"][name] = profile["chapters"].get(name, {}) | values
    return profile


def same_up_to_sign(A, B, atol=1e-4):
    """Hold columns against each other, each up to its sign and in units of its largest value."""
    assert A.shape == B.shape
    scale, signs = np.abs(B).max(axis=0), np.sign((A * B).sum(axis=0))
    np.testing.assert_allclose(A / scale, B * signs / scale, atol=atol)


# mean score over folds of each method
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


def scores(
    means=MEANS,
    metric="L2",
    task="lfc",
    noise=0.05,
    folds=5,
    seed=0,
    lines=("A", "B"),
    shift=0.3,
    **more,
):
    """Tidy scores of known means; folds share a small common shift."""
    rng = np.random.default_rng(seed)
    rows = []
    for line in lines:
        common = rng.normal(0, shift, folds)
        for (embedding, predictor, modality), mean in means.items():
            fixed = predictor in ("train_mean", "experimental_error")
            for fold in range(folds):
                value = mean + common[fold] + (0 if fixed else rng.normal(0, noise))
                rows.append((line, fold, embedding, predictor, modality, value))
    columns = ["cell_line", "fold", "embedding", "predictor", "modality", "value"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["coverage"] = np.where(frame["embedding"] == "", np.nan, 1.0)
    key = frame["embedding"] + frame["predictor"] + frame["cell_line"] + frame["fold"].astype(str)
    about = dict(task=task, metric=metric, n_train=80, n_test=20, seconds=2.0, key=key)
    return frame.assign(dataset="toy", seed=0, **about | more)
