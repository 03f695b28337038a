"""The heads by their equations."""

import pytest
import torch
from torch.testing import assert_close

from qkv.parts.dropout import noise
from qkv.parts.heads import Labels, Pooler, Words


def seeded(make, *args, **kwargs):
    torch.manual_seed(0)
    return make(*args, **kwargs).double()


def test_pooler_is_tanh_of_the_first_token():
    pooler, x = seeded(Pooler, 6), torch.randn(3, 5, 6, dtype=torch.float64)
    keep = torch.ones(3, 5, dtype=torch.bool)
    want = (x[:, 0] @ pooler.dense.weight.T + pooler.dense.bias).tanh()
    assert_close(pooler(x, keep), want, atol=1e-14, rtol=0)


def test_words_is_dense_act_norm_product():
    head, x = seeded(Words, 6, 11, "relu", 1e-6), torch.randn(4, 6, dtype=torch.float64)
    h = (x @ head.dense.weight.T + head.dense.bias).relu()
    h = (h - h.mean(-1, keepdim=True)) / (h.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()
    h = h * head.norm.weight + head.norm.bias
    assert_close(head.change(x), h, atol=1e-13, rtol=0)
    assert_close(head(x), h @ head.out.weight.T + head.out.bias, atol=1e-13, rtol=0)


def test_labels_with_and_without_an_inner_layer():
    x = torch.randn(4, 6, dtype=torch.float64)
    plain, deep = seeded(Labels, 6, 3), seeded(Labels, 6, 3, inner="tanh")
    assert plain.dense is None
    assert_close(plain(x), x @ plain.out.weight.T + plain.out.bias, atol=1e-14, rtol=0)
    h = (x @ deep.dense.weight.T + deep.dense.bias).tanh()
    assert_close(deep(x), h @ deep.out.weight.T + deep.out.bias, atol=1e-14, rtol=0)


@pytest.mark.parametrize("inner", [None, "relu"])
def test_dropout_of_labels_only_while_training(inner):
    head, x = seeded(Labels, 64, 3, inner=inner, dropout=0.5, first_dropout=0.5), torch.ones(8, 64)
    head, calm = head.float(), None
    calm = head.eval()(x)
    with noise(1):
        wild = head.train().change(x)
    assert_close(head.eval()(x), calm, atol=0, rtol=0)
    assert 0.3 < float((wild == 0).float().mean()) < 0.9


@pytest.mark.parametrize("rows", [1, 3, 16, 17])
def test_a_row_is_pooled_alike_in_any_company(rows):
    """Law 2: 0 differing bits; a product of fewer than 16 rows would be made by another kernel."""
    torch.manual_seed(0)
    pooler, x = Pooler(128).eval(), torch.randn(rows, 2, 128)
    keep = torch.ones(rows, 2, dtype=torch.bool)
    with torch.no_grad():
        whole = pooler(x, keep)
        for i in range(rows):
            assert torch.equal(pooler(x[i : i + 1], keep[i : i + 1])[0], whole[i])
