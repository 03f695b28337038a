"""BigBird against transformers; tolerances: parity.py.

The reference, once shown a short batch, computes in full for ever after: every comparison has a fresh one.  Where it masks,
it adds -10,000, of which exp is 0 in float64; where it bars the question from an answer, it takes 1e6, whose last bit is 1e-10."""

import json
from dataclasses import replace
from typing import Any

import parity
import pytest
import torch
import transformers as theirs
from safetensors.torch import save_file
from sparse_parity import (
    ONE,
    THREE,
    V,
    batch_for,
    check_logits,
    logits_of,
    reference_loss,
    states_of,
)
from torch.testing import assert_close

from qkv.errors import ConfigError, WeightsError
from qkv.learn.terms import term_loss, terms_of
from qkv.look.record import record
from qkv.models import bigbird, build, configure, describe, hf
from qkv.models.blocks import BlockAttention, Plan, draws, gathered
from qkv.models.interface import state_of
from qkv.parts import kernels
from qkv.parts.patterns import Allowed, Full
from qkv.shapes import Batch, pad

SIZE = 4
LENGTHS = (
    31,
    1,
    40,
    17,
)  # 8, 1, 10 and 5 blocks; with one random block all is seen up to 28 tokens


def small(**more: Any) -> Any:
    sizes = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20)
    usual = {"vocab_size": V, "max_position_embeddings": 80, "block_size": SIZE, "sep_token_id": 5}
    return theirs.BigBirdConfig(**{**usual, "num_random_blocks": 1, **sizes, **more})


CASES: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {  # head, lengths, settings
    "none": ("none", LENGTHS, {}),
    "mlm": ("mlm", LENGTHS, {"id2label": THREE}),
    "pretraining": ("pretraining", LENGTHS, {}),
    "classes": ("classes", LENGTHS, {"id2label": THREE}),
    "value": ("classes", LENGTHS, {"id2label": ONE}),
    "many": ("classes", LENGTHS, {"problem_type": "multi_label_classification"}),
    "tags": ("tags", LENGTHS, {"id2label": THREE, "type_vocab_size": 1}),
    "span": ("span", LENGTHS, {}),
    "short": ("mlm", (28, 1, 13), {}),
    "one-more": ("mlm", (29, 1, 13), {}),
    "full": ("classes", LENGTHS, {"attention_type": "original_full", "hidden_act": "relu"}),
    "untied": ("pretraining", LENGTHS, {"tie_word_embeddings": False}),
    "no-bias": ("mlm", LENGTHS, {"use_bias": False, "layer_norm_eps": 1e-5}),
    "rescaled": ("mlm", LENGTHS, {"rescale_embeddings": True, "hidden_act": "gelu"}),
    "two-random": ("mlm", (37, 50, 3), {"num_random_blocks": 2}),
    "blocks-of-3": ("tags", (31, 1, 40), {"block_size": 3, "num_random_blocks": 3}),
    "blocks-of-1": ("mlm", (9, 12), {"block_size": 1}),
    "odd-heads": ("span", LENGTHS, {"hidden_size": 15, "num_attention_heads": 3}),
    "no-padding-id": ("mlm", LENGTHS, {"pad_token_id": None}),
}


def made(name: str, dtype: torch.dtype = torch.float64) -> Any:
    head, _, more = CASES[name]
    cls = getattr(theirs, bigbird.HEADS[head])
    return parity.reference(cls, small(**more), seed=len(name), dtype=dtype)


@pytest.fixture(params=CASES)
def case(request):
    model = made(request.param)
    module, config, net = parity.converted(model)
    return model, module, config, net, batch_for(config, CASES[request.param][1], 6)


def inputs(b: Batch) -> dict[str, Any]:
    made = {"input_ids": b.source, "attention_mask": b.keep.long()}
    return made if b.segment is None else made | {"token_type_ids": b.segment}


def times(net: Any, b: Batch) -> torch.Tensor | float:
    """(H or 1, S, S): how often a token sees another; the reference shows the weight of one of these times."""
    attn, S = net.encoder.blocks[0].attn, b.source.shape[1]
    if not isinstance(attn, BlockAttention) or S <= attn.plan.full:
        return 1.0
    each = attn.plan.times(S, net.training)
    wide = each.repeat_interleave(attn.plan.size, 1).repeat_interleave(attn.plan.size, 2)
    return wide[:, :S, :S].clamp(min=1).double()


