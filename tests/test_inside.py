"""What a model of one text looks at while it reads."""

import pytest
import torch

import qkv
from qkv.errors import DataError, UsageError
from qkv.inside import inside
from qkv.model import Model
from qkv.models import build, configure
from qkv.text import TextConfig
from qkv.text import train as train_tokenizer

TEXT = "we like what we see"
NETS = {
    "gpt2": {"n_layers": 2, "n_heads": 2, "d_model": 8, "max_positions": 8},
    "bert": {"n_layers": 2, "n_heads": 2, "d_model": 8, "max_positions": 8},
    "rnn-encoder": {"d_model": 8, "attention": True},
}


def model(family: str, **more) -> Model:
    tokenizer = train_tokenizer([TEXT] * 5, TextConfig(kind="words"))
    ids = {"vocab_size": tokenizer.vocab_size, "pad_id": tokenizer.pad_id}
    own = NETS[family] | ({"labels": ("a", "b")} if family == "rnn-encoder" else {})
    torch.manual_seed(1)
    config = configure({"family": family, **ids, **own, **more})
    return Model(build(config), tokenizer, config)


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_every_layer_of_a_reader_with_its_tokens(family):
    seen = inside(model(family), TEXT)
    S = len(seen.tokens)
    assert len(seen.maps) == 2 and {f"▁{w}" for w in TEXT.split()} <= set(seen.tokens)
    for m in seen.maps.values():
        assert m.shape == (1, 2, S, S)
        assert torch.allclose(m.sum(-1), torch.ones(1, 2, S), atol=1e-6)
        if family == "gpt2":
            assert m.triu(1).abs().max() == 0  # nobody looks ahead
    grid = seen.grid()
    assert list(grid.maps) == sorted(seen.maps) and grid.axes("decoder")[0] == seen.tokens


def test_one_query_reads_for_a_recurrent_classifier():
    seen = inside(model("rnn-encoder"), TEXT)
    ((name, m),) = seen.maps.items()
    assert m.shape == (1, 1, 1, len(seen.tokens)) and not seen.grid().maps


def test_what_cannot_be_looked_at_says_so():
    with pytest.raises(DataError, match="empty"):
        inside(model("bert"), " ")
    with pytest.raises(DataError, match="the model has 8 positions"):
        inside(model("gpt2"), "we " * 9)
    with pytest.raises(UsageError, match="no attention"):
        inside(model("rnn-encoder", attention=False), TEXT)


@pytest.mark.parametrize("family", sorted(NETS))
def test_the_command_draws_a_page_and_a_picture(tmp_path, family, capsys):
    from qkv.cli import main

    model(family).save(tmp_path / "m")
    files = [str(tmp_path / name) for name in ("a.html", "a.png")]
    asked = ["look", "--model", str(tmp_path / "m"), TEXT, "-o", files[0], "-o", files[1]]
    assert main(asked) == 0
    assert capsys.readouterr().out.split() == files
    assert "like" in (tmp_path / "a.html").read_text("utf-8")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert main([*asked, "--beam", "2"]) == 2
    assert qkv.load(tmp_path / "m").family == family
