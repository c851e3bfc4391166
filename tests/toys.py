"""What several test files build: tiny tokenizers, and comparisons that ignore signs."""

import numpy as np

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


def same_up_to_sign(A, B, atol=1e-4):
    """Hold columns against each other, each up to its sign and in units of its largest value."""
    assert A.shape == B.shape
    scale, signs = np.abs(B).max(axis=0), np.sign((A * B).sum(axis=0))
    np.testing.assert_allclose(A / scale, B * signs / scale, atol=atol)
