"""A small corpus for every objective, real tokenizers of two kinds, and what tests read off a batch."""

import random
from functools import cache

from qkv.data.objectives import OBJECTIVES, Specials
from qkv.data.records import Record
from qkv.data.report import SkipReport
from qkv.text import TextConfig, train

WORDS = "the cat sat on a mat and 고양이는 밥을 먹고 나서 잠을 잤다 café naïve well-known 3,000 🙂".split()


def sentence(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(n)) + rng.choice(".!?")


def document(i, most=14):
    """Sentences of 1 … 9 words; as many as i says."""
    rng = random.Random(i)
    return " ".join(sentence(rng, rng.randint(1, 9)) for _ in range(1 + i % most))


@cache
def tokenizer(kind="bpe"):
    texts = [document(i) for i in range(60)]
    return train(texts, TextConfig(kind=kind, vocab_size=400, min_count=1))


def specials(tok=None, **changed):
    """Our tokenizer's own ids, and the others behind its vocabulary."""
    V = (tok or tokenizer()).vocab_size
    own = {"pad": 0, "bos": 1, "eos": 2, "cls": V, "sep": V + 1, "mask": V + 2}
    return Specials(
        **(own | {"sentinels": tuple(range(V + 3, V + 103)), "vocab_size": V} | changed)
    )


def records(values):
    return [Record(v, f"memory:{i}") for i, v in enumerate(values, 1)]


def read(values):
    """Records and a report that counts them as used, as a reader leaves it."""
    report, made = SkipReport(), records(values)
    for record in made:
        for _ in range(record.lines):
            report.use()
    return made, report


def build(name, values, tok=None, special=None, report=None, **settings):
    tok = tok or tokenizer()
    made, own = read(values)
    o = OBJECTIVES[name]
    task = o.build(o.config(**settings), made, tok, special or specials(tok), report or own)
    if report is None:
        assert own.read == own.used + sum(own.skipped.values())
    return task


def texts(n=40):
    return [{"text": document(i)} for i in range(n)]


def marked(i):
    """A text with two spans of characters."""
    rng = random.Random(i)
    words = [rng.choice(WORDS) for _ in range(6 + i % 5)]
    text = " ".join(words)
    begin = len(" ".join(words[:2])) + 1
    spans = [
        {"start": begin, "end": begin + len(words[2]), "kind": "PS"},
        {"start": begin + len(words[2]) + 1, "end": begin + len(" ".join(words[2:5])), "kind": "LC"},
    ]  # fmt: skip
    return {"text": text, "spans": spans}


def asked(i):
    """A question whose answer is the third word of a later sentence, or that has none."""
    context = document(i + 5)
    words = context.split()
    k = (i * 7) % len(words)
    start = len(" ".join(words[:k])) + (k > 0)
    answer = words[k].rstrip(".!?")
    found = [{"text": answer, "answer_start": start}] if i % 4 else []
    return {"context": context, "question": document(i)[:30], "answers": found}


CORPORA = {
    "lm": (texts, {"context": 16}),
    "windows": (texts, {"context": 16}),
    "mlm": (texts, {"max_tokens": 24}),
    "nsp": (texts, {"max_tokens": 32}),
    "spans": (texts, {"max_tokens": 24}),
    "infill": (texts, {"max_tokens": 24}),
    "classify": (
        lambda: [{"text": document(i), "label": str(i % 3)} for i in range(40)],
        {"max_tokens": 24},
    ),
    "regress": (
        lambda: [{"text": document(i), "pair": document(i + 1), "label": i / 8} for i in range(40)],
        {"max_tokens": 24},
    ),
    "tag": (lambda: [marked(i) for i in range(40)], {"max_tokens": 16}),
    "answer": (
        lambda: [asked(i) for i in range(40)],
        {"max_tokens": 32, "stride": 8, "max_question": 8},
    ),
    "contrast": (
        lambda: [{"text": document(i), "group": i % 12} for i in range(40)],
        {"max_tokens": 24},
    ),
    "chat": (
        lambda: [{"question": document(i), "answer": document(i + 1)} for i in range(40)],
        {"max_tokens": 256},
    ),
}


def task(name, tok=None):
    values, settings = CORPORA[name]
    return build(name, values(), tok, **settings)


def same(a, b):
    """Equal in every tensor, bit for bit."""
    pairs = [(getattr(a, f), getattr(b, f)) for f in a.__dataclass_fields__]
    return all((x is None and y is None) or (x is not None and y is not None and x.dtype == y.dtype and x.equal(y)) for x, y in pairs)  # fmt: skip
