"""A net with its tokenizer and settings: what `qkv.load` gives and a person uses."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from .config import from_dict, read_json, to_dict
from .decode.answer import Hypothesis, SearchConfig
from .decode.engine import Engine
from .errors import DataError, MissingError, StoreError, WeightsError, did_you_mean
from .models import build, configure, describe, family_of
from .models.interface import set_state, state_of
from .shapes import Batch, pad
from .text import Tokenizer
from .weights import store
from .weights.files import read_tensors, tensor_bytes

FORMAT = 1
MULTIPLE = 16  # sources are right-padded to this: law 2


@dataclass(frozen=True)
class Translation:
    """One answer.  score: the sum of the log-probabilities of its tokens, <eos> included, in nats."""

    text: str
    tokens: tuple[str, ...]
    source_tokens: tuple[str, ...]
    score: float
    source: str
    ids: tuple[int, ...] = field(repr=False)
    _align: Callable[["Translation"], list[list[float]]] = field(repr=False, compare=False)

    @property
    def alignment(self) -> list[list[float]]:
        """(T, S): how much each token looked at each source token, mean over the heads of the last cross attention.
        One forward pass, made when asked for."""
        return self._align(self)

    def to_dict(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "text": self.text,
            "tokens": list(self.tokens),
            "source_tokens": list(self.source_tokens),
            "score": self.score,
            "alignment": [[round(w, 4) for w in row] for row in self.alignment],
        }

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        """In a notebook: the sentence, and each token shaded by where it looked."""
        from html import escape

        head = "".join(f"<th>{escape(s)}</th>" for s in self.source_tokens)
        rows = "".join(
            f"<tr><th>{escape(t)}</th>"
            + "".join(f'<td style="background:rgba(33,120,180,{w:.2f})">&nbsp;</td>' for w in row)
            + "</tr>"
            for t, row in zip(self.tokens, self.alignment, strict=False)
        )
        return f"<p>{escape(self.text)}</p><table><tr><th></th>{head}</tr>{rows}</table>"


class Model:
    """A net that reads and writes text.  Made by `qkv.load`, or by a run."""

    def __init__(
        self,
        net: nn.Module,
        tokenizer: Tokenizer,
        config: Any,
        decode: SearchConfig | None = None,
        folder: Path | None = None,
    ) -> None:
        self.net, self.tokenizer, self.config = net.eval(), tokenizer, config
        self.decode, self.folder = decode or SearchConfig(), folder

    @property
    def family(self) -> str:
        return family_of(self.config)

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def __repr__(self) -> str:
        n = sum(p.numel() for p in self.net.parameters())
        return f"Model({self.family}, {n / 1e6:.1f} M parameters, {self.tokenizer.vocab_size:,} pieces)"

    # -- numbers ----------------------------------------------------------------------------------

    def ids(self, text: str) -> list[int]:
        """A source as the net reads it, <eos> included."""
        return [*self.tokenizer.encode(text).ids, self.tokenizer.eos_id]

    @torch.inference_mode()
    def logits(
        self, ids: Tensor, keep: Tensor | None = None, target: Tensor | None = None
    ) -> Tensor:
        """Teacher-forced logits (B, T, V): ids (B, S), keep (B, S) bool, target (B, T) ending in <eos>.

        Raises DataError for ids outside the vocabulary or a missing target."""
        if target is None:
            raise DataError(
                "logits of a translation model need target=", fix="pass target ids (B, T)"
            )
        V = self.tokenizer.vocab_size
        for name, x in (("ids", ids), ("target", target)):
            if x.numel() and not (0 <= int(x.min()) and int(x.max()) < V):
                raise DataError(
                    f"{name} hold {int(x.min())} … {int(x.max())}, the vocabulary has {V}",
                    fix="encode the text with this model's tokenizer",
                    code="QKV-041",
                )
            if x.dim() != 2 or x.is_floating_point() or len(x) != len(ids):
                raise DataError(
                    f"{name} of shape {tuple(x.shape)}, {x.dtype}",
                    fix="give whole numbers, ids (B, S) and target (B, T)",
                )
        keep = ids != self.tokenizer.pad_id if keep is None else keep
        if keep.shape != ids.shape or keep.dtype != torch.bool:
            raise DataError(
                f"keep of shape {tuple(keep.shape)}, {keep.dtype}",
                fix=f"give booleans of the ids' shape {tuple(ids.shape)}",
            )
        target_keep = target != self.tokenizer.pad_id
        batch = Batch(ids, keep, target, target_keep).to(self.device)
        logits: Tensor = self.net.logits(batch)  # type: ignore[operator]
        return logits

    @torch.inference_mode()
    def embed(self, texts: str | Sequence[str]) -> Tensor:
        """The mean of the encoder's states: (C) for one text, (N, C) for a list."""
        rows = [self.ids(s) for s in ([texts] if isinstance(texts, str) else texts)]
        made = []
        for at in range(0, len(rows), 64):
            ids, keep = pad(rows[at : at + 64], self.tokenizer.pad_id, MULTIPLE)
            memory = self.net.encode(Batch(ids, keep).to(self.device))  # type: ignore[operator]
            real = memory.keep[..., None].to(memory.states.dtype)
            made.append((memory.states * real).sum(1) / real.sum(1))
        out = torch.cat(made) if made else torch.empty(0, self.config.d_model)
        return out[0] if isinstance(texts, str) else out

    # -- text -------------------------------------------------------------------------------------

    @overload
    def translate(  # type: ignore[overload-overlap]  # a str is a Sequence[str]; it is asked first
        self,
        texts: str,
        beam: int = 1,
        nbest: int = 1,
        max_new_tokens: int | None = None,
        batch_tokens: int = 4096,
    ) -> Translation: ...
    @overload
    def translate(
        self,
        texts: Sequence[str],
        beam: int = 1,
        nbest: int = 1,
        max_new_tokens: int | None = None,
        batch_tokens: int = 4096,
    ) -> list[Translation]: ...
    def translate(
        self,
        texts: str | Sequence[str],
        beam: int = 1,
        nbest: int = 1,
        max_new_tokens: int | None = None,
        batch_tokens: int = 4096,
    ) -> Any:
        """str -> Translation, list -> list; with nbest > 1 each answer is a list, best first.

        The length penalty is the recipe's.  Tokens do not depend on what they are batched with; see docs/results.md for scores."""
        config = replace(self.decode, beam=max(beam, nbest), nbest=nbest)
        if max_new_tokens is not None:
            config = replace(config, max_new_tokens=max_new_tokens)
        answers = list(
            self.answers([texts] if isinstance(texts, str) else texts, config, batch_tokens)
        )
        made = [a if nbest > 1 else a[0] for a in answers]
        return made[0] if isinstance(texts, str) else made

    def generate(
        self,
        prompts: str | Sequence[str],
        max_new_tokens: int = 128,
        beam: int = 1,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> Any:
        """Write freely from a source text: greedy, beam or sampled.  str -> Translation, list -> list."""
        config = SearchConfig(
            beam=beam,
            max_new_tokens=max_new_tokens,
            alpha=self.decode.alpha,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
        )
        texts = [prompts] if isinstance(prompts, str) else prompts
        made = [a[0] for a in self.answers(texts, config, 4096)]
        return made[0] if isinstance(prompts, str) else made

    def answers(
        self, texts: Sequence[str], config: SearchConfig, batch_tokens: int
    ) -> Iterator[list[Translation]]:
        """The n-best of every text, in order."""
        texts = list(texts)  # an iterator would be at its end after the check
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(f"text {i} is {type(text).__name__}, not str", fix="pass strings")
        engine = Engine(self.net, config, batch_tokens=batch_tokens)
        # nothing to read: nothing to say, instead of what <eos> alone would make the net invent
        sources = [self.ids(text) if text.strip() else [] for text in texts]
        for text, ids, found in zip(texts, sources, engine(sources), strict=True):
            shown = tuple(self.tokenizer.tokens(ids))
            yield [self._translation(text, shown, h) for h in found]

    def _translation(self, text: str, shown: tuple[str, ...], h: Hypothesis) -> Translation:
        tokens = tuple(self.tokenizer.tokens(h.ids))
        answer = self.tokenizer.decode(h.ids)
        return Translation(answer, tokens, shown, h.score, text, h.ids, self._alignment)

    def maps(self, translation: Translation) -> dict[str, Tensor]:
        """Every attention map of a translation: {"decoder.stack.blocks.3.cross": (1, H, T, S)}, padding cut off."""
        from .look.record import record

        source = self.ids(translation.source)
        target = [*translation.ids, self.tokenizer.eos_id]
        ids, keep = pad([source], self.tokenizer.pad_id, MULTIPLE)
        out, out_keep = pad([target], self.tokenizer.pad_id, MULTIPLE)
        with torch.inference_mode(), record(self.net) as maps:
            self.net.logits(Batch(ids, keep, out, out_keep).to(self.device))  # type: ignore[operator]
        sizes = {"cross": (len(target), len(source)), "encoder": (len(source),) * 2}
        cut = {}
        for name, m in maps.items():
            group = "cross" if name.endswith("cross") else name.partition(".")[0]
            T, S = sizes.get(group, (len(target),) * 2)
            cut[name] = m[:, :, :T, :S]
        return cut

    def _alignment(self, translation: Translation) -> list[list[float]]:
        cross = [m for n, m in self.maps(translation).items() if n.endswith("cross")]
        if not cross:
            return []
        rows: list[list[float]] = cross[-1][0].mean(0)[: len(translation.ids)].tolist()
        return rows

    def force(self, sources: Sequence[str], targets: Sequence[str]) -> list[Any]:
        """log P(target | source) of given translations, whole and per token."""
        engine = Engine(self.net, self.decode)
        return engine.force(
            [self.ids(s) for s in sources], [self.tokenizer.encode(t).ids for t in targets]
        )

    # -- files ------------------------------------------------------------------------------------

    def files(
        self, weights: Mapping[str, Tensor] | None = None, card: str = ""
    ) -> dict[str, bytes]:
        """The content of a model folder."""
        config = {
            "format_version": FORMAT,
            "model_type": f"qkv-{self.family}",
            "model": describe(self.config),
            "decode": to_dict(self.decode),
        }
        return {
            "config.json": (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode(),
            "model.safetensors": tensor_bytes(state_of(self.net) if weights is None else weights),
            "README.md": (card or f"# {self!r}\n").encode(),
            **self.tokenizer.files(),
        }

    def save(self, folder: str | Path) -> None:
        store.write_folder(Path(folder), self.files())


def load(source: str | Path, device: str = "auto", dtype: torch.dtype | None = None) -> Model:
    """A run folder (its best), or a model folder -> Model.

    Raises MissingError QKV-021, StoreError for damaged files, WeightsError for tensors that do not fit."""
    folder = find(Path(source))
    if (folder / store.MANIFEST).is_file():
        store.verify(folder)
    path = folder / "config.json"
    values = read_json(path)
    if not isinstance(values, dict) or "model" not in values or "format_version" not in values:
        raise WeightsError(
            "not a qkv model: config.json has no 'model'",
            place=path,
            fix="give a folder qkv wrote",
            code="QKV-055",
        )
    version, known = values["format_version"], ("format_version", "model_type", "model", "decode")
    if type(version) is int and version > FORMAT:
        raise StoreError(
            f"format {version}, this qkv reads up to {FORMAT}",
            place=path,
            fix="install a newer qkv",
            code="QKV-063",
        )
    for key in values:
        if key not in known:
            raise WeightsError(
                f"unknown key {key!r}", place=path, fix=did_you_mean(key, known), code="QKV-010"
            )
    if version != FORMAT or not isinstance(values["model"], dict):
        raise WeightsError(
            f"not a qkv model: format_version {version!r}, model {values['model']!r:.50}",
            place=path,
            fix="give a folder qkv wrote",
            code="QKV-055",
        )
    config = configure(values["model"], place=path)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise WeightsError(
            f"the tokenizer has {tokenizer.vocab_size} pieces, the model {config.vocab_size}",
            place=folder,
            fix="use the tokenizer the model was trained with",
            code="QKV-041",
        )
    with torch.random.fork_rng(devices=[]):
        net = build(config)
    expected = {k: tuple(v.shape) for k, v in state_of(net).items()}
    set_state(net, read_tensors(folder / "model.safetensors", expected), place=folder)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    decode = from_dict(SearchConfig, values.get("decode", {}), place=path, at="decode.")
    return Model(net.to(device, dtype), tokenizer, config, decode, folder)


def find(source: Path) -> Path:
    """runs/X -> runs/X/best; a model folder -> itself."""
    for folder in (source / "best", source / "last", source):
        folder = store.recover(folder)
        if (folder / "config.json").is_file():
            return folder
    if not source.exists():
        near = ", ".join(str(p.parent) for p in sorted(Path("runs").glob("*/best"))[:5])
        fix = f"known runs: {near}" if near else "train one: qkv demo"
    else:
        fix = "give a run folder or a model folder (with config.json)"
    raise MissingError(f"no model at {source}", fix=fix, code="QKV-021")
