"""ViT (Dosovitskiy et al. 2021) and DeiT (Touvron et al. 2021): a pre-norm encoder over patches of a picture."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from ..errors import ConfigError, WeightsError
from ..parts.block import ACTIVATIONS, Activation, Stack, StackConfig
from ..parts.patches import PatchConfig, Patches, Size, both
from ..parts.recurrent import in_sixteens
from ..weights.table import Op, Table
from .bert import their_sizes
from .encoder import Problem
from .hf import PROBLEMS, THEIR_ACTS, Keys, their_labels, whole
from .pictures import PictureEncoder, PictureHead, PictureHeadConfig, Pool

LayoutName = Literal["vit", "deit"]
SMALL = dict(image_size=28, channels=1, pool="mean", norm_eps=1e-6)
SIZES: dict[str, dict[str, Any]] = {
    # ours: grey pictures of 28 x 28, and 6.3 M parameters for coloured ones of 32 x 32
    "tiny": SMALL | dict(n_layers=2, d_model=32, n_heads=2, d_ff=64, patch_size=7),
    "mini": SMALL | dict(n_layers=6, d_model=64, n_heads=4, d_ff=128, patch_size=4),
    "cifar": dict(
        n_layers=7, d_model=384, n_heads=12, d_ff=384, patch_size=4, image_size=32, norm_eps=1e-6
    ),
    # Touvron et al. 2021, table 1
    "deit-ti": dict(layout="deit", n_layers=12, d_model=192, n_heads=3, d_ff=768),
    "deit-s": dict(layout="deit", n_layers=12, d_model=384, n_heads=6, d_ff=1536),
    "deit-b": dict(layout="deit", n_layers=12, d_model=768, n_heads=12, d_ff=3072),
    # Dosovitskiy et al. 2021, table 1; the number is the patch
    "b16": dict(n_layers=12, d_model=768, n_heads=12, d_ff=3072, patch_size=16),
    "b32": dict(n_layers=12, d_model=768, n_heads=12, d_ff=3072, patch_size=32),
    "l16": dict(n_layers=24, d_model=1024, n_heads=16, d_ff=4096, patch_size=16),
    "h14": dict(n_layers=32, d_model=1280, n_heads=16, d_ff=5120, patch_size=14),
}
FIRSTS = {"vit": 1, "deit": 2}
CLASSES = {"vit": "ViT", "deit": "DeiT"}
HEADS: dict[str, dict[PictureHead, str]] = {
    "vit": {"none": "Model", "classes": "ForImageClassification"},
    "deit": {
        "none": "Model",
        "classes": "ForImageClassification",
        "distilled": "ForImageClassificationWithTeacher",
    },
}
HF = ("vit", "deit")
PREFIX = "vit."
EPS = 1e-12


@dataclass(frozen=True, kw_only=True)
class VitConfig:
    layout: LayoutName = "vit"
    head: PictureHead = "classes"
    labels: tuple[str, ...] = ()  # names of the classes, by id
    problem: Problem = "one"
    image_size: Size = 224  # that the positions are learned for: one number, or height and width
    patch_size: Size = 16
    channels: int = 3
    d_model: int = 768
    n_layers: int = 12
    n_heads: int = 12
    d_head: int | None = None  # None: d_model / n_heads
    d_ff: int | None = None  # None: 4 x d_model
    activation: Activation = "gelu"
    norm_eps: float = EPS
    qkv_bias: bool = True
    pattern: str | None = None  # which tokens see which, row by row: "window(7) | global(1)"
    pool: Pool = (
        "first"  # labels are read from a learned first token, or from the mean of the patches
    )
    pooled: bool | None = None  # a bare net's pooler; None: as the published class has it
    d_pooled: int | None = None  # None: d_model
    pooled_activation: Activation = "tanh"
    dropout: float = 0.0
    attn_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.head not in HEADS[self.layout]:
            raise ConfigError(
                f"{self.layout} has no head {self.head!r}",
                fix=f"one of {', '.join(HEADS[self.layout])}; two heads: layout = 'deit'",
                code="QKV-013",
            )
        if self.layout == "deit" and self.pool == "mean":
            raise ConfigError(
                "pool = 'mean' with layout = 'deit', whose labels are read from its first tokens",
                fix="pool = 'first', or layout = 'vit'",
                code="QKV-013",
            )
        self.embedded()
        self.stack()
        self.headed()

    @property
    def firsts(self) -> int:
        """Tokens before the patches."""
        return 0 if self.pool == "mean" else FIRSTS[self.layout]

    @property
    def has_pooler(self) -> bool:
        usual = self.head == "none" and self.pool == "first"
        return usual if self.pooled is None else self.pooled

    def embedded(self) -> PatchConfig:
        return PatchConfig(
            d_model=self.d_model,
            image_size=self.image_size,
            patch_size=self.patch_size,
            channels=self.channels,
            firsts=self.firsts,
            dropout=self.dropout,
        )

    def stack(self) -> StackConfig:
        return StackConfig(
            n_layers=self.n_layers,
            d_model=self.d_model,
            n_heads=self.n_heads,
            d_head=self.d_head,
            d_ff=self.d_ff or 4 * self.d_model,
            norm_eps=self.norm_eps,
            norm_first=True,
            final_norm=True,
            activation=self.activation,
            qkv_bias=self.qkv_bias,
            out_bias=True,
            pattern=self.pattern,
            dropout=self.dropout,
            attn_dropout=self.attn_dropout,
        )

    def headed(self) -> PictureHeadConfig:
        return PictureHeadConfig(kind=self.head, n_labels=len(self.labels), problem=self.problem)


class FirstPooler(nn.Module):
    """act(W x + b) of the first token's state: (B, C) -> (B, d_pooled)."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.d_model, config.d_pooled or config.d_model)
        self.act = ACTIVATIONS[config.pooled_activation]

    def forward(self, x: Tensor) -> Tensor:
        (y,) = in_sixteens(self.dense, x)
        return self.act(y)


