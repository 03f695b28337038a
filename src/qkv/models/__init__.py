"""One short file per family; `build` assembles a net from its configuration."""

from typing import Any

from torch import nn

from ..config import from_dict, to_dict
from ..errors import ConfigError, did_you_mean
from . import (
    bart,
    bert,
    bigbird,
    detr,
    gpt2,
    hybrid,
    llama,
    longformer,
    marian,
    performer,
    rnn,
    rnn_encoder,
    t5,
    transformer,
    vit,
)

FAMILIES: dict[str, Any] = {
    "rnn": rnn,
    "rnn-encoder": rnn_encoder,
    "transformer": transformer,
    "gpt2": gpt2,
    "bert": bert,
    "bigbird": bigbird,
    "longformer": longformer,
    "llama": llama,
    "t5": t5,
    "bart": bart,
    "marian": marian,
    "performer": performer,
    "detr": detr,
    "vit": vit,
    "hybrid": hybrid,
}
CONFIGS: dict[str, Any] = {
    "rnn": rnn.RnnConfig,
    "rnn-encoder": rnn_encoder.RnnEncoderConfig,
    "transformer": transformer.TransformerConfig,
    "gpt2": gpt2.Gpt2Config,
    "bert": bert.BertConfig,
    "bigbird": bigbird.BigBirdConfig,
    "longformer": longformer.LongformerConfig,
    "llama": llama.LlamaConfig,
    "t5": t5.T5Config,
    "bart": bart.BartConfig,
    "marian": marian.MarianConfig,
    "performer": performer.PerformerConfig,
    "detr": detr.DetrConfig,
    "vit": vit.VitConfig,
    "hybrid": hybrid.HybridConfig,
}


def configure(values: dict[str, Any], *, place: object = "", at: str = "model.") -> Any:
    """{"family": "rnn", "size": "tiny", "cell": "gru", …} -> the family's frozen configuration."""
    values = dict(values)
    family = values.pop("family", "transformer")
    if family not in FAMILIES:
        raise ConfigError(
            f"unknown family {family!r}",
            place=place,
            fix=did_you_mean(str(family), FAMILIES),
            code="QKV-055",
        )
    sizes: dict[str, dict[str, Any]] = FAMILIES[family].SIZES
    size = values.pop("size", None)
    if size is not None and size not in sizes:
        raise ConfigError(
            f"{at}size = {size!r} is unknown", place=place, fix=did_you_mean(str(size), sizes)
        )
    return from_dict(CONFIGS[family], sizes.get(size, {}) | values, place=place, at=at)


def family_of(config: Any) -> str:
    return next(name for name, cls in CONFIGS.items() if isinstance(config, cls))


def describe(config: Any) -> dict[str, Any]:
    """The inverse of `configure`, without sizes: what a model folder's config.json keeps."""
    made: dict[str, Any] = to_dict(config)
    return {"family": family_of(config)} | made


def build(config: Any) -> nn.Module:
    """A fresh net with random weights."""
    net: nn.Module = FAMILIES[family_of(config)].build(config)
    return net
