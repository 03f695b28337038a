"""Allowed and used: the pairs of every pattern as its definition has them, drawn beside the weights over them."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from qkv.errors import UsageError
from qkv.inside import inside
from qkv.look.page import page
from qkv.look.record import record, record_pairs
from qkv.look.sparsity import Sparsity, sparsity_png
from qkv.model import Model
from qkv.models import build, configure
from qkv.shapes import Batch
from qkv.text import TextConfig, train

TEXT = "the cat sat on the mat and a dog ate it"
SMALL = {"d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 16, "max_positions": 64}
FAMILIES = {
    "longformer": {"family": "longformer", "window": 4, "dilation": [1, 2], "dilated_heads": 1},
    "bigbird": {"family": "bigbird", "block": 2, "random": 1},
    "bigbird-blocks": {"family": "bigbird", "block": 2, "random": 1, "sparse": "blocks"},
    "bert": {"family": "bert", "pattern": "window(2) | global(1)"},
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    tok = train([TEXT], TextConfig(kind="chars", vocab_size=60))
    torch.manual_seed(0)
    config = configure({**SMALL, **FAMILIES[request.param], "vocab_size": tok.vocab_size})
    return Model(build(config), tok, config)


def test_what_is_allowed_is_what_gets_weight(model):
    """Softmax gives every allowed pair some weight and every other pair none."""
    ids = torch.randint(4, model.config.vocab_size, (2, 33))
    keep = torch.arange(33) < torch.tensor([[33], [20]])
    marked = torch.arange(33).expand(2, -1) == 7
    for chosen in (None, marked):
        with torch.no_grad(), record(model) as maps, record_pairs(model) as pairs:
            model.net.encode(Batch(ids, keep, marked=chosen))
        assert maps.keys() == pairs.keys() and len(maps) == 2
        for name, seen in maps.items():
            allowed = pairs[name].expand_as(seen)
            assert torch.equal(seen[:, :, :20] > 0, allowed[:, :, :20])  # real in both rows
            assert bool(allowed[0, :, 7].all()) or chosen is None


def test_a_text_read_once(model):
    seen = inside(model, TEXT, marked=[3])
    assert seen.sparse() == list(seen.maps)
    view = seen.sparsity(1, head=0)
    n = len(seen.tokens)
    assert view.allowed.shape == view.weights.shape == (n, n)
    assert view.allowed[3].all() and view.allowed[:, 3].all()
    assert 0.05 < view.density < 0.95 and 0 < view.used <= 1
    assert seen.sparsity(-1).density >= view.density  # of any head
    for bad in ({"layer": 2}, {"head": 2}):
        with pytest.raises(UsageError):
            seen.sparsity(**bad)


def test_shares_are_counted_by_hand():
    view = Sparsity("abcd", np.tri(4), np.diag([1.0, 1.0, 1.0, 0.7]) + np.diag([0.3], -3), "layer")
    assert view.density == 10 / 16
    assert view.used == 4 / 10  # 3.7 of 4 lie on four pairs
    first, second = view.views()
    assert first.label == "layer: allowed: 62.5% of the pairs"
    assert np.array_equal(first.weights, np.tri(4)) and np.array_equal(second.weights, view.weights)


def test_a_weight_where_nothing_is_allowed_is_an_error():
    with pytest.raises(UsageError, match="not allowed"):
        Sparsity("ab", np.eye(2), np.full((2, 2), 0.5))
    with pytest.raises(UsageError, match="2 × 2 tokens"):
        Sparsity("ab", np.eye(1), np.eye(2))


@pytest.mark.parametrize("n", [0, 1, 9, 700])
def test_pictures_and_pages(n):
    allowed = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= 2
    weights = allowed / np.maximum(allowed.sum(1, keepdims=True), 1)
    view = Sparsity([f"t{i}" for i in range(n)], allowed, weights, "window(2)")
    made = sparsity_png(view, "who sees whom")
    assert made.startswith(b"\x89PNG") and made == sparsity_png(view, "who sees whom")
    found = Data()
    found.feed(page("who sees whom", view.views()))
    both = json.loads("".join(found.text))["views"]
    assert [v["type"] for v in both] == ["alignment"] * 2
    if 0 < n < 10:
        assert both[0]["weights"] == (allowed * 1000).tolist()


class Data(HTMLParser):
    """The data block of a page."""

    def __init__(self):
        super().__init__()
        self.text, self.inside = [], False

    def handle_starttag(self, tag, attrs):
        self.inside = ("id", "data") in attrs

    def handle_data(self, data):
        if self.inside:
            self.text.append(data)
            self.inside = False
