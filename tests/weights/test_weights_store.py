"""The store: after any kill, error or power cut there is a whole folder, the old one or the new one."""

import errno
import itertools
import os
import random
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from faults import FaultFS, Killed, PowerFS, RealKillFS, build, states

from qkv.errors import BusyError, MissingError, QkvError, StoreError
from qkv.weights import disk, manifest, place, store

OLD = {"a.txt": b"old a", "b.bin": b"old b" * 20}
NEW = {"a.txt": b"new a!", "c.bin": b"new c" * 30}
THIRD = {"a.txt": b"third"}
ERRNOS = [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG, errno.EACCES]

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """The order of fsyncs is tested by the model of a power cut, not by waiting for a real disk."""
    monkeypatch.setattr(disk, "fs", FaultFS())
    yield
    assert not disk._held


def content(folder: Path) -> dict[str, bytes]:
    found = store.verify(folder)["files"]
    return {name: (folder / name).read_bytes() for name in found}


def under(monkeypatch, fs, call) -> str:
    """Run a call on a disk; how it ended."""
    monkeypatch.setattr(disk, "fs", fs)
    try:
        call()
        return "done"
    except Killed:
        return "killed"
    except StoreError as e:
        return e.code
    finally:
        monkeypatch.setattr(disk, "fs", FaultFS())


