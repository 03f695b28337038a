"""A hub id -> a local folder, through `huggingface_hub` and its cache: only the files that are read here, verified.

    fetch("org/name") · fetch("org/name@v1.0") · fetch("org/name", revision="<commit>", offline=True)

The folder is `…/models--org--name/snapshots/<commit>`: its name is the commit, to be written down where it matters."""

import errno
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qkv.errors import FetchError, MissingError, QkvError, StoreError, UsageError, WeightsError
from qkv.weights import disk
from qkv.weights.folder import INDEX, SINGLE, conversion, nothing_to_read, read_index
from qkv.weights.manifest import open_inside

PLAIN = [
    "config.json", "generation_config.json", "preprocessor_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "target_vocab.json", "merges.txt", "*.spm", "*.model",
]  # fmt: skip
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
COMMIT = re.compile(r"[0-9a-f]{40}")
PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
ID = re.compile(rf"(?P<name>(?:{PART}/)?{PART})(?:@(?P<revision>[A-Za-z0-9_][A-Za-z0-9_./-]*))?")
PAGE = "https://huggingface.co"
TRUE = ("1", "on", "yes", "true")
Say = Callable[[str], None]


def split_id(text: str) -> tuple[str, str | None] | None:
    """("org/name", revision or None) of what looks like a hub id, with or without "@revision"; None for anything else."""
    found = ID.fullmatch(text)
    if not found or "--" in found["name"] or ".." in text or len(text) > 300:
        return None
    return found["name"], found["revision"]


def fetch(
    name: str,
    revision: str | None = None,
    offline: bool = False,
    cache: str | Path | None = None,
    *,
    progress: bool = False,
    say: Say = lambda message: None,
) -> Path:
    """The folder of a published model, brought here unless it is here; with a commit or `offline` nothing is asked for twice.

    HF_ENDPOINT is a mirror, HF_HUB_OFFLINE the same as `offline`, HF_HUB_CACHE the same as `cache`.  `say` gets one line
    with the commit.  Raises MissingError QKV-021 (no such model or revision, or not here), FetchError QKV-080
    (no network, refused) and QKV-081 (damaged), WeightsError QKV-054 (no safetensors), StoreError QKV-061 (disk full)."""
    found = split_id(name)
    if found is None or (revision and found[1] and revision != found[1]):
        seen = (
            f"{name[:80]!r} is no hub id"
            if found is None
            else f"two revisions, {found[1]!r} and {revision!r}"
        )
        raise UsageError(seen, fix="write org/name or org/name@revision")
    place = _Repository(found[0], revision or found[1] or "main", cache, progress)
    with _quiet(progress):
        folder = place.local() if offline or _says_offline() else place.bring(say)
    _verify(folder, place.name)
    say(f"{place.name} at {folder.name}")
    return folder


def commit_of(folder: str | Path) -> str | None:
    """The commit that a folder of the hub's cache holds; None for any other folder."""
    path = Path(os.path.abspath(folder))
    there = path.parent.name == "snapshots" and COMMIT.fullmatch(path.name)
    return path.name if there else None


