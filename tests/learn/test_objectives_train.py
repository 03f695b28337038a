"""Every objective trains a net of its kind by the one loop; pre-training stopped at any step is the uninterrupted one."""

import math

import pytest
import torch
from learn_tiny import Memory, bits, trainer

from qkv.data.objectives import OBJECTIVES, Specials, feed
from qkv.data.records import Record
from qkv.data.report import SkipReport
from qkv.errors import Interrupted
from qkv.models import build, configure
from qkv.models.interface import state_of
from qkv.text import TextConfig, train

LINES = [f"the {a} {b}. a {b} saw {c}! so {a} {c} left" for a in ("cat", "dog") for b in ("ran", "sat", "hid") for c in ("me", "it", "us")]  # fmt: skip
TEXTS = [{"text": " ".join(LINES[i : i + 3])} for i in range(16)]
ENCODER = {"family": "bert", "d_model": 16, "n_heads": 2, "n_layers": 1, "max_positions": 64, "dropout": 0.1}  # fmt: skip
DECODER = {"family": "gpt2", "d_model": 16, "n_heads": 2, "n_layers": 1, "max_positions": 64}
BOTH = {"family": "transformer", "d_model": 16, "n_heads": 2, "d_ff": 32, "encoder_layers": 1, "decoder_layers": 1}  # fmt: skip
SPAN = [{"context": line, "question": "who left", "answers": [{"text": "so", "answer_start": line.index("so ")}]} for line in LINES]  # fmt: skip
CASES = {
    "lm": (TEXTS, {"context": 32}, DECODER, {}),
    "windows": (TEXTS, {"context": 32}, DECODER, {}),
    "chat": ([{"question": x[:14], "answer": x[14:]} for x in LINES], {}, DECODER, {}),
    "mlm": (TEXTS, {"max_tokens": 32}, ENCODER, {"head": "mlm"}),
    "nsp": (TEXTS, {"max_tokens": 40}, ENCODER, {"head": "pretraining"}),
    "classify": ([{"text": x, "label": x[4:7]} for x in LINES], {}, ENCODER, {"head": "classes", "labels": ("cat", "dog")}),
    "regress": ([{"text": x, "label": float("dog" in x)} for x in LINES], {}, ENCODER, {"head": "classes", "labels": ("v",), "problem": "value"}),
    "tag": ([{"text": x, "spans": [{"start": 4, "end": 7, "kind": "A"}]} for x in LINES], {}, ENCODER, {"head": "tags", "labels": ("O", "B-A", "I-A")}),
    "answer": (SPAN, {"max_tokens": 24, "stride": 8}, ENCODER, {"head": "span"}),
    "contrast": ([{"text": x, "pair": x.upper()} for x in LINES], {}, ENCODER, {"head": "none"}),
    "spans": (TEXTS, {"max_tokens": 32}, BOTH, {}),
    "infill": (TEXTS, {"max_tokens": 32}, BOTH, {}),
}  # fmt: skip


def made(name):
    """(net, stream) of an objective."""
    values, settings, family, head = CASES[name]
    tok = train(LINES, TextConfig(kind="bpe", vocab_size=300))
    V = tok.vocab_size
    specials = Specials(bos=1, eos=2, cls=V, sep=V + 1, mask=V + 2, sentinels=tuple(range(V + 3, V + 40)), vocab_size=V)  # fmt: skip
    report = SkipReport()
    records = [Record(v, f"memory:{i}") for i, v in enumerate(values, 1)]
    for _ in records:
        report.use()
    o = OBJECTIVES[name]
    task = o.build(o.config(**settings), records, tok, specials, report)
    torch.manual_seed(0)
    net = build(configure({**family, **head, "vocab_size": V + 40}))
    return net, feed(task, 256, 1)


def run(name, keeper=None, **settings):
    net, stream = made(name)
    return trainer(
        keeper, net, stream=stream, validate=lambda net, step: {"dev/loss": 1.0}, **settings
    )


@pytest.mark.parametrize("name", CASES)
def test_every_objective_trains_and_its_loss_falls(name):
    t = run(name, steps=40, warmup=1, lr=0.02, smoothing=0.0, accumulate=2)
    batches = t.micro_batches(2)
    before, _ = t.gradients(1, batches)
    t.optimizer.zero_grad(set_to_none=True)
    t.fit()
    losses = list(t.keeper.logged("train/loss").values())
    after, _ = t.gradients(1, batches)
    assert len(losses) == 40 and all(map(math.isfinite, losses))
    assert after < 0.9 * before


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_pretraining_resumed_is_pretraining_uninterrupted(stop):
    whole = run("nsp", accumulate=2)
    whole.fit()
    keeper, steps = Memory(), iter(range(1, 100))
    with pytest.raises(Interrupted):
        run(
            "nsp", keeper, accumulate=2, stop=lambda: "SIGINT" if next(steps) == stop else None
        ).fit()
    again = run("nsp", keeper, accumulate=2)
    again.fit()
    assert bits(state_of(again.net)) == bits(state_of(whole.net))
    assert keeper.logged("train/nll/token") == whole.keeper.logged("train/nll/token")
    assert len(keeper.logged("train/loss")) == 8


def test_a_packed_document_is_answered_as_if_it_stood_alone():
    """The group of a packed row reaches the net: the loss of a row is that of its documents, one by one."""
    net, stream = made("lm")
    net.double().eval()
    batch = stream.batch(0)
    whole = net.logits(batch)
    for r in range(2):
        for g in batch.group[r][batch.keep[r]].unique().tolist():
            at = (batch.group[r] == g) & batch.keep[r]
            alone = type(batch)(batch.source[r : r + 1, at], batch.keep[r : r + 1, at])
            # float64; sums of another length: 1e-15 of scale, 1e-12 allowed
            torch.testing.assert_close(whole[r, at], net.logits(alone)[0], atol=1e-12, rtol=0)
