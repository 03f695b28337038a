"""The hub, imitated on this machine: what is asked for, what is kept, and what every fault becomes."""

import errno
import json
import logging
import os

import hub_server
import pytest
import torch
from hub_server import Repository

from qkv.errors import QkvError
from qkv.weights import disk, folder, hub
from qkv.weights.files import tensor_bytes
from qkv.weights.hub import commit_of, fetch, split_id

WEIGHTS = tensor_bytes({"w": torch.arange(60_000.0)})


def one_file(**more: bytes) -> dict[str, bytes]:
    return {
        "config.json": b'{"model_type": "gpt2"}',
        "generation_config.json": b"{}",
        "tokenizer.json": b'{"version": "1.0"}',
        "source.spm": b"\x0a\x0bpieces",
        "model.safetensors": WEIGHTS,
        # none of these is read here, so none may come
        "README.md": b"# a model",
        "pytorch_model.bin": b"\x80\x02pickle",
        "modeling_gpt2.py": b"raise SystemExit('this ran')",
        "onnx/model.safetensors": b"another",
        "onnx/spiece.model": b"another",
        "consolidated.safetensors": b"the same once more",
        **more,
    }


WANTED = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "source.spm",
    "tokenizer.json",
]


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A hub with one model, and an empty cache; nothing of the machine's own settings takes part."""
    import huggingface_hub.constants as constants
    import huggingface_hub.file_download as file_download

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with hub_server.serving() as served:
        served.repositories["org/tiny"] = Repository(one_file())
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


def wrong(call, code: str, *words: str) -> QkvError:
    with pytest.raises(QkvError) as e:
        call()
    assert e.value.code == code, e.value
    line = str(e.value)
    assert "\n" not in line and e.value.fix
    for word in words:
        assert word in line, (word, line)
    return e.value


# --- what comes ----------------------------------------------------------------------------------


def test_a_model_comes_without_what_is_not_read(served, capfd):
    said = []
    there = fetch("org/tiny", say=said.append)
    assert sorted(os.listdir(there)) == WANTED
    assert sorted(served.downloads()) == WANTED
    assert torch.equal(folder.tensors(there)["w"], torch.arange(60_000.0))
    assert commit_of(there) == served.repositories["org/tiny"].commit
    assert said == [f"org/tiny at {commit_of(there)}"]
    out, err = capfd.readouterr()
    assert not out and not err


def test_progress_goes_to_stderr_when_wanted(served, capfd, monkeypatch):
    monkeypatch.setenv("TQDM_POSITION", "-1")  # as if stderr were a terminal
    fetch("org/tiny", progress=True)
    out, err = capfd.readouterr()
    assert not out and "100%" in err


def test_a_second_fetch_downloads_nothing(served):
    there = fetch("org/tiny")
    served.asked.clear()
    assert fetch("org/tiny") == there
    assert not served.downloads()


def test_another_cache_folder_is_taken(served, tmp_path):
    there = fetch("org/tiny", cache=tmp_path / "elsewhere")
    assert there.is_relative_to(tmp_path / "elsewhere")
    assert not (tmp_path / "cache").exists()


def test_shards_come_with_their_index(served):
    made = folder.files({f"w{i}": torch.full((1000,), float(i)) for i in range(4)}, max_shard=5_000)
    shards = {n: b"".join(c) if not isinstance(c, bytes) else c for n, c in made.items()}
    plain = {n: c for n, c in one_file().items() if n != "model.safetensors"}
    served.repositories["org/big"] = Repository({**plain, **shards})
    there = fetch("org/big")
    assert set(os.listdir(there)) == set(shards) | set(WANTED) - {"model.safetensors"}
    assert {n: t[0].item() for n, t in folder.tensors(there).items()} == {
        f"w{i}": i for i in range(4)
    }


def test_a_set_that_its_index_names_otherwise_comes_whole(served):
    index = {"weight_map": {"w": "first.safetensors"}}
    files = {
        "config.json": b"{}",
        folder.INDEX: json.dumps(index).encode(),
        "first.safetensors": WEIGHTS,
    }
    served.repositories["org/odd"] = Repository(files)
    assert set(folder.tensors(fetch("org/odd"))) == {"w"}


# --- revisions and no network --------------------------------------------------------------------


def test_a_revision_is_pinned(served):
    tiny = served.repositories["org/tiny"]
    first = fetch("org/tiny")
    old, tiny.files["config.json"] = tiny.commit, b'{"model_type": "gpt2", "n_layer": 2}'
    second = fetch("org/tiny@main")
    assert commit_of(first) == old and commit_of(second) == tiny.commit != old
    served.asked.clear()
    assert fetch("org/tiny", revision=old) == first == fetch(f"org/tiny@{old}")
    assert not served.asked  # a commit never changes
    tiny.branches = ("main", "v1.0")
    assert fetch("org/tiny", "v1.0") == second


