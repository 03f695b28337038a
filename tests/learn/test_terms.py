"""Terms of a loss: their definitions, their gradients, and that each is divided by its own global count (law 11)."""

import dataclasses
import math

import pytest
import torch
from learn_tiny import Memory, bits, tiny_net, trainer
from torch.nn import functional as F
from torch.testing import assert_close

from qkv.errors import InternalError
from qkv.learn.loop import tokens_of
from qkv.learn.losses import token_loss
from qkv.learn.terms import Totals, term_loss, terms_of
from qkv.models.interface import Choices, Predictions, Values, state_of
from qkv.shapes import Batch


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# -- definitions and gradients --------------------------------------------------------------------------


def test_values_are_squared_errors_and_their_gradient_is_that_of_finite_differences():
    x, y = draw(7).requires_grad_(), draw(7, seed=1)
    made = term_loss(Values(x, y), smoothing=0.3)  # smoothing concerns tokens alone
    assert_close(made.smoothed, F.mse_loss(x, y, reduction="sum"), atol=0, rtol=1e-14)
    assert torch.equal(made.nll, made.smoothed) and not made.nll.requires_grad and made.tokens == 7
    assert torch.autograd.gradcheck(lambda x: term_loss(Values(x, y)).smoothed, [x])


def test_choices_are_softmax_over_what_may_be_chosen():
    z, labels = draw(5, 6), torch.tensor([0, 1, 2, 3, 0])
    allowed = torch.arange(6) < torch.tensor([6, 5, 4, 4, 1])[:, None]
    made = term_loss(Choices(z.masked_fill(~allowed, -math.inf), labels))
    each = [z[i, allowed[i]].softmax(0)[labels[i]].log() for i in range(5)]
    assert_close(made.smoothed, -torch.stack(each).sum(), atol=0, rtol=1e-13)  # rounding of 5 sums


def test_the_gradient_of_choices_is_that_of_finite_differences_and_zero_where_forbidden():
    z, labels = draw(4, 5).requires_grad_(), torch.tensor([0, 1, 2, 0])
    forbidden = torch.arange(5) >= torch.tensor([5, 4, 3, 1])[:, None]

    def loss(z):
        return term_loss(Choices(z.masked_fill(forbidden, -math.inf), labels)).smoothed

    assert torch.autograd.gradcheck(loss, [z])
    (grad,) = torch.autograd.grad(loss(z), [z])
    assert (grad[forbidden] == 0).all() and grad.isfinite().all()


def test_half_precision_is_summed_in_float32():
    z = draw(300, 40, dtype=torch.float32).bfloat16()
    made = term_loss(Choices(z, torch.zeros(300, dtype=torch.long)))
    whole = F.cross_entropy(z.double(), torch.zeros(300, dtype=torch.long), reduction="sum")
    assert made.smoothed.dtype == torch.float32
    assert_close(made.smoothed.double(), whole, atol=0, rtol=1e-5)  # float32; bfloat16 gives 1e-2
    assert term_loss(Values(z[:, 0], z[:, 1])).smoothed.dtype == torch.float32


def test_a_span_is_two_choices_a_row_and_padding_is_never_one():
    first, last = draw(3, 4).requires_grad_(), draw(3, 4, seed=1).requires_grad_()
    keep = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    label = torch.tensor([[1, 3], [0, 1], [0, 0]])
    made = term_loss(Choices.spans(first, last, keep, label))
    assert made.tokens == 6
    hidden = [x.masked_fill(~keep, -math.inf) for x in (first, last)]
    by_hand = sum(
        F.cross_entropy(x, y, reduction="sum") for x, y in zip(hidden, label.T, strict=True)
    )
    assert_close(made.smoothed, by_hand, atol=0, rtol=1e-14)

    def loss(first, last):
        return term_loss(Choices.spans(first, last, keep, label)).smoothed

    assert torch.autograd.gradcheck(loss, [first, last])


def test_pairs_choose_their_own_partner_and_equals_are_no_negatives():
    a, b = draw(4, 3).requires_grad_(), draw(4, 3, seed=1).requires_grad_()
    c = Choices.pairs(a, b, 0.1)
    cos = F.cosine_similarity(a[:, None], b[None], dim=2)
    assert_close(c.logits, cos / 0.1, atol=1e-12, rtol=0) and c.labels.tolist() == [0, 1, 2, 3]
    same = Choices.pairs(a, b, 0.1, torch.tensor([5, 6, 5, 7])).logits
    forbidden = [tuple(i) for i in same.isinf().nonzero().tolist()]
    assert forbidden == [(0, 2), (2, 0)]

    def loss(a, b):
        return term_loss(Choices.pairs(a, b, 0.1, torch.tensor([5, 6, 5, 7]))).smoothed

    assert torch.autograd.gradcheck(loss, [a, b])


# -- counts -----------------------------------------------------------------------------------------------


def rows(n, tokens):
    """A batch of n rows with that many target tokens in all."""
    keep = torch.zeros(n, 8, dtype=torch.bool)
    keep.view(-1)[:tokens] = True
    ids = torch.ones(n, 8, dtype=torch.long)
    return Batch(ids, torch.ones_like(keep), ids, keep, label=torch.zeros(n, dtype=torch.long))


