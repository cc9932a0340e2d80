"""What the figures were measured on."""

import os
import platform
import re
import time
from pathlib import Path

# Names of processor families, where the model's name does not tell the generation.
FAMILIES = {("AuthenticAMD", "26"): "Zen 5"}


def _cpuinfo():
    """The fields of the first processor in /proc/cpuinfo; nothing where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    first = text.split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _cores():
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def describe():
    """The machine as an object of JSON."""
    info = _cpuinfo()
    cpu = info.get("model name") or platform.processor() or platform.machine()
    generation = FAMILIES.get((info.get("vendor_id"), info.get("cpu family")))
    if generation and generation.lower() not in cpu.lower():
        cpu = f"{cpu} ({generation})"
    flags = info.get("flags", "").split()
    wide = [flag for flag in ["avx2", "avx512f", "avx512_bf16", "amx_bf16"] if flag in flags]
    return {
        "cpu": cpu,
        "cores": _cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "instruction_sets": wide,
    }


def slug(machine):
    """A name for the folder of this machine's results."""
    cpu = re.sub(r"\([RTMC]+\)|\bCPU\b|@.*", " ", machine["cpu"], flags=re.IGNORECASE)
    cpu = cpu.lower().replace("zen 5", "zen5")
    words = re.findall(r"[a-z0-9]+", cpu)
    return "-".join([*words, f"{machine['cores']}cores"])


def load(seconds=3.0):
    """How many cores other programs keep busy now, watched for a few seconds; None where the system does not say.

    The system's own average over a minute still holds a build that has just ended.
    """
    before, after = _ticks(), None
    if before:
        time.sleep(seconds)
        after = _ticks()
    if not after or after[1] <= before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1]) * os.cpu_count()


def _ticks():
    """The busy and all ticks of all processors since the start; None where there is no /proc/stat."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
    except OSError:
        return None
    ticks = [int(field) for field in first.split()[1:9]]
    # The fourth and fifth are idle time and waiting for the disk.
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
