"""DETR (Carion et al. 2020): objects as a set, found by queries in one pass, without anchors and without suppression."""

from dataclasses import replace
from typing import Any, Literal

from torch import nn

from ..errors import ConfigError
from ..parts.resnet import NAMES, UNREAD
from ..weights.table import Op, Table
from .detector import Detector
from .detector import DetrConfig as DetrConfig
from .hf import THEIR_ACTS, Keys, their_labels
from .transformer import begin

SIZES: dict[str, dict[str, Any]] = {
    "tiny": dict(
        d_stem=8,
        widths=(8, 16),
        depths=(1, 1),
        bottleneck=False,
        out=2,
        frozen=False,
        d_model=16,
        encoder_layers=1,
        decoder_layers=2,
        encoder_heads=2,
        decoder_heads=2,
        encoder_ff=32,
        decoder_ff=32,
        queries=6,
        dropout=0.0,
    ),
    # pictures of 64 to 128 pixels: a cell for every 8, a backbone that learns from nothing
    "shapes": dict(
        d_stem=16,
        widths=(32, 64),
        depths=(1, 2),
        bottleneck=False,
        out=2,
        frozen=False,
        d_model=96,
        encoder_layers=3,
        decoder_layers=3,
        encoder_heads=4,
        decoder_heads=4,
        encoder_ff=256,
        decoder_ff=256,
        queries=16,
        dropout=0.0,
    ),
    "resnet-18": dict(widths=(64, 128, 256, 512), depths=(2, 2, 2, 2), bottleneck=False),
    "resnet-50": dict(),  # Carion et al. 2020, table 1
    "resnet-101": dict(depths=(3, 4, 23, 3)),
}
HF = ("detr",)
PREFIX = "model."
UNSAID = ("auxiliary", "frozen", "trained")  # how it learns: no part of what a published form says
TIMM: dict[str, dict[str, Any]] = {
    "resnet18": SIZES["resnet-18"],
    "resnet34": SIZES["resnet-18"] | dict(depths=(3, 4, 6, 3)),
    "resnet50": SIZES["resnet-50"],
    "resnet101": SIZES["resnet-101"],
}


def build(config: DetrConfig) -> Detector:
    """Xavier weights in both stacks (appendix A.4), the convolutions as in their own paper."""
    net = Detector(config)
    begin(net.encoder)
    begin(net.decoder)
    nn.init.xavier_uniform_(net.project.weight)
    nn.init.zeros_(net.project.bias) if net.project.bias is not None else None
    still = {"all": 0, "upper": 2, "none": len(config.depths) + 1}[config.trained]
    for part in [net.backbone.stem, *net.backbone.stages][:still]:
        part.requires_grad_(False)
    return net


# ---- their configuration


def from_hf(keys: Keys) -> DetrConfig:
    _refuse_masks(keys)
    head: Literal["boxes", "none"] = keys.architecture(
        {"DetrForObjectDetection": "boxes", "DetrModel": "none"}, "DetrModel"
    )
    layers = keys.take("encoder_layers", 6)
    # second names that transformers gives to keys below
    keys.expect("num_hidden_layers", layers)
    keys.expect("hidden_size", keys.take("d_model", 256))
    keys.expect("num_attention_heads", keys.take("encoder_attention_heads", 8))
    keys.expect("num_feature_levels", 1)
    # of masks, which are refused; of layers left out at random, which nothing reads any more; of BART, whose keys old files keep
    keys.ignore("mask_loss_coefficient", "dice_loss_coefficient", "init_xavier_std")
    keys.ignore("encoder_layerdrop", "decoder_layerdrop", "is_encoder_decoder")
    keys.ignore("classifier_dropout", "max_position_embeddings", "scale_embedding")
    every_layer = keys.take("auxiliary_loss", False)
    return DetrConfig(
        labels=keys.labels() if head == "boxes" else (),
        head=head,
        **_backbone(keys),
        d_model=keys.take("d_model", 256),
        encoder_layers=layers,
        decoder_layers=keys.take("decoder_layers", 6),
        encoder_heads=keys.take("encoder_attention_heads", 8),
        decoder_heads=keys.take("decoder_attention_heads", 8),
        encoder_ff=keys.take("encoder_ffn_dim", 2048),
        decoder_ff=keys.take("decoder_ffn_dim", 2048),
        queries=keys.take("num_queries", 100),
        positions=keys.one_of(
            "position_embedding_type", {"sine": "sine", "learned": "learned"}, "sine"
        ),  # type: ignore[arg-type]
        activation=keys.act("activation_function", "relu"),
        dropout=keys.take("dropout", 0.1),
        attn_dropout=keys.take("attention_dropout", 0.0),
        ff_dropout=keys.take("activation_dropout", 0.0),
        renormed=every_layer,
        auxiliary=every_layer,
        match_class=keys.take("class_cost", 1.0),
        match_box=keys.take("bbox_cost", 5.0),
        match_giou=keys.take("giou_cost", 2.0),
        box_weight=keys.take("bbox_loss_coefficient", 5.0),
        giou_weight=keys.take("giou_loss_coefficient", 2.0),
        nothing_weight=keys.take("eos_coefficient", 0.1),
    )


