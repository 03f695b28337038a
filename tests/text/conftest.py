"""Small tokenisers of every kind, trained once on lines of our own."""

import random

import pytest

from qkv.text import TextConfig, Tokenizer, train

NOUNS = "커피 학교 친구 바다 책방 시장 노래 하늘 coffee school friend ocean market song river garden".split()
VERBS = "마셔요 갔어요 만나요 좋아해요 읽었어요 drinks opened watches likes carried".split()
ENDS = ["?", "!", ".", " ...", ", 그래서", " (yes)", "~ㅋㅋㅋ", " — é"]


def corpus(n: int = 300, seed: int = 7) -> list[str]:
    rng = random.Random(seed)
    return [
        f"{rng.choice(NOUNS)} {rng.choice(NOUNS).title()} {rng.choice(VERBS)}{rng.choice(ENDS)}"
        for _ in range(n)
    ] + ["1 < 2", "x<y>z 0x41", "## a # b", "3.14 eos pad bos unk"]


KINDS = {
    "unigram": TextConfig(kind="unigram", vocab_size=420),
    "bpe": TextConfig(kind="bpe", vocab_size=460),
    "wordpiece": TextConfig(kind="wordpiece", vocab_size=320),
    "words": TextConfig(kind="words", vocab_size=70),
    "chars": TextConfig(kind="chars", vocab_size=300),
    "bytes": TextConfig(kind="bytes"),
    "unigram-jamo": TextConfig(kind="unigram", vocab_size=420, jamo=True),
    "bpe-lower-jamo": TextConfig(kind="bpe", vocab_size=420, jamo=True, lowercase=True),
    "chars-jamo": TextConfig(kind="chars", vocab_size=300, jamo=True),
    "unigram-lower": TextConfig(kind="unigram", vocab_size=420, lowercase=True),
    "words-lower": TextConfig(kind="words", vocab_size=300, lowercase=True),
    "bytes-lower": TextConfig(kind="bytes", lowercase=True),
    "unigram-mask": TextConfig(kind="unigram", vocab_size=420, specials=("<mask>",)),
    "bpe-mask": TextConfig(kind="bpe", vocab_size=460, specials=("<mask>", "<extra_id_0>")),
    "wordpiece-mask": TextConfig(kind="wordpiece", vocab_size=320, specials=("<mask>",)),
    "bytes-mask": TextConfig(kind="bytes", specials=("<mask>",)),
}
LOSSLESS = [k for k in KINDS if k.split("-")[0] in ("unigram", "bpe", "bytes")]


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, Tokenizer]:
    lines = corpus()
    return {name: train(lines, config) for name, config in KINDS.items()}


@pytest.fixture(scope="session", params=list(KINDS))
def tk(request: pytest.FixtureRequest, tokenizers: dict[str, Tokenizer]) -> Tokenizer:
    return tokenizers[request.param]


@pytest.fixture(scope="session", params=LOSSLESS)
def lossless(request: pytest.FixtureRequest, tokenizers: dict[str, Tokenizer]) -> Tokenizer:
    return tokenizers[request.param]


@pytest.fixture(scope="session")
def lines() -> list[str]:
    return corpus()