def in_child(body) -> int:
    """Run in a forked process; its exit status."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            body()
            code = 0
        except BusyError:
            code = 62
        finally:
            os._exit(code)
    return pid


def status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def operations(tmp_path: Path, monkeypatch, replacing: bool) -> int:
    fs = FaultFS()
    folder = tmp_path / "count" / "best"
    folder.parent.mkdir()
    if replacing:
        store.write_folder(folder, OLD)
    assert under(monkeypatch, fs, lambda: store.write_folder(folder, NEW)) == "done"
    return fs.count


# --- whole folders ------------------------------------------------------------------------------


def test_a_written_folder_holds_exactly_what_was_given(tmp_path):
    (tmp_path / "copy me").write_bytes(b"x" * 3_000_000)
    files = {"a": b"1", "b": iter([b"2", b"", b"3"]), "c": tmp_path / "copy me", "빵.txt": b""}
    store.write_folder(tmp_path / "deep" / "er" / "best", files)
    expected = {"a": b"1", "b": b"23", "c": b"x" * 3_000_000, "빵.txt": b""}
    assert content(tmp_path / "deep" / "er" / "best") == expected
    assert os.listdir(tmp_path / "deep" / "er") == ["best"]


def test_equal_content_gives_equal_folders(tmp_path):
    store.write_folder(tmp_path / "x", OLD)
    store.write_folder(tmp_path / "y", dict(reversed(OLD.items())))
    both = [(tmp_path / n / "manifest.json").read_bytes() for n in "xy"]
    assert both[0] == both[1]


def test_the_store_does_not_import_torch():
    code = "import sys, qkv.weights.store; sys.exit('torch' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0


@pytest.mark.parametrize("replacing", [False, True])
@pytest.mark.parametrize("really", [False, True])
def test_a_kill_at_any_operation_leaves_the_old_or_the_new_folder(
    tmp_path, monkeypatch, replacing, really
):
    n = operations(tmp_path, monkeypatch, replacing)
    assert n > 20
    seen = set()
    for k in range(1, n + 2):
        folder = tmp_path / f"kill{k}" / "best"
        folder.parent.mkdir()
        if replacing:
            store.write_folder(folder, OLD)
        if really:

            def body(k=k, folder=folder):
                disk.fs = RealKillFS(kill_at=k)
                store.write_folder(folder, NEW)

            assert status(in_child(body)) == (0 if k > n else -signal.SIGKILL)
        else:
            end = under(monkeypatch, FaultFS(k), lambda f=folder: store.write_folder(f, NEW))
            assert end == ("done" if k > n else "killed")
        try:
            found = content(folder)
        except MissingError:
            assert not replacing
            found = None
        assert found in ([OLD, NEW] if replacing else [None, NEW])
        seen.add(None if found is None else found["a.txt"])
        store.write_folder(folder, THIRD)
        assert content(folder) == THIRD
        assert os.listdir(folder.parent) == ["best"]
    assert len(seen) == 2


def test_a_kill_during_recovery_can_be_recovered_from(tmp_path, monkeypatch):
    def middle(folder: Path) -> None:
        """The gap between the two renames."""
        for name, files in (("old", OLD), ("tmp", NEW)):
            store.write_folder(folder.parent / name, files)
            (folder.parent / name).rename(place.beside(folder, name))

    for k in range(1, 40):
        folder = tmp_path / str(k) / "best"
        middle(folder)
        end = under(monkeypatch, FaultFS(k), lambda f=folder: store.recover(f))
        assert content(folder) == NEW
        if end == "done":
            break
    assert 3 < k < 39


@pytest.mark.parametrize("replacing", [False, True])
@pytest.mark.parametrize("error", ERRNOS)
def test_an_error_at_any_operation_keeps_the_old_folder(tmp_path, monkeypatch, replacing, error):
    n = operations(tmp_path, monkeypatch, replacing)
    folder = tmp_path / "run" / "best"
    for k in range(1, n + 1):
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.parent.mkdir()
        if replacing:
            store.write_folder(folder, OLD)
        fs = FaultFS(fail_at=k, error=error)
        end = under(monkeypatch, fs, lambda: store.write_folder(folder, NEW))
        if end == "done":  # only clearing up after the commit may fail unheard
            assert fs.trace[k - 1].split()[0] in ("unlink", "rmdir")
            assert content(folder) == NEW
        else:
            assert end == "QKV-061"
            assert not list(folder.parent.glob("*.tmp-*"))
            if replacing:
                assert content(folder) == OLD
            else:
                assert not folder.exists()
        store.write_folder(folder, THIRD)
        assert content(folder) == THIRD
        assert os.listdir(folder.parent) == ["best"]


def test_short_writes_are_continued(tmp_path, monkeypatch):
    end = under(monkeypatch, FaultFS(short=True), lambda: store.write_folder(tmp_path / "f", NEW))
    assert end == "done" and content(tmp_path / "f") == NEW


@pytest.mark.parametrize("start", ["nothing", "a folder", "the gap between two renames", "a save"])
def test_a_power_cut_leaves_the_old_or_the_new_folder(tmp_path, monkeypatch, start):
    # the worst order of ids: whatever is older is found first
    ids = itertools.count()
    monkeypatch.setattr(place.secrets, "token_hex", lambda n: f"{next(ids):016x}")
    root = tmp_path / "root"
    root.mkdir()
    if start != "nothing":
        store.write_folder(root / "best", OLD)
    if start == "the gap between two renames":
        (root / "best").rename(place.beside(root / "best", "tmp"))
        store.write_folder(root / "older", THIRD)
        (root / "older").rename(place.beside(root / "best", "old"))
    fs, first = PowerFS(root), 0
    if start == "a save":
        assert under(monkeypatch, fs, lambda: store.write_folder(root / "best", THIRD)) == "done"
        first = len(fs.snapshots)
    assert under(monkeypatch, fs, lambda: store.write_folder(root / "best", NEW)) == "done"
    before = None if start == "nothing" else THIRD if start == "a save" else OLD
    tried, seen, last = 0, {}, {}
    for moment, snapshot in enumerate(fs.snapshots):
        legal = [before, NEW] if moment >= first - 1 else [OLD, THIRD]
        last = {}
        for state in states(snapshot):
            tried += 1
            key = repr(state)
            if key not in seen:
                seen[key] = after_the_cut(build(state, tmp_path / "cut"))
            assert seen[key] in legal, (moment, state)
            last[key] = seen[key]
    # write_folder has returned: nothing may be lost any more
    assert list(last.values()) == [NEW] * len(last)
    assert tried > 500 and len(seen) > 20
    print(f"{tried} states, {len(seen)} different")


def after_the_cut(root: Path) -> dict[str, bytes] | None:
    """What a restart finds; and the next save must work and leave nothing else."""
    try:
        found = content(root / "best")
    except MissingError:
        found = None
    store.write_folder(root / "best", THIRD)
    assert os.listdir(root) == ["best"]
    shutil.rmtree(root)
    return found


def test_the_model_of_a_power_cut_sees_a_missing_fsync(tmp_path, monkeypatch):
    """Not vacuous: a store that renames before its files are durable is caught."""
    root = tmp_path / "root"
    root.mkdir()
    store.write_folder(root / "best", OLD)

    class Careless(PowerFS):
        def fsync(self, fd):
            if self.files[fd] in self.now:
                super().fsync(fd)

    fs = Careless(root)
    assert under(monkeypatch, fs, lambda: store.write_folder(root / "best", NEW)) == "done"
    caught = 0
    for number, state in enumerate(states(fs.snapshots[-1])):
        try:
            assert content(build(state, tmp_path / str(number)) / "best") == NEW
        except QkvError:
            caught += 1
    assert caught


def test_a_folder_of_somebody_else_is_never_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="not written by qkv") as e:
        store.write_folder(tmp_path / "home", NEW)
    assert e.value.code == "QKV-061"
    assert os.listdir(tmp_path / "home") == ["thesis.txt"]


@pytest.mark.parametrize("spoil", ["notes.txt", "manifest.json"])
def test_foreign_or_damaged_content_is_moved_aside_not_removed(tmp_path, spoil):
    store.write_folder(tmp_path / "best", OLD)
    (tmp_path / "best" / spoil).write_text("mine")
    store.write_folder(tmp_path / "best", NEW)
    assert content(tmp_path / "best") == NEW
    [aside] = tmp_path.glob("best.aside-*")
    assert (aside / spoil).read_text() == "mine" and (aside / "b.bin").read_bytes() == OLD["b.bin"]


def test_a_link_to_a_folder_is_followed_and_stays(tmp_path):
    store.write_folder(tmp_path / "real", OLD)
    (tmp_path / "best").symlink_to("real")
    store.write_folder(tmp_path / "best", NEW)
    assert (tmp_path / "best").is_symlink() and content(tmp_path / "real") == NEW


def test_a_moved_folder_verifies_from_any_directory(tmp_path, monkeypatch):
    store.write_folder(tmp_path / "a", OLD)
    (tmp_path / "a").rename(tmp_path / "🎈 b")
    monkeypatch.chdir(tmp_path / "🎈 b")
    assert content(Path("../🎈 b")) == OLD


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "/etc/x", "a\0b", "manifest.json", ".lock", "x" * 240]
)
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    with pytest.raises(StoreError, match="file name") as e:
        store.write_folder(tmp_path / "f", {name: b""})
    assert e.value.code == "QKV-061" and not os.listdir(tmp_path)


def test_a_full_disk_is_noticed_before_the_first_byte(tmp_path, monkeypatch):
    class Full(FaultFS):
        def free(self, folder):
            return 100

    monkeypatch.setattr(disk, "fs", Full())
    with pytest.raises(StoreError, match=r"needed 90 bytes, free 100 bytes") as e:
        store.write_folder(tmp_path / "f", {"a": b"x" * 90})
    assert "free some space" in e.value.fix and not os.listdir(tmp_path)
    store.write_folder(tmp_path / "f", {"a": b"x" * 80})


def test_a_real_limit_of_the_system_is_reported(tmp_path):
    store.write_folder(tmp_path / "best", OLD)

    def body():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        with pytest.raises(StoreError, match="ulimit") as e:
            store.write_folder(tmp_path / "best", {"a": b"x" * 60_000})
        assert e.value.code == "QKV-061"

    assert status(in_child(body)) == 0
    assert content(tmp_path / "best") == OLD and os.listdir(tmp_path) == ["best"]


def test_a_failing_source_leaves_nothing(tmp_path):
    def broken():
        yield b"half"
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        store.write_folder(tmp_path / "f", {"a": broken()})
    with pytest.raises(StoreError, match="gone.txt"):
        store.write_folder(tmp_path / "f", {"a": tmp_path / "gone.txt"})
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("k", range(1, 13))
def test_a_removed_folder_is_whole_or_gone(tmp_path, monkeypatch, k):
    store.write_folder(tmp_path / "best", OLD)
    end = under(monkeypatch, FaultFS(k), lambda: store.remove_folder(tmp_path / "best"))
    if (tmp_path / "best").exists():
        assert content(tmp_path / "best") == OLD
    with store.lock(tmp_path):
        assert set(os.listdir(tmp_path)) <= {".lock", "best"}
    assert end == "killed" or not (tmp_path / "best").exists()


# --- detecting damage ---------------------------------------------------------------------------


def test_every_flipped_bit_is_detected(tmp_path):
    folder = tmp_path / "best"
    store.write_folder(folder, {"a.json": b'{"x": 1}', "w": bytes(range(160))})
    flips = 0
    for path in sorted(folder.iterdir()):
        raw = path.read_bytes()
        for bit in range(
            0, len(raw) * 8, 3 if path.name == "manifest.json" else 1
        ):  # in turn each bit of a byte
            spoilt = bytearray(raw)
            spoilt[bit // 8] ^= 1 << bit % 8
            path.write_bytes(spoilt)
            with pytest.raises(StoreError) as e:
                store.verify(folder)
            assert e.value.code in ("QKV-060", "QKV-063") and e.value.fix
            flips += 1
        path.write_bytes(raw)
    store.verify(folder)
    assert flips > 2_000


def test_truncations_extensions_swaps_and_strangers_are_detected(tmp_path):
    folder = tmp_path / "best"
    files = {"a": b"12345678", "b": b"abcdefgh", "c": b""}
    store.write_folder(folder, files)
    whole = {p.name: p.read_bytes() for p in folder.iterdir()}

    def spoilt(change) -> str:
        change()
        with pytest.raises(StoreError) as e:
            store.verify(folder)
        for name in os.listdir(folder):
            (folder / name).unlink()
        for name, raw in whole.items():
            (folder / name).write_bytes(raw)
        store.verify(folder)
        return str(e.value)

    for name, raw in whole.items():
        for size in range(len(raw)):
            spoilt(lambda n=name, r=raw, s=size: (folder / n).write_bytes(r[:s]))
        spoilt(lambda n=name, r=raw: (folder / n).write_bytes(r + b"\0"))
        assert name in spoilt(lambda n=name: (folder / n).unlink())
    assert "sha256" in spoilt(
        lambda: [(folder / "a").write_bytes(whole["b"]), (folder / "b").write_bytes(whole["a"])]
    )
    assert "extra" in spoilt(lambda: (folder / "extra").write_bytes(b""))
    assert "symbolic link" in spoilt(
        lambda: [(folder / "a").unlink(), (folder / "a").symlink_to("b")]
    )
    assert "regular" in spoilt(lambda: [(folder / "a").unlink(), os.mkfifo(folder / "a")])


def test_an_edited_manifest_is_detected_even_when_it_agrees_with_the_files(tmp_path):
    store.write_folder(tmp_path / "f", {"a": b"1"})
    path = tmp_path / "f" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"\n", b" "))
    with pytest.raises(StoreError, match="edited"):
        store.verify(tmp_path / "f")
    for bad in (b"", b"null", b"[" * 100_000, b"\xff", b'{"files": 3, "format_version": 1}'):
        path.write_bytes(bad)
        with pytest.raises(StoreError, match="damaged"):
            store.verify(tmp_path / "f")


def test_a_newer_format_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "FORMAT_VERSION", 2)
    store.write_folder(tmp_path / "f", {"a": b"1"})
    monkeypatch.undo()
    with pytest.raises(StoreError, match="reads up to 1") as e:
        store.verify(tmp_path / "f")
    assert e.value.code == "QKV-063"


def test_a_shallow_look_sees_sizes_but_not_bits(tmp_path):
    store.write_folder(tmp_path / "f", {"a": b"1"})
    (tmp_path / "f" / "a").write_bytes(b"2")
    store.verify(tmp_path / "f", deep=False)
    (tmp_path / "f" / "a").write_bytes(b"22")
    with pytest.raises(StoreError, match="size 2"):
        store.verify(tmp_path / "f", deep=False)


@pytest.mark.parametrize(
    "name", ["../out", "/etc/passwd", "", ".", "a/../../out", "link/out", "a\0", "nothing"]
)
def test_nothing_outside_a_folder_can_be_opened(tmp_path, name):
    (tmp_path / "out").write_text("secret")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to("..")
    with pytest.raises(StoreError) as e:
        store.open_inside(tmp_path / "in", name)
    assert e.value.code == "QKV-060" and e.value.fix


def test_a_file_in_a_sub_folder_can_be_opened(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x").write_bytes(b"hello")
    with store.open_inside(tmp_path, "sub/x") as f:
        assert f.read() == b"hello"


# --- single files -------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [0, *ERRNOS])
def test_a_file_is_old_or_new_whatever_happens(tmp_path, monkeypatch, error):
    path = tmp_path / "status.json"
    for k in range(1, 40):
        store.write_file(path, b"old")
        fs = FaultFS(fail_at=k, error=error) if error else FaultFS(kill_at=k)
        end = under(monkeypatch, fs, lambda: store.write_file(path, b"the new content"))
        assert path.read_bytes() in (
            (b"old", b"the new content") if end != "done" else (b"the new content",)
        )
        if error:
            assert os.listdir(tmp_path) == ["status.json"]
        if k > fs.count:
            break
    store.write_file(path, b"last")
    assert path.read_bytes() == b"last" and os.listdir(tmp_path) == ["status.json"]
    assert 8 < k < 39


def test_a_log_never_ends_in_half_a_line(tmp_path, monkeypatch):
    log = tmp_path / "metrics.jsonl"
    assert store.append_line(log, '{"step": 1}', sync=True) == 12
    end = under(
        monkeypatch,
        FaultFS(fail_at=2, error=errno.ENOSPC),
        lambda: store.append_line(log, "x" * 99),
    )
    assert end == "QKV-061" and log.read_bytes() == b'{"step": 1}\n'
    with pytest.raises(StoreError, match="line feed"):
        store.append_line(log, "a\nb")


def test_a_log_is_cut_to_the_recorded_size_and_never_grown(tmp_path):
    log = tmp_path / "metrics.jsonl"
    size = store.append(log, b"one\n")
    store.append(log, b"two\nthr")
    store.truncate(log, size)
    assert log.read_bytes() == b"one\n"
    with pytest.raises(StoreError, match="holds 4 bytes") as e:
        store.truncate(log, 5)
    assert e.value.code == "QKV-060" and log.read_bytes() == b"one\n"


# --- several processes --------------------------------------------------------------------------


def test_only_one_of_many_holds_a_folder(tmp_path):
    def body():
        with store.lock(tmp_path):
            os.close(os.open(tmp_path / "inside", os.O_CREAT | os.O_EXCL))  # fails if two are in
            time.sleep(0.03)
            os.unlink(tmp_path / "inside")

    for _ in range(10):
        ends = [status(pid) for pid in [in_child(body) for _ in range(6)]]
        assert set(ends) <= {0, 62} and 0 in ends


def test_the_second_is_told_who_holds_it_at_once(tmp_path):
    with store.lock(tmp_path):
        start = time.monotonic()
        with pytest.raises(BusyError, match=f"process {os.getpid()} on .* since ") as e:
            with store.lock(tmp_path):
                pass
        assert e.value.code == "QKV-062" and time.monotonic() - start < 1
    with store.lock(tmp_path):
        pass
    assert (tmp_path / ".lock").read_bytes() == b""


def test_a_dead_holder_frees_the_folder_even_when_its_worker_lives(tmp_path):
    (read, write), (ready, begun) = os.pipe(), os.pipe()

    def body():
        with store.lock(tmp_path):
            if os.fork() == 0:  # a data worker that outlives its parent
                os.close(write)
                os.write(begun, b"1")
                os.read(read, 1)
                os._exit(0)
            os.read(ready, 1)
            os.kill(os.getpid(), signal.SIGKILL)

    assert status(in_child(body)) == -signal.SIGKILL
    with store.lock(tmp_path):
        assert b"process %d " % os.getpid() in (tmp_path / ".lock").read_bytes()
    for fd in (read, write, ready, begun):
        os.close(fd)


def test_taking_a_folder_clears_and_recovers_what_the_dead_left(tmp_path, monkeypatch):
    store.write_folder(tmp_path / "last", OLD)
    n = FaultFS()
    under(monkeypatch, n, lambda: store.write_folder(tmp_path / "last", NEW))
    gap = next(k for k, op in enumerate(n.trace, 1) if op.startswith("rename") and ".tmp-" in op)
    under(monkeypatch, FaultFS(gap), lambda: store.write_folder(tmp_path / "last", OLD))
    under(monkeypatch, FaultFS(6), lambda: store.write_file(tmp_path / "s.json", b"x"))
    assert len(os.listdir(tmp_path)) == 3 and not (tmp_path / "last").exists()
    with store.lock(tmp_path):
        assert sorted(os.listdir(tmp_path)) == [".lock", "last"]
    assert content(tmp_path / "last") == OLD


def test_what_a_living_writer_writes_is_not_swept_away(tmp_path):
    def slow():
        yield b"first "
        store.write_folder(tmp_path / "best", OLD)  # another writer of the same name comes and goes
        with store.lock(tmp_path):
            pass
        yield b"second"

    store.write_folder(tmp_path / "best", {"a": slow()})
    assert content(tmp_path / "best") == {"a": b"first second"}


def test_readers_see_whole_folders_while_writers_replace_them(tmp_path):
    folder = tmp_path / "best"
    store.write_folder(folder, OLD)

    def body(seed):
        rng = random.Random(seed)
        for _ in range(40):
            store.write_folder(folder, rng.choice([OLD, NEW]))

    writers = [in_child(lambda s=s: body(s)) for s in range(2)]
    for _ in range(300):
        assert set(store.verify(folder)["files"]) in (set(OLD), set(NEW))
    assert [status(pid) for pid in writers] == [0, 0]
    assert os.listdir(tmp_path) == ["best"]


def test_racing_runs_get_different_folders(tmp_path):
    def body():
        for _ in range(8):
            store.fresh_folder(tmp_path / "runs", "ko-en")

    assert [status(pid) for pid in [in_child(body) for _ in range(4)]] == [0] * 4
    assert sorted(os.listdir(tmp_path / "runs")) == sorted(f"ko-en-{n}" for n in range(1, 33))
