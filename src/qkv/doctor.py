"""The laws of DESIGN §5, checked on a person's own model.  Each is a function of a model and returns what it saw.

Three kinds of nets: those that answer a source (an encoder-decoder), those that continue it (a decoder alone), and those
that only read it (an encoder alone, a checkpoint without a head), for which the laws about answering do not exist.

Laws about answers run on the model itself; those about gradients and training run on a copy shrunk to a few thousand
parameters, in float64, so that a check takes seconds whatever the model's size."""

import random
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import specimens
from .decode.answer import SearchConfig
from .decode.beam import beam_search
from .decode.rows import Task, banned_ids, limits, pad_sources, prompted, source_rows
from .decode.search import search
from .learn.checkpoint import RunFolder
from .learn.loop import TrainConfig, Trainer
from .learn.optim import OptimConfig
from .learn.track import Tracker
from .look.record import record
from .messages import t
from .model import MULTIPLE, Model
from .models import build
from .models.encoder import TextEncoder
from .models.interface import Memory, state_of
from .models.seq2seq import NoHead
from .parts.attention import attend
from .parts.dropout import noise
from .parts.patterns import Allowed, Full
from .pictures import batches
from .shapes import Batch, pad


@dataclass(frozen=True)
class Law:
    """One law: what was measured, and the bound it must not pass."""

    name: str
    passed: bool
    seen: str
    bound: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def check(model: Model) -> list[Law]:
    """Every law that applies, in order.  A law that raises has not passed."""
    made = []
    for law in laws_of(model):
        try:
            made.append(law(model))
        except Exception as e:  # a broken law must not hide the others
            made.append(Law(law.__name__, False, f"{type(e).__name__}: {e}"[:200], ""))
    return made


# -- material ------------------------------------------------------------------------------------------


def examples(
    model: Model, n: int, seed: int = 0, longest: int = 24
) -> list[tuple[list[int], list[int]]]:
    """n random (source, target) id lists of many lengths, each ending in <eos> where the net knows one."""
    rng, V = random.Random(seed), model.config.vocab_size
    eos = getattr(model.net, "eos_id", None)
    eos = eos if eos is not None and 0 <= eos < V else V - 1

    def row() -> list[int]:
        return [rng.randrange(min(4, V - 1), V) for _ in range(rng.randint(1, longest))] + [eos]

    return [(row(), row()) for _ in range(n)]


# just below where sums and matrix products over the keys begin another piece, on one machine or another (docs/diary.md)
LENGTHS = (47, 63, 95, 127, 180, 250)


def crowd(model: Model) -> list[list[int]]:
    """Short sources with long ones among them, as far as the net's positions reach: what law 2 decodes together."""
    most = getattr(model.net, "max_positions", None)
    room = max(LENGTHS) if most is None else max(1, most - 16)
    short = [s[-room:] for s, _ in examples(model, 30, seed=1)]
    (words, _), *_ = examples(model, 1, seed=4)
    long = [(words * n)[:n] for n in LENGTHS if n <= room]
    return short[:15] + long + short[15:]


def batch_of(net: Any, pairs: list[tuple[list[int], list[int]]], multiple: int = MULTIPLE) -> Batch:
    """Sources with their targets; for a net of one sequence both in a row, and the target the row shifted by one."""
    if prompted(net) or isinstance(net, TextEncoder):
        rows = [s + y for s, y in pairs]
        pairs = [(x[:-1], x[1:]) for x in rows]
    source, keep = pad([s for s, _ in pairs], padding(net), multiple)
    target, target_keep = pad([y for _, y in pairs], padding(net), multiple)
    return Batch(source, keep, target, target_keep)


def given(model: Model, n: int, seed: int = 0, longest: int = 24) -> Batch:
    """n examples of what the model reads: texts, or pictures."""
    if specimens.sees(model.net):
        return specimens.pictures(model.net, n, seed)
    return batch_of(model.net, examples(model, n, seed, longest))


def padding(net: Any) -> int:
    return int(net.pad_id or 0)


def answers(net: Any) -> bool:
    """Can it be asked for the next token?"""
    return hasattr(net, "step") and not isinstance(net.head, NoHead | None)


