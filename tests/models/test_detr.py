"""DETR against transformers' own, with its ResNet backbone (no timm): the same numbers on padded pictures of several sizes.

Tolerances: as in parity.py; boxes and losses 1e-10 in float64."""

from dataclasses import replace
from functools import partial

import parity
import pytest
import torch
from torch.testing import assert_close
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    DetrForSegmentation,
    DetrModel,
    ResNetConfig,
)

import qkv
from qkv.errors import QkvError
from qkv.learn.boxes import cardinality, detection_terms
from qkv.learn.terms import Totals, term_loss
from qkv.look.record import record
from qkv.models import FAMILIES, build, hf
from qkv.models.detector import sines
from qkv.models.detr import table, to_hf
from qkv.models.interface import state_of
from qkv.shapes import Batch

BACKBONE = dict(
    embedding_size=6,
    hidden_sizes=[8, 12],
    depths=[1, 2],
    layer_type="basic",
    out_features=["stage2"],
)
TINY = dict(
    d_model=16,
    encoder_layers=2,
    decoder_layers=3,
    encoder_attention_heads=4,
    decoder_attention_heads=2,
    encoder_ffn_dim=24,
    decoder_ffn_dim=20,
    num_queries=5,
    num_labels=3,
)
CASES = {
    "plain": {},
    "bottleneck": {
        "backbone": dict(layer_type="bottleneck", downsample_in_bottleneck=True, hidden_act="gelu")
    },
    "first": {"backbone": dict(downsample_in_first_stage=True, out_features=["stage1", "stage2"])},
    "fine": {"backbone": dict(out_features=["stem", "stage1"]), "dilation": True},
    "learned": {"position_embedding_type": "learned", "activation_function": "gelu"},
    "auxiliary": {"auxiliary_loss": True, "class_cost": 2, "bbox_cost": 3, "giou_cost": 1},
    "weights": {"bbox_loss_coefficient": 2, "giou_loss_coefficient": 3, "eos_coefficient": 0.3},
}


def their_config(case: str) -> DetrConfig:
    values = dict(CASES[case])
    backbone = ResNetConfig(**BACKBONE | values.pop("backbone", {}))
    return DetrConfig(use_timm_backbone=False, backbone_config=backbone, **TINY | values)


@torch.no_grad()
def random_statistics(model: torch.nn.Module) -> None:
    """Frozen norms that change something: means, variances and factors other than 0 and 1; queries that differ."""
    g = torch.Generator().manual_seed(3)
    for name, b in model.named_buffers():
        if "normalization" in name:
            b.copy_(torch.rand(b.shape, generator=g, dtype=torch.float64).to(b.dtype) + 0.5)
    for name, p in model.named_parameters():
        if "query" in name or "classifier" in name:
            p.mul_(20)


def their_model(case: str, cls=DetrForObjectDetection, dtype=torch.float64):
    model = parity.reference(cls, their_config(case), dtype=dtype)
    random_statistics(model)
    return model


def pictures(sizes: list[tuple[int, int]], dtype=torch.float64) -> Batch:
    """Pictures in the upper left of a batch, zeros around them."""
    g = torch.Generator().manual_seed(5)
    H, W = max(h for h, _ in sizes), max(w for _, w in sizes)
    keep = torch.zeros(len(sizes), H, W, dtype=torch.bool)
    for row, (h, w) in zip(keep, sizes, strict=True):
        row[:h, :w] = True
    pixels = torch.randn(len(sizes), 3, H, W, generator=g, dtype=torch.float64).to(dtype)
    pixels = pixels * keep[:, None]
    B = len(sizes)
    none = torch.zeros(B, 0, dtype=torch.long)
    return Batch(none, none.bool(), pixels=pixels, pixel_keep=keep)


def truth(batch: Batch, counts: list[int]) -> Batch:
    g = torch.Generator().manual_seed(6)
    M = max(counts)
    boxes = torch.rand(len(counts), M, 4, generator=g, dtype=torch.float64) * 0.4 + 0.1
    label = torch.randint(3, (len(counts), M), generator=g)
    for row, n in enumerate(counts):
        label[row, n:], boxes[row, n:] = -1, 0.0
    return replace(batch, boxes=boxes.to(batch.pixels.dtype), label=label)


