"""A net with its tokenizer and settings: what `qkv.load` gives and a person uses."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn

from .decode.answer import Hypothesis, SearchConfig
from .decode.engine import Engine
from .decode.reader import Reader
from .decode.rows import prompted
from .errors import DataError, MissingError, UsageError
from .models import family_of
from .models.seq2seq import Translator
from .readings import Habits
from .shapes import Batch, pad
from .text import AnyTokenizer, Tokenizer
from .weights import store

if TYPE_CHECKING:  # a translation needs none of the objectives
    from .data.images.process import Processor
    from .data.objectives.chat import ChatTemplate

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
        tokenizer: AnyTokenizer | None,
        config: Any,
        decode: SearchConfig | None = None,
        folder: Path | None = None,
        template: "ChatTemplate | None" = None,
        processor: "Processor | None" = None,
        habits: Habits | None = None,
    ) -> None:
        self.net, self._tokenizer, self.config = net.eval(), tokenizer, config
        self.decode, self.folder = decode or SearchConfig(), folder
        self.template = template  # how the conversations it learned from were written
        self.processor = processor  # how pictures are made for it
        self.habits = habits or Habits()  # how the texts it learned from were read
        # the types of the tensors in the file it was read from, by their names there: `save` goes back to them
        self.kinds: Mapping[str, torch.dtype] = {}
        # the activation by the name that config.json had, where several are the same formula here
        self.spelled: Mapping[str, str] = {}

    @property
    def tokenizer(self) -> AnyTokenizer:
        """Raises MissingError QKV-021 where the model's folder had none: such a model knows ids only; UsageError where it
        reads pictures."""
        if self.has_pictures:
            raise UsageError(
                f"this {self.family} reads pictures, no text",
                place=self.folder or "",
                fix='classify: qkv classify --model RUN picture.png, model.classify("picture.png")',
            )
        if self._tokenizer is None:
            raise MissingError(
                "this model has no tokenizer",
                place=self.folder or "",
                fix="put its tokenizer.json, vocab.txt or .spm files into its folder",
                code="QKV-021",
            )
        return self._tokenizer

    @property
    def has_tokenizer(self) -> bool:
        return self._tokenizer is not None

    @property
    def family(self) -> str:
        return family_of(self.config)

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    @property
    def pad_id(self) -> int:
        return int(self.net.pad_id)  # type: ignore[arg-type]

    @property
    def eos_id(self) -> int:
        return int(self.net.eos_id)  # type: ignore[arg-type]

    @property
    def has_pictures(self) -> bool:
        """Does it read pictures, and no text?"""
        return hasattr(self.net, "channels")

    @property
    def nameless(self) -> tuple[int, ...]:
        """The ids that the net could write and no token has: embeddings are often larger than their vocabulary."""
        rows = getattr(self.config, "target_vocab_size", None) or self.config.vocab_size
        tok = self.tokenizer.target
        holes = () if isinstance(tok, Tokenizer) else tok.holes
        return (*(i for i in holes if i < rows), *range(tok.vocab_size, rows))

    def __repr__(self) -> str:
        n = sum(p.numel() for p in self.net.parameters())
        if self.has_pictures:
            reads = f"pictures of {self.net.channels} channels, {len(self.config.labels)} labels"
        else:
            reads = f"{self.config.vocab_size:,} pieces"
        return f"Model({self.family}, {n / 1e6:.1f} M parameters, {reads})"

    # -- numbers ----------------------------------------------------------------------------------

    def ids(self, text: str) -> list[int]:
        """A text as the net reads it, with the special tokens of its family around it."""
        tok = self.tokenizer
        if not isinstance(tok, Tokenizer):
            return tok.frame(tok.encode(text).ids)[0]
        ends = [tok.eos_id] if isinstance(self.net, Translator) else []
        return [*tok.encode(text).ids, *ends]

    @torch.inference_mode()
    def logits(
        self,
        ids: Tensor | None = None,
        keep: Tensor | None = None,
        target: Tensor | None = None,
        pixels: Tensor | None = None,
        marked: Tensor | None = None,
    ) -> Tensor:
        """The logits of the head: (B, T, V) after each token, (B, classes), …; ids (B, S), keep (B, S) bool.

        marked (B, S) bool: global tokens, which see and are seen by all; None: those that the family marks, if any.
        An encoder-decoder is teacher-forced with target (B, T), ending in <eos>.  A net of pictures reads
        pixels (B, channels, height, width) as `processor` makes them, with keep (B, height, width) where some were padded.
        Raises DataError for ids outside the vocabulary, a missing target, shapes or types that do not fit."""
        if self.has_pictures or pixels is not None:
            from . import pictures

            return pictures.logits(self, pixels, keep, ids)
        if ids is None:
            raise DataError("logits of what?", fix="pass ids (B, S)")
        writes = isinstance(self.net, Translator)
        if writes and target is None:
            raise DataError(
                "logits of an encoder-decoder need target=", fix="pass target ids (B, T)"
            )
        given = {"ids": ids} | ({} if target is None else {"target": target})
        for name, x in given.items():
            self._check_ids(name, x, len(ids))
        keep = self._real(ids) if keep is None else keep
        if keep.shape != ids.shape or keep.dtype != torch.bool:
            raise DataError(
                f"keep of shape {tuple(keep.shape)}, {keep.dtype}",
                fix=f"give booleans of the ids' shape {tuple(ids.shape)}",
            )
        if marked is not None and (marked.shape != ids.shape or marked.dtype != torch.bool):
            raise DataError(
                f"marked of shape {tuple(marked.shape)}, {marked.dtype}",
                fix=f"give booleans of the ids' shape {tuple(ids.shape)}",
            )
        batch = Batch(ids, keep, marked=marked)
        if target is not None:
            batch = replace(batch, target=target, target_keep=self._real(target))
        logits: Tensor = self.net.logits(batch.to(self.device))  # type: ignore[operator]
        return logits

    def _check_ids(self, name: str, x: Tensor, rows: int) -> None:
        V = self.config.vocab_size
        if name == "target":  # Marian may have a vocabulary for each side
            V = getattr(self.config, "target_vocab_size", None) or V
        if x.dim() != 2 or x.is_floating_point() or len(x) != rows:
            raise DataError(
                f"{name} of shape {tuple(x.shape)}, {x.dtype}",
                fix="give whole numbers, ids (B, S) and target (B, T)",
            )
        if x.numel() and not (0 <= int(x.min()) and int(x.max()) < V):
            raise DataError(
                f"{name} hold {int(x.min())} … {int(x.max())}, the vocabulary has {V}",
                fix="encode the text with this model's tokenizer",
                code="QKV-041",
            )

    def _real(self, ids: Tensor) -> Tensor:
        """(B, S) bool: up to the last id that is not padding (a text may hold the padding's id in its middle)."""
        real = ids != self.pad_id
        return real.flip(1).cummax(1).values.flip(1)

    def embed(
        self,
        texts: str | Sequence[str],
        pooling: Literal["mean", "cls", "pooled"] = "mean",
        normalize: bool = False,
        marked: Sequence[int] | None = None,
    ) -> Tensor:
        """The mean of the encoder's states (or another pooling): (C) for one text, (N, C) for a list.

        marked: places of global tokens, as for `classify`."""
        from . import read

        return read.embed(self, texts, pooling, normalize, marked)

    # -- reading: one in, one out; list in, list out -----------------------------------------------

    def fill(self, texts: str | Sequence[str], n: int = 5) -> Any:
        """The n best words for each gap ("[MASK]", "<mask>"; T5: "<extra_id_0>"): `readings.Filled`."""
        from .gaps import fill

        return fill(self, texts, n)

    def classify(
        self,
        texts: Any,
        marked: Sequence[int] | None = None,
        window: int | None = None,
        stride: int | None = None,
    ) -> Any:
        """The label of a text or a pair, or of a picture, and the probability of each: `readings.Classified`.

        window, stride: a longer text is read in windows of so many tokens, one begun every `stride`, and their logits are
        averaged; 0: the whole text, windows that do not overlap; None: as the model was trained.
        marked: places of global tokens, counted from 0, the family's first token included; None: as the family marks them.
        texts: str, a tuple of two, or a list of them; of a model of pictures a path, a PIL image, an array or tensor
        (H, W), (H, W, c) or (c, H, W) of bytes or numbers in 0 … 1, or a list of them."""
        if self.has_pictures:
            from . import pictures

            if marked or window or stride:
                raise UsageError("marked, window and stride are for texts", fix="leave them out")
            return pictures.classify(self, texts)
        from . import read

        return read.classify(self, texts, window, stride, marked=marked)

    def detect(self, pictures: Any, threshold: float = 0.5) -> Any:
        """What is where in a picture: `readings.Detections`, boxes x0, y0, x1, y1 in pixels, surest first.

        pictures: as `classify` takes them.  A thing is named where its probability is above `threshold`."""
        from .detect import detect

        return detect(self, pictures, threshold)

    def tag(self, texts: str | Sequence[str], on: Literal["tokens", "words"] | None = None) -> Any:
        """The spans of a text that are names, slots, …, with their characters: `readings.Marked`.

        on: each token by itself, or words by their first token; None: as the model was trained."""
        from . import read

        return read.tag(self, texts, on)

    def answer(
        self,
        questions: str | Sequence[str],
        contexts: str | Sequence[str],
        *,
        longest: int = 32,
        window: int = 384,
        stride: int = 128,
    ) -> Any:
        """The span of a context that answers a question, and how likely there is none: `readings.Answer`."""
        from . import read

        return read.answer(self, questions, contexts, longest=longest, window=window, stride=stride)

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

        The length penalty is the recipe's.  No bit of an answer depends on what it is batched with (float32 on a CPU, 1 or 2 threads)."""
        config = self.decode
        if beam > 1 or nbest > 1:  # a search, whatever the publisher's settings draw
            config = replace(config, temperature=0.0, top_k=None, top_p=None)
        config = replace(config, beam=max(beam, nbest), nbest=nbest)
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
        stop: str | Sequence[str] = (),
        seed: int = 0,
        stream: bool = False,
        *,
        repetition_penalty: float | None = None,
        no_repeat_ngram_size: int | None = None,
    ) -> Any:
        """Write freely: greedy, beam or sampled.  str -> one, list -> list.

        A decoder alone continues its prompt (Generation), an encoder-decoder answers it (Translation).  stream=True: an
        iterator of text pieces, of a list (number, piece).  What is None is as the model's own settings have it.
        Raises DataError QKV-032 for an empty prompt of a model without a start token, QKV-037 for one too long."""
        from .generate import generate, settings

        config = settings(
            self.decode,
            max_new_tokens=max_new_tokens,
            beam=beam,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            repetition_penalty=repetition_penalty,
            no_repeat_ngram_size=no_repeat_ngram_size,
        )
        return generate(self, prompts, config, stop, stream)

    def chat(
        self,
        turns: str | Sequence[tuple[str, str]],
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        stream: bool = False,
        *,
        repetition_penalty: float | None = None,
    ) -> Any:
        """What the model says next in a conversation [("user", "…"), ("assistant", "…"), …]: a Generation, or its pieces.

        Raises DataError for an empty conversation, QKV-037 for a last turn too long."""
        from .chat import chat
        from .generate import settings

        config = settings(
            self.decode,
            beam=1,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            repetition_penalty=repetition_penalty,
        )
        return chat(self, turns, config, stream)

    def summarize(
        self,
        texts: str | Sequence[str],
        beam: int = 1,
        max_new_tokens: int | None = None,
        batch_tokens: int = 4096,
        prefix: str | None = None,
    ) -> Any:
        """What an encoder-decoder that was trained to summarise makes of a text: str -> Translation, list -> list.

        prefix: what its training put before every text; None: "summarize: " for T5 (Raffel et al. 2020, appendix D)."""
        before = ("summarize: " if self.family == "t5" else "") if prefix is None else prefix
        given = [texts] if isinstance(texts, str) else list(texts)
        asked = [before + text if text.strip() else text for text in given]
        made = self.translate(
            asked, beam=beam, max_new_tokens=max_new_tokens, batch_tokens=batch_tokens
        )
        return made[0] if isinstance(texts, str) else made

    def answers(
        self,
        texts: Sequence[str],
        config: SearchConfig,
        batch_tokens: int,
        reader: Reader | None = None,
    ) -> Iterator[list[Translation]]:
        """The n-best of every text, in order; the stop strings of `reader` end them."""
        tokenizer = self.tokenizer  # a model of pictures says so before anything else
        self._check_answers()
        texts = list(texts)  # an iterator would be at its end after the check
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(f"text {i} is {type(text).__name__}, not str", fix="pass strings")
        engine = Engine(
            self.net, config, batch_tokens=batch_tokens, banned=self.nameless, reader=reader
        )
        # nothing to read: nothing to say, instead of what <eos> alone would make the net invent
        sources = [self.ids(text) if text.strip() else [] for text in texts]
        for text, ids, found in zip(texts, sources, engine(sources), strict=True):
            shown = tuple(tokenizer.tokens(ids))
            yield [self._translation(text, shown, h, reader) for h in found]

    def _check_answers(self) -> None:
        """Raises UsageError for a model that reads only, or continues what it reads."""
        if hasattr(self.net, "step") and not prompted(self.net):
            return
        writes = hasattr(self.net, "step")
        raise UsageError(
            f"a translation or a summary needs an encoder-decoder; this one is {self.family}"
            + (", which continues its prompt" if writes else ", which reads and does not write"),
            place=self.folder or "",
            fix='model.generate("…"), qkv generate' if writes else "load an encoder-decoder",
        )

    def _translation(
        self, text: str, shown: tuple[str, ...], h: Hypothesis, reader: Reader | None
    ) -> Translation:
        tokens = tuple(self.tokenizer.target.tokens(h.ids))
        answer = self.tokenizer.decode(h.ids) if reader is None else reader.text((), h.ids)
        return Translation(answer, tokens, shown, h.score, text, h.ids, self._alignment)

    def maps(self, translation: Translation) -> dict[str, Tensor]:
        """Every attention map of a translation: {"decoder.stack.blocks.3.cross": (1, H, T, S)}, padding cut off."""
        from .look.record import record

        source = self.ids(translation.source)
        target = [*translation.ids, self.eos_id]
        ids, keep = pad([source], self.pad_id, MULTIPLE)
        out, out_keep = pad([target], self.pad_id, MULTIPLE)
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
        tok = self.tokenizer
        self._check_answers()
        engine = Engine(self.net, self.decode)
        return engine.force(
            [self.ids(s) for s in sources], [tok.target.encode(t).ids for t in targets]
        )

    # -- files ------------------------------------------------------------------------------------

    def files(self, weights: Mapping[str, Tensor] | None = None, card: str = "") -> dict[str, Any]:
        """The content of a model folder."""
        from .checkpoints import files

        return files(self, weights, card)

    def save(self, folder: str | Path) -> None:
        """Write a model folder: one that transformers loads, where it has the family."""
        store.write_folder(Path(folder), self.files())
