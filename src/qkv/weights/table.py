"""A table of tensor names, read in both directions: their checkpoint <-> our model.

Table({"h.{i}.ln_1.{p}": "blocks.{i}.attn_norm.{p}",                                     rename
       "h.{i}.mlp.c_fc.weight": transpose("blocks.{i}.ff.inner.weight"),                  theirs is (in, out)
       "h.{i}.attn.c_attn.{p}": split("blocks.{i}.attn.{q,k,v}.{p}", transposed=True),    one of theirs -> three of ours
       "layer.{i}.{query,key,value}.{p}": fuse("blocks.{i}.attn.qkv.{p}")},               three of theirs -> one of ours
      skip={"*.attn.bias": "causal mask stored as a buffer"},
      tied={"lm_head.weight": "wte.weight"},
      absent={"final_logits_bias": (1, V),                                               zeros where a file has none,
              "lm_head.decoder.bias": "lm_head.bias"},                                   or what it has under another name
      known={"embed_positions.weight": lambda: sinusoid(n, C)},                          computed here; a file's must be equal
      old={"LayerNorm.gamma": "LayerNorm.weight",                                        how older files end a name,
           "layers.{i}.mlp.{p}": "h.{i}.mlp.{p}"},                                       or have the whole of it
      prefix="bert.")                                                                    files of a bare model leave it out
`{i}` is any text without a dot, the same on both sides; `{q,k,v}` is each of these; `*` (in skip only) is anything.
Every operation has an inverse, and a name that no row knows is an error on either side.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from qkv.errors import ConfigError, WeightsError

Tensors = Mapping[str, Tensor]
Absent = tuple[int, ...] | str  # a size, or a name
COMPUTED = "computed here, and equal"
NEAR = {torch.float64: 1e-6, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@dataclass(frozen=True)
class Op:
    """How the right-hand side of a row is made.  Axes are counted in our layout, after transposing."""

    ours: str
    kind: str = "rename"
    axis: int = 0
    parts: tuple[int, ...] | None = None  # proportions of the pieces; None: all equal
    transposed: bool = False  # matrices only: a bias has nothing to transpose
    flat: bool = False  # theirs is a matrix of one row, ours the vector


def flat(ours: str) -> Op:
    """Theirs is (1, n), ours (n)."""
    return Op(ours, flat=True)


def transpose(ours: str) -> Op:
    """Theirs is (in, out), ours (out, in).  Vectors stay as they are."""
    return Op(ours, transposed=True)


def split(
    ours: str, *, axis: int = 0, parts: tuple[int, ...] | None = None, transposed: bool = False
) -> Op:
    """One tensor of theirs is several of ours, side by side along an axis."""
    return Op(ours, "split", axis, parts, transposed)


def fuse(
    ours: str, *, axis: int = 0, parts: tuple[int, ...] | None = None, transposed: bool = False
) -> Op:
    """Several tensors of theirs are one of ours, side by side along an axis."""
    return Op(ours, "fuse", axis, parts, transposed)


@dataclass(frozen=True)
class Row:
    """One row, its choices written out: theirs[a] and ours[b] are patterns without `{x,y}`."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    op: Op


