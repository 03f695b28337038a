"""Frames about how things are: weather, feelings, likes, descriptions."""

from . import english as e
from . import words as w
from .frame import BOTH, ENDINGS, Made, being, frame, levels, line, topic
from .hangul import particle
from .verbs import conjugate

WEATHER = w.phrases("춥다=cold,덥다=hot,따뜻하다=warm,시원하다=cool,흐리다=cloudy,맑다=clear,쌀쌀하다=chilly")  # fmt: skip
WEATHER_TIMES = (
    ("오늘", "today", "present"), ("어제", "yesterday", "past"), ("지난주에", "last week", "past"),
    ("어젯밤에", "last night", "past"), ("내일", "tomorrow", "plan"), ("모레", "the day after tomorrow", "plan"),
    ("이번 주말에", "this weekend", "plan"), ("다음 주에", "next week", "plan"), ("지금", "now", "present"),
)  # fmt: skip
WHERE = (w.Place("", "", "", ""), *w.CITIES, w.Place("산", "", "in the mountains", ""), w.Place("바닷가", "", "on the beach", ""))  # fmt: skip
IT = {"present": "it's", "past": "it was", "plan": "it's going to be"}


@frame("weather", 248, WEATHER_TIMES, WHERE, WEATHER)
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


@frame("weather", 135, WEATHER_TIMES, WHERE[:-1], tuple(FALLS), ("", "안", "많이"))
def rain(when: tuple[str, str, str], place: w.Place, what: str, how: str) -> Made:
    ko, en, tense = when
    at = f"{place.ko}에" if place.ko else ""
    now = "it isn't" if how == "안" else "it's"
    no, much = how == "안", "a lot" if how == "많이" else ""
    verb = {
        "present": f"{now} {FALLS[what]}ing",
        "past": f"it didn't {FALLS[what]}" if no else f"it {FALLS[what]}ed",
        "plan": f"{now} going to {FALLS[what]}",
    }[tense]  # fmt: skip
    noun = particle(what, "이/가")
    return levels("오다", tense, line(ko, at, noun, end=""), adverb=how), e.sentence(f"{verb} {much} {place.at} {en}")  # fmt: skip


FEELINGS = w.phrases("행복하다=happy,피곤하다=tired,바쁘다=busy,아프다=sick")
MY_FEELINGS = w.phrases("슬프다=sad,기쁘다=glad,배고프다=hungry,목마르다=thirsty,심심하다=bored,외롭다=lonely,졸리다=sleepy,무섭다=scared")  # fmt: skip
DEGREES = w.phrases("너무=so,정말=really,아주=very,조금=a little")
FEELING_TIMES = (("", "", "present"), ("오늘", "today", "present"), ("어제", "yesterday", "past"), ("아까", "earlier", "past"))  # fmt: skip


@frame("feelings", 248, (w.I, *w.EVERYONE), FEELINGS[:4], DEGREES, FEELING_TIMES)
def feels(who: w.Subject, how: w.Phrase, much: w.Phrase, when: tuple[str, str, str]) -> Made:
    ko, en, tense = when
    if much.en == "a little" and how.en == "happy":
        return None
    if who.respected and how.ko == "아프다":
        return None  # of elders one says 편찮으시다
    be = e.short(who.en, e.be(who.agree)) if tense == "present" else f"{who.en} {e.be(who.agree, 'past')}"  # fmt: skip
    return _adjective(who, ko, much.ko, how.ko, tense), e.sentence(f"{be} {much.en} {how.en} {en}")


def _adjective(who: w.Subject, when: str, much: str, adjective: str, tense: str) -> list[str]:
    made = []
    for casual in BOTH:
        ending = ENDINGS[tense][not casual]
        word = conjugate(adjective, "(으)시") + "다" if who.respected else adjective
        form = conjugate(word, ending)
        if who.respected and ending == "아/어요":
            form = conjugate(adjective, "(으)세요")
        made.append(line(topic(who, casual), when, much, form))
    return made


@frame("feelings", 98, MY_FEELINGS, DEGREES, FEELING_TIMES[:1] + FEELING_TIMES[2:])
def i_feel(how: w.Phrase, much: w.Phrase, when: tuple[str, str, str]) -> Made:
    ko, en, tense = when
    if much.en == "a little" and how.en == "glad":
        return None
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


@frame("likes", 285, WHO_LIKES, LIKED, ("좋아하다", "싫어하다"), ("", "정말", "안"))
def likes(who: w.Subject, thing: w.Noun, verb: str, how: str) -> Made:
    base = {"좋아하다": "like", "싫어하다": "hate"}[verb]
    if how == "안" and verb == "싫어하다":
        return None
    third = who.agree in ("he", "she")
    said = f"{'does' if third else 'do'}n't {base}" if how == "안" else e.third(base) if third else base  # fmt: skip
    mid = "really" if how == "정말" else ""
    made = []
    for casual, ending in zip(BOTH, ENDINGS["present"], strict=True):
        noun = thing.ko if casual else particle(thing.ko, "을/를")
        made.append(line(topic(who, casual), noun, how, conjugate(verb, ending)))
    return made, e.sentence(f"{who.en} {mid} {said} {thing.all}")