def _refuse_masks(keys: Keys) -> None:
    if "DetrForSegmentation" in keys.named_architectures():
        raise ConfigError(
            "DetrForSegmentation draws masks, which is not computed here",
            place=keys.place,
            fix="take a checkpoint of DetrForObjectDetection",
        )


def _backbone(keys: Keys) -> dict[str, Any]:
    """Where it is described depends on the file's age: by a name of timm's, or by a configuration of its own."""
    given = keys.take("backbone_config", None)
    keys.ignore("use_pretrained_backbone")  # its weights lie in the file
    channels = keys.take("num_channels", 3)
    keys.expect("backbone_kwargs", {}, {"in_chans": channels, "out_indices": [1, 2, 3, 4]})
    if given is None and keys.take("use_timm_backbone", True):
        return _timm(keys, keys.take("backbone", "resnet50"), channels)
    keys.ignore("use_timm_backbone", "backbone", "dilation")  # which concern timm's alone
    if given is None:
        given = {"model_type": "resnet", "out_features": ["stage4"]}
    if not isinstance(given, dict):
        raise ConfigError(
            f"backbone_config must be an object (got {str(given)[:60]})",
            place=keys.place,
            fix="correct config.json",
            code="QKV-011",
        )
    inner = Keys(given, f"{keys.place}: backbone_config")
    kind = inner.one_of(
        "model_type", {"resnet": "resnet", "timm_backbone": "timm"}, str(given.get("model_type"))
    )
    inner.expect("_out_indices", None)
    made = _their_timm(inner) if kind == "timm" else _resnet(inner)
    inner.done()
    return made


def _their_timm(inner: Keys) -> dict[str, Any]:
    inner.expect("features_only", True)
    inner.expect("output_stride", 32)
    inner.expect("out_indices", [1, 2, 3, 4], [4], [-1])
    inner.ignore("use_pretrained_backbone", "freeze_batch_norm_2d", "out_features", "stage_names")
    return _timm(inner, inner.take("backbone", "resnet50"), inner.take("num_channels", 3))


def _timm(keys: Keys, name: str, channels: int) -> dict[str, Any]:
    keys.expect("dilation", False)
    keys.one_of("backbone", {known: known for known in TIMM}, "resnet50")
    return dict(TIMM[name], layout="timm", channels=channels, trained="upper")


def _resnet(keys: Keys) -> dict[str, Any]:
    depths = keys.counts("depths", (3, 4, 6, 3))
    names = ["stem", *(f"stage{i}" for i in range(1, len(depths) + 1))]
    # of several maps the last is read
    listed = keys.take("out_features", None) or [None]
    stage = listed[-1] if isinstance(listed, list) else listed
    number = (keys.counts("out_indices", ()) or (len(depths),))[-1] % len(names)
    keys.ignore("stage_names", "is_encoder_decoder")
    if stage is not None and stage not in names:
        raise ConfigError(
            f"out_features = {stage!r}", place=keys.place, fix=f"known: {', '.join(names)}"
        )
    kinds = {"basic": "basic", "bottleneck": "bottleneck"}
    return dict(
        channels=keys.take("num_channels", 3),
        d_stem=keys.take("embedding_size", 64),
        widths=keys.counts("hidden_sizes", (256, 512, 1024, 2048)),
        depths=depths,
        bottleneck=keys.one_of("layer_type", kinds, "bottleneck") == "bottleneck",
        backbone_activation=keys.act("hidden_act", "relu"),
        halve_first=keys.take("downsample_in_first_stage", False),
        halve_early=keys.take("downsample_in_bottleneck", False),
        out=number if stage is None else names.index(stage),
        # QUIRK (transformers): it looks for parts to train under names that this backbone does not have, and trains none;
        # test_the_published_backbone_stands_still
        trained="none",
    )


def to_hf(config: DetrConfig) -> dict[str, Any]:
    made: dict[str, Any] = {
        "model_type": "detr",
        "architectures": ["DetrModel" if config.head == "none" else "DetrForObjectDetection"],
        "num_channels": config.channels,
        **_their_backbone(config),
        "d_model": config.d_model,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "encoder_attention_heads": config.encoder_heads,
        "decoder_attention_heads": config.decoder_heads,
        "encoder_ffn_dim": config.encoder_ff,
        "decoder_ffn_dim": config.decoder_ff,
        "num_queries": config.queries,
        "position_embedding_type": config.positions,
        "activation_function": THEIR_ACTS[config.activation],
        "dropout": config.dropout,
        "attention_dropout": config.attn_dropout,
        "activation_dropout": config.ff_dropout,
        "auxiliary_loss": config.renormed,
        "class_cost": _number(config.match_class),
        "bbox_cost": _number(config.match_box),
        "giou_cost": _number(config.match_giou),
        "bbox_loss_coefficient": _number(config.box_weight),
        "giou_loss_coefficient": _number(config.giou_weight),
        "eos_coefficient": config.nothing_weight,
    }
    return made | their_labels(config)


