"""One file over HTTPS: resumed, bounded, verified, and in place only when whole.

NAME.part (+ NAME.part.json: what it is a part of) -> size and sha256 agree -> fsync -> rename to NAME"""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from ..errors import FetchError
from ..weights import disk, store

CHUNK = 1 << 18
MAX_BYTES = 4 << 30  # no corpus in the table comes near
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS, WAIT = 4, 1.0  # seconds, doubled after each failed attempt
LOOPBACK = ("127.0.0.1", "::1", "localhost")
Progress = Callable[[str, int, int | None], None]  # name, bytes so far, bytes in all where known


@dataclass(frozen=True)
class Wanted:
    """A file to bring to `path`; None for what is not known beforehand."""

    url: str
    path: Path
    sha256: str | None = None
    size: int | None = None

    @property
    def part(self) -> Path:
        return self.path.with_name(self.path.name + ".part")

    @property
    def note(self) -> Path:
        return self.path.with_name(self.path.name + ".part.json")

    @property
    def by_hand(self) -> str:
        return f"try again, or put the file at {self.path} yourself"


class Cut(Exception):
    """The connection ended early; what came is kept."""


def download(want: Wanted, progress: Progress | None = None) -> str:
    """Bring one file and return its sha256.  A cut connection is resumed, within this call and in the next.

    Raises FetchError QKV-080 (unreachable, refused, cut again and again, too large), QKV-081 (not what was promised)
    and StoreError QKV-061 (disk)."""
    _check(want.url, want.url)
    disk.make_parents(want.path.parent)
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(WAIT * 2 ** (attempt - 1))
        try:
            _bring(want, progress)
            return _finish(want)
        except HTTPError as e:
            e.close()
            if e.code < 500 and e.code not in (408, 429):
                seen = f"the server answered {e.code} {e.reason}"
                raise FetchError(seen, place=want.url, fix=want.by_hand) from None
            reason = f"the server answered {e.code} {e.reason}"
        except (Cut, URLError, HTTPException, OSError) as e:
            reason = str(getattr(e, "reason", "") or e) or type(e).__name__
    have = want.part.stat().st_size if want.part.exists() else 0
    raise FetchError(
        f"{reason} ({ATTEMPTS} attempts, {have:,} bytes kept)", place=want.url, fix=want.by_hand
    )


def _check(url: str, asked: str) -> None:
    """https only; http to this very machine.  A redirect may not leave https, nor turn to this machine."""
    new, old = urlsplit(url), urlsplit(asked)
    local = new.hostname in LOOPBACK
    if new.scheme == "https" and (not local or old.hostname in LOOPBACK):
        return
    if new.scheme == "http" and local and old.scheme == "http" and old.hostname in LOOPBACK:
        return
    what = "the address" if url == asked else f"a redirect to {url[:200]!r}"
    raise FetchError(f"{what} is not https", place=asked, fix="only https is fetched")


class _Redirects(HTTPRedirectHandler):
    def http_error_302(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage
    ) -> Any:
        """Judge every hop before urllib does."""
        try:
            target = headers.get("location") or headers.get("uri") or ""  # as urllib looks
            _check(urljoin(req.full_url, target), req.full_url)
        except FetchError:
            fp.close()
            raise
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _opener(url: str) -> OpenerDirector:
    local = urlsplit(url).hostname in LOOPBACK
    return build_opener(_Redirects(), *([ProxyHandler({})] if local else []))


