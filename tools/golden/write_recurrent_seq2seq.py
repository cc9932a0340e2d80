"""Writes `testdata/golden/recurrent-seq2seq/`: tiny recurrent encoder-decoders made of `torch.nn` modules, and what they compute.

Each `NAME/` is a model directory (no tokenizer): `config.json` and `model.safetensors` with the names that docs/files.md gives.
`NAME.safetensors` is as those of `seq2seq/`: three pairs, each computed alone, and one label that is not learned from.

`cases.json` has for every model `generation`: settings under the keys of `generation_config.json`, a source, the tokens after the
start token that a plain search finds, which computes every target anew from its first token, and with beams the score. The script
fails unless weights in f64 give the same tokens.
"""

import copy
import json
import shutil

from golden_common import GOLDEN, seq2seq_tensors, setup, write_json, write_tensors

import torch
from torch import nn

DIRECTORY = GOLDEN / "recurrent-seq2seq"
VOCABULARY = 23
START, PAD = 1, 0
CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
BOTH = {"bidirectional": True, "num_hidden_layers": 2}
MODELS = {
    "lstm-general": {**BOTH, "hidden_size": 6, "embedding_size": 5, "encoder_hidden_size": 4},
    # Both directions together are as wide as the decoder: nothing maps the states.
    "lstm-dot": {**BOTH, "hidden_size": 6, "encoder_hidden_size": 3, "attention_score": "dot"},
    "gru-general": {**BOTH, "hidden_size": 5, "encoder_layers": 2, "num_hidden_layers": 1},
    "gru-dot": {
        **BOTH,
        "hidden_size": 8,
        "encoder_hidden_size": 4,
        "attention_score": "dot",
        "tie_word_embeddings": True,
    },
    "lstm-additive": {
        "hidden_size": 5,
        "encoder_hidden_size": 7,
        "encoder_layers": 1,
        "num_hidden_layers": 2,
        "attention_score": "additive",
    },
    "rnn-additive": {
        "bidirectional": True,
        "hidden_size": 6,
        "nonlinearity": "relu",
        "bias": False,
        "attention_score": "additive",
    },
}
SOURCES = [9, 1, 14]
TARGETS = [6, 3, 11]


class Attention(nn.Module):
    """`tanh(W_c [c; h])`, `c` the states of the source weighted by how they compare with `h`."""

    def __init__(self, score, width, source):
        super().__init__()
        self.score = score
        if score == "general":
            self.query = nn.Linear(width, source, bias=False)
        if score == "additive":
            self.query = nn.Linear(width, width, bias=False)
            self.key = nn.Linear(source, width, bias=False)
            self.energy = nn.Linear(width, 1, bias=False)
        self.output = nn.Linear(source + width, width, bias=False)

    def forward(self, h, states):
        if self.score == "dot":
            scores = h @ states.T
        elif self.score == "general":
            scores = self.query(h) @ states.T
        else:
            scores = self.energy(torch.tanh(self.query(h)[:, None] + self.key(states)[None]))[..., 0]
        read = scores.softmax(dim=1) @ states
        return torch.tanh(self.output(torch.cat([read, h], dim=1)))


class Side(nn.Module):
    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn


class Body(nn.Module):
    def __init__(self, kind, config):
        super().__init__()
        hidden, bias = config["hidden_size"], config.get("bias", True)
        inner = config.get("encoder_hidden_size", hidden)
        directions = 2 if config.get("bidirectional") else 1
        self.n_layers = config.get("num_hidden_layers", 1)
        encoder_layers = config.get("encoder_layers", self.n_layers)
        options = {"nonlinearity": config["nonlinearity"]} if "nonlinearity" in config else {}
        self.embedding = nn.Embedding(VOCABULARY, config.get("embedding_size", hidden))
        width = self.embedding.embedding_dim
        both = directions == 2
        encoder = CELLS[kind](width, inner, encoder_layers, bias=bias, bidirectional=both, **options)
        self.encoder = Side(encoder)
        self.decoder = Side(CELLS[kind](width, hidden, self.n_layers, bias=bias, **options))
        source = directions * inner
        self.decoder.attention = Attention(config.get("attention_score", "general"), hidden, source)
        self.directions = directions
        if source != hidden:
            states = "hc" if kind == "lstm" else "h"
            layers = {f"{s}_l{n}": nn.Linear(source, hidden, bias=bias) for s in states for n in range(self.n_layers)}
            self.decoder.bridge = nn.ModuleDict(layers)

    def begin(self, last, name):
        """The states that the layers of the decoder begin with."""
        # [layers, directions * hidden]
        joined = last[:, 0].reshape(-1, self.directions * last.shape[-1])
        starts = []
        for layer in range(self.n_layers):
            state = joined[max(0, layer + len(joined) - self.n_layers)]
            if hasattr(self.decoder, "bridge"):
                state = self.decoder.bridge[f"{name}_l{layer}"](state)
            starts.append(state)
        return torch.stack(starts)[:, None]

    def forward(self, source, target):
        states, last = self.encoder.rnn(self.embedding(source)[:, None])
        if isinstance(last, tuple):
            first = (self.begin(last[0], "h"), self.begin(last[1], "c"))
        else:
            first = self.begin(last, "h")
        h, _ = self.decoder.rnn(self.embedding(target)[:, None], first)
        return self.decoder.attention(h[:, 0], states[:, 0])


