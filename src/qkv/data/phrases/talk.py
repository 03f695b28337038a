"""Frames that address somebody: greetings, suggestions, requests, permission, ordering."""

from . import actions as x
from . import english as e
from . import words as w
from .frame import Made, copula, frame, levels, line, say
from .hangul import particle
from .verbs import conjugate

SOON = w.phrases("오늘=today,내일=tomorrow,오늘 저녁에=this evening,지금=now,이번 주말에=this weekend,점심에=at lunch,주말에=on the weekend")  # fmt: skip
HOW_ABOUT = (("어때", False), ("어때요", True))
GREETINGS = (  # (반말, 해요체/합니다체, English); the name follows
    ("안녕", "안녕하세요", "hello"), ("좋은 아침이야", "좋은 아침이에요", "good morning"),
    ("잘 자", "안녕히 주무세요", "good night"), ("잘 가", "안녕히 가세요", "goodbye"),
    ("고마워", "고맙습니다", "thank you"), ("미안해", "죄송합니다", "I'm sorry"),
    ("오랜만이야", "오랜만이에요", "long time no see"), ("생일 축하해", "생일 축하합니다", "happy birthday"),
    ("반가워", "반갑습니다", "nice to meet you"), ("축하해", "축하합니다", "congratulations"),
    ("내일 봐", "내일 봐요", "see you tomorrow"), ("또 봐", "또 만나요", "see you again"),
    ("괜찮아", "괜찮아요", "it's okay"), ("잘 있어", "안녕히 계세요", "goodbye"),
    ("힘내", "힘내세요", "cheer up"), ("조심해", "조심하세요", "be careful"),
    ("서둘러", "서두르세요", "hurry up"), ("잠깐만 기다려", "잠깐만 기다려 주세요", "wait a moment"),
    ("걱정하지 마", "걱정하지 마세요", "don't worry"), ("울지 마", "울지 마세요", "don't cry"),
    ("맛있게 먹어", "맛있게 드세요", "enjoy your meal"), ("좋은 하루 보내", "좋은 하루 보내세요", "have a nice day"),
    ("나중에 전화해", "나중에 전화하세요", "call me later"), ("빨리 와", "빨리 오세요", "come quickly"),
    ("들어와", "들어오세요", "come in"), ("앉아", "앉으세요", "sit down"), ("일어나", "일어나세요", "get up"),
)  # fmt: skip
GREETING = {w.Phrase(g[0], g[2]): g for g in GREETINGS}
HELLO_AGAIN = w.phrases("내일=tomorrow,다음 주에=next week,주말에=on the weekend,나중에=later,월요일에=on Monday,금요일에=on Friday,저녁에=in the evening")  # fmt: skip


@frame("greetings", 999, tuple(GREETING), w.NAMES)
def greet(what: w.Phrase, name: w.Phrase) -> Made:
    casual, polite, english = GREETING[what]
    variants = [f"{casual}, {particle(name.ko, '아/야')}.", f"{polite}, {name.ko} 씨."]
    return variants, e.sentence(f"{english}, {name.en}")


@frame("greetings", 99, tuple(GREETING))
def greet_alone(what: w.Phrase) -> Made:
    casual, polite, english = GREETING[what]
    return [f"{casual}.", f"{polite}."], e.sentence(english)


@frame("greetings", 99, w.NAMES, ("name", "meet", "call"))
def introduce(name: w.Phrase, how: str) -> Made:
    if how == "name":
        return [*copula(name.ko, "내 이름은")[:1], f"제 이름은 {name.ko}입니다."], f"My name is {name.en}."  # fmt: skip
    if how == "meet":
        return [f"이쪽은 {name.ko} 씨예요."], f"This is {name.en}."
    return [f"{particle(name.ko, '이라고/라고')} 불러.", f"{particle(name.ko, '이라고/라고')} 불러 주세요."], f"Please call me {name.en}."  # fmt: skip


THANKS = w.phrases("도와주다=helping me,기다리다=waiting,전화하다=calling,오다=coming,가르치다=teaching me,알리다=telling me,사진을 찍다=taking the picture,문을 열다=opening the door,선물을 사다=buying a gift,한국어를 가르치다=teaching me Korean,영어를 가르치다=teaching me English,청소하다=cleaning,요리하다=cooking")  # fmt: skip


