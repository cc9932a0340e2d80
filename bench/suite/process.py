"""Runs a program and says how long it took and how much memory it needed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass

TIMEOUT_SECONDS = 1800


class ProgramFailed(Exception):
    """A program that was to be measured did not do what it was asked for; the message says why."""


@dataclass
class Finished:
    """A program that ended well."""

    lines: list  # of standard output
    arrivals: list  # seconds from the start of the process to each of those lines
    began_at: float  # time.time() when it was started
    seconds: float  # from its start to its end
    peak_rss_bytes: int  # the largest resident set, as the system counted it

    def last_object(self):
        """The object of JSON that is the last line of its output."""
        if not self.lines:
            raise ProgramFailed("it printed nothing")
        try:
            value = json.loads(self.lines[-1])
        except json.JSONDecodeError as error:
            raise ProgramFailed(f"its output is not JSON: {error}: {self.lines[-1][:200]}") from error
        if not isinstance(value, dict):
            raise ProgramFailed(f"its output is not an object: {self.lines[-1][:200]}")
        return value


def _reason(code, lines, errors):
    """Why a program failed, in one line: its own error, or the end of what it wrote."""
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    for line in reversed(lines):
        try:
            return f"{how}: {json.loads(line)['error']['message']}"
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    said = [line.strip() for line in errors.splitlines() if line.strip()]
    # The line that names the error is worth more than a usage hint after it.
    named = [line for line in said if line.lower().startswith("error")] or said[-1:]
    return f"{how}: {named[0][:300]}" if named else how


@contextlib.contextmanager
def _signals_held():
    """Lets a signal to end take effect after the block: in it, a program may run that nobody knows of yet."""
    arrived = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.signal(number, lambda number, frame: arrived.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number in arrived:
        signal.raise_signal(number)


def _start(command, environment, errors):
    try:
        return subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=errors, text=True, env=environment, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise ProgramFailed(f"it cannot be started: {error}") from error


def _expire(process, expired):
    expired.set()
    os.killpg(process.pid, signal.SIGKILL)


def run(command, timeout=TIMEOUT_SECONDS):
    """Runs `command` to its end; raises ProgramFailed if it fails or takes longer than `timeout` seconds."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    process, timer = None, None
    lines, arrivals = [], []
    with tempfile.TemporaryFile() as errors:
        began_at, begin = time.time(), time.perf_counter()
        try:
            with _signals_held():
                process = _start(command, environment, errors)
            expired = threading.Event()
            timer = threading.Timer(timeout, _expire, [process, expired])
            timer.start()
            for line in process.stdout:
                arrivals.append(time.perf_counter() - begin)
                lines.append(line.rstrip("\n"))
            # wait4 rather than wait: it has the resources of this one process.
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            # An interrupt of ours is not sent to a program in a session of its own.
            if process is not None and process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if process is not None:
                process.stdout.close()
        seconds = time.perf_counter() - begin
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    if expired.is_set():
        raise ProgramFailed(f"it took longer than {timeout} s")
    if process.returncode != 0:
        raise ProgramFailed(_reason(process.returncode, lines, said))
    unit = 1 if sys.platform == "darwin" else 1024
    return Finished(lines, arrivals, began_at, seconds, usage.ru_maxrss * unit)