def _bring(want: Wanted, progress: Progress | None) -> None:
    """One attempt, from where the last one stopped if the server says that it is still the same file."""
    have, same = _resumable(want)
    headers = {"User-Agent": "qkv/0.1 (corpus download)", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": same} if same else {})
    try:
        reply = _opener(want.url).open(Request(want.url, headers=headers), timeout=TIMEOUT)
    except HTTPError as e:
        if e.code == 416:  # nothing after what we have: it is whole, or of another file
            _forget_unless_whole(want, have)
            e.close()
            if want.part.exists():
                return
            raise Cut("the server has another file now") from None
        raise
    with reply:
        have, total = _begin(want, reply, have)
        _pour(want, reply, have, total, progress)


def _resumable(want: Wanted) -> tuple[int, str]:
    """(bytes to keep, validator for If-Range).  Without a validator only a known checksum makes resuming safe."""
    if not want.part.exists():
        return 0, ""
    note: dict[str, str] = {}
    with suppress(OSError, ValueError):
        note = json.loads(want.note.read_bytes())
    have, same = want.part.stat().st_size, str(note.get("same", ""))
    return (have, same) if note.get("url") == want.url and (same or want.sha256) else (0, "")


def _forget_unless_whole(want: Wanted, have: int) -> None:
    if want.sha256 is None or sha256_of(want.part) != want.sha256:
        _forget(want)


def _begin(want: Wanted, reply: Any, have: int) -> tuple[int, int | None]:
    """Start or continue the part.  Returns (bytes kept, bytes in all)."""
    length = reply.headers.get("Content-Length")
    coming = int(length) if length and length.isdigit() else None
    if reply.headers.get("Content-Encoding", "identity") != "identity":
        raise FetchError("the server sent it encoded", place=want.url, fix=want.by_hand)
    if have and (
        reply.status != 206
        or not reply.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    ):
        have = 0
        if reply.status == 206:  # some other range than the one asked for
            _forget(want)
            raise Cut("the server sent another range")
    if not have:
        _forget(want)
        tag = reply.headers.get("ETag", "")
        same = tag if tag and not tag.startswith("W/") else reply.headers.get("Last-Modified", "")
        store.write_file(want.note, json.dumps({"url": want.url, "same": same}).encode())
        store.append(want.part, b"")
    total = None if coming is None else have + coming
    if want.size is not None and total not in (None, want.size):
        _forget(want)
        raise _wrong(want, f"the server announces {total:,} bytes, {want.size:,} are expected")
    _check_room(want, total, have)
    return have, total


def _check_room(want: Wanted, total: int | None, have: int) -> None:
    if total is not None and total > MAX_BYTES:
        raise FetchError(f"{total:,} bytes is too large", place=want.url, fix=want.by_hand)
    free = disk.fs.free(want.path.parent)
    if total is not None and free < (total - have) * 1.1:
        seen = f"needs {total - have:,} bytes, {free:,} are free on the disk of {want.path.parent}"
        raise FetchError(seen, place=want.url, fix="free some space")


def _pour(
    want: Wanted, reply: Any, have: int, total: int | None, progress: Progress | None
) -> None:
    most = want.size or MAX_BYTES
    try:
        while chunk := reply.read1(CHUNK):
            have += len(chunk)
            if have > most:
                _forget(want)
                raise _wrong(want, f"more than {most:,} bytes came")
            store.append(want.part, chunk)
            if progress:
                progress(want.path.name, have, total)
    except (HTTPException, TimeoutError, ConnectionError) as e:
        raise Cut(f"the connection was cut after {have:,} bytes: {e}") from None
    if total is not None and have < total:
        raise Cut(f"the connection was cut after {have:,} of {total:,} bytes")


def _finish(want: Wanted) -> str:
    size, found = want.part.stat().st_size, sha256_of(want.part)
    if want.size not in (None, size):
        _forget(want)
        raise _wrong(want, f"{size:,} bytes came, {want.size:,} are expected")
    if want.sha256 not in (None, found):
        _forget(want)
        raise _wrong(want, f"sha256 is {found}, {want.sha256} is expected")
    store.append(want.part, b"", sync=True)
    with disk.failing(want.path):
        disk.fs.rename(want.part, want.path)
        disk.sync_folder(want.path.parent)
    _forget(want)
    return found


def _wrong(want: Wanted, seen: str) -> FetchError:
    fix = "the publisher changed the file, or something altered it on the way; nothing was kept"
    return FetchError(seen, place=want.url, fix=fix, code="QKV-081")


def _forget(want: Wanted) -> None:
    for path in (want.part, want.note):
        with suppress(FileNotFoundError):
            disk.fs.unlink(path)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
