"""Tables of results in the documents: `PYTHONPATH=. python docs/results.py [MAIN_RUN]`.

Reads a logged run of the demo into results.json and writes the README's table of methods and that of their differences
in confidence_intervals.md from it, and the table of reproductions.md from the files of reproductions/. A test holds
tables and sources equal; each row of the first names the run of its number.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FACTS = Path(__file__).with_name("results.json")
README = Path(__file__).resolve().parents[1] / "README.md"
REPRODUCTIONS_PAGE = Path(__file__).with_name("reproductions.md")
INTERVALS_PAGE = Path(__file__).with_name("confidence_intervals.md")
DEMO, DIFFERENCES, REPRODUCTIONS = "results", "differences", "reproductions"


def read_facts(main_run: str) -> dict[str, Any]:
    """Read the methods of a main run and their differences, as logged."""
    import mlflow

    from pipelines.reports.origin import command_of
    from pipelines.results.scores import METHODS_ARTIFACT, accuracy_of, differences_of_methods
    from pipelines.store.artifacts import fetch_artifact
    from pipelines.store.connection import prepare_store
    from pipelines.store.find import find_run

    prepare_store()
    run = find_run(main_run, "main")
    methods: dict[str, str] = json.loads(fetch_artifact(run.info.run_id, METHODS_ARTIFACT).read_text())
    found = {name: accuracy_of(run_id) for name, run_id in methods.items()}
    differences = differences_of_methods(methods)
    return {
        "command": command_of(run),
        "run": run.info.run_id,
        "commit": run.data.tags.get("mlflow.source.git.commit", ""),
        "mlflow": mlflow.__version__,
        "methods": [
            {"name": name, "run": methods[name], "mean": of.mean, "ci95": of.ci95, "n": of.n}
            for name, of in found.items()
        ],
        "differences": [
            {"name": f"{a} - {b}", "value": of.value, "low": of.low, "high": of.high, "n": of.n}
            for (a, b), of in differences.items()
        ],
    }


def render_table(facts: dict[str, Any]) -> str:
    """Render the table of methods in Markdown."""
    lines = ["| method | accuracy, 95 % confidence interval | episodes | run |", "|---|---|---|---|"]
    for row in facts["methods"]:
        score = f"{100 * row['mean']:.2f} +- {100 * row['ci95']:.2f} %"
        lines.append(f"| {row['name']} | {score} | {row['n']} | `{row['run'][:8]}` |")
    return "\n".join([*lines, ""])


def render_differences(facts: dict[str, Any]) -> str:
    """Render the table of differences between the methods in Markdown."""
    lines = [
        "| difference on the same images | points | 95 % confidence interval | images | significantly different? |",
        "|---|---|---|---|---|",
    ]
    for row in facts["differences"]:
        interval = f"{100 * row['low']:+.2f} to {100 * row['high']:+.2f}"
        verdict = "no" if row["low"] <= 0 <= row["high"] else "yes"
        lines.append(f"| {row['name']} | {100 * row['value']:+.2f} | {interval} | {row['n']} | {verdict} |")
    return "\n".join([*lines, ""])


def render_reproductions() -> str:
    """Render the table of known systems in Markdown: published results, and ours."""
    from pipelines.command_line.reproduction_files import load_reproduction, reproduction_names

    lines = ["| reproduction | published | measured here |", "|---|---|---|"]
    reproductions = map(load_reproduction, reproduction_names())
    lines += [f"| `{of.name}` | {of.published} | {of.measured or 'not yet'} |" for of in reproductions]
    return "\n".join([*lines, ""])


def insert_table(text: str, name: str, table: str) -> str:
    """Return the text with this table between the marks of that name."""
    begin, end = f"<!-- {name}: written by docs/results.py -->\n", f"<!-- end of {name} -->\n"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{table}\n{end}{after}"


if __name__ == "__main__":
    if sys.argv[1:]:
        FACTS.write_text(json.dumps(read_facts(sys.argv[1]), indent=2) + "\n")
    facts = json.loads(FACTS.read_text())
    README.write_text(insert_table(README.read_text(), DEMO, render_table(facts)))
    page = INTERVALS_PAGE.read_text()
    INTERVALS_PAGE.write_text(insert_table(page, DIFFERENCES, render_differences(facts)))
    page = REPRODUCTIONS_PAGE.read_text()
    REPRODUCTIONS_PAGE.write_text(insert_table(page, REPRODUCTIONS, render_reproductions()))
