"""Published folders: transformers' own are read bit for bit, ours are read by transformers, and no damage gets through."""

import json
import os
import shlex
import struct
import tracemalloc

import pytest
import torch
from safetensors.torch import load_file, save_file

from qkv.errors import QkvError, WeightsError
from qkv.weights import files, folder, store
from qkv.weights.folder import INDEX, SINGLE, Tensors, tensors

TIED = {"lm_head.weight": "transformer.wte.weight"}


def raw(t: torch.Tensor) -> bytes:
    return t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(a, b) -> bool:
    return set(a) == set(b) and all(
        a[n].dtype == b[n].dtype and a[n].shape == b[n].shape and raw(a[n]) == raw(b[n]) for n in a
    )


def wrong(call, code: str, *words: str) -> QkvError:
    """One line with a code, a place and a fix, and these words."""
    with pytest.raises(QkvError) as e:
        call()
    line = str(e.value)
    assert e.value.code == code, line
    assert e.value.place and e.value.fix and "\n" not in line
    for word in words:
        assert word in line, (word, line)
    return e.value


def read(path, expected=None) -> dict[str, torch.Tensor]:
    return tensors(path, expected).load()


def write(path, made) -> None:
    path.mkdir(exist_ok=True)
    for name, content in made.items():
        (path / name).write_bytes(content if isinstance(content, bytes) else b"".join(content))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A tiny random model of the reference library: (the model, a folder with one file, a folder with shards)."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2,
        n_embd=32,
        n_head=2,
        vocab_size=300,
        n_positions=32,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config).eval()
    base = tmp_path_factory.mktemp("published")
    model.save_pretrained(base / "one")
    model.save_pretrained(base / "shards", max_shard_size="50KB")
    return model, base / "one", base / "shards"


@pytest.fixture
def shards(tmp_path):
    """Three shards of ours: a, b | c | d."""
    made = {"a": 10, "b": 10, "c": 20, "d": 20}
    write(
        tmp_path, folder.files({n: torch.arange(float(k)) for n, k in made.items()}, max_shard=80)
    )
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    return tmp_path


def shard(n: int) -> str:
    return f"model-0000{n}-of-00003.safetensors"


# --- with the reference library ------------------------------------------------------------------


def test_what_transformers_writes_is_read_bit_for_bit(published):
    model, one, shards = published
    state = {n: t for n, t in model.state_dict().items() if n not in TIED}
    assert len(list(shards.glob("*.safetensors"))) > 2
    shapes = {n: tuple(t.shape) for n, t in state.items()}
    assert same(read(one, shapes), state)
    assert same(read(shards, shapes), state)
    assert tensors(shards).nbytes == sum(t.nbytes for t in state.values())
    assert tensors(shards).shapes == shapes


@pytest.mark.parametrize("max_shard", [5_000_000_000, 50_000])
def test_transformers_reads_what_we_write(published, tmp_path, max_shard):
    from transformers import GPT2LMHeadModel

    model, one, theirs = published
    made = folder.files(model.state_dict(), tied=TIED, max_shard=max_shard)
    store.write_folder(tmp_path / "m", {**made, "config.json": (one / "config.json").read_bytes()})
    back, said = GPT2LMHeadModel.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not any(said.values())
    assert same(back.state_dict(), model.state_dict())
    if (
        max_shard == 50_000
    ):  # the same tensors in the same shards under the same names, and the same index
        assert (tmp_path / "m" / INDEX).read_bytes() == (theirs / INDEX).read_bytes()


def test_loading_and_saving_again_changes_no_byte(published, tmp_path):
    for source in published[1:]:
        first = folder.files(read(source), max_shard=50_000)
        write(tmp_path / "a", first)
        assert same(read(tmp_path / "a"), read(source))
        again = folder.files(tensors(tmp_path / "a"), max_shard=50_000)
        assert same(read(tmp_path / "a"), {n: t for n, t in tensors(tmp_path / "a").items()})
        write(tmp_path / "b", again)
        assert same(read(tmp_path / "b"), read(source))


