"""Frames about what people do: statements, negation, questions, wishes, duties, reasons, conditions."""

from . import actions as x
from . import english as e
from . import words as w
from .frame import BOTH, ENDINGS, YOU, Made, ask, clause, frame, levels, line, say, topic
from .hangul import particle
from .verbs import conjugate

I_WE = (w.I, w.WE)
REST = tuple(a for a in x.ONCE if a not in x.GO)
REASONS = w.phrases("바쁘다=busy,피곤하다=tired,아프다=sick")
OUTSIDE = w.phrases("비가 오다=it was raining,눈이 오다=it was snowing,춥다=it was cold,덥다=it was hot,시간이 없다=I didn't have time")  # fmt: skip
IFS = w.phrases("비가 오다=it rains,눈이 오다=it snows,춥다=it's cold,덥다=it's hot,시간이 있다=I have time,돈이 있다=I have money,피곤하다=I'm tired,심심하다=I'm bored,날씨가 좋다=the weather is good")  # fmt: skip


@frame("statements", 620, w.EVERYONE, x.DAILY, w.REGULARLY)
def every_day(who: w.Subject, do: x.Action, when: w.Phrase) -> Made:
    return say("present", do, when.ko, who=who), e.sentence(
        f"{clause(who, 'present', do)} {when.en}"
    )


@frame("statements", 160, x.DAILY, w.REGULARLY)
def i_every_day(do: x.Action, when: w.Phrase) -> Made:
    return say("present", do, when.ko), e.sentence(f"{clause(w.I, 'present', do)} {when.en}")


@frame("statements", 420, (w.I, *w.EVERYONE), w.OFTEN, x.DAILY)
def often(who: w.Subject, how: w.Phrase, do: x.Action) -> Made:
    return say("present", do, how.ko, who=who), e.sentence(clause(who, "present", do, mid=how.en))


@frame("past", 560, w.EVERYONE, w.PAST_TIMES, x.ONCE + x.LOSE)
def third_past(who: w.Subject, when: w.Phrase, do: x.Action) -> Made:
    return say("past", do, when.ko, who=who), e.sentence(f"{clause(who, 'past', do)} {when.en}")


@frame("past", 420, w.PAST_TIMES, x.ONCE + x.LOSE)
def i_past(when: w.Phrase, do: x.Action) -> Made:
    return say("past", do, when.ko), e.sentence(f"{clause(w.I, 'past', do)} {when.en}")


@frame("future", 560, w.EVERYONE, w.FUTURE_TIMES, x.ONCE)
def third_plan(who: w.Subject, when: w.Phrase, do: x.Action) -> Made:
    return say("plan", do, when.ko, who=who), e.sentence(f"{clause(who, 'plan', do)} {when.en}")


@frame("future", 420, w.FUTURE_TIMES, x.ONCE)
def i_plan(when: w.Phrase, do: x.Action) -> Made:
    return say("plan", do, when.ko), e.sentence(f"{clause(w.I, 'plan', do)} {when.en}")


@frame("future", 260, w.FUTURE_TIMES, REST + x.TASKS)
def promise(when: w.Phrase, do: x.Action) -> Made:
    return say("promise", do, when.ko), e.sentence(f"I'll {do.base} {do.tail()} {when.en}")


@frame("statements", 420, (w.I, *w.EVERYONE), x.DAILY)
def right_now(who: w.Subject, do: x.Action) -> Made:
    return say("now", do, "지금", who=who), e.sentence(f"{clause(who, 'now', do)} now")


PLACED = tuple((a, p) for a in x.DAILY + x.BUY + x.MEET + x.WAIT for p in a.places)
PLACED_AT = tuple(w.Phrase(f"{a.ko}@{p.ko}", "") for a, p in PLACED)
AT = dict(zip(PLACED_AT, PLACED, strict=True))


@frame("places", 420, (w.I, *w.EVERYONE), w.PAST_TIMES, PLACED_AT)
def there(who: w.Subject, when: w.Phrase, what: w.Phrase) -> Made:
    do, place = AT[what]
    english = f"{clause(who, 'past', do)} {place.at} {when.en}"
    return say("past", do, f"{when.ko} {place.ko}에서", who=who), e.sentence(english)


@frame("places", 380, (w.I, *w.EVERYONE), PLACED_AT)
def there_now(who: w.Subject, what: w.Phrase) -> Made:
    do, place = AT[what]
    english = f"{clause(who, 'now', do)} {place.at}"
    return say("now", do, f"{place.ko}에서", who=who), e.sentence(english)


