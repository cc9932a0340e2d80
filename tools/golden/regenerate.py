"""Runs every golden script, each in its own process; `--check` runs into the same files and fails if a byte changed.

`--check` compares with what is in the working tree before the run, so it is meaningful only on the machine that wrote it.
"""

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parents[1] / "testdata" / "golden"


def digests():
    """SHA-256 of every golden file by its path."""
    files = sorted(path for path in GOLDEN.rglob("*") if path.is_file())
    return {str(path.relative_to(GOLDEN)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if a file differs from before the run")
    arguments = parser.parse_args()
    before = digests()
    # Adapters are trained on models that these scripts make, so they come first.
    models = ["write_variants.py", "write_families.py"]
    scripts = sorted(HERE.glob("write_*.py"), key=lambda path: (path.name not in models, path.name))
    for script in scripts:
        print(script.name, flush=True)
        subprocess.run([sys.executable, str(script)], check=True)
    after = digests()
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    print("changed:", ", ".join(changed) or "nothing")
    if arguments.check and changed:
        sys.exit(1)


if __name__ == "__main__":
    main()