class _Repository:
    """One revision of one repository, and where its files are kept."""

    def __init__(self, name: str, revision: str, cache: str | Path | None, progress: bool) -> None:
        self.name, self.revision, self.cache, self.progress = name, revision, cache, progress
        self.endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}"

    def local(self) -> Path:
        """What the cache has.  Raises MissingError QKV-021."""
        try:
            folder = self._snapshot(["config.json"], local=True)
        except QkvError as e:
            seen = "is not in the local cache, and nothing may be downloaded (offline)"
            raise MissingError(
                seen, place=self, fix="fetch it once with a network", code="QKV-021"
            ) from e
        missing = _missing(folder)
        if missing:
            seen = f"is incomplete in the local cache: {missing[0]} is missing (offline)"
            raise MissingError(
                seen, place=self, fix="fetch it once more with a network", code="QKV-021"
            )
        return folder

    def bring(self, say: Say) -> Path:
        """Ask the hub what there is, and download what is read here and not yet in the cache."""
        if COMMIT.fullmatch(self.revision):
            try:
                return self.local()  # a commit never changes, so there is nothing to ask
            except MissingError:
                pass
        try:
            sizes, commit = self._list()
        except FetchError as e:
            try:
                folder = self.local()
            except MissingError:
                raise e from None
            say(f"{e.seen}; using the copy from the local cache")
            return folder
        weights = self._weights(sizes, commit)
        self._check_room(sum(size for n, size in sizes.items() if n in weights), commit)
        folder = self._snapshot([*PLAIN, *weights])
        missing = _missing(folder)
        if missing:
            seen = f"{missing[0]} is missing from the repository"
            raise WeightsError(seen, place=self, fix="tell its publisher, or use another revision")
        return folder

    def _list(self) -> tuple[dict[str, int], str]:
        """{file at the top of the repository: its size} and the commit that the revision is now."""
        from huggingface_hub import HfApi

        with _explained(self):
            info = HfApi(endpoint=self.endpoint).model_info(
                self.name, revision=self.revision, files_metadata=True, timeout=20
            )
        files = {f.rfilename: f.size or 0 for f in info.siblings or ()}
        return {n: size for n, size in files.items() if "/" not in n}, str(info.sha)

    def _weights(self, names: Any, commit: str) -> list[str]:
        """The weight files to bring, one whole set of them.  Raises WeightsError QKV-054, MissingError QKV-020."""
        if SINGLE in names:
            return [SINGLE]
        if INDEX in names:
            # an index may name its shards otherwise, but then there is nothing else beside them
            files = [n for n in names if n.endswith(".safetensors")]
            return [INDEX, *([n for n in files if SHARD.fullmatch(n)] or files)]
        error = nothing_to_read(self, list(names))
        if error.code == "QKV-054":
            refused = [n for n in names if re.search(r"\.(bin|pt|pth|ckpt|h5)$", n)] or list(names)
            error.fix = (
                f"where that does no harm: hf download {self.name} --revision {commit} --local-dir there && cd there && "
                f"{conversion(refused)}; then load that folder. Or use a revision with safetensors, such as refs/pr/1: {PAGE}/{self.name}/discussions"
            )
        raise error

    def _check_room(self, needed: int, commit: str) -> None:
        from huggingface_hub import constants

        cache = Path(self.cache or constants.HF_HUB_CACHE).expanduser()
        if (cache / f"models--{self.name.replace('/', '--')}" / "snapshots" / commit).is_dir():
            return  # some of it is here; the download itself will tell
        with disk.failing(cache, needed):
            there = next(p for p in (cache, *cache.absolute().parents) if p.is_dir())
            if disk.fs.free(there) < needed * 1.05:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(cache))

    def _snapshot(self, patterns: list[str], local: bool = False) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils.tqdm import tqdm

        class Hidden(tqdm):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]

        with _explained(self):
            return Path(
                snapshot_download(
                    self.name,
                    revision=self.revision,
                    cache_dir=self.cache,
                    endpoint=self.endpoint,
                    allow_patterns=patterns,
                    ignore_patterns=["*/*"],
                    local_files_only=local,
                    tqdm_class=None if self.progress else Hidden,
                )
            )


def _missing(folder: Path) -> list[str]:
    """Files without which the folder is no model."""
    needed = {"config.json"}
    if (folder / SINGLE).exists() or not (folder / INDEX).exists():
        needed.add(SINGLE)
    else:
        needed |= set(read_index(folder).values())
    return sorted(n for n in needed if not (folder / n).exists())


def _says_offline() -> bool:
    asked = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return asked.lower() in TRUE


# --- is it what the hub has? ---------------------------------------------------------------------


