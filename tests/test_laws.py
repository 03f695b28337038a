"""Every law over every family and mixture (DESIGN §5)."""

import pytest
import torch

from qkv import doctor
from qkv.model import Model
from qkv.models import build, configure
from qkv.text import TextConfig, train

MODELS = {
    "transformer": {"family": "transformer", "size": "tiny"},
    "transformer-today": {
        "family": "transformer",
        "size": "tiny",
        "norm": "rms",
        "norm_first": True,
        "gated": True,
        "activation": "silu",
        "positions": "rotary",
        "n_kv_heads": 2,
    },
    "transformer-alibi-window": {
        "family": "transformer",
        "size": "tiny",
        "positions": "alibi",
        "window": 3,
        "activation": "gelu",
    },
    "transformer-learned-untied": {
        "family": "transformer",
        "size": "tiny",
        "positions": "learned",
        "tie": "none",
        "attn_dropout": 0.1,
        "ff_dropout": 0.1,
    },
    "transformer-gru-encoder": {"family": "transformer", "size": "tiny", "encoder_cell": "gru"},
    "rnn-gru-general": {"family": "rnn", "size": "tiny"},
    "rnn-lstm-no-attention": {"family": "rnn", "size": "tiny", "cell": "lstm", "attention": False},
    "rnn-elman-additive": {"family": "rnn", "size": "tiny", "cell": "rnn", "score": "additive"},
    "rnn-lstm-dot-two-layers": {
        "family": "rnn",
        "size": "tiny",
        "cell": "lstm",
        "score": "dot",
        "encoder_layers": 2,
        "decoder_layers": 2,
    },
    "rnn-gru-cosine": {"family": "rnn", "size": "tiny", "score": "cosine", "bidirectional": False},
    "rnn-transformer-encoder": {
        "family": "rnn",
        "size": "tiny",
        "encoder_heads": 4,
        "score": "scaled",
    },
}


@pytest.fixture(scope="module")
def tokenizer():
    return train(["the cat sat on the mat", "a dog ate"], TextConfig(kind="chars", vocab_size=100))


@pytest.fixture(scope="module", params=MODELS, ids=str)
def model(request, tokenizer):
    torch.manual_seed(0)
    config = configure({**MODELS[request.param], "vocab_size": tokenizer.vocab_size})
    return Model(build(config), tokenizer, config)


@pytest.mark.parametrize("law", doctor.LAWS, ids=lambda law: law.__name__)
def test_law(model, law):
    found = law(model)
    assert found.passed, f"{found.name}: saw {found.seen}, bound {found.bound}"