@frame("likes", 82, LIKED, ("", *w.FRIENDS))
def do_you_like(thing: w.Noun, who: w.Subject | str) -> Made:
    noun = particle(thing.ko, "을/를")
    if isinstance(who, str):
        return [f"{thing.ko} 좋아해?", f"{noun} 좋아해요?"], f"Do you like {thing.all}?"
    return [f"{topic(who, True)} {thing.ko} 좋아해?", f"{topic(who, False)} {noun} 좋아해요?"], f"Does {who.en} like {thing.all}?"  # fmt: skip


@frame("likes", 98, w.FOODS + w.DRINKS, w.FOODS + w.DRINKS)
def likes_more(one: w.Noun, two: w.Noun) -> Made:
    if one.ko == two.ko or (one in w.DRINKS) != (two in w.DRINKS):
        return None
    made = [f"{one.ko}보다 {particle(two.ko, '을/를')} 더 좋아{end}." for end in ("해", "해요")]
    return made, e.sentence(f"I like {two.all} more than {one.all}")


@frame("likes", 75, w.FOODS + w.DRINKS + w.ANIMALS, ("도", "만"))
def likes_too(thing: w.Noun, how: str) -> Made:
    if how == "도":
        made = [f"나도 {thing.ko} 좋아해.", f"저도 {particle(thing.ko, '을/를')} 좋아해요."]
        return made, e.sentence(f"I like {thing.all}, too")
    return [f"난 {thing.ko}만 좋아해.", f"저는 {thing.ko}만 좋아해요."], e.sentence(f"I only like {thing.all}")  # fmt: skip


TASTES = w.phrases("맛있다=delicious,맛없다=not good,달다=sweet,맵다=spicy,짜다=salty,뜨겁다=hot,차갑다=cold,싱겁다=bland")  # fmt: skip
LOOKS = w.phrases("예쁘다=pretty,비싸다=expensive,싸다=cheap,크다=big,작다=small,좋다=nice,가볍다=light,무겁다=heavy,귀엽다=cute")  # fmt: skip
BOOKS_ARE = w.phrases("재미있다=interesting,재미없다=boring,어렵다=difficult,쉽다=easy,길다=long,짧다=short,유명하다=famous,좋다=good")  # fmt: skip
SWEET = tuple(w.SNACKS + w.FRUIT + w.HOT[:1] + w.HOT[4:])
FILMS = (*w.READING, w.Noun("영화", "movie", "count"), w.Noun("노래", "song", "count"), w.Noun("드라마", "drama", "count"))  # fmt: skip
DESCRIBED = (
    *((f, t) for f in w.BOWLS + w.DISHES + w.BITES[:2] for t in (TASTES[0], TASTES[1], TASTES[4], TASTES[5], TASTES[6]) if f.ko not in ("샐러드", "냉면") or t.en != "hot"),
    *((f, t) for f in w.BOWLS[:1] + w.DISHES[:1] + w.DISHES[1:5] for t in TASTES[3:4] if f.ko != "피자"),
    *((f, t) for f in SWEET for t in (TASTES[0], TASTES[1], TASTES[2])),
    *((g, t) for g in w.GIFTS for t in LOOKS if not (g.ko == "꽃" and t.ko in ("가볍다", "무겁다", "크다", "작다"))),
    *((s, t) for s in w.FURNITURE for t in LOOKS[:8]), *((n, t) for n in w.ANIMALS for t in (LOOKS[0], LOOKS[3], LOOKS[4], LOOKS[8])),
    *((b, t) for b in FILMS for t in BOOKS_ARE),
)  # fmt: skip
DESCRIPTIONS = {w.Phrase(f"{n.ko}:{t.ko}", ""): (n, t) for n, t in DESCRIBED}
EXCESS = ("sweet", "spicy", "salty", "hot", "cold", "expensive", "big", "small", "light", "heavy", "difficult", "easy", "long", "short", "boring")  # fmt: skip
HOW = (*DEGREES, "", "안", "past", "surprise", "really?")


@frame("descriptions", 540, tuple(DESCRIPTIONS), HOW)
def thisbeing(what: w.Phrase, how: w.Phrase | str) -> Made:
    thing, quality = DESCRIPTIONS[what]
    be, good = being(thing), quality.en
    before = f"이 {particle(thing.ko, '은/는')}"
    if good == "not good" and how != "" or (how == "past" and thing in w.FURNITURE + w.ANIMALS):
        return None
    if isinstance(how, w.Phrase):
        much = "too" if how.en == "so" and good in EXCESS else how.en
        if much == "a little" and good not in EXCESS:
            return None
        return levels(quality.ko, "present", before, adverb=how.ko), e.sentence(f"{thing.this} {be} {much} {good}")  # fmt: skip
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