def test_states_maps_and_logits(case):
    model, _, config, net, b = case
    S = b.source.shape[1]
    with torch.no_grad(), record(net) as maps:
        seen = states_of(net, b)
        out = model(**inputs(b), output_hidden_states=True, output_attentions=True)
    for ours, want in zip(seen, out.hidden_states[1:], strict=True):
        assert parity.largest(ours, want[:, :S], b.keep) < 1e-10
    for i, want in enumerate(out.attentions):
        ours = maps[f"encoder.blocks.{i}.attn"]
        assert_close(ours.sum(-1), torch.ones_like(ours.sum(-1)))
        once = (ours / times(net, b)).transpose(1, 2)
        assert parity.largest(once, want[..., :S, :S].transpose(1, 2), b.keep) < 1e-10
    if config.head == "none":
        assert float((net.encode(b).summary - out.pooler_output).detach().abs().max()) < 1e-10
        return
    with torch.no_grad():
        check_logits(net, config, b, out, 1e-9 if config.head == "span" else 1e-10)
        if config.head == "pretraining":
            ours = net.labelled(net.encode(b))
            assert float((ours - out.seq_relationship_logits).abs().max()) < 1e-10


def test_losses_and_gradients(case):
    model, module, config, net, b = case
    if config.head == "span":  # an answer stands in the context, or is the first token
        b = replace(b, label=torch.zeros_like(b.label))
    want = reference_loss(config, b, model(**inputs(b)))
    if config.head == "none":
        ours = net.encode(b).states[b.keep].square().sum()
    else:
        terms = [term_loss(t) for t in terms_of(net.loss_inputs(b))]
        ours = sum((t.smoothed / t.tokens for t in terms), torch.zeros((), dtype=torch.float64))
    assert abs(float(ours.detach() - want.detach())) < 1e-10 * max(1.0, float(want.detach()))
    ours.backward(), want.backward()
    parity.check_gradients(net, module, config, model)


def test_files_both_ways(case, tmp_path):
    """load -> save: the same bytes; transformers loads what we write: the same numbers."""
    model, module, config, net, b = case
    parity.check_round_trip(model)
    (tmp_path / "config.json").write_text(json.dumps(module.to_hf(config)))
    written = hf.theirs(module, config, state_of(net))
    save_file(written, tmp_path / "model.safetensors", {"format": "pt"})
    again, info = type(model).from_pretrained(
        tmp_path, output_loading_info=True, dtype=torch.float64, attn_implementation="eager"
    )
    assert set(info["missing_keys"]) <= (set() if config.tie else {"cls.predictions.bias"})
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    with torch.no_grad():
        one, two = (m(**inputs(b)) for m in (model, again.eval()))
    for name, want in one.items():
        assert_close(two[name], want, atol=1e-13, rtol=0, msg=name)  # other addresses of memory


@pytest.mark.parametrize("S", [1, 4, 27, 28, 29, 32, 33, 57])
def test_lengths_around_blocks(S):
    """One text alone, and the same text in a batch with a longer one."""
    for lengths in ((S,), (S, min(S + 7, 64))):
        model = made("mlm")
        _, config, net = parity.converted(model)
        b = batch_for(config, lengths, 6)
        with torch.no_grad():
            check_logits(net, config, b, model(**inputs(b)))


@pytest.mark.parametrize("name", ["mlm", "classes", "short"])
def test_float32_is_near(name):
    model = made(name, torch.float32)
    _, config, net = parity.converted(model)
    b = batch_for(config, CASES[name][1], 6)
    with torch.no_grad():
        out = model(**inputs(b))
        check_logits(net, config, b, out, 1e-5 * float(logits_of(config.head, out).abs().max()))


# ---- QUIRKs


def test_eval_counts_block_zero_again():
    """With r random blocks, in eval mode, block 0 is seen 1 + r times by all but the ends: log(1 + r) more score."""
    _, config, net = parity.converted(made("two-random"))
    S = 48
    attn = net.encoder.blocks[0].attn
    seen = attn.plan.times(S, False)[0]
    assert seen[1:-1, 0].tolist() == [3.0] * 10 and seen[[0, -1]].tolist() == [[1.0] * 12] * 2
    q = torch.zeros(1, 2, S, 6, dtype=torch.float64)
    weights = attn.weights(q, q, Allowed.of(Full(), torch.ones(1, S, dtype=torch.bool)), None)
    near = torch.zeros(S)
    near[:4] = 3
    near[16:28] = near[44:] = 1  # of token 20: blocks 4, 5, 6 and the last
    assert_close(weights[0, 0, 20].float(), near / near.sum())


