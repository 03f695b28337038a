"""Ask a model about pictures: classify, and the logits of pixels.  One in, one out; list in, list out.

A CPU takes one picture at a time: a batch of another size takes other kernels (seen with AVX-512: the last bit of a score
differed), and no answer may depend on what it is batched with (law 2).  A picture of 3 × 224 × 224 fills a core by itself.  An
accelerator takes pictures of one size together."""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .data.images.decode import Bytes, Unusable, from_image, from_numbers
from .data.images.sources import single
from .errors import DataError, MissingError, UsageError, named
from .model import Model
from .models.encoder import Problem
from .readings import Classified
from .shapes import Batch

if TYPE_CHECKING:
    from .data.images.process import Processor

PIXELS = 1 << 25  # numbers of an accelerator's batch: 222 pictures of 3 × 224 × 224


def processor_of(model: Model) -> "Processor":
    """How pictures are made for it.

    Raises UsageError where it reads text, MissingError QKV-021 where nothing says how, DataError QKV-038 where no picture file
    has its channels."""
    if not model.has_pictures:
        raise UsageError(f"this {model.family} reads text, not pictures", fix="pass strings")
    if model.processor is None:
        raise MissingError(
            "this model has no preprocessor_config.json: how pictures are made for it is not known",
            place=model.folder or "",
            fix="put its publisher's file into the model's folder, or pass pixels to logits",
            code="QKV-021",
        )
    if model.net.channels not in (1, 3):
        raise DataError(
            f"this model reads {model.net.channels} channels, picture files are made into 1 (grey) or 3 (colour)",
            place=model.folder or "",
            fix="pass pixels to logits",
            code="QKV-038",
        )
    return model.processor


def pictures_of(given: Any) -> tuple[bool, list[Any]]:
    """(is it one?, as a list): a path, a PIL image, an array or tensor of at most three axes; or several of them.

    An array of four axes is several pictures."""
    if isinstance(given, (str, os.PathLike)) or hasattr(given, "convert"):
        return True, [given]
    if hasattr(given, "shape"):
        return (True, [given]) if len(given.shape) < 4 else (False, list(given))
    return False, list(given)


def read(given: Any, channels: int, i: int = 0) -> tuple[str, Bytes]:
    """(what it is called in answers, its pixels).  Raises MissingError QKV-020, DataError QKV-037, QKV-038."""
    if isinstance(given, (str, os.PathLike)):
        return os.fspath(given), single(given, channels)
    if hasattr(given, "convert"):
        try:
            return f"picture {i}", from_image(given, channels)
        except Unusable as e:
            raise e.error(f"picture {i}") from None
    if hasattr(given, "shape"):
        return f"picture {i}", from_numbers(given, channels, f"picture {i}")
    raise DataError(
        f"picture {i} is {type(given).__name__}",
        fix="give a path, a PIL image, an array or a tensor",
        code="QKV-038",
    )


def made(model: Model, given: Sequence[Any]) -> tuple[list[str], list[Tensor]]:
    """(names, pixels (channels, H, W) of each) as the model's processor makes them."""
    processor, channels = processor_of(model), int(model.net.channels)  # type: ignore[arg-type]
    names, pixels = [], []
    for i, one in enumerate(given):
        name, x = read(one, channels, i)
        names.append(name)
        with named(name):
            pixels.append(torch.from_numpy(processor.numbers(processor.fitted(x))))
    return names, pixels


def batches(pixels: Sequence[Tensor], device: torch.device) -> Iterator[tuple[list[int], Batch]]:
    """(their numbers, pictures of one size), every picture once."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    for i, x in enumerate(pixels):
        by_size.setdefault(tuple(x.shape), []).append(i)
    most = 1 if device.type == "cpu" else PIXELS
    for members in by_size.values():
        n = max(1, most // max(1, pixels[members[0]].numel()))
        for at in range(0, len(members), n):
            chosen = members[at : at + n]
            yield chosen, of_pixels(torch.stack([pixels[i] for i in chosen])).to(device)


def of_pixels(pixels: Tensor, keep: Tensor | None = None) -> Batch:
    """A batch without tokens."""
    B = len(pixels)
    return Batch(
        torch.zeros(B, 0, dtype=torch.long, device=pixels.device),
        torch.zeros(B, 0, dtype=torch.bool, device=pixels.device),
        pixels=pixels,
        pixel_keep=keep,
    )


@torch.inference_mode()
def logits(
    model: Model, pixels: Tensor | None, keep: Tensor | None = None, ids: Tensor | None = None
) -> Tensor:
    """The logits of the head: (B, labels), … of pixels (B, channels, H, W).  Raises DataError QKV-038."""
    if not model.has_pictures:
        raise DataError(f"this {model.family} reads text, not pixels", fix="pass ids (B, S)")
    if pixels is None or ids is not None:
        seen = "ids of a text" if ids is not None else "no pixels"
        raise DataError(f"{seen} for a model of pictures", fix="pass pixels=", code="QKV-038")
    channels: int = model.net.channels  # type: ignore[assignment]
    if pixels.dim() != 4 or pixels.shape[1] != channels or not pixels.is_floating_point():
        raise DataError(
            f"pixels of shape {tuple(pixels.shape)}, {pixels.dtype}",
            fix=f"give floating point numbers (B, {channels}, height, width)",
            code="QKV-038",
        )
    B, _, H, W = pixels.shape
    if keep is not None and (keep.shape != (B, H, W) or keep.dtype != torch.bool):
        raise DataError(
            f"keep of shape {tuple(keep.shape)}, {keep.dtype}",
            fix=f"give booleans of shape {(B, H, W)}",
            code="QKV-038",
        )
    batch = of_pixels(pixels, keep).to(model.device)
    out: Tensor = model.net.logits(typed(model, batch))  # type: ignore[operator]
    return out


def typed(model: Model, batch: Batch) -> Batch:
    """The pixels in the type of the model's weights."""
    from dataclasses import replace

    kind = next(model.net.parameters()).dtype
    return batch if batch.pixels is None else replace(batch, pixels=batch.pixels.to(kind))


@torch.inference_mode()
def classify(model: Model, given: Any) -> Any:
    """The label of a picture with its probability, and all others.  One -> Classified, several -> list."""
    head = getattr(model.net, "head", None)
    if getattr(head, "kind", None) not in ("classes", "distilled"):
        raise UsageError(
            f"classify needs a model with a head for classes; this one is {model.family}",
            fix="load a model that was trained for it",
        )
    from .read import scored, sound

    one, asked = pictures_of(given)
    names, pixels = made(model, asked)
    problem: Problem = getattr(head, "problem", "one")
    found: list[list[float]] = [[] for _ in names]
    for chosen, batch in batches(pixels, model.device):
        with named(names[chosen[0]]):
            z = sound(model.net.logits(typed(model, batch))).float()  # type: ignore[operator]
        for i, row in zip(chosen, scored(z, problem).tolist(), strict=True):
            found[i] = row
    labels = model.config.labels
    answers = [Classified.ranked(n, labels, s) for n, s in zip(names, found, strict=True)]
    return answers[0] if one else answers
