"""What the programs of the peers share. Each is one process with one setting, so that peak memory means something."""

import contextlib
import os
import platform
import resource
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from peft import IA3Config, LoraConfig, VeraConfig, get_peft_model  # noqa: E402

SEED = 0
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LEARNING_RATE = 1e-4
MAX_NORM = 1.0
METHODS = ["lora", "dora", "vera", "ia3"]
DTYPES = ["f32", "bf16", "bf16-autocast"]


def peak_rss_bytes():
    """The largest resident set of this process so far; Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cpu_name():
    """The processor's name as the system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def surroundings():
    """Threads, processor and versions, for the object that a program prints."""
    return {
        "threads": torch.get_num_threads(),
        "cpu": cpu_name(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
    }


def prepare(threads):
    """Seeds, sets the threads, and keeps progress bars out of the output."""
    torch.manual_seed(SEED)
    torch.set_num_threads(threads)
    transformers.utils.logging.disable_progress_bar()


def load(model, dtype, attention="sdpa"):
    """The model; `bf16-autocast` keeps the weights in f32."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        str(model), dtype=torch.bfloat16 if dtype == "bf16" else torch.float32, attn_implementation=attention
    )


def method_config(method, rank):
    """PEFT's configuration of a method on all linear layers."""
    if method in ["lora", "dora"]:
        return LoraConfig(r=rank, lora_alpha=2 * rank, use_dora=method == "dora", target_modules=TARGETS, task_type="CAUSAL_LM")
    if method == "vera":
        return VeraConfig(r=rank, target_modules=TARGETS, task_type="CAUSAL_LM")
    return IA3Config(target_modules=TARGETS, feedforward_modules=["down_proj"], task_type="CAUSAL_LM")


class Lora:
    """A model with an adapter (LoRA unless another method is named) and its optimizer."""

    def __init__(self, model, dtype, rank, attention="sdpa", compile=False, method="lora"):
        base = load(model, dtype, attention)
        base.config.use_cache = False
        config = method_config(method, rank)
        self.model = get_peft_model(base, config).train()
        self.trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trainable, lr=LEARNING_RATE)
        self.autocast = dtype == "bf16-autocast"
        self.forward = torch.compile(self.model) if compile else self.model

    def step(self, **batch):
        """Makes one step and returns its loss: forward, backward, clipping, AdamW, zeroing the gradients."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast):
            loss = self.forward(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trainable, MAX_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()