def their_labels(batch: Batch) -> list[dict]:
    rows = zip(batch.label, batch.boxes, strict=True)
    return [{"class_labels": c[c >= 0], "boxes": b[c >= 0]} for c, b in rows]


SIZES = [[(33, 47), (64, 40), (17, 64)], [(64, 64)], [(31, 5), (9, 50)], [(1, 1)]]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@torch.no_grad()
def test_states_maps_logits_and_boxes(case, sizes):
    model = their_model(case)
    _, _, net = parity.converted(model)
    batch = pictures(sizes)
    want = model(
        batch.pixels,
        pixel_mask=batch.pixel_keep.long(),
        output_attentions=True,
        output_hidden_states=True,
    )
    with record(net) as maps:
        cells = net.cells(batch)
        made = net.layers(cells)
        logits, boxes = net.headed()(made[-1])
    assert_close(
        cells.states[cells.keep], want.encoder_last_hidden_state[cells.keep], atol=1e-10, rtol=0
    )
    assert_close(made[-1], want.last_hidden_state, atol=1e-10, rtol=0)
    assert_close(logits, want.logits, atol=1e-10, rtol=0)
    assert_close(boxes, want.pred_boxes, atol=1e-10, rtol=0)
    for i, m in enumerate(want.encoder_attentions):
        ours = maps[f"encoder.blocks.{i}.attn"]
        real = cells.keep[:, None, :, None].expand_as(m)
        assert_close(ours[real], m[real], atol=1e-10, rtol=0)
    for i, (own, cross) in enumerate(
        zip(want.decoder_attentions, want.cross_attentions, strict=True)
    ):
        assert_close(maps[f"decoder.blocks.{i}.attn"], own, atol=1e-10, rtol=0)
        assert_close(maps[f"decoder.blocks.{i}.cross"], cross, atol=1e-10, rtol=0)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("counts", [[2, 0, 4], [7, 1, 3]], ids=str)
def test_losses_and_gradients(case, counts, monkeypatch):
    """Also with a picture without boxes, and with one of more boxes than there are queries."""
    model = their_model(case)
    module, config, net = parity.converted(model)
    for p in model.parameters():
        p.requires_grad_(True)
    for p in net.parameters():
        p.requires_grad_(True)
    batch = truth(pictures(SIZES[0]), counts)
    monkeypatch.setattr(
        torch, "ones", partial(torch.ones, dtype=torch.float64)
    )  # their class weights
    want = model(batch.pixels, pixel_mask=batch.pixel_keep.long(), labels=their_labels(batch))
    monkeypatch.undo()
    terms = detection_terms(net.loss_inputs(batch))
    got = {t.name: term_loss(t).nll / Totals([batch]).of(t, 0) for t in terms}
    names = {"class": "loss_ce", "box": "loss_bbox", "giou": "loss_giou"}
    scale = {"class": 1.0, "box": config.box_weight, "giou": config.giou_weight}
    for name, value in got.items():
        kind, _, layer = name.partition("/")
        theirs = want.loss_dict[names[kind] + (f"_{layer}" if layer else "")]
        assert_close(value, theirs * scale[kind], atol=1e-10, rtol=0)
    assert len(got) == 3 * (config.decoder_layers if config.renormed else 1)
    loss = sum(t.total / Totals([batch]).of(t, 0) for t in terms)
    assert_close(loss, want.loss, atol=1e-10, rtol=0)
    wrong = cardinality(net.logits(batch), batch.label).double().mean()
    assert float(wrong) == pytest.approx(float(want.loss_dict["cardinality_error"]))
    want.loss.backward()
    loss.backward()
    parity.check_gradients(net, module, config, model)


def test_the_published_backbone_stands_still():
    """QUIRK: transformers trains no parameter of this backbone, and so does what is loaded from there."""
    model = DetrForObjectDetection(their_config("plain"))
    _, config, net = parity.converted(model.double())
    assert config.trained == "none" and config.frozen
    assert not any(p.requires_grad for n, p in model.named_parameters() if "backbone" in n)
    assert not any(p.requires_grad for p in net.backbone.parameters())
    free = build(replace(config, trained="all", frozen=False))
    assert all(p.requires_grad for p in free.parameters())
    upper = build(replace(config, trained="upper"))
    assert not any(p.requires_grad for p in upper.backbone.stages[0].parameters())
    assert all(p.requires_grad for p in upper.backbone.stages[1].parameters())