@frame("negation", 300, (w.I, *w.EVERYONE), x.DAILY)
def does_not(who: w.Subject, do: x.Action) -> Made:
    name = "present"
    variants = say(name, do, who=who, adverb="안")
    if not who.respected:
        variants = [variants[0], say("not", do, who=who)[1]]
    return variants, e.sentence(clause(who, "present", do, negative=True))


@frame("negation", 360, (w.I, *w.EVERYONE), w.PAST_TIMES, x.ONCE)
def did_not(who: w.Subject, when: w.Phrase, do: x.Action) -> Made:
    variants = [say("past", do, when.ko, who=who, adverb="안")[0], say("did not", do, when.ko, who=who)[1]]  # fmt: skip
    return variants, e.sentence(f"{clause(who, 'past', do, negative=True)} {when.en}")


@frame("negation", 300, (w.I, *w.FRIENDS, *w.FAMILY), w.PAST_TIMES, x.ONCE)
def could_not(who: w.Subject, when: w.Phrase, do: x.Action) -> Made:
    english = clause(who, "couldn't", do) + " " + when.en
    return say("past", do, when.ko, who=who, adverb="못"), e.sentence(english)


@frame("negation", 240, (w.I, *w.EVERYONE), w.FUTURE_TIMES, x.ONCE)
def is_not_going_to(who: w.Subject, when: w.Phrase, do: x.Action) -> Made:
    english = f"{clause(who, 'plan', do, negative=True)} {when.en}"
    return say("plan", do, when.ko, who=who, adverb="안"), e.sentence(english)


@frame("negation", 160, x.EAT + x.MEAL + x.READ + x.CHORES + x.WRITE + x.CALL + x.BUY)
def not_yet(do: x.Action) -> Made:
    return say("past", do, "아직", adverb="안"), e.sentence(f"I haven't {e.participle(do.base)} {do.tail()} yet")  # fmt: skip


@frame("questions", 420, w.PAST_TIMES, x.ONCE)
def did_you(when: w.Phrase, do: x.Action) -> Made:
    return say("past", do, when.ko, end="?"), e.sentence(f"{ask(YOU, 'past', do)} {when.en}", "?")


@frame("questions", 340, w.FUTURE_TIMES, x.ONCE)
def are_you_going_to(when: w.Phrase, do: x.Action) -> Made:
    return say("plan", do, when.ko, end="?"), e.sentence(f"{ask(YOU, 'plan', do)} {when.en}", "?")


@frame("questions", 260, x.DAILY, w.REGULARLY)
def do_you(do: x.Action, when: w.Phrase) -> Made:
    return say("present", do, when.ko, end="?"), e.sentence(f"{ask(YOU, 'present', do)} {when.en}", "?")  # fmt: skip


@frame("questions", 220, w.EVERYONE[1:], w.PAST_TIMES, x.ONCE)
def did_they(who: w.Subject, when: w.Phrase, do: x.Action) -> Made:
    return say("past", do, when.ko, who=who, end="?"), e.sentence(f"{ask(who, 'past', do)} {when.en}", "?")  # fmt: skip


@frame("questions", 200, w.EVERYONE[1:], x.DAILY, w.REGULARLY)
def do_they(who: w.Subject, do: x.Action, when: w.Phrase) -> Made:
    return say("present", do, when.ko, who=who, end="?"), e.sentence(f"{ask(who, 'present', do)} {when.en}", "?")  # fmt: skip


@frame("questions", 130, w.EVERYONE[1:], x.DAILY)
def are_they(who: w.Subject, do: x.Action) -> Made:
    return say("now", do, "지금", who=who, end="?"), e.sentence(f"{ask(who, 'now', do)} now", "?")


WH = w.phrases("어디에서=where,언제=when,왜=why")


@frame("questions", 300, WH, x.ONCE)
def why_did_you(wh: w.Phrase, do: x.Action) -> Made:
    if wh.en == "where" and do in x.GO:
        return None
    return say("past", do, wh.ko, end="?"), e.sentence(f"{wh.en} {ask(YOU, 'past', do)}", "?")


@frame("questions", 160, w.EVERYONE[1:], WH, x.BUY + x.MEET + x.MAKE)
def why_did_they(who: w.Subject, wh: w.Phrase, do: x.Action) -> Made:
    return say("past", do, wh.ko, who=who, end="?"), e.sentence(f"{wh.en} {ask(who, 'past', do)}", "?")  # fmt: skip


