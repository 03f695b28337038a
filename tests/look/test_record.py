"""Recording: the maps are softmax(q k), the answer keeps its bits, and nothing stays behind."""

import pytest
import torch
from torch.testing import assert_close

import qkv
from qkv.errors import UsageError
from qkv.models import build, configure
from qkv.parts.attention import Attention, spread
from qkv.parts.patterns import Allowed
from qkv.shapes import Batch, pad

SMALL = dict(d_model=16, encoder_layers=2, decoder_layers=2, vocab_size=20, dropout=0.0)
NETS = {
    "transformer": dict(family="transformer", n_heads=4, d_ff=32, **SMALL),
    "grouped-rotary": dict(
        family="transformer", n_heads=4, n_kv_heads=2, d_ff=32, positions="rotary", **SMALL
    ),
    "alibi": dict(family="transformer", n_heads=4, d_ff=32, positions="alibi", **SMALL),
    "rnn-general": dict(family="rnn", n_heads=2, **SMALL),
    "rnn-additive": dict(family="rnn", score="additive", **SMALL),
}


@pytest.fixture(params=NETS)
def net(request):
    torch.manual_seed(1)
    return build(configure(NETS[request.param])).eval()


@pytest.fixture
def transformer():
    torch.manual_seed(1)
    return build(configure(NETS["transformer"])).eval()


def batch(T=5, S=7):
    source, keep = pad([[4 + i for i in range(S - 1)] + [2], [5, 6, 2]], 0, 16)
    target, target_keep = pad([[7 + i % 9 for i in range(T - 1)] + [2], [8, 2]], 0)
    return Batch(source, keep, target, target_keep)


def probes(net):
    return [m.probe for m in net.modules() if isinstance(m, Attention)]


@torch.no_grad()
def test_recording_changes_no_bit_of_the_answer_and_rows_sum_to_one(net):
    plain = net.logits(batch())
    with qkv.record(net) as maps:
        assert torch.equal(net.logits(batch()), plain)
    assert torch.equal(net.logits(batch()), plain)
    assert len(maps) == len(probes(net)) and probes(net) == [None] * len(maps)
    for name, m in maps.items():
        rows = 16 if name.startswith("encoder") else 5
        assert m.shape[0] == 2 and m.shape[2] == rows, name
        assert_close(m[0].sum(-1), torch.ones_like(m[0, ..., 0]), atol=1e-6, rtol=0)
        assert not m.requires_grad
    cross = [m for n, m in maps.items() if n.endswith("cross")]
    assert cross and all(m.shape[2:] == (5, 16) and not m[0, ..., 7:].any() for m in cross)


@torch.no_grad()
def test_maps_are_softmax_of_q_and_k(transformer):
    """The definition in float64, from the layer's own q and k: 1e-6 is fp32 rounding of one product."""
    taken = {}

    def take(name):
        def hook(module, args, kwargs, _):
            taken[name] = (args, kwargs, module)

        return hook

    for name, m in transformer.named_modules():
        if isinstance(m, Attention):
            m.register_forward_hook(take(name), with_kwargs=True)
    with qkv.record(transformer) as maps:
        transformer.logits(batch())
    assert maps.keys() == taken.keys()
    for name, ((q, k, v, allowed), kwargs, module) in taken.items():
        assert isinstance(allowed, Allowed)
        score = q.double() @ spread(k, q.shape[1]).double().transpose(-1, -2) * module.scale
        score = score.masked_fill(~allowed.dense(), -torch.inf)
        want = torch.softmax(score, -1).nan_to_num(0.0)
        assert_close(maps[name].double(), want, atol=1e-6, rtol=0)
        merged = module.o((want.float() @ spread(v, q.shape[1])).transpose(1, 2).flatten(-2))
        assert_close(merged, module(q, k, v, allowed, **kwargs), atol=1e-5, rtol=0)


@torch.no_grad()
def test_only_the_layers_and_heads_asked_for_are_kept(transformer):
    with qkv.record(transformer) as every:
        transformer.logits(batch())
    with qkv.record(transformer, layers=[1], heads=[2, 0]) as some:
        assert sum(p is not None for p in probes(transformer)) == 3
        transformer.logits(batch())
    assert set(some) == {n for n in every if ".1." in n}
    for name, m in some.items():
        assert torch.equal(m, every[name][:, [2, 0]])


@pytest.mark.parametrize(
    "wrong",
    [dict(layers=[2]), dict(layers=[0, 9]), dict(layers=[-1]), dict(heads=[4]), dict(heads=[-1])],
    ids=str,
)
def test_a_layer_or_head_that_is_not_there_is_named(transformer, wrong):
    with pytest.raises(UsageError, match="no such") as e, qkv.record(transformer, **wrong):
        pass
    assert e.value.exit_code == 2 and e.value.fix.startswith("0 …")
    assert not any(probes(transformer))


def test_nothing_stays_behind_after_an_error(transformer):
    with pytest.raises(ZeroDivisionError), qkv.record(transformer):
        assert all(probes(transformer))
        raise ZeroDivisionError
    assert not any(probes(transformer))


@torch.no_grad()
def test_a_record_inside_another_gives_way_and_comes_back(transformer):
    with qkv.record(transformer) as outer:
        with qkv.record(transformer) as inner:
            transformer.logits(batch())
        assert inner and not outer
        transformer.logits(batch())
    assert outer.keys() == inner.keys()
    assert all(torch.equal(outer[n], inner[n]) for n in outer)


@torch.no_grad()
@pytest.mark.parametrize("T", [5, 20])
def test_steps_give_the_rows_of_one_pass(net, T):
    """Step by step a decoder's past grows in sixteens: its rows still join, and equal the one pass' rows."""
    b = batch(T)
    with qkv.record(net) as whole:
        net.logits(b)
    with qkv.record(net) as stepped:
        state = net.start(b)
        for ids in net.shift(b.target).unbind(1):
            _, state = net.step(ids, state)
    assert stepped.keys() == whole.keys()
    for name, m in whole.items():
        got = stepped[name]
        assert got.shape[:3] == m.shape[:3], name
        S = min(got.shape[-1], m.shape[-1])
        assert not got[..., S:].any() and not m[..., S:].any()
        assert_close(got[:1, :, :, :S], m[:1, :, :, :S], atol=1e-6, rtol=0)  # row 0 has no padding


@torch.no_grad()
def test_batches_that_do_not_join_are_refused_in_words(transformer):
    with pytest.raises(UsageError, match="do not join"), qkv.record(transformer):
        transformer.logits(batch())
        b = batch()
        transformer.logits(Batch(b.source[:1], b.keep[:1], b.target[:1], b.target_keep[:1]))
    assert not any(probes(transformer))


def test_a_net_without_attention_has_no_maps():
    net = build(configure(NETS["rnn-general"] | {"attention": False, "n_heads": 1})).eval()
    with qkv.record(net) as maps, torch.no_grad():
        net.logits(batch())
    assert maps == {}
    with pytest.raises(UsageError, match="no such layer"), qkv.record(net, layers=[0]):
        pass
