"""Frames about how things are: places, time, weather, feelings, likes, possessions, comparisons."""

from . import english as e
from . import words as w
from .frame import BOTH, Made, copula, frame, levels, line, topic
from .hangul import particle
from .verbs import conjugate

ON = w.phrases("책상=the desk,의자=the chair,침대=the bed,소파=the sofa,식탁=the table")
IN = w.phrases("가방=the bag,서랍=the drawer,상자=the box,냉장고=the refrigerator")
LOST = w.SMALL + w.READING + w.PAIRS[2:4] + w.GOODS[:3] + w.ANIMALS[:1]
THE = tuple(n for n in LOST)


def _is(thing: w.Noun, tense: str = "present", negative: bool = False) -> str:
    return e.be(thing.person, tense) + ("n't" if negative else "")


@frame("places", 260, THE, ON, w.SPOTS, ("있다", "없다", "past"))
def on_the(thing: w.Noun, where: w.Phrase, spot: w.Phrase, how: str) -> Made:
    before = f"{particle(thing.ko, '이/가')} {where.ko} {spot.ko}에"
    verb, name = ("있다", "past") if how == "past" else (how, "present")
    be = _is(thing, name, how == "없다")
    return levels(verb, name, before), e.sentence(f"the {thing.en} {be} {spot.en} {where.en}")


@frame("places", 150, THE[:-1], IN, ("있다", "없다", "past"))
def inside(thing: w.Noun, where: w.Phrase, how: str) -> Made:
    if thing.ko == where.ko or thing.ko in ("우산", "의자"):
        return None
    before = f"{particle(thing.ko, '이/가')} {where.ko} 안에"
    verb, name = ("있다", "past") if how == "past" else (how, "present")
    return levels(verb, name, before), e.sentence(f"the {thing.en} {_is(thing, name, how == '없다')} in {where.en}")  # fmt: skip


@frame("places", 200, w.IN_TOWN, w.IN_TOWN, w.SPOTS[2:])
def beside(one: w.Place, two: w.Place, spot: w.Phrase) -> Made:
    if one is two or w.BEACH in (one, two):
        return None
    before = f"{particle(one.ko, '은/는')} {two.ko} {spot.ko}에"
    return levels("있다", "present", before), e.sentence(f"{one.en} is {spot.en} {two.en}")


@frame("places", 99, LOST + w.FURNITURE)
def where_is(thing: w.Noun) -> Made:
    return levels("있다", "present", f"{particle(thing.ko, '이/가')} 어디에", "?"), e.sentence(f"where {_is(thing)} the {thing.en}", "?")  # fmt: skip


@frame("places", 60, (*w.IN_TOWN, w.Place("화장실", "", "", "the restroom"), w.Place("엘리베이터", "", "", "the elevator")))  # fmt: skip
def where_is_place(place: w.Place) -> Made:
    return levels("있다", "present", f"{particle(place.ko, '이/가')} 어디에", "?"), e.sentence(f"where is {place.en}", "?")  # fmt: skip


@frame("places", 90, (w.Subject("너", "너", "you", "you"), *w.EVERYONE[1:]), ("", "지금"))
def where_are(who: w.Subject, now: str) -> Made:
    verb = "계시다" if who.respected else "있다"
    english = e.sentence(f"where {e.be(who.agree)} {who.en} {'now' if now else ''}", "?")
    if who.en == "you":
        return levels(verb, "present", line(now, "어디에", end=""), "?"), english
    endings = ("아/어", "세요" if who.respected else "아/어요")
    made = []
    for casual, ending in zip(BOTH, endings, strict=True):
        form = "계세요" if ending == "세요" else conjugate(verb, ending)
        made.append(line(topic(who, casual), now, "어디에", form, end="?"))
    return made, english


FAMILY_AND_FRIENDS = w.FRIENDS + w.FAMILY


@frame("places", 230, (w.I, *FAMILY_AND_FRIENDS), w.PLACES, ("present", "past"))
def is_at(who: w.Subject, place: w.Place, tense: str) -> Made:
    time, when = ("지금", "now") if tense == "present" else ("어제", "yesterday")
    made = [line(topic(who, c), time, f"{place.ko}에", conjugate("있다", n)) for c, n in zip(BOTH, _END[tense], strict=True)]  # fmt: skip
    be = e.short(who.en, e.be(who.agree)) if tense == "present" else f"{who.en} was"
    return made, e.sentence(f"{be} {place.at} {when}")


