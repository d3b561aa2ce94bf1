"""Groups in which every wrong passage shares the words of the right one: roles, negations, entities, unknown terms.

All sentences are made from the lists below, so that any number of different groups can be drawn.
"""

from __future__ import annotations

import random
from collections.abc import Callable

Group = tuple[str, list[str]]
"""A query, and passages of which the first alone is right."""


def _listed(text: str, separator: str = " ") -> list[str]:
    return text.split(separator)


_PEOPLE = _listed(
    "nurse engineer farmer pilot teacher lawyer baker captain singer plumber surgeon tailor mayor clerk painter "
    "student gardener reporter banker waiter coach detective chemist librarian sculptor"
)
_NAMES = _listed(
    "Alvarez Okafor Lindqvist Tanaka Moreau Novak Petrov Haddad Schmidt Rossi Mbeki Larsen Kowalski Dubois "
    "Ferreira Nakamura Andersson Costa Ivanova Keller Nguyen Osei Romano Sato Varga"
)
_PLACES = _listed(
    "Aldermoor Brackwater Carnwick Dunhollow Eastmere Fallowgate Greystoke Harrowfield Kingsmarsh Lowbridge "
    "Millhaven Northcliff Oakhurst Pinewater Ravensworth Silverdale Thornbury Westbourne"
)
_DEEDS = (
    ("hired", "hired"),
    ("taught", "taught"),
    ("defeated", "defeated"),
    ("sued", "sued"),
    ("called", "called"),
    ("paid", "paid"),
    ("rescued", "rescued"),
    ("interviewed", "interviewed"),
    ("visited", "visited"),
    ("drew", "drawn"),
    ("forgave", "forgiven"),
    ("saw", "seen"),
    ("replaced", "replaced"),
    ("insulted", "insulted"),
)
_ASIDES = (
    "The bread was still warm when the shop opened.",
    "Rain is expected in the hills on Thursday afternoon.",
    "Fold the paper twice and press the edge with a ruler.",
    "The museum keeps its coins in a locked drawer.",
    "Two ducks crossed the road behind the school.",
    "A new coat of paint takes about a day to dry.",
    "The recipe needs half a litre of milk and three eggs.",
    "Their train was delayed by a fallen tree.",
)
_SYLLABLES = _listed(
    "ba bro cal da del dro fi fen gal ge ho jo ka kel lu mer mi nor o pra qui ra ril so sta tem u ver vo wi xa zel zo"
)
_FIELDS = (
    ("method", "compressing medical images", "Medical images take up a lot of disk space."),
    ("protocol", "sharing files between boats", "Boats often lose their radio link in storms."),
    ("library", "drawing maps in the browser", "Maps with many layers are slow to draw."),
    ("database", "storing sensor readings", "Sensor readings arrive thousands of times a second."),
    ("algorithm", "sorting very long lists", "Sorting very long lists needs much memory."),
    ("framework", "testing mobile apps", "Testing mobile apps by hand takes weeks."),
    ("technique", "training small language models", "Training language models needs expensive hardware."),
    ("format", "exchanging sheet music", "Sheet music is hard to read on a small screen."),
    ("tool", "finding errors in spreadsheets", "Errors in spreadsheets cost companies money."),
    ("standard", "labelling recycled plastic", "Recycled plastic is cheaper than it was."),
    ("compiler", "running code on tiny chips", "Tiny chips have only a few kilobytes of memory."),
    ("process", "cleaning water with sunlight", "Clean water is scarce in dry regions."),
)
_LIKINGS = (
    ("I like {}", "I am fond of {}.", "I don't like {}.", "I can't stand {}."),
    ("I enjoy {}", "{} makes me happy.", "I do not enjoy {}.", "{} annoys me."),
    ("I hate {}", "I can't stand {}.", "I don't hate {}.", "I love {}."),
    ("I agree with {}", "I think {} is right.", "I disagree with {}.", "I don't agree with {} at all."),
    ("I trust {}", "I have confidence in {}.", "I don't trust {}.", "I have never trusted {}."),
)
_THINGS = _listed("opera;my neighbour;the new manager;long walks;this team;cold weather;our teacher;loud music", ";")
_SUPPORT = (
    ("Which {kind} work without {need}?", "{name} works without {need}.", "{name} does not work without {need}."),
    ("{kind} that do not need {need}", "{name} does not need {need}.", "{name} needs {need}."),
    ("{kind} with {need}", "{name} comes with {need}.", "{name} comes without {need}."),
    (
        "Which {kind} are not compatible with {need}?",
        "{name} is not compatible with {need}.",
        "{name} is compatible with {need}.",
    ),
)
_KINDS = ["printers", "cameras", "pumps", "phones", "lamps", "radios", "sensors", "locks"]
_NEEDS = ["a battery", "an account", "a subscription", "a cable", "internet access", "a licence key", "an adapter"]
_FACTS = (
    (
        "When was {} founded?",
        "{} was founded in {year}.",
        ("{} has {number} inhabitants.", "The mayor of {} was elected in {year}."),
    ),
    (
        "How many people live in {}?",
        "{} has {number} inhabitants.",
        ("{} was founded in {year}.", "The mayor of {} has lived there for long."),
    ),
    (
        "Who is the mayor of {}?",
        "The mayor of {} is {person}.",
        ("{} was founded in {year}.", "{person} visited {} last spring."),
    ),
    (
        "How high is the tower of {}?",
        "The tower of {} rises {height} metres.",
        ("The tower of {} was built in {year}.", "{} has {number} inhabitants."),
    ),
    (
        "When does the market in {} open?",
        "The market in {} opens at {hour}.",
        ("The market in {} sells fish and cheese.", "{} was founded in {year}."),
    ),
    (
        "What river flows through {}?",
        "{} lies on the river {river}.",
        ("{} has {number} inhabitants.", "Swimming is popular in {}."),
    ),
)


