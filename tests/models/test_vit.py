"""ViT and DeiT against transformers; tolerances: parity.py."""

import json
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import parity
import pytest
import torch
import transformers as theirs
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torch.testing import assert_close

from qkv.errors import ConfigError, DataError, WeightsError
from qkv.learn.terms import term_loss, terms_of
from qkv.look.record import record
from qkv.models import FAMILIES, build, configure, describe, hf, vit
from qkv.models.interface import set_state, state_of
from qkv.parts.patches import PatchConfig, Patches, cut
from qkv.shapes import Batch

CONFIGS: dict[str, type] = {"ViT": theirs.ViTConfig, "DeiT": theirs.DeiTConfig}
HEADS = {
    "none": "Model",
    "classes": "ForImageClassification",
    "distilled": "ForImageClassificationWithTeacher",
}
THREE = {0: "shirt", 1: "shoe", 2: "bag"}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vit": ("ViT", "classes", {}),
    "vit-none": ("ViT", "none", {}),
    "deit": ("DeiT", "classes", {}),
    "deit-none": ("DeiT", "none", {}),
    "deit-teacher": ("DeiT", "distilled", {}),
    "vit-grey": ("ViT", "classes", {"num_channels": 1}),
    "vit-leftovers": ("ViT", "classes", {"image_size": 15}),
    "vit-wide": ("ViT", "classes", {"image_size": [12, 20]}),
    "vit-flat-patches": ("ViT", "none", {"image_size": [12, 20], "patch_size": [6, 4]}),
    "deit-wide": ("DeiT", "distilled", {"image_size": [8, 12], "patch_size": [4, 2]}),
    "vit-no-bias": ("ViT", "classes", {"qkv_bias": False}),
    "vit-odd-heads": ("ViT", "classes", {"hidden_size": 15, "num_attention_heads": 3}),
    "vit-head-dim": ("ViT", "classes", {"head_dim": 5}),
    "vit-pooler": ("ViT", "none", {"pooler_output_size": 7, "pooler_act": "relu"}),
    "vit-gelu-tanh": ("ViT", "classes", {"hidden_act": "gelu_new", "layer_norm_eps": 1e-5}),
    "vit-one-patch": ("ViT", "classes", {"image_size": 4}),
    "vit-value": ("ViT", "classes", {"id2label": {0: "stars"}}),
    "vit-values": ("ViT", "classes", {"problem_type": "regression"}),
    "vit-many": ("ViT", "classes", {"problem_type": "multi_label_classification"}),
}
SMALL = dict(
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=20,
    image_size=16,
    patch_size=4,
    id2label=THREE,
)


SOFTMAX = F.softmax


@pytest.fixture(autouse=True)
def exact():
    """The reference's softmax in the type of its input, not in float32."""
    with patch.object(F, "softmax", lambda x, dim, dtype=None: SOFTMAX(x, dim=dim)):
        yield


def made(name: str, dtype: torch.dtype = torch.float64) -> Any:
    line, head, more = CASES[name]
    config = CONFIGS[line](**{**SMALL, **more})
    return parity.reference(
        getattr(theirs, line + HEADS[head]), config, seed=len(name), dtype=dtype
    )


@pytest.fixture(scope="module", params=CASES)
def case(request):
    model = made(request.param)
    return model, *parity.converted(model)


def batch_for(config: Any, B: int = 3, size: tuple[int, int] | None = None) -> Batch:
    """Random pictures, of the configured size unless told, with a label of the configured kind."""
    g = torch.Generator().manual_seed(3)
    h, w = size or build(config).image_size
    n = max(1, len(config.labels))
    label = {
        "one": torch.randint(n, (B,), generator=g),
        "many": torch.randint(2, (B, n), generator=g),
        "value": torch.randn(B, n, generator=g, dtype=torch.float64),
    }[config.problem]
    nothing = torch.zeros(B, 0)
    pixels = torch.randn(B, config.channels, h, w, generator=g, dtype=torch.float64)
    return Batch(nothing.long(), nothing.bool(), label=label, pixels=pixels)


