"""Frames of two parts: wishes, duties, abilities, reasons, conditions, errands, things made by somebody."""

from . import actions as x
from . import english as e
from . import words as w
from .frame import BOTH, ENDINGS, Made, clause, frame, levels, line, say, topic
from .hangul import particle
from .verbs import conjugate

REASONS = w.phrases("바쁘다=busy,피곤하다=tired,아프다=sick")
OUTSIDE = w.phrases("비가 오다=it was raining,눈이 오다=it was snowing,춥다=it was cold,덥다=it was hot,시간이 없다=I didn't have time")  # fmt: skip
IFS = w.phrases("비가 오다=it rains,눈이 오다=it snows,춥다=it's cold,덥다=it's hot,시간이 있다=I have time,돈이 있다=I have money,피곤하다=I'm tired,심심하다=I'm bored,날씨가 좋다=the weather is good")  # fmt: skip


@frame("wishes", 225, w.FUTURE_TIMES, x.ONCE)
def want(when: w.Phrase, do: x.Action) -> Made:
    return say("want", do, when.ko), e.sentence(f"I want to {do.base} {do.tail()} {when.en}")


@frame("wishes", 82, x.DRINK + x.EAT + x.LEARN + x.WATCH + x.BUY[:20] + x.HOBBY + x.GO)
def want_now(do: x.Action) -> Made:
    return say("want", do), e.sentence(f"I want to {do.base} {do.tail()}")


@frame("wishes", 90, x.ONCE)
def do_not_want(do: x.Action) -> Made:
    variants = [line(do.say(f"고 싶지 않{end}", casual)) for casual, end in zip(BOTH, ("아", "아요"), strict=True)]  # fmt: skip
    return variants, e.sentence(f"I don't want to {do.base} {do.tail()}")


@frame("wishes", 90, w.JOBS, (w.I, *w.FRIENDS, *w.FAMILY[2:]))
def become(job: w.Noun, who: w.Subject) -> Made:
    goal = particle(job.ko, "이/가")
    verb = "wants" if who.agree in ("he", "she") else "want"
    if who is w.I:
        variants = levels("되다", "want", goal)
    else:
        variants = [
            line(topic(who, casual), goal, "되고 싶어 " + end)
            for casual, end in zip(BOTH, ("해", "해요"), strict=True)
        ]
    return variants, e.sentence(f"{who.en} {verb} to become {job.one}")


@frame("duties", 225, (w.I, *w.FRIENDS, *w.FAMILY), w.FUTURE_TIMES, x.DUTIES)
def must(who: w.Subject, when: w.Phrase, do: x.Action) -> Made:
    have = "has to" if who.agree in ("he", "she") else "have to"
    return say("must", do, when.ko, who=who), e.sentence(f"{clause(who, have, do)} {when.en}")


@frame("duties", 112, w.PAST_TIMES, x.DUTIES)
def had_to(when: w.Phrase, do: x.Action) -> Made:
    return say("had to", do, when.ko), e.sentence(f"I had to {do.base} {do.tail()} {when.en}")


HERE = x.DRINK + x.EAT + x.READ[:3] + x.PLAY[:2] + x.PHOTO + x.LISTEN + x.WRITE + x.HOBBY[:1] + x.HOBBY[3:] + x.WORKING[1:] + x.SWIM + x.SPORT + x.OUTDOORS[1:]  # fmt: skip
HERE_AT = w.phrases("여기에서=here,공원에서=in the park,도서관에서=at the library,바닷가에서=on the beach,교실에서=in the classroom")  # fmt: skip


@frame("duties", 172, HERE_AT, HERE)
def may_i(place: w.Phrase, do: x.Action) -> Made:
    return say("may", do, place.ko, end="?"), e.sentence(f"may I {do.base} {do.tail()} {place.en}", "?")  # fmt: skip


@frame("duties", 150, HERE_AT, HERE)
def must_not(place: w.Phrase, do: x.Action) -> Made:
    return say("may not", do, place.ko), e.sentence(f"you must not {do.base} {do.tail('you', True)} {place.en}")  # fmt: skip


@frame("ability", 150, (w.I, *w.EVERYONE), x.SKILLS)
def can(who: w.Subject, do: x.Action) -> Made:
    if who.respected:
        return None
    return say("can", do, who=who), e.sentence(clause(who, "can", do))


