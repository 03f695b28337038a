"""Training: deterministic, silent, and refusing with numbers what cannot work."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from qkv.errors import ConfigError, TokenizerError
from qkv.text import TextConfig, Tokenizer, train

ALL = ["unigram", "bpe", "wordpiece", "words", "chars", "bytes"]


def test_the_same_lines_give_the_same_bytes(
    tokenizers: dict[str, Tokenizer], lines: list[str], tk: Tokenizer
) -> None:
    again = train(iter(lines), tk.config)
    assert again.files() == tk.files() and again.fingerprint == tk.fingerprint


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import corpus
from qkv.text import TextConfig, train
for kind in sys.argv[2:]:
    print(train(corpus(), TextConfig(kind=kind, vocab_size=440)).fingerprint)
"""


def test_another_process_gives_the_same_bytes_and_prints_nothing(lines: list[str]) -> None:
    here = [train(lines, TextConfig(kind=k, vocab_size=440)).fingerprint for k in ALL]
    for threads in ("1", "3"):
        env = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        made = subprocess.run(
            [sys.executable, "-c", PROGRAM, os.path.dirname(__file__), *ALL],
            capture_output=True,
            text=True,
            env=env,
            check=True,
        )
        assert made.stdout.split() == here
        assert made.stderr == ""