def build(config: VitConfig) -> PictureEncoder:
    net = PictureEncoder(
        Patches(config.embedded()),
        Stack(config.stack()),
        FirstPooler(config) if config.has_pooler else None,
        config.headed(),
        image_size=both(config.image_size),
        channels=config.channels,
        firsts=config.firsts,
        pool=config.pool,
    )
    begin(net)
    return net


def begin(net: nn.Module) -> None:
    """Products Xavier-uniform, the labels' N(0, 0.02), biases 0 (as the paper's code)."""
    for name, p in net.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(p)
        elif name.startswith("head."):
            nn.init.normal_(p, std=0.02)
        elif p.dim() == 2:
            nn.init.xavier_uniform_(p)
        elif name == "embed.patch.weight":
            nn.init.normal_(p, std=p[0].numel() ** -0.5)


# ---- their configuration


def from_hf(keys: Keys) -> VitConfig:
    layout: LayoutName = keys.take("model_type", "vit")
    keys.expect("is_decoder", False)
    keys.expect("add_cross_attention", False)
    keys.expect("is_encoder_decoder", False)
    keys.expect("pruned_heads", {})
    keys.ignore("encoder_stride")  # of the head that paints hidden patches
    keys.ignore("tie_word_embeddings", "tie_encoder_decoder", "cross_attention_hidden_size")
    head = _head(keys, layout)
    labels = keys.labels() if head != "none" else ()
    d_model = keys.take("hidden_size", 768)
    pooled = whole(keys, "pooler_output_size", d_model)
    return VitConfig(
        layout=layout,
        head=head,
        labels=labels,
        problem=_problem(keys, len(labels)) if head == "classes" else "one",
        image_size=_size(keys, "image_size", 224),
        patch_size=_size(keys, "patch_size", 16),
        channels=keys.take("num_channels", 3),
        d_model=d_model,
        n_layers=keys.take("num_hidden_layers", 12),
        n_heads=keys.take("num_attention_heads", 12),
        d_head=whole(keys, "head_dim"),
        d_ff=keys.take("intermediate_size", 3072),
        activation=keys.act("hidden_act", "gelu"),
        norm_eps=keys.take("layer_norm_eps", EPS),
        qkv_bias=keys.take("qkv_bias", True),
        d_pooled=None if pooled in (None, 0, d_model) else pooled,
        pooled_activation=keys.act("pooler_act", "tanh"),
        dropout=keys.take("hidden_dropout_prob", 0.0),
        attn_dropout=keys.take("attention_probs_dropout_prob", 0.0),
    )


def _head(keys: Keys, layout: LayoutName) -> PictureHead:
    line = CLASSES[layout]
    known: dict[str, Any] = {line + name: head for head, name in HEADS[layout].items()}
    known[line + "ForMaskedImageModeling"] = None
    head: PictureHead | None = keys.architecture(known, f"{line}Model")
    if head is None:
        raise WeightsError(
            f"architectures = ['{line}ForMaskedImageModeling'] paints hidden patches, which is not computed here",
            place=keys.place,
            fix=f'read its encoder: architectures = ["{line}Model"]',
            code="QKV-055",
        )
    return head