def test_states_maps_and_logits_are_the_references(case):
    model, _, config, net = case
    b = batch_for(config)
    with record(net) as maps, torch.no_grad():
        memory = net.encode(b)
        out = model(b.pixels, output_attentions=True, output_hidden_states=True)
    assert len(maps) == len(out.attentions) == 2
    for ours, want in zip(maps.values(), out.attentions, strict=True):
        assert_close(ours, want, atol=1e-10, rtol=0)
    if config.head == "none":
        assert_close(memory.states, out.last_hidden_state, atol=1e-10, rtol=0)
        assert_close(memory.summary, out.pooler_output, atol=1e-10, rtol=0)
    else:
        assert_close(net.logits(b), out.logits, atol=1e-10, rtol=0)
    x = net.embed(b.pixels)
    assert_close(x, out.hidden_states[0], atol=1e-10, rtol=0)
    hooked: list[torch.Tensor] = []
    handles = [
        m.register_forward_hook(lambda _, __, y: hooked.append(y[0])) for m in net.encoder.each
    ]
    net.encode(b)
    for handle in handles:
        handle.remove()
    for ours, want in zip(hooked, out.hidden_states[1:], strict=True):
        assert_close(ours, want, atol=1e-10, rtol=0)


@pytest.mark.parametrize("size", [(16, 16), (24, 24), (8, 8), (16, 28), (13, 37), (32, 8)])
@pytest.mark.parametrize("name", ["vit", "vit-none", "deit", "deit-teacher"])
def test_pictures_of_other_sizes(name, size):
    """Interpolated positions; leftovers of a patch are not read."""
    model = made(name)
    _, config, net = parity.converted(model)
    b = batch_for(config, size=size)
    with torch.no_grad():
        want = model(b.pixels, interpolate_pos_encoding=True)
    if config.head == "none":
        assert_close(net.encode(b).states, want.last_hidden_state, atol=1e-10, rtol=0)
    else:
        assert_close(net.logits(b), want.logits, atol=1e-10, rtol=0)


def our_loss(net: Any, b: Batch) -> torch.Tensor:
    terms = terms_of(net.loss_inputs(b))
    sums = [term_loss(t) for t in terms]
    return sum(s.smoothed / s.tokens for s in sums)  # type: ignore[return-value]


def test_loss_and_gradients_are_the_references(case):
    model, module, config, net = case
    if config.head == "none":
        with pytest.raises(ConfigError, match="nothing to learn from"):
            net.loss_inputs(batch_for(config))
        return
    b = batch_for(config)
    model.zero_grad(), net.zero_grad()
    if config.head == "distilled":  # the reference has no loss of two heads: each learns the label
        out = model(b.pixels)
        want = F.cross_entropy(out.cls_logits, b.label)
        want = want + F.cross_entropy(out.distillation_logits, b.label)
    else:
        label = b.label.double() if config.problem == "many" else b.label
        want = model(b.pixels, labels=label).loss
    loss = our_loss(net, b)
    assert_close(loss, want, atol=1e-10, rtol=0)
    want.backward(), loss.backward()
    check_gradients(net, module, config, model)


def in_file(model: Any, config: Any) -> dict[str, str]:
    """{name in memory of the reference: name in files}."""
    table = vit.table(config)
    bare = config.head == "none"
    names = {n: table.modern(f"{config.layout}." + n if bare else n) for n in model.state_dict()}
    return {n: f.removeprefix(f"{config.layout}.") if bare else f for n, f in names.items()}


def check_gradients(net: Any, module: Any, config: Any, model: Any) -> None:
    grads = {n: p.grad for n, p in net.named_parameters()}
    made = hf.theirs(module, config, grads)
    names, params = in_file(model, config), dict(model.named_parameters())
    assert {names[n] for n in params} == made.keys()
    for name, p in params.items():
        scale = max(float(p.grad.abs().max()), 1e-3)
        assert_close(made[names[name]], p.grad, atol=1e-9 * scale, rtol=0)


def test_gradients_through_interpolated_positions():
    model = made("vit")
    module, config, net = parity.converted(model)
    b = batch_for(config, size=(12, 20))
    model(b.pixels, labels=b.label, interpolate_pos_encoding=True).loss.backward()
    our_loss(net, b).backward()
    check_gradients(net, module, config, model)