_END = {"present": ("아/어", "아/어요"), "past": ("았/었어", "았/었어요"), "plan": ("(으)ㄹ 거야", "(으)ㄹ 거예요")}  # fmt: skip


@frame("places", 90, (w.I, *FAMILY_AND_FRIENDS), w.CITIES)
def lives_in(who: w.Subject, place: w.Place) -> Made:
    verb = "lives" if who.agree in ("he", "she") else "live"
    made = [line(topic(who, c), f"{place.ko}에", conjugate("살다", n)) for c, n in zip(BOTH, _END["present"], strict=True)]  # fmt: skip
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
        for c, n in zip(BOTH, _END[tense], strict=True)
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


@frame("transport", 200, FROM_TO, FROM_TO, ("", *BY[:4], w.Phrase("비행기", "plane")))
def how_long(one: w.Place, two: w.Place, by: w.Phrase | str) -> Made:
    far = one in w.CITIES, two in w.CITIES
    plane = not isinstance(by, str) and by.en == "plane"
    if one is two or far[0] != far[1] or plane != far[0] and not isinstance(by, str):
        return None
    ko, en = ("", "") if isinstance(by, str) else (particle(by.ko, "으로/로"), f"by {by.en}")
    before = line(f"{one.ko}에서 {two.ko}까지", ko, "얼마나", end="")
    return levels("걸리다", "present", before, "?"), e.sentence(f"how long does it take from {one.en} to {two.en} {en}", "?")  # fmt: skip


@frame("transport", 80, w.VEHICLES[:5], w.VEHICLES, (("빠르다", "faster"), ("싸다", "cheaper"), ("비싸다", "more expensive"), ("편하다", "more comfortable")))  # fmt: skip
def faster(one: w.Phrase, two: w.Phrase, how: tuple[str, str]) -> Made:
    if one.ko == two.ko:
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


WEATHER = w.phrases("춥다=cold,덥다=hot,따뜻하다=warm,시원하다=cool,흐리다=cloudy,맑다=clear,쌀쌀하다=chilly")  # fmt: skip
WEATHER_TIMES = (
    ("오늘", "today", "present"), ("어제", "yesterday", "past"), ("지난주에", "last week", "past"),
    ("어젯밤에", "last night", "past"), ("내일", "tomorrow", "plan"), ("모레", "the day after tomorrow", "plan"),
    ("이번 주말에", "this weekend", "plan"), ("다음 주에", "next week", "plan"), ("지금", "now", "present"),
)  # fmt: skip
WHERE = (w.Place("", "", "", ""), *w.CITIES, w.Place("산", "", "in the mountains", ""), w.Place("바닷가", "", "on the beach", ""))  # fmt: skip
IT = {"present": "it's", "past": "it was", "plan": "it's going to be"}


@frame("weather", 330, WEATHER_TIMES, WHERE, WEATHER)
def weather(when: tuple[str, str, str], place: w.Place, how: w.Phrase) -> Made:
    ko, en, tense = when
    at = particle(place.ko, "은/는") if place.ko else ""
    return levels(how.ko, tense, line(ko, at, end="")), e.sentence(f"{IT[tense]} {how.en} {place.at} {en}")  # fmt: skip


@frame("weather", 60, WEATHER_TIMES, WEATHER)
def not_weather(when: tuple[str, str, str], how: w.Phrase) -> Made:
    ko, en, tense = when
    if tense == "plan":
        return None
    be = "isn't" if tense == "present" else "wasn't"
    made = [levels(how.ko, tense, ko, adverb="안")[0], levels(how.ko, "not" if tense == "present" else "did not", ko)[1]]  # fmt: skip
    return made, e.sentence(f"it {be} {how.en} {en}")


FALLS = {"비": "rain", "눈": "snow"}


@frame("weather", 180, WEATHER_TIMES, WHERE[:-1], tuple(FALLS), ("", "안", "많이"))
def rain(when: tuple[str, str, str], place: w.Place, what: str, how: str) -> Made:
    ko, en, tense = when
    at = f"{place.ko}에" if place.ko else ""
    no, much = how == "안", "a lot" if how == "많이" else ""
    verb = {
        "present": f"it {'is not' if no else 'is'} {FALLS[what]}ing",
        "past": f"it didn't {FALLS[what]}" if no else f"it {FALLS[what]}ed",
        "plan": f"it {'is not' if no else 'is'} going to {FALLS[what]}",
    }[tense].replace("it is not", "it isn't").replace("it is", "it's")  # fmt: skip
    noun = particle(what, "이/가")
    return levels("오다", tense, line(ko, at, noun, end=""), adverb=how), e.sentence(f"{verb} {much} {place.at} {en}")  # fmt: skip