def numbers(net: Any, batch: Batch) -> Tensor:
    """What must keep its bits: the logits of real targets, or the states and the summary of a net that only reads."""
    if specimens.sees(net):
        return specimens.numbers(net, batch)
    if answers(net):
        made: Tensor = net.logits(batch)[batch.target_keep]
        return made
    memory = net.encode(batch)
    return torch.cat([memory.states[batch.keep].flatten(), memory.summary.flatten()])


SMALL = {"d_model": 16, "d_ff": 24, "n_heads": 2, "n_kv_heads": None, "vocab_size": 19, "d_head": 8}
SMALL |= {"encoder_layers": 2, "decoder_layers": 2, "n_layers": 2, "encoder_heads": 2}
SMALL |= {"decoder_heads": 2, "decoder_ff": 24, "target_vocab_size": 19}
EACH = ("window", "dilation")  # one a layer, where there are several
IDS = ("bos_id", "eos_id", "pad_id", "start_id", "forced_bos_id", "forced_eos_id")


def shrunk(model: Model) -> nn.Module:
    """The same architecture, tiny, in float64, with weights and a head of words of its own."""
    config = model.config
    old = {f.name: getattr(config, f.name) for f in fields(config)}
    small: dict[str, Any] = {k: v for k, v in SMALL.items() if old.get(k) is not None}
    small |= {k: old[k] % 4 for k in IDS if old.get(k) is not None}
    small |= {k: (v * 2)[:2] for k, v in old.items() if k in EACH and isinstance(v, tuple)}
    if specimens.sees(model.net):
        small |= specimens.shrunk(old)
    elif "head" in old:
        small["head"] = "mlm" if isinstance(model.net, TextEncoder) else "lm"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return specimens.moved(build(replace(config, **small)).double())


def small_batch(net: Any, seed: int = 0) -> Batch:
    if specimens.sees(net):
        return specimens.pictures(net, 3, seed)
    rng = random.Random(seed)
    rows = [
        (
            [rng.randrange(4, 19) for _ in range(n)] + [2],
            [rng.randrange(4, 19) for _ in range(m)] + [2],
        )
        for n, m in ((5, 4), (2, 6), (1, 1))
    ]
    return batch_of(net, rows, multiple=1)


# -- the laws ------------------------------------------------------------------------------------------


def future_does_not_change_the_past(model: Model) -> Law:
    """Law 1: the gradient of earlier outputs by later inputs is exactly zero."""
    net, worst = shrunk(model).eval(), 0.0
    batch = small_batch(net)
    kept: list[Tensor] = []

    def hold(_: nn.Module, __: Any, x: Tensor) -> Tensor:
        kept.append(x.detach().requires_grad_())
        return kept[-1]

    embed: Any = net.embed if prompted(net) else net.target_embed
    handle = embed.register_forward_hook(hold)
    try:
        logits = net.logits(batch)  # type: ignore[operator]
    finally:
        handle.remove()
    for at in range(logits.shape[1] - 1):
        (grad,) = torch.autograd.grad(logits[:, : at + 1].sum(), kept[0], retain_graph=True)
        worst = max(worst, float(grad[:, at + 1 :].abs().max()))
    return Law(
        t("the future does not change the past", "미래는 과거를 바꾸지 않는다"),
        worst == 0,
        f"{worst:g}",
        "0",
    )


@torch.inference_mode()
def neighbours_do_not_change_an_answer(model: Model) -> Law:
    """Law 2: greedy and beam answers alone and in a batch, 0 differing bits of any score; or the states of a reader."""
    if specimens.sees(model.net):
        return _seen_alone(model)
    sources = crowd(model)
    if not answers(model.net):
        return _read_alone(model, sources)
    differing = compared = 0
    for config in (SearchConfig(max_new_tokens=12), SearchConfig(beam=4, max_new_tokens=12)):
        ids, keep = pad(sources, padding(model.net), MULTIPLE)
        together = search(model.net, Batch(ids, keep).to(model.device), config)  # type: ignore[arg-type]
        for source, found in zip(sources, together, strict=True):
            ids, keep = pad([source], padding(model.net), MULTIPLE)
            alone = search(model.net, Batch(ids, keep).to(model.device), config)[0]  # type: ignore[arg-type]
            compared += 1
            differing += [(h.ids, h.token_scores) for h in alone] != [
                (h.ids, h.token_scores) for h in found
            ]
    return _alone(differing, compared)


