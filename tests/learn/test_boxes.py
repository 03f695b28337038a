"""Overlap, matching and losses of boxes against the reference's, by hand, and by brute force."""

import sys
from itertools import permutations

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from transformers.loss.loss_for_object_detection import generalized_box_iou

from qkv.errors import MissingError
from qkv.learn import boxes
from qkv.learn.precision import Scene, average_precision
from qkv.learn.terms import Totals, term_loss, terms_of
from qkv.models.interface import BoxWeights, Detected
from qkv.shapes import Batch

W = BoxWeights()


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def some_boxes(*shape, seed=0):
    return torch.rand(*shape, 4, generator=rng(seed), dtype=torch.float64) * 0.5 + 0.1


def test_giou_is_the_reference_s():
    a, b = boxes.corners(some_boxes(6)), boxes.corners(some_boxes(4, seed=1))
    want = generalized_box_iou(a, b)
    assert_close(boxes.giou(a[:, None], b[None]), want, atol=1e-14, rtol=0)


def test_giou_by_hand():
    unit = torch.tensor([0.0, 0.0, 0.2, 0.2], dtype=torch.float64)
    apart = torch.tensor([0.4, 0.0, 0.6, 0.2], dtype=torch.float64)
    half = torch.tensor([0.1, 0.0, 0.3, 0.2], dtype=torch.float64)
    assert float(boxes.giou(unit, unit)) == pytest.approx(1.0)
    assert float(boxes.giou(unit, apart)) == pytest.approx(
        -1 / 3
    )  # a third of the hull is between them
    assert float(boxes.giou(unit, half)) == pytest.approx(1 / 3)  # the hull is the union


def test_the_gradient_of_giou_is_that_of_finite_differences():
    a, b = some_boxes(5).requires_grad_(), some_boxes(5, seed=1)
    assert torch.autograd.gradcheck(lambda a: boxes.giou(boxes.corners(a), boxes.corners(b)), [a])


@pytest.mark.parametrize("box", [[0.5, 0.5, 0, 0], [0.5, 0.5, 1e-12, 0.3], [0, 0, 0, 0]])
def test_boxes_without_an_area_give_numbers_and_gradients(box):
    a = torch.tensor([box], dtype=torch.float64, requires_grad=True)
    for b in (a.detach(), some_boxes(1)):
        near = boxes.giou(boxes.corners(a), boxes.corners(b))
        assert near.isfinite().all() and (near <= 1).all() and (near >= -1).all()
        (grad,) = torch.autograd.grad(near.sum(), [a])
        assert grad.isfinite().all()


@pytest.mark.parametrize("queries, there", [(5, 3), (3, 5), (4, 4), (2, 0)])
def test_the_assignment_is_the_cheapest_of_all(queries, there):
    logits = torch.randn(1, queries, 4, generator=rng(), dtype=torch.float64)
    labels = torch.randint(3, (1, there + 1), generator=rng(1))
    labels[0, there:] = -1  # padding, which nothing may answer for
    truth, said = some_boxes(1, there + 1, seed=2), some_boxes(1, queries, seed=3)
    row, query, box = boxes.match(logits, said, labels, truth, W)
    assert len(row) == min(queries, there) and (box < there).all()
    cost = boxes.costs(logits, said, labels, truth, W)[0, :, :there]
    n = min(queries, there)
    wide = cost if queries <= there else cost.T
    least = (
        min(
            (
                float(sum(wide[i, p[i]] for i in range(n)))
                for p in permutations(range(max(wide.shape)), n)
            ),
            default=0.0,
        )
        if n
        else 0.0
    )
    assert float(cost[query, box].sum()) == pytest.approx(least, abs=1e-12)


def test_a_prediction_that_is_not_a_number_is_matched_last():
    logits = torch.zeros(1, 3, 3, dtype=torch.float64)
    said = some_boxes(1, 3)
    said[0, 1] = torch.nan
    labels, truth = torch.tensor([[0, 1]]), some_boxes(1, 2, seed=1)
    _, query, _ = boxes.match(logits, said, labels, truth, W)
    assert sorted(query.tolist()) == [0, 2]


def answers(B, N=4, K=3, L=2, seed=0):
    logits = torch.randn(L, B, N, K + 1, generator=rng(seed), dtype=torch.float64)
    return logits.requires_grad_(), some_boxes(L, B, N, seed=seed + 1).requires_grad_()


def there(counts, seed=5):
    M = max(1, *counts)
    label = torch.randint(3, (len(counts), M), generator=rng(seed))
    for row, n in enumerate(counts):
        label[row, n:] = -1
    return label, some_boxes(len(counts), M, seed=seed)


