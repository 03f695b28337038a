"""Long documents: cut, whole, or in windows; nothing of a document is lost, and its windows answer together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from objective_tiny import build, document, specials, tokenizer

from qkv.data.objectives.base import Draw
from qkv.data.objectives.classify import windowed
from qkv.errors import ConfigError
from qkv.jobs.texts import pooled

VALUES = [{"text": document(i), "label": "ab"[i % 2]} for i in range(30)]
NO_DRAW = Draw(0)


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 40))
def test_windows_cover_a_text_once_begun_every_stride(n, room, stride):
    stride = min(stride, room)
    spans = windowed(n, room, stride)
    assert [a for a, _ in spans] == [stride * i for i in range(len(spans))]
    assert spans[-1][1] == n and all(0 < b - a <= room for a, b in spans)
    assert all(b - a == room for a, b in spans[:-1])
    assert {i for a, b in spans for i in range(a, b)} == set(range(n))
    assert len(spans) == 1 or spans[-2][1] < n  # none that repeats what was read


def test_windows_are_the_documents_tokens_and_labels():
    task = build("classify", VALUES, max_tokens=0, window=12, stride=5)
    special = specials()
    for d, value in enumerate(VALUES):
        ids = tokenizer().encode(value["text"]).ids
        rows = [task.row(i, NO_DRAW) for i in np.flatnonzero(task.owner == d).tolist()]
        assert all(len(r.source) <= 12 and r.label == d % 2 for r in rows)
        inner = [r.source[1:-1].tolist() for r in rows]
        assert all(r.source[0] == special.cls and r.source[-1] == special.sep for r in rows)
        assert [x for own in inner[:-1] for x in own[:5]] + inner[-1] == ids
    assert task.documents == 30 < len(task.lengths) == len(task.owner)


def test_whole_documents_have_no_limit_and_a_limit_cuts():
    whole = build("classify", VALUES, max_tokens=0)
    lengths = [len(tokenizer().encode(v["text"]).ids) + 2 for v in VALUES]
    assert whole.lengths[:, 0].tolist() == lengths and whole.documents == 30
    cut = build("classify", VALUES, max_tokens=20)
    assert cut.lengths[:, 0].tolist() == [min(n, 20) for n in lengths]
    both = build("classify", VALUES, max_tokens=20, window=10)
    assert np.bincount(both.owner).tolist() == [-(-(min(n, 20) - 2) // 8) for n in lengths]


def test_logits_of_a_document_are_the_mean_over_its_windows():
    rows = [[1.0, 0.0], [0.0, 2.0], [5.0, 1.0], [0.0, 3.0], [0.0, 4.0], [9.0, 8.0]]
    owner = np.array([0, 0, 1, 2, 2, 2])
    assert pooled(rows, owner).tolist() == [[0.5, 1.0], [5.0, 1.0], [3.0, 5.0]]
    assert pooled([1, 1, 0, 2, 2, 2], owner).tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    "settings, word",
    [
        (dict(window=-1), "negative"),
        (dict(stride=4), "without a window"),
        (dict(window=200), "max_tokens = 0"),
        (dict(max_tokens=0, window=2), "no room"),
    ],
)
def test_impossible_windows_are_named(settings, word):
    with pytest.raises(ConfigError, match=word):
        build("classify", VALUES, **settings)


def test_pairs_and_sampled_texts_have_no_windows():
    with pytest.raises(ConfigError, match="no windows"):
        build("classify", [v | {"pair": "x"} for v in VALUES], max_tokens=0, window=9)
    task = build("classify", VALUES, max_tokens=0, window=9)
    with pytest.raises(ConfigError, match="cut once"):
        task.sampled(tokenizer(), 0.5)
