"""Frames about people, what is theirs, and their days: jobs, belongings, birthdays, hours."""

from . import english as e
from . import words as w
from .frame import BOTH, ENDINGS, Made, copula, frame, levels, line, topic, yours
from .hangul import particle
from .verbs import conjugate

PEOPLE = w.FRIENDS + w.FAMILY


@frame("family", 150, (w.I, *PEOPLE), w.JOBS, ("is", "not", "was"))
def job(who: w.Subject, work: w.Noun, how: str) -> Made:
    now = e.be(who.agree)
    be = {"is": e.short(who.en, now), "not": e.is_not(who.en, now), "was": f"{who.en} was"}[how]
    made = []
    for casual in BOTH:
        subject = particle("나" if casual else "저", "은/는") if who is w.I else topic(who, casual)
        if how == "is":
            word = particle(work.ko, "이야/야" if casual else "이에요/예요")
        elif how == "was":
            word = particle(work.ko, "이었어/였어" if casual else "이었어요/였어요")
        else:
            word = particle(work.ko, "이/가") + (" 아니야" if casual else " 아니에요")
        made.append(line(subject, word))
    if how == "is" and who is w.I:
        made.append(f"저는 {work.ko}입니다.")
    return made, e.sentence(f"{be} {work.one}")


@frame("family", 60, PEOPLE, w.JOBS)
def is_job(who: w.Subject, work: w.Noun) -> Made:
    made = [line(topic(who, c), particle(work.ko, p), end="?") for c, p in zip(BOTH, ("이야/야", "이에요/예요"), strict=True)]  # fmt: skip
    return made, e.sentence(f"is {yours(who)} {work.one}", "?")


OWNED = w.GOODS[:6] + w.SMALL[:3] + w.CLOTHES[:2] + w.ANIMALS[:3] + w.FURNITURE[:1] + w.TICKETS


@frame("family", 150, (w.I, *PEOPLE), OWNED, ("있다", "없다"))
def has(who: w.Subject, thing: w.Noun, verb: str) -> Made:
    third = who.agree in ("he", "she")
    said = (
        ("has" if third else "have") if verb == "있다" else f"{'does' if third else 'do'}n't have"
    )
    made = []
    for casual, ending in zip(BOTH, ENDINGS["present"], strict=True):
        subject = particle("나" if casual else "저", "은/는") if who is w.I else topic(who, casual)
        made.append(line(subject, particle(thing.ko, "이/가"), conjugate(verb, ending)))
    return made, e.sentence(f"{who.en} {said} {thing.one}")


@frame("family", 70, w.NUMBERS[:5], w.ANIMALS + w.SMALL[3:] + w.READING[:1] + w.TICKETS + w.FRUIT)
def has_many(number: w.Phrase, thing: w.Noun) -> Made:
    noun = thing.en if number.en == "one" else thing.all
    made = levels("있다", "present", f"{particle(thing.ko, '이/가')} {number.ko} {thing.unit}")
    return made, e.sentence(f"I have {number.en} {noun}")


@frame("family", 150, ("나", *PEOPLE), w.GIFTS + w.SMALL)
def whose(who: w.Subject | str, thing: w.Noun) -> Made:
    verb = "are" if thing.kind == "plural" else "is"
    if isinstance(who, str):
        made = [f"이 {particle(thing.ko, '은/는')} {mine} 거{end}." for mine, end in (("내", "야"), ("제", "예요"))]  # fmt: skip
        return made, e.sentence(f"{thing.this} {verb} mine")
    made = [f"이 {particle(thing.ko, '은/는')} {name} 거{end}." for name, end in ((who.casual, "야"), (who.polite, "예요"))]  # fmt: skip
    return made, e.sentence(f"{thing.this} {verb} {who.en}'s")


@frame("time", 98, (w.I, *PEOPLE), w.MONTHS)
def birthday(who: w.Subject, month: w.Phrase) -> Made:
    owner = "my" if who is w.I else f"{who.en}'s"
    names = ("내", "제") if who is w.I else (who.casual, who.polite)
    made = [f"{name} 생일은 {month.ko}{end}." for name, end in zip(names, ("이야", "이에요"), strict=True)]  # fmt: skip
    return made, e.sentence(f"{owner} birthday is in {month.en}")


EVENTS = w.phrases(
    "시험=exam,수업=class,회의=meeting,파티=party,콘서트=concert,영화=movie,경기=game"
)


@frame("time", 112, EVENTS, (*w.WEEKDAYS, *w.MONTHS, w.Phrase("내일", "tomorrow"), w.Phrase("오늘", "today")))  # fmt: skip
def event_on(event: w.Phrase, day: w.Phrase) -> Made:
    preposition = "on" if day in w.WEEKDAYS else "in" if day in w.MONTHS else ""
    return copula(day.ko, particle(event.ko, "은/는")), e.sentence(f"the {event.en} is {preposition} {day.en}")  # fmt: skip