def test_float32_is_near(case):
    model, module, config, net = case
    b = batch_for(config)
    x = b.pixels.float()
    ours, other = build(config).eval(), type(model)(model.config).eval()
    set_state(ours, {n: t.float() for n, t in state_of(net).items()})
    other.load_state_dict({n: t.float() for n, t in model.state_dict().items()})
    with torch.no_grad():
        a = ours.encode(replace(b, pixels=x)).states if config.head == "none" else None
        a = ours.logits(replace(b, pixels=x)) if a is None else a
        out = other(x)
    want = out.last_hidden_state if config.head == "none" else out.logits
    assert float((a - want).abs().max()) < 1e-5 * max(1.0, float(want.abs().max()))


# ---- files


def test_a_saved_checkpoint_loads_and_is_saved_with_the_same_bytes(case, tmp_path):
    model, module, config, net = case
    model.save_pretrained(tmp_path)
    given = load_file(tmp_path / "model.safetensors")
    values = json.loads((tmp_path / "config.json").read_text())
    again = hf.fitted(module, hf.configured(module, values), given)
    assert again == config
    other = build(config).double()
    set_state(other, hf.ours(module, config, given))
    back = hf.theirs(module, config, state_of(other))
    assert back.keys() == given.keys()
    assert all(torch.equal(back[n], given[n]) for n in given)
    assert all(torch.equal(t, state_of(net)[n]) for n, t in state_of(other).items())
    assert hf.fitted(module, hf.configured(module, module.to_hf(config)), back) == config


def test_the_reference_loads_what_we_write(case, tmp_path):
    model, module, config, net = case
    save_file(
        hf.theirs(module, config, state_of(net)), tmp_path / "model.safetensors", {"format": "pt"}
    )
    (tmp_path / "config.json").write_text(json.dumps(module.to_hf(config)))
    loaded, info = type(model).from_pretrained(
        tmp_path, output_loading_info=True, dtype=torch.float64
    )
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    b = batch_for(config)
    with torch.no_grad():
        got, want = loaded.eval()(b.pixels), model(b.pixels)
    name = "last_hidden_state" if config.head == "none" else "logits"
    # the loaded one uses a fused kernel
    assert_close(getattr(got, name), getattr(want, name), atol=1e-10, rtol=0)
    if config.labels:
        assert loaded.config.id2label == dict(enumerate(config.labels))


def test_a_bare_model_may_lack_its_pooler_and_heads_are_left_out():
    model = made("vit-none")
    module, config, _ = parity.converted(model)
    without = {n: t for n, t in model.state_dict().items() if not n.startswith("pooler")}
    found = hf.fitted(module, hf.configured(module, parity.values(model)), without)
    assert found.pooled is False and build(found).pooler is None
    whole = made("vit")
    values = parity.values(whole) | {"architectures": ["ViTModel"]}
    bare = hf.fitted(module, hf.configured(module, values), whole.state_dict())
    extra = {"vit.embeddings.mask_token": torch.zeros(1, 1, 12)}
    net = build(bare).double()
    set_state(net, hf.ours(module, bare, whole.state_dict() | extra))
    x = batch_for(config)
    with torch.no_grad():
        assert_close(
            net.encode(x).states, whole.vit(x.pixels).last_hidden_state, atol=1e-10, rtol=0
        )


def values(**more: Any) -> dict[str, Any]:
    base = theirs.ViTConfig(**SMALL).to_dict() | {"architectures": ["ViTForImageClassification"]}
    return base | more


def test_absent_keys_mean_the_references_defaults():
    for name, line in (("vit", "ViT"), ("deit", "DeiT")):
        config = hf.configured(vit, {"model_type": name, "architectures": [line + "Model"]})
        want = CONFIGS[line]().to_dict()
        ours = vit.to_hf(config)
        shared = ours.keys() & want.keys() - {"architectures"}
        assert len(shared) >= 14
        assert {k: ours[k] for k in shared} == {k: want[k] for k in shared}


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"layer_scale": 1e-5}, ConfigError, "layer_scale"),
        ({"hidden_act": "laplace"}, ConfigError, "laplace"),
        ({"pooler_act": "laplace"}, ConfigError, "laplace"),
        ({"architectures": ["ViTForMaskedImageModeling"]}, WeightsError, "paints hidden patches"),
        ({"architectures": ["ViTMAEModel"]}, WeightsError, "ViTMAEModel"),
        ({"image_size": "224"}, ConfigError, "image_size"),
        ({"image_size": [1, 2, 3]}, ConfigError, "image_size"),
        ({"patch_size": 20}, ConfigError, "smaller than patch_size"),
        ({"patch_size": 0}, ConfigError, "patch_size"),
        ({"num_attention_heads": 5}, ConfigError, "5 heads"),
        ({"qkv_bias": "yes"}, ConfigError, "qkv_bias"),
        ({"num_channels": 0}, ConfigError, "channels 0"),
        ({"hidden_dropout_prob": 1.0}, ConfigError, "dropout"),
        ({"pooler_output_size": "big"}, ConfigError, "pooler_output_size"),
        ({"problem_type": "ranking"}, ConfigError, "ranking"),
        ({"id2label": {}}, ConfigError, "0 labels"),
    ],
)
def test_what_is_not_computed_is_named(more, error, said):
    with pytest.raises(error, match=said):
        hf.configured(vit, values(**more))


