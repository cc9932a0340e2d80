"""Runs the whole comparison with programs that answer at once.

python3 -m unittest discover -s bench/tests
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from suite import machine  # noqa: E402
from suite.measure import Ask  # noqa: E402
from suite.process import ProgramFailed, run  # noqa: E402
from suite.report import format_value  # noqa: E402


class Whole(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.program = self.folder / "venv" / "bin" / "python"
        self.program.parent.mkdir(parents=True)
        script = f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "fake_program.py"}" "$@"\n'
        self.program.write_text(script, encoding="utf-8")
        self.program.chmod(0o755)
        model = self.folder / "model"
        model.mkdir()
        (model / "config.json").write_text(json.dumps({"vocab_size": 49152, "dtype": "bfloat16"}), encoding="utf-8")
        (model / "random-weights.json").write_text("{}", encoding="utf-8")
        (self.folder / "data.json").write_text("[]", encoding="utf-8")

    def command(self, *more, data=True, **settings):
        """The command line of run.py, and its environment."""
        file = self.folder / "settings.json"
        file.write_text(json.dumps({"fail": [], "nan": [], **settings}), encoding="utf-8")
        command = [
            sys.executable, HERE.parent / "run.py", "--venv", self.folder / "venv", "--model", self.folder / "model",
            "--reparam", self.program, "--out", self.folder / "out", "--rounds", "2", "--steps", "2", *more,
        ]  # fmt: skip
        if data:
            command += ["--data", self.folder / "data.json"]
        return command, {**os.environ, "FAKE_SETTINGS": str(file), "REPARAM_DATA": ""}

    def compare(self, *more, **settings):
        """Runs run.py; returns its exit code, the object of results.json and the text of results.md."""
        command, environment = self.command(*more, **settings)
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        self.assertIn(done.returncode, (0, 1), done.stderr)
        out = self.folder / "out"
        results = json.loads((out / "results.json").read_text(encoding="utf-8"))
        return done.returncode, results, (out / "results.md").read_text(encoding="utf-8")

    def line(self, results, row, title):
        lines = next(one for one in results["rows"] if one["name"] == row)["lines"]
        return next(line for line in lines if title in line["title"])

    def test_every_row_is_judged(self):
        code, results, text = self.compare()
        self.assertEqual(code, 0)
        self.assertEqual([row["status"] for row in results["rows"]], ["measured"] * 15)
        verdicts = {
            ("step-bf16", "autocast"): (8.0, "yes"),
            ("step-bf16", "compiled"): (4.0, "yes"),
            ("step-bf16", "weights"): (9.0, "-"),
            ("step-f32", "eager"): (3.5, "-"),
            ("step-f32", "compiled"): (1.75, "no"),
            ("memory", "slower"): (0.5, "no"),
            ("linear-share", "bf16"): (None, "yes"),
            ("step-gemma-3-1b", "autocast"): (8.0, "-"),
            ("step-qwen3-0.6b", "share"): (1.0, "yes"),
            ("decode", "transformers, bf16"): (4.0, "yes"),
            ("page-faults", "one step"): (None, "yes, and the aim"),
            ("encoder-minilm", "f32"): (4.0, "yes"),
            ("encoder-bert-base", "bf16"): (4.0, "yes"),
            ("lstm", "packed"): (4.0, "yes"),
        }
        for (row, title), (value, verdict) in verdicts.items():
            line = self.line(results, row, title)
            self.assertEqual((line["value"], line["verdict"]), (value, verdict), f"{row}, {title}")
        # 195 tokens of responses in 1 microsecond.
        self.assertAlmostEqual(self.line(results, "instructions", "padded")["value"], 13.0)
        self.assertEqual(results["machine"], machine.describe())
        self.assertEqual(results["versions"]["reparam"], "9.9.9")
        self.assertIn("at least 6.00 x", text)

    def test_sides_alternate_and_shared_measurements_are_made_once(self):
        _, results, _ = self.compare("--rows", "step-bf16,memory,page-faults")
        names = list(results["samples"])
        self.assertEqual(names[:2], ["ours bf16", "PEFT bf16 autocast"])
        self.assertEqual(len(results["samples"]["ours bf16"]["rounds"]), 2)
        self.assertEqual([row["name"] for row in results["rows"]], ["step-bf16", "memory", "page-faults"])

    def test_a_program_that_fails_fails_its_rows_only(self):
        code, results, text = self.compare("--rows", "step-bf16,decode", fail=["bench"])
        self.assertEqual(code, 1)
        bf16, decode = results["rows"]
        self.assertEqual((bf16["status"], decode["status"]), ("failed", "measured"))
        self.assertIn("it was told to fail", bf16["reason"])
        self.assertIn("it was told to fail", text)

    def test_a_peer_that_fails_leaves_the_other_lines(self):
        _, results, _ = self.compare("--rows", "step-f32", fail=["--compile"])
        self.assertEqual(self.line(results, "step-f32", "eager")["verdict"], "yes, and the aim")
        self.assertEqual(self.line(results, "step-f32", "compiled")["verdict"], "failed")

    def test_a_wrong_answer_is_not_timed(self):
        code, results, _ = self.compare("--rows", "step-bf16", nan=["bench"])
        self.assertEqual(code, 1)
        self.assertEqual([check["holds"] for check in results["checks"]][0], False)
        self.assertEqual(results["samples"]["ours bf16"]["rounds"], [])
        self.assertIn("not finite", results["rows"][0]["reason"])

    def test_both_sides_learn_the_same_tokens(self):
        code, results, _ = self.compare("--rows", "instructions", labelled=390)
        self.assertEqual((code, results["rows"][0]["status"]), (1, "failed"))
        self.assertIn("learns 390 tokens where the other side learns 195", results["rows"][0]["reason"])

    def test_no_instructions_are_a_reason_to_skip(self):
        code, results, _ = self.compare("--rows", "instructions", data=False)
        self.assertEqual((code, results["rows"][0]["status"], results["samples"]), (0, "skipped", {}))
        self.assertIn("REPARAM_DATA", results["rows"][0]["reason"])

    @unittest.skipUnless(sys.platform == "linux", "children are looked up in /proc")
    def test_a_measured_program_ends_with_the_command(self):
        command, environment = self.command("--rows", "page-faults", hang=True)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
            self.assertIn("check: a step of reparam", process.stderr.readline())
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            until = time.monotonic() + 10
            while not (found := children.read_text(encoding="ascii").split()) and time.monotonic() < until:
                time.sleep(0.02)
            process.terminate()
            self.assertEqual(process.wait(10), 128 + signal.SIGTERM)
        self.assertEqual(len(found), 1)
        self.assertFalse(Path(f"/proc/{found[0]}").exists())


class Parts(unittest.TestCase):
    def test_bounds(self):
        self.assertEqual([Ask(2, 3).verdict(value) for value in (1.9, 2, 3)], ["no", "yes", "yes, and the aim"])
        self.assertEqual([Ask(2, 1, is_most=True).verdict(value) for value in (2.1, 2, 1)], ["no", "yes", "yes, and the aim"])
        self.assertEqual(Ask(0.35, is_most=True).verdict(0.3), "yes")

    def test_figures(self):
        self.assertEqual(format_value(0.0123, "s"), "12.3 ms")
        self.assertEqual(format_value(1.5e9, "GB"), "1.50 GB")
        self.assertEqual(format_value(-0.021, "%"), "-2 %")
        self.assertEqual(format_value(1234.5, "tokens/s"), "1234 tokens/s")

    def test_folder_of_a_machine(self):
        self.assertEqual(machine.slug({"cpu": "AMD EPYC (Zen 5)", "cores": 2}), "amd-epyc-zen5-2cores")
        name = "Intel(R) Xeon(R) Platinum 8488C CPU @ 2.40GHz"
        self.assertEqual(machine.slug({"cpu": name, "cores": 8}), "intel-xeon-platinum-8488c-8cores")

    def test_memory_is_that_of_the_program(self):
        small = run([sys.executable, "-c", "print('{}')"])
        large = run([sys.executable, "-c", "held = b'x' * (200 << 20); print('{}')"])
        self.assertGreater(large.peak_rss_bytes - small.peak_rss_bytes, 190 << 20)
        self.assertEqual(large.last_object(), {})

    def test_a_program_that_hangs_is_ended(self):
        with self.assertRaisesRegex(ProgramFailed, "longer than 0.2 s"):
            run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.2)

    def test_the_error_is_the_reason(self):
        says = 'import sys; print(\'{"error":{"message":"no such model"}}\'); sys.exit(1)'
        with self.assertRaisesRegex(ProgramFailed, "exit code 1: no such model"):
            run([sys.executable, "-c", says])


if __name__ == "__main__":
    unittest.main()
