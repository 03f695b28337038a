"""The encoder-decoder Transformer equals torch's own with the same weights."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from qkv.models import build, configure
from qkv.shapes import Batch, pad

C, H, F, L, V = 16, 4, 24, 2, 19


def pair(norm_first=False, activation="relu", memory=None):
    """Ours and torch's, float64, with the same random weights in every tensor."""
    torch.manual_seed(0)
    ours = build(
        configure(
            dict(
                family="transformer", d_model=C, n_heads=H, d_ff=F, encoder_layers=L, decoder_layers=L,
                vocab_size=V, norm_first=norm_first, activation=activation, dropout=0.0,
            )
        )
    )  # fmt: skip
    theirs = nn.Transformer(C, H, L, L, F, 0.0, activation, batch_first=True, norm_first=norm_first)
    if (
        not norm_first
    ):  # torch ends each stack with a norm; the paper's post-norm layers end with one already
        theirs.encoder.norm = theirs.decoder.norm = None
    ours, theirs = ours.double().eval(), theirs.double().eval()
    with torch.no_grad():
        for p in ours.parameters():
            p.copy_(torch.randn_like(p) * 0.3)
        stacks = ((ours.encoder.stack, theirs.encoder), (ours.decoder.stack, theirs.decoder))
        for mine, other in stacks:
            for block, layer in zip(mine.blocks, other.layers, strict=True):
                copy_layer(block, layer)
            if norm_first:
                copy(mine.norm, other.norm)
    return ours, theirs


def copy(source, target):
    target.weight.copy_(source.weight)
    target.bias.copy_(source.bias)


def copy_attention(source, target):
    target.in_proj_weight.copy_(torch.cat([source.q.weight, source.k.weight, source.v.weight]))
    target.in_proj_bias.copy_(torch.cat([source.q.bias, source.k.bias, source.v.bias]))
    copy(source.o, target.out_proj)


def copy_layer(block, layer):
    copy_attention(block.attn, layer.self_attn)
    copy(block.ff.up, layer.linear1)
    copy(block.ff.down, layer.linear2)
    copy(block.attn_norm, layer.norm1)
    if hasattr(block, "cross"):
        copy_attention(block.cross, layer.multihead_attn)
        copy(block.cross_norm, layer.norm2)
        copy(block.ff_norm, layer.norm3)
    else:
        copy(block.ff_norm, layer.norm2)


def batch():
    source, keep = pad([[4, 5, 6, 7, 8, 2], [9, 10, 2], [11, 2]], 0)
    target, target_keep = pad([[5, 6, 2], [7, 8, 9, 10, 2], [12, 13, 14, 2]], 0)
    return Batch(source, keep, target, target_keep)


def reference(ours, theirs, b):
    """torch's states and logits, from our embeddings and head."""
    x, y = ours.source_embed(b.source), ours.target_embed(ours.shift(b.target))
    states = theirs(
        x, y,
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(y.shape[1]).isinf(),
        src_key_padding_mask=~b.keep, memory_key_padding_mask=~b.keep, tgt_key_padding_mask=~b.target_keep,
    )  # fmt: skip
    return states @ ours.head.weight.T


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [False, True], ids=["post", "pre"])
def test_logits_equal_torchs_transformer(norm_first, activation):
    ours, theirs = pair(norm_first, activation)
    b = batch()
    got, want = ours.logits(b), reference(ours, theirs, b)
    keep = b.target_keep
    assert float(want[keep].detach().std()) > 0.1
    assert_close(got[keep], want[keep], atol=1e-12, rtol=1e-12)  # float64, two layers


def test_gradients_equal_torchs_transformer():
    (ours, theirs), b = pair(), batch()
    loss = nn.CrossEntropyLoss()
    keep = b.target_keep
    embeddings = (ours.source_embed.token.weight,)
    a = torch.autograd.grad(loss(ours.logits(b)[keep], b.target[keep]), embeddings)
    c = torch.autograd.grad(loss(reference(ours, theirs, b)[keep], b.target[keep]), embeddings)
    assert_close(a, c, atol=1e-12, rtol=1e-9)


def test_embeddings_are_scaled_and_carry_sinusoids():
    """√C · E[id] + PE, PE(pos, 2i) = sin(pos / 10000^(2i/C)), Vaswani et al. 2017, sections 3.4 and 3.5."""
    ours, _ = pair()
    ids = torch.tensor([[4, 9, 9]])
    i = torch.arange(0, C, 2, dtype=torch.float64)
    angle = torch.arange(3, dtype=torch.float64)[:, None] / 10000 ** (i / C)
    table = torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)  # sin and cos alternate
    want = C**0.5 * ours.source_embed.token.weight[ids] + table
    assert_close(ours.source_embed(ids), want, atol=1e-6, rtol=0)  # the table is stored in fp32
