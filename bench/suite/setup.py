"""Makes what the measurements need: the peers' packages, the model, and the program itself."""

import json
import subprocess
import venv
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
REPOSITORY = BENCH.parent
PRESET = "smollm2-135m"
# Written by make_model.py into a directory of random weights.
RANDOM_MARK = "random-weights.json"
PACKAGES = ["transformers", "peft", "tokenizers"]


class SetupFailed(Exception):
    """Something that every measurement needs is not there and cannot be made."""


def _call(command, what):
    """Runs a command whose output goes to the terminal."""
    try:
        subprocess.run([str(word) for word in command], check=True, cwd=REPOSITORY)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupFailed(f"{what}: {error}") from error


def python(directory):
    """The interpreter of a virtual environment."""
    return Path(directory).absolute() / "bin" / "python"


def peers(directory, index_url):
    """Returns the interpreter that has the peers; None for `directory` makes one in bench/.venv."""
    if directory is not None:
        interpreter = python(directory)
        if not interpreter.exists():
            raise SetupFailed(f"--venv {directory}: there is no {interpreter}")
        return interpreter
    directory = BENCH / ".venv"
    requirements = BENCH / "requirements.txt"
    installed = directory / "installed.txt"
    wanted = requirements.read_text(encoding="utf-8")
    if installed.exists() and installed.read_text(encoding="utf-8") == wanted:
        return python(directory)
    print(f"installing {requirements.relative_to(REPOSITORY)} in {directory.relative_to(REPOSITORY)}", flush=True)
    venv.create(directory, with_pip=True, clear=True)
    pip = [python(directory), "-m", "pip", "install", "--quiet"]
    if index_url:
        # An index of CPU builds has torch and not all of the others.
        torch = next(line for line in wanted.splitlines() if line.startswith("torch=="))
        _call([*pip, "--index-url", index_url, torch], "torch cannot be installed")
    _call([*pip, "-r", requirements], "the peers cannot be installed")
    installed.write_text(wanted, encoding="utf-8")
    return python(directory)


def versions(interpreter):
    """The versions of the peers; an environment without one of them is refused."""
    program = (
        "import importlib.metadata as m, json, platform, torch\n"
        # torch's own word for its version says which build it is.
        f"v = {{'torch': torch.__version__, **{{name: m.version(name) for name in {PACKAGES!r}}}}}\n"
        "print(json.dumps({'python': platform.python_version(), **v}))"
    )
    try:
        done = subprocess.run([interpreter, "-c", program], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise SetupFailed(f"{interpreter} lacks a package of bench/requirements.txt: {said[-1]}") from error
    return json.loads(done.stdout)


def model(directory, interpreter):
    """Returns the model's directory; None for `directory` makes one of random weights in bench/.model."""
    if directory is not None and (directory / "config.json").exists():
        return directory
    if directory is not None and directory.exists() and any(directory.iterdir()):
        raise SetupFailed(f"--model {directory}: it has files, but no config.json")
    directory = directory or BENCH / ".model" / f"{PRESET}-bf16"
    if not (directory / "config.json").exists():
        command = [interpreter, BENCH / "make_model.py", "--out", directory, "--preset", PRESET, "--dtype", "bf16"]
        _call(command, "the model cannot be made")
    return directory


def config(model):
    """The object in a model's config.json."""
    return json.loads((model / "config.json").read_text(encoding="utf-8"))


def is_random(model):
    """Whether make_model.py has made it."""
    return (model / RANDOM_MARK).exists()


def reparam(path):
    """Returns the program; None for `path` builds it."""
    if path is not None:
        if not path.exists():
            raise SetupFailed(f"--reparam {path}: there is no such file")
        return path.absolute()
    _call(["cargo", "build", "--release", "--package", "reparam-cli"], "the program cannot be built")
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    return Path(json.loads(done.stdout)["target_directory"]) / "release" / "reparam"