class Table:
    """The rows, and what to leave out with the reason.  Raises ConfigError for a row that cannot be read both ways."""

    def __init__(
        self,
        rows: Mapping[str, str | Op],
        skip: Mapping[str, str] | Iterable[str] = (),
        tied: Mapping[str, str] | None = None,
        absent: Mapping[str, Absent] | None = None,
        known: Mapping[str, Callable[[], Tensor]] | None = None,
        old: Mapping[str, str] | None = None,
        prefix: str = "",
    ) -> None:
        self.rows = [
            _row(theirs, op if isinstance(op, Op) else Op(op)) for theirs, op in rows.items()
        ]
        self.skip = dict(skip) if isinstance(skip, Mapping) else dict.fromkeys(skip, "")
        self.tied, self.absent, self.known = dict(tied or {}), dict(absent or {}), dict(known or {})
        self.old, self.prefix = dict(old or {}), prefix
        self._skip = [(_pattern(name), reason) for name, reason in self.skip.items()]
        self._renamed = [(_pattern(name), new) for name, new in self.old.items() if "{" in name]

    def forward(self, theirs: Tensors) -> dict[str, Tensor]:
        """Their tensors under our names.  Raises WeightsError QKV-051 (names), QKV-052 (sizes)."""
        self._prove(theirs)
        left = set(self.skipped(theirs)) | self._copies(theirs)
        used = {name: t for name, t in theirs.items() if name not in left}
        like = next((t for t in used.values() if t.is_floating_point()), torch.empty(0))
        for name, given in self.absent.items():
            if not isinstance(given, str):
                used.setdefault(name, like.new_zeros(given))
            elif given in used:
                used.setdefault(name, used[given])
        return _apply(used, [(r.theirs, r.ours, r.op) for r in self.rows], back=False)

    def backward(self, ours: Tensors) -> dict[str, Tensor]:
        """Our tensors under their names: the inverse of `forward`, less what it skipped.  Raises the same."""
        return _apply(ours, [(r.ours, r.theirs, r.op) for r in self.rows], back=True)

    def modern(self, name: str) -> str:
        """A name as the rows have it, where older files end it otherwise, or other files have it otherwise."""
        for old, new in self.old.items():
            if "{" not in old and name.endswith(old):
                return name.removesuffix(old) + new
        for pattern, new in self._renamed:
            if found := pattern.fullmatch(name):
                return _filled(new, found.groupdict())
        return name

    def skipped(self, theirs: Iterable[str]) -> dict[str, str]:
        """Which of their names are left out, and why."""
        found = ((n, [why for p, why in self._skip if p.fullmatch(n)]) for n in theirs)
        made = {name: reasons[0] for name, reasons in found if reasons}
        return made | dict.fromkeys(self.known.keys() & theirs, COMPUTED)

    def _prove(self, theirs: Tensors) -> None:
        """What a file has of a table that is computed here is that table, up to the rounding of its type."""
        for name, make in self.known.items():
            if name not in theirs:
                continue
            given, want = theirs[name], make()
            near = NEAR.get(given.dtype, 0.0)
            if given.shape != want.shape or not torch.allclose(
                given.double(), want.double(), rtol=0, atol=near
            ):
                seen = f"{name} {tuple(given.shape)} is not the table that this family computes"
                fix = "this checkpoint was changed, or belongs to another family"
                raise WeightsError(seen, fix=fix, code="QKV-051")

    def _copies(self, theirs: Tensors) -> set[str]:
        """Second names of tied tensors, once they have proved to be equal."""
        copies = {c: first for c, first in self.tied.items() if c in theirs}
        for copy, first in copies.items():
            if first not in theirs or not torch.equal(theirs[copy], theirs[first]):
                seen = f"{copy} must be the same tensor as {first}, and is not"
                fix = 'not tied here: "tie_word_embeddings": false in config.json'
                raise WeightsError(seen, fix=fix, code="QKV-051")
        return set(copies)


# --- reading rows -------------------------------------------------------------------------------


def _row(theirs: str, op: Op) -> Row:
    left, right = _choices(theirs), _choices(op.ours)
    fits = {
        "rename": len(left) == len(right),
        "split": len(left) == 1 < len(right),
        "fuse": len(left) > 1 == len(right),
    }[op.kind]
    pieces = max(len(left), len(right))
    if (
        not fits
        or op.axis < 0
        or (op.parts is not None and (len(op.parts) != pieces or min(op.parts) < 1))
    ):
        raise ConfigError(
            f"{op.kind} of {theirs!r} to {op.ours!r}: {len(left)} to {len(right)} tensors, parts {op.parts}",
            fix="write one {x,y} on the side with several, and one part for each",
        )
    if _wildcards(left[0]) != _wildcards(right[0]):
        raise ConfigError(
            f"{theirs!r} and {op.ours!r} have different wildcards", fix="use the same on both sides"
        )
    return Row(left, right, op)


def _choices(pattern: str) -> tuple[str, ...]:
    """`a.{q,k}.b` -> (`a.q.b`, `a.k.b`)."""
    found = re.findall(r"\{[^{}]*,[^{}]*\}", pattern)
    if len(found) > 1:
        raise ConfigError(f"{pattern!r} has two lists of choices", fix="write two rows")
    if not found:
        return (pattern,)
    return tuple(pattern.replace(found[0], word) for word in found[0][1:-1].split(","))


