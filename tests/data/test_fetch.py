"""Downloads against a server of our own on this machine: cut, lying, redirecting, damaged."""

import hashlib
import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from qkv.data import corpora, download
from qkv.data.corpora import OpenCorpus, Remote
from qkv.data.fetch import fetch
from qkv.data.sources import PairSource, SkipReport, read_pairs
from qkv.errors import FetchError, MissingError, StoreError

BODY = "".join(f"낱말 {i}\tword {i}\n" for i in range(20_000)).encode()
SHA = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        s = self.server.script
        s.seen.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        if s.status != 200:
            self.send_response(s.status)
            if s.location:
                self.send_header("Location", s.location)
            self.end_headers()
            return
        start, body = 0, s.body
        asked = self.headers.get("Range", "")
        if asked and s.ranges and self.headers.get("If-Range", s.etag) == s.etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_response(416)
                self.end_headers()
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if s.etag:
            self.send_header("ETag", s.etag)
        if s.announce:
            self.send_header("Content-Length", str(s.announce(len(body) - start)))
        self.end_headers()
        rest = body[start:]
        if s.cuts:
            rest = rest[: s.cuts.pop(0)]
        self.wfile.write(rest)


class Script:
    """What the server does; `cuts` are the bytes sent before the connection drops, one per request."""

    def __init__(self, url):
        self.url, self.seen = url, []
        self.body, self.etag, self.ranges, self.cuts = BODY, '"one"', True, []
        self.status, self.location, self.announce = 200, "", lambda n: n


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "WAIT", 0.0)
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    http.script = Script(f"http://127.0.0.1:{http.server_port}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield http.script
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def corpus(monkeypatch):
    def make(*files, name="toy"):
        made = OpenCorpus(
            name, "a toy", files, "CC0 1.0", "https://example.org/cc0", "Nobody 2026", ""
        )
        monkeypatch.setitem(corpora.CORPORA, name, made)
        return name

    return make


def bring(server, name, folder, **options):
    return fetch(name, folder, base_url=server.url, **options)


def leftovers(folder):
    return [p.name for p in folder.rglob("*.part*")]


def test_a_corpus_comes_whole_with_its_licence_and_is_not_brought_twice(server, corpus, tmp_path):
    name, said, steps = corpus(Remote("https://example.org/x/pairs.tsv")), [], []
    there = bring(server, name, tmp_path, say=said.append, progress=lambda *a: steps.append(a))
    assert (there / "pairs.tsv").read_bytes() == BODY
    assert (
        "CC0 1.0" in (there / "LICENCE.txt").read_text()
        and "Nobody 2026" in (there / "LICENCE.txt").read_text()
    )
    assert any(SHA in s for s in said) and any(
        "CC0 1.0" in s for s in said
    )  # trusted on first use, and says so
    assert steps[-1] == ("pairs.tsv", len(BODY), len(BODY))
    entry = json.loads((there / "fetched.json").read_text())["pairs.tsv"]
    assert (entry["sha256"], entry["size"]) == (SHA, len(BODY))
    pairs = list(read_pairs(PairSource(str(there / "pairs.tsv")), SkipReport()))
    assert pairs[7][:2] == ("낱말 7", "word 7")
    bring(server, name, tmp_path)
    assert len(server.seen) == 1 and not leftovers(tmp_path)
    (there / "pairs.tsv").write_bytes(b"damaged")
    bring(server, name, tmp_path)
    assert (there / "pairs.tsv").read_bytes() == BODY and len(server.seen) == 2


def test_a_cut_connection_is_resumed_where_it_stopped(server, corpus, tmp_path):
    name = corpus(Remote("https://example.org/pairs.tsv", SHA))
    server.cuts = [1000, 50_000]
    there = bring(server, name, tmp_path)
    assert (there / "pairs.tsv").read_bytes() == BODY
    assert [r[1:] for r in server.seen] == [
        (None, None),
        ("bytes=1000-", '"one"'),
        ("bytes=51000-", '"one"'),
    ]


def test_a_later_call_resumes_what_an_earlier_one_left(server, corpus, tmp_path):
    name = corpus(Remote("https://example.org/pairs.tsv"))
    server.cuts = [5000, 0, 0, 0]
    with pytest.raises(FetchError, match="5,000 bytes kept") as e:
        bring(server, name, tmp_path)
    assert e.value.code == "QKV-080" and e.value.place.startswith(server.url) and e.value.fix
    server.seen.clear()
    there = bring(server, name, tmp_path)
    assert (there / "pairs.tsv").read_bytes() == BODY and server.seen[0][1] == "bytes=5000-"


def test_a_file_that_changed_between_two_parts_starts_over(server, corpus, tmp_path):
    name = corpus(Remote("https://example.org/pairs.tsv"))
    server.cuts = [5000, 0, 0, 0]
    with pytest.raises(FetchError):
        bring(server, name, tmp_path)
    server.etag, server.body = '"two"', BODY[::-1]
    assert (bring(server, name, tmp_path) / "pairs.tsv").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("etag", ['"one"', "", 'W/"weak"'])
def test_a_server_without_ranges_or_validators_sends_it_again(server, corpus, tmp_path, etag):
    name = corpus(Remote("https://example.org/pairs.tsv"))
    server.ranges, server.cuts, server.etag = not etag, [5000, 70_000], etag
    assert (bring(server, name, tmp_path) / "pairs.tsv").read_bytes() == BODY


def test_a_part_that_is_already_whole_is_recognised(server, corpus, tmp_path):
    name = corpus(Remote("https://example.org/pairs.tsv", SHA))
    there = tmp_path / name
    there.mkdir()
    url = f"{server.url}/pairs.tsv"
    (there / "pairs.tsv.part").write_bytes(BODY)
    (there / "pairs.tsv.part.json").write_text(json.dumps({"url": url, "same": '"one"'}))
    assert (bring(server, name, tmp_path) / "pairs.tsv").read_bytes() == BODY
    assert [r[1] for r in server.seen] == [f"bytes={len(BODY)}-"] and not leftovers(tmp_path)


@pytest.mark.parametrize("size", [None, len(BODY)])
def test_a_wrong_checksum_keeps_nothing(server, corpus, tmp_path, size):
    name = corpus(Remote("https://example.org/pairs.tsv", SHA, size))
    server.body = BODY[:-2] + b"!\n"
    with pytest.raises(FetchError, match=SHA) as e:
        bring(server, name, tmp_path)
    assert e.value.code == "QKV-081"
    assert not leftovers(tmp_path) and not (tmp_path / name / "pairs.tsv").exists()


def test_a_publishers_change_needs_consent(server, corpus, tmp_path):
    name = corpus(Remote("https://example.org/pairs.tsv"))
    there = bring(server, name, tmp_path)
    (there / "pairs.tsv").unlink()
    server.body = BODY + b"more\tmore\n"
    with pytest.raises(FetchError, match="expected") as e:
        bring(server, name, tmp_path)
    assert "--accept" in e.value.fix
    assert (bring(server, name, tmp_path, accept=True) / "pairs.tsv").read_bytes() == server.body
    bring(server, name, tmp_path)


def test_a_server_that_lies_about_the_size_is_refused(server, corpus, tmp_path):
    name = corpus(Remote("https://example.org/pairs.tsv", size=len(BODY)))
    for announce, body, word in (
        (lambda n: n + 1, BODY, "announces"),  # more than expected
        (lambda n: n // 2, BODY, "announces"),
        (None, BODY + b"x", "more than"),  # no length, then too much
        (None, BODY[:-1], "bytes came"),
    ):
        server.announce, server.body = announce, body
        with pytest.raises(FetchError, match=word) as e:
            bring(server, name, tmp_path)
        assert e.value.code == "QKV-081" and not leftovers(tmp_path)
    server.announce = lambda n: n + 10  # unknown size: the rest never comes
    server.body, name = BODY, corpus(Remote("https://example.org/other.tsv"), name="other")
    with pytest.raises(FetchError, match="cut after|another file") as e:
        bring(server, name, tmp_path)
    assert e.value.code == "QKV-080"


def test_files_are_bounded_and_need_room(server, corpus, tmp_path, monkeypatch):
    name = corpus(Remote("https://example.org/pairs.tsv"))
    with monkeypatch.context() as m:
        m.setattr(download, "MAX_BYTES", 1000)
        with pytest.raises(FetchError, match="too large"):
            bring(server, name, tmp_path)
        server.announce = None
        with pytest.raises(FetchError, match="more than 1,000"):
            bring(server, name, tmp_path)
    monkeypatch.setattr(download.disk.fs, "free", lambda folder: 5000)
    server.announce = lambda n: n
    with pytest.raises((FetchError, StoreError), match="free"):
        bring(server, name, tmp_path)


@pytest.mark.parametrize("status, tries", [(404, 1), (403, 1), (500, 4), (503, 4)])
def test_refusals_name_the_answer(server, corpus, tmp_path, status, tries):
    server.status = status
    with pytest.raises(FetchError, match=f"answered {status}") as e:
        bring(server, corpus(Remote("https://example.org/pairs.tsv")), tmp_path)
    assert e.value.code == "QKV-080" and len(server.seen) == tries


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "file:/etc/passwd", "ftp://example.org/x", "http://example.org/x", "http://127.0.0.1.example.org/"]
)  # fmt: skip
def test_redirects_stay_on_https(server, corpus, tmp_path, location):
    server.status, server.location = 302, location
    with pytest.raises(FetchError) as e:
        bring(server, corpus(Remote("https://example.org/pairs.tsv")), tmp_path)
    assert e.value.code == "QKV-080" and len(server.seen) == 1


