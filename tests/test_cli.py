"""The command line as a person meets it: what goes where, in which language, with which exit code."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import MISSING, fields
from pathlib import Path
from types import SimpleNamespace

import pytest

import cli_tiny
from qkv import cli
from qkv.cli import live, make, out
from qkv.cli.parse import parse
from qkv.cli.table import BY_NAME, COMMON, GROUPS, VERBS
from qkv.errors import DataError

KO, EN = cli_tiny.PAIRS[0]
HANGUL = re.compile("[가-힣]")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with the corpus, a recipe and a finished run; and one thread, as the machine is shared."""
    import torch

    threads = torch.get_num_threads()
    shutil.copytree(cli_tiny.home(), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QKV_LANG", "en")
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.fixture
def run(home, capsys):
    def run(*argv: str, code: int = 0) -> SimpleNamespace:
        got = cli.main(list(argv))
        said = capsys.readouterr()
        assert got == code, said.err
        return SimpleNamespace(out=said.out, err=said.err, lines=said.out.rstrip("\n").split("\n"))

    return run


# ---- parsing and help


def test_help_shows_every_verb_in_its_group_with_one_line(capsys):
    assert cli.main(["--help", "--lang", "en"]) == 0
    text = capsys.readouterr().out
    for verb in VERBS:
        assert re.search(rf"^  {verb.name} +{re.escape(verb.en)}$", text, re.M)
    assert all(f"\n{en}\n" in text for en, _ in GROUPS.values())
    assert max(map(len, text.split("\n"))) <= 100


def test_no_words_at_all_is_help(capsys):
    assert cli.main([]) == 0
    assert "qkv demo" in capsys.readouterr().out


def test_the_version_is_the_one_that_is_installed(capsys):
    from importlib.metadata import version

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"qkv {version('qkv')}\n"


@pytest.mark.parametrize("verb", VERBS, ids=lambda v: v.name)
def test_every_verb_explains_itself_in_both_languages(verb, capsys):
    for option in (*verb.opts, *COMMON):
        assert HANGUL.search(option.ko) and not HANGUL.search(option.en)
    assert HANGUL.search(verb.ko)
    for lang in ("en", "ko"):
        assert cli.main([verb.name, "--help", "--lang", lang]) == 0
        text = capsys.readouterr().out
        assert all(o.shown in text for o in verb.opts)
        assert bool(HANGUL.search(text.split("examples")[0])) == (lang == "ko")


@pytest.mark.parametrize("verb", VERBS, ids=lambda v: v.name)
def test_the_examples_of_the_help_parse(verb):
    import shlex

    for example in verb.examples:
        words = shlex.split(example.split(" > ")[0].split(" | ")[0])
        assert words[:2] == ["qkv", verb.name]
        parse(verb, words[2:])


def test_options_may_stand_anywhere_and_two_dashes_end_them():
    train, translate = BY_NAME["train"], BY_NAME["translate"]
    for words in (["a.toml", "x=1", "--json", "y=2"], ["--json", "a.toml", "x=1", "y=2"]):
        args = parse(train, words)
        assert (args.recipe, args.settings, args.json) == ("a.toml", ["x=1", "y=2"], True)
    args = parse(translate, ["--model=R", "--beam", "3", "--", "--beam", "-5도"])
    assert (args.text, args.model, args.beam) == (["--beam", "-5도"], "R", 3)
    assert parse(translate, ["-"]).text == ["-"]


@pytest.mark.parametrize(
    "argv, hint",
    [
        (["transalte"], "did you mean 'translate'?"),
        (["--jsn", "runs"], "did you mean '--json'?"),
        (["train", "x.toml", "--dryrun"], "did you mean '--dry-run'?"),
        (["translate", "-5도"], "write -- before words that begin with a dash"),
        (["translate", "--beam", "none"], "try --beam 4"),
        (["translate", "--beam", "0"], "try --beam 4"),
        (["translate", "--beam"], "see `qkv translate --help`"),
        (["eval", "runs/demo-1"], "qkv eval RUN FILE [REFERENCE] [options]"),
        (["look", "a", "b", "--model", "x"], "quote a text with spaces"),
        (["runs", "slin", "x"], "did you mean 'slim'?"),
        (["runs", "slim"], "qkv runs slim RUN"),
        (["look", "a", "--model", "x", "-o", "a.svg"], "name it .html or .png"),
        (["translate", KO], "add --model runs/demo-1"),
        (["look", " ", "--model", "runs/demo-1"], "give a sentence"),
        (["runs", "--lang", "kr"], "known: en, ko"),
    ],
)
def test_a_wrong_word_costs_one_line_and_exit_code_2(run, argv, hint):
    said = run(*argv, code=2)
    assert said.out == ""
    assert hint in said.err and said.err.count("\n") == 1


def test_messages_follow_lang_then_the_environment(run, monkeypatch):
    assert run("nonsense", "--lang", "ko", code=2).err.startswith("오류[QKV-001]")
    monkeypatch.setenv("QKV_LANG", "ko")
    assert run("nonsense", code=2).err.startswith("오류[QKV-001]")
    assert run("--lang", "en", "nonsense", code=2).err.startswith("error[QKV-001]")
    monkeypatch.delenv("QKV_LANG")
    monkeypatch.setenv("LC_ALL", "ko_KR.UTF-8")
    assert run("runs", "--root", "none").err.startswith("none에 실행이 없습니다")


# ---- init


def test_init_lists_and_prints_recipes(run):
    names = [line.split()[0] for line in run("init").lines]
    assert {"demo", "ko-en"} <= set(names)
    assert [r["name"] for r in json.loads(run("init", "--json").out)] == names
    text = run("init", "ko-en").out
    Path("copy.toml").write_text(text, "utf-8")
    run("init", "ko-en.toml", "-o", "mine.toml")
    assert Path("mine.toml").read_text("utf-8").strip() == text.strip()
    assert "there is a file already" in run("init", "ko-en", "-o", "mine.toml", code=2).err


@pytest.mark.parametrize("name", make.recipes())
def test_every_recipe_in_the_package_is_valid(name):
    import tomllib

    from qkv.recipe import Recipe

    text = make.recipes()[name]
    recipe = Recipe.read(tomllib.loads(text))
    assert recipe.name == name and text.startswith("# ")


def settings(text: str) -> dict[str, tuple[str, bool]]:
    """{"optim.lr": ("1e-3", is it commented out?)} of a template whose every line is `key = value  # what it is`."""
    found, table = {}, ""
    for line in text.split("\n"):
        bare = line.removeprefix("# ")
        if m := re.match(r"\[([\w.]+)\]", bare):
            table = m[1] + "."
        elif m := re.match(r"(\w+) = (.+?)\s{2,}# \S", bare):
            found[table + m[1]] = m[2], bare != line
        elif m := re.match(r"(\w+) = (.+)$", bare):
            found[table + m[1]] = m[2].split(" #")[0], bare != line
    return found


def test_the_template_explains_every_key_and_gives_the_true_defaults():
    import tomllib

    from qkv.data.sources import PairSource
    from qkv.decode.answer import SearchConfig
    from qkv.learn.loop import TrainConfig
    from qkv.learn.optim import OptimConfig
    from qkv.recipe import DataConfig, EvalConfig
    from qkv.text import TextConfig

    text = make.recipes()["ko-en"]
    found = settings(text)
    tables = {
        "data": DataConfig, "data.train": PairSource, "text": TextConfig, "optim": OptimConfig,
        "train": TrainConfig, "eval": EvalConfig, "decode": SearchConfig,
    }  # fmt: skip
    for table, cls in tables.items():
        for field in fields(cls):
            if f"{table}.{field.name}" == "data.train" or f"{table}.{field.name}" == "data.dev":
                continue
            key = f"{table}.{field.name}"
            assert key in found, f"{key} is not explained"
            value, off = found[key]
            plain = field.default is not MISSING and isinstance(field.default, (int, float, str))
            if off and plain and field.default != "" and table != "data.train":
                assert tomllib.loads(f"x = {value}")["x"] == field.default, key
    assert {"name", "seed", "from", "track"} <= set(found)
    for line in text.split("\n"):
        if line and not line.startswith(("#", "[")):
            assert re.search(r"\S +# \S", line), f"no comment: {line}"


def test_the_korean_template_is_the_same_recipe(run):
    english, korean = (run("init", "ko-en", "--lang", lang).out for lang in ("en", "ko"))
    assert settings(english) == settings(korean)
    assert len(HANGUL.findall(korean)) > 500 > len(HANGUL.findall(english))
    comments = [line.split("  # ")[-1] for line in korean.split("\n") if "  # " in line]
    assert all(HANGUL.search(c) or "," in c or " 또는 " in c for c in comments)


def test_the_template_trains_once_the_path_is_right(run):
    Path("my.toml").write_text(run("init", "ko-en").out, "utf-8")
    said = run("train", "my.toml", "--dry-run", "--json", "text.vocab_size=400", "model.size=tiny", "train.batch_tokens=256", "data.holdout=0.2")  # fmt: skip
    plan = json.loads(said.out)
    assert plan["train_pairs"] + plan["dev_pairs"] == len(cli_tiny.PAIRS)
    assert not Path("runs/ko-en-1").exists()


# ---- train, runs


def test_train_shows_its_progress_on_stderr_and_the_next_commands_on_stdout(run):
    said = run("train", "tiny.toml", "seed=2")
    assert "runs/demo-2" in said.err and "24 pairs" in said.err
    assert len(re.findall(r"^ +\d+ .*", said.err, re.M)) == 2  # one table row per evaluation
    assert said.lines[0].split() == ["run", "runs/demo-2"]
    commands = [line.strip() for line in said.lines if line.startswith("  qkv")]
    assert len(commands) == 3
    assert run(*_words(commands[0])).out.strip() == cli_tiny.PAIRS[0][1]
    assert "\x1b" not in said.out + said.err


def _words(command: str) -> list[str]:
    import shlex

    return shlex.split(command)[1:]


def test_train_json_ends_with_one_line(run):
    said = run("train", "tiny.toml", "seed=3", "--json")
    *events, last = map(json.loads, said.lines)
    assert [e["step"] for e in events] == [60, 120]
    assert set(last) == {"run", "best"} and Path(last["run"]).is_dir()
    assert last["best"]["dev/loss"] < 1


def test_a_finished_run_is_shown_and_not_trained_again(run):
    before = sorted(p.name for p in Path("runs").iterdir())
    said = run("train", "runs/demo-1")
    assert "finished" in said.err and "qkv translate" in said.out
    assert sorted(p.name for p in Path("runs").iterdir()) == before


def test_a_stopped_run_goes_on_and_says_so(run, monkeypatch):
    import signal

    def stop(self: live.Live, event: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(live.Live, "step", stop)
        assert "QKV-073" in run("train", "tiny.toml", "seed=4", code=75).err
    said = run("train", "tiny.toml", "seed=4")
    assert re.search(r"going on with runs/demo-2 at step \d+/120", said.err)
    assert "runs/demo-2" in said.lines[0]


def test_dry_run_tells_data_size_time_and_writes_nothing(run):
    before = sorted(Path().rglob("*"))
    with open("train.tsv", "a", encoding="utf-8") as f:
        f.write("\tno source\n")
    said = run("train", "tiny.toml", "--dry-run")
    assert "24 used, 1 skipped (1 empty source)" in said.out
    for word in ("parameters", "memory", "tokens/s", "about 0:"):
        assert word in said.out
    assert "train.tsv:25" in said.err
    assert sorted(Path().rglob("*")) == before


def test_runs_lists_and_slims(run):
    row = run("runs").lines[1].split()
    assert row[:3] == ["runs/demo-1", "done", "120/120"]
    assert json.loads(run("runs", "--json").out)[0]["name"] == "demo-1"
    freed = json.loads(run("runs", "slim", "runs/demo-1", "--json").out)
    assert freed[0]["freed"] > 0 and not Path("runs/demo-1/resume").exists()
    assert run("translate", "--model", "runs/demo-1", KO).out == EN + "\n"
    assert "QKV-021" in run("runs", "slim", "runs/none", code=3).err
    before = Path("runs/demo-1/metrics.jsonl").read_bytes()
    said = run("train", "runs/demo-1", "train.steps=130", code=3)  # it would begin anew, over it
    assert "--new" in said.err and Path("runs/demo-1/metrics.jsonl").read_bytes() == before


# ---- translate


@pytest.fixture
def stdin(monkeypatch):
    """Give bytes to standard input through a real pipe."""
    opened = []

    def give(data: bytes) -> None:
        read, write = os.pipe()
        os.write(write, data)
        os.close(write)
        opened.append(os.fdopen(read, encoding="utf-8"))
        monkeypatch.setattr(sys, "stdin", opened[-1])

    yield give
    for file in opened:
        file.close()


def test_translate_words_files_and_standard_input_in_their_order(run, stdin):
    (a, a_en), (b, b_en), (c, c_en) = cli_tiny.PAIRS[:3]
    Path("in.txt").write_bytes(f"{b}\r\n\n{c}".encode())
    stdin(f"\ufeff{c}\n\n{a}\n".encode())
    said = run("translate", a, "@in.txt", "-", "--model", "runs/demo-1")
    assert said.out.split("\n") == [a_en, b_en, "", c_en, c_en, "", a_en, ""]


def test_translate_reads_standard_input_when_nothing_is_given(run, stdin):
    stdin(KO.encode())
    assert run("translate", "--model", "runs/demo-1").out == EN + "\n"
    stdin(b"")
    assert run("translate", "--model", "runs/demo-1").out == ""


@pytest.mark.parametrize("raw, fix", [("커피".encode("cp949"), "iconv -f CP949"), ("\ufeffhi".encode("utf-16-le"), "iconv -f UTF-16LE"), (b"caf\xe9", "save it as UTF-8")])  # fmt: skip
def test_input_that_is_not_utf8_is_told_what_it_looks_like(run, stdin, raw, fix):
    stdin(raw + b"\n")
    said = run("translate", "--model", "runs/demo-1", code=1).err
    assert "QKV-030" in said and fix in said


def test_translate_prints_json_lines_and_n_best(run):
    texts = [ko for ko, _ in cli_tiny.PAIRS[:3]]
    said = run("translate", *texts, "--model", "runs/demo-1", "--json")
    found = [json.loads(line) for line in said.lines]
    assert [f["text"] for f in found] == [en for _, en in cli_tiny.PAIRS[:3]]
    assert len(found[0]["alignment"]) == len(found[0]["tokens"])
    said = run("translate", KO, "--model", "runs/demo-1", "--nbest", "3")
    rank, score, text = said.lines[0].split("\t")
    assert (rank, text) == ("1", EN) and float(score) <= 0 and len(said.lines) == 3


@pytest.mark.parametrize(
    "argv, code, exit_code",
    [
        (["@nowhere.txt"], "QKV-020", 3),
        (["@bad.txt"], "QKV-030", 1),
        (["-"], "QKV-030", 1),
        (["a\udcffb"], "QKV-030", 1),
    ],
)
def test_translate_refuses_what_it_cannot_read(run, stdin, argv, code, exit_code):
    Path("bad.txt").write_bytes(b"ok\n\xb0\xa1\n")
    stdin(b"ok\n\xb0\xa1\n")
    assert f"error[{code}]" in run("translate", "--model", "runs/demo-1", *argv, code=exit_code).err


def test_a_translation_cannot_drive_the_terminal():
    from qkv.cli.use import flat

    assert flat("a\nb\r\x1b[2J\u202e\ud800") == "a b \\x1b[2J\\u202e\\ud800"


# ---- eval, look, doctor, fetch, demo


def test_eval_takes_two_aligned_files_and_draws_quality_by_length(run, tmp_path):
    korean = "".join(f"{w}\n" for w in ["커피", "안녕", "내일 만나요"] * 10)
    Path("a.ko").write_text(korean, "utf-8")
    Path("a.en").write_text("coffee\nhello\nsee you tomorrow\n" * 10, "utf-8")
    found = json.loads(run("eval", "runs/demo-1", "a.ko", "a.en", "--plot", "q.png", "--json").out)
    assert found["sentences"] == 30 and Path("q.png").read_bytes().startswith(b"\x89PNG")


def test_eval_prints_scores_with_their_signature(run):
    said = run("eval", "runs/demo-1", "test.tsv", "--metrics", "chrf,exact")
    assert re.search(r"chrF2 +100\.00 +nrefs:1\|.*version:", said.out)
    assert re.search(r"exact +100\.00", said.out) and "perplexity" in said.out
    found = json.loads(run("eval", "runs/demo-1", "test.tsv", "--json").out)
    assert found["sentences"] == 24 and set(found["scores"]) == {"bleu", "chrf"}
    assert "QKV-012" in run("eval", "runs/demo-1", "test.tsv", "--metrics", "blue", code=2).err


def test_look_writes_a_page_and_a_picture(run):
    said = run("look", KO, "--model", "runs/demo-1", "-o", "a.html", "-o", "b.png")
    assert said.lines == [EN, "a.html", "b.png"]
    assert "decoder.stack.blocks.0.cross" in Path("a.html").read_text("utf-8")
    assert Path("b.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(run("look", KO, "--model", "runs/demo-1", "--json").out)
    assert found["files"] == ["attention.html"] and found["text"] == EN


def test_doctor_checks_the_machine(run):
    said = run("doctor")
    for name in ("python", "torch", "threads", "bf16", "Korean font", "disk"):
        assert name in said.out
    checks = json.loads(run("doctor", "--json").out)
    assert all(c["ok"] is not False for c in checks)


def test_fetch_lists_what_it_knows_with_the_licence(run):
    found = json.loads(run("fetch", "--json").out)
    assert {"tatoeba-ko-en", "multi30k"} <= {c["name"] for c in found}
    assert all(c["licence"] for c in found)
    assert "did you mean 'multi30k'?" in run("fetch", "multi3k", code=3).err


def test_demo_trains_once_and_tells_the_whole_story(run, monkeypatch):
    from qkv.cli import demo

    recipe = cli_tiny.RECIPE.replace('"demo"', '"small"')
    monkeypatch.setattr(demo, "recipes", lambda: {"demo": recipe})
    monkeypatch.setattr(demo, "TESTS", {"test": "test.tsv", "hand": "ko-en.tsv"})
    said = run("demo")
    for word in (
        "BLEU",
        "chrF",
        demo.TEXT,
        "demo/attention.html",
        "demo/attention.png",
        "qkv translate",
    ):
        assert word in said.out
    again = run("demo")
    assert "trained already" in again.err and again.out == said.out
    assert run("demo", "--again", "--json").out.count("small-2") >= 1
    assert sorted(p.name for p in Path("runs").glob("small-*")) == ["small-1", "small-2"]
    assert {p.name for p in Path("demo").iterdir()} == {"attention.html", "attention.png"}


# ---- streams


def test_colour_only_on_a_terminal_that_wants_it(monkeypatch):
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert out.colours(terminal) and not out.colours(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not out.colours(terminal)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not out.colours(terminal)


def shell(command: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "QKV_LANG": "en", **more}
    return subprocess.run(["bash", "-c", command.replace("qkv", f"{sys.executable} -m qkv.cli")], capture_output=True, env=env)  # fmt: skip


def test_a_reader_that_leaves_is_no_error():
    done = shell("qkv init ko-en | true; echo ${PIPESTATUS[0]}")
    assert done.stdout.decode().strip() == "0" and done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_one_line():
    done = shell("qkv init ko-en > /dev/full")
    assert done.returncode == 1
    assert done.stderr.decode().count("\n") == 1 and b"QKV-061" in done.stderr


def test_closed_streams_are_no_trace_back(home):
    assert shell("qkv init ko-en >&-").stderr == b""
    assert shell("qkv nonsense 2>&-").returncode == 2
    done = shell("qkv translate --model runs/demo-1 <&-")
    assert done.returncode == 3 and b"standard input is closed" in done.stderr


def test_output_is_utf8_whatever_the_locale_says():
    done = shell("qkv --help --lang ko", PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0")
    assert done.returncode == 0 and HANGUL.search(done.stdout.decode())


def test_json_has_no_nan():
    assert out.plain({"a": float("nan"), "b": (1, float("-inf"))}) == {"a": "nan", "b": [1, "-inf"]}


def test_columns_stand_straight_with_hangul():
    lines = out.table([("가나", "1"), ("abc", "22")], right=(1,))
    assert lines == ["가나   1", "abc   22"]
    assert {out.width(line) for line in lines} == {8}


# ---- the live line


def step(n: int, of: int = 100) -> object:
    from qkv.learn.loop import Step

    return Step(n, of, 2.5, 2.4, 1e-3, 0.7, 500, 1234.0, 65.0)


def test_plain_progress_is_at_most_one_line_per_five_seconds(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with live.Live(interactive=False) as listen:
        for n in range(100):
            listen(step(n))
            clock[0] += 0.5
    lines = capsys.readouterr().err.rstrip("\n").split("\n")
    assert len(lines) == 10
    assert re.fullmatch(r"step 10/100  loss 2.500  lr 1.0e-03  1,234 tokens/s  left 1:05", lines[1])


def test_the_live_line_is_drawn_on_a_terminal_and_goes_away(monkeypatch):
    from qkv.learn.loop import Evaluated, Note

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with live.Live() as listen:
        listen(step(50))
        listen(Evaluated(50, {"dev/loss": 1.25, "dev/bleu": 31.5}, True))
        listen(Note("[bold]not markup[/bold]"))
    drawn = screen.getvalue()
    assert "50/100" in drawn and "1,234 tokens/s" in drawn
    assert re.search(r"50 +1\.250 +31\.50  ← best", drawn) and "[bold]not markup" in drawn
    assert drawn.rstrip().endswith("\x1b[2K")  # the line is wiped at the end


def test_numbers_show_four_digits_that_matter():
    assert [live.number(x) for x in (0.12345, 12.345, 1234.5, None)] == ["0.123", "12.35", "1,234", "–"]  # fmt: skip
    assert [out.duration(x) for x in (5, 65.4, 7384, float("nan"))] == ["0:05", "1:05", "2:03:04", "–"]  # fmt: skip


# ---- what is read


@pytest.mark.parametrize("name", ["x.tsv", "x.csv", "x.jsonl", "x.txt.gz"])
def test_a_file_of_texts_is_its_lines_whatever_its_name(run, name):
    import gzip

    from qkv.cli.use import file_lines

    data = b'\xef\xbb\xbfa\tb\r\n\n{"c": 1}, d\n'
    Path(name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert list(file_lines(name)) == ["a\tb", "", '{"c": 1}, d']


def test_whole_keeps_a_text_as_it_stands(run, stdin, tmp_path):
    from qkv.cli.use import texts

    text = "    if x:\n\treturn 1" + " " * (1 << 20)  # a line beyond what a corpus may have
    raw = b"\xef\xbb\xbf\r\n" + text.replace("\n", "\r\n").encode() + b"\r\n\n"
    Path("code.py").write_bytes(raw)
    assert list(texts(["@code.py"], whole=True)) == [[text]]
    stdin(b"\n    if x:\n\treturn 1\n")
    assert list(texts([], whole=True)) == [["    if x:\n\treturn 1"]]
    Path("bad.txt").write_bytes(b"a\nb\xff\n")
    with pytest.raises(DataError, match="bad.txt:2") as e:
        list(texts(["@bad.txt"], whole=True))
    assert e.value.code == "QKV-030"


def test_an_error_names_the_verb_that_was_asked(run):
    from qkv.cli.use import texts

    with pytest.raises(DataError) as e:
        list(texts(["\udcff"], verb="fill"))
    assert e.value.place == "qkv fill"


# ---- what is printed


def test_json_holds_no_character_that_drives_a_terminal(capsys):
    text = "a\x7f\x9b\u2028\u202e\u200f한\n"
    out.emit({"text": text})
    said = capsys.readouterr().out
    assert json.loads(said) == {"text": text} and "한" in said
    assert said == '{"text": "a\\u007f\\u009b\\u2028\\u202e\\u200f한\\n"}\n'


def test_a_deleted_folder_is_no_trace_back(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert out.here("/a/b") == "/a/b"


def test_look_and_warnings_print_no_control(run, monkeypatch):
    import warnings

    import qkv.checkpoints
    from qkv.cli import see
    from qkv.cli.use import open_model

    load = qkv.checkpoints.load

    def warned(source):
        warnings.warn("\x1b[2Jcleared", UserWarning, stacklevel=2)
        return load(source)

    seen = see.Seen("x", [], lambda _: b"", {}, ["\x1b[2J cat"])
    monkeypatch.setattr(qkv.checkpoints, "load", warned)
    monkeypatch.setattr(see, "translated", lambda *a: seen)
    monkeypatch.setattr(see.Seen, "write", lambda *a: None)
    said = run("look", KO, "--model", "runs/demo-1")
    assert said.lines[0] == "\\x1b[2J cat" and "\\x1b[2Jcleared" in said.err
    assert "\x1b" not in said.out + said.err
    assert open_model("runs/demo-1", "look")


# ---- init, eval, the next commands


def test_init_writes_the_file_it_was_asked_for(run):
    assert json.loads(run("init", "ko-en", "--json", "-o", "a.toml").out)["name"]
    assert Path("a.toml").read_text("utf-8").startswith("#")
    assert "which recipe" in run("init", "-o", "b.toml", code=2).err
    assert not Path("b.toml").exists()


def test_eval_shows_its_scores_before_a_plot_that_cannot_be(run):
    said = run("eval", "runs/demo-1", "test.tsv", "--plot", "q.png")
    assert "BLEU" in said.out and Path("q.png").exists()
    Path("few.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in cli_tiny.PAIRS[:3]), "utf-8")
    assert "quality.png" in run("eval", "runs/demo-1", "few.tsv", "--plot", "few.jpg", code=2).err
    said = run("eval", "runs/demo-1", "few.tsv", "--plot", "few.png", code=1)
    assert "BLEU" in said.out and "too few sentences" in said.err


@pytest.mark.parametrize(
    "kind, command",
    [
        ("answer", "qkv answer --model R … --context @page.txt"),
        ("mlm", "qkv fill --model R '… <mask> …'"),
        ("spans", "qkv fill --model R '… <extra_id_0> …'"),
        ("infill", "qkv fill --model R '… <mask> …'"),
    ],
)
def test_the_next_command_of_every_objective_can_be_pasted(kind, command, tmp_path, capsys):
    (tmp_path / "config.toml").write_text(f'[objective]\nkind = "{kind}"\n')
    make.next_commands(tmp_path, make.sample_text(tmp_path))
    first = capsys.readouterr().out.strip().split("\n")[1].strip()
    assert _words(first) == _words(command.replace("R", str(tmp_path)))


def test_a_longest_answer_that_nobody_asked_for_fits_the_model():
    from qkv.cli.write import longest
    from qkv.decode.answer import SearchConfig

    def model(most, own=None, prompted=False):
        net = SimpleNamespace(max_positions=most, prompted=prompted)
        return SimpleNamespace(net=net, decode=SearchConfig(max_new_tokens=own))

    assert longest(model(64), None) == 64 and longest(model(64), 100) == 100
    assert longest(model(None), None) == 128 and longest(model(1024, own=142), None) == 142
    assert longest(model(1024, own=142, prompted=True), None) == 128