def test_a_single_file_says_that_it_is_of_torch(published, tmp_path):
    write(tmp_path, folder.files({"w": torch.ones(2)}))
    assert os.listdir(tmp_path) == [SINGLE]
    assert files.read_header(tmp_path / SINGLE).metadata == {"format": "pt"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_type_of_the_file_is_kept(tmp_path, dtype):
    theirs = {"w": torch.randn(7, 3).to(dtype), "ids": torch.arange(4)}
    save_file(theirs, tmp_path / SINGLE, {"format": "pt"})
    found = tensors(tmp_path)
    assert same(found.load(), theirs) and found.dtypes == {"w": dtype, "ids": torch.int64}
    write(tmp_path / "ours", folder.files(found))
    assert same(load_file(tmp_path / "ours" / SINGLE), theirs)
    found.check_floating(["w"])
    wrong(lambda: found.check_floating(["w", "ids"]), "QKV-050", "ids", "torch.int64", SINGLE)


# --- writing -------------------------------------------------------------------------------------


def test_shards_are_filled_in_order_and_none_is_too_large():
    given = {f"{i:02}": torch.ones(i % 7 + 1) for i in range(40)}
    for limit in (4, 16, 28, 60, 10_000):
        made = folder.files(given, max_shard=limit)
        groups = [list(f.tensors) for f in made.values() if isinstance(f, files.File)]
        assert [n for g in groups for n in g] == list(given)
        for group in groups:
            assert len(group) == 1 or sum(given[n].nbytes for n in group) <= limit
        assert (INDEX in made) == (len(groups) > 1)
        if INDEX in made:
            index = json.loads(made[INDEX])
            assert index["metadata"] == {
                "total_parameters": sum(t.numel() for t in given.values()),
                "total_size": sum(t.nbytes for t in given.values()),
            }
            assert set(index["weight_map"]) == set(given)


def test_a_tied_tensor_is_written_once(tmp_path):
    w = torch.randn(50, 4)
    given = {"z.embed": w, "a.head": w, "other": torch.ones(3)}
    made = folder.files(given, tied={"a.head": "z.embed"})
    write(tmp_path / "declared", made)
    assert set(read(tmp_path / "declared")) == {"z.embed", "other"}
    # memory that is shared and was not declared: the first name given is stored, and the other is tied again
    for limit in (10_000, 100):
        there = tmp_path / str(limit)
        write(there, folder.files(given, max_shard=limit))
        assert sum(p.stat().st_size for p in there.iterdir()) < 2 * w.nbytes
        back = read(there)
        assert same(back, given) and back["a.head"].data_ptr() == back["z.embed"].data_ptr()
        stored = [n for h in tensors(there).headers.values() for n in h.slots]
        assert "z.embed" in stored and "a.head" not in stored


def test_tied_tensors_that_differ_are_not_saved():
    given = {"a": torch.ones(2), "b": torch.zeros(2)}
    wrong(lambda: folder.files(given, tied={"b": "a"}), "QKV-051", "b must be the same")
    wrong(lambda: folder.files({"b": torch.zeros(2)}, tied={"b": "a"}), "QKV-051", "b must be")
    assert list(folder.files({"a": torch.ones(2)}, tied={"b": "a"})) == [SINGLE]


def test_a_full_disk_is_seen_before_the_first_byte(tmp_path, monkeypatch):
    from qkv.weights import disk

    monkeypatch.setattr(disk.fs, "free", lambda path: 1000)
    made = folder.files({"w": torch.ones(1000)})
    wrong(lambda: store.write_folder(tmp_path / "m", made), "QKV-061", "needed 4,000 bytes")
    assert os.listdir(tmp_path) == []


# --- reading lazily ------------------------------------------------------------------------------


def test_nothing_is_read_before_it_is_asked_for(shards, monkeypatch):
    asked = []
    whole = files._read
    monkeypatch.setattr(
        files, "_read", lambda f, at, slot, place: asked.append(place) or whole(f, at, slot, place)
    )
    found = tensors(shards)
    assert "a" in found and "x" not in found and len(found) == 4 and list(found) == list("abcd")
    assert found.shapes["a"] == (10,) and not asked
    assert found["c"].tolist() == list(range(20)) and len(asked) == 1
    with pytest.raises(KeyError):
        found["x"]


def test_a_file_that_changed_since_is_an_error(shards):
    found = tensors(shards)
    (shards / "new").write_bytes((shards / shard(2)).read_bytes())
    os.rename(shards / "new", shards / shard(2))
    wrong(lambda: found["c"], "QKV-050", shard(2), "changed after its header was read")
    assert found["a"].shape == (10,)
    os.truncate(shards / shard(1), 90)
    wrong(lambda: found["a"], "QKV-050", shard(1))
    (shards / shard(1)).unlink()
    wrong(lambda: found["a"], "QKV-020", shard(1))


def test_what_is_expected_is_compared_before_anything_is_read(shards, monkeypatch):
    monkeypatch.setattr(torch, "empty", None)
    expected = {"a": (10,), "b": (10,), "c": (20,), "d": (20,)}
    assert isinstance(tensors(shards, expected), Tensors)
    wrong(lambda: tensors(shards, {**expected, "e": (1,)}), "QKV-051", "1 missing, first: e")
    wrong(lambda: tensors(shards, {"a": (10,)}), "QKV-051", "3 unexpected")
    wrong(lambda: tensors(shards, {**expected, "d": (4, 5)}), "QKV-052", "d is 20", "4×5")


# --- damage --------------------------------------------------------------------------------------


def test_a_file_cut_anywhere_is_refused(published, tmp_path):
    _, one, theirs = published
    last = sorted(theirs.glob("*.safetensors"))[-1].name
    write(tmp_path / "shards", {p.name: p.read_bytes() for p in theirs.iterdir()})
    for source, name in ((one, SINGLE), (theirs, last), (theirs, INDEX)):
        content = (source / name).read_bytes()
        there = tmp_path / ("shards" if source == theirs else "one")
        for percent in range(100):
            write(there, {name: content[: len(content) * percent // 100]})
            with pytest.raises(QkvError) as e:
                read(there)
            assert e.value.code == "QKV-050" and name in e.value.place and e.value.fix
        write(there, {name: content})
        assert read(there)


def test_a_flipped_bit_of_a_header_is_refused_or_changes_nothing(tmp_path):
    """Or nothing that is read: the metadata is only passed on."""
    whole = {"layer.0.weight": torch.ones(4, 3), "layer.0.bias": torch.ones(3).half()}
    shapes = {n: tuple(t.shape) for n, t in whole.items()}
    content = files.tensor_bytes(whole)
    (length,) = struct.unpack("<Q", content[:8])
    write(tmp_path, {SINGLE: content})
    slots = files.read_header(tmp_path / SINGLE).slots
    refused = 0
    for bit in range(8 * (8 + length)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        write(tmp_path, {SINGLE: bytes(flipped)})
        try:
            found = tensors(tmp_path, shapes)
        except QkvError as e:
            assert e.code in ("QKV-050", "QKV-051", "QKV-052", "QKV-054") and e.fix
            refused += 1
        else:
            assert found.headers[tmp_path / SINGLE].slots == slots
    assert refused > 0.8 * 8 * length


def crafted(head: object, data: bytes = b"") -> bytes:
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "content",
    [
        crafted({"c": entry([20], 0, 80), "x": entry([20], 40, 120)}, b"\0" * 120),
        crafted({"c": entry([20], 8, 88)}, b"\0" * 88),
        crafted({"c": entry([20], 0, 80)}, b"\0" * 79),
        crafted({"c": entry([20], 0, 80, "F31")}, b"\0" * 80),
        crafted({"c": entry([10], 0, 80, "F32")}, b"\0" * 80),
        crafted({"c": entry([1 << 38, 1 << 38], 0, 80)}, b"\0" * 80),
        b"<!DOCTYPE html><html>not found</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 548105171\n",
    ],
)
def test_a_crafted_shard_is_refused_and_named(shards, content):
    (shards / shard(2)).write_bytes(content)
    wrong(lambda: tensors(shards), "QKV-050", shard(2))


def edit(there, change) -> None:
    index = json.loads((there / INDEX).read_bytes())
    index = change(index["weight_map"]) or index
    (there / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    "file", ["../secret.safetensors", "/etc/secret.safetensors", "sub/x.safetensors", "..", "", "x.bin", ".x.safetensors", "a\0.safetensors", 3, None, ["x"]]
)  # fmt: skip
def test_an_index_that_points_elsewhere_is_refused(shards, file):
    secret = shards.parent / "secret.safetensors"
    secret.write_bytes((shards / shard(1)).read_bytes())
    edit(shards, lambda where: where.update(a=file))
    wrong(lambda: tensors(shards), "QKV-050", INDEX, "'a'")


def test_a_missing_shard_is_named(shards):
    (shards / shard(1)).unlink()
    wrong(lambda: tensors(shards), "QKV-050", shard(1), "2 of 4 tensors")


def test_a_name_in_two_shards_is_refused(shards):
    text = (shards / INDEX).read_text()
    (shards / INDEX).write_text(text.replace('"a": ', f'"c": "{shard(1)}", "a": '))
    wrong(lambda: tensors(shards), "QKV-050", INDEX, "duplicate key 'c'")
    (shards / INDEX).write_text(text)
    write(shards, {shard(1): files.tensor_bytes({n: torch.ones(10) for n in "abc"})})
    wrong(lambda: tensors(shards), "QKV-050", shard(1), "'c'", shard(2))
    w = torch.ones(10)
    write(shards, {shard(1): files.tensor_bytes({"a": torch.zeros(10), "b": w, "c": w})})
    wrong(lambda: tensors(shards), "QKV-050", shard(1), "'c'", shard(2))


def test_index_and_shard_that_disagree_are_refused(shards):
    write(shards, {shard(2): files.tensor_bytes({"x": torch.ones(20)})})
    wrong(lambda: tensors(shards), "QKV-051", shard(2), "lacks c")
    write(shards, {shard(2): files.tensor_bytes({n: torch.ones(20) for n in "cx"})})
    wrong(lambda: tensors(shards), "QKV-051", shard(2), "holds x")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": []}', '{"weight_map": 3}', "NaN", '{"weight_map": ' + "[" * 3000, "\ufeff", '{"weight_map": {"a": NaN}}'],
)  # fmt: skip
def test_an_index_that_is_none_is_refused(shards, text):
    (shards / INDEX).write_text(text)
    wrong(lambda: tensors(shards), "QKV-050", INDEX)
    (shards / INDEX).write_bytes(b"\xff" + text.encode())
    wrong(lambda: tensors(shards), "QKV-050", INDEX)


def test_links_are_refused_unless_the_hubs_cache_made_them(shards, tmp_path_factory):
    away = tmp_path_factory.mktemp("away")
    whole = (shards / shard(2)).read_bytes()
    (away / "x.safetensors").write_bytes(whole)
    (shards / "x.safetensors").write_bytes(whole)
    for target in (away / "x.safetensors", "x.safetensors", "../../blobs/x"):
        (shards / shard(2)).unlink()
        (shards / shard(2)).symlink_to(target)
        wrong(lambda: tensors(shards), "QKV-060", shard(2), "symbolic link")
    (shards / INDEX).rename(away / INDEX)
    (shards / INDEX).symlink_to(away / INDEX)
    wrong(lambda: tensors(shards), "QKV-060", INDEX, "symbolic link")


def cached(base, content: bytes):
    """…/models--org--tiny/snapshots/<commit>/model.safetensors -> ../../blobs/<hash>, as the hub's cache has it."""
    repository = base / "models--org--tiny"
    there = repository / "snapshots" / ("0" * 40)
    there.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / ("a" * 64)).write_bytes(content)
    (there / SINGLE).symlink_to("../../blobs/" + "a" * 64)
    return repository, there


def test_the_links_of_the_hubs_cache_lead_to_its_blobs_only(tmp_path):
    content = files.tensor_bytes({"w": torch.ones(3)})
    repository, there = cached(tmp_path / "hub", content)
    assert read(there)["w"].tolist() == [1, 1, 1]
    (tmp_path / "alias").symlink_to(there)
    assert read(tmp_path / "alias")["w"].tolist() == [1, 1, 1]
    blob = repository / "blobs" / ("a" * 64)
    # repositories with the same file share it, one folder further up
    shared = tmp_path / "hub" / "blobs" / "bc" / ("bc" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to("../../blobs/bc/" + "bc" * 32)
    assert read(there)["w"].tolist() == [1, 1, 1]
    (tmp_path / "secret").write_bytes(content)
    for target in ("../../../secret", tmp_path / "secret", "../../blobs/bc/../../../secret", "x"):
        blob.unlink()
        blob.symlink_to(target)
        wrong(lambda: tensors(there), "QKV-060", "symbolic link")
    blob.unlink()
    wrong(lambda: tensors(there), "QKV-060", "missing")
    for target in (
        "../../blobs/..",
        "../../blobs/../../../secret",
        "../blobs/x",
        "../../blobs/a/b",
    ):
        (there / SINGLE).unlink()
        (there / SINGLE).symlink_to(target)
        wrong(lambda: tensors(there), "QKV-060", SINGLE)
    blobs = repository / "blobs"
    blobs.rmdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_bytes(content)
    blobs.symlink_to(tmp_path / "out")
    (there / SINGLE).unlink()
    (there / SINGLE).symlink_to("../../blobs/x")
    wrong(lambda: tensors(there), "QKV-060")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_not_finite_name_tensor_and_file(shards, dtype):
    bad = torch.ones(20, dtype=dtype)
    bad[7] = float("nan")
    write(shards, {shard(2): files.tensor_bytes({"c": bad})})
    found = tensors(shards)
    assert found["a"].shape == (10,)
    wrong(lambda: found["c"], "QKV-053", shard(2), "c: 1 of 20 numbers", "first at 7")
    assert raw(tensors(shards, finite=False)["c"]) == raw(bad)


def test_a_giant_claim_costs_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "empty", None)  # no tensor may be made
    claims = {
        "header": struct.pack("<Q", 200 << 20) + b'{"a":',
        "tensor": crafted({"w": entry([50 << 20], 0, 200 << 20)}, b"\0" * 64),
        "many": crafted(
            {f"w{i}": entry([50 << 20], i * (200 << 20), (i + 1) * (200 << 20)) for i in range(100)}
        ),
    }
    for name, content in claims.items():
        write(tmp_path, {SINGLE: content})
        if name == "header":
            os.truncate(
                tmp_path / SINGLE, 300 << 20
            )  # a file that is long enough, and takes no disk
        tracemalloc.start()
        wrong(lambda: tensors(tmp_path), "QKV-050", SINGLE)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20, (name, peak)


def test_a_header_or_index_full_of_small_values_costs_little(tmp_path):
    """16 MiB of JSON would become 330 MB of empty lists."""
    bombs = (b'{"a": [' + b"[]," * 5_000_000 + b"[]]}", b"{" + b'"a":1,' * 2_700_000 + b'"b": 1}')
    for bomb in bombs:
        for name, content in ((SINGLE, struct.pack("<Q", len(bomb)) + bomb), (INDEX, bomb)):
            write(tmp_path, {name: content})
            tracemalloc.start()
            wrong(lambda: tensors(tmp_path), "QKV-050", name)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 3 * len(bomb), (name, peak)
            (tmp_path / name).unlink()


# --- what is not read ----------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["pytorch_model.bin"], ["model.bin"], ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"], ["model.pt"], ["last.ckpt"]])  # fmt: skip
def test_pickles_are_refused_and_the_command_converts_them(tmp_path, names, monkeypatch):
    w = torch.randn(4, 3)
    state = {"embed": w, "head": w, "norm": torch.ones(3).bfloat16()}
    split = [dict(list(state.items())[i :: len(names)]) for i in range(len(names))]
    for name, part in zip(names, split, strict=True):
        torch.save(part, tmp_path / name)
    (tmp_path / "config.json").write_text("{}")
    e = wrong(lambda: tensors(tmp_path), "QKV-054", names[0], "only safetensors is read")
    words = shlex.split(e.fix[e.fix.index("python -c") :])
    assert words[:2] == ["python", "-c"] and len(words) == 3
    monkeypatch.chdir(tmp_path)
    exec(words[2], {})
    assert same(read(tmp_path), state)


def test_a_folder_without_weights_says_what_is_there(tmp_path):
    wrong(lambda: tensors(tmp_path / "none"), "QKV-020", "none")
    wrong(lambda: tensors(tmp_path), "QKV-020", f"neither {SINGLE} nor {INDEX}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    wrong(lambda: tensors(tmp_path), "QKV-020", "adapter_model.safetensors is the whole model")
    (tmp_path / "x.h5").write_bytes(b"")
    wrong(lambda: tensors(tmp_path), "QKV-054", "x.h5")
    (tmp_path / SINGLE).write_bytes(b"PK\x03\x04renamed")
    wrong(lambda: tensors(tmp_path), "QKV-054", SINGLE)


def test_one_file_comes_before_an_index(shards):
    write(shards, {SINGLE: files.tensor_bytes({"only": torch.ones(1)})})
    assert set(read(shards)) == {"only"}


def test_every_refusal_is_ours(shards):
    """Nothing but the error tree leaves this module, whatever single byte of the index is changed."""
    content = (shards / INDEX).read_bytes()
    refused = 0
    for at in range(len(content)):
        (shards / INDEX).write_bytes(content[:at] + b"\xff" + content[at + 1 :])
        with pytest.raises(WeightsError):
            tensors(shards)
        (shards / INDEX).write_bytes(content[:at] + b"7" + content[at + 1 :])
        try:
            tensors(shards)
        except QkvError as e:
            assert e.code in ("QKV-050", "QKV-051")
            refused += 1
    assert refused > len(content) // 2
