"""The error catalogue: every code is provoked, and a person sees one line with code, place, what was seen and the fix."""

import gzip
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

import cli_tiny
from qkv import cli
from qkv.cli.guard import as_error
from qkv.errors import CATALOGUE, QkvError

RECIPE = cli_tiny.RECIPE


class Scene:
    """A folder with a corpus, a recipe and, when asked for, a trained run; what provokes an error plays in it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, monkeypatch
        monkeypatch.chdir(folder)
        cli_tiny.write_corpus(folder)
        self.write("tiny.toml", RECIPE)

    def write(self, name: str, content: str | bytes) -> str:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    def run(self) -> str:
        shutil.copytree(cli_tiny.home() / "runs", self.folder / "runs")
        return "runs/demo-1"

    def train_on(self, content: str | bytes, name: str = "train.tsv", *more: str) -> list[str]:
        self.write(name, content)
        return ["train", "tiny.toml", f"data.train.path={name}", *more]


def signalled(s: Scene, which: signal.Signals) -> list[str]:
    """A training that gets a signal at its first logged step."""
    from qkv.cli.live import Live

    s.patch.setattr(Live, "step", lambda self, event: os.kill(os.getpid(), which))
    return ["train", "tiny.toml"]


def tensors(s: Scene, value: float, expected: dict | None = None) -> None:
    import torch

    from qkv.weights.files import read_tensors, tensor_bytes

    s.write("x.safetensors", tensor_bytes({"w": torch.full((2, 3), value)}))
    read_tensors(s.folder / "x.safetensors", expected)


def out_of_vocabulary(s: Scene) -> None:
    import torch

    import qkv

    model = qkv.load(s.run())
    model.logits(torch.tensor([[10**6]]), target=torch.tensor([[2]]))


def long_source(s: Scene) -> None:
    import qkv
    from qkv.decode.engine import Engine

    model = qkv.load(s.run())
    model.net.max_positions = 4
    engine = Engine(model.net, model.decode)
    list(engine([[5] * 5000]) if engine.max_source else engine.force([[5]], [[5] * 5000]))


def no_picture(s: Scene) -> None:
    from qkv.data.images.sources import single

    single(s.write("cat.png", b"no picture"), 3)


def newer_format(s: Scene) -> list[str]:
    best = s.folder / s.run() / "best"
    text = (
        (best / "config.json")
        .read_text("utf-8")
        .replace('"format_version": 1', '"format_version": 99')
    )
    (best / "manifest.json").unlink()
    (best / "config.json").write_text(text, "utf-8")
    return ["translate", "--model", "runs/demo-1", "커피"]


def damaged(s: Scene) -> list[str]:
    path = s.folder / s.run() / "best" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return ["translate", "--model", "runs/demo-1", "커피"]


def changed_data(s: Scene) -> None:
    from qkv.data.sources import PairSource
    from qkv.data.watch import check_unchanged, fingerprints

    before = fingerprints([PairSource(path="train.tsv")])
    s.write("train.tsv", "하나\tone\n")
    check_unchanged(before)


def busy(s: Scene) -> None:
    from qkv.runs import slim
    from qkv.weights import store

    run = s.run()
    with store.lock(Path(run)):
        slim(run)


def too_much_memory(s: Scene) -> None:
    import torch

    torch.empty(1 << 60, dtype=torch.uint8)


def broken_law(s: Scene) -> list[str]:
    import qkv.doctor

    law = qkv.doctor.Law("causality", False, "3e-2", "0")
    s.patch.setattr(qkv.doctor, "check", lambda model: [law])
    return ["doctor", "--model", s.run()]


def not_finite(s: Scene) -> None:
    import torch

    import qkv

    model = qkv.load(s.run())
    with torch.no_grad():
        next(iter(model.net.parameters())).fill_(float("nan"))
    model.translate("커피")


def unequal_files(s: Scene) -> list[str]:
    s.write("a", "하나\n둘\n")
    s.write("b", "one\n")
    two = RECIPE.replace('path = "train.tsv"', 'source_path = "a"\ntarget_path = "b"', 1)
    return ["train", s.write("two.toml", two)]


def unreachable(s: Scene) -> list[str]:
    import qkv.data.download

    s.patch.setattr(qkv.data.download, "WAIT", 0.0)
    return ["fetch", "tiny-shakespeare", "--mirror", "http://127.0.0.1:9"]


def unverified(s: Scene) -> list[str]:
    folder = s.folder / "corpora" / "tiny-shakespeare"
    folder.mkdir(parents=True)
    (folder / "fetched.json").write_text("not JSON")
    return ["fetch", "tiny-shakespeare"]


def our_fault(s: Scene) -> list[str]:
    import qkv.cli.make

    def broken(args: object) -> None:
        raise ZeroDivisionError("nobody foresaw this")

    s.patch.setattr(qkv.cli.make, "runs", broken)
    return ["runs"]


def missing_package(s: Scene) -> None:
    raise ModuleNotFoundError("No module named 'kiwipiepy'", name="kiwipiepy")


def tokenizer_folder(s: Scene) -> None:
    from qkv.text import Tokenizer

    best = s.folder / s.run() / "best"
    (best / "tokenizer.json").write_text("{")
    Tokenizer.load(best)


def model_file(s: Scene, content: bytes, name: str = "x.safetensors") -> None:
    from qkv.weights.files import read_tensors

    s.write(name, content)
    read_tensors(s.folder / name)


# code -> what provokes it (argv, or a call of the library that raises), and the exit code
PROVOKE = {
    "QKV-001": (lambda s: ["transalte", "x"], 2),
    "QKV-010": (lambda s: ["train", "tiny.toml", "optim.warmpu=3"], 2),
    "QKV-011": (lambda s: ["train", "tiny.toml", "train.steps=many"], 2),
    "QKV-012": (lambda s: ["train", "tiny.toml", "optim.lr=-1"], 2),
    "QKV-013": (lambda s: ["train", "tiny.toml", "data.train.source_path=a"], 2),
    "QKV-014": (lambda s: ["train", s.write("bad.toml", "name = \n")], 2),
    "QKV-015": (lambda s: ["train", s.write("empty.toml", "seed = 1\n")], 2),
    "QKV-020": (lambda s: ["train", "nowhere.toml"], 3),
    "QKV-021": (lambda s: ["translate", "--model", "runs/none-1", "커피"], 3),
    "QKV-022": (missing_package, 3),
    "QKV-023": (lambda s: ["fetch", "tatoeba-ko"], 3),
    "QKV-030": (lambda s: s.train_on("커피\tcoffee\n".encode("cp949")), 1),
    "QKV-031": (unequal_files, 1),
    "QKV-032": (lambda s: s.train_on("\n\n\t\n"), 1),
    "QKV-033": (lambda s: s.train_on("{broken\n", "x.jsonl"), 1),
    "QKV-034": (
        lambda s: s.train_on("ko\ten\n하나\tone\n", "x.tsv", "data.train.source=korean"),
        1,
    ),
    "QKV-035": (changed_data, 1),
    "QKV-036": (lambda s: s.train_on(gzip.compress(b"a\tb\n" * 99)[:-9], "x.tsv.gz"), 1),
    "QKV-037": (long_source, 1),
    "QKV-038": (no_picture, 1),
    "QKV-040": (tokenizer_folder, 1),
    "QKV-041": (out_of_vocabulary, 1),
    "QKV-042": (lambda s: ["train", "tiny.toml", "text.kind=unigram", "text.vocab_size=8"], 1),
    "QKV-050": (lambda s: model_file(s, b"\xff" * 64), 1),
    "QKV-051": (lambda s: tensors(s, 1.0, {"v": (2, 3)}), 1),
    "QKV-052": (lambda s: tensors(s, 1.0, {"w": (3, 2)}), 1),
    "QKV-053": (lambda s: tensors(s, float("nan")), 1),
    "QKV-054": (lambda s: model_file(s, b"\x80\x02}q\x00.", "pytorch_model.bin"), 1),
    "QKV-055": (lambda s: ["train", "tiny.toml", "model.family=transfomer"], 2),
    "QKV-060": (damaged, 1),
    "QKV-061": (lambda s: ["init", "ko-en", "-o", "tiny.toml/below.toml"], 1),
    "QKV-062": (busy, 1),
    "QKV-063": (newer_format, 1),
    "QKV-070": (too_much_memory, 4),
    "QKV-071": (
        lambda s: ["train", "tiny.toml", "optim.lr=1e38", "optim.warmup=0", "optim.clip=0"],
        5,
    ),
    "QKV-072": (broken_law, 1),
    "QKV-073": (lambda s: signalled(s, signal.SIGTERM), 75),
    "QKV-074": (lambda s: signalled(s, signal.SIGINT), 130),
    "QKV-075": (not_finite, 1),
    "QKV-080": (unreachable, 1),
    "QKV-081": (unverified, 1),
    "QKV-090": (our_fault, 1),
}


def test_the_table_has_every_code_of_the_catalogue() -> None:
    assert set(PROVOKE) == set(CATALOGUE)


@pytest.mark.parametrize("code", PROVOKE)
def test_one_line_with_code_place_seen_and_fix(code, tmp_path, monkeypatch, capsys):
    provoke, exit_code = PROVOKE[code]
    scene = Scene(tmp_path, monkeypatch)
    try:
        argv = provoke(scene)
    except Exception as e:
        error = as_error(e)
        assert (error.code, error.exit_code) == (code, exit_code)
        line = error.line("en")
    else:
        got = cli.main([*argv, "--lang", "en"])
        said = capsys.readouterr()
        line = said.err.rstrip("\n").rsplit("\n", 1)[-1]
        assert "Traceback" not in said.err + said.out
        assert said.err.count("error[") == 1
        assert got == exit_code, line
    assert re.fullmatch(rf"error\[{code}\] \S.* — \S.*", line), line


@pytest.mark.parametrize("code", CATALOGUE)
def test_a_code_has_a_title_in_both_languages(code):
    english, korean = CATALOGUE[code]
    assert english.isascii() and re.search("[가-힣]", korean)
    line = QkvError("seen", place="here", fix="do", code=code).line("ko")
    assert line == f"오류[{code}] here: {korean}: seen — do"


def test_what_a_file_holds_cannot_forge_or_colour_a_line(tmp_path, monkeypatch, capsys):
    scene = Scene(tmp_path, monkeypatch)
    name = scene.write(
        "x.toml",
        'name = "a\\u001b[31m\\nerror[QKV-099] forged"\n[data.train]\npath = "train.tsv"\n',
    )
    assert cli.main(["train", name]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert not re.search(r"^error\[QKV-099", said, re.M)