@frame("questions", 140, x.ONCE)
def with_whom(do: x.Action) -> Made:
    if do in x.MEET + x.HELP + x.CALL:
        return None
    return say("past", do, "누구랑", end="?"), e.sentence(f"who {ask(YOU, 'past', do)} with", "?")


@frame("questions", 90, x.STUDY + x.CHORES + x.WORKING + x.OUTDOORS + x.MEAL + x.GO)
def what_time(do: x.Action) -> Made:
    return say("present", do, "몇 시에", end="?"), e.sentence(f"what time {ask(YOU, 'present', do)}", "?")  # fmt: skip


WHAT = w.phrases("먹다=eat,마시다=drink,사다=buy,읽다=read,보다=watch,배우다=learn,만들다=make,하다=do,요리하다=cook")  # fmt: skip


@frame("questions", 110, (YOU, *w.FRIENDS, *w.FAMILY), w.PAST_TIMES, WHAT)
def what_did(who: w.Subject, when: w.Phrase, do: w.Phrase) -> Made:
    act = x.Action("뭐", "", do.ko, do.en, "")
    english = f"what {ask(who, 'past', act)} {when.en}"
    return _asked("past", act, when, who), e.sentence(english, "?")


@frame("questions", 130, (YOU, *w.FRIENDS, *w.FAMILY), w.FUTURE_TIMES, WHAT)
def what_will(who: w.Subject, when: w.Phrase, do: w.Phrase) -> Made:
    act = x.Action("뭐", "", do.ko, do.en, "")
    return _asked("plan", act, when, who), e.sentence(
        f"what {ask(who, 'plan', act)} {when.en}", "?"
    )


def _asked(name: str, act: x.Action, when: w.Phrase, who: w.Subject) -> list[str]:
    return say(name, act, when.ko, who=w.I if who is YOU else who, end="?")


@frame("wishes", 300, w.FUTURE_TIMES, x.ONCE)
def want(when: w.Phrase, do: x.Action) -> Made:
    return say("want", do, when.ko), e.sentence(f"I want to {do.base} {do.tail()} {when.en}")


@frame("wishes", 110, x.DRINK + x.EAT + x.LEARN + x.WATCH + x.BUY[:20] + x.HOBBY + x.GO)
def want_now(do: x.Action) -> Made:
    return say("want", do), e.sentence(f"I want to {do.base} {do.tail()}")


@frame("wishes", 120, x.ONCE)
def do_not_want(do: x.Action) -> Made:
    variants = [line(do.say(f"고 싶지 않{end}", casual)) for casual, end in zip(BOTH, ("아", "아요"), strict=True)]  # fmt: skip
    return variants, e.sentence(f"I don't want to {do.base} {do.tail()}")


@frame("wishes", 120, w.JOBS, (w.I, *w.FRIENDS, *w.FAMILY[2:]))
def become(job: w.Noun, who: w.Subject) -> Made:
    goal = particle(job.ko, "이/가")
    verb = "wants" if who.agree in ("he", "she") else "want"
    if who is w.I:
        variants = levels("되다", "want", goal)
    else:
        variants = [
            line(topic(who, casual), goal, "되고 싶어" + end)
            for casual, end in zip(BOTH, ("해", "해요"), strict=True)
        ]
    return variants, e.sentence(f"{who.en} {verb} to become {job.one}")


@frame("duties", 300, (w.I, *w.FRIENDS, *w.FAMILY), w.FUTURE_TIMES, REST)
def must(who: w.Subject, when: w.Phrase, do: x.Action) -> Made:
    have = "has to" if who.agree in ("he", "she") else "have to"
    return say("must", do, when.ko, who=who), e.sentence(f"{clause(who, have, do)} {when.en}")


@frame("duties", 150, w.PAST_TIMES, REST)
def had_to(when: w.Phrase, do: x.Action) -> Made:
    return say("had to", do, when.ko), e.sentence(f"I had to {do.base} {do.tail()} {when.en}")


HERE = x.DRINK + x.EAT + x.READ[:3] + x.PLAY[:2] + x.PHOTO + x.LISTEN + x.WRITE + x.HOBBY[:1] + x.HOBBY[3:] + x.WORKING[1:] + x.SWIM + x.SPORT + x.OUTDOORS[1:]  # fmt: skip
HERE_AT = w.phrases("여기에서=here,공원에서=in the park,도서관에서=at the library,바닷가에서=on the beach,교실에서=in the classroom")  # fmt: skip


