"""The weights of a published model folder: `model.safetensors`, or shards and the index that says which holds what.

tensors(folder)     a lazy mapping; every header is checked before a tensor is read
files(tensors)      the files of such a folder, for `store.write_folder`
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from qkv.errors import ConfigError, MissingError, WeightsError
from qkv.weights.files import (
    DTYPES,
    REFUSED,
    TORCH,
    TORCH_SHARDS,
    File,
    Header,
    account,
    in_a_shell,
    once,
    read_header,
    read_tensor,
)
from qkv.weights.strict import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LARGEST_INDEX = 16 << 20  # bytes; 90,000 tensors of 160 shards take 9 MB
MAX_SHARD = 5_000_000_000  # bytes
SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\.safetensors")
AGAIN = "fetch the folder again; it is not as its publisher wrote it"


class Tensors(Mapping[str, Tensor]):
    """Name -> tensor, each read when it is asked for, into memory of its own; in the order they lie on the disk.

    A file that changed since its header was read is an error, never a mixture of two."""

    def __init__(self, headers: Mapping[Path, Header], finite: bool = True) -> None:
        self.headers, self.finite = dict(headers), finite
        self._at: dict[str, tuple[Path, str]] = {}  # name -> its file, and the name it has there
        for path, header in self.headers.items():
            self._at |= {name: (path, name) for name in header.order}
            self._at |= {name: (path, stored) for name, stored in header.aliases.items()}

    def __getitem__(self, name: str) -> Tensor:
        """Raises KeyError, WeightsError QKV-050 (the file), QKV-053 (NaN or infinity)."""
        path, stored = self._at[name]
        return read_tensor(path, self.headers[path], stored, self.finite)

    def __iter__(self) -> Iterator[str]:
        return iter(self._at)

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, name: object) -> bool:
        return name in self._at

    def load(self) -> dict[str, Tensor]:
        """All of them; a tensor with several names is read once."""
        read: dict[tuple[Path, str], Tensor] = {}
        for name, at in self._at.items():
            if at not in read:
                read[at] = self[name]
        return {name: read[at] for name, at in self._at.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {n: self.headers[p].slots[s].shape for n, (p, s) in self._at.items()}

    @property
    def dtypes(self) -> dict[str, torch.dtype]:
        """As they are stored; nothing is converted."""
        return {n: DTYPES[self.headers[p].slots[s].dtype] for n, (p, s) in self._at.items()}

    def check_floating(self, names: Iterable[str]) -> None:
        """What the model computes with must be floating point numbers, or copying would convert it silently.

        Raises WeightsError QKV-050 naming tensor and file."""
        kinds = self.dtypes
        for name in names:
            if not kinds[name].is_floating_point:
                seen = f"{name} is stored as {kinds[name]}, and weights are floating point numbers"
                raise WeightsError(seen, place=self._at[name][0], fix=AGAIN)

    @property
    def nbytes(self) -> int:
        """What `load` takes."""
        return sum(s.end - s.begin for h in self.headers.values() for s in h.slots.values())


# --- reading -------------------------------------------------------------------------------------


def tensors(
    folder: str | Path,
    expected: Mapping[str, tuple[int, ...]] | None = None,
    *,
    finite: bool = True,
) -> Tensors:
    """The weights of a folder; `model.safetensors` comes before an index, as in transformers.

    Raises MissingError QKV-020, WeightsError QKV-050 (files), QKV-051 and QKV-052 (names and shapes are not as `expected`),
    QKV-054 (only other formats are there), StoreError QKV-060 (a link that leads elsewhere)."""
    folder = Path(folder)
    if os.path.lexists(folder / SINGLE):
        headers = {folder / SINGLE: read_header(folder / SINGLE)}
    elif os.path.lexists(folder / INDEX):
        headers = _shards(folder)
    else:
        raise nothing_to_read(folder, _names(folder))
    found = Tensors(headers, finite)
    if expected is not None:
        account(found.shapes, expected, folder)
    return found


def read_index(folder: str | Path) -> dict[str, str]:
    """The index's weight_map, tensor -> file of this folder.  Raises WeightsError QKV-050."""
    place = Path(folder) / INDEX
    try:
        index = read_json(folder, INDEX, LARGEST_INDEX)
    except ConfigError as e:
        raise WeightsError(e.seen, place=place, fix=AGAIN) from None
    where = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(where, dict) or not where:
        raise WeightsError("has no weight_map", place=place, fix=AGAIN)
    for name, file in where.items():
        if not isinstance(file, str) or not SHARD_NAME.fullmatch(file):
            seen = f"puts {name[:80]!r} in {str(file)[:80]!r}, which is no safetensors file of this folder"
            raise WeightsError(seen, place=place, fix=AGAIN)
    return where


def nothing_to_read(place: object, names: list[str]) -> WeightsError | MissingError:
    """The error for a folder or repository with these files and no weights that are read."""
    other = [n for n in names if Path(n).suffix.lower() in REFUSED]
    if other:
        seen = f"the weights are in {_some(other)} only, which can run code or hide it; only safetensors is read"
        fix = f"convert it where that does no harm, in that folder: {conversion(other)}"
        return WeightsError(seen, place=place, fix=fix, code="QKV-054")
    near = [n for n in names if n.endswith(".safetensors")]
    fix = "give a folder that holds a whole model"
    if near:
        fix = f"if {near[0][:80]} is the whole model, name it {SINGLE}"
    return MissingError(f"neither {SINGLE} nor {INDEX}", place=place, fix=fix)


