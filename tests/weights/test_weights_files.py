"""safetensors: what is written is what is read, byte for byte, and nothing crafted gets past the gate."""

import json
import os
import random
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load as reference_load
from safetensors.torch import save as reference_save

from qkv.errors import MissingError, QkvError, StoreError, WeightsError
from qkv.weights import files, store
from qkv.weights.files import DTYPES, read_header, read_tensors, tensor_bytes, tensor_chunks

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def sample(seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    tensors = {f"{d}".split(".")[1]: torch.randn(3, 5, generator=g).to(d) for d in FLOATS}
    whole = [d for d in DTYPES.values() if d not in FLOATS]
    tensors |= {f"{d}".split(".")[1]: torch.arange(7).to(d) for d in whole}
    return tensors | {
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "층.0": torch.ones(1),
    }


def write(path, tensors, **kwargs):
    path.write_bytes(tensor_bytes(tensors, **kwargs))
    return path


def raw(t: torch.Tensor) -> bytes:
    return t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if t.numel() else b""


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        a[n].dtype == b[n].dtype and a[n].shape == b[n].shape and raw(a[n]) == raw(b[n]) for n in a
    )


def code(call) -> str:
    with pytest.raises(QkvError) as e:
        call()
    assert e.value.fix and e.value.place
    return e.value.code


# --- writing ------------------------------------------------------------------------------------


def test_every_type_comes_back_bit_for_bit(tmp_path):
    tensors = sample()
    assert {t.dtype for t in tensors.values()} == set(DTYPES.values())
    assert same(read_tensors(write(tmp_path / "m.safetensors", tensors)), tensors)


def test_the_reference_library_reads_ours_and_we_read_its(tmp_path):
    tensors = sample()
    assert same(reference_load(tensor_bytes(tensors)), tensors)
    (tmp_path / "theirs.safetensors").write_bytes(reference_save(tensors, {"format": "pt"}))
    assert same(read_tensors(tmp_path / "theirs.safetensors"), tensors)


def test_equal_tensors_give_equal_bytes(tmp_path):
    tensors = sample()
    strided = {n: t.t().contiguous().t() if t.dim() == 2 else t for n, t in tensors.items()}
    backwards = dict(reversed(strided.items()))
    first = tensor_bytes(tensors, {"a": "1", "b": "2"})
    assert tensor_bytes(backwards, {"b": "2", "a": "1"}) == first
    (tmp_path / "m.safetensors").write_bytes(first)
    header = read_header(tmp_path / "m.safetensors")
    again = tensor_bytes(read_tensors(tmp_path / "m.safetensors"), header.metadata)
    assert again == first and header.metadata["a"] == "1"
    assert all(slot.begin % DTYPES[slot.dtype].itemsize == 0 for slot in header.slots.values())


def test_a_tied_tensor_is_stored_once_and_tied_again(tmp_path):
    weight = torch.randn(100, 8)
    tied = {"embed.weight": weight, "head.weight": weight, "other": weight.clone()}
    path = write(tmp_path / "m.safetensors", tied)
    assert path.stat().st_size < 2 * weight.nbytes + 1_000
    back = read_tensors(path, {n: (100, 8) for n in tied})
    assert same(back, tied)
    assert back["embed.weight"].data_ptr() == back["head.weight"].data_ptr()
    assert back["other"].data_ptr() != back["head.weight"].data_ptr()
    assert tensor_bytes(back, read_header(path).metadata) == path.read_bytes()
    untied = {n: t.clone() for n, t in back.items()}
    assert same(read_tensors(write(path, untied, metadata=read_header(path).metadata)), tied)


def test_overlapping_views_are_stored_as_they_look(tmp_path):
    base = torch.arange(12.0)
    views = {
        "all": base,
        "half": base[:6],
        "square": base.view(3, 4),
        "turned": base.view(3, 4).t(),
    }
    back = read_tensors(write(tmp_path / "m.safetensors", views))
    assert same(back, views) and len({t.data_ptr() for t in back.values()}) == 4


def test_chunks_stream_into_a_folder(tmp_path):
    store.write_folder(tmp_path / "best", {"model.safetensors": tensor_chunks(sample())})
    store.verify(tmp_path / "best")
    assert same(read_tensors(tmp_path / "best" / "model.safetensors"), sample())


def test_loaded_tensors_do_not_follow_the_file(tmp_path):
    path = write(tmp_path / "m.safetensors", {"a": torch.ones(1000)})
    loaded = read_tensors(path)["a"]
    path.write_bytes(b"\0" * path.stat().st_size)
    assert bool((loaded == 1).all()) and loaded.data_ptr() % 64 == 0


