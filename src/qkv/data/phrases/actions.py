"""What people do: verb phrases, built from verbs and the nouns that make sense with them."""

from collections.abc import Iterable
from typing import NamedTuple

from . import words as w
from .english import POSSESSIVE, plural
from .hangul import particle
from .verbs import conjugate, respectful


class Action(NamedTuple):
    """An object or goal, its particle, a verb, and the English verb with the rest of its phrase.

    `light`: the noun and 하다 grow together (운동해), and part under negation (운동 안 해).
    `places`: where people do it; the English may hold {my}, which agrees with the subject."""

    noun: str
    josa: str
    verb: str
    base: str
    rest: str
    places: tuple[w.Place, ...] = ()
    light: bool = False

    @property
    def ko(self) -> str:
        return f"{self.noun} {self.verb}"

    def say(self, ending: str, casual: bool, *, adverb: str = "", respect: bool = False) -> str:
        """The Korean verb phrase; 반말 drops 을/를.  say("아/어요", False) = 커피를 마셔요."""
        verb = respectful(self.verb, ending) if respect else conjugate(self.verb, ending)
        if self.verb == "돕다" and ending.startswith("아/어 "):
            verb = verb.replace("도와 ", "도와")  # 도와주다 is one word
        if self.light and not adverb:
            return self.noun + verb
        head = self.noun
        if adverb in ("안", "못") and len(self.verb) > 2 and self.verb.endswith("하다"):
            # 하다 parts from its noun: 한국어 공부를 안 해요, 엄마한테 전화 못 했어
            owner = self.noun if self.josa == "을/를" else particle(self.noun, self.josa)
            head = f"{owner} {self.verb[:-2]}"
            verb = verb.removeprefix(self.verb[:-2])
            return f"{head if casual else particle(head, '을/를')} {adverb} {verb}"
        if self.noun and self.josa and not (casual and self.josa == "을/를"):
            head = particle(self.noun, self.josa)
        return " ".join(part for part in (head, adverb, verb) if part)

    def tail(self, pronoun: str = "I", general: bool = False) -> str:
        """What follows the English verb; `general` speaks of a kind: a book -> books."""
        rest = self.rest.replace("{my}", POSSESSIVE[pronoun])
        article, _, noun = rest.partition(" ")
        return plural(noun) if general and article in ("a", "an") else rest


def _do(verb: str, base: str, nouns: Iterable[w.Noun], *places: w.Place) -> tuple[Action, ...]:
    return tuple(Action(n.ko, "을/를", verb, base, n.one, places) for n in nouns)


def _rows(verb: str, base: str, rows: str, *places: w.Place, josa: str = "을/를") -> tuple[Action, ...]:  # fmt: skip
    return tuple(Action(p.ko, josa, verb, base, p.en, places) for p in w.phrases(rows))


def _light(rows: str, *places: w.Place) -> tuple[Action, ...]:
    """ "운동=exercise" rows; the first English word is the verb."""
    made = []
    for p in w.phrases(rows):
        base, _, rest = p.en.partition(" ")
        made.append(Action(p.ko, "을/를", "하다", base, rest, places, True))
    return tuple(made)


