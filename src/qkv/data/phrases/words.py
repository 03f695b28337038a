"""The lexicon: nouns, people, places and times, each with what grammar needs to know about it."""

from typing import NamedTuple

from .english import a, plural


class Phrase(NamedTuple):
    """A Korean expression and its English one."""

    ko: str
    en: str


class Noun(NamedTuple):
    """kind: "count" (a book), "mass" (coffee), "plural" (shoes).  `unit` is the Korean counter."""

    ko: str
    en: str
    kind: str
    unit: str = "개"

    @property
    def one(self) -> str:
        """As an indefinite object: a book, coffee, shoes."""
        return a(self.en) if self.kind == "count" else self.en

    @property
    def all(self) -> str:
        """As a kind in general: books, coffee, shoes."""
        return plural(self.en) if self.kind == "count" else self.en

    @property
    def person(self) -> str:
        """The pronoun that agrees with it."""
        return "they" if self.kind == "plural" else "it"

    @property
    def this(self) -> str:
        return f"these {self.en}" if self.kind == "plural" else f"this {self.en}"


class Place(NamedTuple):
    ko: str
    to: str  # "to the park", "home"
    at: str  # "in the park", "at home"
    en: str  # "the park", "home"


class Subject(NamedTuple):
    """Who does it.  `casual` and `polite` are the topics of 반말 and 해요체 without their particle."""

    casual: str
    polite: str
    en: str
    pronoun: str
    respected: bool = False

    @property
    def ko(self) -> str:
        return self.polite

    @property
    def agree(self) -> str:
        """The pronoun whose verb it takes: a friend is "they", but takes "is"."""
        return "he" if self.en == "my friend" else self.pronoun


def _nouns(rows: str, kind: str, unit: str = "개") -> tuple[Noun, ...]:
    """One noun per line-separated "한국어=English" row."""
    pairs = (row.split("=") for row in rows.replace("\n", ",").split(",") if row.strip())
    return tuple(Noun(ko.strip(), en.strip(), kind, unit) for ko, en in pairs)


def phrases(rows: str) -> tuple[Phrase, ...]:
    pairs = (row.split("=") for row in rows.replace("\n", ",").split(",") if row.strip())
    return tuple(Phrase(ko.strip(), en.strip()) for ko, en in pairs)


HOT = _nouns("커피=coffee,녹차=green tea,홍차=black tea,차=tea,유자차=citron tea,핫초코=hot chocolate", "mass", "잔")  # fmt: skip
COLD = _nouns("주스=juice,오렌지 주스=orange juice,사과 주스=apple juice,레모네이드=lemonade,콜라=cola,아이스티=iced tea", "mass", "잔")  # fmt: skip
ALCOHOL = _nouns("맥주=beer,와인=wine,소주=soju,막걸리=makgeolli", "mass", "병")
PLAIN = _nouns("우유=milk,물=water", "mass", "잔")
TREATS = HOT + COLD + ALCOHOL  # what one suggests to a friend
DRINKS = HOT + COLD + ALCOHOL + PLAIN

BOWLS = _nouns("라면=ramen,냉면=cold noodles,비빔밥=bibimbap,칼국수=noodle soup,떡국=rice cake soup,죽=porridge", "mass", "그릇")  # fmt: skip
DISHES = _nouns("불고기=bulgogi,김치=kimchi,피자=pizza,치킨=fried chicken,떡볶이=tteokbokki,생선=fish,고기=meat,샐러드=salad", "mass")  # fmt: skip
SNACKS = _nouns("빵=bread,케이크=cake,아이스크림=ice cream,초콜릿=chocolate,과일=fruit", "mass")
FRUIT = _nouns("사과=apple,바나나=banana,오렌지=orange,복숭아=peach", "count")
BITES = _nouns("샌드위치=sandwich,햄버거=hamburger,계란=egg,쿠키=cookie", "count")
FOODS = BOWLS + DISHES + SNACKS + FRUIT + BITES
MEALS = phrases("아침=breakfast,점심=lunch,저녁=dinner")

