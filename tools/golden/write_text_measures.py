"""Writes `testdata/golden/rows/text_measures.json`: what sacreBLEU and rouge_score make of generated texts.

- `rows`: a `text` and its `references`; its words as each of sacreBLEU's tokenizers finds them (`words`, with spaces between
  them); and the measures of a corpus of this row alone, see `measures`.
- `corpora`: the indices of `rows` and the measures of all of them together.

Measures: for each tokenizer `bleu` [score, four precisions, brevity penalty] with sacreBLEU's defaults (exponential smoothing,
effective order off), `chrf` and `chrf_plus_plus` (word_order=2), and `rouge`, the means of F1 of rouge1, rouge2 and rougeL
against the first reference with use_stemmer=False. A row with fewer references than others of its corpus has its last one again.

The first rows are written by hand; the others are random characters of what tokenizers tell apart.
"""

import random

import sacrebleu
from golden_common import GOLDEN, write_json
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

TOKENIZERS = ["13a", "zh", "char", "none"]
KINDS = ["rouge1", "rouge2", "rougeL"]
ROWS = [
    ("the cat is on the mat", ["the cat sat on the mat"]),
    ("There is a cat on the mat .", ["The cat is on the mat.", "There is a cat on the mat.", "Look at the mat!"]),
    ("the the the the the the the", ["The cat is on the mat.", "the quick dog and the slow one"]),
    ("", ["an empty hypothesis has no words at all"]),
    ("no reference", [""]),
    ("", [""]),
    ("   \t ", ["white space is nothing"]),
    ("short", ["short"]),
    ("two words", ["two words"]),
    ("three words here", ["three words there"]),
    ("It costs $3,456.78, i.e. 1.5-2.0 times as much (or 50%).", ["It costs $3,456.78 - about 1.5-2.0 times as much (50 %)!"]),
    ("On 29.11.2026 at 10:30, A.B. said: \"No...\"", ["On 29.11.2026, at 10:30 A.B. said 'no...'"]),
    ("AT&amp;T said &quot;x &lt; y &gt; z&quot; &amp;lt;", ["AT&T said \"x < y > z\" &lt;"]),
    ("state-of-the-\nart <skipped>models", ["state-of-theart models"]),
    ("a line\nand another one  ", [" a line and another one"]),
    ("don't stop, it's John's.", ["do n't stop , it 's John 's ."]),
    ("e-mail: me@x-y.org/z_1 #tag [a]{b}|c~d^e`f\\g", ["e-mail me @ x-y.org / z_1 # tag [ a ] { b } | c ~ d ^ e ` f \\ g"]),
    ("..,,.a,.1,2.,3-4-x-5", [". . , , . a , . 1,2 . , 3-4 -x- 5"]),
    ("Ein Mann läuft über die Straße – schnell …", ["Ein Mann rennt über die Strasse - schnell..."]),
    ("naïve café, “quoted” ‘text’", ["naive cafe, \"quoted\" 'text'"]),
    ("今天天气很好，我们去公园吧。", ["今天的天气非常好，我们一起去公园吧！", "今天天气不错。"]),
    ("他说：“iPhone 15卖1,234.5元”。", ["他说：“iPhone 15 售价1234.5元。”"]),
    ("模型 model 有3.5亿参数(参数量)", ["该 model 有 3.5 亿个参数（参数量）"]),
    ("ＡＢＣ１２３、２０％", ["ABC123、20%"]),
    ("𠀀𠀁 rare 漢字", ["𠀀 rare 漢字𠀂"]),
    ("日本語のテキストです。", ["これは日本語の文章です。"]),
    ("한국어 문장입니다.", ["한국어 문장이다."]),
    ("Привет, мир!", ["Привет, мир."]),
    ("مرحبا بالعالم", ["مرحبا يا عالم"]),
    ("😀😀 fine 👍🏽", ["😀 fine 👍"]),
    ("e\u0301te\u0301 \u00e9t\u00e9", ["\u00e9t\u00e9 e\u0301te\u0301"]),
    ("İstanbul \u212aelvin ǅ ß", ["i̇stanbul kelvin ǆ SS"]),
    ("no\u00a0break\u2009thin\u3000wide\u200bzero\u001cseparator", ["no break thin wide zero separator"]),
    ("word! (word) 'word' -word- !! a! !a .", ["word ! ( word ) ' word ' - word - ! ! a ! ! a ."]),
    ("The quick brown fox jumps over the lazy dog", ["The fast brown fox jumped over the lazy dogs", "A quick fox jumps over a dog"]),
    ("police killed the gunman", ["the gunman killed police", "police kill the gunman"]),
    ("x" * 30 + " 1_000", ["x" * 29 + " 1 000"]),
]
LETTERS = "aab1290.,-.,-'\"&;$%/()  \t中文，。é…\u2019\u00a0ＡA_"
CORPORA = {
    "all": lambda index, row: True,
    "one_reference": lambda index, row: len(row[1]) == 1,
    "chinese": lambda index, row: any("\u4e00" <= character <= "\u9fff" for character in row[0]),
    "random": lambda index, row: index >= len(ROWS),
    "short": lambda index, row: len(row[0].split()) < 4,
    "blank": lambda index, row: not row[0].strip(),
}


def drawn(numbers):
    """Pairs of random texts, the second one the first with some characters changed."""
    rows = []
    for _ in range(24):
        text = [numbers.choice(LETTERS) for _ in range(numbers.randrange(1, 32))]
        other = [numbers.choice(LETTERS) if numbers.random() < 0.2 else character for character in text]
        rows.append(("".join(text), ["".join(other)]))
    return rows


def measures(rows):
    """The measures of a corpus."""
    texts = [text for text, _ in rows]
    most = max(len(references) for _, references in rows)
    streams = [[references[min(at, len(references) - 1)] for _, references in rows] for at in range(most)]
    bleu = {}
    for tokenizer in TOKENIZERS:
        score = BLEU(tokenize=tokenizer, smooth_method="exp", effective_order=False).corpus_score(texts, streams)
        bleu[tokenizer] = [score.score, *score.precisions, score.bp]
    scorer = RougeScorer(KINDS, use_stemmer=False)
    rouge = [scorer.score(references[0], text) for text, references in rows]
    return {
        "bleu": bleu,
        "chrf": CHRF().corpus_score(texts, streams).score,
        "chrf_plus_plus": CHRF(word_order=2).corpus_score(texts, streams).score,
        "rouge": [sum(score[kind].fmeasure for score in rouge) / len(rows) for kind in KINDS],
    }


def words(text):
    """The words that BLEU counts."""
    found = {}
    for tokenizer in TOKENIZERS:
        found[tokenizer] = " ".join(BLEU(tokenize=tokenizer).tokenizer(text.rstrip()).split())
    return found


def main():
    rows = ROWS + drawn(random.Random(29))
    corpora = []
    for name, is_in in CORPORA.items():
        indices = [index for index, row in enumerate(rows) if is_in(index, row)]
        corpora.append({"name": name, "rows": indices, **measures([rows[index] for index in indices])})
    written = [
        {"text": text, "references": references, "words": words(text), **measures([(text, references)])}
        for text, references in rows
    ]
    tools = {"sacrebleu": sacrebleu.__version__, "rouge_score": "0.1.2"}
    write_json(GOLDEN / "rows" / "text_measures.json", {"tools": tools, "rows": written, "corpora": corpora})


if __name__ == "__main__":
    main()