def make_traps(count: int, seed: int = 0) -> list[Group]:
    """Draw groups of all kinds in turn."""
    draw = random.Random(seed)
    kinds: tuple[Callable[[random.Random], Group], ...] = (_roles, _liking, _support, _entity, _term, _term)
    return [kinds[number % len(kinds)](draw) for number in range(count)]


def _roles(draw: random.Random) -> Group:
    one, other, third = draw.sample([*(f"the {person}" for person in _PEOPLE), *_NAMES], 3)
    past, participle = draw.choice(_DEEDS)
    if draw.random() < 1 / 2:
        query = f"Who was {participle} by {one}?"
        right = draw.choice([f"{one} {past} {other}.", f"{other} was {participle} by {one}."])
        wrong = [f"{other} {past} {one}.", f"{one} was {participle} by {other}."]
    else:
        query = f"Who {past} {one}?"
        right = draw.choice([f"{other} {past} {one}.", f"{one} was {participle} by {other}."])
        wrong = [f"{one} {past} {other}.", f"{other} was {participle} by {one}."]
    wrong.append(f"{third} waited for {one} outside.")
    return query, [_capital(right), *map(_capital, wrong), *draw.sample(_ASIDES, 2)]


def _liking(draw: random.Random) -> Group:
    query, *passages = (
        text.format(draw_thing) for draw_thing in [draw.choice(_THINGS)] for text in draw.choice(_LIKINGS)
    )
    return query, [*map(_capital, passages), *draw.sample(_ASIDES, 3)]


def _support(draw: random.Random) -> Group:
    query, right, wrong = draw.choice(_SUPPORT)
    kind, need = draw.choice(_KINDS), draw.choice(_NEEDS)
    names = [f"The {_term_name(draw).capitalize()} {number}" for number in draw.sample(range(10, 900), 3)]
    return _capital(query.format(kind=kind, need=need)), [
        right.format(name=names[0], need=need),
        *(wrong.format(name=name, need=need) for name in names[1:]),
        f"Most {kind} are sold with {draw.choice(['a manual', 'a box', 'two screws'])}.",
        *draw.sample(_ASIDES, 2),
    ]


def _entity(draw: random.Random) -> Group:
    query, right, wrong = draw.choice(_FACTS)
    place, other = draw.sample(_PLACES, 2)

    def fill(text: str, name: str) -> str:
        return text.format(
            name,
            year=draw.randrange(1100, 2000),
            number=f"{draw.randrange(1000, 90000):,}",
            person=f"{draw.choice('ABCDEFGHJKLM')}. {draw.choice(_NAMES)}",
            height=draw.randrange(20, 200),
            hour=f"{draw.randrange(5, 11)} o'clock",
            river=draw.choice(("Ash", "Wend", "Torr", "Lyme", "Ouse")),
        )

    return query.format(place), [
        fill(right, place),
        fill(right, other),
        *(fill(text, place) for text in wrong),
        *draw.sample(_ASIDES, 2),
    ]


def _term(draw: random.Random) -> Group:
    """An invented term, which the tokenizer breaks into pieces: its definition, those of others, its field alone."""
    term, *others = (draw.choice((str, str.upper, str.capitalize))(_term_name(draw)) for _ in range(3))
    (kind, use, related), (other_kind, other_use, _) = draw.sample(_FIELDS, 2)
    query = draw.choice(("What is {}?", "what is {}", "{} meaning", "explain {}", "{}", "How does {} work?")).format(
        term
    )
    return query, [
        draw.choice(
            (
                f"{term} is a {kind} for {use}.",
                f"{term}, a {kind}, is used for {use}.",
                f"A {kind} for {use} is called {term}.",
            )
        ),
        f"{others[0]} is a {kind} for {use}.",
        f"{others[1]} is a {other_kind} for {other_use}.",
        related,
        *draw.sample(_ASIDES, 2),
    ]


def _term_name(draw: random.Random) -> str:
    return "".join(draw.sample(_SYLLABLES, draw.choice((2, 2, 3))))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