READING = _nouns("책=book,소설=novel,잡지=magazine", "count", "권")
CLOTHES = _nouns("모자=hat,코트=coat,셔츠=shirt,치마=skirt,원피스=dress", "count")
PAIRS = _nouns("신발=shoes,바지=pants,안경=glasses,장갑=gloves,양말=socks", "plural")
GOODS = _nouns("가방=bag,우산=umbrella,시계=watch,컴퓨터=computer,자전거=bicycle,카메라=camera,선물=gift", "count")  # fmt: skip
SMALL = _nouns("열쇠=key,지갑=wallet,휴대폰=phone,연필=pencil,공책=notebook,컵=cup", "count")
FURNITURE = _nouns("의자=chair,침대=bed,책상=desk,소파=sofa", "count")
FLOWERS = _nouns("꽃=flowers", "plural")
TICKETS = _nouns("표=ticket", "count", "장")
ANIMALS = _nouns("고양이=cat,개=dog,새=bird,토끼=rabbit,말=horse", "count", "마리")
COLOURS = phrases("빨간=red,파란=blue,노란=yellow,하얀=white,까만=black")
GIFTS = CLOTHES + PAIRS + GOODS + FLOWERS
INSTRUMENTS = phrases("피아노=piano,기타=guitar")
LANGUAGES = phrases("한국어=Korean,영어=English,일본어=Japanese,중국어=Chinese,프랑스어=French")
SUBJECTS_AT_SCHOOL = phrases("수학=math,역사=history,과학=science,음악=music")

JOBS = _nouns(
    "학생=student,의사=doctor,간호사=nurse,요리사=cook,가수=singer,작가=writer,변호사=lawyer,"
    "경찰관=police officer,화가=painter,기자=reporter,배우=actor,회사원=office worker",
    "count",
    "명",
)

I = Subject("나", "저", "I", "I")  # noqa: E741
WE = Subject("우리", "우리", "we", "we")
NAMES = phrases("민수=Minsu,지훈=Jihun,현우=Hyunu,수진=Sujin,유나=Yuna,은지=Eunji")
GENDER = dict(zip((n.ko for n in NAMES), ("he", "he", "he", "she", "she", "she"), strict=True))
FRIENDS = tuple(Subject(n.ko, n.ko + " 씨", n.en, GENDER[n.ko]) for n in NAMES)
FAMILY = (
    Subject("엄마", "엄마", "my mom", "she"),
    Subject("아빠", "아빠", "my dad", "he"),
    Subject("형", "형", "my older brother", "he"),
    Subject("누나", "누나", "my older sister", "she"),
    Subject("남동생", "남동생", "my younger brother", "he"),
    Subject("여동생", "여동생", "my younger sister", "she"),
)
ELDERS = (
    Subject("어머니", "어머니", "my mother", "she", True),
    Subject("아버지", "아버지", "my father", "he", True),
    Subject("할머니", "할머니", "my grandmother", "she", True),
    Subject("할아버지", "할아버지", "my grandfather", "he", True),
)
OTHERS = (
    Subject("친구", "친구", "my friend", "they"),
    Subject("친구들", "친구들", "my friends", "they"),
    Subject("아이들", "아이들", "the children", "they"),
    Subject("그", "그", "he", "he"),
    Subject("그녀", "그녀", "she", "she"),
    Subject("그들", "그들", "they", "they"),
)
EVERYONE = (WE, *FRIENDS, *FAMILY, *ELDERS, *OTHERS)

