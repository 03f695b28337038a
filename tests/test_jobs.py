"""Recipes of every objective: a few steps from a file to a model folder that does its work."""

import json
import random

import numpy as np
import pytest
import torch

import qkv
from qkv.errors import ConfigError, DataError, UsageError, WeightsError
from qkv.jobs import prepare
from qkv.learn import scores
from qkv.learn.loop import Note
from qkv.model import Model
from qkv.models import FAMILIES, build, configure, hf
from qkv.models.interface import state_of
from qkv.readings import Habits
from qkv.recipe import MEASURES, PICTURES, Recipe

NAMES, PLACES = ("Mina", "Jun", "Sora", "Tae"), ("Seoul", "Busan", "Jeju", "Daegu")
TINY = {"d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 16, "max_positions": 64}


def sentences(n, seed=0):
    rng = random.Random(seed)
    return [
        f"{rng.choice(NAMES)} {rng.choice(('likes', 'hates'))} {rng.choice(PLACES)} ."
        for _ in range(n)
    ]


def examples(kind, n=60):
    """Records of an objective, made by rule."""
    texts = sentences(n)
    if kind == "classify":
        return [{"text": s, "label": "good" if "likes" in s else "bad"} for s in texts]
    if kind == "regress":
        return [
            {"text": s, "pair": o, "label": float(s == o)}
            for s, o in zip(texts, texts[::-1], strict=True)
        ]
    if kind == "tag":
        return [
            {"text": s, "spans": [{"start": 0, "end": s.index(" "), "kind": "PS"}]} for s in texts
        ]
    if kind == "answer":
        return [
            {
                "context": s,
                "question": "Who?",
                "answers": [{"text": s.split()[0], "answer_start": 0}],
            }
            for s in texts
        ]
    if kind == "contrast":
        return [{"text": s, "pair": s.replace("likes", "loves")} for s in dict.fromkeys(texts)]
    if kind == "chat":
        return [{"question": s, "answer": "Yes ."} for s in texts]
    return [{"text": f"{a} {b}"} for a, b in zip(texts, texts[1:], strict=False)]


FIELDS = {
    "classify": ("text", "label"),
    "regress": ("text", "pair", "label"),
    "tag": ("text", "spans"),
    "answer": ("context", "question", "answers"),
    "contrast": ("text", "pair"),
    "chat": ("question", "answer"),
}
FAMILY = {"lm": "gpt2", "windows": "gpt2", "chat": "gpt2", "spans": "t5", "infill": "bart"}


# drawn anew every time: up to these, whatever the texts are
ROOM = {"lm": {"context": 16}, "windows": {"context": 16}, "nsp": {"max_tokens": 64}}


def recipe(kind, folder, **changes):
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in examples(kind)), "utf-8")
    family = FAMILY.get(kind, "bert")
    sizes = {"size": "tiny"} if family in ("t5", "bart") else TINY
    values = {
        "name": kind,
        "objective": {"kind": kind} | ROOM.get(kind, {}),
        "data": {
            "train": {"path": str(path), "fields": {f: f for f in FIELDS.get(kind, ("text",))}},
            "holdout": 0.3,
        },
        "text": {"kind": "words", "vocab_size": 200},
        "model": {"family": family, **sizes},
        "train": {"steps": 2, "batch_tokens": 256, "eval_every": 2, "save_every": 2},
    }
    return values | changes


@pytest.mark.parametrize(
    "kind", [k for k in MEASURES if k != "windows" and k not in PICTURES] + ["nsp"]
)
def test_every_objective_goes_from_a_file_to_a_model_folder(kind, tmp_path):
    run = qkv.train(recipe(kind, tmp_path), root=tmp_path / "runs")
    found = run.to_dict()["best"]
    assert all(f"dev/{name}" in found for name in ("loss", *MEASURES.get(kind, ())))
    model = run.best()
    again = tmp_path / "again"
    model.save(again)
    loaded = qkv.load(again, device="cpu")
    assert type(loaded.config) is type(model.config)
    assert hf.theirs(FAMILIES[model.family], model.config, state_of(model.net)).keys() == {
        *hf.theirs(FAMILIES[model.family], loaded.config, state_of(loaded.net))
    }
    told = json.loads((again / "config.json").read_text())
    assert told["model_type"] == model.family  # what transformers has is saved as it has it
    ids = torch.tensor([[5, 6, 7]])
    target = ids if kind in ("spans", "infill") else None
    if kind != "contrast":  # it has no head
        assert torch.equal(loaded.logits(ids, target=target), model.logits(ids, target=target))