DRINK = _do("마시다", "drink", w.DRINKS, w.CAFE, w.HOME)[:12] + _do("마시다", "drink", w.DRINKS[12:], w.HOME, w.DINER)  # fmt: skip
EAT = _do("먹다", "eat", w.BOWLS + w.DISHES, w.DINER, w.HOME) + _do("먹다", "eat", w.SNACKS + w.FRUIT + w.BITES, w.PARK, w.HOME)  # fmt: skip
MEAL = _rows("먹다", "have", "아침=breakfast,점심=lunch,저녁=dinner", w.HOME, w.DINER)
READ = _do("읽다", "read", w.READING, w.LIBRARY, w.PARK, w.HOME) + _rows("읽다", "read", "신문=the newspaper", w.CAFE, w.HOME)  # fmt: skip
WATCH = _rows("보다", "watch", "영화=a movie,드라마=a drama,텔레비전=TV,뉴스=the news,축구 경기=a soccer game", w.HOME)  # fmt: skip
LISTEN = _rows("듣다", "listen", "음악=to music,라디오=to the radio,노래=to songs", w.HOME, w.PARK)
WRITE = _rows("쓰다", "write", "편지=a letter,이메일=an email,시=a poem", w.HOME, w.LIBRARY)
LEARN = _rows("배우다", "learn", "한국어=Korean,영어=English,일본어=Japanese,중국어=Chinese,피아노=the piano,기타=the guitar,수영=swimming,춤=dancing")  # fmt: skip
STUDY = _rows("공부하다", "study", "한국어=Korean,영어=English,수학=math,역사=history,과학=science", w.LIBRARY, w.HOME, w.SCHOOL)  # fmt: skip
PLAY = _rows("치다", "play", "피아노=the piano,기타=the guitar,테니스=tennis")
SPORT = _light("축구=play soccer,농구=play basketball,야구=play baseball,게임=play games")
OUTDOORS = _light("산책=take a walk,운동=exercise", w.PARK)
HOBBY = _light("요리=cook,쇼핑=go shopping,여행=travel,노래=sing")
CHORES = _light("청소=clean,빨래=do the laundry,설거지=do the dishes,숙제=do {my} homework", w.HOME)
WORKING = (
    *_light("일=work", w.HOME),
    Action("", "", "쉬다", "rest", "", (w.HOME,)),
    Action("춤", "을/를", "추다", "dance", ""),
    Action("", "", "자다", "sleep", "", (w.HOME,)),
)
HOURS = (
    Action("일찍", "", "일어나다", "get", "up early"),
    Action("늦게", "", "일어나다", "get", "up late"),
    Action("일찍", "", "자다", "go", "to bed early"),
    Action("늦게", "", "자다", "go", "to bed late"),
)
BUY = _do("사다", "buy", w.GIFTS, w.MALL) + _do("사다", "buy", w.SNACKS + w.FRUIT + w.PLAIN, w.MARKET) + _do("사다", "buy", w.READING, w.BOOKSHOP)  # fmt: skip
MAKE = _rows("만들다", "make", "케이크=cake,샌드위치=a sandwich,샐러드=salad,의자=a chair,쿠키=cookies", w.HOME) + _rows("굽다", "bake", "빵=bread,쿠키=cookies", w.HOME)  # fmt: skip
RIDE = _rows("타다", "take", "버스=the bus,지하철=the subway,택시=a taxi,기차=the train") + _rows("타다", "ride", "자전거={my} bicycle", w.PARK)  # fmt: skip
MEET = _rows("만나다", "meet", "친구={my} friend,선생님={my} teacher,민수=Minsu,유나=Yuna,은지=Eunji", w.CAFE, w.STATION, w.SCHOOL)  # fmt: skip
CALL = _rows("전화하다", "call", "친구={my} friend,엄마={my} mom,민수=Minsu,수진=Sujin,선생님={my} teacher", josa="한테")  # fmt: skip
HELP = _rows("돕다", "help", "친구={my} friend,엄마={my} mom,아빠={my} dad,지훈=Jihun,유나=Yuna")
WAIT = _rows("기다리다", "wait", "친구=for {my} friend,버스=for the bus,기차=for the train,민수=for Minsu,은지=for Eunji", w.STATION)  # fmt: skip
SEEK = _rows("찾다", "look", "열쇠=for {my} key,지갑=for {my} wallet,안경=for {my} glasses,휴대폰=for {my} phone,우산=for {my} umbrella")  # fmt: skip
LOSE = _rows("잃어버리다", "lose", "열쇠={my} key,지갑={my} wallet,안경={my} glasses,휴대폰={my} phone,우산={my} umbrella,가방={my} bag")  # fmt: skip
PHOTO = _rows("찍다", "take", "사진=pictures", w.PARK, w.BEACH, w.SCHOOL)
WEAR = _rows("입다", "wear", "코트=a coat,셔츠=a shirt,치마=a skirt,바지=pants,원피스=a dress")
CHOOSE = _rows("고르다", "choose", "선물=a gift,모자=a hat,영화=a movie,책=a book")
WASH = _rows("씻다", "wash", "손={my} hands,과일=the fruit,컵=the cup")
SWITCH = _rows("켜다", "turn", "불=on the light,텔레비전=on the TV,에어컨=on the air conditioner,컴퓨터=on the computer") + _rows("끄다", "turn", "불=off the light,텔레비전=off the TV,에어컨=off the air conditioner,컴퓨터=off the computer")  # fmt: skip
OPEN = _rows("열다", "open", "창문=the window,문=the door,가방=the bag") + _rows("닫다", "close", "창문=the window,문=the door")  # fmt: skip
WALK = _rows("걷다", "walk", "공원=in the park,바닷가=on the beach", josa="에서")
SWIM = _light("수영=swim", w.POOL, w.BEACH)
GO = tuple(Action(p.ko, "에", "가다", "go", p.to) for p in w.PLACES)
COME = tuple(Action(p.ko, "에", "오다", "come", p.to) for p in w.PLACES)

DAILY = DRINK + EAT + MEAL + READ + WATCH + LISTEN + WRITE + STUDY + PLAY + SPORT + OUTDOORS + HOBBY + CHORES + WORKING + HOURS + SWIM + WALK + PHOTO + RIDE + GO[:12]  # fmt: skip
ONCE = DAILY + BUY + MAKE + MEET + CALL + HELP + GO
SOCIAL = DRINK[:-2] + EAT + MEAL + WATCH + LISTEN + STUDY + PLAY + SPORT + OUTDOORS + HOBBY + SWIM + WALK + PHOTO + MAKE + GO[3:]  # fmt: skip
TASKS = CHORES[:3] + OPEN + SWITCH + WASH + MAKE + BUY[-9:] + HELP + CALL + CHOOSE
DUTIES = CHORES + STUDY + WORKING[:1] + HOURS + BUY + CALL + HELP + MEET + WRITE + READ + GO + RIDE[:4] + MAKE + OUTDOORS[1:] + HOBBY[:1] + CHOOSE  # fmt: skip
SKILLS = (
    PLAY
    + SPORT
    + SWIM
    + HOBBY[:1]
    + MAKE
    + (Action("자전거", "을/를", "타다", "ride", "a bicycle"),)
)


def fits(do: Action, when: str) -> bool:
    """Does the English time suit the action?  Nobody has lunch every evening or gets up last night."""
    if do in MEAL:
        return not any(
            part in when for part in ("morning", "evening", "night", "lunch", "every day")
        )
    if do in HOURS:
        wrong = ("evening", "night", "now", "earlier", "later", "lunch")
        return not any(
            part in when for part in (wrong if do.base == "get" else ("morning", *wrong[1:]))
        )
    return True
