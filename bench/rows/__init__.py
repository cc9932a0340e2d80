"""The rows of the benchmark, in the order of the table."""

from . import decode, instructions, shapes, start, steps, texts

ROWS = [
    steps.BF16,
    steps.F32,
    steps.MEMORY,
    steps.LINEAR_SHARE,
    *shapes.ROWS,
    instructions.ROW,
    texts.MINILM,
    texts.BERT_BASE,
    texts.LSTM_ROW,
    start.ROW,
    steps.LONG_SEQUENCE,
    decode.ROW,
    steps.PAGE_FAULTS,
]
