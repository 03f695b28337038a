"""Classes, numbers, tags, answers, pairs and turns: labels go to tokens and back to characters."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_tiny import asked, build, document, marked, read, specials, tokenizer

from qkv.data.objectives import OBJECTIVES, feed
from qkv.data.objectives.answer import spans_of, token_span
from qkv.data.objectives.base import Draw
from qkv.data.objectives.chat import ChatConfig, ChatTemplate, Writer, turns_of
from qkv.data.objectives.tag import (
    Mark,
    TagConfig,
    agreed,
    apart,
    marks,
    read_marks,
    speaking,
    token_tags,
)
from qkv.data.objectives.texts import solid
from qkv.data.records import Record
from qkv.errors import ConfigError, DataError

NO_DRAW = Draw(0)


def made_of(name, values, **settings):
    """(task, what the report lists)."""
    rows, report = read(values)
    o = OBJECTIVES[name]
    task = o.build(o.config(**settings), rows, tokenizer(), specials(), report)
    assert report.read == report.used + sum(report.skipped.values())
    return task, [(line, reason) for _, line, reason in report.places()], report


# -- classes and numbers --------------------------------------------------------------------------------------------


def test_classes_are_numbered_and_strangers_counted():
    values = [
        {"text": document(i), "label": label} for i, label in enumerate([10, 2, "2", "b", "a"])
    ]
    task, skipped, _ = made_of("classify", values)
    assert task.config.classes == ("2", "10", "a", "b") and not skipped
    assert [task.row(i, NO_DRAW).label for i in range(5)] == [1, 0, 0, 3, 2]
    dev, skipped, _ = made_of(
        "classify", values + [{"text": "x", "label": "c"}], classes=("a", "b", "2", "10")
    )
    assert [dev.row(i, NO_DRAW).label for i in range(5)] == [3, 2, 2, 1, 0]
    assert skipped == [(6, "unknown label")]
    with pytest.raises(DataError, match="unknown label"):
        made_of("classify", values, classes=("y", "z"))


def test_what_names_no_class_is_counted_and_one_class_is_refused():
    names = ["a", "b", ["a", "b"], {"a": 1}, "9" * 5000]
    task, skipped, _ = made_of("classify", [{"text": "cat", "label": x} for x in names])
    assert task.config.classes == ("9" * 5000, "a", "b")
    assert skipped == [(3, "not a label"), (4, "not a label")]
    with pytest.raises(DataError, match="one class: 'a'"):
        made_of("classify", [{"text": "cat", "label": "a"}] * 3)


def test_sampled_texts_are_cut_anew_in_every_epoch_and_alike_for_one_seed():
    tok = tokenizer()
    values = [{"text": document(i), "pair": document(i + 1), "label": i % 2} for i in range(8)]
    task, _, _ = made_of("classify", values, max_tokens=256)
    plain = [task.row(i, NO_DRAW) for i in range(8)]
    task.sampled(tok, 0.5)
    rows = [[task.row(i, Draw(1, epoch, i)) for i in range(8)] for epoch in (0, 1)]
    again = [task.row(i, Draw(1, 0, i)) for i in range(8)]
    assert [r.source.tolist() for r in rows[0]] == [r.source.tolist() for r in again]
    assert sum(a.source.tolist() != b.source.tolist() for a, b in zip(*rows, strict=True)) > 4
    for row, whole in zip(rows[0], plain, strict=True):
        said = [
            tok.decode(i for i in r.source.tolist() if i < tok.vocab_size) for r in (row, whole)
        ]
        assert said[0] == said[1]
    short, _, _ = made_of("classify", values, max_tokens=12)
    short.sampled(tok, 1.0)
    assert all(len(short.row(i, Draw(1, 0, i)).source) <= 12 for i in range(8))


def test_a_row_is_the_framed_text_and_long_ones_are_cut_and_counted():
    tok, sp = tokenizer(), specials()
    values = [{"text": document(i), "pair": document(i + 3), "label": i % 2} for i in range(20)]
    task, _, report = made_of("classify", values, max_tokens=20)
    cut = 0
    for i, v in enumerate(values):
        a, b = tok.encode(v["text"]).ids, tok.encode(v["pair"]).ids
        row = task.row(i, NO_DRAW)
        cut += len(a) + len(b) > 17
        sep = row.source.tolist().index(sp.sep)
        first, second = row.source[1:sep].tolist(), row.source[sep + 1 : -1].tolist()
        assert first == a[: len(first)] and second == b[: len(second)]
        assert len(first) + len(second) == min(17, len(a) + len(b))
        assert row.segment.tolist() == [0] * (sep + 1) + [1] * (len(second) + 1)
    assert report.shortened == cut > 3


def test_numbers_are_floats_and_what_is_none_is_counted():
    labels = [1, 2.5, "3.25", "x", "nan", None, float("inf"), True]
    task, skipped, _ = made_of("regress", [{"text": "cat", "label": x} for x in labels])
    assert [task.row(i, NO_DRAW).label for i in range(4)] == [1.0, 2.5, 3.25, 1.0]
    assert skipped == [(line, "not a number") for line in (4, 5, 6, 7)]
    _, skipped, _ = made_of("regress", [{"text": "cat", "label": x} for x in (1, 10**400, 1e39)])
    assert skipped == [(2, "not a number"), (3, "not a number")]  # beyond float32
    label = feed(task, 64, 1).batch(0).label
    assert label.dtype.is_floating_point and sorted(label.tolist()) == [1.0, 1.0, 2.5, 3.25]


# -- tags -------------------------------------------------------------------------------------------------------------


@st.composite
def marked_text(draw):
    """Words, some of them marked, never two marks that touch with one kind between them unseparated."""
    words = draw(
        st.lists(
            st.text(st.sampled_from("ab김재원🙂"), min_size=1, max_size=4), min_size=1, max_size=8
        )
    )
    text, found = "", []
    for word in words:
        text += (
            draw(st.sampled_from([" ", "  ", "\n"])) if text else draw(st.sampled_from(["", " "]))
        )
        if draw(st.booleans()):
            found.append(
                Mark(len(text), len(text) + len(word), draw(st.sampled_from(["PS", "LC"])))
            )
        text += word
    if len(found) > 1 and draw(st.booleans()):  # one that reaches over several words
        a, b = found[0], found[-1]
        found = [Mark(a.start, b.end, "OG")]
    return text, found


def character_tags(text, found):
    tags = ["O"] * len(text)
    for m in found:
        tags[m.start : m.end] = [f"B-{m.kind}"] + [f"I-{m.kind}"] * (m.end - m.start - 1)
    return tags


@given(marked_text())
@settings(max_examples=150, deadline=None)
def test_tags_of_characters_and_spans_are_the_same_thing(case):
    text, found = case
    assert marks(character_tags(text, found)) == found
    for values in (
        {"text": text, "tags": character_tags(text, found)},
        {"text": text, "spans": [{"start": a, "end": b, "slot": k} for a, b, k in found]},
    ):
        assert read_marks(Record(values, "f:1")) == (text, found)


@given(marked_text(), st.integers(0, 2**30))
@settings(max_examples=150, deadline=None)
def test_spans_survive_the_way_through_tokens(case, key):
    """Tokens cut anywhere within words, with or without the white space in front: spans along token borders come back."""
    text, found = case
    rng = np.random.default_rng(key)
    edges = {0, len(text)} | {e for m in found for e in (m.start, m.end)}
    edges |= {k for k in range(len(text)) if rng.random() < 0.4}
    cuts = sorted(edges)
    offsets = list(zip(cuts, cuts[1:], strict=False))
    if rng.random() < 0.5:  # a token of " word" begins with its space
        offsets = [(max(0, a - 1) if a and text[a - 1].isspace() else a, b) for a, b in offsets]
        offsets = [(a, b) for a, b in offsets if a < b]
    tags = token_tags(text, offsets, found)
    said, places = speaking(text, offsets, "tokens")
    assert marks([tags[i] for i in said], places) == found
    whole = token_tags(text, [(0, len(text))], found)  # one token for all: it is the first span
    assert whole == ([f"B-{found[0].kind}"] if found else ["O"])


def test_stray_tags_begin_spans_as_conll_reads_them():
    tags = ["I-PS", "I-PS", "B-PS", "I-LC", "O", "I-LC", "B-LC", "I-PS"]
    assert marks(tags) == [(0, 2, "PS"), (2, 3, "PS"), (3, 4, "LC"), (5, 6, "LC"), (6, 7, "LC"), (7, 8, "PS")]  # fmt: skip
    assert marks([]) == [] and marks(["O", "O"]) == []


@pytest.mark.parametrize("names", [("O", "B-a", "I-a", "B-b", "I-b"), ("O", "I-a", "B-b", "I-b")])
def test_tags_agree_as_a_search_of_all_sequences_finds(names):
    """The slow twin: of every sequence in which an I continues its kind, the likeliest.  An I without a B may begin."""
    rng = np.random.default_rng(0)

    def may(path):
        last = ("O", *path[:-1])
        kinds = {n[2:] for n in names if n[0] == "B"}
        return all(t[0] != "I" or t[2:] not in kinds or b[2:] == t[2:] for b, t in zip(last, path, strict=True))  # fmt: skip

    for n in (1, 2, 4):
        paths = [p for p in itertools.product(range(len(names)), repeat=n) if may([names[i] for i in p])]  # fmt: skip
        for _ in range(30):
            p = rng.dirichlet(np.full(len(names), 0.4), size=n).astype(np.float32)
            scores = [np.log(np.maximum(p[range(n), path], 1e-37)).sum() for path in paths]
            made = agreed(p, names)
            assert may([names[i] for i in made])
            assert np.log(np.maximum(p[range(n), made], 1e-37)).sum() == pytest.approx(max(scores))
    assert agreed(np.empty((0, len(names)), np.float32), names) == []


def test_a_stray_inside_is_mended_by_its_neighbours():
    names = ("O", "B-a", "I-a")
    p = np.array([[0.5, 0.4, 0.1], [0.1, 0.1, 0.8]], np.float32)
    assert p.argmax(-1).tolist() == [0, 2] and agreed(p, names) == [1, 2]  # O I-a: a span cut short


def test_of_overlapping_spans_the_first_and_longer_is_learned_and_all_are_kept():
    found = [Mark(11, 13, "time"), Mark(0, 13, "date"), Mark(14, 16, "time"), Mark(14, 16, "date")]
    assert apart(found) == [Mark(0, 13, "date"), Mark(14, 16, "date")]
    v = {"text": "Tuesday at 12 ok", "spans": [m._asdict() for m in found]}
    task, skipped, _ = made_of("tag", [v])
    assert (
        not skipped and task.marked[0][1] == sorted(found) and task.config.kinds == ("date", "time")
    )


@pytest.mark.parametrize("most", [10, 128])
@pytest.mark.parametrize("on", ["tokens", "words"])
def test_predicted_labels_are_the_marks_of_whole_texts(on, most):
    """Texts of one row and of several: the labels that are to be learned, decoded, are what was marked."""
    values = [marked(i) for i in range(40)]
    task, _, _ = made_of("tag", values, on=on, max_tokens=most)
    rows = [task.row(i, NO_DRAW) for i in range(len(task.piece))]
    assert (len(rows) == 40) == (most == 128)
    gold = [[Mark(s["start"], s["end"], s["kind"]) for s in v["spans"]] for v in values]
    sure = np.eye(len(task.config.labels), dtype=np.float32)
    assert task.spans([sure[r.target] for r in rows]) == gold
    for row in rows:
        assert (row.target[~row.counts] == 0).all() or on == "tokens"
        assert not row.counts[[0, -1]].any()
    words = sum(len(v["text"].split()) for v in values)
    assert (on == "tokens") or sum(int(r.counts.sum()) for r in rows) == words


def test_words_with_tags_of_each_word():
    v = {"words": ["김재원", "is", "in", "New", "York"], "tags": ["B-PS", "O", "O", "B-LC", "I-LC"]}
    task, _, _ = made_of("tag", [v], on="words")
    assert task.marked[0] == ("김재원 is in New York", [Mark(0, 3, "PS"), Mark(10, 18, "LC")])
    row = task.row(0, NO_DRAW)
    assert [task.config.labels[k] for k in row.target[row.counts]] == v["tags"]


def test_tags_that_do_not_fit_are_counted():
    good = {"text": "ab c", "tags": ["B-X", "I-X", "O", "O"]}
    bad = [
        {"text": "ab c", "tags": ["O"] * 3},
        {"text": "ab", "tags": ["O", 1]},
        {"text": "ab", "tags": ["O", "X-Y"]},
        {"text": "ab", "tags": ["B-", "O"]},
        {"text": "ab", "spans": [{"start": 1, "end": 3, "kind": "X"}]},
        {"text": "ab", "spans": [{"start": 1, "end": 1, "kind": "X"}]},
        {"text": "ab", "spans": ["X"]},
        {"text": "ab", "spans": [{"start": 0, "end": 1, "kind": "X", "text": "b"}]},
        {"words": ["a"], "tags": ["O", "O"]},
        {"words": [" "], "tags": ["O"]},
        {"text": 3, "tags": []},
    ]
    task, skipped, _ = made_of("tag", [good, *bad])
    assert skipped == [(line, "tags do not fit") for line in range(2, 13)]
    assert task.config.labels == ("O", "B-X", "I-X")
    _, skipped, _ = made_of("tag", [good, {"text": "ab", "tags": ["B-Z", "O"]}], kinds=("X",))
    assert skipped == [(2, "unknown label")]
    with pytest.raises(DataError, match="marks anything"):
        made_of("tag", [{"text": "ab", "tags": ["O", "O"]}])
    assert TagConfig(kinds=("A", "B")).labels == ("O", "B-A", "I-A", "B-B", "I-B")


# -- answers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bpe", "unigram", "chars", "words"])
@pytest.mark.parametrize("most,stride", [(24, 4), (32, 8), (384, 128)])
def test_answers_come_back_from_their_tokens(kind, most, stride):
    """Of an answer that stands on token borders the very text; of any other the least tokens around it."""
    values = [asked(i) for i in range(60)]
    tok = tokenizer(kind)
    task = build("answer", values, tok, max_tokens=most, stride=stride, max_question=6)
    exact = 0
    found: dict[int, set] = {}
    for i, w in enumerate(task.windows):
        row, question = task.row(i, NO_DRAW), task.asked[w.example]
        assert len(row.source) <= most
        gold = question.context[question.start : question.end]
        if row.label == (0, 0):
            continue
        a, b = task.characters(i, *row.label)
        assert a <= question.start < question.end <= b
        spans = [solid(question.context, s) for s in task.offsets[w.example]]
        edges = {a for a, _ in spans}, {b for _, b in spans}
        if question.start in edges[0] and question.end in edges[1]:
            assert question.context[a:b] == gold
            exact += 1
        found.setdefault(w.example, set()).add(question.context[a:b])
    answered = {i for i, q in enumerate(task.asked) if q.end > q.start}
    assert set(found) <= answered and exact > 0.5 * len(found)  # “on.” may be one piece
    assert all(len(texts) == 1 for texts in found.values())  # every window says the same
    first, last = zip(*task.tokens, strict=True)
    if most == 384:
        assert set(found) == answered and len(task.windows) == len(task.asked)
    else:  # an answer no longer than the overlap is whole in at least one window
        for i in answered:
            room = most - len(task.questions[i]) - 3
            if last[i] - first[i] + 1 <= room - min(stride, room):
                assert i in found


def test_windows_cover_the_context_and_move_on_by_the_stride():
    task = build("answer", [asked(i) for i in range(40)], max_tokens=32, stride=8, max_question=8)
    for i in range(len(task.asked)):
        windows = [w for w in task.windows if w.example == i]
        n = len(task.contexts[i])
        room = 32 - len(task.questions[i]) - 3
        assert windows[0].begin == 0 and windows[-1].end == n
        assert all(b.begin - a.begin == 8 and a.end - a.begin == room for a, b in zip(windows, windows[1:], strict=False))  # fmt: skip
        assert {k for w in windows for k in range(w.begin, w.end)} == set(range(n))


def test_no_answer_is_the_first_token_and_outside_the_context_is_no_span():
    task = build("answer", [asked(4), asked(5)], max_tokens=64)
    assert task.asked[0].end == 0
    for i, w in enumerate(task.windows):
        row = task.row(i, NO_DRAW)
        if w.example == 0:
            assert row.label == (0, 0)
        at = task.context_at(i)
        context = task.contexts[w.example][w.begin : w.end]
        assert row.source[at : at + len(context)].tolist() == context
        assert task.characters(i, 0, 0) is None and task.characters(i, at, at - 1) is None
        assert (
            task.characters(i, at - 1, at) is None
            and task.characters(i, at, len(row.source) - 1) is None
        )
        assert task.characters(i, at, at) is not None
    gold = [task.row(i, NO_DRAW).label for i in range(len(task.windows))]
    said = spans_of(task, gold)
    assert set(said[0]) == {""} and set(said[1]) - {""} == {task.asked[1].answers[0]}
    assert token_span("a b", [(0, 1), (1, 3)], 1, 2) == (0, -1)  # white space alone


def test_answers_that_are_not_there_are_counted():
    context = "The cat sat."
    good = {"context": context, "question": "Who?", "answers": [{"text": "cat", "answer_start": 4}]}
    bad = [
        [{"text": "cat", "answer_start": 5}],
        [{"text": "cat", "answer_start": -8}],
        [{"text": "cat", "answer_start": "4"}],
        [{"text": " ", "answer_start": 3}],
        [{"text": "", "answer_start": 3}],
        ["cat"],
        {"text": "cat", "answer_start": 4},
        None,
    ]
    task, skipped, report = made_of("answer", [good, *({**good, "answers": a} for a in bad)])
    assert skipped == [(line, "answer not there") for line in range(2, 10)]
    assert task.asked[0].answers == ("cat",) and report.shortened == 0
    columns = {**good, "answers": {"text": ["cat"], "answer_start": [4]}}
    none = {**good, "answers": {"text": [], "answer_start": []}}
    task, skipped, _ = made_of("answer", [columns, none])  # as the Hub writes SQuAD
    assert not skipped and [(q.start, q.end) for q in task.asked] == [(4, 7), (0, 0)]
    spaced = {**good, "answers": [{"text": " cat ", "answer_start": 3}]}
    task, _, report = made_of("answer", [spaced], max_question=1)
    assert (task.asked[0].start, task.asked[0].end) == (4, 7) and report.shortened == 1
    with pytest.raises(ConfigError, match="no room"):
        made_of("answer", [good], max_tokens=4)


# -- pairs ----------------------------------------------------------------------------------------------------------------


def test_pairs_stand_beside_each_other_and_equal_texts_are_no_negatives():
    values = [
        {"text": "cat", "pair": "고양이는"},
        {"text": "mat", "pair": "sat"},
        {"text": "the", "pair": "cat"},
    ]
    task, _, _ = made_of("contrast", values)
    tok, sp = tokenizer(), specials()
    rows = [task.row(i, NO_DRAW) for i in range(3)]
    for row, v in zip(rows, values, strict=True):
        assert row.source.tolist() == [sp.cls, *tok.encode(v["text"]).ids, sp.sep]
        assert row.target.tolist() == [sp.cls, *tok.encode(v["pair"]).ids, sp.sep]
    assert [r.label for r in rows] == [0, 1, 0]  # "cat" stands in both


def test_of_a_group_every_text_comes_with_another_one():
    values = [{"text": f"cat {i} sat {i % 4}", "group": i % 4} for i in range(17)] + [
        {"text": "alone", "group": 9}
    ]
    task, skipped, _ = made_of("contrast", values)
    assert skipped == [(18, "alone in its group")] and len(task.example) == 17
    group_of = {tuple(task._framed(t)): g for g, group in enumerate(task.groups) for t in group}
    partners: dict[int, set] = {}
    for epoch in range(20):
        for i in range(17):
            row = task.row(i, Draw(1, epoch, i))
            a, b = tuple(row.source), tuple(row.target)
            assert a != b and group_of[a] == group_of[b] == row.label
            partners.setdefault(i, set()).add(b)
    sizes = {len(p) for p in partners.values()}
    assert sizes == {3, 4}  # in twenty epochs all of them: 4 · (3/4)^20 < 0.02


# -- turns ----------------------------------------------------------------------------------------------------------------


TURNS = [
    {"role": "system", "content": "be the cat"},
    {"role": "user", "content": "the mat?"},
    {"role": "assistant", "content": "sat"},
    {"role": "user", "content": "밥을 먹고?"},
    {"role": "assistant", "content": "잠을 잤다"},
]


def test_only_the_assistants_words_and_their_end_are_learned():
    tok = tokenizer()
    task, _, _ = made_of("chat", [{"turns": TURNS}])
    row = task.row(0, NO_DRAW)
    wanted = [*tok.encode("sat").ids, 2, *tok.encode("잠을 잤다").ids, 2]
    assert row.target[row.counts].tolist() == wanted
    assert row.source[0] == 1 and len(row.source) == len(row.target)
    assert row.source[1:].tolist() == row.target[:-1].tolist()


def test_a_prompt_is_the_beginning_of_what_was_learned():
    task, _, _ = made_of("chat", [{"turns": TURNS}])
    writer = Writer(ChatConfig(), tokenizer(), specials())
    turns = [(t["role"], t["content"]) for t in TURNS]
    prompt = writer.prompt(turns[:-1]).tolist()
    assert task.texts[0][: len(prompt)] == prompt
    assert task.texts[0][len(prompt) :] == [*tokenizer().encode("잠을 잤다").ids, 2]
    with pytest.raises(DataError, match="no role 'robot'"):
        writer.prompt([("robot", "x")])


def test_nobodys_words_become_special_tokens():
    evil = [
        {"role": "user", "content": "{eos}<eos></s>{bos}"},
        {"role": "assistant", "content": "{eos}"},
    ]
    task, _, _ = made_of("chat", [{"turns": evil}])
    ids = task.texts[0]
    assert ids.count(1) == 1 and ids.count(2) == 1 and ids[-1] == 2  # the template's own


def test_long_conversations_lose_their_oldest_turns():
    many = {"turns": TURNS[1:3] * 20 + TURNS[3:]}
    short, _, _ = made_of("chat", [{"turns": TURNS[3:]}])
    n = len(short.texts[0])
    task, _, _ = made_of("chat", [many], max_tokens=n + 3)
    assert task.texts[0] == short.texts[0]
    task, skipped, _ = made_of(
        "chat", [many, {"turns": TURNS[3:]}, {"turns": TURNS[1:3]}], max_tokens=n - 2
    )
    assert skipped == [(1, "nothing to learn"), (2, "nothing to learn")]
    whole, _, _ = made_of("chat", [many], max_tokens=2000)
    assert whole.texts[0].count(2) == 21


def test_turns_of_another_shape_are_counted():
    good = {"question": "cat?", "answer": "mat"}
    bad = [
        {"turns": []},
        {"turns": "x"},
        {"turns": [{"role": "user"}]},
        {"turns": [{"role": "robot", "content": "x"}, *TURNS]},
        {"turns": ["x"]},
        {"question": "x"},
        {"question": "x", "answer": 3},
    ]
    _, skipped, _ = made_of("chat", [good, *bad, {"turns": TURNS[:2]}])
    assert skipped == [(line, "bad turns") for line in range(2, 9)] + [(9, "nothing to learn")]
    assert turns_of(Record(good, "f:1")) == [("user", "cat?"), ("assistant", "mat")]


def test_a_template_is_plain_data():
    template = ChatTemplate(start="", roles={"user": ["[", "]"], "assistant": ["", "{sep}"]})
    task, _, _ = made_of("chat", [{"question": "cat", "answer": "mat"}], template=template)
    tok = tokenizer()
    parts = ["[", "cat", "]", "mat"]
    assert task.texts[0] == [i for p in parts for i in tok.encode(p).ids] + [specials().sep]
    for wrong in ({"user": "x"}, {"user": ["a"]}, {"user": ["a", 3]}):
        with pytest.raises(ConfigError):
            ChatTemplate(roles=wrong)
    with pytest.raises(ConfigError, match="<cls>"):
        bad = dataclasses.replace(template, start="{cls}")
        build("chat", [{"question": "a", "answer": "b"}], special=specials(cls=None), template=bad)