@pytest.mark.parametrize(
    ("S", "more"),
    [
        (40, {}),
        (50, {"num_random_blocks": 2}),
        (61, {"num_random_blocks": 3, "block_size": 3}),
        (1024, {"block_size": 64, "max_position_embeddings": 1024}),
        (1000, {"block_size": 64, "max_position_embeddings": 1536, "num_random_blocks": 2}),
        (3072, {"block_size": 128, "max_position_embeddings": 3072}),
    ],
)
def test_training_draws_the_same_blocks(S, more):
    """In training mode, without dropout: the same states, whatever plan the length asks for."""
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    sizes = {"max_position_embeddings": 64, "num_hidden_layers": 3} if S < 64 else {"num_hidden_layers": 1}  # fmt: skip
    model = parity.reference(theirs.BigBirdModel, small(**sizes | still | more)).train()
    _, config, net = parity.converted(model)
    b = batch_for(config, (S, S // 2) if S < 64 else (S - 7,), 6)
    with torch.no_grad():
        ours = net.train().encode(b).states
        want = model.train()(**inputs(b)).last_hidden_state
    assert parity.largest(ours, want, b.keep) < 1e-10


def test_other_layers_draw_other_blocks():
    plans = [
        Plan(size=4, random=2, n_heads=2, seed=i, max_positions=4096).table(80, True)
        for i in (0, 0, 1)
    ]
    assert torch.equal(plans[0], plans[1]) and not torch.equal(plans[0], plans[2])
    assert int(draws(Plan(size=4, random=2, n_heads=2, seed=0, max_positions=9), 20).max()) < 9


def test_the_padded_batch_decides():
    """A text of 29 tokens sees another last block in a longer batch; up to 28 tokens a batch is computed in full."""
    _, config, net = parity.converted(made("mlm"))
    b = batch_for(config, (29, 60), 6)
    cut = Batch(b.source[:1, :29], b.keep[:1, :29], segment=b.segment[:1, :29])
    with torch.no_grad():
        together, alone = net.logits(b)[:1, :29], net.logits(cut)
    assert float((together - alone).abs().max()) > 1e-6


def test_too_few_blocks_to_draw_are_named():
    config = configure({"family": "bigbird", "vocab_size": V, "d_model": 4, "n_heads": 1} | {"n_layers": 1, "d_ff": 4, "block": 204, "max_positions": 4096})  # fmt: skip
    with pytest.raises(ConfigError, match="fewer than 3"):
        draws(replace(config.plan(0), size=256), 16)


# ---- fast and slow


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("S", "size", "r"), [(45, 4, 2), (64, 4, 3), (30, 1, 2), (100, 8, 1)])
def test_gathered_blocks_equal_the_definition(S, size, r, training):
    """Values and gradients, with padding and a row that is padding alone."""
    plan = Plan(size=size, random=r, n_heads=3, seed=2, max_positions=128)
    g = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(3, 3, S, 5, generator=g, dtype=torch.float64).requires_grad_() for _ in "qkv"
    )
    keep = torch.arange(S) < torch.tensor([[S], [S // 2], [0]])
    each = plan.times(S, training).double()
    wide = each.repeat_interleave(size, 1).repeat_interleave(size, 2)[:, :S, :S]
    allowed = Allowed.of(Full(), keep)
    pairs = allowed.dense() & (wide > 0)
    slow = kernels.softmax(kernels.scores(q, k, bias=None, scale=0.3) + wide.log(), pairs) @ v
    fast = gathered(q, k, v, keep, plan.table(S, training), size, 0.3)
    assert parity.largest(fast.transpose(1, 2), slow.transpose(1, 2), keep) < 1e-12
    weight = torch.randn(slow.shape, generator=g, dtype=torch.float64) * keep[:, None, :, None]
    for a, b in zip(
        torch.autograd.grad((slow * weight).sum(), (q, k, v)),
        torch.autograd.grad((fast * weight).sum(), (q, k, v)),
        strict=True,
    ):
        assert_close(a, b, atol=1e-12, rtol=0)
        assert bool(b.isfinite().all())


def test_marked_tokens_see_and_are_seen_by_all():
    _, config, net = parity.converted(made("mlm"))
    b = batch_for(config, (40, 33), 6)
    marked = torch.zeros_like(b.keep)
    marked[:, 21] = True
    with torch.no_grad(), record(net) as maps:
        net.encode(replace(b, marked=marked))
    seen = maps["encoder.blocks.0.attn"] > 0
    assert bool(seen[:, :, 21][b.keep[:, None].expand(-1, 2, -1)].all())
    assert bool(seen[0, :, :, 21].all()) and not bool(seen[0, :, 10, 30].any())


# ---- questions


def test_a_question_is_the_first_segment_and_holds_no_answer():
    model = made("span")
    _, config, net = parity.converted(model)
    rows = [[3, 7, 8, 5, *range(6, 40), 5], [3, 7, 8, 9, 10, 5, 11, 5], [3, 7, 9, 11]]
    ids, keep = pad(rows, 0)
    with torch.no_grad():
        ours = net.logits(Batch(ids, keep))
        want = logits_of("span", model(input_ids=ids, attention_mask=keep.long()))
    assert parity.largest(ours, want, keep) < 1e-9
    assert bool((ours[0, 1:4] < -9e5).all()) and bool((ours[0, [0, 4]] > -1e3).all())
    assert net.prepare(Batch(ids, keep)).segment[1].tolist()[:8] == [0] * 6 + [1] * 2


# ---- files as they are found


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"is_decoder": True}, "is_decoder"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"attention_type": "sparse"}, "attention_type"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"block_size": 0}, "blocks of 0"),
        ({"num_random_blocks": 1.5}, "num_random_blocks"),
        ({"hidden_act": "laplace"}, "hidden_act"),
        ({"global_blocks": 2}, "global_blocks"),
    ],
    ids=str,
)
def test_what_is_not_computed_is_named(values, said):
    with pytest.raises(ConfigError, match=said):
        hf.configured(bigbird, small().to_dict() | values)