def conversion(names: list[str]) -> str:
    """The command that turns these files into model.safetensors, run in their folder."""
    kinds = [(REFUSED[Path(n).suffix.lower()], n) for n in names]
    pickles = [n for command, n in kinds if command == TORCH]
    if len(pickles) > 1 and all(re.fullmatch(r"pytorch_model.*\.bin", n) for n in pickles):
        return in_a_shell(TORCH_SHARDS, "")
    command, name = (TORCH, pickles[0]) if pickles else kinds[0]
    return in_a_shell(command, name)


def _shards(folder: Path) -> dict[Path, Header]:
    """The header of every shard, once index and shards agree on who holds what."""
    where = read_index(folder)
    headers: dict[Path, Header] = {}
    for file in sorted(set(where.values())):
        path = folder / file
        if not os.path.lexists(path):
            holds = sum(f == file for f in where.values())
            seen = f"is missing; {INDEX} puts {holds} of {len(where)} tensors in it"
            raise WeightsError(seen, place=path, fix="fetch the folder again")
        headers[path] = read_header(path)
        _compare(path, headers[path], where)
    return headers


def _compare(path: Path, header: Header, where: Mapping[str, str]) -> None:
    """Exactly what the index says.  Raises WeightsError QKV-050 (a name in two files), QKV-051 (missing, unexpected)."""
    listed = {name for name, file in where.items() if file == path.name}
    held = set(header.slots) | {a for a in header.aliases if a in listed}
    # an alias is another name of something the shard holds; it may be in no other shard either
    twice = sorted((set(header.slots) | set(header.aliases)) & (set(where) - listed))
    if twice:
        seen = f"holds {twice[0]!r}, which {INDEX} puts in {where[twice[0]]}: a tensor lies in one file"
        raise WeightsError(seen, place=path, fix=AGAIN)
    missing, extra = sorted(listed - held), sorted(held - listed)
    if missing or extra:
        what, names = ("lacks", missing) if missing else ("holds", extra)
        seen = f"{what} {_some(names)}, and {INDEX} says otherwise"
        raise WeightsError(seen, place=path, fix=AGAIN, code="QKV-051")


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as e:
        raise MissingError(
            f"cannot be read: {e.strerror}", place=folder, fix="check the path"
        ) from None


def _some(names: list[str]) -> str:
    shown = ", ".join(n[:80] for n in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# --- writing -------------------------------------------------------------------------------------


def files(
    tensors: Mapping[str, Tensor],
    *,
    tied: Mapping[str, str] | None = None,
    kinds: Mapping[str, torch.dtype] | None = None,
    max_shard: int = MAX_SHARD,
) -> dict[str, bytes | File]:
    """{"model.safetensors": …}, or shards of at most `max_shard` bytes and their index, as transformers writes them.

    `tied` is {second name: the name that is written}, Table.tied: transformers makes these equal by itself.  Other names
    of the same memory are left out as well and noted in the file.  `kinds` are types to write in where that loses nothing
    (`narrowed`).  One tensor above `max_shard` has a shard alone.
    Raises WeightsError QKV-050 for what the format cannot hold, QKV-051 for tied tensors that differ."""
    kept, aliases = once(_untied(tensors, tied or {}))
    kept = narrowed(kept, kinds or {})
    groups = _groups(kept, max_shard)
    if len(groups) == 1:
        return {SINGLE: File(kept, aliases=aliases)}
    made: dict[str, bytes | File] = {}
    where: dict[str, str] = {}
    for i, group in enumerate(groups, 1):
        name = f"model-{i:05d}-of-{len(groups):05d}.safetensors"
        own = {other: first for other, first in aliases.items() if first in group}
        made[name] = File(group, aliases=own)
        where |= dict.fromkeys(group, name)
    metadata = {
        "total_parameters": sum(t.numel() for t in kept.values()),
        "total_size": sum(map(_size, kept.values())),
    }
    index = {"metadata": metadata, "weight_map": where}
    text = json.dumps(index, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return made | {INDEX: text.encode()}


def narrowed(tensors: dict[str, Tensor], kinds: Mapping[str, torch.dtype]) -> dict[str, Tensor]:
    """In the smaller types that a file had, if every number of every tensor is one of that type; else as they are.

    So a bfloat16 file that was read in float32 is written as it was, and what was trained since keeps all its digits."""
    made = dict(tensors)
    for name, t in tensors.items():
        kind = kinds.get(name, t.dtype)
        if kind.itemsize < t.dtype.itemsize:
            made[name] = t.to(kind)
            if not torch.equal(made[name].to(t.dtype), t):
                return tensors
    return made


def _untied(tensors: Mapping[str, Tensor], tied: Mapping[str, str]) -> dict[str, Tensor]:
    for second in [s for s in tied if s in tensors]:
        first = tied[second]
        if first not in tensors or not torch.equal(tensors[second], tensors[first]):
            seen = f"{second} must be the same tensor as {first}, and is not"
            raise WeightsError(seen, place="saving", fix="save it untied", code="QKV-051")
    return {name: t for name, t in tensors.items() if name not in tied}


def _groups(tensors: Mapping[str, Tensor], max_shard: int) -> list[dict[str, Tensor]]:
    """Shards, filled in the order given; a tensor larger than `max_shard` is alone in one."""
    groups: list[dict[str, Tensor]] = [{}]
    room = max_shard
    for name, tensor in tensors.items():
        if _size(tensor) > room and groups[-1]:
            groups.append({})
            room = max_shard
        groups[-1][name] = tensor
        room -= _size(tensor)
    return groups


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.dtype.itemsize