@frame("ability", 98, w.FUTURE_TIMES, x.DUTIES)
def cannot(when: w.Phrase, do: x.Action) -> Made:
    return say("cannot", do, when.ko), e.sentence(f"I can't {do.base} {do.tail()} {when.en}")


@frame("ability", 60, x.SKILLS)
def know_how(do: x.Action) -> Made:
    return say("know how", do, end="?"), e.sentence(f"do you know how to {do.base} {do.tail('you')}", "?")  # fmt: skip


@frame("ability", 70, x.EAT[:14] + x.DRINK[:6] + x.DRINK[12:16] + x.WEAR)
def ever_tried(do: x.Action) -> Made:
    english = f"have you ever {e.participle(do.base)} {do.tail('you')}"
    return say("tried", do, end="?"), e.sentence(english, "?")


@frame("ability", 40, (*w.CITIES, *w.BUILDINGS[5:], w.BEACH, w.POOL))
def ever_been(place: w.Place) -> Made:
    return levels("가다", "tried", f"{place.ko}에", "?"), e.sentence(f"have you ever been {place.to}", "?")  # fmt: skip


@frame("reasons", 165, REASONS, w.PAST_TIMES, x.ONCE)
def too_busy(why: w.Phrase, when: w.Phrase, do: x.Action) -> Made:
    head = f"{when.ko} {conjugate(why.ko, '아/어서')}"
    english = f"I was {why.en}, so I couldn't {do.base} {do.tail()} {when.en}"
    return say("past", do, head, adverb="못"), e.sentence(english)


OUTINGS = x.OUTDOORS + x.SPORT + x.GO[3:] + x.SWIM + x.PHOTO + x.WALK + x.HOBBY[1:3] + x.MEET + x.RIDE[4:]  # fmt: skip


@frame("reasons", 150, OUTSIDE, x.ONCE)
def because(why: w.Phrase, do: x.Action) -> Made:
    if why is not OUTSIDE[-1] and do not in OUTINGS:
        return None
    english = f"I couldn't {do.base} {do.tail()} because {why.en}"
    return say("past", do, conjugate(why.ko, "아/어서"), adverb="못"), e.sentence(english)


INDOORS = x.WORKING[1:2] + x.WORKING[3:] + x.DRINK + x.READ + x.WATCH + x.LISTEN + x.CHORES + x.MAKE + x.HOBBY[:1]  # fmt: skip


@frame("reasons", 150, IFS[:4], INDOORS)
def if_weather(if_: w.Phrase, do: x.Action) -> Made:
    return say("plan", do, conjugate(if_.ko, "(으)면")), e.sentence(f"if {if_.en}, I'm going to {do.base} {do.tail()}")  # fmt: skip


FUN = tuple(
    a for a in x.GO if a.noun in ("공원", "도서관", "카페", "바닷가", "수영장", "영화관", "박물관")
)
AWAY = tuple(a for a in x.GO if a.noun in [city.ko for city in w.CITIES])
FRESH = (
    x.OUTDOORS + x.SPORT[:3] + x.PHOTO + x.SWIM + x.WALK + x.RIDE[4:] + AWAY + FUN[:1] + FUN[3:5]
)
SUITS = {  # what one would like to do, by condition
    "시간이 있다": x.OUTDOORS
    + x.HOBBY
    + x.MEET
    + FUN
    + x.SPORT
    + x.READ
    + x.WATCH
    + x.LEARN
    + AWAY,
    "돈이 있다": x.BUY[:18] + x.HOBBY[1:3] + AWAY,
    "심심하다": x.WATCH + x.SPORT + x.MEET + FUN + x.LISTEN + x.HOBBY + x.CALL,
    "날씨가 좋다": FRESH,
}
WISHES = {w.Phrase(f"{c}>{a.ko}", ""): (c, a) for c, acts in SUITS.items() for a in acts}


@frame("reasons", 160, tuple(WISHES))
def if_free(wish: w.Phrase) -> Made:
    if_, do = WISHES[wish]
    english = f"I want to {do.base} {do.tail()} if {dict(IFS)[if_]}"
    return say("want", do, conjugate(if_, "(으)면")), e.sentence(english)


