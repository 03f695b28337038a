"""Performer: near the softmax where features are many, an encoder or a decoder by its head, its features its own."""

import json

import pytest
import torch
from torch.testing import assert_close

import qkv
from qkv.errors import ConfigError, UsageError
from qkv.models import build, configure
from qkv.models.decoder import LanguageModel
from qkv.models.encoder import TextEncoder
from qkv.models.interface import set_state, state_of
from qkv.parts.favor import layers
from qkv.shapes import Batch, pad

SMALL = {"family": "performer", "vocab_size": 40, "d_model": 16, "n_layers": 2, "n_heads": 2}
SMALL |= {"d_ff": 24, "max_positions": 64, "dropout": 0.0}


def made(**more):
    torch.manual_seed(0)
    config = configure(SMALL | more)
    return build(config).eval(), config


def batch():
    rng = torch.Generator().manual_seed(3)
    rows = [torch.randint(4, 40, (n,), generator=rng).tolist() for n in (40, 7, 1)]
    return Batch(*pad(rows, 0))


@torch.no_grad()
@pytest.mark.parametrize("head", ["lm", "mlm"])
def test_with_many_features_it_is_nearly_the_softmax(head):
    """The same weights with and without the approximation: the states' difference falls as m^-½, an eighth for 64 times
    as many features, and is small."""
    exact, _ = made(head=head, exact=True)
    want, off = exact.encode(batch()).states[batch().keep], []
    for m in (32, 2048):
        net, _ = made(head=head, features=m)
        own = {k: v for k, v in state_of(net).items() if k.endswith("favor.features")}
        set_state(net, state_of(exact) | own)
        off.append(float((net.encode(batch()).states[batch().keep] - want).norm() / want.norm()))
    assert off[1] < off[0] / 4 and off[1] < 0.02


def test_the_head_says_whether_it_reads_or_writes():
    net, config = made()
    assert isinstance(net, LanguageModel) and config.causal
    net, config = made(head="classes", labels=("a", "b"))
    assert isinstance(net, TextEncoder) and not config.causal
    assert net.logits(batch()).shape == (3, 2)


def test_layers_have_features_of_their_own_and_the_seed_decides_them():
    a, b, c = (layers(made(features_seed=s)[0]) for s in (0, 0, 1))
    assert torch.equal(a[0].features, b[0].features)
    assert not torch.equal(a[0].features, a[1].features)
    assert not torch.equal(a[0].features, c[0].features)


@torch.no_grad()
def test_the_mean_of_a_text_leaves_padding_out():
    net, _ = made(head="classes", labels=("a", "b"), pooling="mean")
    memory = net.encode(batch())
    for row, keep in enumerate(batch().keep):
        assert_close(memory.summary[row], memory.states[row][keep].mean(0))


@torch.no_grad()
@pytest.mark.parametrize("positions", ["learned", "sinusoid", "rotary", "none"])
def test_long_prompts_go_on_as_one_pass_would(positions):
    """Prompts of several chunks and of one token: the next token's logits, float32 over two layers."""
    net, _ = made(positions=positions, max_positions=200)
    rng = torch.Generator().manual_seed(1)
    rows = [torch.randint(4, 40, (n,), generator=rng).tolist() for n in (150, 64, 3, 1)]
    given = Batch(*pad(rows, 0, 16))
    want = net.logits(given)
    got, state = net.step(net.first(given), net.start(given))
    last = given.keep.sum(1) - 1
    assert_close(got, want[torch.arange(4), last], atol=2e-5, rtol=0)
    more = torch.tensor([5, 6, 7, 8])
    got, state = net.step(more, state.reorder(torch.tensor([3, 0, 0, 2])))
    longer = Batch(*pad([rows[i] + [t] for i, t in zip((3, 0, 0, 2), more.tolist(), strict=True)], 0, 16))  # fmt: skip
    last = longer.keep.sum(1) - 1
    assert_close(got, net.logits(longer)[torch.arange(4), last], atol=2e-5, rtol=0)


