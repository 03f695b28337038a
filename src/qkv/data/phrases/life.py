"""Frames about what people do: habits, past, future, negation and questions."""

from . import actions as x
from . import english as e
from . import words as w
from .frame import YOU, Made, ask, clause, frame, say

I_WE = (w.I, w.WE)
REST = tuple(a for a in x.ONCE if a not in x.GO)
NOW = tuple(a for a in x.DAILY if a not in x.HOURS)


@frame("statements", 465, w.EVERYONE, x.DAILY, w.REGULARLY)
def every_day(who: w.Subject, do: x.Action, when: w.Phrase) -> Made:
    return say("present", do, when.ko, who=who), e.sentence(
        f"{clause(who, 'present', do, every=True)} {when.en}"
    )


@frame("statements", 120, x.DAILY, w.REGULARLY)
def i_every_day(do: x.Action, when: w.Phrase) -> Made:
    return say("present", do, when.ko), e.sentence(
        f"{clause(w.I, 'present', do, every=True)} {when.en}"
    )


@frame("statements", 315, (w.I, *w.EVERYONE), w.OFTEN, x.DAILY)
def often(who: w.Subject, how: w.Phrase, do: x.Action) -> Made:
    return say("present", do, how.ko, who=who), e.sentence(clause(who, "present", do, mid=how.en))


@frame("past", 420, w.EVERYONE, w.PAST_TIMES, x.ONCE + x.LOSE)
def third_past(who: w.Subject, when: w.Phrase, do: x.Action) -> Made:
    return say("past", do, when.ko, who=who), e.sentence(f"{clause(who, 'past', do)} {when.en}")


@frame("past", 315, w.PAST_TIMES, x.ONCE + x.LOSE)
def i_past(when: w.Phrase, do: x.Action) -> Made:
    return say("past", do, when.ko), e.sentence(f"{clause(w.I, 'past', do)} {when.en}")


@frame("future", 420, w.EVERYONE, w.FUTURE_TIMES, x.ONCE)
def third_plan(who: w.Subject, when: w.Phrase, do: x.Action) -> Made:
    return say("plan", do, when.ko, who=who), e.sentence(f"{clause(who, 'plan', do)} {when.en}")


@frame("future", 315, w.FUTURE_TIMES, x.ONCE)
def i_plan(when: w.Phrase, do: x.Action) -> Made:
    return say("plan", do, when.ko), e.sentence(f"{clause(w.I, 'plan', do)} {when.en}")


@frame("future", 195, w.FUTURE_TIMES, REST)
def promise(when: w.Phrase, do: x.Action) -> Made:
    return say("promise", do, when.ko), e.sentence(f"I'll {do.base} {do.tail()} {when.en}")


@frame("future", 60, x.TASKS)
def promise_now(do: x.Action) -> Made:
    return say("promise", do), e.sentence(f"I'll {do.base} {do.tail()}")


@frame("statements", 315, (w.I, *w.EVERYONE), NOW)
def right_now(who: w.Subject, do: x.Action) -> Made:
    return say("now", do, "지금", who=who), e.sentence(f"{clause(who, 'now', do)} now")


PLACED = tuple((a, p) for a in x.DAILY + x.BUY + x.MEET + x.WAIT for p in a.places)
PLACED_AT = tuple(w.Phrase(f"{a.ko}@{p.ko}", "") for a, p in PLACED)
AT = dict(zip(PLACED_AT, PLACED, strict=True))


@frame("places", 315, (w.I, *w.EVERYONE), w.PAST_TIMES, PLACED_AT)
def there(who: w.Subject, when: w.Phrase, what: w.Phrase) -> Made:
    do, place = AT[what]
    english = f"{clause(who, 'past', do)} {place.at} {when.en}"
    return say("past", do, f"{when.ko} {place.ko}에서", who=who), e.sentence(english)


@frame("places", 285, (w.I, *w.EVERYONE), PLACED_AT)
def there_now(who: w.Subject, what: w.Phrase) -> Made:
    do, place = AT[what]
    english = f"{clause(who, 'now', do)} {place.at}"
    return say("now", do, f"{place.ko}에서", who=who), e.sentence(english)


@frame("negation", 225, (w.I, *w.EVERYONE), x.DAILY)
def does_not(who: w.Subject, do: x.Action) -> Made:
    variants = say("present", do, who=who, adverb="안")
    if not who.respected:
        variants[1] = say("not", do, who=who)[1]
    return variants, e.sentence(clause(who, "present", do, negative=True))


@frame("negation", 270, (w.I, *w.EVERYONE), w.PAST_TIMES, x.ONCE)
def did_not(who: w.Subject, when: w.Phrase, do: x.Action) -> Made:
    variants = say("past", do, when.ko, who=who, adverb="안")
    if not who.respected:
        variants[1] = say("did not", do, when.ko, who=who)[1]
    return variants, e.sentence(f"{clause(who, 'past', do, negative=True)} {when.en}")


@frame("negation", 225, (w.I, *w.FRIENDS, *w.FAMILY), w.PAST_TIMES, x.ONCE)
def could_not(who: w.Subject, when: w.Phrase, do: x.Action) -> Made:
    english = clause(who, "couldn't", do) + " " + when.en
    return say("past", do, when.ko, who=who, adverb="못"), e.sentence(english)