@frame("duties", 230, HERE_AT, HERE)
def may_i(place: w.Phrase, do: x.Action) -> Made:
    return say("may", do, place.ko, end="?"), e.sentence(f"may I {do.base} {do.tail()} {place.en}", "?")  # fmt: skip


@frame("duties", 200, HERE_AT, HERE)
def must_not(place: w.Phrase, do: x.Action) -> Made:
    return say("may not", do, place.ko), e.sentence(f"you must not {do.base} {do.tail('you')} {place.en}")  # fmt: skip


@frame("ability", 200, (w.I, *w.EVERYONE), x.SKILLS)
def can(who: w.Subject, do: x.Action) -> Made:
    if who.respected:
        return None
    return say("can", do, who=who), e.sentence(clause(who, "can", do))


@frame("ability", 130, w.FUTURE_TIMES, REST)
def cannot(when: w.Phrase, do: x.Action) -> Made:
    return say("cannot", do, when.ko), e.sentence(f"I can't {do.base} {do.tail()} {when.en}")


@frame("ability", 60, x.SKILLS)
def know_how(do: x.Action) -> Made:
    return say("know how", do, end="?"), e.sentence(f"do you know how to {do.base} {do.tail('you')}", "?")  # fmt: skip


@frame("ability", 70, x.EAT + x.DRINK + x.WEAR)
def ever_tried(do: x.Action) -> Made:
    rest = {"coat": ""}.get(do.rest, do.tail("you"))
    verb = "wear" if do in x.WEAR else do.base
    return say("tried", do, end="?"), e.sentence(f"have you ever {e.participle(verb)} {rest}", "?")


@frame("ability", 40, w.CITIES + w.BUILDINGS)
def ever_been(place: w.Place) -> Made:
    return levels("가다", "tried", f"{place.ko}에", "?"), e.sentence(f"have you ever been {place.to}", "?")  # fmt: skip


@frame("reasons", 220, REASONS, w.PAST_TIMES, x.ONCE)
def too_busy(why: w.Phrase, when: w.Phrase, do: x.Action) -> Made:
    head = f"{when.ko} {conjugate(why.ko, '아/어서')}"
    english = f"I was {why.en}, so I couldn't {do.base} {do.tail()} {when.en}"
    return say("past", do, head, adverb="못"), e.sentence(english)


@frame("reasons", 200, OUTSIDE, x.ONCE)
def because(why: w.Phrase, do: x.Action) -> Made:
    english = f"I couldn't {do.base} {do.tail()} because {why.en}"
    return say("past", do, conjugate(why.ko, "아/어서"), adverb="못"), e.sentence(english)


INDOORS = x.WORKING[2:] + x.DRINK + x.MEAL[:0] + x.READ + x.WATCH + x.LISTEN + x.CHORES + x.MAKE + x.HOBBY[:1]  # fmt: skip


@frame("reasons", 200, IFS[:4], INDOORS)
def if_weather(if_: w.Phrase, do: x.Action) -> Made:
    return say("plan", do, conjugate(if_.ko, "(으)면")), e.sentence(f"if {if_.en}, I'm going to {do.base} {do.tail()}")  # fmt: skip


@frame("reasons", 200, IFS[4:6] + IFS[7:], x.OUTDOORS + x.HOBBY + x.MEET + x.GO[3:] + x.SPORT + x.BUY + x.SWIM + x.PHOTO)  # fmt: skip
def if_free(if_: w.Phrase, do: x.Action) -> Made:
    return say("want", do, conjugate(if_.ko, "(으)면")), e.sentence(f"I want to {do.base} {do.tail()} if {if_.en}")  # fmt: skip


ERRANDS = {
    w.MARKET: x.BUY[18:29], w.MALL: x.BUY[:18], w.BOOKSHOP: x.BUY[29:], w.PARK: x.OUTDOORS + x.PHOTO,
    w.LIBRARY: x.STUDY + x.READ, w.CAFE: x.DRINK[:12] + x.MEET, w.DINER: x.MEAL[1:] + x.EAT[:14],
    w.BEACH: x.SWIM + x.PHOTO, w.STATION: x.MEET + x.RIDE[3:4], w.CINEMA: x.WATCH[:1],
}  # fmt: skip
TRIPS = {w.Phrase(f"{a.ko}>{p.ko}", ""): (a, p) for p, acts in ERRANDS.items() for a in acts}


