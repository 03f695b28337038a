"""Gaps that an encoder-decoder fills: the rows are those it learned from, the answers are put where they belong.

What an encoder fills is in test_read.py."""

import numpy as np
import pytest

import qkv
from qkv import gaps
from qkv.data.objectives import Specials
from qkv.data.objectives.base import Draw
from qkv.data.objectives.denoise import SpanConfig, corrupt
from qkv.decode.answer import Hypothesis
from qkv.errors import ConfigError, DataError, UsageError
from qkv.model import Model
from qkv.models import build, configure
from qkv.text import TextConfig, train

WORDS = "the cat sat on mat dog rug old man big chair".split()
LINES = ["the cat sat on the mat", "the dog sat on the rug", "the old man sat on the big chair"]
NAMES = tuple(f"<extra_id_{i}>" for i in range(8))
SMALL = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "n_heads": 2, "dropout": 0.0}
HOW = {
    "spans": ({"rate": 0.35, "mean": 2.0}, SMALL | {"family": "t5", "d_head": 16}, 5e-2),
    "infill": ({}, SMALL | {"family": "bart", "max_positions": 32}, 3e-3),
}


@pytest.fixture(scope="module")
def tokenizer():
    return train(LINES, TextConfig(kind="words", vocab_size=60, specials=NAMES))


@pytest.fixture(scope="module")
def t5(tokenizer):
    config = configure({"family": "t5", "size": "tiny", "vocab_size": tokenizer.vocab_size})
    return Model(build(config), tokenizer, config)


@pytest.fixture(scope="module", params=HOW)
def learned(request, tmp_path_factory):
    """(kind, a model that knows LINES by heart)."""
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    (folder / "lines.txt").write_text("\n".join(LINES * 30))
    source = {"path": str(folder / "lines.txt"), "unit": "line"}
    objective, model, lr = HOW[kind]
    run = qkv.train(
        {
            "name": kind,
            "objective": {"kind": kind} | objective,
            "data": {"train": source, "dev": source},
            "text": {"kind": "words"},
            "model": model,
            "optim": {"lr": lr, "relative": kind == "spans", "warmup": 20, "schedule": "cosine"},
            "train": {"steps": 150, "batch_tokens": 512, "eval_every": 150, "save_every": 150},
        },
        root=folder,
    )
    return kind, run.best()


def test_what_was_learned_by_heart_is_filled_in(learned):
    kind, model = learned
    gap = "<extra_id_0>" if kind == "spans" else "<mask>"
    texts = [f"the {gap} on the mat", f"the {gap} on the rug"]
    found = model.fill(texts, n=3)
    assert [str(f) for f in found] == LINES[:2]
    words = {"spans": ["cat sat", "dog sat"], "infill": LINES[:2]}[kind]
    for made, word in zip(found, words, strict=True):
        (guesses,) = made.gaps
        assert guesses[0].word == word and 0.5 < guesses[0].score <= 1
        scores = [g.score for g in guesses]
        assert scores == sorted(scores, reverse=True) and sum(scores) <= 1 + 1e-6
        assert len({g.word for g in guesses}) == len(guesses)
    assert model.fill(texts[1], n=3) == found[1]  # alone as in a batch, to the bit


def test_the_row_that_is_asked_is_a_row_of_training(t5):
    """A text damaged as in training, written with the names of its gaps, is read as the same ids."""
    tok, specials = t5.tokenizer, Specials.of(t5.tokenizer)
    for seed in range(40):
        words = np.random.default_rng(seed).choice(WORDS, 12)
        ids = np.array(tok.encode(" ".join(words)).ids)
        source, _ = corrupt(ids, Draw(seed), SpanConfig(rate=0.4, mean=2.0), np.array(specials.sentinels))  # fmt: skip
        text = " ".join(piece.removeprefix("▁") for piece in tok.tokens(source.tolist()))
        parts = gaps._spans(0, text, len(NAMES))
        assert gaps._numbered(tok, parts, specials) == [*source.tolist(), tok.eos_id]


def answers(monkeypatch, tok, *texts: str) -> None:
    """What the search finds, whatever it is asked; names of gaps are written in the text."""
    names = {name: tok.id_of(name) for name in NAMES}
    made = []
    for k, text in enumerate(texts):
        ids = [names[w] if w in names else tok.encode(w).ids[0] for w in text.split()]
        made.append(Hypothesis(tuple(ids), -1.0 - k, True, ()))
    monkeypatch.setattr(gaps.Engine, "__call__", lambda self, sources: [made for _ in sources])


def test_an_answer_is_cut_at_the_names_of_its_gaps(t5, monkeypatch):
    answers(
        monkeypatch, t5.tokenizer, "<extra_id_0> old cat <extra_id_1> mat <extra_id_2>",
        "<extra_id_1> rug <extra_id_0> old cat", "<extra_id_0> man", "dog",
    )  # fmt: skip
    made = t5.fill("the <extra_id_0> sat on the <extra_id_1>.", n=4)
    assert str(made) == "the old cat sat on the mat."
    assert [[g.word for g in gap] for gap in made.gaps] == [["old cat", "man", ""], ["mat", "rug", ""]]  # fmt: skip
    # the first answer that says a word gives its probability
    assert [g.score for g in made.gaps[0]] == pytest.approx(np.exp([-1.0, -3.0, -4.0]))
    assert made.to_dict()["gaps"][1][0]["tokens"] == ("▁mat",)
    answers(monkeypatch, t5.tokenizer, "<extra_id_1> mat")  # the first gap is left empty
    assert str(t5.fill("the <extra_id_0> on the <extra_id_1>", n=1)) == "the on the mat"


@pytest.mark.parametrize(
    "text, said",
    [
        ("the cat", "has no gap"),
        ("the <mask>", "has no gap"),
        ("<extra_id_1> the <extra_id_0>", "names its gaps 1, 0"),
        ("the <extra_id_1>", "names its gaps 1"),
        (" ".join(f"<extra_id_{i}>" for i in range(9)), "names its gaps 0, 1"),
    ],
)
def test_a_text_without_gaps_or_with_others_is_told(t5, text, said):
    with pytest.raises(DataError, match=said) as e:
        t5.fill(["a <extra_id_0>", text])
    assert "text 1" in str(e.value) and "<extra_id_0>" in e.value.fix


def test_more_answers_than_can_be_searched_for_are_refused(t5):
    with pytest.raises(ConfigError, match="n = 101"):
        t5.fill("a <extra_id_0>", n=101)


@pytest.mark.parametrize("family, size", [("gpt2", "nano"), ("transformer", "tiny")])
def test_who_names_no_gaps_fills_none(family, size):
    tok = train(LINES, TextConfig(kind="words", vocab_size=60))
    config = configure({"family": family, "size": size, "vocab_size": tok.vocab_size})
    with pytest.raises(UsageError, match="fill needs a model with a head mlm or pretraining"):
        Model(build(config), tok, config).fill("a <mask>")
