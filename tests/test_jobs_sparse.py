"""Recipes that train Longformer and BigBird: from a file to a folder that transformers loads, where it can say all of it."""

import json

import pytest
import torch
import transformers as theirs

import qkv
from qkv.errors import DataError
from test_jobs import recipe

SMALL = {"d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 16, "max_positions": 64}
FAMILIES = {
    "longformer": {"family": "longformer", "window": 4},
    "bigbird": {"family": "bigbird", "block": 2, "random": 1},
    "bigbird-blocks": {"family": "bigbird", "block": 2, "random": 1, "sparse": "blocks"},
}
SAVED = {"longformer": "longformer", "bigbird": "big_bird", "bigbird-blocks": "qkv-bigbird"}
CLASSES = {
    "classify": "ForSequenceClassification",
    "mlm": "ForMaskedLM",
    "tag": "ForTokenClassification",
    "answer": "ForQuestionAnswering",
}


def trained(kind, name, folder, **changes):
    values = recipe(kind, folder, model=SMALL | FAMILIES[name], **changes)
    return qkv.train(values, root=folder / "runs")


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_recipe_makes_a_model_folder(kind, name, tmp_path):
    model = trained(kind, name, tmp_path).best()
    told = json.loads((model.folder / "config.json").read_text())
    assert told["model_type"] == SAVED[name]
    model.save(tmp_path / "again")
    loaded = qkv.load(tmp_path / "again", device="cpu")
    ids = torch.arange(4, 26).view(1, -1) % model.config.vocab_size
    ids[0, 0] = model.config.bos_id
    ids[0, [5, 21]] = model.config.eos_id
    assert torch.equal(loaded.logits(ids), model.logits(ids))
    if SAVED[name].startswith("qkv"):
        return
    cls = "Longformer" if name == "longformer" else "BigBird"
    other = getattr(theirs, cls + CLASSES[kind]).from_pretrained(tmp_path / "again").eval()
    given = {"input_ids": ids}
    if kind == "answer" and cls == "Longformer":  # theirs asks for three separators
        given["global_attention_mask"] = (torch.arange(22) < 5).long()[None]
    with torch.no_grad():
        out = other(**given)
    want = torch.stack([out.start_logits, out.end_logits], -1) if kind == "answer" else out.logits
    scale = float(want.abs().max()) if kind != "answer" else 1e6  # what a question's tokens lose
    assert float((model.logits(ids) - want).abs().max()) < 1e-5 * max(scale, 1.0)


@pytest.mark.parametrize("name", FAMILIES)
def test_classes_are_learned(name, tmp_path):
    changes = {
        "train": {"steps": 60, "batch_tokens": 256, "eval_every": 60, "save_every": 60},
        "optim": {"lr": 1e-2, "warmup": 5, "schedule": "constant"},
    }
    run = trained("classify", name, tmp_path, **changes)
    assert run.to_dict()["best"]["dev/accuracy"] == 100.0  # one word decides
    assert run.best().classify("Mina likes Jeju .").label == "good"


def test_marked_tokens_of_the_users_choice(tmp_path):
    model = trained("classify", "longformer", tmp_path).best()
    ids = torch.arange(4, 26).view(1, -1) % model.config.vocab_size
    first, none = (torch.zeros(1, 22, dtype=torch.bool) for _ in range(2))
    first[:, 0] = True
    assert torch.equal(model.logits(ids), model.logits(ids, marked=first))
    assert not torch.equal(model.logits(ids), model.logits(ids, marked=none))
    with pytest.raises(DataError, match="marked of shape"):
        model.logits(ids, marked=first[:, :3])
    text = "Mina likes Jeju . Jun hates Seoul ."
    score = {m: model.classify(text, marked=m).score for m in (None, (0,), (900,))}
    assert score[None] == score[0,] != score[900,]
    states = [model.embed(text, marked=m) for m in (None, (0,), range(9), (2,), ())]
    same = [[torch.equal(a, b) for b in states] for a in states]
    assert torch.equal(torch.tensor(same).sum(1), torch.tensor([2, 2, 1, 1, 1]))
