"""Pictures on the command line: train, classify, eval; every mistake is one line."""

import io
import json
import os
import sys
from pathlib import Path

import pytest
import torch

from qkv import cli

sys.path.append(str(Path(__file__).parent / "data"))
from picture_files import class_folders  # noqa: E402

RECIPE = """
name = "pets"
[objective]
kind = "image-classify"
crop = 1
[data]
holdout = 0.3
[data.train]
path = "pets"
[model]
family = "vit"
size = "tiny"
patch_size = 4
pool = "first"
[optim]
lr = 3e-3
warmup = 3
[train]
steps = 10
batch_rows = 16
eval_every = 10
save_every = 10
log_every = 5
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder, before = tmp_path_factory.mktemp("home"), os.getcwd()
    class_folders(folder / "pets", n=16, size=(12, 12), high=60)
    (folder / "pets" / "cat" / "bad.png").write_bytes(b"nothing")
    (folder / "r.toml").write_text(RECIPE, "utf-8")
    os.chdir(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert cli.main(["train", "r.toml"]) == 0
    finally:
        torch.set_num_threads(threads)
        os.chdir(before)
    return folder


@pytest.fixture
def run(home, capsys, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("QKV_LANG", "en")

    def go(*words, stdin=""):
        capsys.readouterr()
        read, write = os.pipe()
        os.write(write, stdin.encode())
        os.close(write)
        with io.TextIOWrapper(os.fdopen(read, "rb")) as given:
            monkeypatch.setattr(sys, "stdin", given)
            code = cli.main(list(words))
        said = capsys.readouterr()
        return code, said.out.strip().split("\n"), said.err

    return go


MODEL = ("--model", "runs/pets-1")


def test_classify_names_each_picture(run):
    code, lines, _ = run("classify", *MODEL, "pets/cat/1.png", "pets/dog/2.png")
    assert code == 0 and [line.split("\t")[:2] for line in lines] == [
        ["pets/cat/1.png", "cat"],
        ["pets/dog/2.png", "dog"],
    ]
    code, lines, _ = run("classify", *MODEL, "--json", stdin="pets/cat/1.png\n\npets/dog/2.png\n")
    found = [json.loads(line) for line in lines]
    assert [x["label"] for x in found] == ["cat", "dog"]
    assert set(found[0]) == {"source", "label", "score", "labels"}
    Path("list.txt").write_text("pets/dog/3.png\n", "utf-8")
    assert run("classify", *MODEL, "@list.txt")[1][0].startswith("pets/dog/3.png\tdog\t")


def test_one_bad_picture_among_many_costs_one_line(run):
    paths = [f"pets/dog/{i}.png" for i in range(8)] + ["pets/cat/bad.png", "none.png", "pets/cat/1.png"]  # fmt: skip
    code, lines, said = run("classify", *MODEL, *paths)
    assert code == 3  # of the last error: a file that is not there
    assert [line.split("\t")[0] for line in lines] == paths[:8] + paths[10:]
    errors = [line for line in said.split("\n") if line.startswith("error")]
    assert ["QKV-038" in errors[0], "QKV-020" in errors[1], len(errors)] == [True, True, 2]
    code, lines, _ = run("classify", *MODEL, "--json", *paths)
    found = [json.loads(line) for line in lines]
    assert [x["source"] for x in found] == paths
    assert found[8]["error"]["code"] == "QKV-038" and "fix" in found[8]["error"]


def test_a_single_bad_picture_is_the_error(run):
    code, lines, said = run("classify", *MODEL, "pets/cat/bad.png")
    assert code == 1 and lines == [""] and said.startswith("error[QKV-038] pets/cat/bad.png")
    assert said.count("\n") == 1


def test_eval_measures_labelled_pictures(run):
    code, lines, _ = run("eval", "runs/pets-1", "pets", "--json")
    found = json.loads(lines[0])
    assert code == 0 and found["examples"] == 32 and found["skipped"] == {"not a picture": 1}
    assert set(found["scores"]) == {"loss", "accuracy", "f1"}
    code, lines, _ = run("eval", "runs/pets-1", "pets")
    assert code == 0 and lines[1].startswith("accuracy")
    for given, said in (("--metrics", "chrf"), ("--source", "picture"), ("--beam", "3")):
        code, _, told = run("eval", "runs/pets-1", "pets", given, said)
        assert code == 2 and f"{given} is for translations" in told
    code, _, told = run("eval", "runs/pets-1", "pets", "labels.idx")
    assert code == 2 and "a folder source has no labels" in told
    code, _, said = run("eval", "runs/pets-1", "nowhere")
    assert code == 3 and "QKV-020" in said


def test_look_never_writes_over_the_picture_itself(run):
    before = Path("pets/cat/1.png").read_bytes()
    for name in ("pets/cat/1.png", "./pets/dog/../cat/1.png"):
        code, _, said = run("look", *MODEL, "pets/cat/1.png", "-o", name)
        assert code == 2 and "is the picture itself" in said
    assert Path("pets/cat/1.png").read_bytes() == before


def test_a_dry_run_counts_pictures(run):
    code, lines, said = run("train", "r.toml", "--dry-run")
    text = "\n".join(lines)
    assert code == 0 and "33 entries: 32 used, 1 skipped (1 not a picture)" in text
    assert "pictures/s" in text and "tokenizer" not in text and "pets/cat/bad.png" in said


def test_verbs_of_texts_say_what_a_model_of_pictures_is_for(run):
    for verb in ("translate", "summarize", "embed"):
        code, _, said = run(verb, *MODEL, "pets/cat/1.png")
        assert code == 2 and "reads pictures" in said and "classify" in said, verb
    for verb in ("generate", "chat", "fill", "tag"):
        code, _, said = run(verb, *MODEL, "pets/cat/1.png")
        assert code == 2 and "vit" in said and said.count("\n") == 1, verb


@pytest.mark.parametrize("option", [("--whole",), ("--window", "8"), ("--stride", "4")])
def test_options_for_texts_are_refused_not_ignored(run, option):
    code, lines, said = run("classify", *MODEL, *option, "pets/cat/1.png")
    assert code == 2 and lines == [""] and "texts" in said and said.count("\n") == 1


def test_the_end_of_a_training_names_the_next_commands(run):
    code, lines, said = run("train", "runs/pets-1")
    assert code == 0 and "finished" in said
    commands = [line.strip() for line in lines if line.startswith("  qkv")]
    assert commands[0].startswith("qkv classify --model runs/pets-1") and len(commands) == 2
    assert run(*commands[0].split()[1:])[0] == 0