def _alone(differing: int, compared: int) -> Law:
    return Law(
        t("neighbours and padding do not change an answer", "이웃과 패딩은 답을 바꾸지 않는다"),
        not differing,
        t(f"{differing} of {compared} answers differ", f"{compared}개 답 중 {differing}개가 다름"),
        t("0 bits", "0비트"),
    )


def _read_alone(model: Model, sources: list[list[int]]) -> Law:
    """A reader's answer is the states of its source and their summary; sources in sixteens where the net asks for that."""

    def read(rows: list[list[int]]) -> list[Tensor]:
        ids, keep = pad(rows, padding(model.net), MULTIPLE)
        batch = pad_sources(Batch(ids, keep), source_rows(model.net)).to(model.device)
        memory: Memory = model.net.encode(batch)  # type: ignore[operator]
        made = zip(rows, memory.states, memory.summary, strict=False)
        return [torch.cat([x[: len(row)].flatten(), one]) for row, x, one in made]

    together = read(sources)
    differing = sum(
        not torch.equal(read([s])[0], x) for s, x in zip(sources, together, strict=True)
    )
    return _alone(differing, len(sources))


def _seen_alone(model: Model) -> Law:
    """Each of 35 pictures by itself, by twos and by fives, against all together, batched as the verbs batch them."""
    pixels = list(specimens.pictures(model.net, 35, seed=1).pixels)  # type: ignore[arg-type]

    def of(first: int, last: int) -> Tensor:
        rows: dict[int, Tensor] = {}
        for chosen, batch in batches(pixels[first:last], model.device):
            rows |= zip(chosen, specimens.numbers(model.net, batch), strict=True)
        return torch.stack([rows[i] for i in range(len(rows))])

    together = of(0, 35)
    parts = [(i, i + n) for n in (1, 2, 5) for i in range(0, 35, n)]
    differing = sum(not torch.equal(of(a, b), together[a:b]) for a, b in parts)
    return _alone(differing, len(parts))


@torch.inference_mode()
def padding_holds_nothing(model: Model) -> Law:
    """Law 2: whatever ids stand in the padding, the real logits have the same bits."""
    batch = batch_of(model.net, examples(model, 6, seed=2)).to(model.device)
    rubbish = torch.full_like(batch.source, model.config.vocab_size - 1)
    other = replace(batch, source=torch.where(batch.keep, batch.source, rubbish))
    a, b = (numbers(model.net, x) for x in (batch, other))
    n = int((a != b).sum())
    return Law(
        t("padding holds nothing", "패딩에는 아무것도 없다"),
        n == 0,
        t(f"{n} of {a.numel()} logits differ", f"{a.numel()}개 로짓 중 {n}개가 다름"),
        t("0 bits", "0비트"),
    )


@torch.inference_mode()
def steps_equal_one_pass(model: Model) -> Law:
    """Law 3: decoding with the cache gives the logits of one teacher-forced pass (float64); prompts of 1, 2, 3 tokens."""
    net: Any = shrunk(model).eval()
    batch, worst = small_batch(net, 1), 0.0
    whole, real = net.logits(batch), batch.target_keep
    if batch.target is None or real is None:
        raise ValueError("the batch has no target")
    at = torch.zeros(len(batch), dtype=torch.long)
    ids, state = (batch.source if prompted(net) else net.shift(batch.target)), None
    if prompted(net):
        at = torch.minimum(torch.arange(len(batch)), batch.keep.sum(1) - 1)
        prompt = batch.keep & (torch.arange(ids.shape[1]) <= at[:, None])
        state = net.start(Batch(ids, prompt))
    state, rows = net.start(batch) if state is None else state, torch.arange(len(batch))
    for _ in range(ids.shape[1] - int(at.min())):
        here = at.clamp(max=ids.shape[1] - 1)
        logits, state = net.step(ids[rows, here], state)
        off = (logits - whole[rows, here])[real[rows, here] & (at == here)]
        worst, at = max(worst, float(off.abs().max()) if off.numel() else 0.0), at + 1
    return Law(
        t("cached steps equal one pass", "캐시로 한 걸음씩 = 한 번에"),
        worst <= 1e-10,
        f"{worst:.1e}",
        "1e-10",
    )