@pytest.mark.parametrize(
    "tensors",
    [
        {"": torch.ones(1)},
        {"x" * 257: torch.ones(1)},
        {"a\nb": torch.ones(1)},
        {"__metadata__": torch.ones(1)},
        {"c": torch.ones(1, dtype=torch.complex64)},
        {"s": torch.ones(2, 2).to_sparse()},
        {"m": torch.ones(1, device="meta")},
    ],
)
def test_what_the_format_cannot_hold_is_refused(tensors):
    with pytest.raises(WeightsError) as e:
        tensor_bytes(tensors)
    assert e.value.code == "QKV-050" and e.value.fix


# --- what a model expects ------------------------------------------------------------------------


def test_missing_and_unexpected_names_are_counted_and_guessed(tmp_path):
    path = write(tmp_path / "m.safetensors", {"encoder.wieght": torch.ones(2), "b": torch.ones(1)})
    with pytest.raises(WeightsError) as e:
        read_tensors(path, {"encoder.weight": (2,), "b": (1,)})
    assert e.value.code == "QKV-051"
    assert "1 missing, first: encoder.weight" in e.value.seen
    assert "1 unexpected, first: encoder.wieght" in e.value.seen
    assert "'encoder.wieght' may be what 'encoder.weight' is called here" in e.value.fix


def test_every_dropped_or_renamed_name_is_an_error(tmp_path):
    tensors = sample()
    expected = {n: tuple(t.shape) for n, t in tensors.items()}
    path = tmp_path / "m.safetensors"
    read_tensors(write(path, tensors), expected)
    for name in tensors:
        rest = {n: t for n, t in tensors.items() if n != name}
        assert code(lambda r=rest: read_tensors(write(path, r), expected)) == "QKV-051"
        renamed = rest | {name + "x": tensors[name]}
        assert code(lambda r=renamed: read_tensors(write(path, r), expected)) == "QKV-051"
        reshaped = rest | {name: torch.ones(2, 9, 2)}
        assert code(lambda r=reshaped: read_tensors(write(path, r), expected)) == "QKV-052"


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_named(tmp_path, dtype, value):
    tensor = torch.ones(4, 5, dtype=dtype)
    tensor[2, 3] = value
    path = write(tmp_path / "m.safetensors", {"ok": torch.ones(3), "bad": tensor})
    with pytest.raises(
        WeightsError, match="bad: 1 of 20 numbers are not finite, first at 2×3"
    ) as e:
        read_tensors(path)
    assert e.value.code == "QKV-053"
    assert same({"bad": read_tensors(path, finite=False)["bad"]}, {"bad": tensor})


def test_a_sum_that_overflows_is_not_taken_for_infinity(tmp_path):
    huge = {"a": torch.full((100,), 60_000.0).half(), "b": torch.full((9,), 3e38)}
    assert same(read_tensors(write(tmp_path / "m.safetensors", huge)), huge)


# --- the gate -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", sorted(files.REFUSED) + [".BIN"])
def test_other_formats_are_refused_with_a_command(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"whatever")
    with pytest.raises(WeightsError, match="python -c") as e:
        read_tensors(path)
    assert e.value.code == "QKV-054" and path.name in e.value.fix


@pytest.mark.parametrize(
    "start", [b"PK\x03\x04____", b"\x80\x02ctorch", b"\x89HDF\r\n\x1a\n", b"GGUF\x03\0\0\0"]
)
def test_a_renamed_format_is_recognised(tmp_path, start):
    (tmp_path / "$(rm x).safetensors").write_bytes(start + b"\0" * 100)
    with pytest.raises(WeightsError) as e:
        read_tensors(tmp_path / "$(rm x).safetensors")
    assert e.value.code == "QKV-054" and "$" not in e.value.fix


def test_a_commands_quotes_survive_a_shell():
    for command in files.REFUSED.values():
        assert '"' not in command and "$" not in command
        compile(command, "command", "exec")