@frame("negation", 180, (w.I, *w.EVERYONE), w.FUTURE_TIMES, x.ONCE)
def is_not_going_to(who: w.Subject, when: w.Phrase, do: x.Action) -> Made:
    english = f"{clause(who, 'plan', do, negative=True)} {when.en}"
    return say("plan", do, when.ko, who=who, adverb="안"), e.sentence(english)


@frame("negation", 120, x.EAT + x.MEAL + x.READ + x.CHORES + x.WRITE + x.CALL + x.BUY)
def not_yet(do: x.Action) -> Made:
    return say("past", do, "아직", adverb="안"), e.sentence(f"I haven't {e.participle(do.base)} {do.tail()} yet")  # fmt: skip


@frame("questions", 315, w.PAST_TIMES, x.ONCE)
def did_you(when: w.Phrase, do: x.Action) -> Made:
    return say("past", do, when.ko, end="?"), e.sentence(f"{ask(YOU, 'past', do)} {when.en}", "?")


@frame("questions", 255, w.FUTURE_TIMES, x.ONCE)
def are_you_going_to(when: w.Phrase, do: x.Action) -> Made:
    return say("plan", do, when.ko, end="?"), e.sentence(f"{ask(YOU, 'plan', do)} {when.en}", "?")


@frame("questions", 195, x.DAILY, w.REGULARLY)
def do_you(do: x.Action, when: w.Phrase) -> Made:
    return say("present", do, when.ko, end="?"), e.sentence(f"{ask(YOU, 'present', do)} {when.en}", "?")  # fmt: skip


@frame("questions", 165, w.EVERYONE[1:], w.PAST_TIMES, x.ONCE)
def did_they(who: w.Subject, when: w.Phrase, do: x.Action) -> Made:
    return say("past", do, when.ko, who=who, end="?"), e.sentence(f"{ask(who, 'past', do)} {when.en}", "?")  # fmt: skip


@frame("questions", 150, w.EVERYONE[1:], x.DAILY, w.REGULARLY)
def do_they(who: w.Subject, do: x.Action, when: w.Phrase) -> Made:
    return say("present", do, when.ko, who=who, end="?"), e.sentence(f"{ask(who, 'present', do)} {when.en}", "?")  # fmt: skip


@frame("questions", 98, w.EVERYONE[1:], NOW)
def are_they(who: w.Subject, do: x.Action) -> Made:
    return say("now", do, "지금", who=who, end="?"), e.sentence(f"{ask(who, 'now', do)} now", "?")


WH = w.phrases("어디에서=where,언제=when,왜=why")


@frame("questions", 225, WH, x.ONCE)
def why_did_you(wh: w.Phrase, do: x.Action) -> Made:
    if wh.en == "where" and do in x.GO:
        return None
    return say("past", do, wh.ko, end="?"), e.sentence(f"{wh.en} {ask(YOU, 'past', do)}", "?")


@frame("questions", 120, w.EVERYONE[1:], WH, x.BUY + x.MEET + x.MAKE)
def why_did_they(who: w.Subject, wh: w.Phrase, do: x.Action) -> Made:
    return say("past", do, wh.ko, who=who, end="?"), e.sentence(f"{wh.en} {ask(who, 'past', do)}", "?")  # fmt: skip


@frame("questions", 105, x.SOCIAL)
def with_whom(do: x.Action) -> Made:
    return say("past", do, "누구랑", end="?"), e.sentence(f"who {ask(YOU, 'past', do)} with", "?")


@frame(
    "questions",
    90,
    x.STUDY
    + x.CHORES
    + x.WORKING
    + (x.Action("", "", "일어나다", "get", "up"),)
    + x.OUTDOORS
    + x.MEAL
    + x.GO,
)
def what_time(do: x.Action) -> Made:
    return say("present", do, "몇 시에", end="?"), e.sentence(f"what time {ask(YOU, 'present', do)}", "?")  # fmt: skip


WHAT = w.phrases("먹다=eat,마시다=drink,사다=buy,읽다=read,보다=watch,배우다=learn,만들다=make,하다=do,요리하다=cook")  # fmt: skip


@frame("questions", 82, (YOU, *w.FRIENDS, *w.FAMILY), w.PAST_TIMES, WHAT)
def what_did(who: w.Subject, when: w.Phrase, do: w.Phrase) -> Made:
    act = x.Action("뭐", "", do.ko, do.en, "")
    english = f"what {ask(who, 'past', act)} {when.en}"
    return _asked("past", act, when, who), e.sentence(english, "?")


@frame("questions", 98, (YOU, *w.FRIENDS, *w.FAMILY), w.FUTURE_TIMES, WHAT)
def what_will(who: w.Subject, when: w.Phrase, do: w.Phrase) -> Made:
    act = x.Action("뭐", "", do.ko, do.en, "")
    return _asked("plan", act, when, who), e.sentence(
        f"what {ask(who, 'plan', act)} {when.en}", "?"
    )


def _asked(name: str, act: x.Action, when: w.Phrase, who: w.Subject) -> list[str]:
    return say(name, act, when.ko, who=w.I if who is YOU else who, end="?")


@frame("past", 150, w.phrases("네=yes,아니요=no"), w.PAST_TIMES, x.ONCE)
def answer(word: w.Phrase, when: w.Phrase, do: x.Action) -> Made:
    no = word.en == "no"
    casual, polite = say("past", do, when.ko, adverb="안" if no else "")
    variants = [f"{'아니' if no else '응'}, {casual}", f"{word.ko}, {polite}"]
    return variants, e.sentence(f"{word.en}, {clause(w.I, 'past', do, negative=no)} {when.en}")
