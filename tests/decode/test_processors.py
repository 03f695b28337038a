"""What may come next: each rule equals the reference's on random scores, and does what it says in a search."""

import numpy as np
import pytest
import torch
from decode_fakes import EOS, START, SumNet, TableNet, batch_of
from transformers.generation import logits_process as theirs

from qkv.decode.answer import SearchConfig, rank_score
from qkv.decode.processors import Past
from qkv.decode.search import search
from qkv.errors import ConfigError

R, V, T = 5, 13, 9


def setting(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 4, (R, T), generator=g), torch.randn(R, V, generator=g)


@pytest.mark.parametrize("penalty", [0.5, 1.3, 2.0])
def test_repetition_penalty(penalty):
    ids, scores = setting()
    want = theirs.RepetitionPenaltyLogitsProcessor(penalty)(ids, scores.clone())
    past = Past(SearchConfig(repetition_penalty=penalty), ids.tolist(), (EOS,))
    assert torch.equal(past.penalised(scores), want) and not torch.equal(want, scores)


@pytest.mark.parametrize("n", [1, 2, 3, 12])
def test_no_n_gram_twice(n):
    ids, scores = setting()
    want = theirs.NoRepeatNGramLogitsProcessor(n)(ids, scores.clone())
    Past(SearchConfig(no_repeat_ngram_size=n), ids.tolist(), (EOS,)).restrict(
        scores, 3, np.full(R, 9)
    )
    assert torch.equal(scores, want) and ((want == -torch.inf).any() or n == 12)


def test_bad_words():
    ids, scores = setting()
    words = [[5], [EOS], [3, 6], ids[1, -2:].tolist() + [7], list(range(12))]
    want = theirs.NoBadWordsLogitsProcessor(words, eos_token_id=torch.tensor([EOS]))
    made = want(ids, scores.clone())
    config = SearchConfig(bad_words=tuple(map(tuple, words)))
    Past(config, ids.tolist(), (EOS,)).restrict(scores, 3, np.full(R, 9))
    assert torch.equal(scores, made) and (made[1] == -torch.inf).sum() >= 2


def test_forced_tokens_cost_nothing_and_stand_first_and_last():
    net = SumNet(V=20, seed=1)
    sources = batch_of([[3, 4], [5, 6, 7], [8]])
    for how in (dict(), dict(beam=3, nbest=3, penalty="length"), dict(temperature=1.0)):
        config = SearchConfig(forced_first=9, forced_last=EOS, max_new_tokens=6, **how)
        for answers in search(net, sources, config):
            for h in answers:
                assert h.ids[0] == 9 and h.token_scores[0] == 0.0 and h.finished
                assert len(h.ids) < 5 or h.token_scores[-1] == 0.0


def test_every_end_ends():
    net = SumNet(V=12, seed=4)
    sources = batch_of([[3 + i, 4] for i in range(8)])
    plain = search(net, sources, SearchConfig(max_new_tokens=20))
    other = plain[0][0].ids[2]
    for h, (was,) in zip(
        search(net, sources, SearchConfig(max_new_tokens=20, eos_ids=(other,))), plain, strict=True
    ):
        cut = was.ids.index(other) if other in was.ids else len(was.ids)
        assert h[0].ids == was.ids[:cut] and h[0].finished == (was.finished or other in was.ids)


@pytest.mark.parametrize("how", [{}, {"beam": 3}], ids=str)
def test_ends_beyond_the_vocabulary_never_come(how):
    net, sources = SumNet(V=12, seed=4), batch_of([[3, 4], [5]])
    rules = dict(max_new_tokens=9, min_new_tokens=3) | how
    want = search(net, sources, SearchConfig(**rules))
    assert search(net, sources, SearchConfig(eos_ids=(12, 99), **rules)) == want


@pytest.mark.parametrize("how", [{}, {"beam": 3}, {"temperature": 1.0}], ids=str)
@pytest.mark.parametrize(
    "wrong", [{"forced_first": 12}, {"forced_last": 12}, {"bad_words": ((3, 12),)}, {"bad_words": ((12,),)}],
    ids=str,
)  # fmt: skip
def test_settings_of_ids_that_a_model_does_not_have_are_named(wrong, how):
    with pytest.raises(ConfigError, match=next(iter(wrong))) as e:
        search(SumNet(V=12), batch_of([[3, 4]]), SearchConfig(max_new_tokens=5, **wrong, **how))
    assert "12" in e.value.seen and e.value.fix


def test_a_beam_of_many_ends_keeps_its_width():
    """Five of eight ids end: three live hypotheses are still found among the rest (brute force of one step)."""
    table = torch.zeros(97, 8)
    table[:, 3:] = torch.tensor([0.5, 4.0, 3.0, 2.0, 1.0])
    config = SearchConfig(beam=3, nbest=3, max_new_tokens=2, eos_ids=(4, 5, 6, 7), penalty="length")
    found = search(TableNet(table), batch_of([[3]]), config)[0]
    assert [h.ids for h in found] == [(), (), ()] and all(h.finished for h in found)
    scores = torch.log_softmax(table[0], 0)[[4, 5, 6]].tolist()
    assert [h.score for h in found] == pytest.approx(scores)


def test_bans_hold_in_greedy_and_in_a_beam():
    net = SumNet(V=30, seed=2)
    sources = batch_of([[3 + i, 9, 4] for i in range(6)])
    rules = dict(max_new_tokens=15, no_repeat_ngram_size=2, bad_words=((7,), (8, 9)))
    greedy = search(net, sources, SearchConfig(**rules))
    beam = search(net, sources, SearchConfig(beam=2, nbest=1, **rules))
    for (h,), (b,) in zip(greedy, beam, strict=True):
        for ids in (h.ids, b.ids):
            fed = (START, *ids)
            pairs = list(zip(fed, fed[1:], strict=False))
            assert len(set(pairs)) == len(pairs) and 7 not in ids and (8, 9) not in pairs


def test_the_penalty_of_the_length():
    assert rank_score(-6.0, 4, SearchConfig(penalty="length", alpha=0.5)) == -3.0
    assert rank_score(-6.0, 7, SearchConfig(alpha=1.0)) == -3.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"repetition_penalty": 0.0},
        {"repetition_penalty": -1.0},
        {"no_repeat_ngram_size": -1},
        {"bad_words": ((),)},
        {"bad_words": ((1, -2),)},
        {"eos_ids": (1.5,)},
        {"penalty": "longer"},
        {"early_stopping": "sometimes"},
        {"early_stopping": 1},
        {"alpha": -1.0},
        {"alpha": -11.0, "penalty": "length"},
        {"forced_first": "a"},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError) as e:
        SearchConfig(**wrong)
    assert e.value.code in ("QKV-011", "QKV-012") and e.value.fix