def test_a_window_of_one_long_text_needs_a_dev_part(tmp_path):
    path = tmp_path / "play.txt"
    path.write_text("\n".join(sentences(80)), "utf-8")
    source = {"path": str(path), "format": "text", "unit": "file"}
    values = recipe("lm", tmp_path) | {
        "objective": {"kind": "windows", "context": 16},
        "data": {"train": source},
    }
    with pytest.raises(DataError) as e:
        qkv.train(values, root=tmp_path / "runs")
    assert e.value.code == "QKV-032" and "data.dev" in e.value.fix
    values["data"] = {
        "train": source | {"part": [0.0, 0.9]},
        "dev": source | {"part": [0.9, 1.0]},
    }
    run = qkv.train(values, root=tmp_path / "runs")
    assert run.to_dict()["best"]["dev/perplexity"] > 1


def test_what_transformers_cannot_say_is_saved_in_our_own_form(tmp_path):
    values = recipe("lm", tmp_path)
    values["model"] |= {"bias": False}
    model = qkv.train(values, root=tmp_path / "runs").best()
    assert not model.config.bias and model.net.decoder.blocks[0].attn.q.bias is None
    assert json.loads((model.folder / "config.json").read_text())["model_type"] == "qkv-gpt2"
    values["model"]["bias"] = True
    model = qkv.train(values, root=tmp_path / "runs").best()
    assert json.loads((model.folder / "config.json").read_text())["model_type"] == "gpt2"


def test_a_performer_goes_on_with_other_features_or_none(tmp_path):
    """Features are drawn, not learned: weights learned with some are used with others (Choromanski et al. 2021, section 4.2)."""
    values = recipe("classify", tmp_path, model=TINY | {"family": "performer", "features": 16})
    start = qkv.train(values, root=tmp_path / "runs")
    for model, n in (({"exact": True}, 0), ({"features": 24}, 24), ({"dropout": 0.0}, 16)):
        made = qkv.train(values | {"from": str(start.folder), "model": model, "optim": {"lr": 1e-9}}, root=tmp_path / "more").best()  # fmt: skip
        state, before = state_of(made.net), state_of(start.best().net)
        drawn = [x.shape[0] for name, x in state.items() if name.endswith(".features")]
        assert drawn == ([n] if n else [])
        name = "encoder.blocks.0.attn.q.weight"
        torch.testing.assert_close(state[name], before[name], atol=1e-6, rtol=0)


def test_a_model_of_ids_is_saved_and_loaded_in_our_own_form_too(tmp_path):
    config = configure({"family": "bert", "vocab_size": 20, **TINY, "pattern": "window(2)"})
    torch.manual_seed(0)
    net = build(config).eval()
    Model(net, None, config).save(tmp_path / "own")
    again, ids = qkv.load(tmp_path / "own", device="cpu"), torch.arange(12)[None]
    assert again.config == config and not again.has_tokenizer
    assert torch.equal(again.logits(ids), Model(net, None, config).logits(ids))


def test_labels_are_learned_from_train_and_kept_with_the_model(tmp_path):
    values = recipe("classify", tmp_path)
    values["train"] |= {"steps": 60, "eval_every": 60, "save_every": 60, "metric": "dev/accuracy"}
    values["optim"] = {"lr": 1e-2, "warmup": 5, "schedule": "constant"}
    run = qkv.train(values, root=tmp_path / "runs")
    model = run.best()
    assert model.config.labels == ("bad", "good")
    assert run.to_dict()["best"]["dev/accuracy"] == 100.0  # one word decides
    assert model.classify("Mina likes Jeju .").label == "good"
    found = qkv.evaluate(model, tmp_path / "data.jsonl")
    assert found["scores"]["accuracy"] == 100.0 and found["examples"] == 60
    assert [c.label for c in model.classify(["Jun hates Seoul .", "Sora likes Busan ."])] == [
        "bad",
        "good",
    ]


