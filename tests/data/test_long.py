"""Long texts with known answers: every label proven by another evaluator, the grammar, the splits, the errors."""

import re
import statistics

import pytest

from qkv.data.long import LongTask, examples, value
from qkv.data.records import RecordSource, read_records
from qkv.data.report import SkipReport
from qkv.data.sources import PairSource, read_pairs
from qkv.errors import ConfigError, DataError, MissingError, QkvError
from qkv.text import TextConfig, train

INNER = re.compile(r"\[(MAX|MIN|MED|SM)((?: \d)+) \]")
SAYS = {
    "MAX": lambda x: sorted(x)[-1],
    "MIN": lambda x: sorted(x)[0],
    "MED": lambda x: int(statistics.median(x)),
    "SM": lambda x: int(str(sum(x))[-1]),
}


def reduced(text):
    """Innermost lists replaced by what they come to, until one digit is left: no stack, no recursion."""
    while not text.isdigit():
        text, n = INNER.subn(lambda m: str(SAYS[m[1]]([int(x) for x in m[2].split()])), text)
        assert n, text
    return text


def listops(split="train", **more):
    return list(examples(LongTask(name="listops", **more), split))


@pytest.mark.parametrize("sizes", [dict(n=20), dict(n=300, length=60, least=4)], ids=str)
def test_every_label_is_what_another_evaluator_says(sizes):
    for text, label in listops(**sizes):
        assert reduced(text) == label


@pytest.mark.parametrize(
    "text, said",
    [("[MED 1 2 ]", 1), ("[MED 9 1 4 ]", 4), ("[SM 9 9 [MIN 3 1 ] ]", 9), ("[MED 1 4 2 9 ]", 3)],
)
def test_operators(text, said):
    assert value(text.split()) == said == int(reduced(text))


def test_texts_follow_the_published_grammar():
    lengths, items, lists = [], 0, 0
    for text, _ in listops(n=60, length=2000, least=500):
        tokens, open_ = text.split(), []
        lengths.append(len(tokens))
        for token in tokens:
            if token == "]":
                n = open_.pop()
                assert 2 <= n <= 10
            if token != "]" and open_:
                open_[-1] += 1
                if len(open_) < 10:
                    items, lists = items + 1, lists + token.startswith("[")
            if token.startswith("["):
                open_.append(0)
                assert len(open_) <= 10
    assert 500 <= min(lengths) and max(lengths) <= 2000 and max(lengths) > 1200
    # a quarter of the items are lists, a little more where short texts were thrown away
    assert 0.23 < lists / items < 0.30


def test_all_operators_and_answers_occur():
    made = listops(n=400, length=40, least=4)
    tokens = " ".join(text for text, _ in made).split()
    share = [tokens.count(op) / sum(t[0] == "[" for t in tokens) for op in ("[MAX", "[MIN", "[MED", "[SM")]  # fmt: skip
    assert min(share) > 0.2 and {label for _, label in made} == set("0123456789")


def test_splits_are_disjoint_and_examples_a_function_of_their_task():
    sizes = dict(n=150, length=30, least=4)
    seen = [{text for text, _ in listops(split, **sizes)} for split in ("train", "dev", "test")]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    assert listops(**sizes) == listops(**sizes) != listops(**sizes, seed=1)
    assert listops(**sizes)[:20] == listops(**{**sizes, "n": 20})


def test_a_match_is_a_match():
    made = list(examples(LongTask(name="match", n=400, length=30, least=5), "dev"))
    for a, b, label in made:
        marks = [re.findall(r"\* (\w)", text) for text in (a, b)]
        assert all(len(m) == 1 for m in marks)
        assert (marks[0] == marks[1]) == (label == "same")
        assert all(5 <= len(re.findall(r"[a-z]", text)) <= 30 for text in (a, b))
    assert (
        abs(sum(label == "same" for *_, label in made) - 200) < 4 * 10
    )  # four deviations of a coin
    train_ = examples(LongTask(name="match", n=400, length=30, least=5), "train")
    assert not {(a, b) for a, b, _ in train_} & {(a, b) for a, b, _ in made}


# -- as sources ---------------------------------------------------------------------------------------------


def test_records_have_the_objectives_names_and_places():
    report = SkipReport()
    source = RecordSource("builtin:match/test?n=3&length=9")
    made = list(read_records(source, report))
    assert [list(r.values) for r in made] == [["text", "pair", "label"]] * 3
    assert made[2].place == "builtin:match/test:3" and report.used == report.read == 3
    assert source.paths == () and source.kind == "builtin"
    named = RecordSource("builtin:listops/dev?n=2&length=20", {"text": "text", "label": 1})
    assert all(set(r.values["label"]) <= set("0123456789") for r in read_records(named, report))


def test_pairs_read_it_too():
    pairs = list(read_pairs(PairSource("builtin:listops/dev?n=4&length=20"), SkipReport()))
    assert [p.target for p in pairs] == [reduced(p.source) for p in pairs]


def test_a_token_of_listops_is_a_piece_of_bpe():
    """Merges never cross a space, and fifteen words are soon whole."""
    texts = [text for text, _ in listops(n=100, length=40)]
    tok = train(texts, TextConfig(kind="bpe", vocab_size=400))
    for text in texts[:20]:
        assert [t.strip(" ▁") for t in tok.tokens(tok.encode(text).ids)] == text.split()


@pytest.mark.parametrize(
    "path, error, code, word",
    [
        ("builtin:listop/train", MissingError, "QKV-020", "listops"),
        ("builtin:listops/trian", MissingError, "QKV-020", "train"),
        ("builtin:listops?lenght=3", ConfigError, "QKV-010", "length"),
        ("builtin:listops?n=0", ConfigError, "QKV-012", "n=1"),
        ("builtin:listops?args=1", ConfigError, "QKV-012", "args=2"),
        ("builtin:listops?length=100&least=200", ConfigError, "QKV-012", "least=25"),
        ("builtin:listops?length=500&least=400&depth=1", ConfigError, "QKV-012", "depth"),
        ("builtin:listops?n=x", ConfigError, "QKV-011", "n=1000"),
    ],
)
def test_misspelt_and_impossible_settings_are_named(path, error, code, word):
    with pytest.raises(error) as e:
        list(read_records(RecordSource(path), SkipReport()))
    assert e.value.code == code and word in str(e.value)


def test_unknown_columns_are_named():
    with pytest.raises(DataError, match="no column 'answer'") as e:
        list(read_records(RecordSource("builtin:listops", {"text": "answer"}), SkipReport()))
    assert e.value.code == "QKV-034" and isinstance(e.value, QkvError)