@pytest.mark.parametrize("url", ["http://example.org", "file:///etc", "ftp://example.org", "//x"])
def test_only_https_is_asked(corpus, tmp_path, url):
    with pytest.raises(FetchError, match="not https"):
        fetch(corpus(Remote("https://example.org/passwd")), tmp_path, base_url=url)


def test_a_redirect_from_the_internet_cannot_turn_to_this_machine():
    for url in ("https://127.0.0.1/x", "http://localhost/x"):
        with pytest.raises(FetchError, match="redirect"):
            download._check(url, "https://example.org/x")


def archive(**members):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in members.items():
            z.writestr(name, data)
    return made.getvalue()


def test_of_an_archive_only_the_listed_members_are_written(server, corpus, tmp_path):
    name = corpus(Remote("https://example.org/a.zip", members=("kor.txt",)))
    server.body = archive(**{"kor.txt": BODY, "../evil.txt": b"x", "/tmp/evil.txt": b"x"})
    there = bring(server, name, tmp_path)
    assert sorted(p.name for p in there.iterdir() if p.name[0] != ".") == [
        "LICENCE.txt",
        "fetched.json",
        "kor.txt",
    ]
    assert not list(tmp_path.rglob("evil*")) and (there / "kor.txt").read_bytes() == BODY
    bring(server, name, tmp_path)
    assert len(server.seen) == 1