@torch.inference_mode()
def beam_of_one_is_greedy(model: Model) -> Law:
    """Law 3: beam search with one beam gives greedy's answers, bit for bit."""
    ids, keep = pad([s for s, _ in examples(model, 20, seed=3)], padding(model.net), MULTIPLE)
    batch, config = Batch(ids, keep).to(model.device), SearchConfig(max_new_tokens=12)
    net: Any = model.net
    greedy = search(net, batch, config)
    beam = beam_search(Task(net, batch, config, limits(net, batch, config), banned_ids(net, ())))
    n = sum(
        a[0].ids != b[0].ids or a[0].score != b[0].score for a, b in zip(greedy, beam, strict=True)
    )
    return Law(
        t("a beam of one is greedy", "빔 1 = 그리디"),
        n == 0,
        t(f"{n} of {len(greedy)} differ", f"{len(greedy)}개 중 {n}개가 다름"),
        "0",
    )


def a_blind_row_gives_zeros(model: Model) -> Law:
    """Law 4: a query that may look at nothing gives zeros, and finite gradients."""
    q, k, v = (torch.randn(2, 2, 3, 4, requires_grad=True) for _ in range(3))
    keep = torch.tensor([[True, True, False], [False, False, False]])
    y = attend(q, k, v, Allowed.of(Full(), keep), scale=0.5)
    y.sum().backward()  # type: ignore[no-untyped-call]
    zero = float(y[1].detach().abs().max())
    finite = all(bool(x.grad.isfinite().all()) for x in (q, k, v) if x.grad is not None)
    return Law(
        t("a row that sees nothing gives zeros", "볼 것이 없는 행은 0을 낸다"),
        zero == 0 and finite,
        f"{zero:g}, {'finite' if finite else 'nan'}",
        "0, finite",
    )


@torch.inference_mode()
def recording_changes_nothing(model: Model) -> Law:
    """Law 5: recorded rows sum to 1 and the answer keeps its bits."""
    batch = given(model, 4, seed=4).to(model.device)
    before = numbers(model.net, batch)
    with record(model) as maps:
        after = numbers(model.net, batch)
    bits = int((before != after).sum())
    off = max(
        (float((m.sum(-1) - 1).abs()[m.sum(-1) > 0].max()) for m in maps.values()), default=0.0
    )
    return Law(
        t("looking changes nothing; rows sum to 1", "보는 것은 답을 바꾸지 않는다; 행의 합은 1"),
        bits == 0 and off < 1e-5,
        f"{bits}, {off:.0e}",
        "0, 1e-5",
    )


def gradients_are_right(model: Model) -> Law:
    """Law 7: the analytic gradient of the whole loss, dropout off, equals central differences in float64."""
    net, worst = shrunk(model).eval(), 0.0
    batch = small_batch(net, 2)
    rng = random.Random(0)

    def loss() -> Tensor:
        return specimens.loss(net, batch, 0.1)[0]

    net.zero_grad()
    loss().backward()  # type: ignore[no-untyped-call]
    for p in net.parameters():
        if p.grad is None:
            continue
        for _ in range(2):
            i, h = rng.randrange(p.numel()), 1e-6
            with torch.no_grad():
                flat = p.view(-1)
                old = float(flat[i])
                flat[i] = old + h
                up = float(loss())
                flat[i] = old - h
                down = float(loss())
                flat[i] = old
            exact = float(p.grad.view(-1)[i])
            worst = max(worst, abs((up - down) / (2 * h) - exact) / max(1e-3, abs(exact)))
    return Law(
        t("gradients equal finite differences (float64)", "기울기 = 유한 차분 (float64)"),
        worst < 1e-4,
        f"{worst:.1e}",
        "1e-4",
    )