ERRANDS = {
    w.MARKET: x.BUY[18:29], w.MALL: x.BUY[:18], w.BOOKSHOP: x.BUY[29:], w.PARK: x.OUTDOORS + x.PHOTO,
    w.LIBRARY: x.STUDY + x.READ, w.CAFE: x.DRINK[:12] + x.MEET, w.DINER: x.MEAL[1:] + x.EAT[:14],
    w.BEACH: x.SWIM + x.PHOTO, w.STATION: x.MEET + x.RIDE[3:4], w.CINEMA: x.WATCH[:1],
}  # fmt: skip
TRIPS = {w.Phrase(f"{a.ko}>{p.ko}", ""): (a, p) for p, acts in ERRANDS.items() for a in acts}


@frame("places", 248, (w.I, *w.EVERYONE), tuple(TRIPS), w.PAST_TIMES)
def went_to(who: w.Subject, trip: w.Phrase, when: w.Phrase) -> Made:
    do, place = TRIPS[trip]
    go = x.Action(place.ko, "에", "가다", "go", f"{place.to} to {do.base} {do.tail(who.pronoun)}")
    errand = do.say("(으)러", False)
    before = f"{when.ko} {errand}"
    return say("past", go, before, who=who), e.sentence(f"{clause(who, 'past', go)} {when.en}")


@frame("places", 150, tuple(TRIPS), w.FUTURE_TIMES)
def shall_we_go(trip: w.Phrase, when: w.Phrase) -> Made:
    do, place = TRIPS[trip]
    go = x.Action(place.ko, "에", "가다", "go", "")
    english = f"shall we go {place.to} to {do.base} {do.tail('we')} {when.en}"
    return say("shall", go, f"{when.ko} {do.say('(으)러', False)}", end="?"), e.sentence(english, "?")  # fmt: skip


@frame("reasons", 150, x.WORKING[3:] + x.MEAL + x.CHORES + x.OUTDOORS[1:] + x.STUDY[:2], x.READ + x.DRINK[:12] + x.WATCH + x.LISTEN + x.OUTDOORS + x.CALL + x.WASH[:1] + x.WRITE, ("전", "후"))  # fmt: skip
def before_after(first: x.Action, do: x.Action, order: str) -> Made:
    if first.noun == do.noun:
        return None
    head = first.say("기 전에" if order == "전" else "(으)ㄴ 후에", False)
    word = "before" if order == "전" else "after"
    english = f"I {do.base} {do.tail()} {word} {e.gerund(first.base)} {first.tail()}"
    return say("present", do, head), e.sentence(english)


@frame("reasons", 112, (w.I, *w.FRIENDS, *w.FAMILY), x.LISTEN + x.DRINK[:6] + x.WATCH[2:4], x.STUDY + x.CHORES + x.HOBBY[:1] + x.READ + x.WRITE + x.OUTDOORS)  # fmt: skip
def while_doing(who: w.Subject, first: x.Action, do: x.Action) -> Made:
    head = first.say("(으)면서", False)
    english = f"{clause(who, 'present', do)} while {e.gerund(first.base)} {first.tail(who.pronoun)}"
    return say("present", do, head, who=who), e.sentence(english)


MADE_THINGS = x.MAKE[:4] + x.BUY[:18] + x.READ[:3] + x.WRITE
RELATIVE = {"사다": "bought", "만들다": "made", "읽다": "read", "쓰다": "wrote"}


@frame("statements", 150, (w.I, *w.FRIENDS, *w.FAMILY), MADE_THINGS, ("", "어제", "지난주에"))
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


@frame("past", 150, w.EVERYONE[1:], x.SOCIAL, w.PAST_TIMES)
def together_with(who: w.Subject, do: x.Action, when: w.Phrase) -> Made:
    variants = []
    for casual in BOTH:
        ending = ENDINGS["past"][not casual]
        friend = who.casual if casual else who.polite
        pair = "이랑/랑" if casual else "과/와"
        variants.append(line(when.ko, particle(friend, pair), do.say(ending, casual)))
    with_ = {"he": "him", "she": "her", "they": "them"}.get(who.en, who.en)
    return variants, e.sentence(f"I {e.past(do.base)} {do.tail()} with {with_} {when.en}")
