"""Writes `testdata/golden/readers`: files of data and the rows that the `datasets` library reads from them.

The files are made up to be hard: nested quotes, emoji, text from right to left, zero bytes, CRLF, byte order marks; Parquet with
lists, objects, nulls, dictionaries and several row groups. `rows.json` has for each file the rows as `datasets` gives them;
labels by name and times as text, which `datasets` gives as numbers and objects.
"""

import csv
import json
from pathlib import Path

from golden_common import GOLDEN, write_json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

TEXTS = [
    "plain",
    'He said "she said ""no""", and left; then,\ttabs',
    "👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301 \u00e9",
    "\u202eשלום עולם\u202c مرحبا",
    "a\nb\n\nc",
    " leading and trailing ",
    "back\\slash \\n \\u0041",
    "\u2028 \u2029 \u0085 \ufeff inside",
    "x" * 3000,
]
MESSAGES = [
    [{"role": "user", "content": 'Hi "there"'}, {"role": "assistant", "content": "👋"}],
    [{"role": "system", "content": ""}, {"role": "user", "content": "עוד"}, {"role": "assistant", "content": "כן"}],
    [{"role": "user", "content": "a\n\nb"}, {"role": "assistant", "content": "c"}],
]


def write_text(path: Path, lines: list[str], end: str = "\n", mark: str = "", last: bool = True) -> None:
    text = mark + end.join(lines) + (end if last else "")
    path.write_bytes(text.encode())


def json_lines(out: Path) -> dict[str, list]:
    rows = [{"text": text} for text in TEXTS + ["zero \0 byte"]]
    lines = [json.dumps(row, ensure_ascii=index % 2 == 0) for index, row in enumerate(rows)]
    write_text(out / "hard.jsonl", lines)
    write_text(out / "crlf.jsonl", lines, end="\r\n")
    write_text(out / "mark.jsonl", lines[:3], mark="\ufeff", last=False)
    (out / "array.json").write_text(json.dumps(rows, indent=1))
    names = ["hard.jsonl", "crlf.jsonl", "mark.jsonl", "array.json"]
    return {name: read("json", out / name) for name in names}


def tables(out: Path) -> dict[str, list]:
    def write(name: str, encoding: str, **how: str) -> None:
        with (out / name).open("w", newline="", encoding=encoding) as file:
            writer = csv.writer(file, **how)
            writer.writerow(["text", "note"])
            writer.writerows([text, str(index)] for index, text in enumerate(TEXTS))

    write("hard.csv", "utf-8", lineterminator="\n")
    write("crlf.csv", "utf-8", lineterminator="\r\n")
    write("mark.csv", "utf-8-sig", lineterminator="\n", quoting=csv.QUOTE_ALL)
    # Cells as texts: pandas would make numbers and missing values of some.
    features = datasets.Features({"text": datasets.Value("string"), "note": datasets.Value("string")})
    how = {"features": features, "keep_default_na": False}
    return {name: read("csv", out / name, **how) for name in ["hard.csv", "crlf.csv", "mark.csv"]}


def texts(out: Path) -> dict[str, list]:
    lines = [text for text in TEXTS if "\n" not in text and "\u2028" not in text]
    write_text(out / "lines.txt", lines)
    write_text(out / "crlf.txt", lines, end="\r\n", last=False)
    return {name: read("text", out / name) for name in ["lines.txt", "crlf.txt"]}


def parquet(out: Path) -> dict[str, list]:
    # As `datasets` writes: with the names of classes.
    features = datasets.Features({
        "text": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["bad", "good"]),
        "tags": datasets.Sequence(datasets.ClassLabel(names=["O", "B", "I"])),
        "tokens": datasets.Sequence(datasets.Value("string")),
    })
    rows = [
        {"text": text, "label": index % 2, "tags": [index % 3, 0], "tokens": [text[:3], "b"]}
        for index, text in enumerate(TEXTS)
    ]
    classes = datasets.Dataset.from_list(rows, features=features)
    classes.to_parquet(out / "classes.parquet")
    # As pyarrow writes, with all that can be nested, in several row groups, by each codec.
    count = len(MESSAGES)
    table = pa.table({
        "messages": pa.array(MESSAGES),
        "prompt": pa.array(["a", None, "c"]),
        "word": pa.array(["same", "same", "other"]).dictionary_encode(),
        "large": pa.array(["l", "m", "n"], pa.large_string()),
        "number": pa.array([1, None, -3], pa.int64()),
        "small": pa.array([1, 2, 255], pa.uint8()),
        "real": pa.array([0.5, None, 1e300]),
        "half": pa.array([0.25, -2.0, None], pa.float32()),
        "flag": pa.array([True, False, None]),
        "lists": pa.array([[[1, 2], []], None, [[3]]]),
        "nested": pa.array([{"a": {"b": ["x", None]}}, {"a": None}, None]),
        "none": pa.array([None] * count, pa.string()),
    })
    for codec in ["none", "snappy", "zstd", "gzip"]:
        pq.write_table(table, out / f"nested-{codec}.parquet", compression=codec, row_group_size=2)
    pq.write_table(table, out / "nested-v2.parquet", data_page_version="2.0", use_dictionary=False, row_group_size=1)
    found = {"classes.parquet": named(read("parquet", out / "classes.parquet"), features)}
    for path in sorted(out.glob("nested-*.parquet")):
        found[path.name] = read("parquet", path)
    return found


def named(rows: list[dict], features: datasets.Features) -> list[dict]:
    label, tag = features["label"], features["tags"].feature
    return [
        row | {"label": label.int2str(row["label"]), "tags": [tag.int2str(one) for one in row["tags"]]}
        for row in rows
    ]


def read(kind: str, path: Path, **how: object) -> list[dict]:
    loaded = datasets.load_dataset(kind, data_files=str(path), split="train", **how)
    return [dict(row) for row in loaded]


def main() -> None:
    datasets.disable_caching()
    out = GOLDEN / "readers"
    out.mkdir(parents=True, exist_ok=True)
    rows = json_lines(out) | tables(out) | texts(out) | parquet(out)
    write_json(out / "rows.json", {"rows": rows})


if __name__ == "__main__":
    main()
