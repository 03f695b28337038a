"""Any pattern in any encoder or decoder, by one line of a recipe; such a model is saved as ours."""

import json

import pytest
import torch

from qkv import checkpoints
from qkv.errors import ConfigError
from qkv.model import Model
from qkv.models import build, configure
from qkv.shapes import Batch
from qkv.text import TextConfig, train

PATTERN = "window(2) | global(1)"
NETS = {
    "transformer": {"family": "transformer", "d_model": 8, "n_heads": 2, "d_ff": 8},
    "gpt2": {"family": "gpt2", "d_model": 8, "n_heads": 2, "n_layers": 1, "max_positions": 32},
    "llama": {"family": "llama", "d_model": 8, "n_heads": 2, "n_layers": 1, "max_positions": 32},
    "t5": {"family": "t5", "size": "tiny", "d_model": 8, "n_heads": 2, "d_head": 4, "d_ff": 8},
    "bart": {
        "family": "bart",
        "size": "tiny",
        "d_model": 8,
        "n_heads": 2,
        "d_ff": 8,
        "max_positions": 32,
    },
    "marian": {
        "family": "marian",
        "d_model": 8,
        "n_heads": 2,
        "d_ff": 8,
        "encoder_layers": 1,
        "decoder_layers": 1,
    },
    "bert": {"family": "bert", "d_model": 8, "n_heads": 2, "n_layers": 1, "max_positions": 32},
}


def made(name, **more):
    torch.manual_seed(0)
    config = configure({**NETS[name], "vocab_size": 20, **more})
    return Model(build(config).eval(), None, config)


@pytest.mark.parametrize("name", NETS)
def test_a_model_with_a_pattern_is_saved_in_our_own_form(name, tmp_path):
    """A published config.json has no word for it, and must not be written as if the pattern were not there."""
    model = made(name, pattern=PATTERN)
    written = checkpoints.files(model)
    config = json.loads(written["config.json"])
    assert config["model"]["pattern"] == PATTERN and "architectures" not in config
    tokenizer = train(["the cat sat on the mat"], TextConfig(kind="chars", vocab_size=20))
    config = configure({**NETS[name], "vocab_size": tokenizer.vocab_size, "pattern": PATTERN})
    Model(build(config), tokenizer, config).save(tmp_path / "m")
    assert checkpoints.load(tmp_path / "m").config == config


@pytest.mark.parametrize("name", NETS)
def test_the_pattern_changes_what_is_seen(name):
    """Same weights, another answer; and a full pattern is the same answer as none."""
    ids = torch.arange(4, 20)[None].expand(2, -1)
    keep = torch.ones_like(ids, dtype=torch.bool)
    batch = Batch(ids, keep, ids, keep)
    with torch.no_grad():
        plain, sparse, full = (
            made(name, **p).net.logits(batch)
            for p in ({}, {"pattern": PATTERN}, {"pattern": "full"})
        )
    assert not torch.allclose(plain, sparse)
    torch.testing.assert_close(full, plain)


@pytest.mark.parametrize("name", NETS)
def test_marked_tokens_reach_the_layers(name):
    """A token far outside the window counts once it is marked."""
    net = made(name, pattern="window(1)").net
    ids = torch.arange(4, 20)[None].clone()
    keep, marked = torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
    marked[0, 1] = True
    other = ids.clone()
    other[0, 1] = 19

    def states(ids, marked):
        with torch.no_grad():
            return net.encode(Batch(ids, keep, marked=marked)).states[0, -1]

    torch.testing.assert_close(states(ids, None), states(other, None), atol=0, rtol=0)
    assert not torch.allclose(states(ids, marked), states(other, marked))


def test_a_misspelled_pattern_is_a_named_error():
    with pytest.raises(ConfigError, match="QKV-010.*did you mean 'window'"):
        made("bert", pattern="windw(3)")


@pytest.mark.parametrize("family", ["vit", "hybrid"])
def test_pictures_take_a_pattern_over_their_rows_of_tokens(family):
    from qkv.pictures import of_pixels

    def net(pattern):
        torch.manual_seed(0)
        values = {"family": family, "size": "tiny", "labels": ("a", "b"), "pattern": pattern}
        return build(configure(values)).eval()

    pixels = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain, sparse, full = (
            net(p).encode(of_pixels(pixels)).states for p in (None, "window(1)", "full")
        )
    assert not torch.allclose(plain, sparse)
    torch.testing.assert_close(full, plain)