def batch_of(label, truth):
    none = torch.zeros(len(label), 0, dtype=torch.long)
    return Batch(none, none.bool(), label=label, boxes=truth)


def total(terms, batches, i):
    totals = Totals(batches)
    return sum(term_loss(t).smoothed / totals.of(t, i) for t in terms)


def test_a_loss_in_pieces_is_the_loss_of_the_whole_batch():
    """Law 11: the counts of class weights and of boxes are those of the step, though pieces have none or many."""
    counts = [0, 3, 1, 4, 0, 6]
    logits, said = answers(len(counts))
    label, truth = there(counts)
    whole = total(terms_of(Detected(logits, said, label, truth, W)), [batch_of(label, truth)], 0)
    want = torch.autograd.grad(whole, [logits, said])
    cuts = [slice(0, 1), slice(1, 4), slice(4, 6)]
    batches = [batch_of(label[c], truth[c]) for c in cuts]
    pieces = [
        total(terms_of(Detected(logits[:, c], said[:, c], label[c], truth[c], W)), batches, i)
        for i, c in enumerate(cuts)
    ]
    assert_close(sum(pieces), whole, atol=1e-13, rtol=0)  # the order of sums
    for got, w in zip(torch.autograd.grad(sum(pieces), [logits, said]), want, strict=True):
        assert_close(got, w, atol=1e-13, rtol=0)


def test_pictures_without_boxes_teach_to_say_nothing():
    logits, said = answers(2)
    label, truth = there([0, 0])
    loss = total(terms_of(Detected(logits, said, label, truth, W)), [batch_of(label, truth)], 0)
    of_class, of_box = torch.autograd.grad(loss, [logits, said])
    assert loss.isfinite() and (of_box == 0).all()
    assert (of_class[..., -1] < 0).all()  # more of "nothing" is better


def test_any_targets_give_finite_losses():
    """A thousand pictures with boxes of every size, of none, at every edge."""
    g = np.random.default_rng(0)
    for _ in range(25):
        counts = g.integers(0, 9, 40).tolist()
        logits, said = answers(40, L=1, seed=int(g.integers(1 << 30)))
        label, truth = there(counts)
        truth = truth * torch.tensor(g.choice([0.0, 1e-9, 1.0, 2.0], (40, truth.shape[1], 4)))
        loss = total(terms_of(Detected(logits, said, label, truth, W)), [batch_of(label, truth)], 0)
        assert loss.isfinite()
        assert all(x.isfinite().all() for x in torch.autograd.grad(loss, [logits, said]))


def test_without_scipy_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MissingError, match=r"SciPy.*qkv\[vision\]"):
        boxes.solver()


# -- average precision --------------------------------------------------------------------------------------


def scene(truth, said, scores, classes=None, named=None):
    truth, said = np.array(truth, float).reshape(-1, 4), np.array(said, float).reshape(-1, 4)
    classes = np.zeros(len(truth), int) if classes is None else np.array(classes)
    named = np.zeros(len(said), int) if named is None else np.array(named)
    return Scene((50, 100), truth, classes, said, named, np.array(scores, float))


A, B = [0, 0, 20, 20], [40, 10, 80, 40]


def test_average_precision_by_hand():
    assert average_precision([scene([A, B], [A, B], [0.9, 0.2])], 1) == {
        "map": pytest.approx(1.0),
        "map50": pytest.approx(1.0),
        "map75": pytest.approx(1.0),
    }
    # half of the boxes found, nothing wrong: precision 1 at the 51 of 101 points of recall up to 0.5
    found = average_precision([scene([A, B], [A], [0.9])], 1)
    assert found["map50"] == pytest.approx(51 / 101)
    # 20 x 20 and 20 x 12 within it: an overlap of 0.6, so .50, .55 and .60 of ten thresholds
    found = average_precision([scene([A], [[0, 0, 20, 12]], [0.9])], 1)
    assert found["map"] == pytest.approx(0.3) and found["map75"] == 0
    # the right place under a wrong name
    found = average_precision([scene([A], [A], [0.9], [0], [1])], 2)
    assert found["map50"] == 0


def test_average_precision_of_nothing():
    assert np.isnan(average_precision([scene([], [A], [0.9])], 1)["map"])
    assert average_precision([scene([A], [], [])], 1)["map"] == 0.0


def test_without_the_judge_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(MissingError, match=r"faster-coco-eval.*qkv\[vision\]"):
        average_precision([], 1)


def test_cardinality_counts_what_is_not_nothing():
    logits = torch.tensor([[[3.0, 0, 0], [0, 3, 0], [0, 0, 3]], [[0.0, 0, 3]] * 3])
    labels = torch.tensor([[0, -1, -1], [1, 0, -1]])
    assert boxes.cardinality(logits, labels).tolist() == [1, 2]
