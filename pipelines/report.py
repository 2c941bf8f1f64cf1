"""One page on a run: its results in figures and plain words.

    mlflow run . -e report -P run=<main, classify or any other run with a result> -P output=report.html

One page that needs no network and no other file: the answer with its interval, what it rests on, what it cost, and how
to repeat it. Those runs carry it as their artifact `report.html` already; this writes it anew, and where you want it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.command_line.command import run_command_line
from pipelines.configs.entry_points import REPORT_ARTIFACT


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """One page on a run, made from its records."""

    run: str
    """Main, classify, finetune, search, compare, train, score, pretrain or prepare run."""
    output: str = REPORT_ARTIFACT
    """The .html file to write."""


def run(config: ReportConfig) -> str:
    """Write the report of a finished run; returns this run's own id."""
    import mlflow

    from pipelines.reports.build import KINDS, build_report
    from pipelines.reports.page import render_page
    from pipelines.store.find import find_run
    from pipelines.store.runs import rename_run, tracked_run
    from tl_core.errors import InputError

    with tracked_run("report", config) as run_id:
        reported = find_run(config.run, *KINDS)
        rename_run("report", f"report on {reported.info.run_name}")
        text = render_page(build_report(reported))
        try:
            Path(config.output).write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"output {config.output} cannot be written ({error.strerror})") from error
        mlflow.log_text(text, REPORT_ARTIFACT)
        print(f"report {run_id}: {len(text) / 1e6:.1f} MB written to {config.output}; open it in a browser")
    return run_id


if __name__ == "__main__":
    run_command_line(ReportConfig, run)
