"""The loop's laws: bad numbers touch nothing, nothing but the seed and the step decides, resumed = uninterrupted."""

import math
import os
from dataclasses import replace
from shutil import which

import numpy as np
import pytest
import torch
from learn_tiny import (
    Memory,
    bits,
    content,
    corpus,
    dev_loss,
    everything,
    on_disk,
    tiny_net,
    trainer,
)

from qkv.data.stream import Stream, collate
from qkv.errors import ConfigError, DivergedError, Interrupted, OutOfMemoryError, Preempted
from qkv.learn.loop import Evaluated, Finished, Position, Step, TrainConfig, ema_decay
from qkv.learn.optim import OptimConfig, learning_rate
from qkv.models.interface import Predictions, set_state, state_of
from qkv.parts.hardware import has_bf16
from qkv.run import signals
from qkv.weights import disk
from qkv.weights.files import read_tensors


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """One thread, and no waiting for the disk: what an fsync is worth is tested with the store."""
    monkeypatch.setattr(disk.fs, "fsync", lambda fd: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained(**settings):
    """(weights as bytes, keeper) of a run in memory."""
    t = trainer(**settings)
    t.fit()
    return bits(state_of(t.net)), t.keeper


def poison(t, bad_steps, kind, value=math.nan):
    """Make the loss, or only the gradient, of these steps not finite."""
    step_of, plain = [0], t.loss_inputs

    def loss_inputs(batch, **how):
        step_of[0] += 1
        p = plain(batch, **how)
        if step_of[0] not in bad_steps:
            return p
        if kind == "loss":
            return Predictions(p.states * value, p.weight, p.bias, p.labels)
        states = p.states.clone()
        states.register_hook(lambda g: g * value)
        return Predictions(states, p.weight, p.bias, p.labels)

    t.loss_inputs = loss_inputs


# -- numbers that are not finite (law 10; B5, A15) -------------------------------------------------------


@pytest.mark.parametrize("kind", ["loss", "gradient"])
@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize("bad", [1, 2, 4])
def test_a_step_that_is_not_finite_changes_no_bit(kind, value, bad):
    t = trainer(steps=6, log_every=100, ema=0.5)
    poison(t, {bad}, kind, value)
    seen, update = {}, t.update

    def watched(position, loss):
        before = everything(t)
        made = update(position, loss)
        seen[position.step] = before == everything(t)
        return made

    t.update = watched
    position = t.fit()
    assert seen == {k: k == bad for k in range(1, 7)}
    assert (position.applied, position.skipped, position.in_a_row) == (5, 1, 0)
    # logged with its true value although no line was due
    loss, norm = t.keeper.logged("train/loss"), t.keeper.logged("train/grad_norm")
    assert list(loss) == [bad] and not math.isfinite(norm[bad])
    assert math.isfinite(loss[bad]) == (kind == "gradient")


def test_the_rate_counts_applied_updates_only():
    t = trainer(steps=6, schedule="linear")
    poison(t, {2, 3}, "loss")
    t.fit()
    rates = t.keeper.logged("train/lr")
    expected = [learning_rate(t.optim, k, 6) for k in (1, 2, 2, 2, 3, 4)]
    assert [rates[k] for k in range(1, 7)] == expected


def test_five_bad_steps_in_a_row_are_divergence_and_four_are_not():
    t = trainer(steps=9)
    poison(t, {2, 3, 4, 5}, "loss")
    assert t.fit().skipped == 4
    t = trainer(steps=9)
    poison(t, {2, 3, 4, 5, 6}, "loss")
    with pytest.raises(DivergedError) as e:
        t.fit()
    assert e.value.exit_code == 5 and e.value.code == "QKV-071"
    assert "step 6" in e.value.seen and "optim.lr" in e.value.fix
    assert math.isnan(t.keeper.logged("train/loss")[6])
    _, weights, _ = t.keeper.saved
    assert all(w.isfinite().all() for w in weights.values())


def test_one_bad_step_in_a_hundred_of_many_is_divergence():
    t = trainer(steps=60)
    poison(t, set(range(2, 60, 4)), "loss")
    with pytest.raises(DivergedError, match="11 steps"):
        t.fit()


@pytest.mark.parametrize("bad", [4, 8, 12])
def test_a_metric_that_is_not_a_number_is_logged_and_never_best(bad):
    def validate(net, step):
        return {"dev/loss": math.nan if step == bad else 10.0 - step}

    t = trainer(steps=12, validate=validate)
    position = t.fit()
    assert math.isnan(t.keeper.logged("dev/loss")[bad])
    assert position.best == (-2.0 if bad != 12 else 2.0)
    assert t.keeper.models["best"][0]["dev/loss"] == position.best


@pytest.mark.parametrize("metric,best", [("dev/loss", 1.0), ("dev/ter", 1.0), ("dev/bleu", 3.0)])
def test_best_knows_which_way_is_up_and_a_tie_is_not_better(metric, best):
    values = {4: 2.0, 8: 1.0, 12: 3.0, 16: 1.0, 20: 3.0}
    events = []
    t = trainer(
        steps=20,
        metric=metric,
        validate=lambda net, step: {metric: values[step]},
        listen=events.append,
    )
    assert t.fit().best == best
    last = [e.step for e in events if isinstance(e, Evaluated) and e.best][-1]
    assert last == {1.0: 8, 3.0: 12}[best]


# -- nothing but seed and step decides (law 9; B10, B11) -------------------------------------------------


def test_evaluations_logging_and_saving_do_not_change_the_weights():
    plain, _ = trained(eval_every=8, save_every=100, log_every=100)
    for settings in (
        {"eval_every": 1},
        {"eval_every": 3, "save_every": 1},
        {"log_every": 3},
        {"patience": 99, "keep_best": 3},
        {"ema": 0.9},
    ):
        assert trained(**settings)[0] == plain, settings


def test_another_seed_gives_other_weights():
    assert trained()[0] == trained()[0] != trained(seed=2)[0]


def test_torchs_own_generator_is_neither_read_nor_moved():
    torch.manual_seed(0)
    a, before = trained(forcing=0.5)[0], torch.get_rng_state()
    torch.manual_seed(5)
    t = trainer(net=tiny_net(), forcing=0.5)  # tiny_net seeds with 0 itself
    torch.manual_seed(6)
    moved = torch.get_rng_state()
    t.fit()
    assert torch.equal(torch.get_rng_state(), moved)
    assert bits(state_of(t.net)) == a and before is not None


def test_the_net_is_back_in_training_mode_after_an_evaluation_that_fails():
    def validate(net, step):
        raise RuntimeError("no dev today")

    for ema in (0.0, 0.9):
        t = trainer(validate=validate, ema=ema)
        with pytest.raises(RuntimeError, match="no dev"):
            t.fit()
        assert t.net.training


def test_less_teacher_forcing_is_deterministic_and_something_else():
    half = trained(forcing=0.5)[0]
    assert half == trained(forcing=0.5)[0]
    assert half != trained(forcing=1.0)[0] != trained(forcing=0.0)[0] != half


def test_one_batch_can_be_learned_by_heart():
    batch = Stream(corpus(), 64, 1).batch(0)
    net = tiny_net(dropout=0.0, d_model=16)
    t = trainer(
        steps=150,
        net=net,
        stream=Parts(batch, 1),
        smoothing=0.0,
        lr=0.02,
        eval_every=150,
        log_every=150,
    )
    t.fit()
    assert t.keeper.logged("train/loss")[150] < 0.02  # nats a token


# -- accumulation (law 11; B7) ---------------------------------------------------------------------------


class Parts:
    """A stream of micro-batches whose k together are one batch."""

    def __init__(self, batch, k):
        rows = torch.arange(len(batch)).tensor_split(k)
        self.batches = [
            replace(
                batch,
                source=batch.source[r],
                keep=batch.keep[r],
                target=batch.target[r],
                target_keep=batch.target_keep[r],
                index=None,
            )
            for r in rows
        ]

    def batch(self, step):
        return self.batches[step % len(self.batches)]


@pytest.mark.parametrize("k", [2, 4, 8, 16])
def test_accumulation_equals_one_big_batch(k):
    """Ragged parts, smoothing: relative L2 of the gradient in float64 (rounding of the sums only)."""
    data = corpus()
    whole = collate(np.arange(24), data.source, data.target, pad_id=0, eos_id=2)
    assert len({int(n) for n in whole.target_keep.sum(1)}) > 3

    def gradient(k):
        net = tiny_net(dropout=0.0).double()
        t = trainer(net=net, stream=Parts(whole, k), accumulate=k, smoothing=0.1)
        loss, nll = t.gradients(1, t.micro_batches(1))
        return torch.cat([p.grad.flatten() for p in t.trained]), float(loss), float(nll)

    (one, loss, nll), (many, loss_k, nll_k) = gradient(1), gradient(k)
    assert float((one - many).norm() / one.norm()) <= 1e-13
    assert loss_k == pytest.approx(loss, rel=1e-6) and nll_k == pytest.approx(nll, rel=1e-6)


def test_every_micro_batch_is_used_once_and_in_order():
    class Seen(Stream):
        steps = []

        def batch(self, step):
            self.steps.append(step)
            return super().batch(step)

    trained(stream=Seen(corpus(), 64, 1), accumulate=3, steps=4)
    assert Seen.steps == list(range(12))


# -- what is kept ----------------------------------------------------------------------------------------


def test_early_stopping_counts_evaluations_without_a_better_one():
    values = iter([5.0, 4.0, 4.5, 3.0, 3.0, 3.1, 9.9, 1.0])
    events = []
    t = trainer(
        steps=80,
        patience=3,
        validate=lambda net, step: {"dev/loss": next(values)},
        listen=events.append,
    )
    assert t.fit().step == 7 * 4
    assert events[-1].stopped_early and isinstance(events[-1], Finished)


def test_a_moving_average_soon_forgets_where_it_began():
    assert [ema_decay(0.9, n) for n in (1, 3, 80, 81, 82, 10_000)] == [
        0.1,
        0.25,
        80 / 89,
        0.9,
        0.9,
        0.9,
    ]
    left = math.prod(ema_decay(0.999, n) for n in range(1, 2001))  # of the first numbers
    assert left < 1e-15 < 0.999**2000


def test_the_moving_average_is_what_is_kept_and_evaluated():
    seen, t = {}, trainer(steps=4, eval_every=2, ema=0.9)
    want = [p.detach().clone() for p in t.trained]
    update = t.update

    def watched(position, loss):
        made = update(position, loss)
        kept = (1 / 10, 2 / 11, 3 / 12, 4 / 13)[made[0].applied - 1]  # not yet 0.9
        for w, p in zip(want, t.trained, strict=True):
            w.lerp_(p.detach(), 1 - kept)
        seen[position.step] = bits(dict(zip(t.names, [w.clone() for w in want], strict=True)))
        return made

    t.update = watched
    validated = {}
    t.validate = lambda net, step: (
        validated.setdefault(step, bits(state_of(net))) and dev_loss(net, step)
    )
    t.fit()
    assert validated == {2: seen[2], 4: seen[4]}
    assert t.keeper.models["last"][1] == seen[4] != bits(state_of(t.net))


def test_the_average_is_the_mean_of_the_last_snapshots(tmp_path):
    t = on_disk(tmp_path, steps=10, eval_every=2, average=3)
    kept, plain = [], t.keeper.snapshot

    def snapshot(step, weights, metrics):
        kept.append({k: v.clone() for k, v in weights.items()})
        plain(step, weights, metrics)

    t.keeper.snapshot = snapshot
    t.fit()
    assert t.keeper.steps() == [6, 8, 10]
    made = read_tensors(tmp_path / "average" / "model.safetensors")
    for name, tensor in made.items():
        mean = torch.stack([w[name].double() for w in kept[-3:]]).mean(0).float()
        torch.testing.assert_close(tensor, mean, atol=0, rtol=2e-7)  # one rounding to fp32
    assert t.log.size() and "average/dev/loss" in (tmp_path / "metrics.jsonl").read_text()


@pytest.mark.parametrize("low", [True, False])
def test_the_k_best_snapshots_stay(tmp_path, low):
    values = {2: 3.0, 4: 1.0, 6: 5.0, 8: math.nan, 10: 2.0, 12: 4.0}
    metric = "dev/loss" if low else "dev/bleu"
    t = on_disk(
        tmp_path,
        steps=12,
        eval_every=2,
        keep_best=2,
        metric=metric,
        validate=lambda net, step: {metric: values[step]},
    )
    t.fit()
    assert t.keeper.steps() == ([4, 10, 12] if low else [6, 12])  # the last one stays too


def test_tied_weights_are_stored_once_and_tied_again_when_they_return(tmp_path):
    t = on_disk(tmp_path, steps=2, save_every=1)
    t.fit()
    stored = read_tensors(tmp_path / "resume" / "weights.safetensors")
    assert sum(v.shape == (13, 8) for v in stored.values()) == 1
    net = tiny_net(seed=9)
    set_state(net, stored)
    matrices = (net.source_embed.token.weight, net.target_embed.token.weight, net.head.weight)
    assert len({m.data_ptr() for m in matrices}) == 1
    assert bits(state_of(net)) == bits(stored)
    untied = tiny_net(tie="none")
    assert sum(v.shape == (13, 8) for v in state_of(untied).values()) == 3


# -- stopping and going on (law 9; A8, A9, A10, A14) -----------------------------------------------------


class StopAt:
    """A signal that arrives while step k is computed."""

    def __init__(self, k, name="SIGTERM"):
        self.k, self.name, self.calls = k, name, 0

    def __call__(self):
        self.calls += 1
        return self.name if self.calls == self.k else None


HARD = dict(steps=13, eval_every=4, save_every=3, log_every=2, average=2, keep_best=2)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"ema": 0.8, "accumulate": 3, "relative": True},
        {"patience": 1, "validate": lambda net, step: {"dev/loss": float(step)}},
    ],
    ids=["plain", "ema-accumulate", "stops-early"],
)
def test_a_run_stopped_at_any_step_ends_like_the_uninterrupted_one(tmp_path, how):
    settings = HARD | how
    whole = on_disk(tmp_path / "whole", **settings)
    end = whole.fit()
    want = content(tmp_path / "whole")
    for k in range(1, end.step + 1, 2 if how else 1):
        folder = tmp_path / f"stopped-{k}"
        with pytest.raises(Preempted, match=f"step {k} of 13"):
            on_disk(folder, stop=StopAt(k), **settings).fit()
        again = on_disk(folder, net=tiny_net(seed=77), **settings)
        assert replace(again.fit(), metrics_bytes=0) == replace(end, metrics_bytes=0)
        assert content(folder) == want
        assert everything(again) == everything(whole)