def _verify(folder: Path, name: str) -> None:
    """Every file against the hash it is kept under.  Raises FetchError QKV-081; the damaged copy is out of the way then."""
    for link in sorted(p for p in folder.iterdir() if p.is_symlink() and _is_read(p.name)):
        digest = os.path.basename(os.readlink(link))
        if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", digest):
            continue  # a mirror that does not say what its files hash to
        with open_inside(folder, link.name) as f:
            found = _hash(f, len(digest))
        if found != digest:
            with disk.failing(link):
                disk.fs.unlink(link.parent.parent.parent / "blobs" / digest)
                disk.fs.unlink(link)
            seen = f"hashes to {found[:12]}…, the hub says {digest[:12]}…"
            fix = "fetch it again; the damaged copy is removed from the cache"
            raise FetchError(seen, place=f"{name}: {link.name}", fix=fix, code="QKV-081")


def _is_read(name: str) -> bool:
    """Other programs keep other files in the same cache."""
    return name in PLAIN or name == INDEX or Path(name).suffix in (".safetensors", ".spm", ".model")


def _hash(f: Any, digits: int) -> str:
    """sha256 of large files; of others the sha1 that git gives them: of "blob <size>\\0" and the content."""
    if digits == 64:
        return hashlib.file_digest(f, "sha256").hexdigest()
    start = hashlib.sha1(b"blob %d\0" % os.fstat(f.fileno()).st_size, usedforsecurity=False)
    return hashlib.file_digest(f, start.copy).hexdigest()


# --- what the library says, in our words ---------------------------------------------------------


@contextmanager
def _quiet(progress: bool) -> Iterator[None]:
    """The library's own log lines only where progress is wanted."""
    log = logging.getLogger("huggingface_hub")
    before = log.level
    if not progress:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


@contextmanager
def _explained(place: _Repository) -> Iterator[None]:
    # its errors have no common base, and those of its HTTP library pass through it
    try:
        yield
    except QkvError:
        raise
    except Exception as e:
        raise _explain(e, place) from e


def _explain(e: Exception, place: _Repository) -> QkvError:
    from huggingface_hub import errors as hf

    status = getattr(getattr(e, "response", None), "status_code", None)
    if isinstance(e, OSError) and e.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
    ):
        fix = "free some space, or choose another place with HF_HUB_CACHE"
        return StoreError(e.strerror or str(e), place=e.filename or place, fix=fix, code="QKV-061")
    if isinstance(e, hf.RevisionNotFoundError):
        fix = f"choose a branch, tag or commit of {PAGE}/{place.name}/commits"
        return MissingError(
            f"has no revision {place.revision!r}", place=place.name, fix=fix, code="QKV-021"
        )
    if isinstance(e, hf.GatedRepoError) or status == 403:
        seen = "is gated: its publisher lets only those in who asked"
        fix = f"ask for access at {PAGE}/{place.name}, then sign in: hf auth login"
        return FetchError(seen, place=place, fix=fix)
    if isinstance(e, hf.RepositoryNotFoundError) or status in (401, 404):
        seen = "no such model on the hub, or a private one"
        fix = "check the spelling of org/name; for a private model sign in: hf auth login"
        return MissingError(seen, place=place, fix=fix, code="QKV-021")
    if status is not None:
        return FetchError(f"the hub answered {status}", place=place, fix="try again later")
    if "Consistency check failed" in str(e):
        seen = "a file came with another size than promised"
        return FetchError(seen, place=place, fix="try again", code="QKV-081")
    seen = f"the hub cannot be reached ({_first_line(e)})"
    return FetchError(
        seen, place=place, fix="check the network, or use a copy that is already here: offline"
    )


def _first_line(e: Exception) -> str:
    root: BaseException = e
    while root.__cause__ is not None:
        root = root.__cause__
    return f"{type(root).__name__}: {str(root).strip()}".partition("\n")[0][:160]