def test_archives_that_lie_are_refused(server, corpus, tmp_path):
    name = corpus(Remote("https://example.org/a.zip", members=("kor.txt",)))
    good = archive(**{"kor.txt": BODY})
    middle = len(good) // 2
    cases = {
        "to 33,554,432": archive(**{"kor.txt": b"x" * (32 << 20)}),
        "kor.txt": archive(**{"other.txt": BODY}),
        "unpacked": good[:middle]
        + bytes(b ^ 255 for b in good[middle : middle + 9])
        + good[middle + 9 :],
        "zip": b"<html>not found</html>",
    }
    for word, body in cases.items():
        server.body = body
        with pytest.raises(FetchError, match=word) as e:
            bring(server, name, tmp_path, accept=True)
        assert e.value.code == "QKV-081" and not (tmp_path / name / "kor.txt").exists()


def test_unknown_names_get_a_guess():
    with pytest.raises(MissingError) as e:
        fetch("multi30", "nowhere")
    assert e.value.code == "QKV-023" and "multi30k" in e.value.fix


def test_the_table_is_sound():
    for name, row in corpora.CORPORA.items():
        assert name == row.name and row.licence and row.citation and row.recipe
        names = [remote.name for remote in row.files]
        assert len(set(names)) == len(names) and not {"LICENCE.txt", "fetched.json"} & set(names)
        for remote in row.files:
            assert (
                remote.url.startswith("https://")
                and "/" not in remote.name
                and remote.name[0] != "."
            )
            assert remote.sha256 is None or len(bytes.fromhex(remote.sha256)) == 32