def test_a_run_stopped_at_every_step_in_turn_ends_like_the_uninterrupted_one(tmp_path):
    on_disk(tmp_path / "whole", **HARD).fit()
    for k in range(13):
        with pytest.raises(Preempted):
            net = tiny_net(seed=k and 5)  # only the first start's weights count
            on_disk(tmp_path / "parts", stop=StopAt(1), net=net, **HARD).fit()
    on_disk(tmp_path / "parts", net=tiny_net(seed=5), **HARD).fit()
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_work_after_the_last_save_is_forgotten_and_done_again(tmp_path):
    """What a kill leaves: a folder whose log and models are ahead of its checkpoint."""
    settings = HARD | {"log_every": 1}
    on_disk(tmp_path / "whole", **settings).fit()

    class Killed(BaseException):
        pass

    for k in (2, 4, 8, 11, 13):

        def listen(event, k=k):
            if isinstance(event, Step) and event.step >= k:
                raise Killed

        with pytest.raises(Killed):
            on_disk(tmp_path / f"{k}", listen=listen, **settings).fit()
        net = tiny_net(seed=3 if k > 3 else 0)  # before the first save a run begins anew
        on_disk(tmp_path / f"{k}", net=net, **settings).fit()
        assert content(tmp_path / f"{k}") == content(tmp_path / "whole")


