"""Frames about where things and people are, and how one gets there."""

from . import english as e
from . import words as w
from .frame import BOTH, ENDINGS, Made, being, frame, levels, line, topic, yours
from .hangul import particle
from .verbs import conjugate

ON = w.phrases("책상=the desk,의자=the chair,침대=the bed,소파=the sofa,식탁=the table")
IN = w.phrases("가방=the bag,서랍=the drawer,상자=the box")
COLD_THINGS = w.FRUIT + w.PLAIN + w.SNACKS + w.DISHES + w.COLD
LOST = w.SMALL + w.READING + w.PAIRS[2:4] + w.GOODS[:3] + w.ANIMALS[:1]


@frame("places", 195, LOST, ON, w.SPOTS, ("있다", "없다", "past"))
def on_the(thing: w.Noun, where: w.Phrase, spot: w.Phrase, how: str) -> Made:
    before = f"{particle(thing.ko, '이/가')} {where.ko} {spot.ko}에"
    verb, name = ("있다", "past") if how == "past" else (how, "present")
    be = being(thing, name, how == "없다")
    return levels(verb, name, before), e.sentence(f"the {thing.en} {be} {spot.en} {where.en}")


@frame("places", 112, LOST[:-1], IN, ("있다", "없다", "past"))
def inside(thing: w.Noun, where: w.Phrase, how: str) -> Made:
    if thing.ko == where.ko or thing.ko in ("우산", "의자"):
        return None
    before = f"{particle(thing.ko, '이/가')} {where.ko} 안에"
    verb, name = ("있다", "past") if how == "past" else (how, "present")
    return levels(verb, name, before), e.sentence(f"the {thing.en} {being(thing, name, how == '없다')} in {where.en}")  # fmt: skip


@frame("places", 60, COLD_THINGS, ("있다", "없다", "past"))
def in_the_fridge(thing: w.Noun, how: str) -> Made:
    before = f"{particle(thing.ko, '이/가')} 냉장고 안에"
    verb, name = ("있다", "past") if how == "past" else (how, "present")
    be = being(thing, name, how == "없다")
    return levels(verb, name, before), e.sentence(f"the {thing.en} {be} in the refrigerator")


@frame("places", 150, w.IN_TOWN, w.IN_TOWN, w.SPOTS[2:])
def beside(one: w.Place, two: w.Place, spot: w.Phrase) -> Made:
    if one is two or w.BEACH in (one, two):
        return None
    before = f"{particle(one.ko, '은/는')} {two.ko} {spot.ko}에"
    return levels("있다", "present", before), e.sentence(f"{one.en} is {spot.en} {two.en}")


@frame("places", 99, LOST + w.FURNITURE)
def where_is(thing: w.Noun) -> Made:
    return levels("있다", "present", f"{particle(thing.ko, '이/가')} 어디에", "?"), e.sentence(f"where {being(thing)} the {thing.en}", "?")  # fmt: skip


@frame("places", 60, (*w.IN_TOWN, w.Place("화장실", "", "", "the restroom"), w.Place("엘리베이터", "", "", "the elevator")))  # fmt: skip
def where_is_place(place: w.Place) -> Made:
    return levels("있다", "present", f"{particle(place.ko, '이/가')} 어디에", "?"), e.sentence(f"where is {place.en}", "?")  # fmt: skip


@frame("places", 90, (w.Subject("너", "너", "you", "you"), *w.EVERYONE[1:]), ("", "지금"))
def where_are(who: w.Subject, now: str) -> Made:
    verb = "계시다" if who.respected else "있다"
    english = e.sentence(f"where {e.be(who.agree)} {yours(who)} {'now' if now else ''}", "?")
    if who.en == "you":
        return levels(verb, "present", line(now, "어디에", end=""), "?"), english
    endings = ("아/어", "세요" if who.respected else "아/어요")
    made = []
    for casual, ending in zip(BOTH, endings, strict=True):
        form = "계세요" if ending == "세요" else conjugate(verb, ending)
        made.append(line(topic(who, casual), now, "어디에", form, end="?"))
    return made, english


FAMILY_AND_FRIENDS = w.FRIENDS + w.FAMILY


@frame("places", 172, (w.I, *FAMILY_AND_FRIENDS), w.PLACES, ("present", "past"))
def is_at(who: w.Subject, place: w.Place, tense: str) -> Made:
    time, when = ("지금", "now") if tense == "present" else ("어제", "yesterday")
    made = [line(topic(who, c), time, f"{place.ko}에", conjugate("있다", n)) for c, n in zip(BOTH, ENDINGS[tense], strict=True)]  # fmt: skip
    be = e.short(who.en, e.be(who.agree)) if tense == "present" else f"{who.en} was"
    return made, e.sentence(f"{be} {place.at} {when}")


