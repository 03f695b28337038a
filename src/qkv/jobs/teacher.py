"""A classifier that tells another, while it learns, what it makes of the same noised pictures."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.images.augment import Augment, Uniform
from ..data.images.decode import Bytes
from ..errors import ConfigError
from ..learn.speed import mixed
from ..model import Model
from ..pictures import of_pixels, processor_of


@dataclass(frozen=True)
class Teacher:
    """`order`: the teacher's number of each class of the pupil."""

    model: Model
    order: list[int]
    bf16: bool

    @classmethod
    def of(cls, model: Model, classes: tuple[str, ...], channels: int, precision: str) -> "Teacher":
        """Raises ConfigError QKV-013 for a model that does not tell these classes apart in such pictures."""
        place = model.folder or ""
        own = list(getattr(model.config, "labels", ()))
        one = getattr(model.config, "problem", "one") == "one"
        if not (model.has_pictures and one and sorted(own) == sorted(classes)):
            raise ConfigError(
                f"objective.teacher tells {', '.join(own[:5]) or 'nothing'} apart, the pictures are of {', '.join(classes[:5])} …",
                place=place,
                fix="give a classifier of pictures with the same classes",
                code="QKV-013",
            )
        if model.net.channels != channels:
            raise ConfigError(
                f"objective.teacher sees {model.net.channels} channels, the pictures have {channels}",
                place=place,
                fix=f"model.channels={model.net.channels}",
                code="QKV-013",
            )
        model.net.eval()
        return cls(model, [own.index(name) for name in classes], mixed(precision, model.device))

    @torch.no_grad()
    def __call__(self, x: Bytes, augment: Augment, noise: Uniform) -> Tensor:
        """The probability of each class, (B, K), of pictures (B, H, W, channels), erased where the pupil's are."""
        processor, device = processor_of(self.model), self.model.device
        if processor.output not in (None, x.shape[1:3]):
            x = np.stack([processor.fitted(picture) for picture in x])
        pixels = torch.from_numpy(augment.numbers(processor.numbers(x), noise))
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            logits: Tensor = self.model.net.logits(of_pixels(pixels.to(device)))  # type: ignore[operator]
        return logits.float().softmax(-1)[:, self.order].cpu()
