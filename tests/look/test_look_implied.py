"""The implied map beside the exact one: numbers of the pass itself, labelled, drawn."""

import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from qkv.errors import UsageError
from qkv.inside import inside
from qkv.look.implied import Implied, implied_png
from qkv.look.page import page
from qkv.look.record import record, record_exact
from qkv.model import Model
from qkv.models import build, configure
from qkv.models.interface import set_state, state_of
from qkv.text import TextConfig, train

TEXT = "the cat sat on the mat and a dog ate"


def made(**more):
    tok = train([TEXT] * 2, TextConfig(kind="words", vocab_size=40))
    torch.manual_seed(0)
    config = configure(
        {"family": "performer", "size": "tiny", "vocab_size": tok.vocab_size, **more}
    )
    return Model(build(config), tok, config)


@pytest.mark.parametrize("head", ["lm", "mlm"])
def test_the_exact_map_is_that_of_the_softmax_for_the_same_q_and_k(head):
    """In the first layer both nets have the same q and k, so the twin with the softmax has the exact map."""
    model, twin = made(head=head), made(head=head, exact=True)
    kept = state_of(twin.net)
    set_state(twin.net, {k: v for k, v in state_of(model.net).items() if k in kept})
    seen, want = inside(model, TEXT), inside(twin, TEXT)
    first = next(iter(want.maps))
    assert_close(seen.exact[first], want.maps[first], atol=1e-6, rtol=0)
    assert not want.exact and len(seen.exact) == 2
    assert not torch.equal(seen.maps[first], seen.exact[first])
    for m in (*seen.maps.values(), *seen.exact.values()):
        assert_close(m.sum(-1), torch.ones(m.shape[:-1]), atol=1e-5, rtol=0)
    with pytest.raises(UsageError, match="of 0"):
        want.implied()


def test_recording_both_changes_no_bit():
    model = made(head="mlm")
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    before = model.logits(ids)
    with record(model), record_exact(model):
        assert torch.equal(model.logits(ids), before)
    assert torch.equal(model.logits(ids), before)


def test_a_view_says_what_is_approximate_and_by_how_much():
    a, b = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.8, 0.2], [0.5, 0.5]])
    view = Implied(["a", "b"], a, b, "layer")
    assert view.moved == pytest.approx(0.1)
    one, two = view.views()
    assert "approximate" in one.label and "10.0%" in one.label and "exact" in two.label
    assert implied_png(view).startswith(b"\x89PNG") and view._repr_png_() == implied_png(view)
    assert "approximate" in page("both", view.views())
    json.dumps(one.to_dict())


def test_layers_and_heads_are_chosen_by_number():
    seen = inside(made(), TEXT)
    assert seen.implied(-1, head=1).label.startswith("decoder.blocks.1")
    assert_close(torch.tensor(seen.implied(0, head=1).implied), next(iter(seen.maps.values()))[0, 1].double())  # fmt: skip
    with pytest.raises(UsageError, match="layer 2 of 2"):
        seen.implied(2)
    with pytest.raises(UsageError, match="head 5 of 2"):
        seen.implied(0, head=5)
