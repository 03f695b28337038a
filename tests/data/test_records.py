"""Records: every line used or counted, whatever the format; texts whole, dirt named."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qkv.config import from_dict
from qkv.data import lines
from qkv.data.lines import MAX_LINE
from qkv.data.records import Record, RecordSource, read_records
from qkv.data.report import SkipReport
from qkv.data.sources import PairSource, read_pairs
from qkv.errors import ConfigError, DataError, MissingError


def read(path, data=None, **how):
    if data is not None:
        raw = data.encode() if isinstance(data, str) else data
        path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    report = SkipReport()
    made = list(read_records(RecordSource(str(path), **how), report))
    assert report.read == report.used + sum(report.skipped.values())
    assert len(list(report.places())) == sum(report.skipped.values())
    return made, report


def skips(report):
    return [(line, reason) for _, line, reason in report.places()]


def texts(records):
    return [r.values["text"] for r in records]


def places(records):
    return [int(r.place.rpartition(":")[2]) for r in records]


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz", "a.csv", "a.jsonl.gz"])
def test_columns_go_by_the_names_of_the_objective(tmp_path, name):
    rows = [("7", "안녕", "1"), ("8", "", "0"), ("9", "그래 그래", "0")]
    if "jsonl" in name:
        keys = ("id", "document", "label")
        data = "".join(json.dumps(dict(zip(keys, r, strict=True))) + "\n" for r in rows)
        shift = 0
    else:
        by = "\t" if "tsv" in name else ","
        data = "".join(by.join(r) + "\n" for r in [("id", "document", "label"), *rows])
        shift = 1
    made, report = read(tmp_path / name, data, fields={"text": "document", "label": "label"})
    assert [r.values for r in made] == [
        {"text": "안녕", "label": "1"},
        {"text": "그래 그래", "label": "0"},
    ]
    assert places(made) == [1 + shift, 3 + shift]
    assert skips(report)[-1] == (2 + shift, "empty field")


def test_json_values_stay_what_they_are(tmp_path):
    record = {"text": " a\n b ", "tags": ["O"] * 6, "label": 0, "score": 2.5, "none": None}
    data = json.dumps(record) + "\n\n" + json.dumps(record | {"label": 1}) + "\n"
    made, report = read(
        tmp_path / "x.jsonl", data, fields={"text": "text", "tags": "tags", "label": "label"}
    )
    assert made[0].values == {"text": " a\n b ", "tags": ["O"] * 6, "label": 0}
    assert made[1].values["label"] == 1 and skips(report) == [(2, "empty line")]
    made, report = read(tmp_path / "x.jsonl", fields={"text": "text"}, where={"label": [1]})
    assert len(made) == 1 and skips(report) == [(1, "filtered"), (2, "empty line")]
    _, report = read(tmp_path / "y.jsonl", '{"t": null}\n{"t": "x"}\n', fields={"text": "t"})
    assert skips(report) == [(1, "empty line")]


def test_a_nul_is_found_at_any_depth(tmp_path):
    rows = [{"turns": [{"role": "user", "content": c}]} for c in ("a", "b\0", "c")]
    data = "".join(json.dumps(r) + "\n" for r in rows)
    made, report = read(tmp_path / "x.jsonl", data, fields={"turns": "turns"})
    assert places(made) == [1, 3] and skips(report) == [(2, "NUL character")]


def test_half_a_character_is_counted_not_met_later(tmp_path):
    """An emoji cut in two, as scraped JSON holds it: no UTF-8 can write it."""
    data = '{"text": "a"}\n{"text": "b \\ud83d"}\n{"text": "\\ud83d\\ude00"}\n'
    made, report = read(tmp_path / "x.jsonl", data, fields={"text": "text"})
    assert [r.values["text"] for r in made] == ["a", "😀"]
    assert skips(report) == [(2, "half a character")]
    report = SkipReport()
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"s": "a", "t": "b"}\n{"s": "a", "t": "\\udc00"}\n', "utf-8")
    pairs = list(read_pairs(PairSource(str(path), source="s", target="t"), report))
    assert len(pairs) == 1 and skips(report) == [(2, "half a character")]


def test_a_quoted_field_may_be_as_long_as_a_line(tmp_path):
    long = "word " * 40_000
    made, _ = read(tmp_path / "x.csv", f'text,n\n"{long}, end",1\n', fields={"text": "text"})
    assert made[0].values["text"] == f"{long}, end"


BLOCKS = "one\ntwo\n\n\n three\u2028still\r\n \u200b\nfour\n"


def test_documents_are_blocks_between_empty_lines(tmp_path):
    made, report = read(tmp_path / "x.txt", "\ufeff" + BLOCKS)
    assert texts(made) == ["one\ntwo", " three\u2028still", "four"]
    assert [(r.lines, n) for r, n in zip(made, places(made), strict=True)] == [
        (2, 1),
        (1, 5),
        (1, 7),
    ]
    assert skips(report) == [(3, "empty line"), (4, "empty line"), (6, "empty line")]
    assert report.read == 7


def test_lines_and_whole_files_are_documents_too(tmp_path):
    made, report = read(tmp_path / "x.txt", BLOCKS, unit="line")
    assert texts(made) == ["one", "two", " three\u2028still", "four"] and report.used == 4
    assert places(made) == [1, 2, 5, 7]
    made, report = read(tmp_path / "x.txt", unit="file")
    assert texts(made) == [BLOCKS.replace("\r\n", "\n")] and report.used == report.read == 7
    whole = texts(made)[0]
    parts = [
        texts(read(tmp_path / "x.txt", unit="file", part=p)[0])[0]
        for p in ((0.0, 0.37), (0.37, 0.9), (0.9, 1.0))
    ]
    assert "".join(parts) == whole and len(parts[0]) == int(len(whole) * 0.37)


def test_what_cannot_be_used_parts_documents_and_is_counted(tmp_path):
    long = b"x" * (MAX_LINE + 1)
    data = b"a\nb\0b\nc\n" + long + b"\nd\n"
    made, report = read(tmp_path / "x.txt", data)
    assert texts(made) == ["a", "c", "d"]  # what follows a hole does not follow what is before it
    assert skips(report) == [(2, "NUL character"), (4, "long line")]
    made, report = read(tmp_path / "x.txt", unit="file")
    assert texts(made) == ["a\nc\nd\n"] and report.used == 3
    made, report = read(tmp_path / "y.txt", "a\nbb\n\nc\n", max_chars=3)
    assert texts(made) == ["c"]
    assert skips(report) == [(1, "long text"), (2, "long text"), (3, "empty line")]


def test_bad_bytes_stop_or_are_replaced(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"good\nba\xffd\n")
    with pytest.raises(DataError) as e:
        read(path)
    assert e.value.code == "QKV-030" and e.value.place == f"{path}:2" and "offset 7" in e.value.seen
    made, report = read(path, encoding_errors="replace")
    assert texts(made) == ["good\nba\ufffdd"] and report.replaced == 1
    path.write_bytes("아".encode("utf-16"))
    with pytest.raises(DataError, match="UTF-16"):
        read(path)


SQUAD = {
    "data": [
        {
            "title": "t",
            "paragraphs": [
                {
                    "context": "The cat sat.",
                    "qas": [
                        {"id": "1", "question": "Who?", "answers": [{"text": "cat", "answer_start": 4}]},
                        {"id": "2", "question": "Why?", "answers": [], "is_impossible": True},
                        {"id": "3", "question": " ", "answers": []},
                    ],
                }
            ],
        }
    ]
}  # fmt: skip


@pytest.mark.parametrize("name", ["x.json", "x.json.gz"])
def test_squad_is_read_question_by_question(tmp_path, name):
    made, report = read(tmp_path / name, json.dumps(SQUAD, indent=1), format="squad")
    assert [r.values["question"] for r in made] == ["Who?", "Why?"] and places(made) == [1, 2]
    assert made[0].values["answers"] == [{"text": "cat", "answer_start": 4}]
    assert made[1].values["answers"] == [] and skips(report) == [(3, "empty field")]


@pytest.mark.parametrize(
    "data", ["[", "{}", '{"data": 3}', '{"data": [{"paragraphs": [{"qas": [{}]}]}]}', "[NaN]"]
)
def test_what_is_not_squad_is_named(tmp_path, data):
    with pytest.raises(DataError, match="SQuAD") as e:
        read(tmp_path / "x.json", data, format="squad")
    assert e.value.code == "QKV-033" and "x.json:1" in e.value.place


def test_a_document_that_must_be_held_whole_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MAX_WHOLE", 1000)
    with pytest.raises(DataError) as e:
        read(tmp_path / "x.json", " " * 1001, format="squad")
    assert e.value.code == "QKV-037"


@pytest.mark.parametrize(
    "code,data,how",
    [
        ("QKV-032", "", {}),
        ("QKV-032", "\n \n", {}),
        ("QKV-034", "a\tb\n1\t2\n", {"fields": {"text": "c"}}),
        ("QKV-033", "[1]\n", {"format": "jsonl"}),
        ("QKV-034", '{"a": "b"}\n', {"format": "jsonl"}),
        ("QKV-032", "a\tb\n1\t2\n", {"fields": {"text": "a"}, "where": {"b": "3"}}),
    ],
)
def test_what_cannot_be_read_has_a_code_a_place_and_a_fix(tmp_path, code, data, how):
    with pytest.raises(DataError) as e:
        read(tmp_path / "x.any", data, **how)
    assert e.value.code == code and "x.any" in e.value.place and e.value.fix
    with pytest.raises(MissingError):
        read(tmp_path / "y.txt")


@pytest.mark.parametrize(
    "settings",
    [
        {"path": ""},
        {"path": "x.tsv", "fields": {"text": 1.5}},
        {"path": "x.tsv", "fields": {"text": -1}},
        {"path": "x.txt", "format": "text", "where": {"a": "b"}},
        {"path": "x.txt", "unit": "file", "part": [0.5, 0.5]},
        {"path": "x.txt", "unit": "block", "part": [0.0, 0.9]},
        {"path": "x.tsv", "unit": "book"},
        {"path": "x.tsv", "max_chars": -1},
    ],
)
def test_settings_that_cannot_be_obeyed_are_refused(settings):
    with pytest.raises(ConfigError) as e:
        from_dict(RecordSource, settings)
    assert e.value.fix


@given(
    st.lists(
        st.sampled_from(["a", "b c", "", " ", "\u3000", "x\0y", "z" * 30]), min_size=1, max_size=40
    )
)
@settings(max_examples=100, deadline=None)
def test_no_line_is_lost_in_any_unit(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("t") / "x.txt"
    path.write_text("\n".join(rows) + "\n", "utf-8")
    for unit in ("line", "block", "file"):
        report = SkipReport()
        try:
            made = list(read_records(RecordSource(str(path), unit=unit, max_chars=25), report))
        except DataError as e:
            assert e.code == "QKV-032" and not report.used
            made = []
        assert report.read == len(rows) == report.used + sum(report.skipped.values())
        assert report.used == sum(r.lines for r in made)
    solid = [r for r in rows if r.strip() and "\0" not in r]
    if solid:
        made = read_records(RecordSource(str(path)), SkipReport())
        assert [line for r in made for line in r.values["text"].split("\n")] == solid


def test_dropping_a_record_drops_its_lines():
    report = SkipReport()
    for _ in range(5):
        report.use()
    record = Record({"text": "x"}, "dir/f:7", 3)
    report.drop(record.place, "no tokens", record.lines)
    assert report.used == 2 and skips(report) == [
        (7, "no tokens"),
        (8, "no tokens"),
        (9, "no tokens"),
    ]
    report.shortened = 4
    assert "4  used, cut to max_tokens" in report.summary() and report.to_dict()["shortened"] == 4