@frame("places", 330, (w.I, *w.EVERYONE), tuple(TRIPS), w.PAST_TIMES)
def went_to(who: w.Subject, trip: w.Phrase, when: w.Phrase) -> Made:
    do, place = TRIPS[trip]
    go = x.Action(place.ko, "에", "가다", "go", f"{place.to} to {do.base} {do.tail(who.pronoun)}")
    errand = do.say("(으)러", False)
    before = f"{when.ko} {errand}"
    return say("past", go, before, who=who), e.sentence(f"{clause(who, 'past', go)} {when.en}")


@frame("places", 200, tuple(TRIPS), w.FUTURE_TIMES)
def shall_we_go(trip: w.Phrase, when: w.Phrase) -> Made:
    do, place = TRIPS[trip]
    go = x.Action(place.ko, "에", "가다", "go", "")
    english = f"shall we go {place.to} to {do.base} {do.tail('we')} {when.en}"
    return say("shall", go, f"{when.ko} {do.say('(으)러', False)}", end="?"), e.sentence(english, "?")  # fmt: skip


@frame("reasons", 200, x.WORKING[2:3] + x.MEAL + x.CHORES + x.OUTDOORS[1:] + x.STUDY[:2], x.READ + x.DRINK + x.WATCH + x.LISTEN + x.OUTDOORS + x.CALL + x.WASH[:1] + x.WRITE, ("전", "후"))  # fmt: skip
def before_after(first: x.Action, do: x.Action, order: str) -> Made:
    if first.noun == do.noun:
        return None
    head = first.say("기 전에" if order == "전" else "(으)ㄴ 후에", False)
    word = "before" if order == "전" else "after"
    english = f"I {do.base} {do.tail()} {word} {e.gerund(first.base)} {first.tail()}"
    return say("present", do, head), e.sentence(english)


@frame("reasons", 150, (w.I, *w.FRIENDS, *w.FAMILY), x.LISTEN + x.DRINK[:6] + x.WATCH[2:4], x.STUDY + x.CHORES + x.HOBBY[:1] + x.READ + x.WRITE + x.OUTDOORS)  # fmt: skip
def while_doing(who: w.Subject, first: x.Action, do: x.Action) -> Made:
    head = first.say("(으)면서", False)
    english = f"{clause(who, 'present', do)} while {e.gerund(first.base)} {first.tail(who.pronoun)}"
    return say("present", do, head, who=who), e.sentence(english)


MADE_THINGS = x.MAKE[:4] + x.BUY[:18] + x.READ[:3] + x.WRITE
RELATIVE = {"사다": "bought", "만들다": "made", "읽다": "read", "쓰다": "wrote"}


@frame("statements", 200, (w.I, *w.FRIENDS, *w.FAMILY), MADE_THINGS, ("", "어제", "지난주에"))
def this_is_what(who: w.Subject, do: x.Action, when: str) -> Made:
    noun = do.rest.removeprefix("a ").removeprefix("an ")
    time = {"": "", "어제": "yesterday", "지난주에": "last week"}[when]
    verb = conjugate(do.verb, "(으)ㄴ")
    these = "these are" if noun.endswith("s") and noun not in ("dress",) else "this is"
    variants = []
    for casual, pair in zip(BOTH, ("이야/야", "이에요/예요"), strict=True):
        by = ("내가" if casual else "제가") if who is w.I else particle(who.casual if casual else who.polite, "이/가")  # fmt: skip
        variants.append(line("이건", when, by, verb, particle(do.noun, pair)))
    return variants, e.sentence(f"{these} the {noun} {who.en} {RELATIVE[do.verb]} {time}")


@frame("suggestions", 200, w.EVERYONE[1:], x.SOCIAL, w.PAST_TIMES)
def together_with(who: w.Subject, do: x.Action, when: w.Phrase) -> Made:
    variants = []
    for casual in BOTH:
        ending = ENDINGS["past"][not casual]
        friend = who.casual if casual else who.polite
        pair = "이랑/랑" if casual else "과/와"
        variants.append(line(when.ko, particle(friend, pair), do.say(ending, casual)))
    with_ = {"he": "him", "she": "her", "they": "them"}.get(who.en, who.en)
    return variants, e.sentence(f"I {e.past(do.base)} {do.tail()} with {with_} {when.en}")
