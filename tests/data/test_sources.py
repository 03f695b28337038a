"""Every line is used or listed with its reason; nothing shifts; bad bytes are named to the byte."""

import codecs
import csv
import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qkv.config import from_dict
from qkv.data.lines import MAX_LINE
from qkv.data.report import SkipReport
from qkv.data.sources import INVISIBLE, PairSource, read_pairs, read_texts
from qkv.data.watch import check_unchanged, fingerprints, overlap
from qkv.errors import ConfigError, DataError, MissingError
from qkv.messages import speak

SEPARATORS = [
    "\u2028",
    "\u2029",
    "\x85",
    "\v",
    "\f",
    "\r",
    "\x1c",
    "\x1d",
    "\x1e",
    "\u200b",
    "\ufeff",
    "\u202e",
]


def read(report=None, **settings):
    report = report or SkipReport()
    pairs = list(read_pairs(PairSource(**settings), report))
    assert report.read == report.used + sum(report.skipped.values())
    assert report.used == len(pairs)
    assert len(list(report.places())) == sum(report.skipped.values())
    return pairs, report


def write(path: Path, data: bytes | str) -> str:
    data = data.encode() if isinstance(data, str) else data
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def skips(report):
    return [(line, reason) for _, line, reason in report.places()]


def error(code, **settings) -> DataError:
    with pytest.raises((DataError, MissingError, ConfigError)) as e:
        read(**settings)
    assert e.value.code == code and e.value.place and e.value.fix
    return e.value


