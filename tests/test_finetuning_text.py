"""Fine-tuning a language model of texts: exact lower states, what learns, what it gains."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
import worlds
from toys import tokenizer_of
from transformers import BertConfig, BertModel

from perturbcore.core.errors import InputError
from perturbcore.models.finetuning.graph import FineTunedText, TextObjective
from perturbcore.models.simple import evaluate_embeddings
from perturbcore.report import finetuning
from perturbcore.report.finetuning import run_fine_tuning

QUICK = dict(
    name="Toy", modality="Language model", lrs=[0.01], batch_sizes=[16], epochs=12, patience=3
)
TOPICS = ["kinase", "channel", "receptor", "ribosome"]


@pytest.fixture(scope="module")
def made():
    """Tokenizer, encoder, texts of 80 genes with one topic each, and the topics."""
    words = [*TOPICS, *(f"w{i}" for i in range(30))]
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48)
    encoder = BertModel(BertConfig(vocab_size=40, max_position_embeddings=40, **sizes))
    rng = np.random.default_rng(0)
    topic = {f"G{i:02d}": i % 4 for i in range(80)}
    texts = {
        g: " ".join(rng.permutation([TOPICS[t], *rng.choice(words[4:], rng.integers(2, 9))]))
        for g, t in topic.items()
    }
    return tokenizer_of(words), encoder, texts, topic


def model_of(made, **options):
    tokenizer, encoder, texts, _ = made
    names = pd.Series(np.arange(len(texts)), index=list(texts))
    return FineTunedText(tokenizer, encoder, texts, names, **QUICK | options)


def responses_of(topic, unknown=4):
    """Responses that depend on the topic; the last perturbations have no text."""
    rng = np.random.default_rng(1)
    names = [*topic, *(f"X{i}" for i in range(unknown))]
    kind = np.r_[list(topic.values()), rng.integers(4, size=unknown)]
    X = 2 * rng.normal(size=(4, 12))[kind] + 0.2 * rng.normal(size=(len(names), 12))
    return worlds.responses_of(X, names, n_folds=4)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_the_layers_on_the_states_below_are_the_whole_encoder(made, layers):
    model, (tokenizer, encoder, texts, _) = model_of(made, layers=layers), made
    at = np.array([3, 41, 7, 60])
    tokens = tokenizer([list(texts.values())[i] for i in at], padding=True, return_tensors="pt")
    part = {k: tokens[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        hidden, there = encoder.eval()(**part).last_hidden_state, part["attention_mask"][..., None]
        whole = (hidden * there).sum(1) / there.sum(1)
        flat = np.zeros((2, 32), "f"), np.zeros(2)
        objective = TextObjective(copy.deepcopy(model.top), *flat, None, 0.1)
        read = model.read(at)
        torch.testing.assert_close(objective.eval().embed(**read), whole, atol=1e-5, rtol=0)
    np.testing.assert_allclose(model.states()[2][at], whole, atol=1e-5)


def test_adapters_and_head_learn_and_the_given_encoder_stays(made):
    before = {k: v.clone() for k, v in made[1].state_dict().items()}
    models = [model_of(made), model_of(made, layers=0)]
    scores = evaluate_embeddings(responses_of(made[3]), [], [], models=models, progress=False)
    l2 = scores[scores["metric"] == "L2"].groupby("predictor")["value"].mean()
    assert l2["LoRA + linear"] < l2["frozen + linear"] < l2["train_mean"]
    assert l2["LoRA + linear"] < 0.9 * l2["train_mean"]
    for k, v in made[1].state_dict().items():
        assert torch.equal(v, before[k]), k


def test_what_cannot_be_adapted_is_refused(made):
    pytest.raises(InputError, model_of, made, layers=4).match("layers=4 of 3")
    with pytest.raises(InputError, match="keep their layers as BERT does"):
        FineTunedText(made[0], torch.nn.Linear(2, 2), made[2], pd.Series(dtype=int), **QUICK)


def test_the_page_takes_encoder_and_texts_from_an_embedding(study_of, made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    made[1].save_pretrained(folder)
    made[0].save_pretrained(folder)
    spec = f"{{name: Toy, builder: language_model, source: simulated, model: {folder}}}"
    study = study_of("fine_tuning", f"\nembeddings:\n  - {spec}\n")
    quick = {"lrs": [0.01], "batch_sizes": [32], "epochs": 1, "max_length": 16}
    run = run_fine_tuning(
        study, "simulated", texts=["Toy", "Gone"], text=quick, k=[3, 5], n_components=8, n_outer=2,
        n_inner=2,
    )  # fmt: skip
    assert run.absent == ["Gone"]
    gains = finetuning.gains(run)
    gains = gains[gains["embedding"] == "Toy"].set_index("predictor")["adapted"]
    assert gains["LoRA + linear"] and not gains["frozen + linear"]
    learnt = run.networks.set_index("embedding").loc["Toy", "learnt"]
    assert "first 16 tokens" in learnt and "(8) in its last 1 layer" in learnt
