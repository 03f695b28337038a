"""The recipes of the package that ask for the user's own texts: each trains on a file of the form that it names."""

import json
import random
import tomllib
from pathlib import Path

import pytest

import qkv
from qkv.cli import make

FEW = {"train.steps": 2, "train.eval_every": 2, "train.save_every": 2, "train.batch_tokens": 512}
SMALL = FEW | {"text.vocab_size": 400, "data.holdout": 0.2}


def write_files() -> None:
    """One small file of every form that a recipe names."""
    rng = random.Random(0)
    texts = [
        " ".join(rng.sample("we you they see like the old new cat dog".split(), 8)) + "."
        for _ in range(80)
    ]
    talk = [{"q": a, "a": b} for a, b in zip(texts, texts[1:], strict=False)]
    names = [{"text": s, "tags": ["B-PER", "I-PER", *["O"] * (len(s) - 2)]} for s in texts]
    asked = [
        {
            "context": s,
            "qas": [
                {"id": str(i), "question": "who?", "answers": [{"text": s[:3], "answer_start": 0}]}
            ],
        }
        for i, s in enumerate(texts)
    ]
    documents = "\n\n".join("\n".join(rng.sample(texts, 4)) for _ in range(60))
    squad = {"version": "v2.0", "data": [{"title": "t", "paragraphs": asked}]}
    files = {
        "texts.txt": documents,
        "documents.txt": documents,
        "texts.tsv": "text\tlabel\n" + "".join(f"{s}\t{s[0]}\n" for s in texts),
        "same.tsv": "text\tpair\n" + "".join(f"{s}\t{s[::-1]}\n" for s in texts),
        "names.jsonl": "".join(json.dumps(row) + "\n" for row in names),
        "talk.jsonl": "".join(json.dumps(row) + "\n" for row in talk),
        "questions.json": json.dumps(squad),
    }
    for name, text in files.items():
        Path(name).write_text(text, "utf-8")


@pytest.mark.parametrize(
    "name", ["gpt", "bert", "classify", "tag", "answer", "embed", "chat", "denoise"]
)
def test_a_recipe_trains_on_the_file_it_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files()
    recipe = tomllib.loads(make.recipes()[name])
    narrow = {} if "size" in recipe["model"] else {"model.d_model": 32, "model.n_layers": 1}
    run = qkv.train(recipe, SMALL | narrow)
    measure = recipe["train"].get("metric", "dev/loss")
    assert measure in run.metrics[-1], f"{measure} is not what this objective measures"
    assert run.folder.name == f"{name}-1"