@pytest.mark.parametrize(
    "change,code,guess",
    [
        ({"objective": {"kind": "classfy"}}, "QKV-012", "classify"),
        ({"objective": {"kind": "classify", "max_token": 3}}, "QKV-010", "max_tokens"),
        ({"objective": {"context": 3}}, "QKV-010", "translate"),
        ({"train": {"metric": "dev/bleu"}}, "QKV-013", "dev/accuracy"),
    ],
)
def test_mistakes_in_an_objective_are_met_with_a_guess(change, code, guess, tmp_path):
    values = recipe("classify", tmp_path) | change
    if "context" in change.get("objective", {}):
        values["data"] = {"train": {"path": "x.tsv"}}
    with pytest.raises(ConfigError) as e:
        Recipe.read(values)
    assert e.value.code == code and guess in str(e.value)


def test_sub_word_sampling_is_taken_or_refused_never_ignored(tmp_path):
    def prepared(kind):
        values = recipe(kind, tmp_path) | {
            "text": {"kind": "bpe", "vocab_size": 320, "sample_alpha": 0.5}
        }
        return prepare(Recipe.read(values))

    first, second = (prepared("classify").stream().batch(step).source for step in (0, 40))
    assert first.shape != second.shape or not torch.equal(first, second)
    with pytest.raises(ConfigError, match="cuts a text once") as e:
        prepared("mlm")
    assert e.value.code == "QKV-013"


# -- scores


def test_scores_of_small_cases_worked_by_hand():
    assert scores.accuracy("aabb", "aaab") == 75.0
    # a: tp 2, fn 1 -> 4/5; b: tp 1, fp 1 -> 2/3
    assert scores.macro_f1("aabb", "aaab") == pytest.approx(100 * (4 / 5 + 2 / 3) / 2)
    assert scores.spans([{1, 2}, {3}], [{1}, {4}]) == {
        "precision": pytest.approx(100 / 3),
        "recall": 50.0,
        "f1": pytest.approx(40.0),
    }
    assert scores.answers(["the cat"], [["Cat!", "dog"]]) == {"exact": 100.0, "f1": 100.0}
    assert scores.answers(["U.S. well-known"], [["us wellknown"]])["exact"] == 100.0
    assert scores.answers(["a b c", ""], [["b d"], []])["f1"] == pytest.approx(
        100 * (2 / 4 + 1) / 2
    )


def test_to_find_the_same_text_again_is_no_feat():
    """Three paraphrases, each beside another; a net that only knows equal texts finds none of them."""
    rows = {"x": [1, 0, 0.1], "y": [0, 1, 0], "z": [0, 0.1, 1], "w": [0.9, 0.5, 0.6]}
    said = [("x", "y"), ("y", "z"), ("z", "x"), ("w", "w")]
    a, b = (np.array([rows[pair[side]] for pair in said]) for side in (0, 1))
    assert scores.recall_at_1(a, b, [0, 0, 0, 1]) == 100.0
    assert scores.recall_at_1(a, b, [0, 0, 0, 1], said) == 25.0


def test_correlations_equal_scipys():
    stats = pytest.importorskip("scipy.stats", reason="scipy is the reference")
    rng = random.Random(0)
    x, y = ([rng.randint(0, 9) for _ in range(50)] for _ in range(2))
    assert scores.pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert scores.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize(
    "kind, model, seen",
    [
        ("classify", {"family": "gpt2", "size": "nano"}, "a head 'classes'"),
        ("classify", {"family": "bert", **TINY, "head": "tags"}, "a head 'classes'"),
        ("infill", {"family": "bert", **TINY}, "an encoder-decoder"),
        ("spans", {"family": "gpt2", "size": "nano"}, "an encoder-decoder"),
        ("mlm", {"family": "t5", "size": "tiny"}, "a head 'mlm'"),
        ("lm", {"family": "bert", **TINY}, "a decoder alone"),
        ("chat", {"family": "bart", "size": "tiny"}, "a decoder alone"),
    ],
)
def test_a_family_that_cannot_do_what_is_asked_is_told_before_a_step(tmp_path, kind, model, seen):
    with pytest.raises(ConfigError, match=seen) as e:
        qkv.train(recipe(kind, tmp_path, model=model), root=tmp_path / "runs")
    assert e.value.code == "QKV-013" and e.value.place and e.value.fix


