"""The verbs of the text family on the command line, each on a tiny model trained here."""

import json
import os

import pytest
import torch

import qkv
from qkv import cli
from qkv.cli.make import next_commands
from test_jobs import examples, recipe


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a run of each kind: a language model, masked words, classes, tags, answers, neighbours, chat."""
    folder = tmp_path_factory.mktemp("verbs")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for kind in ("lm", "mlm", "classify", "tag", "answer", "contrast", "chat"):
        qkv.train(recipe(kind, folder), root=folder / "runs")
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def run(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    monkeypatch.setenv("QKV_LANG", "en")

    def call(*words, code=0):
        assert cli.main(list(words)) == code
        return capsys.readouterr()

    return call


def lines(text):
    return [json.loads(line) for line in text.split("\n") if line]


def test_generate_continues_and_tells_when_the_positions_end(run):
    said = run("generate", "--model", "runs/lm-1", "Mina likes", "--max-new-tokens", "5")
    assert said.out.endswith("\n") and "positions" not in said.err
    (found,) = lines(run("generate", "--model", "runs/lm-1", "Mina likes", "--json").out)
    assert found["prompt"] == "Mina likes" and len(found["ids"]) <= 62
    assert "64 positions" in run("generate", "--model", "runs/lm-1", "Mina likes").err
    a, b = (
        run("generate", "--model", "runs/lm-1", "Jun", "--temperature", "1", "--seed", s).out
        for s in ("1", "1")
    )
    assert a == b


def test_examples_stand_before_every_prompt(run, home):
    (home / "shots.txt").write_text("Mina likes Seoul .\nJun hates Busan .\n", "utf-8")
    words = ["generate", "--model", "runs/lm-1", "Sora", "--examples", "shots.txt", "--json"]
    (found,) = lines(run(*words, "--max-new-tokens", "2").out)
    assert found["prompt"] == "Mina likes Seoul .\nJun hates Busan .\nSora"


def test_fill_classify_tag_answer_and_embed_print_one_line_a_text(run):
    text = "Mina likes <mask> ."
    assert run("fill", "--model", "runs/mlm-1", text).out.count("\n") == 1
    rows = run("fill", "--model", "runs/mlm-1", text, "--n", "3").out.strip().split("\n")
    assert [row.split("\t")[0] for row in rows] == ["1"] * 3
    out = run("classify", "--model", "runs/classify-1", "Mina likes Seoul .", "", "Jun .").out
    first, empty, last = out.split("\n")[:3]
    assert first.split("\t")[0] in ("good", "bad") and 0 <= float(first.split("\t")[1]) <= 1
    assert empty == "" and last
    assert "Mina" in run("tag", "--model", "runs/tag-1", "Mina likes Seoul .").out
    words = ["answer", "--model", "runs/answer-1", "Who?", "--context", "Mina likes Seoul ."]
    (found,) = lines(run(*words, "--json").out)
    assert found["text"] in "Mina likes Seoul ." and 0 <= found["no_answer"] <= 1
    (vector,) = lines(
        run("embed", "--model", "runs/contrast-1", "Mina", "--normalize", "--json").out
    )
    assert sum(x * x for x in vector["vector"]) == pytest.approx(1, abs=1e-5)  # float32


def test_whole_reads_a_file_as_one_text(run, home):
    """A chapter is one text: its lines, empty ones and tabs are not cut, and windows read what is longer."""
    text = "Mina likes Seoul .\n\nJun hates\tBusan ."
    (home / "chapter.txt").write_text(text + "\n", "utf-8")
    model = qkv.load(home / "runs" / "classify-1")
    words = ["classify", "--model", "runs/classify-1", "@chapter.txt", "--json"]
    assert len([x for x in run(*words).out.split("\n") if x]) == 3
    (found,) = lines(run(*words, "--whole", "--window", "6", "--stride", "3").out)
    assert found["labels"] == list(model.classify(text, window=6, stride=3).to_dict()["labels"])
    assert found["score"] != model.classify(text).score
    (found,) = lines(run("generate", "--model", "runs/lm-1", "--whole", "@chapter.txt", "--max-new-tokens", "2", "--json").out)  # fmt: skip
    assert found["prompt"] == text
    (found,) = lines(run("embed", "--model", "runs/contrast-1", "--whole", "@chapter.txt", "--json").out)  # fmt: skip
    assert found["source"] == text


def test_chat_takes_turns_from_the_command_line(run):
    said = run(
        "chat", "--model", "runs/chat-1", "Hi .", "Jun likes Jeju .", "--max-new-tokens", "4"
    )
    assert said.out.count("\n") == 2


def test_eval_measures_what_the_run_was_trained_for(run, home):
    rows = "".join(json.dumps(r) + "\n" for r in examples("classify", 20))
    (home / "mood.jsonl").write_text(rows, "utf-8")
    (found,) = lines(run("eval", "runs/classify-1", "mood.jsonl", "--json").out)
    assert found["examples"] == 20 and 0 <= found["scores"]["accuracy"] <= 100
    assert "accuracy" in run("eval", "runs/classify-1", "mood.jsonl").out
    for kind in ("lm", "answer"):  # rows of several documents, several rows of a question
        rows = "".join(json.dumps(r) + "\n" for r in examples(kind, 20))
        (home / "more.jsonl").write_text(rows, "utf-8")
        (found,) = lines(run("eval", f"runs/{kind}-1", "more.jsonl", "--json").out)
        assert type(found["examples"]) is int and (found["examples"] == 20 or kind == "lm")


@pytest.mark.parametrize(
    "words, code, exit_code",
    [
        (["classify", "--model", "runs/lm-1", "x"], "QKV-001", 2),
        (["generate", "--model", "runs/classify-1", "x"], "QKV-013", 2),
        (["answer", "--model", "runs/answer-1", "Who?"], "QKV-001", 2),
        (["fill", "--model", "runs/mlm-1", "no gap"], "QKV-033", 1),
        (["generate", "--model", "runs/lm-1", "x", "--temperature", "hot"], "QKV-001", 2),
        (["generate", "--model", "runs/lm-1", "Mina " * 90], "QKV-037", 1),
    ],
)
def test_a_verb_that_does_not_fit_its_model_says_so_in_one_line(run, words, code, exit_code):
    said = run(*words, code=exit_code)
    assert said.out == "" and "Traceback" not in said.err
    last = said.err.strip().split(os.linesep)[-1]
    assert last.startswith(f"error[{code}]"), last


def test_the_next_commands_name_a_file_of_the_form_that_was_learned_from(home, capsys):
    next_commands(home / "runs/classify-1", "…")
    assert "classify-1 test.jsonl" in capsys.readouterr().out


def test_a_text_that_cannot_be_answered_is_told_and_the_others_go_on(run, home):
    """It is counted among all that were given; its line stays empty; a single one is an error as everywhere."""
    given = ["", "Mina likes <mask> .", "no gap", "Jun likes <mask> ."]
    said = run("fill", "--model", "runs/mlm-1", *given, code=1)
    empty, first, bad, last = said.out.split("\n")[:4]
    assert empty == bad == "" and first and last and "text 3 has no gap" in said.err
    said = run("fill", "--model", "runs/mlm-1", *given, "--json", code=1)
    rows = lines(said.out)
    assert rows[2]["source"] == "no gap" and rows[2]["error"]["code"] == "QKV-033"
    assert [row.get("text") for row in (rows[1], rows[3])] == [first, last]
    long = "Mina " * 90
    said = run("generate", "--model", "runs/lm-1", "Mina", long, "Jun", "--max-new-tokens", "2", code=1)  # fmt: skip
    one, none, other = said.out.split("\n")[:3]
    assert "prompt 2:" in said.err and one and none == "" and other
    assert run("fill", "--model", "runs/mlm-1", "no gap", code=1).out == ""
    text = "".join(f"Mina likes Seoul {'.' * (n % 3)}\n" for n in range(9)) + long + "\nJun .\n"
    (home / "many.txt").write_text(text, "utf-8")
    said = run("classify", "--model", "runs/classify-1", "@many.txt", code=1)
    rows = said.out.split("\n")
    assert [n for n, row in enumerate(rows[:11], 1) if not row] == [10] and "text 10 " in said.err


def test_lines_before_one_that_cannot_be_read_are_answered(run, home):
    (home / "half.txt").write_bytes(b"Mina .\nJun .\n\xff\xfe\nSora .\n")
    said = run("classify", "--model", "runs/classify-1", "@half.txt", code=1)
    assert said.out.count("\n") == 2 and "half.txt:3" in said.err


def test_a_stride_without_a_window_is_refused(run):
    said = run("classify", "--model", "runs/classify-1", "--stride", "5", "Mina .", code=2)
    assert "stride = 5" in said.err and said.out == ""


def test_a_plot_of_what_is_no_translation_is_refused_at_once(run, home):
    (home / "none.jsonl").write_text("", "utf-8")  # would be refused when it is read
    said = run("eval", "runs/classify-1", "none.jsonl", "--plot", "q.png", code=2)
    assert "--plot is for translations" in said.err


def test_look_at_a_prompt_of_one_token_has_no_pooling_query(run, home):
    import qkv.cli.see as see

    model = qkv.load(home / "runs" / "lm-1")
    word = next(w for w in ("Mina", "Jun", ".") if len(model.ids(w)) == 1)
    assert [type(v).__name__ for v in see._read(model, word).views] == ["Grid"]


def test_a_chat_without_a_limit_leaves_room_for_what_was_said(run):
    assert run("chat", "--model", "runs/chat-1", "Hi .").out.count("\n") == 1


def test_examples_and_context_are_plain_files_as_they_stand(run, home):
    (home / "shots.tsv").write_text("  Mina\tlikes\n\tJun\n\n", "utf-8")
    words = ["generate", "--model", "runs/lm-1", "Sora", "--examples", "shots.tsv", "--json"]
    (found,) = lines(run(*words, "--max-new-tokens", "2").out)
    assert found["prompt"] == "  Mina\tlikes\n\tJun\n\nSora"
    (home / "page.tsv").write_text("Mina likes\tSeoul .\nJun\thates Busan .\n", "utf-8")
    words = ["answer", "--model", "runs/answer-1", "Who?", "--context", "@page.tsv", "--json"]
    (found,) = lines(run(*words).out)
    assert found["text"] in "Mina likes\tSeoul .\nJun\thates Busan ."
    assert found == lines(run(*words[:3], "Who?", "--context", "Mina likes\tSeoul .\nJun\thates Busan .", "--json").out)[0]  # fmt: skip