FEELINGS = w.phrases(
    "행복하다=happy,피곤하다=tired,바쁘다=busy,아프다=sick,건강하다=healthy,친절하다=kind"
)
MY_FEELINGS = w.phrases("슬프다=sad,기쁘다=glad,배고프다=hungry,목마르다=thirsty,심심하다=bored,외롭다=lonely,졸리다=sleepy,무섭다=scared,춥다=cold")  # fmt: skip
DEGREES = w.phrases("너무=too,정말=really,아주=very,조금=a little")
FEELING_TIMES = (("", "", "present"), ("오늘", "today", "present"), ("어제", "yesterday", "past"), ("아까", "earlier", "past"))  # fmt: skip


@frame("feelings", 330, (w.I, *w.EVERYONE), FEELINGS[:4], DEGREES, FEELING_TIMES)
def feels(who: w.Subject, how: w.Phrase, much: w.Phrase, when: tuple[str, str, str]) -> Made:
    ko, en, tense = when
    if who.respected and how.ko == "아프다":
        return None  # of elders one says 편찮으시다
    be = e.short(who.en, e.be(who.agree)) if tense == "present" else f"{who.en} {e.be(who.agree, 'past')}"  # fmt: skip
    return _adjective(who, ko, much.ko, how.ko, tense), e.sentence(f"{be} {much.en} {how.en} {en}")


def _adjective(who: w.Subject, when: str, much: str, adjective: str, tense: str) -> list[str]:
    made = []
    for casual in BOTH:
        ending = _END[tense][not casual]
        word = conjugate(adjective, "(으)시") + "다" if who.respected else adjective
        form = conjugate(word, ending)
        if who.respected and ending == "아/어요":
            form = conjugate(adjective, "(으)세요")
        made.append(line(topic(who, casual), when, much, form))
    return made


@frame("feelings", 130, MY_FEELINGS, DEGREES, FEELING_TIMES[:1] + FEELING_TIMES[2:])
def i_feel(how: w.Phrase, much: w.Phrase, when: tuple[str, str, str]) -> Made:
    ko, en, tense = when
    if how.ko in ("춥다",):
        return None  # said of the weather
    be = "I'm" if tense == "present" else "I was"
    return levels(how.ko, tense, line(ko, much.ko, end="")), e.sentence(f"{be} {much.en} {how.en} {en}")  # fmt: skip


@frame("feelings", 99, FEELINGS[:4] + MY_FEELINGS[:8], (("present", ""), ("past", "yesterday")))
def are_you(how: w.Phrase, when: tuple[str, str]) -> Made:
    tense, en = when
    be = "are" if tense == "present" else "were"
    return levels(how.ko, tense, "어제" if en else "", "?"), e.sentence(f"{be} you {how.en} {en}", "?")  # fmt: skip


@frame("feelings", 99, FEELINGS[:4] + MY_FEELINGS[:8], (("present", ""), ("past", "yesterday")))
def am_not(how: w.Phrase, when: tuple[str, str]) -> Made:
    tense, en = when
    be = "I'm not" if tense == "present" else "I wasn't"
    name = "not" if tense == "present" else "did not"
    ko = "어제" if en else ""
    return [levels(how.ko, tense, ko, adverb="안")[0], levels(how.ko, name, ko)[1]], e.sentence(f"{be} {how.en} {en}")  # fmt: skip


BODY = w.phrases("머리=head,배=stomach,다리=leg,허리=back,목=throat,손=hand,눈=eyes,이=tooth")
SORE_TIMES = (("", "", "present"), ("아직", "still", "present"), ("어제", "yesterday", "past"), ("어젯밤에", "last night", "past"), ("지난주에", "last week", "past"), ("많이", "a lot", "present"))  # fmt: skip


