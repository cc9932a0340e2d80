"""What the golden scripts share: fixed seeds and threads, paths, documents, losses, and deterministic writers.

Importing this module changes into the repository root, so that every path below it, and every path that
transformers and PEFT record in their files, is relative to that root.
"""

import json
import os
import sys
import warnings
from pathlib import Path

# PEFT turns `target_modules` into a set and writes it in iteration order, so the bytes of `adapter_config.json`
# depend on the hash seed of the process. It can only be fixed before the interpreter starts.
if os.environ.get("PYTHONHASHSEED") != "0":
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable, *sys.argv])

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

ROOT = Path(__file__).resolve().parents[2]
os.chdir(ROOT)

import numpy  # noqa: E402
import peft  # noqa: E402
import safetensors  # noqa: E402
import tokenizers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402

GOLDEN = Path("testdata/golden")
BASE = "assets/stories260K"
SHAKESPEARE = Path("assets/tinyshakespeare.txt")
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball. She wanted to play with it, but it was too high. Her mom said, "
    '"Do not worry, Lily. We can ask your dad to help." Lily smiled and gave her mom a big hug.'
)
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTER_STD = 0.05

transformers.utils.logging.disable_progress_bar()
# PEFT 0.21 calls a name that transformers 5.23 is about to drop; nothing here depends on it.
warnings.filterwarnings("ignore", category=FutureWarning, message=".*is_gradient_checkpointing.*")


class InF64(TorchFunctionMode):
    """Keeps a model whose parameters are f64 in f64: transformers casts norms, softmax and angles to f32 by name."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        def widen(value):
            return torch.float64 if value is torch.float32 else value

        if func is torch.Tensor.float:
            func = torch.Tensor.double
        return func(*map(widen, args), **{name: widen(value) for name, value in (kwargs or {}).items()})


def setup(seed):
    """Fixes everything that a run could otherwise vary in: seed, threads, algorithms."""
    torch.manual_seed(seed)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    torch.set_default_dtype(torch.float32)


def versions():
    """The versions that decide the numbers."""
    return {
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "tokenizers": tokenizers.__version__,
        "safetensors": safetensors.__version__,
        "numpy": numpy.__version__,
    }


def load_base(path=BASE, dtype=torch.float32):
    """The causal language model in `path`, in evaluation mode, with the plain (eager) attention."""
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager")
    return model.eval()


def load_tokenizer(path=BASE):
    """The tokenizer in `path`."""
    return transformers.AutoTokenizer.from_pretrained(path)


def encode(tokenizer, text):
    """The ids of `text` under the tokenizer's own template (here: BOS first), without EOS."""
    return tokenizer(text)["input_ids"]


def flatten(documents):
    """Documents as one flat id tensor and the bounds `[0, n1, n1 + n2, ...]` (one more than there are documents)."""
    bounds = [0]
    for document in documents:
        bounds.append(bounds[-1] + len(document))
    return torch.tensor(sum(documents, []), dtype=torch.int64), torch.tensor(bounds, dtype=torch.int64)


def seq2seq_tensors(model, rows, labels, shifted, logits):
    """What a golden file of an encoder-decoder has: a batch, its logits, its summed losses, and the gradients of the smoothed one."""
    targets = torch.cat(labels)
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    smoothed = torch.nn.functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=0.1)
    smoothed.backward()
    source, source_bounds = flatten([row.tolist() for row in rows])
    flat, bounds = flatten([label.tolist() for label in labels])
    tensors = {
        "source": source,
        "source_bounds": source_bounds,
        "labels": flat,
        "bounds": bounds,
        "decoder_input": torch.cat(shifted),
        "logits": logits.detach(),
        "loss": loss.detach().reshape(1),
        "smoothed": smoothed.detach().reshape(1),
    }
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            tensors[f"grad.{name}"] = parameter.grad.clone()
    return tensors


def mean_nll(model, documents):
    """Summed negative log-likelihood over predicted tokens / their number; each document is its own sequence."""
    total, count = 0.0, 0
    for document in documents:
        ids = torch.as_tensor(document, dtype=torch.int64).reshape(1, -1)
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        total = total + torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
        count += ids.shape[1] - 1
    return total / count


def lora_factors(model):
    """The LoRA factors of a PEFT model under the names that PEFT writes into `adapter_model.safetensors`."""
    return {
        name.replace(".default.weight", ".weight"): parameter
        for name, parameter in model.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    }


def randomize(parameters, std=ADAPTER_STD):
    """Overwrites `parameters` with normal numbers of standard deviation `std`."""
    with torch.no_grad():
        for parameter in parameters:
            parameter.normal_(0.0, std)


def max_abs_difference(left, right):
    """The largest absolute difference between two equally keyed dictionaries of tensors, compared in f64."""
    return max((left[name].double() - right[name].double()).abs().max().item() for name in left)


def write_tensors(path, tensors):
    """Writes a safetensors file. One metadata key only: the library writes several in random order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    save_file(tensors, str(path), metadata={"versions": json.dumps(versions())})


def write_json(path, value):
    """Writes `value` and the tool versions as JSON; f32 numbers are written so that parsing restores them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"versions": versions(), **value}, indent=1, ensure_ascii=False)
    path.write_text(compact(text) + "\n", encoding="utf-8")


def compact(text):
    """Joins the lines of lists of numbers: one list a line, not one number a line."""
    lines, row = [], None
    for line in text.split("\n"):
        item = line.strip().rstrip(",")
        is_number = item != "" and item[0] in "-0123456789"
        if is_number and row is None:
            row = lines.pop() + line.strip()
        elif is_number:
            row += " " + line.strip()
        elif row is not None:
            lines.append(row + line.strip())
            row = None
        else:
            lines.append(line)
    return "\n".join(lines)
