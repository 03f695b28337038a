"""safetensors, written deterministically and read behind a gate: nothing is believed before it is checked.

A file is `u64 header length · JSON header · tensors`, little-endian.  A tensor under several names is stored once;
the other names are in the metadata, and reading ties them again.
"""

import difflib
import json
import math
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from qkv.errors import MissingError, WeightsError
from qkv.weights.manifest import is_crowded, open_inside

LARGEST_HEADER = 16 << 20  # bytes
LARGEST_DIM = 1 << 40
LONGEST_NAME = 256
DEEPEST = 8  # axes
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}

# How to convert what is never opened here, on a machine where its content may run.
TORCH = (
    "import torch; from safetensors.torch import save_file; x = torch.load('FILE', map_location='cpu', weights_only=True); "
    "save_file({k: v.clone().contiguous() for k, v in x.get('state_dict', x).items()}, 'model.safetensors', {'format': 'pt'})"
)
TORCH_SHARDS = (
    "import glob, torch; from safetensors.torch import save_file; x = {}; "
    "[x.update(torch.load(f, map_location='cpu', weights_only=True)) for f in sorted(glob.glob('pytorch_model*.bin'))]; "
    "save_file({k: v.clone().contiguous() for k, v in x.items()}, 'model.safetensors', {'format': 'pt'})"
)
NUMPY = "import numpy; from safetensors.numpy import save_file; save_file(dict(numpy.load('FILE', allow_pickle=False)), 'model.safetensors')"
HDF5 = (
    "import h5py; from safetensors.numpy import save_file; x = {}; "
    "h5py.File('FILE').visititems(lambda n, d: x.update({n: d[()]}) if isinstance(d, h5py.Dataset) else None); save_file(x, 'model.safetensors')"
)
GGUF = (
    "from gguf import GGUFReader; from gguf.quants import dequantize; from safetensors.numpy import save_file; "
    "save_file({t.name: dequantize(t.data, t.tensor_type) for t in GGUFReader('FILE').tensors}, 'model.safetensors')"
)
REFUSED = {
    **dict.fromkeys((".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".nemo"), TORCH),
    **dict.fromkeys((".npz", ".npy"), NUMPY),
    **dict.fromkeys((".h5", ".hdf5", ".keras"), HDF5),
    ".gguf": GGUF,
}
MAGIC = {b"PK\x03\x04": TORCH, b"\x80\x02": TORCH, b"\x89HDF": HDF5, b"GGUF": GGUF}


@dataclass(frozen=True)
class Slot:
    """Where one tensor lies; `begin` and `end` count from the first byte after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    slots: dict[str, Slot]
    aliases: dict[str, str]  # further name -> the name it is stored under
    metadata: dict[str, str]
    start: int  # byte of the file where the tensors begin
    stamp: tuple[int, ...] = ()  # which file this was the header of, and when it was changed last

    @property
    def order(self) -> list[str]:
        """The stored names as they lie in the file."""
        return sorted(self.slots, key=lambda name: self.slots[name].begin)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        own = {name: slot.shape for name, slot in self.slots.items()}
        return own | {name: own[stored] for name, stored in self.aliases.items()}


@dataclass(frozen=True)
class File:
    """A safetensors file that is not written yet: an iterable of pieces, as `store.write_folder` takes it."""

    tensors: Mapping[str, Tensor]
    aliases: Mapping[str, str] | None = None  # None: looked for

    def __iter__(self) -> Iterator[bytes]:
        return tensor_chunks(self.tensors, aliases=self.aliases)

    @property
    def nbytes(self) -> int:
        """Of the tensors; the header adds about a hundred bytes for each."""
        return sum(t.numel() * t.dtype.itemsize for t in self.tensors.values())


# --- writing ------------------------------------------------------------------------------------


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """A safetensors file; equal tensors give equal bytes whatever the order, the strides or the device."""
    return b"".join(tensor_chunks(tensors, metadata))


def tensor_chunks(
    tensors: Mapping[str, Tensor],
    metadata: dict[str, str] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> Iterator[bytes]:
    """The same file in pieces, for `store.write_folder`: no second copy of the model in memory.

    `aliases`: other names, and which of `tensors` each stands for; None: found by looking, the first in alphabetical
    order is stored.  Raises WeightsError QKV-050 for what the format cannot hold."""
    stored = tensors
    if aliases is None:
        stored, aliases = once({name: tensors[name] for name in sorted(tensors)})
    for name, tensor in stored.items():
        if not _is_name(name) or name == "__metadata__":
            raise WeightsError(f"{name[:80]!r} cannot be the name of a tensor", fix="rename it")
        if tensor.dtype not in NAMES or tensor.layout != torch.strided or tensor.is_meta:
            seen = f"{name}: {tensor.dtype}, {tensor.layout}, on {tensor.device}"
            raise WeightsError(seen + " cannot be stored", fix="convert it to a dense tensor")
    # widest first, so that every tensor begins at a multiple of its item size
    order = sorted(stored, key=lambda n: (-stored[n].dtype.itemsize, n))
    notes = {"format": "pt", **(metadata or {})}
    notes.pop("aliases", None)  # those of the file this metadata came from
    if aliases:
        notes["aliases"] = json.dumps(dict(aliases), sort_keys=True)
    head: dict[str, Any] = {"__metadata__": dict(sorted(notes.items()))}
    at = 0
    for name in order:
        tensor = stored[name]
        end = at + tensor.numel() * tensor.dtype.itemsize
        slot = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, end],
        }
        head[name], at = slot, end
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in order:
        yield _raw(stored[name].detach().cpu())


def once(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each piece of memory once, under the first of its names; the others -> that name."""
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[Any, str] = {}
    for name, t in tensors.items():
        same: Any = name
        if t.layout == torch.strided and not t.is_meta and t.numel():
            same = (t.device, t.data_ptr(), t.dtype, tuple(t.shape), t.stride())
        if same in seen:
            aliases[name] = seen[same]
        else:
            seen[same] = name
            stored[name] = t
    return stored, aliases


def _raw(tensor: Tensor) -> bytes:
    if not tensor.numel():
        return b""
    flat = tensor.contiguous().reshape(-1).view(torch.uint8)
    return flat.numpy().tobytes()


# --- reading ------------------------------------------------------------------------------------


def read_tensors(
    path: str | Path, expected: Mapping[str, tuple[int, ...]] | None = None, finite: bool = True
) -> dict[str, Tensor]:
    """The tensors of a safetensors file, each in memory of its own, so that replacing the file changes nothing.

    Raises WeightsError QKV-050 (the file), QKV-051 (names differ from `expected`), QKV-052 (shapes differ),
    QKV-053 (NaN or infinity), QKV-054 (another format)."""
    with _open(path) as f:
        header = _gate(f, path)
        if expected is not None:
            account(header.shapes, expected, path)
        tensors = {name: _one(f, path, header, name, finite) for name in header.order}
    return tensors | {name: tensors[stored] for name, stored in header.aliases.items()}


def read_tensor(path: str | Path, header: Header, name: str, finite: bool = True) -> Tensor:
    """One stored tensor of a file whose header was read before.  Raises as `read_tensors` does, and if the file changed."""
    with _open(path) as f:
        if _stamp(f) != header.stamp:
            seen = "the file changed after its header was read"
            raise WeightsError(seen, place=path, fix="load it again")
        return _one(f, path, header, name, finite)


def _one(f: BinaryIO, path: str | Path, header: Header, name: str, finite: bool) -> Tensor:
    slot = header.slots[name]
    tensor = _read(f, header.start + slot.begin, slot, f"{path}: {name}")
    if finite:
        _check_finite(name, tensor, path)
    return tensor


def _stamp(f: BinaryIO) -> tuple[int, ...]:
    found = os.fstat(f.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def read_header(path: str | Path) -> Header:
    """Names, types, shapes and metadata, without the tensors.  Raises WeightsError QKV-050, QKV-054."""
    with _open(path) as f:
        return _gate(f, path)


def account(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], place: object
) -> None:
    """Every name on both sides, with the same shape.  Raises WeightsError QKV-051, QKV-052."""
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or extra:
        parts = [f"{len(missing)} missing, first: {_some(missing)}"] if missing else []
        parts += [f"{len(extra)} unexpected, first: {_some(extra)}"] if extra else []
        fix = "is this checkpoint of this model and size?"
        near = difflib.get_close_matches(missing[0], extra[:2000], 1) if missing and extra else []
        if near:
            fix = f"{near[0]!r} may be what {missing[0]!r} is called here; {fix}"
        seen = f"of {len(expected)} tensors " + "; ".join(parts)
        raise WeightsError(seen, place=place, fix=fix, code="QKV-051")
    wrong = [name for name in sorted(expected) if tuple(found[name]) != tuple(expected[name])]
    if wrong:
        name = wrong[0]
        seen = f"{len(wrong)} tensors of another shape, first: {name} is {_shape(found[name])}, "
        seen += f"the model has {_shape(expected[name])}"
        fix = "use the configuration this checkpoint was made with"
        raise WeightsError(seen, place=place, fix=fix, code="QKV-052")


def _open(path: str | Path) -> BinaryIO:
    path = Path(path)
    if path.suffix.lower() in REFUSED:
        raise _refused(path, REFUSED[path.suffix.lower()])
    if not os.path.lexists(path):
        raise MissingError("no such file", place=path, fix="check the path")
    f = open_inside(path.parent, path.name)
    start = f.peek(8)
    for magic, command in MAGIC.items():
        # a true header length never looks like these: it would be above the limit
        if start.startswith(magic) and not start[3:8] == b"\0" * 5:
            f.close()
            raise _refused(path, command)
    return f


def _refused(path: Path, command: str) -> WeightsError:
    return WeightsError(
        "only safetensors files are read: other formats can run code or hide it",
        place=path,
        fix=f"convert it where that does no harm: {in_a_shell(command, path.name)}",
        code="QKV-054",
    )


def in_a_shell(command: str, name: str) -> str:
    """One of the commands above for a file of this name, ready to paste."""
    plain = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name)  # nothing a shell reads as its own
    return f'python -c "{command.replace("FILE", name if plain else "FILE")}"'


def _gate(f: BinaryIO, path: str | Path) -> Header:
    """Everything the header claims, checked against the file before a tensor is touched."""

    def refuse(seen: str) -> WeightsError:
        return WeightsError(seen, place=path, fix="fetch or export the file again")

    size = os.fstat(f.fileno()).st_size
    if size < 8:
        raise refuse(f"{size} bytes is too short for a safetensors file")
    (length,) = struct.unpack("<Q", f.read(8))
    if length > LARGEST_HEADER or 8 + length > size:
        raise refuse(f"byte 0: a header of {length:,} bytes in a file of {size:,}")
    text = f.read(length)
    if is_crowded(text):
        raise refuse("byte 8: the header lists more than any model has")
    try:
        head = json.loads(text.decode(), object_pairs_hook=_no_twins, parse_constant=_no_constant)
    except (ValueError, RecursionError) as e:
        raise refuse(f"byte 8: the header is not strict JSON: {str(e)[:120]}") from e
    if not isinstance(head, dict):
        raise refuse("byte 8: the header is not an object")
    metadata = head.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(type(v) is str for v in metadata.values()):
        raise refuse("header: __metadata__ must map names to text")
    slots: dict[str, Slot] = {}
    for name, entry in head.items():
        wrong = _claim(name, entry)
        if wrong:
            raise refuse(f"header, tensor {name[:80]!r}: {wrong}")
        slots[name] = Slot(entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"])
    at = 0
    for name, slot in sorted(slots.items(), key=lambda item: (item[1].begin, item[1].end)):
        if slot.begin != at:
            raise refuse(f"header, tensor {name[:80]!r}: begins at {slot.begin}, not at {at}")
        at = slot.end
    if 8 + length + at != size:
        raise refuse(f"the tensors end at byte {8 + length + at:,}, the file at {size:,}")
    return Header(slots, _aliases(metadata, slots, refuse), metadata, 8 + length, _stamp(f))


def _claim(name: str, entry: Any) -> str:
    """What is wrong with one entry of the header, or nothing."""
    if not _is_name(name):
        return f"a name must be 1 to {LONGEST_NAME} printable characters"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return "must have exactly dtype, shape and data_offsets"
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        return f"dtype {str(dtype)[:40]!r} is not one of {', '.join(DTYPES)}"
    if not _are_counts(shape) or len(shape) > DEEPEST or any(d >= LARGEST_DIM for d in shape):
        return f"shape must be at most {DEEPEST} whole numbers below 2^40"
    if not _are_counts(offsets) or len(offsets) != 2:
        return "data_offsets must be two whole numbers"
    needs = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != needs:
        return f"{_shape(shape)} of {dtype} needs {needs} bytes, has {offsets[1] - offsets[0]}"
    return ""


def _aliases(metadata: dict[str, str], slots: Mapping[str, Slot], refuse: Any) -> dict[str, str]:
    try:
        found = json.loads(metadata.get("aliases", "{}"), object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as e:
        raise refuse(f"header: aliases are not strict JSON: {str(e)[:120]}") from e
    whole = isinstance(found, dict) and all(
        _is_name(n) and n not in slots and isinstance(s, str) and s in slots
        for n, s in found.items()
    )
    if not whole:
        raise refuse("header: aliases must map new names to stored tensors")
    return dict(found)


def _read(f: BinaryIO, at: int, slot: Slot, place: str) -> Tensor:
    tensor = torch.empty(slot.shape, dtype=DTYPES[slot.dtype])
    if tensor.numel():
        view = memoryview(tensor.reshape(-1).view(torch.uint8).numpy().data)
        try:
            f.seek(at)
            whole = f.readinto(view) == len(view)  # type: ignore[attr-defined]
        except OSError as e:
            seen = f"cannot be read: {e.strerror}"
            raise WeightsError(seen, place=place, fix="copy it again") from e
        if not whole:
            seen = "the file became shorter while it was read"
            raise WeightsError(seen, place=place, fix="try again")
    return tensor


def _check_finite(name: str, tensor: Tensor, path: str | Path) -> None:
    if not tensor.is_floating_point() or bool(torch.isfinite(tensor.sum())):
        return  # NaN and infinity survive a sum, which is much faster than a look at each
    if bool(torch.isfinite(tensor).all()):
        return  # the sum alone was too large
    bad = (~torch.isfinite(tensor)).nonzero()
    where = _shape(bad[0].tolist())
    raise WeightsError(
        f"{name}: {len(bad):,} of {tensor.numel():,} numbers are not finite, first at {where}",
        place=path,
        fix="use an earlier checkpoint; the training that wrote this one diverged",
        code="QKV-053",
    )


def _is_name(name: str) -> bool:
    return 0 < len(name) <= LONGEST_NAME and name.isprintable()


def _are_counts(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(n) is int and n >= 0 for n in numbers)


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _shape(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape)) or "a scalar"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