@frame("feelings", 80, BODY, SORE_TIMES)
def hurts(part: w.Phrase, when: tuple[str, str, str]) -> Made:
    ko, en, tense = when
    verb = ("hurt" if part.en == "eyes" else "hurts") if tense == "present" else "hurt"
    body = f"my {part.en} {en} {verb}" if en == "still" else f"my {part.en} {verb} {en}"
    before = line(ko, particle(part.ko, "이/가"), end="") if en != "a lot" else f"{particle(part.ko, '이/가')} 많이"  # fmt: skip
    return levels("아프다", tense, before), e.sentence(body)


LIKED = w.FOODS + w.DRINKS + w.ANIMALS + w.FLOWERS + w.READING[:2]
WHO_LIKES = (w.I, w.WE, *w.FRIENDS, *w.FAMILY, *w.OTHERS)


@frame("likes", 380, WHO_LIKES, LIKED, ("좋아하다", "싫어하다"), ("", "정말", "안"))
def likes(who: w.Subject, thing: w.Noun, verb: str, how: str) -> Made:
    base = {"좋아하다": "like", "싫어하다": "hate"}[verb]
    if how == "안" and verb == "싫어하다":
        return None
    third = who.agree in ("he", "she")
    said = f"{'does' if third else 'do'}n't {base}" if how == "안" else e.third(base) if third else base  # fmt: skip
    mid = "really" if how == "정말" else ""
    made = []
    for casual, ending in zip(BOTH, _END["present"], strict=True):
        noun = thing.ko if casual else particle(thing.ko, "을/를")
        made.append(line(topic(who, casual), noun, how, conjugate(verb, ending)))
    return made, e.sentence(f"{who.en} {mid} {said} {thing.all}")


@frame("likes", 110, LIKED, ("", *w.FRIENDS))
def do_you_like(thing: w.Noun, who: w.Subject | str) -> Made:
    noun = particle(thing.ko, "을/를")
    if isinstance(who, str):
        return [f"{thing.ko} 좋아해?", f"{noun} 좋아해요?"], f"Do you like {thing.all}?"
    return [f"{topic(who, True)} {thing.ko} 좋아해?", f"{topic(who, False)} {noun} 좋아해요?"], f"Does {who.en} like {thing.all}?"  # fmt: skip


@frame("likes", 130, w.FOODS + w.DRINKS, w.FOODS + w.DRINKS)
def likes_more(one: w.Noun, two: w.Noun) -> Made:
    if one.ko == two.ko or (one in w.DRINKS) != (two in w.DRINKS):
        return None
    made = [f"{one.ko}보다 {particle(two.ko, '을/를')} 더 좋아{end}." for end in ("해", "해요")]
    return made, e.sentence(f"I like {two.all} more than {one.all}")


@frame("likes", 100, w.READING[:0] + w.FOODS + w.DRINKS + w.ANIMALS, ("도", "만"))
def likes_too(thing: w.Noun, how: str) -> Made:
    if how == "도":
        made = [f"나도 {thing.ko} 좋아해.", f"저도 {particle(thing.ko, '을/를')} 좋아해요."]
        return made, e.sentence(f"I like {thing.all}, too")
    return [f"난 {thing.ko}만 좋아해.", f"저는 {thing.ko}만 좋아해요."], e.sentence(f"I only like {thing.all}")  # fmt: skip