def _number(x: float) -> float:
    """Whole where it is: transformers takes no 5.0 for a 5."""
    return int(x) if x == int(x) else x


def _their_backbone(config: DetrConfig) -> dict[str, Any]:
    if config.layout == "timm":
        known = dict(widths=config.widths, depths=config.depths, bottleneck=config.bottleneck)
        plain = DetrConfig(labels=("",))
        names = [
            n
            for n, v in TIMM.items()
            if known.items() <= {f: getattr(replace(plain, **v), f) for f in known}.items()
        ]
        if not names:
            raise ConfigError(f"timm has no ResNet of {known}", fix='layout = "resnet"')
        return {"use_timm_backbone": True, "backbone": names[0], "dilation": False}
    if config.stem != "7x7":
        raise ConfigError("a published ResNet begins with 7x7", fix='stem = "7x7"')
    return {
        "use_timm_backbone": False,
        "backbone_config": {
            "model_type": "resnet",
            "num_channels": config.channels,
            "embedding_size": config.d_stem,
            "hidden_sizes": list(config.widths),
            "depths": list(config.depths),
            "layer_type": "bottleneck" if config.bottleneck else "basic",
            "hidden_act": THEIR_ACTS[config.backbone_activation],
            "downsample_in_first_stage": config.halve_first,
            "downsample_in_bottleneck": config.halve_early,
            "out_features": [f"stage{config.out}" if config.out else "stem"],
        },
    }


# ---- their tensors

LAYER = {
    "self_attn.{q_proj,k_proj,v_proj,out_proj}.{p}": "attn.{q,k,v,o}.{p}",
    "self_attn_layer_norm.{p}": "attn_norm.{p}",
    "{fc1,fc2}.{p}": "ff.{up,down}.{p}",
    "final_layer_norm.{p}": "ff_norm.{p}",
}
CROSS = {
    "encoder_attn.{q_proj,k_proj,v_proj,out_proj}.{p}": "cross.{q,k,v,o}.{p}",
    "encoder_attn_layer_norm.{p}": "cross_norm.{p}",
}
BODY = "model.backbone.conv_encoder.model."
OLD = {  # names of modules, where a net is asked for its tensors; its files have kept the first ones
    "attn.o_proj.weight": "attn.out_proj.weight",
    "attn.o_proj.bias": "attn.out_proj.bias",
    **{f"mlp.{fc}.{p}": f"{fc}.{p}" for fc in ("fc1", "fc2") for p in ("weight", "bias")},
}


def table(config: DetrConfig) -> Table:
    names = TIMM_NAMES if config.layout == "timm" else NAMES
    rows: dict[str, str | Op] = {
        **{BODY + theirs: "backbone." + ours for theirs, ours in names.items()},
        "model.input_projection.{p}": "project.{p}",
        "model.query_position_embeddings.weight": "queries.weight",
        **{
            f"model.encoder.layers.{{i}}.{a}": f"encoder.blocks.{{i}}.{b}" for a, b in LAYER.items()
        },
        **{
            f"model.decoder.layers.{{i}}.{a}": f"decoder.blocks.{{i}}.{b}"
            for a, b in (LAYER | CROSS).items()
        },
        "model.decoder.layernorm.{p}": "decoder.norm.{p}",
    }
    if config.positions == "learned":
        rows["model.position_embedding.{row,column}_embeddings.weight"] = (
            "place.{row,column}.weight"
        )
    skip = {BODY + name: why for name, why in UNREAD.items()}
    if config.head == "boxes":
        rows["class_labels_classifier.{p}"] = "head.classes.{p}"
        rows["bbox_predictor.layers.{i}.{p}"] = "head.boxes.{i}.{p}"
    else:
        left = "a head that this architecture leaves out"
        skip |= {"class_labels_classifier.*": left, "bbox_predictor.*": left}
    moved = {"model.backbone.model." + name: BODY + name for name in names}
    return Table(rows, skip=skip, old=OLD | moved)


def _timm_names() -> dict[str, str]:
    """timm counts stages and convolutions from 1."""
    made = {"conv1.weight": "stem.conv.weight", "bn1.{p}": "stem.norm.{p}"}
    for s in range(4):
        theirs, ours = f"layer{s + 1}.{{b}}.", f"stages.{s}.{{b}}."
        for n in range(3):
            made[f"{theirs}conv{n + 1}.weight"] = f"{ours}convs.{n}.conv.weight"
            made[f"{theirs}bn{n + 1}.{{p}}"] = f"{ours}convs.{n}.norm.{{p}}"
        made[f"{theirs}downsample.0.weight"] = f"{ours}short.conv.weight"
        made[f"{theirs}downsample.1.{{p}}"] = f"{ours}short.norm.{{p}}"
    return made


TIMM_NAMES = _timm_names()