@frame("greetings", 99, THANKS, ("", *w.NAMES))
def thanks_for(what: w.Phrase, name: w.Phrase | str) -> Made:
    give = what.ko == "도와주다"
    come = what.ko == "오다"
    casual = conjugate(what.ko, "아/어서" if give else "아/어 줘서")
    polite = conjugate("도와주시다", "아/어서") if give else conjugate(what.ko, "아/어 주셔서")
    if come:
        casual, polite = "와 줘서", "와 주셔서"
    if isinstance(name, str):
        return [f"{casual} 고마워.", f"{polite} 감사합니다."], e.sentence(
            f"thank you for {what.en}"
        )
    variants = [f"{casual} 고마워, {particle(name.ko, '아/야')}.", f"{polite} 감사합니다, {name.ko} 씨."]  # fmt: skip
    return variants, e.sentence(f"thank you for {what.en}, {name.en}")


@frame("suggestions", 99, w.TREATS)
def a_cup(drink: w.Noun) -> Made:
    return [f"{drink.ko} 한잔 {how}?" for how, _ in HOW_ABOUT], f"How about {drink.en}?"


@frame("suggestions", 105, SOON, w.TREATS)
def a_cup_then(when: w.Phrase, drink: w.Noun) -> Made:
    return [f"{when.ko} {drink.ko} 한잔 {how}?" for how, _ in HOW_ABOUT], f"How about {drink.en} {when.en}?"  # fmt: skip


@frame("suggestions", 80, w.TREATS, w.NAMES)
def a_cup_friend(drink: w.Noun, name: w.Phrase) -> Made:
    variants = [f"{drink.ko} 한잔 어때, {particle(name.ko, '아/야')}?", f"{drink.ko} 한잔 어때요, {name.ko} 씨?"]  # fmt: skip
    return variants, f"How about {drink.en}, {name.en}?"


@frame("suggestions", 60, w.HOT + w.PLAIN[:1] + w.COLD, ("따뜻한", "시원한"))
def a_warm_cup(drink: w.Noun, how: str) -> Made:
    if (how == "따뜻한") == (drink in w.COLD):
        return None
    adjective = "hot" if how == "따뜻한" else "cold"
    if "hot" in drink.en or "iced" in drink.en:
        return None
    return [
        f"{how} {drink.ko} 한잔 {q}?" for q, _ in HOW_ABOUT
    ], f"How about {adjective} {drink.en}?"


@frame("suggestions", 90, w.FOODS, ("", *SOON[:5]))
def some_food(food: w.Noun, when: w.Phrase | str) -> Made:
    ko, en = ("", "") if isinstance(when, str) else when
    return [line(ko, food.ko, how, end="?") for how, _ in HOW_ABOUT], e.sentence(f"how about {food.one} {en}", "?")  # fmt: skip


@frame("suggestions", 60, w.BOWLS, ("", *SOON))
def a_bowl(food: w.Noun, when: w.Phrase | str) -> Made:
    ko, en = ("", "") if isinstance(when, str) else when
    return [line(ko, food.ko, "한 그릇", how, end="?") for how, _ in HOW_ABOUT], e.sentence(f"how about a bowl of {food.en} {en}", "?")  # fmt: skip


@frame("suggestions", 99, (*w.HOURS, *w.WEEKDAYS, *w.CITIES, *w.phrases("내일=tomorrow,이번 주말=this weekend,다음 주=next week,영화=a movie,산책=a walk,택시=a taxi,버스=the bus,기차=the train")))  # fmt: skip
def how_about(what: w.Phrase) -> Made:
    return [f"{particle(what.ko, '은/는')} {how}?" for how, _ in HOW_ABOUT], f"How about {what.en}?"


@frame("suggestions", 60, w.GIFTS)
def how_is(thing: w.Noun) -> Made:
    return [f"이 {thing.ko} {how}?" for how, _ in HOW_ABOUT], e.sentence(f"how about {thing.this}", "?")  # fmt: skip


@frame("suggestions", 195, SOON + w.DAYS, x.SOCIAL + x.MEET)
def why_not(when: w.Phrase, do: x.Action) -> Made:
    gerund = f"{e.gerund(do.base)} {do.tail('you')}"
    return [line(when.ko, do.say("는 게", False), how, end="?") for how, _ in HOW_ABOUT], e.sentence(f"how about {gerund} {when.en}", "?")  # fmt: skip