def _problem(keys: Keys, n_labels: int) -> Problem:
    """One label is a number, several are classes of which one is right, unless the file says otherwise."""
    usual = "regression" if n_labels == 1 else "single_label_classification"
    made: Problem = keys.one_of("problem_type", PROBLEMS, usual)  # type: ignore[assignment]
    return made


def _size(keys: Keys, name: str, default: int) -> Size:
    """224, [224, 224] or [height, width]; a square as one number, as it is usually written."""
    value = keys.values.get(name)
    if not isinstance(value, (list, tuple)):
        made: int = keys.take(name, default)
        return made
    keys.ignore(name)
    if len(value) != 2 or any(type(v) is not int for v in value):
        raise ConfigError(
            f"{name} must be a number or [height, width] (got {value!r})",
            place=keys.place,
            fix="correct config.json",
            code="QKV-011",
        )
    return (value[0], value[1])


def to_hf(config: VitConfig) -> dict[str, Any]:
    made: dict[str, Any] = {
        "model_type": config.layout,
        "architectures": [CLASSES[config.layout] + HEADS[config.layout][config.head]],
        "image_size": _written(config.image_size),
        "patch_size": _written(config.patch_size),
        "num_channels": config.channels,
        "qkv_bias": config.qkv_bias,
        "pooler_output_size": config.d_pooled or config.d_model,
        "pooler_act": THEIR_ACTS[config.pooled_activation],
        **their_sizes(config),
    }
    if config.d_head is not None:
        made["head_dim"] = config.d_head
    return made | their_labels(config)


def _written(size: Size) -> int | list[int]:
    return size if isinstance(size, int) else list(size)


# ---- their tensors

LAYERS = {
    "attention.attention.{query,key,value}.{p}": "attn.{q,k,v}.{p}",
    "attention.output.dense.{p}": "attn.o.{p}",
    "layernorm_before.{p}": "attn_norm.{p}",
    "layernorm_after.{p}": "ff_norm.{p}",
    "intermediate.dense.{p}": "ff.up.{p}",
    "output.dense.{p}": "ff.down.{p}",
}
IN_MEMORY = {  # what transformers 5 calls them once they are loaded; files have the names above
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "layernorm_before": "layernorm_before",
    "layernorm_after": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def fitted(config: VitConfig, theirs: Mapping[str, Tensor]) -> VitConfig:
    """A bare model may have been saved without its pooler."""
    absent = not any(name.endswith("pooler.dense.weight") for name in theirs)
    bare = config.head == "none" and config.has_pooler
    return replace(config, pooled=False) if bare and absent else config


def table(config: VitConfig) -> Table:
    at = config.layout + "."
    rows: dict[str, str | Op] = {
        at + "embeddings.position_embeddings": "embed.places.position",
        at + "embeddings.patch_embeddings.projection.{p}": "embed.patch.{p}",
        at + "layernorm.{p}": "encoder.norm.{p}",
        **{f"{at}encoder.layer.{{i}}.{a}": f"encoder.blocks.{{i}}.{b}" for a, b in LAYERS.items()},
    }
    for name, ours in {"cls_token": "first", "distillation_token": "second"}.items():
        if config.firsts > (ours == "second"):
            rows[f"{at}embeddings.{name}"] = f"embed.places.{ours}"
    skip = {at + "embeddings.mask_token": "stands for hidden patches, which no head here has"}
    if config.has_pooler:
        rows[at + "pooler.dense.{p}"] = "pooler.dense.{p}"
    else:
        skip[at + "pooler.*"] = "no head here reads the pooled vector"
    heads = {"classifier.{p}": "classes"}
    if config.head == "distilled":
        heads = {"cls_classifier.{p}": "classes", "distillation_classifier.{p}": "distilled"}
    if config.head == "none":
        left = ("classifier.*", "cls_classifier.*", "distillation_classifier.*", "decoder.*")
        skip |= dict.fromkeys(left, "a head that this architecture leaves out")
    else:
        rows |= {a: f"head.{b}.out.{{p}}" for a, b in heads.items()}
    old = {
        f"{at}layers.{{i}}.{a}.{{p}}": f"{at}encoder.layer.{{i}}.{b}.{{p}}"
        for a, b in IN_MEMORY.items()
    }
    return Table(rows, skip=skip, old=old, prefix=at)