def one_batch_is_learned_by_heart(model: Model) -> Law:
    """Law 8: a few pairs, seen again and again, are known."""
    net = shrunk(model).float().train()
    batch = small_batch(net, 3)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    seen = float("inf")
    for step in range(600):
        with noise(0, step):
            loss, seen = specimens.loss(net.eval(), batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        # as DETR is trained (§A.4): boxes matched anew make the loss jump
        nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()
        if seen < 0.02:
            break
    return Law(
        t("one batch can be learned by heart", "한 배치는 외울 수 있다"),
        seen < 0.05,
        f"{seen:.3f} nats",
        "0.05",
    )


class Drill:
    """Endless batches of the shrunk vocabulary, a pure function of the step."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def batch(self, step: int) -> Batch:
        return small_batch(self.net, 100 + step)


def resumed_is_uninterrupted(model: Model) -> Law:
    """Law 9: stopped at a step and taken up again, weights and metrics have the same bytes."""

    def run(folder: Path, stop_at: int | None) -> None:
        config = TrainConfig(
            steps=12, eval_every=6, save_every=3, log_every=1, precision="fp32", ema=0.9
        )
        net = shrunk(model).float()
        polls = iter(range(1, 100))
        trainer = Trainer(
            net=net,
            stream=Drill(net),
            config=config,
            optim=OptimConfig(warmup=4),
            seed=7,
            keeper=RunFolder(
                folder,
                config,
                lambda w, m: {"w": b"".join(x.numpy().tobytes() for x in w.values())},
            ),
            log=Tracker(folder),
            validate=lambda net, step: {"dev/loss": 1 / step},
            stop=lambda: "SIGTERM" if next(polls) == stop_at else None,
        )
        trainer.fit()

    with tempfile.TemporaryDirectory() as tmp:
        a, b = Path(tmp) / "a", Path(tmp) / "b"
        run(a, None)
        try:
            run(b, 5)
        except Exception as e:
            if type(e).__name__ != "Preempted":
                raise
        run(b, None)
        same = [
            (a / n).read_bytes() == (b / n).read_bytes()
            for n in ("metrics.jsonl", "best/w", "last/w")
        ]
    return Law(
        t("resumed equals uninterrupted", "이어서 학습 = 쉬지 않고 학습"),
        all(same),
        t(f"{same.count(False)} of 3 files differ", f"파일 3개 중 {same.count(False)}개가 다름"),
        t("0 bits", "0비트"),
    )


def a_bad_step_changes_no_weight(model: Model) -> Law:
    """Law 10: a loss that is not finite leaves every weight as it was."""
    net = shrunk(model).float()
    nowhere: Any = _Silence()
    trainer = Trainer(
        net=net,
        stream=Drill(net),
        config=TrainConfig(precision="fp32"),
        optim=OptimConfig(),
        seed=0,
        keeper=nowhere,
        log=nowhere,
        validate=lambda n, s: {},
    )
    before = {k: v.clone() for k, v in still(net).items()}
    trainer.gradients(1, [small_batch(net)])
    for p in trainer.trained[:1]:
        if p.grad is not None:
            p.grad.view(-1)[0] = float("nan")
    from .learn.loop import Position

    position, _, _ = trainer.update(Position(step=1), 1.0)
    changed = sum(not torch.equal(v, before[k]) for k, v in still(net).items())
    ok = not changed and position.skipped == 1 and position.applied == 0
    return Law(
        t("a bad step changes no weight", "나쁜 스텝은 가중치를 바꾸지 않는다"),
        ok,
        t(f"{changed} tensors changed", f"텐서 {changed}개가 바뀜"),
        "0",
    )


def still(net: nn.Module) -> dict[str, Tensor]:
    """All that only a step may change: a batch norm's running statistics change with every batch it reads."""
    return {k: v for k, v in state_of(net).items() if ".running_" not in k}


class _Silence:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *a, **k: None


LAWS: tuple[Callable[[Model], Law], ...] = (
    future_does_not_change_the_past,
    neighbours_do_not_change_an_answer,
    padding_holds_nothing,
    steps_equal_one_pass,
    beam_of_one_is_greedy,
    a_blind_row_gives_zeros,
    recording_changes_nothing,
    gradients_are_right,
    one_batch_is_learned_by_heart,
    resumed_is_uninterrupted,
    a_bad_step_changes_no_weight,
)
ANSWERING = (future_does_not_change_the_past, steps_equal_one_pass, beam_of_one_is_greedy)


def laws_of(model: Model) -> tuple[Callable[[Model], Law], ...]:
    """The laws that apply: those about answering only to a net that answers; a batch of pictures has no padding."""
    left = [] if answers(model.net) else list(ANSWERING)
    left += [padding_holds_nothing] if specimens.sees(model.net) else []
    return tuple(law for law in LAWS if law not in left)