def test_sigterm_is_preemption_and_ctrl_c_is_interruption_and_both_have_saved():
    for name, kind, code in (("SIGTERM", Preempted, 75), ("SIGINT", Interrupted, 130)):
        t = trainer(stop=StopAt(2, name))
        with pytest.raises(kind) as e:
            t.fit()
        assert e.value.exit_code == code and name in e.value.seen and "again" in e.value.fix
        assert t.keeper.saved[0].step == 2


def test_a_real_signal_is_heeded_at_the_next_step():
    import signal

    before = signal.getsignal(signal.SIGTERM)

    def listen(event):
        if isinstance(event, Step) and event.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with signals() as stop:
        t = trainer(stop=stop, listen=listen)
        with pytest.raises(Preempted, match="SIGTERM at step 3"):
            t.fit()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_finished_run_resumed_does_nothing_more(tmp_path):
    settings = HARD | {"save_every": 13}
    on_disk(tmp_path, **settings).fit()
    before = content(tmp_path)
    on_disk(tmp_path, net=tiny_net(seed=4), **settings).fit()
    assert content(tmp_path) == before


# -- settings, precision, memory -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"accumulate": 0},
        {"save_every": 0},
        {"smoothing": 1.0},
        {"ema": -0.1},
        {"forcing": 1.1},
        {"average": -1},
        {"keep_best": 0},
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_named(wrong):
    with pytest.raises(ConfigError) as e:
        TrainConfig(**wrong)
    assert next(iter(wrong)) in e.value.seen and e.value.fix