@frame("places", 90, (w.I, *FAMILY_AND_FRIENDS), w.CITIES)
def lives_in(who: w.Subject, place: w.Place) -> Made:
    verb = "lives" if who.agree in ("he", "she") else "live"
    made = [line(topic(who, c), f"{place.ko}에", conjugate("살다", n)) for c, n in zip(BOTH, ENDINGS["present"], strict=True)]  # fmt: skip
    return made, e.sentence(f"{who.en} {verb} {place.at}")


BY = tuple(v for v in w.VEHICLES if v.ko != "비행기")


@frame(
    "transport",
    300,
    (w.I, *FAMILY_AND_FRIENDS),
    w.PLACES[:1] + w.PLACES[2:14],
    BY,
    ("past", "plan"),
)
def by_bus(who: w.Subject, place: w.Place, by: w.Phrase, tense: str) -> Made:
    time, when = ("어제", "yesterday") if tense == "past" else ("내일", "tomorrow")
    going = f"{who.en} went" if tense == "past" else f"{e.short(who.en, e.be(who.agree))} going"
    made = [
        line(topic(who, c), time, particle(by.ko, "으로/로"), f"{place.ko}에", conjugate("가다", n))
        for c, n in zip(BOTH, ENDINGS[tense], strict=True)
    ]
    return made, e.sentence(f"{going} {place.to} by {by.en} {when}")


@frame("transport", 60, w.PLACES[3:])
def how_to_get(place: w.Place) -> Made:
    there = place.to if place.to == "home" else f"to {place.en}"
    return levels("가다", "present", f"{place.ko}에 어떻게", "?"), e.sentence(f"how do you get {there}", "?")  # fmt: skip


@frame("transport", 60, w.IN_TOWN + w.CITIES[:2])
def take_me(place: w.Place) -> Made:
    return [f"{particle(place.ko, '으로/로')} 가 주세요.", f"{particle(place.ko, '으로/로')} 가 줘."], e.sentence(f"please take me to {place.en}")  # fmt: skip


FROM_TO = (
    w.IN_TOWN[:3] + w.IN_TOWN[5:6] + w.IN_TOWN[9:] + w.CITIES + (w.Place("집", "", "", "home"),)
)


@frame("transport", 150, FROM_TO, FROM_TO, ("", *BY[:4], w.Phrase("비행기", "plane")))
def how_long(one: w.Place, two: w.Place, by: w.Phrase | str) -> Made:
    far = one in w.CITIES, two in w.CITIES
    plane = not isinstance(by, str) and by.en == "plane"
    if one is two or far[0] != far[1] or plane != far[0] and not isinstance(by, str):
        return None
    ko, en = ("", "") if isinstance(by, str) else (particle(by.ko, "으로/로"), f"by {by.en}")
    before = line(f"{one.ko}에서 {two.ko}까지", ko, "얼마나", end="")
    return levels("걸리다", "present", before, "?"), e.sentence(f"how long does it take from {one.en} to {two.en} {en}", "?")  # fmt: skip


RANKS = {  # (Korean, English): vehicles from least to most so
    ("빠르다", "faster"): "자전거 버스 택시 지하철 기차 비행기",
    ("싸다", "cheaper"): "비행기 기차 택시 지하철 버스 자전거",
    ("비싸다", "more expensive"): "자전거 버스 지하철 택시 기차 비행기",
    ("편하다", "more comfortable"): "자전거 버스 지하철 기차 택시",
}


@frame("transport", 120, w.VEHICLES, w.VEHICLES, tuple(RANKS))
def faster(one: w.Phrase, two: w.Phrase, how: tuple[str, str]) -> Made:
    rank = RANKS[how].split()
    if not (one.ko in rank and two.ko in rank and rank.index(one.ko) > rank.index(two.ko)):
        return None
    before = f"{particle(one.ko, '이/가')} {two.ko}보다 더"
    return levels(how[0], "present", before), e.sentence(f"the {one.en} is {how[1]} than the {two.en}")  # fmt: skip


@frame(
    "transport",
    99,
    ("버스", "기차", "지하철", "비행기"),
    w.HOURS,
    ("오다", "출발하다", "도착하다"),
    ("present", "past"),
)
def bus_comes(ride: str, hour: w.Phrase, verb: str, tense: str) -> Made:
    en = {"버스": "bus", "기차": "train", "지하철": "subway", "비행기": "plane"}[ride]
    base = {"오다": "come", "출발하다": "leave", "도착하다": "arrive"}[verb]
    said = e.third(base) if tense == "present" else e.past(base)
    return levels(verb, tense, f"{particle(ride, '이/가')} {hour.ko}에"), e.sentence(f"the {en} {said} at {hour.en}")  # fmt: skip
