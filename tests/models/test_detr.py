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