def test_bf16_learns_and_keeps_fp32_weights():
    t = trainer(steps=40, net=tiny_net(dropout=0.0), precision="bf16", eval_every=40)
    t.fit()
    losses = t.keeper.logged("train/loss")
    assert all(math.isfinite(x) for x in losses.values()) and losses[40] < losses[1]
    assert {p.dtype for p in t.trained} == {torch.float32}
    assert trainer(precision="auto").bf16 == has_bf16(torch.device("cpu"))


@pytest.mark.skipif(which("g++") is None, reason="torch.compile needs a C++ compiler: no g++ here")
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns about parts of torch
def test_a_compiled_run_learns_what_the_plain_one_does():
    losses = []
    for compiled in (False, True):
        t = trainer(steps=4, net=tiny_net(dropout=0.0), compile=compiled)
        t.fit()
        losses.append([*t.keeper.logged("train/loss").values()])
    # float32: the compiler sums in another order, and Adam's first steps divide by what is nearly 0
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_no_memory_is_one_line_with_half_the_batch():
    t = trainer(batch_tokens=2048)

    def loss_inputs(batch, **how):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 TB")

    t.loss_inputs = loss_inputs
    with pytest.raises(OutOfMemoryError) as e:
        t.fit()
    assert e.value.exit_code == 4
    assert "train.batch_tokens=1024" in e.value.fix and "train.accumulate=2" in e.value.fix


def test_clipping_bounds_the_gradient_and_is_logged_before_it():
    """One step of plain gradient size: the moments show what the optimiser was given."""
    t = trainer(steps=1, clip=0.01, betas=(0.0, 0.0))
    t.fit()
    given = torch.stack([t.optimizer.state[p]["exp_avg"].norm() for p in t.trained]).norm()
    assert float(given) == pytest.approx(0.01, rel=1e-5)
    assert t.keeper.logged("train/grad_norm")[1] > 0.01


def test_a_position_is_all_a_resume_needs():
    t = trainer(keeper=Memory())
    t.fit()
    assert Position() == Position(0, 0, 0, 0, None, 0, 0)
    assert t.keeper.saved[0].applied == 8  # saved every 3 steps, and at the end
    assert OptimConfig().schedule == "inverse-sqrt"