def test_a_count_that_is_not_what_per_says_is_named():
    totals = Totals([rows(3, 5), rows(2, 9)])
    word = Predictions(draw(5, 2), draw(4, 2), None, torch.zeros(5, dtype=torch.long))
    assert totals.of(word, 0) == 14
    assert totals.of(Choices(draw(3, 2), torch.zeros(3, dtype=torch.long)), 0) == 5
    assert totals.of(Choices(draw(6, 2), torch.zeros(6, dtype=torch.long)), 0) == 10
    assert Totals([rows(3, 0)]).of(dataclasses.replace(word, labels=word.labels[:0]), 0) == 1
    for wrong in (
        dataclasses.replace(word, per="row"),
        dataclasses.replace(word, labels=torch.zeros(10, dtype=torch.long)),
        Values(draw(4), draw(4)),
    ):
        with pytest.raises(InternalError, match=f"{wrong.name!r} has {wrong.labels.numel()}"):
            totals.of(wrong, 0)


def test_two_terms_need_two_names():
    a = Values(draw(2), draw(2))
    assert terms_of(a) == (a,) and len(terms_of((a, dataclasses.replace(a, name="b")))) == 2
    with pytest.raises(InternalError, match="value"):
        terms_of((a, a))


class Several(torch.nn.Module):
    """A net with a token term, a class of each row and a number of each row."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(13, 6)
        self.classes, self.value = torch.nn.Linear(6, 3), torch.nn.Linear(6, 1)

    def loss_inputs(self, batch, *, forcing=1.0, rng=None):
        x = self.table(batch.source)
        keep, mean = batch.target_keep, x.mean(1)
        return (
            Predictions(x[keep], self.table.weight, None, batch.target[keep]),
            Choices(self.classes(mean), batch.label, name="class"),
            Values(self.value(mean)[:, 0], batch.label.float()),
        )


class Rows:
    """Micro-batches of unequal counts of both kinds, and the same rows in one batch."""

    sizes = [(2, 3), (5, 1), (1, 8), (4, 20)]

    def __init__(self, whole):
        self.whole = whole

    def part(self, i):
        n, tokens = self.sizes[i % 4]
        rng = torch.Generator().manual_seed(i % 4)
        made = rows(n, tokens)
        ids = torch.randint(13, (n, 8), generator=rng)
        label = torch.randint(3, (n,), generator=rng)
        return dataclasses.replace(made, source=ids, target=(ids * 5 + 1) % 13, label=label)

    def batch(self, step):
        if not self.whole:
            return self.part(step)
        parts = [self.part(i) for i in range(4)]
        held = [[getattr(p, f.name) for p in parts] for f in dataclasses.fields(Batch)]
        return Batch(*[None if x[0] is None else torch.cat(x) for x in held])


def test_each_term_is_divided_by_its_own_count_over_all_micro_batches():
    """Four unequal micro-batches give the loss and gradient of one batch of all rows."""
    grads, losses = [], []
    for whole in (True, False):
        t = trainer(net=Several(), stream=Rows(whole), accumulate=1 if whole else 4, smoothing=0.1)
        parts: dict = {}
        losses.append([*t.gradients(1, t.micro_batches(1), parts), *parts.values()])
        assert list(parts) == ["token", "class", "value"]
        grads.append([p.grad for p in t.trained])
    assert_close(losses[0], losses[1], atol=1e-5, rtol=1e-5)  # float32, another order of sums
    assert_close(grads[0], grads[1], atol=1e-6, rtol=1e-5)
    assert_close(losses[0][1], sum(losses[0][2:]), atol=1e-6, rtol=1e-6)


def test_the_parts_of_a_loss_are_logged_where_there_are_several():
    keeper = Memory()
    t = trainer(
        keeper, net=Several(), stream=Rows(False), validate=lambda net, step: {"dev/loss": 1.0}
    )
    t.fit()
    names = {"train/nll/token", "train/nll/class", "train/nll/value"}
    by_step = [values for _, values in keeper.lines if "train/loss" in values]
    assert len(by_step) == 8 and all(names <= set(values) for values in by_step)
    for values in by_step:
        assert math.isclose(values["train/nll"], sum(values[n] for n in names), rel_tol=1e-5)
    plain = trainer()
    plain.fit()
    assert not any("train/nll/" in k for _, values in plain.keeper.lines for k in values)


def test_a_single_term_is_what_it_was_bit_for_bit():
    """One `Predictions` with accumulation: the sum over all tokens, divided where it always was."""
    t, net = trainer(accumulate=3), tiny_net()
    batches = t.micro_batches(1)
    loss, nll = t.gradients(1, batches)
    total = sum(b.target_tokens for b in batches)
    net.train()
    from qkv.parts.dropout import noise

    loss2, nll2 = torch.zeros(()), torch.zeros(())
    for i, batch in enumerate(batches):
        with noise(1, 1, i):
            made = token_loss(net.loss_inputs(batch), 0.1)
        (made.smoothed / total).backward()
        loss2, nll2 = loss2 + made.smoothed.detach() / total, nll2 + made.nll / total
    assert torch.equal(loss, loss2) and torch.equal(nll, nll2)
    assert bits({n: p.grad for n, p in t.net.named_parameters()}) == bits(
        {n: p.grad for n, p in net.named_parameters()}
    )
    assert bits(state_of(t.net)) == bits(state_of(net))


def test_speed_counts_something_where_rows_have_one_answer():
    batch = rows(3, 7)
    assert tokens_of(batch) == 7
    assert tokens_of(dataclasses.replace(batch, target=None, target_keep=None)) == 24