def _wildcards(pattern: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", pattern))


def _pattern(pattern: str) -> re.Pattern[str]:
    """A regular expression with a named group for each wildcard; a second use must match the same text."""
    seen: set[str] = set()
    out = ""
    for word in re.split(r"(\{\w+\}|\*)", pattern):
        name = word[1:-1]
        if word == "*":
            out += ".*"
        elif not re.fullmatch(r"\{\w+\}", word):
            out += re.escape(word)
        elif name in seen:
            out += f"(?P={name})"
        else:
            seen.add(name)
            out += f"(?P<{name}>[^.]+)"
    return re.compile(out)


# --- moving tensors -----------------------------------------------------------------------------

Side = tuple[tuple[str, ...], tuple[str, ...], Op]  # patterns to read, patterns to fill, operation


def _apply(source: Tensors, sides: list[Side], back: bool) -> dict[str, Tensor]:
    """Sort the tensors into groups by row and wildcards, then run each group's operation."""
    matchers = [
        (re_, row, place)
        for row, (names, _, _) in enumerate(sides)
        for place, re_ in enumerate(map(_pattern, names))
    ]
    groups: dict[tuple[int, tuple[tuple[str, str], ...]], dict[int, str]] = {}
    unknown = []
    for name in source:
        hits = [(row, place, m) for re_, row, place in matchers if (m := re_.fullmatch(name))]
        if len(hits) > 1:
            rows = ", ".join(repr(sides[row][0][place]) for row, place, _ in hits)
            fix = "make the rows exclude each other"
            raise WeightsError(f"{name} matches several rows: {rows}", fix=fix, code="QKV-051")
        if not hits:
            unknown.append(name)
            continue
        row, place, match = hits[0]
        groups.setdefault((row, tuple(sorted(match.groupdict().items()))), {})[place] = name
    if unknown:
        first = ", ".join(unknown[:3])
        seen = f"{len(unknown)} of {len(source)} tensors match no row, first: {first}"
        raise WeightsError(seen, fix="is this a checkpoint of this family?", code="QKV-051")
    result: dict[str, Tensor] = {}
    for (row, wild), members in groups.items():
        names, fill, op = sides[row]
        made = _move(source, names, fill, op, dict(wild), members, back)
        if twice := set(made) & set(result):
            seen = f"two rows make {min(twice)}"
            raise WeightsError(seen, fix="remove one of them", code="QKV-051")
        result |= made
    return result


def _move(
    source: Tensors,
    names: tuple[str, ...],
    fill: tuple[str, ...],
    op: Op,
    wild: dict[str, str],
    members: dict[int, str],
    back: bool,
) -> dict[str, Tensor]:
    targets = [_filled(name, wild) for name in fill]
    if len(names) == len(fill):  # one by one: a missing neighbour is another matter
        return {targets[a]: _one(source[name], op, name, back) for a, name in members.items()}
    wanted = [_filled(name, wild) for name in names]
    if absent := [name for a, name in enumerate(wanted) if a not in members]:
        seen = f"{len(absent)} of {len(wanted)} tensors missing, first: {absent[0]}"
        fix = f"{targets[0]} needs all of {', '.join(wanted)}"
        raise WeightsError(seen, fix=fix, code="QKV-051")
    parts = op.parts or (1,) * max(len(names), len(fill))
    given = [source[members[a]] for a in range(len(names))]
    # the pieces lie side by side in our layout: turn theirs before, ours after
    if not back:
        given = [_turn(t, op) for t in given]
    if len(fill) == 1:
        made = [_joined(given, parts, op.axis, wanted)]
    else:
        made = _pieces(given[0], parts, op.axis, wanted[0])
    if back:
        made = [_turn(t, op) for t in made]
    return dict(zip(targets, made, strict=True))


def _one(tensor: Tensor, op: Op, name: str, back: bool) -> Tensor:
    if not op.flat:
        return _turn(tensor, op)
    if back:
        return tensor[None]
    if tensor.dim() != 2 or len(tensor) != 1:
        seen = f"{name} of {tuple(tensor.shape)} is not a matrix of one row"
        raise WeightsError(seen, fix="is this a checkpoint of this family?", code="QKV-052")
    return tensor[0]


def _turn(tensor: Tensor, op: Op) -> Tensor:
    return tensor.t().contiguous() if op.transposed and tensor.dim() == 2 else tensor


def _joined(given: list[Tensor], parts: tuple[int, ...], axis: int, names: list[str]) -> Tensor:
    try:
        whole = torch.cat(given, axis)
        sizes = _sizes(whole, parts, axis)
    except (RuntimeError, IndexError, TypeError):
        sizes = None
    if sizes != [t.shape[axis] for t in given if t.dim() > axis]:
        seen = ", ".join(f"{n} {tuple(t.shape)}" for n, t in zip(names, given, strict=True))
        fix = f"their sizes must be as {':'.join(map(str, parts))}"
        raise WeightsError(f"cannot be joined: {seen}", fix=fix, code="QKV-052")
    return whole


def _pieces(whole: Tensor, parts: tuple[int, ...], axis: int, name: str) -> list[Tensor]:
    sizes = _sizes(whole, parts, axis) if whole.dim() > axis else None
    if sizes is None:
        seen = f"{name} of {tuple(whole.shape)} does not split into {len(parts)} pieces"
        fix = f"axis {axis} must divide as {':'.join(map(str, parts))}"
        raise WeightsError(seen, fix=fix, code="QKV-052")
    # copies: pieces that share memory would be taken for tied weights, and keep the whole alive
    return [t.clone(memory_format=torch.contiguous_format) for t in torch.split(whole, sizes, axis)]


def _sizes(whole: Tensor, parts: tuple[int, ...], axis: int) -> list[int] | None:
    unit, rest = divmod(whole.shape[axis], sum(parts))
    return None if rest else [unit * p for p in parts]


def _filled(pattern: str, wild: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda m: wild[m[1]], pattern)