def crafted(head: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def slot(dtype="F32", shape=(1,), offsets=(0, 4), **more) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        b"\0" * 8,
        crafted({}, length=2**63),
        crafted({}, length=3),
        crafted({}, length=files.LARGEST_HEADER + 1),
        crafted([]),
        crafted(b"\xff\xfe"),
        crafted(b"[" * 100_000),
        crafted(b'{"a": NaN}'),
        crafted(b'{"a": ' + b"9" * 5_000 + b"}"),
        crafted(
            b'{"a":' + json.dumps(slot()).encode() + b',"a":' + json.dumps(slot()).encode() + b"}",
            b"1234",
        ),
        crafted({"__metadata__": {"a": 1}}),
        crafted({"__metadata__": []}),
        crafted({"__metadata__": {"aliases": "{"}}),
        crafted({"__metadata__": {"aliases": '{"a": "nothing"}'}}),
        crafted({"__metadata__": {"aliases": '{"a": "a"}'}, "a": slot()}, b"1234"),
        crafted({"": slot()}, b"1234"),
        crafted({"a" * 257: slot()}, b"1234"),
        crafted({"a\u202eb": slot()}, b"1234"),
        crafted({"a": 1}),
        crafted({"a": slot(extra=1)}, b"1234"),
        crafted({"a": slot("F33")}, b"1234"),
        crafted({"a": slot(["F32"])}, b"1234"),
        crafted({"a": slot(shape=[True])}, b"1234"),
        crafted({"a": slot(shape=[1.0])}, b"1234"),
        crafted({"a": slot(shape=[-1], offsets=(4, 0))}, b"1234"),
        crafted({"a": slot(shape=[1] * 9)}, b"1234"),
        crafted({"a": slot(shape=[2**40, 0], offsets=(0, 0))}),
        crafted({"a": slot(shape=[2**32, 2**32])}, b"1234"),
        crafted({"a": slot(shape="1")}, b"1234"),
        crafted({"a": slot(offsets=(0, 8))}, b"12345678"),
        crafted({"a": slot(offsets=(0,))}, b"1234"),
        crafted({"a": slot(offsets=(4, 8))}, b"12345678"),
        crafted({"a": slot(), "b": slot()}, b"1234"),
        crafted({"a": slot(), "b": slot(offsets=(8, 12))}, b"123456789012"),
        crafted({"a": slot(shape=[2], offsets=(0, 8)), "b": slot(offsets=(4, 8))}, b"12345678"),
        crafted({"a": slot()}, b"123"),
        crafted({"a": slot()}, b"12345"),
    ],
)
def test_a_crafted_file_is_refused(tmp_path, content):
    (tmp_path / "m.safetensors").write_bytes(content)
    assert code(lambda: read_tensors(tmp_path / "m.safetensors")) == "QKV-050"


def mutate(content: bytes, rng: random.Random) -> bytes:
    """One change: of a byte, of the length, of the end, or of a field of the header that stays JSON."""
    (length,) = struct.unpack("<Q", content[:8])
    kind = rng.randrange(4)
    if kind == 0:
        at = rng.randrange(8 + length)
        return content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
    if kind == 1:
        return (
            struct.pack("<Q", rng.choice([0, 1, length - 1, length + 1, 2**31, 2**64 - 1]))
            + content[8:]
        )
    if kind == 2:
        return content[: rng.randrange(len(content))] if rng.random() < 0.5 else content + b"\0"
    head = json.loads(content[8 : 8 + length])
    weird = [0, -1, 1, 2**40, 2**63, 2**64, 1.5, True, None, "", "F64", [], [0], {}, "\0", [[1]]]
    name = rng.choice(sorted(head))
    where = rng.choice(["name", "entry", "field", "number"])
    if where == "name":
        head[rng.choice(["", "\n", "x" * 300, "__metadata__", name + "."])] = head.pop(name)
    elif where == "entry" or name == "__metadata__":
        head[name] = rng.choice(weird)
    elif where == "field":
        head[name][rng.choice(["dtype", "shape", "data_offsets", "more"])] = rng.choice(weird)
    else:
        numbers = head[name][rng.choice(["shape", "data_offsets"])]
        numbers.insert(
            rng.randrange(len(numbers) + 1), rng.choice(weird)
        ) if rng.random() < 0.5 or not numbers else (
            numbers.__setitem__(rng.randrange(len(numbers)), rng.choice(weird))
        )
    return crafted(head, content[8 + length :])


def test_a_mutated_file_is_refused_or_read_and_nothing_else(tmp_path):
    rng = random.Random(7)
    tensors = {
        n: t for n, t in sample().items() if n in ("float32", "int64", "empty", "scalar", "bool")
    }
    whole = tensor_bytes(tensors, {"note": "hello"})
    path = tmp_path / "m.safetensors"
    refused = 0
    for _ in range(1_500):
        path.write_bytes(mutate(whole, rng))
        try:
            read_tensors(path)
        except WeightsError as e:
            assert e.code in ("QKV-050", "QKV-053", "QKV-054") and e.place == str(path) and e.fix
            refused += 1
    assert refused > 1_000


def test_links_pipes_and_missing_files_are_refused(tmp_path):
    write(tmp_path / "real.safetensors", {"a": torch.ones(1)})
    (tmp_path / "link.safetensors").symlink_to("real.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("link", "pipe", "folder"):
        with pytest.raises(StoreError):
            read_tensors(tmp_path / f"{name}.safetensors")
    with pytest.raises(MissingError):
        read_tensors(tmp_path / "none.safetensors")


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.dictionaries(
        st.text(
            st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=20
        ),
        st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 4), max_size=4)),
        max_size=8,
    )
)
def test_any_names_types_and_shapes_round_trip(tmp_path_factory, plan):
    tensors = {n: torch.ones(shape).to(DTYPES[dtype]) for n, (dtype, shape) in plan.items()}
    path = tmp_path_factory.mktemp("any") / "m.safetensors"
    assert same(
        read_tensors(write(path, tensors), {n: tuple(s) for n, (_, s) in plan.items()}), tensors
    )