@frame("time", 150, EVENTS, w.HOURS, ("시작하다=start", "끝나다=end"), ("present", "past"))
def starts_at(event: w.Phrase, hour: w.Phrase, verb: str, tense: str) -> Made:
    ko, base = verb.split("=")
    said = e.third(base) if tense == "present" else e.past(base)
    before = f"{particle(event.ko, '은/는')} {hour.ko}에"
    return levels(ko, tense, before), e.sentence(f"the {event.en} {said} at {hour.en}")


@frame("time", 60, EVENTS, ("시작하다=start", "끝나다=end"))
def when_starts(event: w.Phrase, verb: str) -> Made:
    ko, base = verb.split("=")
    return levels(ko, "present", f"{particle(event.ko, '은/는')} 언제", "?"), e.sentence(f"when does the {event.en} {base}", "?")  # fmt: skip


@frame("time", 99, w.HOURS, ("", "반"), ("지금", "벌써", "아직"))
def clock(hour: w.Phrase, half: str, word: str) -> Made:
    time = f"half past {hour.en.split()[0]}" if half else hour.en
    adverb = {"지금": ("now", ""), "벌써": ("", "already"), "아직": ("", "still")}[word]
    before, noun = (word, f"{hour.ko} 반") if half else (word, hour.ko)
    return copula(noun, before), e.sentence(f"it's {adverb[1]} {time} {adverb[0]}")


@frame("time", 60, (("오늘", "today", "is"), ("내일", "tomorrow", "is"), ("어제", "yesterday", "was")), w.WEEKDAYS)  # fmt: skip
def today_is(day: tuple[str, str, str], name: w.Phrase) -> Made:
    if day[2] == "was":
        return [
            f"어제는 {name.ko}이었어.",
            f"어제는 {name.ko}이었어요.",
        ], f"Yesterday was {name.en}."
    return copula(name.ko, particle(day[0], "은/는")), e.sentence(f"{day[1]} is {name.en}")


USUAL = {"get up": range(5, 10), "go to bed": range(9, 13), "have lunch": (11, 12, 1, 2), "have dinner": range(5, 9), "come home": range(3, 10)}  # fmt: skip


@frame("time", 262, (w.I, *PEOPLE), w.HOURS, ("일어나다=get up", "자다=go to bed", "점심을 먹다=have lunch", "저녁을 먹다=have dinner", "집에 오다=come home"))  # fmt: skip
def at_hour(who: w.Subject, hour: w.Phrase, verb: str) -> Made:
    ko, en = verb.split("=")
    if w.HOURS.index(hour) + 1 not in USUAL[en]:
        return None
    base, _, rest = en.partition(" ")
    said = e.third(base) if who.agree in ("he", "she") else base
    made = [line(topic(who, c), f"{hour.ko}에", conjugate(ko, n)) for c, n in zip(BOTH, ENDINGS["present"], strict=True)]  # fmt: skip
    return made, e.sentence(f"{who.en} {said} {rest} at {hour.en}")


FROM = {"work": (7, 12, 2, 7), "study": (7, 12, 1, 7), "sleep": (9, 13, 5, 9)}


@frame("time", 188, w.NUMBERS, w.NUMBERS, ("일하다=work", "공부하다=study", "자다=sleep"))
def from_to(one: w.Phrase, two: w.Phrase, verb: str) -> Made:
    ko, en = verb.split("=")
    first, last = w.NUMBERS.index(one) + 1, w.NUMBERS.index(two) + 1
    if not (first in range(*FROM[en][:2]) and last in range(*FROM[en][2:])):
        return None
    return levels(ko, "present", f"{one.ko} 시부터 {two.ko} 시까지"), e.sentence(f"I {en} from {one.en} to {two.en}")  # fmt: skip


@frame("time", 90, w.NUMBERS[:10], ("시간=hour", "달=month"), ("전에=ago", "후에=in"), ("만나다=meet", "오다=come", "떠나다=leave", "전화하다=call"))  # fmt: skip
def ago(number: w.Phrase, unit: str, order: str, verb: str) -> Made:
    (unit_ko, unit_en), (order_ko, order_en) = unit.split("="), order.split("=")
    ko, base = verb.split("=")
    if base == "meet" and order_en == "in":
        return None
    one = number.en == "one"
    amount = f"{e.a(unit_en)}" if one else f"{number.en} {unit_en}s"
    before = f"{number.ko} {unit_ko} {order_ko}"
    if base in ("meet", "come") and order_en == "ago":
        said = "we met" if base == "meet" else "I came"
        ko_before = f"우리는 {before}" if base == "meet" else before
        return levels(ko, "past", ko_before), e.sentence(f"{said} {amount} ago")
    if order_en == "ago":
        return levels(ko, "past", before), e.sentence(f"I {e.past(base)} {amount} ago")
    return levels(ko, "promise", before), e.sentence(f"I'll {base} in {amount}")