def test_what_dev_loses_is_told_and_its_errors_name_it(tmp_path):
    values = recipe("classify", tmp_path)
    dev = tmp_path / "dev.jsonl"
    known = next(r for r in examples("classify"))
    dev.write_text(json.dumps(known) + "\n" + json.dumps({"text": "x", "label": "new"}) + "\n")
    values["data"]["dev"] = values["data"]["train"] | {"path": str(dev)}
    said: list = []
    qkv.train(values, root=tmp_path / "runs", listen=said.append)
    assert any("1 of 2 of dev" in str(event) for event in said)
    dev.write_text(json.dumps({"text": "x", "label": "new"}) + "\n")
    with pytest.raises(DataError, match="1 unknown label") as e:
        qkv.train(values, root=tmp_path / "runs")
    assert e.value.place == str(dev)


@pytest.mark.parametrize(
    "kind, left_out", [("contrast", "pair"), ("classify", "label"), ("tag", "spans")]
)
def test_a_field_that_an_objective_needs_is_asked_for(tmp_path, kind, left_out):
    """Without its group every text of `contrast` would be of one group, and the loss 0."""
    values = recipe(kind, tmp_path)
    del values["data"]["train"]["fields"][left_out]
    with pytest.raises(ConfigError) as e:
        qkv.train(values, root=tmp_path / "runs")
    assert e.value.code == "QKV-015" and left_out in str(e.value)


@pytest.mark.parametrize(
    "kind, asked, want",
    [
        ("tag", {"on": "words"}, Habits(on="words", agreed=True)),
        ("classify", {"window": 8, "max_tokens": 0}, Habits(window=8, texts=1)),
        ("classify", {"max_tokens": 60}, Habits(longest=60, texts=1)),
        ("regress", {}, Habits(texts=2, longest=128)),
        ("nsp", {"max_tokens": 64}, Habits(texts=2)),
    ],
)
def test_a_model_reads_as_it_learned_to_read(tmp_path, kind, asked, want):
    values = recipe(kind, tmp_path)
    values["objective"] = {"kind": kind} | asked
    values["train"] |= {"steps": 2, "eval_every": 2, "save_every": 2}
    model = qkv.train(values, root=tmp_path / "runs").best()
    model.save(tmp_path / "elsewhere")
    assert model.habits == qkv.load(tmp_path / "elsewhere").habits == want
    text = "Mina likes Seoul . " * 4
    if kind == "tag":
        assert model.tag(text) == model.tag(text, on="words")
    elif want.texts == 2:
        assert model.classify((text, text)).score
        with pytest.raises(UsageError, match="text 0 is one text, the model learned from pairs"):
            model.classify(text)
    else:
        with pytest.raises(UsageError, match="text 1 is a pair"):
            model.classify([text, (text, text)])
        assert model.classify(text).score == model.classify(text, window=want.window).score
        whole = model.classify(text).score == model.classify(text, window=0).score
        assert whole == (not want.window)


def test_a_conversation_goes_on_as_it_was_learned(tmp_path):
    template = {"start": "", "roles": {"user": ["Q ", " \n"], "assistant": ["A ", "{eos}"]}}
    values = recipe("chat", tmp_path)
    values["objective"] |= {"template": template, "max_tokens": 48}
    values["train"] |= {"steps": 80, "eval_every": 80, "save_every": 80}
    values["optim"] = {"lr": 1e-2, "warmup": 5, "schedule": "constant"}
    model = qkv.train(values, root=tmp_path / "runs").best()
    assert model.template is not None and list(model.template.roles["user"]) == ["Q ", " \n"]
    answer = model.chat("Mina likes Seoul .", max_new_tokens=8)
    assert answer.text.strip() == "Yes ." and answer.finished
    turns = [("user", "Mina likes Seoul ."), ("assistant", "Yes ."), ("user", "Jun hates Jeju .")]
    assert "".join(model.chat(turns, max_new_tokens=8, stream=True)).strip() == "Yes ."
    # the oldest turns are forgotten: the answer is that to the newest alone
    many = [*turns[:2]] * 20 + turns[2:]
    assert model.chat(many, max_new_tokens=8).finished
    with pytest.raises(DataError) as e:
        model.chat("Mina " * 80, max_new_tokens=8)
    assert e.value.code == "QKV-037"
    with pytest.raises(DataError):
        model.chat([])