@frame("suggestions", 315, w.FUTURE_TIMES + SOON[:2], x.SOCIAL)
def shall_we(when: w.Phrase, do: x.Action) -> Made:
    return say("shall", do, f"{when.ko} 같이", end="?"), e.sentence(f"shall we {do.base} {do.tail('we')} {when.en}", "?")  # fmt: skip


@frame("suggestions", 225, w.FUTURE_TIMES + SOON[:2], x.SOCIAL)
def lets(when: w.Phrase, do: x.Action) -> Made:
    variants = [line(when.ko, do.say("자", True)), line("우리", when.ko, do.say("아/어요", False))]
    return variants, e.sentence(f"let's {do.base} {do.tail('we')} {when.en}")


@frame("suggestions", 82, x.SOCIAL)
def lets_now(do: x.Action) -> Made:
    return [line("우리", do.say("자", True)), line("우리 같이", do.say("아/어요", False))], e.sentence(f"let's {do.base} {do.tail('we')}")  # fmt: skip


@frame("suggestions", 195, w.FUTURE_TIMES + SOON[:2], x.SOCIAL)
def feel_like(when: w.Phrase, do: x.Action) -> Made:
    return say("feel like", do, when.ko, end="?"), e.sentence(f"do you want to {do.base} {do.tail('you')} {when.en}", "?")  # fmt: skip


@frame("suggestions", 60, w.TREATS, ("하다", "주다"))
def a_cup_offer(drink: w.Noun, how: str) -> Made:
    if how == "하다":
        return [
            f"우리 {drink.ko} 한잔 할까?",
            f"우리 {drink.ko} 한잔 할까요?",
        ], f"Shall we have {drink.en}?"
    return [f"{drink.ko} 한잔 줄까?", f"{drink.ko} 한잔 드릴까요?"], f"Would you like {drink.en}?"


@frame("requests", 150, x.TASKS, ("", *w.NAMES))
def please(do: x.Action, name: w.Phrase | str) -> Made:
    return _to(name, say("please", do), e.sentence(f"please {do.base} {do.tail('you')}"), ".")


@frame("requests", 150, x.TASKS, ("", *SOON[:3], *w.FUTURE_TIMES[3:6]))
def could_you(do: x.Action, when: w.Phrase | str) -> Made:
    ko, en = ("", "") if isinstance(when, str) else when
    if en not in ("", "now", "later") and do in x.SWITCH + x.OPEN + x.WASH:
        return None
    return say("could", do, ko, end="?"), e.sentence(f"could you {do.base} {do.tail('you')} {en}", "?")  # fmt: skip


@frame("requests", 150, x.TASKS[4:] + x.SPORT + x.HOBBY[3:] + x.PHOTO + x.EAT, ("", *w.NAMES))
def do_not(do: x.Action, name: w.Phrase | str) -> Made:
    return _to(name, say("do not", do), e.sentence(f"don't {do.base} {do.tail('you', True)}"), ".")


def _to(name: w.Phrase | str, variants: list[str], english: str, end: str) -> Made:
    """Add who is spoken to: 민수야, 민수 씨 before the Korean and Minsu after the English."""
    if isinstance(name, str):
        return variants, english
    casual, polite = variants
    called = [f"{particle(name.ko, '아/야')}, {casual}", f"{name.ko} 씨, {polite}"]
    return called, f"{english[:-1]}, {name.en}{end}"


SHOWN = w.GIFTS + w.SMALL + w.READING + w.FURNITURE + w.TICKETS


@frame("requests", 70, SHOWN, ("보이다=show me", "주다=give me", "빌리다=lend me"))
def give_me(thing: w.Noun, how: str) -> Made:
    verb, english = how.split("=")
    if verb != "보이다" and thing in w.FURNITURE:
        return None
    which = "그" if verb != "보이다" else "이"
    that = thing.this.replace("this", "that").replace("these", "those") if which == "그" else thing.this  # fmt: skip
    forms = {"주다": ("줘", "주세요"), "보이다": ("보여 줘", "보여 주세요"), "빌리다": ("빌려줘", "빌려주세요")}  # fmt: skip
    return [line(which, thing.ko, "좀", f) for f in forms[verb]], e.sentence(f"please {english} {that}")  # fmt: skip


