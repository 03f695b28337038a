"""`qkv fetch NAME`: a corpus from its publisher into a folder, with its licence beside it.

    folder/NAME/  the files · LICENCE.txt · fetched.json (address, sha256, size of each)

Where the table knows no checksum the first download is trusted and remembered; later ones must equal it."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import FetchError, MissingError, did_you_mean
from ..messages import t
from ..weights import disk, store
from .corpora import CORPORA, OpenCorpus, Remote
from .download import Progress, Wanted, download, sha256_of

LOCK = "fetched.json"
MAX_MEMBER, MAX_RATIO = 1 << 30, 200  # bytes, unpacked : packed
Say = Callable[[str], None]


def fetch(
    name: str,
    folder: str | Path,
    *,
    base_url: str | None = None,
    accept: bool = False,
    progress: Progress | None = None,
    say: Say = lambda message: None,
) -> Path:
    """Bring a corpus of CORPORA into folder/name and return that folder; what is there and whole is not brought again.

    `accept` takes a publisher's changed file in place of the remembered one.  `base_url` is a mirror with the same
    file names.  Raises MissingError QKV-023, FetchError QKV-080 and QKV-081, StoreError QKV-061."""
    if name not in CORPORA:
        raise MissingError(f"no corpus {name!r}", fix=did_you_mean(name, CORPORA), code="QKV-023")
    corpus, there = CORPORA[name], Path(folder) / name
    disk.make_parents(there)
    with store.lock(there):
        known = _known(there)
        store.write_file(there / "LICENCE.txt", _licence(corpus).encode())
        for remote in corpus.files:
            url = f"{base_url.rstrip('/')}/{remote.name}" if base_url else remote.url
            if not accept and _whole(there, remote, known.get(remote.name)):
                say(t(f"{remote.name}: already here", f"{remote.name}: 이미 있습니다"))
                continue
            known[remote.name] = _one(
                there, remote, url, known.get(remote.name), accept, progress, say
            )
            store.write_file(there / LOCK, json.dumps(known, indent=1).encode() + b"\n")
    say(
        t(f"licence: {corpus.licence}", f"이용 허락: {corpus.licence}") + f" — {corpus.licence_url}"
    )
    return there


def _one(
    there: Path,
    remote: Remote,
    url: str,
    before: dict[str, Any] | None,
    accept: bool,
    progress: Progress | None,
    say: Say,
) -> dict[str, Any]:
    """Bring and unpack one file.  Returns its entry for fetched.json."""
    trusted = None if accept or before is None else str(before.get("sha256"))
    want = Wanted(url, there / remote.name, remote.sha256 or trusted, remote.size)
    try:
        found = download(want, progress)
    except FetchError as e:
        if e.code == "QKV-081" and trusted and not remote.sha256:
            e.fix = f"if the publisher's change is fine, fetch again with --accept; was fetched {before}"
        raise
    if want.sha256 is None:
        said = f"{remote.name}: no published checksum; this download is remembered: sha256 {found}"
        say(
            t(
                said,
                f"{remote.name}: 공개된 검사합이 없어 이번에 받은 것을 기억합니다: sha256 {found}",
            )
        )
    size = want.path.stat().st_size
    files = _unpack(want.path, remote) if remote.members else {remote.name: found}
    return {"url": url, "sha256": found, "size": size, "files": files}


def _unpack(path: Path, remote: Remote) -> dict[str, str]:
    """Write the listed members of a zip beside it and remove it.  Returns {name: sha256}.

    Only names of our own table are read, each into its last component, so no archive can write elsewhere."""
    made = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in remote.members:
                info = archive.getinfo(member)
                if info.file_size > min(MAX_MEMBER, MAX_RATIO * max(info.compress_size, 1 << 14)):
                    seen = (
                        f"{member} unpacks from {info.compress_size:,} to {info.file_size:,} bytes"
                    )
                    raise FetchError(seen, place=path, fix="not unpacked", code="QKV-081")
                with archive.open(info) as file:
                    data = file.read(info.file_size + 1)  # a lying header ends in a bad checksum
                target = path.with_name(member.rpartition("/")[2])
                store.write_file(target, data)
                made[target.name] = sha256_of(target)
    except (
        zipfile.BadZipFile,
        KeyError,
        NotImplementedError,
        RuntimeError,
        OSError,
        EOFError,
    ) as e:
        raise FetchError(
            f"the archive cannot be unpacked: {e}",
            place=path,
            fix="fetch again; if it stays so, the publisher changed it",
            code="QKV-081",
        ) from None
    disk.fs.unlink(path)
    return made


def _known(there: Path) -> dict[str, dict[str, Any]]:
    path = there / LOCK
    if not path.exists():
        return {}
    try:
        known = json.loads(path.read_bytes())
        return {str(name): dict(entry) for name, entry in known.items()}
    except (ValueError, AttributeError, TypeError) as e:
        raise FetchError(
            f"cannot be read: {e}",
            place=path,
            fix="remove it to trust a new download",
            code="QKV-081",
        ) from None


def _whole(there: Path, remote: Remote, entry: dict[str, Any] | None) -> bool:
    """Every file of this entry lies there with its remembered bytes, and the table does not say otherwise."""
    if entry is None or remote.sha256 not in (None, entry.get("sha256")):
        return False
    files = entry.get("files") or {}
    names = {m.rpartition("/")[2] for m in remote.members} or {remote.name}
    if set(files) != names:
        return False
    return all((there / n).is_file() and sha256_of(there / n) == sha for n, sha in files.items())


def _licence(corpus: OpenCorpus) -> str:
    files = "".join(f"  {remote.url}\n" for remote in corpus.files)
    return (
        f"{corpus.name}: {corpus.what}\n\n"
        f"Licence:  {corpus.licence}\n          {corpus.licence_url}\n"
        f"Cite:     {corpus.citation}\n\nFetched from\n{files}\n"
        "This corpus is not part of qkv.  Keep this file beside the data, and name the authors where you share it.\n"
    )