@pytest.mark.parametrize("how", ["argument", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_asks_nothing(served, how, monkeypatch):
    there = fetch("org/tiny")
    served.asked.clear()
    if how != "argument":
        monkeypatch.setenv(how, "1")
    assert fetch("org/tiny", offline=how == "argument") == there
    wrong(lambda: fetch("org/other", offline=how == "argument"), "QKV-021", "org/other", "offline")
    wrong(lambda: fetch("org/tiny@v9", offline=how == "argument"), "QKV-021", "v9", "offline")
    assert not served.asked


def test_half_a_model_in_the_cache_is_not_a_model(served):
    there = fetch("org/tiny")
    (there / "model.safetensors").unlink()
    wrong(lambda: fetch("org/tiny", offline=True), "QKV-021", "model.safetensors is missing")
    assert (fetch("org/tiny") / "model.safetensors").exists()


def test_without_a_network_the_copy_from_the_cache_is_used_and_said(served, monkeypatch):
    there = fetch("org/tiny")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    said = []
    assert fetch("org/tiny", say=said.append) == there
    assert "cannot be reached" in said[0] and "local cache" in said[0]
    wrong(lambda: fetch("org/other"), "QKV-080", "org/other@main", "cannot be reached", "network")


# --- refusals ------------------------------------------------------------------------------------


def test_what_is_no_id_is_not_asked_for(served):
    for name in (
        "",
        "../etc",
        "a/b/c",
        "org/na me",
        "org/..",
        "https://x.y/z",
        "a--b/c",
        "/org/tiny",
        "org/tiny@",
    ):
        assert split_id(name) is None
        wrong(lambda n=name: fetch(n), "QKV-001", "org/name")
    assert split_id("gpt2") == ("gpt2", None)
    assert split_id("org/tiny@refs/pr/1") == ("org/tiny", "refs/pr/1")
    wrong(lambda: fetch("org/tiny@v1", "v2"), "QKV-001", "v1", "v2")
    assert not served.asked


def test_an_unknown_model_a_wrong_revision_and_a_gated_one_are_told_apart(served):
    wrong(lambda: fetch("org/nothing"), "QKV-021", "org/nothing", "no such model")
    wrong(lambda: fetch("org/tiny@v9"), "QKV-021", "no revision 'v9'")
    wrong(lambda: fetch(f"org/tiny@{'0' * 40}"), "QKV-021", "no revision")
    served.repositories["org/tiny"].gated = True
    wrong(lambda: fetch("org/tiny"), "QKV-080", "gated", "huggingface.co/org/tiny", "hf auth login")


@pytest.mark.parametrize(
    ("status", "code", "word"),
    [(401, "QKV-021", "private"), (403, "QKV-080", "gated"), (404, "QKV-021", "no such"), (500, "QKV-080", "500"), (429, "QKV-080", "429")],
)  # fmt: skip
def test_every_refusal_of_the_server_has_its_line(served, status, code, word):
    served.status = status
    wrong(lambda: fetch("org/tiny"), code, word)


def test_pickles_alone_are_refused_before_anything_comes(served):
    pickles = {"config.json": b"{}", "pytorch_model.bin": b"\x80\x02", "tf_model.h5": b"\x89HDF"}
    served.repositories["org/old"] = Repository(pickles)
    commit = served.repositories["org/old"].commit
    e = wrong(lambda: fetch("org/old"), "QKV-054", "pytorch_model.bin", "refs/pr/1")
    assert f"hf download org/old --revision {commit}" in e.fix
    assert "torch.load('pytorch_model.bin', map_location='cpu', weights_only=True)" in e.fix
    assert not served.downloads()


def test_a_repository_without_weights_or_config_says_so(served):
    served.repositories["org/empty"] = Repository({"config.json": b"{}"})
    wrong(lambda: fetch("org/empty"), "QKV-020", "neither model.safetensors nor")
    served.repositories["org/bare"] = Repository({"model.safetensors": WEIGHTS})
    wrong(lambda: fetch("org/bare"), "QKV-050", "config.json is missing")
    index = {
        "weight_map": {
            "w": "model-00001-of-00002.safetensors",
            "v": "model-00002-of-00002.safetensors",
        }
    }
    half = {
        "config.json": b"{}",
        folder.INDEX: json.dumps(index).encode(),
        "model-00001-of-00002.safetensors": WEIGHTS,
    }
    served.repositories["org/half"] = Repository(half)
    wrong(lambda: fetch("org/half"), "QKV-050", "model-00002-of-00002.safetensors is missing")


# --- faults on the way ---------------------------------------------------------------------------


def test_a_cut_download_goes_on_where_it_stopped(served, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50_000)  # what it keeps of
    served.cut["model.safetensors"] = [100_000, 50_000]
    there = fetch("org/tiny")
    assert (there / "model.safetensors").read_bytes() == WEIGHTS
    ranges = [r for m, path, r in served.asked if m == "GET" and path.endswith("model.safetensors")]
    assert ranges == ["", "bytes=100000-", "bytes=150000-"]


class ListHandler(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def test_a_download_that_is_cut_again_and_again_leaves_no_model(served, monkeypatch):
    served.cut["model.safetensors"] = [0] * 50
    said, log = [], logging.getLogger("huggingface_hub")
    monkeypatch.setattr(log, "handlers", [ListHandler(said)])
    wrong(lambda: fetch("org/tiny"), "QKV-080", "org/tiny")
    assert not said  # the library would warn of each attempt; ours is one line
    level = log.level
    wrong(lambda: fetch("org/tiny", progress=True), "QKV-080", "org/tiny")
    assert said and log.level == level
    wrong(lambda: fetch("org/tiny", offline=True), "QKV-021", "model.safetensors is missing")
    served.cut.clear()
    assert (fetch("org/tiny") / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", WEIGHTS[:-1] + b"\x01"),
        ("config.json", b'{"model_type": "gpt3"}'),
        ("model.safetensors", WEIGHTS[:-4]),
        ("model.safetensors", WEIGHTS + b"\0"),
    ],
)
def test_a_file_that_is_not_what_the_hub_promised_is_not_kept(served, file, content):
    served.swap[file] = content
    wrong(lambda: fetch("org/tiny"), "QKV-081")
    served.swap.clear()
    there = fetch("org/tiny")
    assert (there / file).read_bytes() == served.repositories["org/tiny"].files[file]


def test_damage_in_the_cache_is_noticed(served):
    there = fetch("org/tiny")
    blob = (there / "model.safetensors").resolve()
    blob.write_bytes(WEIGHTS[:-1] + b"\x01")
    wrong(lambda: fetch("org/tiny", offline=True), "QKV-081", "org/tiny: model.safetensors")
    assert not blob.exists() and not os.path.lexists(there / "model.safetensors")
    assert (fetch("org/tiny") / "model.safetensors").read_bytes() == WEIGHTS


def test_what_other_programs_keep_in_the_cache_is_left_alone(served):
    there = fetch("org/tiny")
    blob = there.parent.parent / "blobs" / ("0" * 64)
    blob.write_bytes(b"half a download of another program")
    (there / "pytorch_model.bin").symlink_to(f"../../blobs/{blob.name}")
    assert fetch("org/tiny") == fetch("org/tiny", offline=True) == there
    assert blob.exists() and (there / "pytorch_model.bin").exists()


def test_a_full_disk_is_seen_before_the_download(served, monkeypatch):
    monkeypatch.setattr(disk.fs, "free", lambda folder: 1000)
    wrong(lambda: fetch("org/tiny"), "QKV-061", "needed 240,")
    assert not served.downloads()


def test_a_disk_that_fills_up_on_the_way_is_said(served, monkeypatch):
    import huggingface_hub.file_download as file_download

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.incomplete")

    monkeypatch.setattr(file_download, "http_get", full)
    wrong(lambda: fetch("org/tiny"), "QKV-061", "No space left", "HF_HUB_CACHE")


def test_a_link_out_of_the_cache_is_not_followed(served, tmp_path):
    there = fetch("org/tiny")
    (tmp_path / "secret.safetensors").write_bytes(WEIGHTS)
    for target in (
        tmp_path / "secret.safetensors",
        "../../../../secret.safetensors",
        "../../blobs/../../../secret.safetensors",
    ):
        (there / "model.safetensors").unlink()
        (there / "model.safetensors").symlink_to(target)
        wrong(lambda: folder.tensors(there)["w"], "QKV-060", "symbolic link")


def test_the_library_is_asked_for_only_when_it_is_needed():
    import subprocess
    import sys

    code = "import sys, qkv.weights.hub; print('huggingface_hub' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        == "False"
    )


def test_hub_takes_no_code(served):
    assert not any(p.endswith((".py", ".bin")) for p in hub.PLAIN)