COUNTED = w.FRUIT + w.BITES + w.TICKETS + w.READING


@frame("shopping", 112, w.NUMBERS[:10], COUNTED)
def so_many(number: w.Phrase, thing: w.Noun) -> Made:
    noun = thing.en if number.en == "one" else thing.all
    before = line(thing.ko, number.ko, thing.unit, end="")
    return [f"{before} 줘.", f"{before} 주세요."], e.sentence(f"{number.en} {noun}, please")


@frame(
    "shopping", 112, w.NUMBERS[:6], w.DRINKS, (("잔", "cup", "glass"), ("병", "bottle", "bottle"))
)
def so_many_cups(number: w.Phrase, drink: w.Noun, unit: tuple[str, str, str]) -> Made:
    if unit[0] == "병" and (drink in w.HOT or drink.ko == "아이스티"):
        return None
    cup = unit[1] if drink in w.HOT else unit[2]
    cups = cup if number.en == "one" else e.plural(cup)
    before = f"{drink.ko} {number.ko} {unit[0]}"
    return [f"{before} 줘.", f"{before} 주세요."], e.sentence(f"{number.en} {cups} of {drink.en}, please")  # fmt: skip


@frame("shopping", 112, w.DRINKS + w.DISHES + w.BOWLS, w.SNACKS + w.BITES + w.FRUIT)
def this_and_that(one: w.Noun, two: w.Noun) -> Made:
    both = f"{particle(one.ko, '이랑/랑')} {two.ko}"
    return [f"{both} 줘.", f"{both} 주세요."], e.sentence(f"{one.one} and {two.one}, please")


@frame("shopping", 112, ("", *w.PAST_TIMES), w.SNACKS + w.PLAIN + w.BOWLS[:1], w.GIFTS + w.FRUIT + w.READING)  # fmt: skip
def bought_both(when: w.Phrase | str, one: w.Noun, two: w.Noun) -> Made:
    ko, en = ("", "") if isinstance(when, str) else when
    both = f"{particle(one.ko, '과/와')} {particle(two.ko, '을/를')}"
    return levels("사다", "past", line(ko, both, end="")), e.sentence(f"I bought {one.one} and {two.one} {en}")  # fmt: skip


@frame("shopping", 99, SHOWN)
def how_much(thing: w.Noun) -> Made:
    verb = "are" if thing.kind == "plural" else "is"
    return [f"이 {particle(thing.ko, '은/는')} 얼마{end}?" for end in ("야", "예요")], e.sentence(f"how much {verb} {thing.this}", "?")  # fmt: skip


@frame("shopping", 80, w.NUMBERS[:10], COUNTED[:9])
def how_much_many(number: w.Phrase, thing: w.Noun) -> Made:
    noun, verb = (thing.en, "is") if number.en == "one" else (thing.all, "are")
    before = f"{thing.ko} {number.ko} {thing.unit}에 얼마"
    return [f"{before}야?", f"{before}예요?"], e.sentence(
        f"how much {verb} {number.en} {noun}", "?"
    )


@frame("shopping", 82, w.COLOURS, w.GIFTS, ("있다", "사다"))
def colour(colour_: w.Phrase, thing: w.Noun, verb: str) -> Made:
    if thing.ko in ("선물", "꽃", "컴퓨터"):
        return None
    full = w.Noun("", f"{colour_.en} {thing.en}", thing.kind).one
    noun = f"{colour_.ko} {thing.ko}"
    if verb == "있다":
        return levels("있다", "present", noun, "?"), e.sentence(f"do you have {full}", "?")
    return levels("사다", "want", particle(noun, "을/를")), e.sentence(f"I want to buy {full}")


@frame("shopping", 90, SHOWN + w.FRUIT + w.DRINKS)
def have_any(thing: w.Noun) -> Made:
    return levels("있다", "present", thing.ko, "?"), e.sentence(f"do you have {thing.one}", "?")


@frame("shopping", 60, w.FOODS + w.DRINKS)
def i_will_have(food: w.Noun) -> Made:
    return [f"난 {particle(food.ko, '으로/로')} 할게.", f"저는 {particle(food.ko, '으로/로')} 할게요."], e.sentence(f"I'll have {food.one}")  # fmt: skip