@pytest.mark.parametrize(
    "name", ["a.tsv", "a.tsv.gz", "a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_table_format_gives_the_same_pairs(tmp_path, name, end):
    rows = [("안녕", 'say "hi", you'), ("커피 한잔 어때?", "How about coffee?")]
    if ".jsonl" in name:
        lines = [json.dumps({"en": e, "ko": k}, ensure_ascii=False) for k, e in rows]
    elif ".csv" in name:
        lines = ["en,ko"] + ['"' + e.replace('"', '""') + f'",{k}' for k, e in rows]
    else:
        lines = ["en\tko"] + [f"{e}\t{k}" for k, e in rows]
    path = write(tmp_path / name, end.join(lines))  # no end of line after the last
    pairs, report = read(path=path, source="ko", target="en")
    assert [p[:2] for p in pairs] == rows
    assert pairs[0].place == f"{path}:{1 if '.jsonl' in name else 2}"
    if ".jsonl" not in name:
        numbered, _ = read(path=path, source=1, target=0, header="yes")
        assert numbered == pairs


def test_aligned_files_stay_aligned_whatever_a_line_holds(tmp_path):
    """200 pairs of files, each line carrying its own number on both sides."""
    for n in range(200):
        odd = SEPARATORS[n % len(SEPARATORS)]
        a = [f"a{i}{odd}b" if i % 3 == n % 3 else f"a{i}" for i in range(20)]
        b = [f"b{i}" if i % 4 else f"b{i}{odd}{odd}b" for i in range(20)]
        a[n % 20] = "" if n % 2 else " \u3000\u200b"
        b[(n + 7) % 20] = "x\0y"
        one = write(tmp_path / "one", "\n".join(a) + "\n" * (n % 2))
        two = write(tmp_path / ("two.gz" if n % 5 == 0 else "two"), "\r\n".join(b))
        pairs, report = read(source_path=one, target_path=two)
        assert len(pairs) == 18
        for pair in pairs:
            i = int(pair.place.rpartition(":")[2]) - 1
            assert pair.source.split("b")[0].rstrip("".join(SEPARATORS)) == f"a{i}"
            assert pair.target.split("b")[1].rstrip("".join(SEPARATORS)) == f"{i}"
        wanted = [(n % 20 + 1, "empty source"), ((n + 7) % 20 + 1, "NUL character")]
        assert skips(report) == sorted(wanted)


def test_a_dirty_table_is_listed_line_by_line(tmp_path):
    lines = [
        "\ufeffko\ten",
        "가\ta",
        "",
        "나",
        "\tb",
        "다\t \u3000",
        "라\tc\textra",
        "마\0\td",
        "바\t" + "x" * 30,
    ]
    path = write(tmp_path / "dirty.tsv", "\n".join(lines) + "\n")
    pairs, report = read(path=path, source="ko", target="en", max_chars=20)
    assert [p[:2] for p in pairs] == [("가", "a"), ("라", "c")]
    assert skips(report) == [
        (1, "header"),
        (3, "empty line"),
        (4, "missing column"),
        (5, "empty source"),
        (6, "empty target"),
        (8, "NUL character"),
        (9, "long text"),
    ]
    first = json.loads(next(report.lines()))
    assert first == {"file": path, "line": 1, "reason": "header"}
    assert report.to_dict()["skipped"]["header"] == 1
    for lang, word in (("en", "9 lines: 2 used, 7 skipped"), ("ko", "9줄 가운데 2줄 사용")):
        speak(lang)
        assert word in report.summary()
    speak(None)


def test_bom_is_removed_at_the_start_only(tmp_path):
    path = write(tmp_path / "a.tsv", codecs.BOM_UTF8 + "가\ta\n\ufeff나\tb\n".encode())
    assert [p.source for p in read(path=path)[0]] == ["가", "\ufeff나"]


@given(st.binary(min_size=1, max_size=4), st.integers(0, 40))
@settings(max_examples=150, deadline=None)
def test_bad_bytes_are_named_to_the_byte(tmp_path_factory, junk, at):
    good = "하나\tone\r\n둘\ttwo\n셋\tthree\n".encode()
    data = good[:at] + junk + good[at:]
    path = write(tmp_path_factory.mktemp("bytes") / "a.tsv", data)
    lines = data.split(b"\n")
    try:
        read(path=path)
    except DataError as e:
        if e.code == "QKV-036":
            assert data.startswith((b"\x1f\x8b", b"PK\3\4"))
        elif "looks like" in e.seen:
            assert data.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")) or data.count(
                0
            ) * 4 > len(data)
        else:
            with pytest.raises(UnicodeDecodeError) as bad:
                data.decode()
            line = data[: bad.value.start].count(b"\n") + 1
            assert e.code == "QKV-030"
            assert e.place == f"{path}:{line}" and f"offset {bad.value.start} " in e.seen
            _, report = read(path=path, encoding_errors="replace")
            assert report.replaced == sum(
                b"\xef\xbf\xbd" in x.decode(errors="replace").encode() for x in lines
            )
    else:
        data.decode()


def test_every_byte_value_in_three_places(tmp_path):
    good = "가나\tab\n다라\tcd\n".encode()
    for place in (1, 8, len(good) - 2):
        for value in range(256):
            data = good[:place] + bytes([value]) + good[place + 1 :]
            path = write(tmp_path / "a.tsv", data)
            try:
                data.decode()
            except UnicodeDecodeError as bad:
                assert f"offset {bad.start} " in error("QKV-030", path=path).seen
            else:
                assert read(path=path)[0]


@pytest.mark.parametrize("name", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_foreign_unicode_is_named(tmp_path, name):
    path = write(tmp_path / "a.tsv", "one two three\t하나 둘\n".encode(name))
    assert name.split("-")[0].upper() in error("QKV-030", path=path).seen


def test_old_korean_encoding_is_named(tmp_path):
    path = write(tmp_path / "a.tsv", "안녕하세요\thello\n".encode("cp949"))
    said = error("QKV-030", path=path)
    assert "CP949" in said.seen and "iconv -f CP949" in said.fix
    assert "replace" not in said.fix  # every letter would be lost


def test_unequal_line_counts_stop_with_both_counts_and_the_place(tmp_path):
    a = [("낱말 " * (3 + i * 7 % 11)).strip() for i in range(400)]
    b = [("word " * (3 + i * 7 % 11)).strip() for i in range(400)]
    one = write(tmp_path / "a.ko", "\n".join(a) + "\n")
    two = write(tmp_path / "a.en", "\n".join(b[:120] + b[121:]) + "\n")
    e = error("QKV-031", source_path=one, target_path=two)
    assert "400" in e.seen and "399" in e.seen
    assert e.place == f"{one}:121"
    two = write(tmp_path / "a.en", "\n".join(b[:300]) + "\n")  # simply cut off
    assert error("QKV-031", source_path=one, target_path=two).place == f"{one}:301"
    empty = write(tmp_path / "none", "")
    assert error("QKV-031", source_path=one, target_path=empty).place == f"{one}:1"


def test_a_line_of_50_megabytes_costs_no_memory(tmp_path):
    path = tmp_path / "long.tsv"
    with path.open("wb") as f:
        f.write("가\ta\n".encode())
        for _ in range(50):
            f.write(b"x" * (1 << 20))
        f.write("\n나\tb\n".encode() + b"\n" * 300_000 + "다\tc\n".encode())
    # measured in a fresh process: the high-water mark never comes down
    script = (
        "import resource\n"
        "from qkv.data.sources import *\n"
        "def top(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"base, report = top(), SkipReport()\npairs = list(read_pairs(PairSource({str(path)!r}), report))\n"
        "print(top() - base, len(pairs), list(map(tuple, pairs))[1][2], dict(report.skipped))"
    )
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    grown, used, place, rest = out.split(maxsplit=3)
    assert (int(used), place) == (3, f"{path}:3")
    assert eval(rest) == {"long line": 1, "empty line": 300_000}
    assert int(grown) < 16 << 10, f"{grown} KiB for a 50 MB line"


def test_the_line_limit_is_exact(tmp_path):
    fits = "가\t" + "x" * (MAX_LINE - 4)
    path = write(tmp_path / "a.tsv", f"{fits}\n{fits}x\nb\tc\n")
    pairs, report = read(path=path)
    assert [len(p.target) for p in pairs] == [MAX_LINE - 4, 1]
    assert skips(report) == [(2, "long line")]


def test_csv_records_span_lines_as_rfc_4180_says(tmp_path):
    text = 'ko,en\n"하나\n둘","one\r\ntwo ""x"""\n셋,three\n'
    pairs, report = read(path=write(tmp_path / "a.csv", text), source="ko", target="en")
    assert pairs[0][:2] == ("하나\n둘", 'one\ntwo "x"')
    assert [p.place.rpartition(":")[2] for p in pairs] == ["2", "5"]
    path = write(tmp_path / "b.csv", 'a,b\n"open,b\nc,d\n')
    assert error("QKV-033", path=path).place == f"{path}:2"
    path = write(tmp_path / "c.csv", 'a,b\n"x"y,b\n')
    assert error("QKV-033", path=path).place == f"{path}:2"
    long = '"' + "x" * MAX_LINE + '\ny",b'
    pairs, report = read(path=write(tmp_path / "d.csv", f"a,b\n{long}\nc,d\n"))
    assert [p[:2] for p in pairs] == [("a", "b"), ("c", "d")] and skips(report) == [
        (2, "long line")
    ]


@pytest.mark.parametrize(
    "line",
    ['{"a": NaN, "b": "x"}', '{"a": "x", "a": "y", "b": "z"}', '{"a": "x"', "[1]", '"x"', '{"a": {}, "b": "x"}',
     '{"a": "x", "b": ' + "[" * 100_000, '{"a": ' + "9" * 5000 + ', "b": "x"}'],
)  # fmt: skip
def test_json_lines_are_strict(tmp_path, line):
    path = write(tmp_path / "a.jsonl", '{"a": "1", "b": "2"}\n' + line + "\n")
    assert error("QKV-033", path=path, source="a", target="b").place == f"{path}:2"


def test_json_lines_skip_what_is_not_there(tmp_path):
    lines = [
        '{"a": "1", "b": "2"}',
        "",
        '{"a": "1"}',
        '{"a": null, "b": "x"}',
        '{"a": 7, "b": "x"}',
    ]
    pairs, report = read(path=write(tmp_path / "a.jsonl", "\n".join(lines)), source="a", target="b")
    assert [p.source for p in pairs] == ["1", "7"]
    assert skips(report) == [(2, "empty line"), (3, "missing column"), (4, "empty source")]


def test_where_keeps_the_rows_asked_for(tmp_path):
    path = write(
        tmp_path / "a.tsv", "domain\tko\ten\nbible\t가\ta\ntatoeba\t나\tb\npydocs\t다\tc\n"
    )
    for where, wanted in (({"domain": "tatoeba"}, "나"), ({"domain": ["bible", "pydocs"]}, "가다")):
        source = from_dict(
            PairSource, {"path": path, "source": "ko", "target": "en", "where": where}
        )
        assert "".join(p.source for p in read_pairs(source, SkipReport())) == wanted
    e = error("QKV-032", path=path, source="ko", target="en", where={"domain": ["tatoba"]})
    assert "'tatoeba'" in e.fix


def test_wrong_columns_and_paths_get_a_guess(tmp_path):
    path = write(tmp_path / "pairs.tsv", "korean\tenglish\n가\ta\n")
    assert "'korean'" in error("QKV-034", path=path, source="korea", target="english").fix
    assert "tabs" in error("QKV-034", path=path, source=3, target=1).fix
    jsonl = write(tmp_path / "a.jsonl", '{"korean": "가", "en": "a"}\n')
    assert "'korean'" in error("QKV-034", path=jsonl, source="korea", target="en").fix
    twice = write(tmp_path / "twice.tsv", "ko\tko\ten\n나\t너\tI\n")
    assert "2 columns" in error("QKV-034", path=twice, source="ko", target="en").seen
    assert "'pairs.tsv'" in error("QKV-020", path=str(tmp_path / "pair.tsv")).fix
    assert "folder" in error("QKV-020", path=str(tmp_path)).seen
    assert "empty" in error("QKV-032", path=write(tmp_path / "none.tsv", "")).seen
    assert "3 empty line" in error("QKV-032", path=write(tmp_path / "none.tsv", "\n\n\n")).seen


@pytest.mark.parametrize(
    "settings",
    [{}, {"path": "a", "source_path": "b", "target_path": "c"}, {"source_path": "a"}, {"path": "a", "format": "lines"},
     {"source_path": "a", "target_path": "b", "where": {"x": "y"}}, {"path": "a", "source": -1}, {"path": "a", "max_chars": -1}],
)  # fmt: skip
def test_sources_that_contradict_themselves_are_refused(settings):
    with pytest.raises(ConfigError):
        PairSource(**settings)


def test_compressed_files_are_checked(tmp_path):
    path, whole = tmp_path / "a.tsv.gz", gzip.compress("가\ta\n".encode() * 5000)
    cases = {
        "cut off": whole[:-9],
        "damaged": whole[:60] + b"\xff" * 8 + whole[68:],
        "named .gz": b"plain\ttext\n",
    }
    for word, data in cases.items():
        path.write_bytes(data)
        assert word in error("QKV-036", path=str(path)).seen
    path.write_bytes(gzip.compress(b"x" * (32 << 20)))
    assert "bomb" in error("QKV-036", path=str(path)).seen
    path.write_bytes(b"PK\3\4....")
    assert "zip" in error("QKV-036", path=str(path)).seen
    path.write_bytes(whole + whole + b"\0" * 512)  # two members and padding
    assert len(read(path=str(path))[0]) == 10_000
    plain = tmp_path / "no-suffix"
    plain.write_bytes(whole)
    assert len(read(path=str(plain))[0]) == 5000


def test_texts_answer_line_by_line(tmp_path):
    path = write(tmp_path / "in.txt", "a\tb\n\n가\0나\nlast")
    report = SkipReport()
    assert [p.source for p in read_texts(PairSource(path), report, keep_empty=True)] == [
        "a\tb",
        "",
        "",
        "last",
    ]
    assert skips(report) == [(3, "NUL character")]
    assert [p.source for p in read_texts(PairSource(path), SkipReport())] == ["a\tb", "last"]
    table = write(tmp_path / "in.tsv", "ko\ten\n가\ta\n")
    assert [p.source for p in read_texts(PairSource(table, source="en"), SkipReport())] == ["a"]


def test_skip_entries_beyond_memory_are_all_listed(tmp_path, monkeypatch):
    monkeypatch.setattr("qkv.data.report.IN_MEMORY", 1000)
    path = write(tmp_path / "a.tsv", "가\ta\n\n" * 2000)
    pairs, report = read(path=path)
    assert skips(report) == [(2 * i, "empty line") for i in range(1, 2001)]


def test_a_changed_file_is_noticed(tmp_path):
    path = Path(write(tmp_path / "a.tsv", "가\ta\n"))
    known = fingerprints([PairSource(str(path)), PairSource("builtin:copy")])
    check_unchanged(known)
    os.utime(path, (1, 1))
    check_unchanged(known)  # copied or touched, not changed
    for data, word in (("나\ta\n", "other content"), ("가\ta\n나\tb\n", "bytes then")):
        write(path, data)
        with pytest.raises(DataError, match=word) as e:
            check_unchanged(known)
        assert e.value.code == "QKV-035"
    path.unlink()
    with pytest.raises(MissingError):
        check_unchanged(known)


def test_overlap_counts_dev_pairs_that_occur_in_train(tmp_path):
    train, _ = read(path="builtin:reverse?n=500&length=3&symbols=4")
    dev, _ = read(path="builtin:reverse/dev?n=100&length=3&symbols=4")
    assert overlap(train, dev) == 0 and overlap(train, dev + train[:7]) == 7


@pytest.mark.parametrize("task", ["copy", "reverse", "sort"])
def test_synthetic_tasks_are_right_and_their_splits_share_nothing(task):
    sides = {}
    for split in ("train", "dev", "test"):
        path = f"builtin:{task}/{split}?n=400&length=6&seed=3"
        pairs, _ = read(path=path, source="source", target="target")
        assert read(path=path)[0] == pairs and len(pairs) == 400
        sides[split] = {p.source for p in pairs}
        for p in pairs:
            row = p.source.split(" ")
            assert 1 <= len(row) <= 6
            assert (
                p.target.split(" ")
                == {"copy": row, "reverse": row[::-1], "sort": sorted(row)}[task]
            )
    assert not sides["train"] & sides["dev"] and not sides["dev"] & sides["test"]
    assert not sides["train"] & sides["test"]


@pytest.mark.parametrize(
    "path, word",
    [("builtin:revers", "'reverse'"), ("builtin:copy/tran", "'train'"), ("builtin:copy?lenght=3", "'length'"),
     ("builtin:copy?n=x", "n=1000"), ("builtin:copy?length=0", "length=1"), ("builtin:copy?n", "n=1000")],
)  # fmt: skip
def test_misspelt_builtins_get_a_guess(path, word):
    with pytest.raises((MissingError, ConfigError)) as e:
        read(path=path)
    assert word in e.value.fix


def test_reading_data_needs_no_torch():
    code = "import sys, qkv.data, qkv.data.sources, qkv.data.stream, qkv.data.watch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_real_corpus_is_read_whole():
    shared = Path(os.environ.get("QKV_SHARED", Path(__file__).parents[3] / "shared")) / "data"
    path = shared / "ko-en" / "dev.tsv.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    pairs, report = read(path=str(path), source="ko", target="en")
    assert len(pairs) == 3969 and skips(report) == [(1, "header")]


def test_lines_do_not_depend_on_where_chunks_end(tmp_path, monkeypatch):
    text = "\ufeff" + ("가나\ta\r\n\n" + "x" * 50 + '\t"b"\n나\tb\n') * 90 + "끝\tend"
    path = write(tmp_path / "a.tsv", text)
    whole, report = read(path=path)
    assert len(whole) == 271 and whole[0].source == "가나"
    for size in (1, 2, 3, 7, 64):
        monkeypatch.setattr("qkv.data.lines.CHUNK", size)
        pairs, other = read(path=path)
        assert pairs == whole and skips(other) == skips(report)


def test_the_built_in_phrases_are_a_source():
    for split in ("train", "dev", "hand"):
        pairs, _ = read(path=f"builtin:phrases/{split}", source="ko", target="en")
        assert len(pairs) >= 150 and any("가" <= c <= "힣" for c in pairs[0].source)
        turned, _ = read(path=f"builtin:phrases/{split}", source="en", target="ko")
        assert turned[0].source == pairs[0].target


CELL = st.text(
    st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), min_size=1, max_size=12
)


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_csv_reads_what_a_csv_writer_writes(tmp_path_factory, rows):
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    path = write(tmp_path_factory.mktemp("csv") / "a.csv", text.getvalue())
    wanted = [(a.strip(), b.strip()) for a, b in rows if a.strip(INVISIBLE) and b.strip(INVISIBLE)]
    report = SkipReport()
    try:
        pairs = list(read_pairs(PairSource(path), report))
    except DataError as e:
        assert e.code == "QKV-032" and not wanted
    else:
        # a mark at the very start of the file is a byte order mark, not text
        assert [p[:2] for p in pairs][1:] == wanted[1:] or rows[0][0].startswith("\ufeff")
        assert report.read == len(rows)
