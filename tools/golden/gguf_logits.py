"""Writes `testdata/golden/gguf/logits.json`: what llama.cpp computes from the files that `reparam convert --to gguf` writes.

    python3.11 -m venv .venv-llama
    .venv-llama/bin/pip install numpy==2.4.6 llama-cpp-py-sync==0.11739 xllamacpp==2026.10.11549
    .venv-llama/bin/python tools/golden/gguf_logits.py target/release/reparam

With names of cases behind the program only those are written, and all else stays.

llama.cpp is the b11549 that is inside of xllamacpp; the other package has the declarations of its functions.

The models are those of `testdata/golden/families` and `variants` with the changes of `gguf/cases.json` to their configuration, so that
llama.cpp has them, and a tokenizer; and `assets/stories260K`, alone, in every type, and with adapters of `golden/peft` beside
it. For each there is the SHA-256 of the file that was read, the tokens, and the logits of all positions, of the built-in model of the
last ones, [positions, vocabulary] in f32 (caches of keys and values in f32, no flash attention). Of the built-in model there is also how llama.cpp's tokenizer cuts texts.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import llama_cpp_py_sync._cffi_bindings as bindings
import numpy as np
import xllamacpp
from llama_cpp_py_sync import Llama

LLAMA_CPP = "b11549"
bindings._lib = bindings.get_ffi().dlopen(str(next(Path(xllamacpp.__file__).parent.glob("*.so"))))

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "testdata/golden"
BASE = ROOT / "assets/stories260K"
TOKENS = 12
# Of the built-in model, the last positions alone.
LAST = 3
ADAPTERS = ["plain", "patterns", "rslora"]
TYPES = ["f32", "f16", "bf16", "q8_0"]
TEXTS = ["Once upon a time, there was a little girl named Lily.", "  two  spaces\nand a line", "caf\u00e9 \u2014 \u4f60\u597d 123!", ""]


def load(path, adapter=None):
    """A model, with an adapter over it."""
    model = Llama(str(path), n_ctx=128, n_batch=128, n_threads=2, flash_attn_type=0, type_k="f32", type_v="f32")
    if adapter is not None:
        lora = model._lib.llama_adapter_lora_init(model._model, str(adapter).encode())
        assert lora != model._ffi.NULL, f"llama.cpp does not read {adapter}"
        kept = (model._ffi.new("struct llama_adapter_lora *[]", [lora]), model._ffi.new("float[]", [1.0]))
        assert model._lib.llama_set_adapters_lora(model._ctx, kept[0], 1, kept[1]) == 0
        model._kept = kept
    return model


def logits(model, tokens):
    """The logits of all positions."""
    lib, ffi = model._lib, model._ffi
    batch = lib.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for place, token in enumerate(tokens):
        batch.token[place], batch.pos[place], batch.n_seq_id[place] = token, place, 1
        batch.seq_id[place][0], batch.logits[place] = 0, 1
    assert lib.llama_decode(model._ctx, batch) == 0
    rows = [ffi.buffer(lib.llama_get_logits_ith(model._ctx, place), 4 * model.n_vocab) for place in range(len(tokens))]
    rows = np.stack([np.frombuffer(row, dtype=np.float32).copy() for row in rows])
    lib.llama_batch_free(batch)
    return rows


def record(path, tokens, adapter=None, last=None):
    """What one file gives."""
    model = load(path, adapter)
    read = adapter if adapter is not None else path
    return {
        "sha256": hashlib.sha256(read.read_bytes()).hexdigest(),
        "tokens": tokens,
        # f32 as the shortest decimal that parses to it.
        "logits": [[float(str(value)) for value in row] for row in logits(model, tokens)[-(last or len(tokens)):]],
    }


def main():
    program = Path(sys.argv[1]).resolve()
    place = Path(tempfile.mkdtemp())

    def convert(*arguments):
        target = place / f"{len(list(place.glob('*.gguf')))}.gguf"
        subprocess.run([program, "convert", "--to", "gguf", "--output", target, *arguments], check=True, cwd=ROOT)
        return target

    cases = json.loads((GOLDEN / "gguf/cases.json").read_text())
    names = sys.argv[2:]
    before = json.loads((GOLDEN / "gguf/logits.json").read_text()) if names else {}
    families = before.get("families", {})
    for name in names or cases:
        case = cases[name]
        directory = place / name / "model"
        shutil.copytree(ROOT / case.get("from", f"testdata/golden/families/{name}"), directory)
        shutil.copy(GOLDEN / "gguf/tokenizer.json", directory)
        config = json.loads((directory / "config.json").read_text())
        config.update(case.get("config", {}))
        (directory / "config.json").write_text(json.dumps(config))
        tokens = [(7 * place + 11) % 69 + 3 for place in range(case.get("tokens", TOKENS))]
        families[name] = record(convert("--model", directory, "--dtype", "f32"), tokens)
    if names:
        (GOLDEN / "gguf/logits.json").write_text(json.dumps(before) + "\n")
        shutil.rmtree(place)
        return
    built_in = convert("--model", BASE, "--dtype", "f32")
    model = load(built_in)
    texts = [{"text": text, "tokens": model.tokenize(text)} for text in TEXTS]
    tokens = model.tokenize(TEXTS[0])
    types = {name: record(convert("--model", BASE, "--dtype", name), tokens, last=LAST) for name in TYPES}
    adapters = {}
    for name in ADAPTERS:
        adapter = convert("--adapter", GOLDEN / "peft" / name, "--model", BASE)
        adapters[name] = record(built_in, tokens, adapter, LAST)
    written = {
        "llama.cpp": LLAMA_CPP,
        "families": families,
        "texts": texts,
        "types": types,
        "adapters": adapters,
    }
    (GOLDEN / "gguf/logits.json").write_text(json.dumps(written) + "\n")
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