TASTES = w.phrases("맛있다=delicious,맛없다=not good,달다=sweet,맵다=spicy,짜다=salty,뜨겁다=hot,차갑다=cold,싱겁다=bland")  # fmt: skip
LOOKS = w.phrases("예쁘다=pretty,비싸다=expensive,싸다=cheap,크다=big,작다=small,좋다=nice,가볍다=light,무겁다=heavy,귀엽다=cute,낡다=old")  # fmt: skip
BOOKS_ARE = w.phrases("재미있다=interesting,재미없다=boring,어렵다=difficult,쉽다=easy,길다=long,짧다=short,유명하다=famous,좋다=good")  # fmt: skip
SWEET = tuple(w.SNACKS + w.FRUIT + w.HOT[:1] + w.HOT[4:])
FILMS = (*w.READING, w.Noun("영화", "movie", "count"), w.Noun("노래", "song", "count"), w.Noun("드라마", "drama", "count"))  # fmt: skip
DESCRIBED = (
    *((f, t) for f in w.BOWLS + w.DISHES + w.BITES[:2] for t in (TASTES[0], TASTES[1], TASTES[4], TASTES[5], TASTES[6]) if f.ko not in ("샐러드", "냉면") or t.en != "hot"),
    *((f, t) for f in w.BOWLS[:1] + w.DISHES[:1] + w.DISHES[1:5] for t in TASTES[3:4] if f.ko != "피자"),
    *((f, t) for f in SWEET for t in (TASTES[0], TASTES[1], TASTES[2])),
    *((g, t) for g in w.GIFTS for t in LOOKS if not (g.ko == "꽃" and t.ko in ("낡다", "가볍다", "무겁다", "크다", "작다"))),
    *((s, t) for s in w.FURNITURE for t in LOOKS[:8] + LOOKS[9:]), *((n, t) for n in w.ANIMALS for t in (LOOKS[0], LOOKS[3], LOOKS[4], LOOKS[8])),
    *((b, t) for b in FILMS for t in BOOKS_ARE),
)  # fmt: skip
DESCRIPTIONS = {w.Phrase(f"{n.ko}:{t.ko}", ""): (n, t) for n, t in DESCRIBED}
HOW = (*DEGREES, "", "안", "past", "surprise", "really?")


@frame("descriptions", 720, tuple(DESCRIPTIONS), HOW)
def this_is(what: w.Phrase, how: w.Phrase | str) -> Made:
    thing, quality = DESCRIPTIONS[what]
    be, good = _is(thing), quality.en
    before = f"이 {particle(thing.ko, '은/는')}"
    if good == "not good" and how != "" or (how == "past" and thing in w.FURNITURE + w.ANIMALS):
        return None
    if isinstance(how, w.Phrase):
        return levels(quality.ko, "present", before, adverb=how.ko), e.sentence(f"{thing.this} {be} {how.en} {good}")  # fmt: skip
    if how == "안":
        made = [levels(quality.ko, "present", before, adverb="안")[0], levels(quality.ko, "not", before)[1]]  # fmt: skip
        if quality.ko in ("맛있다", "재미있다"):
            made = levels(quality.ko, "not", before)  # 안 맛있다 is clumsy
        return made, e.sentence(f"{thing.this} {be}n't {good}")
    if how == "past":
        article = f"the {thing.en} {e.be(thing.person, 'past')} {good}"
        return levels(quality.ko, "past", f"그 {particle(thing.ko, '은/는')}"), e.sentence(article)
    if how == "surprise":
        made = levels(quality.ko, "surprise", f"이 {thing.ko} 정말", "!")
        return made, e.sentence(f"{thing.this} {be} really {good}", "!")
    if how == "really?":
        return levels(quality.ko, "present", before, "?"), e.sentence(f"{be} {thing.this} {good}", "?")  # fmt: skip
    return levels(quality.ko, "present", before), e.sentence(f"{thing.this} {be} {good}")


PEOPLE = w.FRIENDS + w.FAMILY


@frame("family", 200, (w.I, *PEOPLE), w.JOBS, ("is", "not", "was"))
def job(who: w.Subject, work: w.Noun, how: str) -> Made:
    be = e.short(who.en, e.be(who.agree)) if how != "was" else f"{who.en} was"
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
    return made, e.sentence(f"{be} {'not' if how == 'not' else ''} {work.one}")


@frame("family", 60, PEOPLE, w.JOBS)
def is_job(who: w.Subject, work: w.Noun) -> Made:
    made = [line(topic(who, c), particle(work.ko, p), end="?") for c, p in zip(BOTH, ("이야/야", "이에요/예요"), strict=True)]  # fmt: skip
    return made, e.sentence(f"is {who.en} {work.one}", "?")


OWNED = w.GOODS[:6] + w.SMALL[:3] + w.CLOTHES[:2] + w.ANIMALS[:3] + w.FURNITURE[:1] + w.TICKETS


@frame("family", 200, (w.I, *PEOPLE), OWNED, ("있다", "없다"))
def has(who: w.Subject, thing: w.Noun, verb: str) -> Made:
    third = who.agree in ("he", "she")
    said = (
        ("has" if third else "have") if verb == "있다" else f"{'does' if third else 'do'}n't have"
    )
    made = []
    for casual, ending in zip(BOTH, _END["present"], strict=True):
        subject = particle("나" if casual else "저", "은/는") if who is w.I else topic(who, casual)
        made.append(line(subject, particle(thing.ko, "이/가"), conjugate(verb, ending)))
    return made, e.sentence(f"{who.en} {said} {thing.one}")