@torch.no_grad()
def test_float32():
    model = their_model("plain", dtype=torch.float32)
    _, _, net = parity.converted(model)
    batch = pictures(SIZES[0], torch.float32)
    want = model(batch.pixels, pixel_mask=batch.pixel_keep.long())
    logits, boxes = net.found(batch)
    assert_close(logits, want.logits, atol=1e-5 * float(want.logits.abs().max()), rtol=0)
    assert_close(boxes, want.pred_boxes, atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_load_and_save_keep_every_byte(case, tmp_path):
    model = their_model(case, dtype=torch.float32)
    model.save_pretrained(tmp_path / "theirs")
    loaded = qkv.load(tmp_path / "theirs")
    loaded.save(tmp_path / "ours")
    name = "model.safetensors"
    from safetensors.torch import load_file

    theirs, ours = (load_file(tmp_path / side / name) for side in ("theirs", "ours"))
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[n], ours[n]) for n in theirs)
    again, info = DetrForObjectDetection.from_pretrained(
        tmp_path / "ours", output_loading_info=True, attn_implementation="eager"
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    batch = pictures(SIZES[0], torch.float32)
    with torch.no_grad():
        want = model(batch.pixels, pixel_mask=batch.pixel_keep.long()).logits
        got = again.eval()(batch.pixels, pixel_mask=batch.pixel_keep.long()).logits
    assert torch.equal(got, want)


@torch.no_grad()
def test_a_bare_model(tmp_path):
    model = parity.reference(DetrModel, their_config("plain"))
    module, config, net = parity.converted(model)
    assert config.head == "none"
    batch = pictures(SIZES[0])
    want = model(batch.pixels, pixel_mask=batch.pixel_keep.long()).last_hidden_state
    assert_close(net.states(batch), want, atol=1e-10, rtol=0)
    with pytest.raises(QkvError, match="no head"):
        net.logits(batch)
    model.float().save_pretrained(tmp_path / "theirs")
    qkv.load(tmp_path / "theirs").save(tmp_path / "ours")
    _, info = DetrModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


def test_masks_are_refused():
    model = DetrForSegmentation(
        DetrConfig(
            use_timm_backbone=False,
            backbone_config=ResNetConfig(
                **BACKBONE
                | dict(
                    hidden_sizes=[8, 8, 8, 8],
                    depths=[1, 1, 1, 1],
                    out_features=["stage1", "stage2", "stage3", "stage4"],
                )
            ),
            **TINY | dict(d_model=32, encoder_attention_heads=8),
        )
    )
    with pytest.raises(QkvError, match="masks"):
        hf.configured(FAMILIES["detr"], parity.values(model))


# -- configurations -----------------------------------------------------------------------------------------


def configured(**values):
    given = {"model_type": "detr", "architectures": ["DetrForObjectDetection"], **values}
    return hf.configured(FAMILIES["detr"], given)


@pytest.mark.parametrize("timm", [False, True])
def test_absent_keys_mean_the_reference_s_defaults(timm):
    ours = to_hf(configured(use_timm_backbone=timm, num_labels=91))
    theirs = DetrConfig(use_timm_backbone=False).to_dict()
    backbone = ours.pop("backbone_config", {})
    same = ours.keys() & theirs.keys() - {"architectures", "id2label", "label2id"}
    same -= {"use_timm_backbone", "dilation", "backbone"}
    assert len(same) > 20 and all(ours[k] == theirs[k] for k in same)
    want = theirs["backbone_config"]
    assert all(want[k] == v for k, v in backbone.items() if k in want)
    assert len(ours["id2label"]) == 91


def test_settings_come_back():
    for case in CASES:
        config = configured(
            **{k: v for k, v in their_config(case).to_dict().items() if k != "architectures"}
        )
        again = configured(**{k: v for k, v in to_hf(config).items() if k != "architectures"})
        assert again == config


@pytest.mark.parametrize(
    "values, said",
    [
        ({"num_feature_levels": 4}, "num_feature_levels"),
        ({"use_timm_backbone": True, "backbone": "mobilenetv3_small_100"}, "backbone"),
        ({"use_timm_backbone": True, "dilation": True}, "dilation"),
        ({"backbone_config": {"model_type": "swin"}}, "model_type"),
        ({"backbone_config": {"model_type": "resnet", "groups": 2}}, "groups"),
        ({"backbone_config": {"model_type": "resnet", "out_features": ["stage9"]}}, "stage9"),
        ({"backbone_config": "resnet"}, "backbone_config"),
        ({"position_embedding_type": "rotary"}, "rotary"),
        ({"activation_function": "laplace"}, "laplace"),
        ({"encoder_layers": 2, "num_hidden_layers": 3}, "num_hidden_layers"),
        ({"d_model": 30, "encoder_attention_heads": 5, "decoder_attention_heads": 5}, "30"),
        ({"class_cost": 0, "bbox_cost": 0, "giou_cost": 0}, "all 0"),
        ({"num_queries": 0}, "queries"),
        ({"surprise": 1}, "surprise"),
    ],
    ids=str,
)
def test_what_is_not_computed_is_refused_by_name(values, said):
    with pytest.raises(QkvError, match=said):
        configured(**{"use_timm_backbone": False, **values})


@pytest.mark.parametrize("kwargs", [{}, {"in_chans": 1, "out_indices": [1, 2, 3, 4]}], ids=str)
def test_pictures_of_timm_s_backbones_have_the_channels_named(kwargs):
    config = configured(use_timm_backbone=True, num_channels=1, backbone_kwargs=kwargs)
    assert config.channels == 1
    assert configured(**{k: v for k, v in to_hf(config).items() if k != "architectures"}) == config
    with pytest.raises(QkvError, match="backbone_kwargs"):
        configured(use_timm_backbone=True, backbone_kwargs={"in_chans": 1, "out_indices": [4]})


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_files_with_timm_s_names(name):
    """Theirs are the same tensors as those of the other backbone, counted from 1."""
    small = dict(d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2)
    small |= dict(decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8, num_queries=3)
    config = configured(use_timm_backbone=True, backbone=name, num_labels=2, **small)
    assert config.layout == "timm" and config.trained == "upper"
    assert configured(**{k: v for k, v in to_hf(config).items() if k != "architectures"}) == config
    with torch.device("meta"):
        held = state_of(build(config))
    names = table(config).backward(held)
    body = "model.backbone.conv_encoder.model."
    last = 2 if name == "resnet18" else 3
    assert (
        names[f"{body}layer3.1.conv{last}.weight"].shape
        == held[f"backbone.stages.2.1.convs.{last - 1}.conv.weight"].shape
    )
    assert {
        f"{body}conv1.weight",
        f"{body}bn1.running_var",
        f"{body}layer2.0.downsample.1.bias",
    } <= set(names)
    assert not any("stages" in n for n in names)
    modern = {n.replace("conv_encoder.", ""): t for n, t in names.items()}  # as modules name them
    for given in (
        names,
        modern,
        {**names, f"{body}bn1.num_batches_tracked": torch.zeros((), device="meta")},
    ):
        assert hf.ours(FAMILIES["detr"], config, given).keys() == held.keys()


def test_too_many_cells_for_learned_positions():
    _, _, net = parity.converted(their_model("learned"))
    with pytest.raises(QkvError, match="51"):
        net.states(pictures([(8, 8 * 51)]))


def test_a_padding_of_any_content_changes_no_real_cell_s_position():
    """The real cells of a picture count to 2π, whatever surrounds it."""
    keep = torch.zeros(1, 6, 9, dtype=torch.bool)
    keep[0, :4, :5] = True
    wide = sines(keep, 8, torch.float64).view(6, 9, 8)[:4, :5]
    alone = sines(torch.ones(1, 4, 5, dtype=torch.bool), 8, torch.float64).view(4, 5, 8)
    assert_close(wide, alone, atol=0, rtol=0)