def test_another_family_or_size_than_that_of_from_is_an_error(tmp_path):
    """Else another model is trained than the recipe says."""
    start = qkv.train(recipe("mlm", tmp_path), root=tmp_path / "runs").folder
    for model, said in (
        ({"family": "longformer"}, "model.family = 'longformer'.*is a bert"),
        ({"size": "tiny"}, "model.size = 'tiny' has n_layers = 2"),
        ({"family": "bert", "size": "base", "d_model": 16}, "model.size = 'base' has n_"),
    ):
        values = recipe("classify", tmp_path, model=model) | {"from": str(start)}
        with pytest.raises(ConfigError, match=said) as e:
            qkv.train(values, root=tmp_path / "runs")
        assert e.value.code == "QKV-013" and "from" in e.value.fix
    values["model"] = TINY | {"family": "bert", "size": "tiny"}  # what it has is said, too
    qkv.train(values, root=tmp_path / "runs")


@pytest.mark.parametrize("sparse", ["published", "blocks"])
def test_what_dev_measures_are_the_model_s_own_answers(sparse, tmp_path):
    """Published BigBird sees padding: rows of one padded length stand together there as well as here."""
    values = recipe("classify", tmp_path)
    rng = random.Random(0)
    rows = [{"text": " ".join(rng.choices("abcdefgh", k=rng.randrange(3, 200))), "label": rng.choice("xy")} for _ in range(40)]  # fmt: skip
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    values["objective"]["max_tokens"] = 0
    values["model"] = TINY | {"family": "bigbird", "block": 16, "random": 1, "sparse": sparse, "max_positions": 512}  # fmt: skip
    values["train"]["batch_tokens"] = 2048
    model = qkv.train(values, root=tmp_path).best()
    torch.manual_seed(0)
    for p in model.net.parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=0.7)
    answers = model.classify([r["text"] for r in rows])
    right = [next(x.score for x in a.labels if x.name == r["label"]) for a, r in zip(answers, rows, strict=True)]  # fmt: skip
    found = qkv.evaluate(model, path)["scores"]
    hits = sum(a.label == r["label"] for a, r in zip(answers, rows, strict=True))
    assert found["accuracy"] == pytest.approx(100 * hits / len(rows))
    # logarithms of probabilities in float32
    assert found["loss"] == pytest.approx(-np.mean(np.log(right)), rel=1e-4)


def test_a_pre_trained_encoder_keeps_its_weights_under_a_new_head(tmp_path):
    before = qkv.train(recipe("mlm", tmp_path), root=tmp_path / "runs").best()
    notes = []
    values = recipe("classify", tmp_path, **{"from": str(tmp_path / "runs" / "mlm-1")})
    values["model"] = {"dropout": 0.0}
    values["train"]["steps"] = 1
    values["optim"] = {"lr": 1e-9}
    run = qkv.train(values, root=tmp_path / "runs", listen=notes.append)
    after = run.best()
    said = " ".join(n.text for n in notes if isinstance(n, Note))
    assert said.endswith(": head.classes.out, pooler.dense")
    assert after.config.head == "classes" and after.config.labels == ("bad", "good")
    assert after.tokenizer.fingerprint == before.tokenizer.fingerprint
    a, b = (m.net.encoder.blocks[0].attn.q.weight for m in (before, after))
    torch.testing.assert_close(a, b, atol=1e-7, rtol=0)  # one step at a learning rate of 1e-9
    with pytest.raises(WeightsError):
        qkv.train(values | {"model": {"d_model": 32}}, root=tmp_path / "runs")