@frame("family", 70, w.NUMBERS[:5], w.ANIMALS + w.SMALL[3:] + w.READING[:1] + w.TICKETS + w.FRUIT)
def has_many(number: w.Phrase, thing: w.Noun) -> Made:
    noun = thing.en if number.en == "one" else thing.all
    made = levels("있다", "present", f"{particle(thing.ko, '이/가')} {number.ko} {thing.unit}")
    return made, e.sentence(f"I have {number.en} {noun}")


@frame("family", 200, ("나", *PEOPLE), w.GIFTS + w.SMALL)
def whose(who: w.Subject | str, thing: w.Noun) -> Made:
    verb = "are" if thing.kind == "plural" else "is"
    if isinstance(who, str):
        made = [f"이 {particle(thing.ko, '은/는')} {mine} 거{end}." for mine, end in (("내", "야"), ("제", "예요"))]  # fmt: skip
        return made, e.sentence(f"{thing.this} {verb} mine")
    made = [f"이 {particle(thing.ko, '은/는')} {name} 거{end}." for name, end in ((who.casual, "야"), (who.polite, "예요"))]  # fmt: skip
    return made, e.sentence(f"{thing.this} {verb} {who.en}'s")


BIRTHDAYS = (w.I, *PEOPLE)


@frame("time", 130, BIRTHDAYS, w.MONTHS)
def birthday(who: w.Subject, month: w.Phrase) -> Made:
    owner = "my" if who is w.I else f"{who.en}'s"
    names = ("내", "제") if who is w.I else (who.casual, who.polite)
    made = [f"{name} 생일은 {month.ko}{end}." for name, end in zip(names, ("이야", "이에요"), strict=True)]  # fmt: skip
    return made, e.sentence(f"{owner} birthday is in {month.en}")


EVENTS = w.phrases(
    "시험=exam,수업=class,회의=meeting,파티=party,콘서트=concert,영화=movie,경기=game"
)


@frame("time", 150, EVENTS, (*w.WEEKDAYS, *w.MONTHS, w.Phrase("내일", "tomorrow"), w.Phrase("오늘", "today")))  # fmt: skip
def event_on(event: w.Phrase, day: w.Phrase) -> Made:
    preposition = "on" if day in w.WEEKDAYS else "in" if day in w.MONTHS else ""
    return copula(day.ko, particle(event.ko, "은/는")), e.sentence(f"the {event.en} is {preposition} {day.en}")  # fmt: skip


@frame("time", 200, EVENTS, w.HOURS, ("시작하다=start", "끝나다=end"), ("present", "past"))
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


@frame("time", 160, (w.I, *PEOPLE), w.HOURS, ("일어나다=get up", "자다=go to bed", "점심을 먹다=have lunch", "저녁을 먹다=have dinner", "집에 오다=come home"))  # fmt: skip
def at_hour(who: w.Subject, hour: w.Phrase, verb: str) -> Made:
    ko, en = verb.split("=")
    base, _, rest = en.partition(" ")
    said = e.third(base) if who.agree in ("he", "she") else base
    made = [line(topic(who, c), f"{hour.ko}에", conjugate(ko, n)) for c, n in zip(BOTH, _END["present"], strict=True)]  # fmt: skip
    return made, e.sentence(f"{who.en} {said} {rest} at {hour.en}")


@frame("time", 120, w.NUMBERS, w.NUMBERS, ("일하다=work", "공부하다=study", "자다=sleep"))
def from_to(one: w.Phrase, two: w.Phrase, verb: str) -> Made:
    if one.ko == two.ko:
        return None
    ko, en = verb.split("=")
    return levels(ko, "present", f"{one.ko} 시부터 {two.ko} 시까지"), e.sentence(f"I {en} from {one.en} to {two.en}")  # fmt: skip


@frame("time", 120, w.NUMBERS[:10], ("시간=hour", "달=month"), ("전에=ago", "후에=in"), ("만나다=meet", "오다=come", "떠나다=leave", "전화하다=call"))  # fmt: skip
def ago(number: w.Phrase, unit: str, order: str, verb: str) -> Made:
    (unit_ko, unit_en), (order_ko, order_en) = unit.split("="), order.split("=")
    ko, base = verb.split("=")
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