class Net(nn.Module):
    """A body under `model`, and a head as transformers would call it."""

    def __init__(self, kind, config):
        super().__init__()
        self.model = Body(kind, config)
        self.lm_head = nn.Linear(config["hidden_size"], VOCABULARY, bias=False)
        if config.get("tie_word_embeddings"):
            self.lm_head.weight = self.model.embedding.weight

    def forward(self, source, target):
        return self.lm_head(self.model(source, target))


def computed(net, rows, labels):
    """The tensors of one golden file."""
    shifted = [torch.cat([torch.tensor([START]), label[:-1]]) for label in labels]
    shifted = [row.masked_fill(row == -100, PAD) for row in shifted]
    logits = torch.cat([net(row, before) for row, before in zip(rows, shifted)])
    return seq2seq_tensors(net, rows, labels, shifted, logits)


def scores_of(net, source, tokens):
    """The log-probabilities of what comes after `tokens`."""
    return net(source, torch.tensor([START, *tokens]))[-1].log_softmax(dim=0).tolist()


def greedy(net, source, settings):
    tokens = []
    while len(tokens) < settings["max_new_tokens"] and tokens[-1:] != [settings["eos_token_id"]]:
        scores = scores_of(net, source, tokens)
        tokens.append(max(range(VOCABULARY), key=scores.__getitem__))
    return tokens, None


def beams(net, source, settings):
    """Follows the best targets that have not ended, until as many have."""
    n, most = settings["num_beams"], settings["max_new_tokens"]
    running, finished = [(0.0, [])], []
    for length in range(1, most + 1):
        grown = [
            (score + more, [*tokens, token])
            for score, tokens in running
            for token, more in enumerate(scores_of(net, source, tokens))
        ]
        best = sorted(grown, reverse=True)[: 2 * n]
        ended = [tokens[-1] == settings["eos_token_id"] for _, tokens in best]
        for (score, tokens), ends in list(zip(best, ended))[:n]:
            if ends or length == most:
                finished.append((score / length ** settings["length_penalty"], tokens))
        finished = sorted(finished, reverse=True)[:n]
        running = [of for of, ends in zip(best, ended) if not ends][:n]
        if len(finished) == n:
            break
    return finished[0][1], finished[0][0]


def generations(net, rows):
    """Searches with several ends of text, those that come soon among them."""
    wide = copy.deepcopy(net).double()
    cases = []
    for row in rows:
        unending = {"num_beams": 1, "max_new_tokens": 9, "eos_token_id": PAD}
        written, _ = greedy(net, row, unending)
        # What comes late for the first time.
        *_, early, late = [written[0], *dict.fromkeys(written)]
        beam = {"num_beams": 3, "max_new_tokens": 9, "length_penalty": 0.7, "early_stopping": True}
        for settings in [
            unending,
            {**unending, "eos_token_id": late},
            {**beam, "eos_token_id": late},
            {**beam, "num_beams": 4, "length_penalty": 1.5, "eos_token_id": early},
        ]:
            search = greedy if settings["num_beams"] == 1 else beams
            with torch.no_grad():
                tokens, score = search(net, row, settings)
                again, _ = search(wide, row, settings)
            assert tokens == again, (settings, tokens, again)
            cases.append({"settings": settings, "source": row.tolist(), "tokens": tokens, "score": score})
    return cases


def main():
    setup(43)
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    cases = {}
    for name, config in MODELS.items():
        kind = name.split("-")[0]
        net = Net(kind, config)
        with torch.no_grad():
            for key, parameter in net.named_parameters():
                # Small tables would have the last token come again and again.
                parameter.normal_(0.0, 1.5 if "embedding" in key else 0.7)
        rows = [torch.randint(2, VOCABULARY, (length,)) for length in SOURCES]
        labels = [torch.randint(2, VOCABULARY, (length,)) for length in TARGETS]
        labels[0][2] = -100
        directory = DIRECTORY / name
        directory.mkdir(parents=True)
        full = {
            "model_type": kind,
            "architectures": ["RecurrentForConditionalGeneration"],
            "is_encoder_decoder": True,
            "vocab_size": VOCABULARY,
            "decoder_start_token_id": START,
            "eos_token_id": 2,
            "pad_token_id": PAD,
            **config,
        }
        (directory / "config.json").write_text(json.dumps(full, indent=2) + "\n")
        weights = {key: value.detach() for key, value in net.named_parameters()}
        write_tensors(directory / "model.safetensors", weights)
        write_tensors(DIRECTORY / f"{name}.safetensors", computed(net, rows, labels))
        cases[name] = {"generation": generations(net, rows)}
    write_json(DIRECTORY / "cases.json", cases)


if __name__ == "__main__":
    main()
