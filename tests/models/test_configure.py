"""Configurations: every mixture builds and learns, every mistake is met with a guess."""

from dataclasses import fields

import pytest
import torch

from qkv.errors import ConfigError
from qkv.models import CONFIGS, FAMILIES, build, configure, describe
from qkv.models.interface import set_state, state_of
from qkv.shapes import Batch, pad

SMALL = dict(d_model=8, encoder_layers=1, decoder_layers=1, vocab_size=15)
WIDE = dict(n_heads=2, d_ff=16)
MIXTURES = [
    *(dict(family="transformer", encoder_cell=c, **WIDE) for c in (None, "rnn", "lstm", "gru")),
    *(dict(family="transformer", positions=p, **WIDE) for p in ("sinusoid", "learned", "rotary", "alibi", "none")),
    *(dict(family="transformer", norm=n, norm_first=f, **WIDE) for n in ("layer", "rms") for f in (True, False)),
    *(dict(family="transformer", tie=t, **WIDE) for t in ("all", "target", "none")),
    dict(family="transformer", gated=True, activation="silu", window=2, n_kv_heads=1, **WIDE),
    *(dict(family="rnn", cell=c, attention=a) for c in ("rnn", "lstm", "gru") for a in (True, False)),
    *(dict(family="rnn", cell=c, attention=False, context="every") for c in ("rnn", "lstm", "gru")),
    *(dict(family="rnn", score=s) for s in ("dot", "scaled", "general", "additive", "cosine")),
    dict(family="rnn", bidirectional=False, decoder_layers=2, encoder_layers=2),
    dict(family="rnn", cell="rnn", activation="sigmoid"),
    *(dict(family="rnn", encoder_heads=2, cell=c) for c in ("rnn", "lstm", "gru")),
]  # fmt: skip


def batch():
    source, keep = pad([[4, 5, 6, 2], [9, 2]], 0)
    target, target_keep = pad([[5, 2], [7, 8, 9, 2]], 0)
    return Batch(source, keep, target, target_keep)


@pytest.mark.parametrize("values", MIXTURES, ids=lambda v: "-".join(str(x) for x in v.values()))
def test_every_mixture_builds_reads_and_sends_a_gradient_everywhere(values):
    torch.manual_seed(0)
    config = configure(SMALL | values)
    net = build(config)
    p = net.loss_inputs(batch())
    assert p.states.shape == (6, 8) and p.labels.tolist() == [5, 2, 7, 8, 9, 2]
    net.logits(batch())[batch().target_keep].square().sum().backward()
    # attention scores do not change when all keys move together: their bias has no gradient, or next to none
    missing = [n for n, w in net.named_parameters() if w.grad is None and not n.endswith("k.bias")]
    assert not missing
    assert configure(describe(config)) == config


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_are_configurations(family):
    reads = {f.name for f in fields(CONFIGS[family])}
    given = {
        "family": family,
        **({"vocab_size": 9} if "vocab_size" in reads else {"labels": ("a", "b")}),
    }
    for size in FAMILIES[family].SIZES:
        config = configure({**given, "size": size})
        assert isinstance(config, CONFIGS[family])
        changed = configure({**given, "size": size, "dropout": 0.25})
        assert changed.dropout == 0.25


@pytest.mark.parametrize(
    "values,code,guess",
    [
        ({"family": "transfromer"}, "QKV-055", "transformer"),
        ({"family": "rnn", "cel": "gru"}, "QKV-010", "cell"),
        ({"n_head": 2}, "QKV-010", "n_heads"),
        ({"size": "tinny"}, "QKV-012", "tiny"),
        ({"positions": "sinusoids"}, "QKV-012", "sinusoid"),
        ({"d_model": "32"}, "QKV-011", "d_model"),
        ({"family": "rnn", "cell": "gruu"}, "QKV-012", "gru"),
        ({"family": "rnn", "context": "every"}, "QKV-013", "attention = false"),
    ],
    ids=str,
)
def test_a_wrong_word_is_met_with_a_guess(values, code, guess):
    with pytest.raises(ConfigError) as e:
        configure(values, place="recipe.toml")
    assert e.value.code == code and guess in e.value.fix and e.value.place == "recipe.toml"


@pytest.mark.parametrize(
    "values",
    [
        {"d_model": 30, "n_heads": 4},
        {"n_heads": 4, "n_kv_heads": 3},
        {"encoder_layers": 0},
        {"n_heads": 0},
        {"d_ff": 0},
        {"dropout": 1.0},
        {"d_model": 33, "n_heads": 3, "encoder_cell": "gru"},
        {"family": "rnn", "d_model": 33},
        {"family": "rnn", "dropout": -0.1},
        {"family": "rnn", "d_model": 16, "n_heads": 3},
        {"family": "rnn", "d_model": 16, "encoder_heads": 3},
        {"family": "rnn", "activation": "gelu"},
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_in_words(values):
    with pytest.raises(ConfigError) as e:
        build(configure({"vocab_size": 9} | values))
    assert e.value.fix and e.value.code in ("QKV-012", "QKV-013")


def test_weights_of_another_model_are_refused():
    from qkv.errors import WeightsError

    net, other = (build(configure(SMALL | WIDE | {"d_ff": n})) for n in (16, 24))
    before = {k: v.clone() for k, v in state_of(net).items()}
    with pytest.raises(WeightsError) as e:
        set_state(net, state_of(other))
    assert e.value.code == "QKV-052"
    with pytest.raises(WeightsError) as e:
        set_state(net, {k: v for k, v in before.items() if "ff.up" not in k})
    assert e.value.code == "QKV-051" and "ff.up" in e.value.seen
    assert all(torch.equal(v, before[k]) for k, v in state_of(net).items())
