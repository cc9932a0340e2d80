"""Turns samples into results.json and results.md."""

import json
from dataclasses import asdict


# The load of other programs on a core from which on figures are not to be trusted.
BUSY = 0.25


def format_value(value, unit):
    """A figure with its unit, in three digits or so."""
    if unit == "s":
        return f"{value:.2f} s" if value >= 0.1 else f"{value * 1000:.1f} ms"
    if unit == "GB":
        return f"{value / 1e9:.2f} GB"
    if unit == "%":
        return f"{value * 100:.0f} %"
    if unit == "x":
        return f"{value:.2f} x"
    if unit == "count":
        return f"{value:.0f}"
    if unit in ("tokens/s", "rows/s"):
        return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"
    raise ValueError(f"unknown unit {unit}")


def _stats(stats, unit):
    if stats is None:
        return "-"
    median = format_value(stats.median, unit)
    if stats.count == 1:
        return median
    least, greatest = (format_value(value, unit).split(" ")[0] for value in (stats.least, stats.greatest))
    if format_value(stats.least, unit).split(" ")[1:] != format_value(stats.median, unit).split(" ")[1:]:
        least = format_value(stats.least, unit)
    if format_value(stats.greatest, unit).split(" ")[1:] != format_value(stats.median, unit).split(" ")[1:]:
        greatest = format_value(stats.greatest, unit)
    return f"{median} ({least} to {greatest})"


def _judged(line, unit):
    """The figure that is judged, where it is not simply ours."""
    if line.value is None:
        return "-"
    shown = format_value(line.value, unit)
    if line.value_range and line.value_range[0] != line.value_range[1]:
        low, high = (format_value(value, unit).split(" ")[0] for value in line.value_range)
        return f"{shown} ({low} to {high})"
    return shown


def _cells(line):
    unit = line.value_unit or line.unit
    asked = aim = "-"
    if line.ask:
        word = "at most" if line.ask.is_most else "at least"
        asked = f"{word} {format_value(line.ask.bound, unit)}"
        if line.ask.aim is not None:
            aim = format_value(line.ask.aim, unit)
    return [_stats(line.ours, line.unit), _stats(line.theirs, line.unit), _judged(line, unit), asked, aim, line.verdict()]


def rows_of(rows, samples, context):
    """Judges every row; a row that could not be measured says why."""
    results = []
    for row in rows:
        result = {"name": row.name, "title": row.title, "status": "measured", "reason": None, "lines": []}
        results.append(result)
        reason = row.skip(context)
        if reason:
            result.update(status="skipped", reason=reason)
            continue
        failures = [f"{one.name}: {samples[one.name].failure}" for one in row.needs if samples[one.name].failure]
        if failures:
            result.update(status="failed", reason="; ".join(failures))
            continue
        try:
            result["lines"] = row.lines(samples, context)
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            result.update(status="failed", reason=f"its figures cannot be used: {error!r}")
    return results


def as_json(results, facts, checks, samples):
    """The object of results.json."""

    def line(one):
        return {**asdict(one), "verdict": one.verdict()}

    rows = [{**result, "lines": [line(one) for one in result["lines"]]} for result in results]
    raw = {name: {"failure": of.failure, "rounds": of.values} for name, of in samples.items()}
    return {"schema_version": 1, **facts, "checks": checks, "rows": rows, "samples": raw}


def _table(header, rows):
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *cells]]


def as_markdown(results, facts, checks):
    """The text of results.md."""
    machine, settings = facts["machine"], facts["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    load = "unknown" if facts["load_at_start"] is None else f"{facts['load_at_start']:.1f}"
    text = [
        "# Results",
        "",
        f"- Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 1e9:.0f} GB of memory, "
        f"{machine['kernel']}, {', '.join(machine['instruction_sets']) or machine['architecture']}; load {load} at the start",
        f"- Versions: {versions}",
        f"- Date: {facts['date']}, {facts['seconds'] / 60:.0f} minutes",
        f"- Model: {settings['model']}, {'random' if settings['random_weights'] else 'trained'} weights; LoRA of rank 16 "
        "on all linear layers, 4 x 512 tokens a step where nothing else is said",
        f"- Rounds: {settings['rounds']}, ours and theirs in turn, one process a measurement; {settings['steps']} timed steps "
        f"a process after {settings['warmup']}",
    ]
    if (facts["load_at_start"] or 0) > BUSY * machine["cores"]:
        text.append("- **The machine was busy**: other load slows the two sides unequally. These figures are no results.")
    if settings["quick"]:
        text.append("- **A quick run**: one round of few steps, which shows that everything works. Its figures are no results.")
    text += [
        "",
        "Medians of all timed steps of all rounds, with the least and the greatest; a ratio is that of the medians, with the",
        "least and the greatest of single rounds.",
        "",
    ]
    table, notes = [], []
    for result in results:
        if not result["lines"]:
            table.append([result["title"], "", "-", "-", "-", "-", "-", result["status"]])
            notes.append(f"- {result['title']}: {result['status']}: {result['reason']}")
        for line in result["lines"]:
            table.append([result["title"], line.title, *_cells(line)])
            if line.failure:
                notes.append(f"- {result['title']}, {line.title}: failed: {line.failure}")
            if line.note:
                notes.append(f"- {result['title']}, {line.title}: {line.note}.")
    header = ["row", "figure", "ours", "theirs", "ratio or change", "asked", "aim", "holds"]
    text += _table(header, table)
    if notes:
        text += ["", *notes]
    text += ["", "## Answers checked first", ""]
    text += _table(["check", "holds", "found"], [[one["name"], "yes" if one["holds"] else "no", one["said"]] for one in checks])
    return "\n".join(text) + "\n"


def write(directory, results, facts, checks, samples):
    """Writes both files."""
    directory.mkdir(parents=True, exist_ok=True)
    content = json.dumps(as_json(results, facts, checks, samples), indent=1) + "\n"
    (directory / "results.json").write_text(content, encoding="utf-8")
    (directory / "results.md").write_text(as_markdown(results, facts, checks), encoding="utf-8")