@torch.no_grad()
def test_packed_documents_are_read_as_if_alone():
    net, _ = made(positions="rotary")
    rng = torch.Generator().manual_seed(2)
    rows = [torch.randint(4, 40, (n,), generator=rng).tolist() for n in (20, 3, 9)]
    group = torch.tensor([[i for i, row in enumerate(rows) for _ in row]])
    packed = Batch(torch.tensor([sum(rows, [])]), torch.ones(1, 32, dtype=torch.bool), group=group)
    got = net.logits(packed)[0].split([len(r) for r in rows])
    for row, logits in zip(rows, got, strict=True):
        assert_close(logits, net.logits(Batch(*pad([row], 0)))[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_steps_refuse_to_be_recorded_and_one_pass_does_not():
    net, _ = made()
    with qkv.record(net) as maps:
        net.logits(batch())
        assert len(maps) == 2
    with qkv.record(net), pytest.raises(UsageError, match="step by step"):
        net.start(batch())


def test_impossible_settings_are_named():
    with pytest.raises(ConfigError, match="no features to redraw"):
        configure(SMALL | {"exact": True, "redraw": 10})
    with pytest.raises(ConfigError, match="negative"):
        configure(SMALL | {"features": -1})
    with pytest.raises(ConfigError, match="labels"):
        configure(SMALL | {"head": "classes"})


# -- runs ---------------------------------------------------------------------------------------------------


def recipe(tmp_path, kind, **more):
    """Texts of 40 words, one of which decides; it stands at every thirteenth place, so that each window of 20 has it."""
    rows = []
    for i in range(24):
        words = [f"w{(i * 7 + j) % 9}" for j in range(40)]
        words[i % 13 :: 13] = [("good", "bad")[i % 2]] * len(words[i % 13 :: 13])
        rows.append({"text": " ".join(words), "label": ("good", "bad")[i % 2]})
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    fields = {"text": "text", "label": "label"} if kind == "classify" else {"text": "text"}
    source = {"path": str(tmp_path / "data.jsonl"), "fields": fields}
    train = {"steps": 60, "batch_tokens": 512, "eval_every": 60, "save_every": 20, "log_every": 20}
    small = {k: v for k, v in SMALL.items() if k != "vocab_size"} | {"features": 32}
    return {
        "name": kind,
        "data": {"train": source, "dev": source},
        "text": {"kind": "words", "vocab_size": 300},
        "objective": {"kind": kind},
        "model": small | {"d_model": 32},
        "optim": {"lr": 1e-2, "warmup": 5, "schedule": "constant"},
        "train": train | {"precision": "fp32"},
    } | more


def test_windows_of_a_document_are_learned_and_answer_together(tmp_path):
    values = recipe(tmp_path, "classify")
    values["objective"] |= {"max_tokens": 0, "window": 22, "stride": 10}
    values["train"] |= {"metric": "dev/accuracy"}
    values["model"] |= {"pooling": "mean"}
    run = qkv.train(values, root=tmp_path / "runs")
    model = run.best()
    assert run.to_dict()["best"]["dev/accuracy"] == 100.0
    found = qkv.evaluate(model, tmp_path / "data.jsonl")
    assert found["examples"] == 24
    from qkv.read import classify

    text = json.loads((tmp_path / "data.jsonl").read_text().partition("\n")[0])["text"]
    ids, frame = model.tokenizer.encode(text).ids, model.tokenizer
    rows = [[frame.bos_id, *ids[a : a + 20], frame.eos_id] for a in range(0, len(ids) - 10, 10)]
    with torch.no_grad():
        z = torch.stack([model.net.logits(Batch(*pad([r], 0, 16)))[0] for r in rows]).mean(0)
    want = dict(zip(model.config.labels, z.softmax(0).tolist(), strict=True))
    got = {x.name: x.score for x in classify(model, text, window=22, stride=10).labels}
    assert got == pytest.approx(want, abs=1e-6)
    with pytest.raises(ConfigError, match="window = 2"):
        classify(model, text, window=2)


def test_features_are_saved_redrawn_by_the_step_and_resumed(tmp_path):
    """Stopped at step 5 of 10 and taken up: the same features as without (law 9)."""
    values = recipe(tmp_path, "windows", objective={"kind": "windows", "context": 16})
    values["data"]["train"] = values["data"]["dev"] = {"path": str(tmp_path / "data.txt"), "unit": "file"}  # fmt: skip
    (tmp_path / "data.txt").write_text(" ".join(f"w{i * i % 11}" for i in range(400)))
    values["model"] |= {"redraw": 3}
    values["train"] |= {"steps": 10, "eval_every": 10, "save_every": 5}
    run = qkv.train(values, root=tmp_path / "a")
    model = run.best()
    first = layers(build(model.config))[0].features
    assert not torch.equal(layers(model.net)[0].features, first)
    half = json.loads(json.dumps(values))
    half["train"]["steps"] = 5
    folder = qkv.train(half, root=tmp_path / "b").folder
    went_on = qkv.train(folder, {"train.steps": 10}).folder
    last = [state_of(qkv.load(f / "last").net) for f in (run.folder, went_on)]
    names = [n for n in last[0] if n.endswith("favor.features")]
    assert names and all(torch.equal(last[0][n], last[1][n]) for n in names)
    assert "performer" in json.loads((run.folder / "best" / "config.json").read_text())["model_type"]  # fmt: skip
    values["train"] |= {"average": 3}
    with pytest.raises(ConfigError, match="a mean of draws is no draw"):
        qkv.train(values, root=tmp_path / "c")