@pytest.mark.parametrize("name", ["BigBirdForMultipleChoice", "BigBirdForCausalLM"])
def test_unknown_heads_are_named(name):
    with pytest.raises(WeightsError, match=name):
        hf.configured(bigbird, small().to_dict() | {"architectures": [name]})


def test_absent_keys_have_their_defaults():
    short = hf.configured(bigbird, {"model_type": "big_bird"})
    assert short == hf.configured(bigbird, theirs.BigBirdConfig().to_dict())


def test_a_file_may_lack_a_pooler_that_nothing_reads():
    model = made("classes")
    module, config, _ = parity.converted(model)
    held = {k: v for k, v in model.state_dict().items() if "pooler" not in k}
    fit = hf.fitted(module, config, held)
    assert fit.has_pooler is False and config.has_pooler
    assert hf.ours(module, fit, held).keys() == state_of(build(fit)).keys()


# ---- our own


def fresh(**more: Any) -> tuple[bigbird.BigBirdConfig, Any]:
    torch.manual_seed(0)
    config = configure({"family": "bigbird", "size": "tiny", "vocab_size": V, **more})
    return config, build(config).eval()


def test_describe_and_configure_are_inverse():
    config, _ = fresh(sparse="blocks", head="classes", labels=["a", "b"], head_dropout=0.2)
    assert configure(describe(config)) == config


def test_without_quirks_neighbours_change_nothing_and_training_sees_what_eval_sees():
    config, net = fresh(sparse="blocks", block=4, random=2, dropout=0.0)
    b = batch_for(config, (29, 60), 6)
    cut = Batch(b.source[:1, :29], b.keep[:1, :29], segment=b.segment[:1, :29])
    with torch.no_grad():
        with record(net) as maps:
            together = net.logits(b)[:1, :29]
        alone = net.logits(cut)
        assert_close(together, alone, atol=1e-5, rtol=0)  # float32: other shapes of the same sums
        assert_close(net.train().logits(b)[:1, :29], together, atol=1e-5, rtol=0)
    seen = maps["encoder.blocks.0.attn"][0, 0] > 0
    assert int(seen[20, :60:4].sum()) < 9 and bool(seen[20, :4].all())
    assert hf.configured(bigbird, bigbird.to_hf(config)) != config  # saved as ours


def test_parts_of_an_embedding_are_dropped_before_its_norm():
    """So what comes out still has mean 0 and variance 1."""
    _, net = fresh(dropout=0.5)
    x = net.train().embed(torch.arange(40)[None] % V).detach()
    assert_close(x.mean(-1), torch.zeros(1, 40), atol=1e-5, rtol=0)
    assert_close(x.var(-1, unbiased=False), torch.ones(1, 40), atol=1e-3, rtol=0)


@pytest.mark.parametrize("head", ["mlm", "pretraining", "classes", "tags", "span"])
def test_one_batch_is_learned_by_heart(head):
    labels = ["a", "b", "c"] if head in ("classes", "tags") else []
    config, net = fresh(head=head, labels=labels, d_model=32, block=2, random=1, dropout=0.0)
    b, steps = batch_for(config, (7, 1, 16, 12), 6), []
    if head == "span":
        b = replace(b, label=torch.tensor([[3, 5], [0, 0], [2, 9], [6, 6]]))
    optim = torch.optim.Adam(net.train().parameters(), 5e-3)
    for _ in range(40):
        terms = [term_loss(t) for t in terms_of(net.loss_inputs(b))]
        loss = sum((t.smoothed / t.tokens for t in terms), torch.zeros(()))
        optim.zero_grad(), loss.backward(), optim.step()
        steps.append(float(loss.detach()))
    assert steps[-1] < 0.1 * steps[0]
