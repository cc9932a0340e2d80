"""Writes the made data of the examples, `examples/data/`, the same bytes every time. No packages are needed.

Each file is small and its rule simple, so that a small new model learns it within two minutes on two cores; the sentences mean
nothing beyond that.
"""

import json
import random
from pathlib import Path

DIRECTORY = Path(__file__).resolve().parents[1] / "examples" / "data"
NAMES = "Anna Ben Clara David Emma Felix Greta Hugo Ida Jonas Karla Leon Mia Noah Olga Paul Rosa Simon Tara Victor".split()
FAMILY = "Berg Costa Diaz Egger Fisher Gomez Huber Ito Jansen Klein Lopez Meyer Novak Olsen Peters Rossi".split()
CITIES = ["Berlin", "Oslo", "Lima", "Cairo", "Kyoto", "Paris", "Quito", "Riga", "New York", "Cape Town", "Hong Kong", "Rio"]
FIRMS = ["Acme", "Nordlicht", "Blue River", "Sun Foods", "Orbit", "Delta Works", "Quick Post", "Stone Bank"]
TOPICS = {
    "food": (
        ["soup", "bread", "salad", "cheese", "pasta", "cake", "rice", "stew"],
        ["baked", "cooked", "tasted", "served", "ordered", "ate"],
        ["in the kitchen", "for dinner", "with salt", "at the restaurant", "from an old recipe"],
    ),
    "sport": (
        ["match", "race", "ball", "goal", "final", "team", "coach", "record"],
        ["won", "lost", "watched", "played", "kicked", "trained for"],
        ["in the stadium", "after the break", "in extra time", "on the track", "with the club"],
    ),
    "weather": (
        ["rain", "storm", "snow", "wind", "fog", "sunshine", "thunder", "frost"],
        ["expected", "saw", "heard", "feared", "enjoyed", "reported"],
        ["over the hills", "along the coast", "until the morning", "near the lake", "all week"],
    ),
}
WHO = ["We", "They", "She", "He", "My sister", "The neighbours", "Nobody", "Everyone"]
WHEN = ["today", "yesterday", "last night", "on Monday", "again", "this year", "", ""]


def sentence(chance, topic):
    things, verbs, places = TOPICS[topic]
    words = [chance.choice(WHO), chance.choice(verbs), "the", chance.choice(things), chance.choice(places), chance.choice(WHEN)]
    return " ".join(word for word in words if word) + "."


def classification(chance):
    """`text,label`: which of three things a sentence is about."""
    lines = ["text,label"]
    for _ in range(600):
        topic = chance.choice(sorted(TOPICS))
        lines.append(f"{sentence(chance, topic)},{topic}")
    return "\n".join(lines) + "\n"


def entities(chance):
    """Columns of words and IOB2 tags: people, places, companies."""
    patterns = [
        "{PER} lives in {LOC} .",
        "{PER} works for {ORG} in {LOC} .",
        "{ORG} opened an office in {LOC} last year .",
        "On Monday {PER} met {PER} in {LOC} .",
        "{PER} , who left {ORG} , moved to {LOC} .",
        "The train from {LOC} to {LOC} was late .",
        "Nobody at {ORG} had heard of {PER} .",
        "It rained all day .",
    ]
    lines = []
    for _ in range(420):
        for word in chance.choice(patterns).split():
            kind = word.strip("{}")
            if kind == word:
                lines.append(f"{word}\tO")
                continue
            name = {
                "PER": lambda: f"{chance.choice(NAMES)} {chance.choice(FAMILY)}" if chance.random() < 0.5 else chance.choice(NAMES),
                "LOC": lambda: chance.choice(CITIES),
                "ORG": lambda: chance.choice(FIRMS),
            }[kind]()
            for place, part in enumerate(name.split()):
                lines.append(f"{part}\t{'B' if place == 0 else 'I'}-{kind}")
        lines.append("")
    return "\n".join(lines)


def questions(chance):
    """Questions about two people, as JSON Lines; one in six has no answer."""
    rows = []
    for _ in range(400):
        people = chance.sample(NAMES[:8], 2)
        cities = chance.sample(CITIES[:8], 2)
        context = " ".join(f"{person} lives in {city}." for person, city in zip(people, cities))
        asked = chance.randrange(2)
        person, answers = people[asked], [cities[asked]]
        if chance.random() < 1 / 6:
            person, answers = chance.choice([name for name in NAMES[:8] if name not in people]), []
        rows.append({"context": context, "question": f"Where is {person}?", "answers": answers})
    return "".join(json.dumps(row) + "\n" for row in rows)


def similar(chance):
    """Two sentences about the same thing, as `anchor` and `positive`."""
    rows = []
    for _ in range(400):
        things, verbs, places = TOPICS[chance.choice(sorted(TOPICS))]
        thing, verb, place = chance.choice(things), chance.choice(verbs), chance.choice(places)
        who, other = chance.sample(WHO, 2)
        rows.append({"anchor": f"{who} {verb} the {thing} {place}.", "positive": f"The {thing} that {other.lower()} {verb} {place}."})
    return "".join(json.dumps(row) + "\n" for row in rows)


def texts(chance):
    """Paragraphs, one a line, that stay with one topic."""
    lines = []
    for _ in range(260):
        topic = chance.choice(sorted(TOPICS))
        lines.append(" ".join(sentence(chance, topic) for _ in range(4)))
    return "\n".join(lines) + "\n"


ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def in_words(number):
    if number < 20:
        return ONES[number]
    if number < 100:
        rest = number % 10
        return TENS[number // 10 - 2] + (f"-{ONES[rest]}" if rest else "")
    rest = number % 100
    return f"{ONES[number // 100]} hundred" + (f" and {in_words(rest)}" if rest else "")


def numbers(chance):
    """Numbers in words, as `source`, and in digits, as `target`."""
    chosen = chance.sample(range(1000), 800)
    return "".join(json.dumps({"source": in_words(number), "target": " ".join(str(number))}) + "\n" for number in chosen)


FILES = {
    "topics.csv": classification,
    "entities.conll": entities,
    "questions.jsonl": questions,
    "similar.jsonl": similar,
    "texts.txt": texts,
    "numbers.jsonl": numbers,
}


def main():
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name, make in FILES.items():
        text = make(random.Random(name))
        (DIRECTORY / name).write_text(text, encoding="utf-8")
        print(f"{name}: {len(text.encode())} bytes")


if __name__ == "__main__":
    main()