FORK = """
import os
from qkv.text import TextConfig, train
tk = train(["a b c"] * 9, TextConfig(kind="chars"))
tk.encode_batch(["a b c"] * 500)
child = os.fork()
if child == 0:
    os._exit(len(tk.encode_batch(["a b"] * 100)))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "TOKENIZERS_PARALLELISM" in os.environ)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_encodes_without_a_warning() -> None:
    env = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    made = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, env=env)
    assert (made.stdout, made.stderr) == ("100 False\n", "")


def test_importing_needs_neither_torch_nor_the_libraries() -> None:
    program = (
        "import sys, qkv.text; print({'torch', 'tokenizers', 'sentencepiece'} & set(sys.modules))"
    )
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert made.stdout == "set()\n"


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("lines", [[], ["", "  ", "\n"]])
def test_nothing_to_learn_from_is_refused(kind: str, lines: list[str]) -> None:
    if kind == "bytes":
        assert train(lines, TextConfig(kind="bytes")).vocab_size == 260
        return
    with pytest.raises(TokenizerError, match="no line with text") as e:
        train(lines, TextConfig(kind=kind))
    assert e.value.code == "QKV-042" and e.value.fix


def test_specials_of_one_s_own_are_a_part_of_what_would_do(lines: list[str]) -> None:
    config = TextConfig(kind="chars", vocab_size=52, specials=("<a>", "<b>"))
    with pytest.raises(TokenizerError, match="vocab_size 52 is too small") as e:
        train(lines, config)
    need = int(e.value.fix.split(">= ")[1].split(",")[0])
    assert train(lines, replace(config, vocab_size=need)).vocab_size == need
    with pytest.raises(TokenizerError, match=f"vocab_size {need - 1} is too small"):
        train(lines, replace(config, vocab_size=need - 1))


@pytest.mark.parametrize("kind", ["unigram", "bpe", "wordpiece", "chars"])
def test_a_vocabulary_too_small_says_what_would_do(kind: str, lines: list[str]) -> None:
    with pytest.raises(TokenizerError, match="too small") as e:
        train(lines, TextConfig(kind=kind, vocab_size=50))
    assert e.value.code == "QKV-042"
    need = int(e.value.fix.split(">= ")[1].split(",")[0])
    try:
        made = train(lines, TextConfig(kind=kind, vocab_size=need))
    except TokenizerError as again:  # word pieces count their letters twice, known only afterwards
        assert kind == "wordpiece"
        need = int(again.fix.split(">= ")[1].split(",")[0])
        made = train(lines, TextConfig(kind=kind, vocab_size=need))
    assert made.vocab_size <= need
    with pytest.raises(TokenizerError):
        train(lines, TextConfig(kind=kind, vocab_size=need - 1))


@pytest.mark.parametrize("kind", ALL)
def test_a_vocabulary_is_never_larger_than_asked(kind: str, lines: list[str]) -> None:
    for size in (400, 100_000):
        assert 5 < train(lines, TextConfig(kind=kind, vocab_size=size)).vocab_size <= size


def test_rare_characters_get_no_piece() -> None:
    lines = ["ab ab"] * 20 + ["a漢b 字"]
    for kind in ("unigram", "bpe", "chars", "wordpiece", "words"):
        common, every = (
            train(lines, TextConfig(kind=kind, vocab_size=300, min_count=n)) for n in (2, 1)
        )
        assert not any("漢" in p for p in common.tokens(range(common.vocab_size)))
        assert any("漢" in p for p in every.tokens(range(every.vocab_size)))


def test_jamo_learns_fewer_letters_and_gives_back_syllables(lines: list[str]) -> None:
    syllables, jamo = (
        train(lines, TextConfig(kind="chars", vocab_size=300, jamo=j)) for j in (False, True)
    )
    assert jamo.vocab_size < syllables.vocab_size
    assert jamo.decode(jamo.encode("커피 마셔요").ids) == "커피 마셔요"


def test_hostile_lines_can_be_trained_on() -> None:
    lines = [
        "▁ ▅ ⁇ \t \0 <s> </s> <unk> <pad> <0x41>",
        "a" * 5000,
        "커피 " * 3000,
        "\u2028\r",
        "한 글",
    ] * 3
    for kind in ALL:
        tk = train(lines, TextConfig(kind=kind, vocab_size=400))
        assert Tokenizer.from_files(tk.files()).fingerprint == tk.fingerprint
        for x in lines:
            made = tk.encode(x).ids
            assert not set(made) & {0, 1, 2}
            if tk.kind in ("unigram", "bpe", "bytes"):
                assert tk.decode(made) == x


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"kind": "bpee"}, "QKV-012"),
        ({"vocab_size": 4}, "QKV-012"),
        ({"vocab_size": True}, "QKV-012"),
        ({"vocab_size": 10**9}, "QKV-012"),
        ({"sample_alpha": float("nan")}, "QKV-012"),
        ({"sample_alpha": 1.5}, "QKV-012"),
        ({"min_count": 0}, "QKV-012"),
        ({"kind": "bytes", "jamo": True}, "QKV-013"),
        ({"specials": ("[MASK]",)}, "QKV-012"),
        ({"specials": ("<pad>",)}, "QKV-012"),
        ({"specials": ("<0x41>",)}, "QKV-012"),
        ({"specials": ("<a>", "<a>")}, "QKV-012"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], code: str) -> None:
    with pytest.raises(ConfigError) as e:
        TextConfig(**settings)  # type: ignore[arg-type]
    assert e.value.code == code and e.value.fix


@pytest.mark.parametrize("kind", ["unigram-mask", "bpe-mask", "wordpiece-mask", "bytes-mask"])
def test_further_specials_are_the_last_ids_and_no_text(
    kind: str, tokenizers: dict[str, Tokenizer]
) -> None:
    tk = tokenizers[kind]
    n, names = tk.vocab_size, tk.config.specials
    assert [tk.id_of(s) for s in names] == list(range(n - len(names), n))
    assert tk.mask_id == tk.id_of("<mask>")
    for text in ("<mask>", "a <mask> b", "<extra_id_0>"):
        assert max(tk.encode(text).ids) < n - len(names)
    assert tk.decode([*tk.encode("ocean").ids, tk.id_of("<mask>")]) == "ocean"
    again = Tokenizer.from_files(tk.files())
    assert again.fingerprint == tk.fingerprint and again.mask_id == tk.mask_id


def test_without_specials_the_files_stay_as_they_were(tokenizers: dict[str, Tokenizer]) -> None:
    tk = tokenizers["bpe"]
    assert b"specials" not in tk.files()["qkv_tokenizer.json"]
    assert tk.mask_id is None and tk.id_of("<mask>") is None


def test_specials_that_a_file_lost_are_noticed(tokenizers: dict[str, Tokenizer]) -> None:
    files = tokenizers["unigram-mask"].files()
    files["qkv_tokenizer.json"] = files["qkv_tokenizer.json"].replace(b"<mask>", b"<masc>")
    with pytest.raises(TokenizerError):
        Tokenizer.from_files(files)