SCHOOL = Place("학교", "to school", "at school", "school")
HOME = Place("집", "home", "at home", "home")
WORK = Place("회사", "to work", "at work", "work")
PARK = Place("공원", "to the park", "in the park", "the park")
LIBRARY = Place("도서관", "to the library", "at the library", "the library")
CAFE = Place("카페", "to the cafe", "at the cafe", "the cafe")
DINER = Place("식당", "to the restaurant", "at the restaurant", "the restaurant")
MARKET = Place("시장", "to the market", "at the market", "the market")
MALL = Place("백화점", "to the department store", "at the department store", "the department store")
BOOKSHOP = Place("서점", "to the bookstore", "at the bookstore", "the bookstore")
BEACH = Place("바닷가", "to the beach", "at the beach", "the beach")
POOL = Place("수영장", "to the pool", "at the pool", "the pool")
STATION = Place("역", "to the station", "at the station", "the station")
CINEMA = Place("영화관", "to the movie theater", "at the movie theater", "the movie theater")
BUILDINGS = (
    Place("은행", "to the bank", "at the bank", "the bank"),
    Place("병원", "to the hospital", "at the hospital", "the hospital"),
    Place("우체국", "to the post office", "at the post office", "the post office"),
    Place("약국", "to the pharmacy", "at the pharmacy", "the pharmacy"),
    Place("호텔", "to the hotel", "at the hotel", "the hotel"),
    Place("박물관", "to the museum", "at the museum", "the museum"),
    Place("공항", "to the airport", "at the airport", "the airport"),
)
IN_TOWN = (PARK, LIBRARY, CAFE, DINER, MARKET, MALL, BOOKSHOP, BEACH, POOL, STATION, CINEMA, *BUILDINGS)  # fmt: skip
CITIES = (
    Place("서울", "to Seoul", "in Seoul", "Seoul"),
    Place("부산", "to Busan", "in Busan", "Busan"),
    Place("제주도", "to Jeju Island", "on Jeju Island", "Jeju Island"),
    Place("한국", "to Korea", "in Korea", "Korea"),
    Place("일본", "to Japan", "in Japan", "Japan"),
    Place("중국", "to China", "in China", "China"),
)
PLACES = (SCHOOL, HOME, WORK, *IN_TOWN, *CITIES)
SPOTS = phrases("위=on,아래=under,옆=next to,앞=in front of,뒤=behind")
VEHICLES = phrases("버스=bus,지하철=subway,택시=taxi,기차=train,비행기=plane,자전거=bicycle")

WEEKDAYS = phrases("월요일=Monday,화요일=Tuesday,수요일=Wednesday,목요일=Thursday,금요일=Friday,토요일=Saturday,일요일=Sunday")  # fmt: skip
MONTHS = phrases("일월=January,이월=February,삼월=March,사월=April,오월=May,유월=June,칠월=July,팔월=August,구월=September,시월=October,십일월=November,십이월=December")  # fmt: skip
NUMBERS = phrases("한=one,두=two,세=three,네=four,다섯=five,여섯=six,일곱=seven,여덟=eight,아홉=nine,열=ten,열한=eleven,열두=twelve")  # fmt: skip
HOURS = tuple(Phrase(f"{n.ko} 시", f"{n.en} o'clock") for n in NUMBERS)
PAST_TIMES = phrases("어제=yesterday,지난주에=last week,오늘 아침에=this morning,어젯밤에=last night,지난 주말에=last weekend,아까=earlier")  # fmt: skip
FUTURE = phrases("내일=tomorrow,모레=the day after tomorrow,다음 주에=next week,오늘 저녁에=this evening,이번 주말에=this weekend,나중에=later")  # fmt: skip
DAYS = tuple(Phrase(f"{d.ko}에", f"on {d.en}") for d in WEEKDAYS)
FUTURE_TIMES = FUTURE + DAYS
OFTEN = phrases("자주=often,가끔=sometimes,항상=always,보통=usually")  # before the verb
REGULARLY = phrases("매일=every day,매일 아침=every morning,매일 저녁=every evening,주말마다=every weekend,월요일마다=every Monday,금요일마다=every Friday,매주=every week")  # fmt: skip