def test_a_distilled_head_needs_the_second_token():
    with pytest.raises(ConfigError, match="no head 'distilled'"):
        configure({"family": "vit", "head": "distilled", "labels": ["a"]})
    with pytest.raises(ConfigError, match="pool = 'mean'"):
        configure({"family": "vit", "layout": "deit", "pool": "mean", "labels": ["a"]})


def test_a_name_in_two_spellings_is_refused():
    model = made("vit")
    module, config, _ = parity.converted(model)
    twice = dict(model.state_dict())
    twice["vit.encoder.layer.0.intermediate.dense.weight"] = torch.zeros(20, 12)
    with pytest.raises(WeightsError, match="there twice"):
        hf.ours(module, config, twice)


# ---- ours


@pytest.mark.parametrize("size", vit.SIZES)
def test_sizes_build_and_describe(size):
    config = configure({"family": "vit", "size": size, "labels": ["a", "b"]})
    assert configure(describe(config)) == config
    with torch.device("meta"):
        n = sum(p.numel() for p in build(config).parameters())
    most = {"tiny": 0.02, "mini": 0.22, "cifar": 6.4, "deit-ti": 5.8, "deit-s": 22, "deit-b": 87}
    most |= {"b16": 87, "b32": 89, "l16": 304, "h14": 632}  # millions; the papers' numbers
    assert 0.9 * most[size] < n / 1e6 < most[size]


def test_a_patchs_product_is_a_convolution():
    """The fast path against its definition: sums of 48 products in another order."""
    torch.manual_seed(0)
    patches = Patches(PatchConfig(d_model=8, image_size=(14, 13), patch_size=(3, 4), firsts=0))
    x = torch.randn(2, 3, 14, 13)
    want = patches.patch(x).flatten(2).transpose(1, 2) + patches.places.position
    assert_close(patches(x), want, atol=1e-5, rtol=0)
    assert cut(x, (3, 4)).shape == (2, 4 * 3, 3 * 3 * 4)


def tiny(**more: Any) -> Any:
    torch.manual_seed(0)
    return build(configure({"family": "vit", "size": "tiny", "labels": ["a", "b", "c"], **more}))


def test_mean_pooling_is_the_mean_of_the_patches():
    net = tiny().eval()
    b = Batch(torch.zeros(2, 0).long(), torch.zeros(2, 0).bool(), pixels=torch.randn(2, 1, 28, 28))
    memory = net.encode(b)
    assert memory.states.shape == (2, 16, 32) and net.grid(28, 28) == (4, 4) and net.firsts == 0
    assert_close(memory.summary, memory.states.mean(1))
    assert net.logits(b).shape == (2, 3)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (None, "picture"),
        (torch.randn(2, 3, 28, 28), "reads \\(pictures, 1"),
        (torch.randn(1, 28, 28), "pixels are"),
        (torch.randn(2, 1, 6, 28), "6 x 28 pixels"),
        (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), "uint8"),
    ],
)
def test_batches_that_are_no_pictures_are_named(pixels, said):
    nothing = torch.zeros(2, 0)
    with pytest.raises(DataError, match=said):
        tiny().logits(Batch(nothing.long(), nothing.bool(), pixels=pixels))


def test_a_net_without_a_head_says_so():
    nothing = torch.zeros(1, 0)
    with pytest.raises(ConfigError, match="no labels of pictures"):
        tiny(head="none").logits(
            Batch(nothing.long(), nothing.bool(), pixels=torch.zeros(1, 1, 28, 28))
        )


def test_one_family_reads_both_lines():
    assert {FAMILIES["vit"]} == {m for m in FAMILIES.values() if "deit" in getattr(m, "HF", ())}
