"""Every law over every family and mixture (DESIGN §5)."""

import copy
from dataclasses import replace

import pytest
import torch

from qkv import doctor, specimens
from qkv.model import Model
from qkv.models import FAMILIES, build, configure
from qkv.models.t5 import T5Encoder
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
    "transformer-pattern": {
        "family": "transformer",
        "size": "tiny",
        "pattern": "window(3) | dilated(2, 3) | global(1)",
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
    "rnn-gru-one-vector": {"family": "rnn", "size": "tiny", "attention": False, "context": "every"},
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
    "rnn-encoder": {"family": "rnn-encoder", "size": "tiny", "head": "mlm"},
    "bert": {"family": "bert", "size": "tiny"},
    "bert-mean": {
        "family": "bert",
        "size": "tiny",
        "head": "classes",
        "labels": ["a", "b"],
        "pooling": "mean",
    },
    "roberta": {"family": "bert", "size": "tiny", "layout": "roberta"},
    "longformer": {"family": "longformer", "size": "tiny", "window": 8},
    "longformer-marked": {
        "family": "longformer",
        "size": "tiny",
        "n_layers": 3,
        "window": [4, 16, 8],
        "dilation": [1, 2, 1],
        "dilated_heads": 1,
        "marked": "first",
        "pooling": "mean",
    },
    "bigbird": {"family": "bigbird", "size": "tiny", "sparse": "blocks"},
    "bigbird-published": {"family": "bigbird", "size": "tiny", "block": 64},
    "bigbird-full": {"family": "bigbird", "size": "tiny", "sparse": "none"},
    "gpt2": {"family": "gpt2", "size": "nano"},
    "llama": {"family": "llama", "size": "nano"},
    "llama-blocks": {"family": "llama", "size": "nano", "pattern": "blocks(8, random=1)"},
    "bert-pattern": {"family": "bert", "size": "tiny", "pattern": "window(4) | global(1)"},
    "t5": {"family": "t5", "size": "tiny"},
    "t5-v1.1": {"family": "t5", "size": "v1.1-tiny"},
    "t5-encoder": {"family": "t5", "size": "tiny", "head": "encoder"},
    "bart": {"family": "bart", "size": "tiny"},
    "marian": {"family": "marian", "size": "tiny"},
    "performer": {"family": "performer", "size": "tiny"},
    "performer-rotary": {"family": "performer", "size": "tiny", "positions": "rotary", "redraw": 3},
    "performer-encoder": {"family": "performer", "size": "tiny", "head": "mlm"},
    "vit": {"family": "vit", "size": "tiny"},
    "vit-first-token": {"family": "vit", "size": "tiny", "pool": "first", "image_size": [28, 14]},
    "deit": {
        "family": "vit",
        "size": "tiny",
        "layout": "deit",
        "pool": "first",
        "head": "distilled",
    },
    "vit-bare": {"family": "vit", "size": "tiny", "pool": "first", "head": "none", "labels": []},
    "hybrid": {"family": "hybrid", "size": "tiny"},
    "detr": {"family": "detr", "size": "tiny"},
    "hybrid-resnet": {
        "family": "hybrid",
        "size": "tiny",
        "cnn": "resnet",
        "stem": "7x7",
        "d_stem": 8,
        "bottleneck": True,
        "image_size": 40,
        "pool": "first",
    },
}


PICTURES = ("vit", "hybrid", "detr")


def test_every_family_is_here():
    assert {values["family"] for values in MODELS.values()} == set(FAMILIES)


@pytest.fixture(scope="module")
def tokenizer():
    return train(["the cat sat on the mat", "a dog ate"], TextConfig(kind="chars", vocab_size=100))


@pytest.fixture(scope="module", params=MODELS, ids=str)
def model(request, tokenizer):
    torch.manual_seed(0)
    values = MODELS[request.param]
    if values["family"] in PICTURES:
        config = configure({"labels": ["shirt", "shoe", "bag"], **values})
        return Model(build(config), None, config)
    config = configure({**values, "vocab_size": tokenizer.vocab_size})
    return Model(build(config), tokenizer, config)


@pytest.mark.parametrize("law", doctor.LAWS, ids=lambda law: law.__name__)
def test_law(model, law):
    if law not in doctor.laws_of(model):
        assert law in doctor.ANSWERING or model.has_pictures
        pytest.skip("a net that only reads")
    found = law(model)
    assert found.passed, f"{found.name}: saw {found.seen}, bound {found.bound}"


@torch.inference_mode()
def test_weights_in_bf16_answer_nearly_as_in_float32(model):
    """A net loaded with dtype=bfloat16: its numbers differ by rounding only, a few of bf16's 2^-8 through its layers."""
    batch = doctor.given(model, 4, longest=9)
    want = doctor.numbers(model.net, batch)
    got = doctor.numbers(copy.deepcopy(model.net).bfloat16(), batch)
    assert got.dtype == torch.bfloat16
    assert float((got.float() - want).norm() / want.norm()) < 0.03


def test_a_step_in_bf16_is_near_the_one_in_float32(model):
    """Mixed precision changes the loss by rounding only: bf16 keeps 8 bits, so 2 % of a loss near log V is ample."""
    if isinstance(model.net, T5Encoder) or (model.has_pictures and not model.config.labels):
        pytest.skip("nothing to learn from without a head")
    batch, found = doctor.given(model, 4, longest=9), []
    if batch.label is None:
        batch = replace(batch, label=torch.arange(4) % 2)  # a head for classes asks for it
    for on in (False, True):
        model.net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            loss, _ = specimens.loss(model.net, batch, 0.1)
        loss.backward()
        found.append(float(loss.detach()))
        assert all(p.grad.isfinite().all() for p in model.net.parameters() if p.grad is not None)
    model.net.zero_grad()
    assert found[1] == pytest.approx(found[0], rel=0.02)
