"""What does a run say, in pictures and plain words?

    mlflow run . -e report -P run=<id of a main, finetune, search, compare, train or pretrain run> -P output=report.html

One page that needs no network and no other file: the answer with its interval, what it rests on, what it cost, and how
to repeat it. Those runs carry it as their artifact `report.html` already; this writes it anew, and where you want it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from pipelines.cli import run_command_line

REPORT_ARTIFACT = "report.html"


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What does a run say, in pictures and plain words? One page, made from its records."""

    run: str
    """Id of a main, finetune, search, compare, train or pretrain run."""
    output: str = REPORT_ARTIFACT
    """The .html file to write."""


def run(config: ReportConfig) -> str:
    """Write the report of a finished run; returns this run's own id."""
    import mlflow

    from pipelines.report_kinds import KINDS, build_report
    from pipelines.report_page import render_page
    from pipelines.tracking import find_run, tracked_run
    from tl_core.errors import InputError

    with tracked_run("report", config) as run_id:
        text = render_page(build_report(find_run(config.run, *KINDS)))
        try:
            Path(config.output).write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"output {config.output} cannot be written ({error.strerror})") from error
        mlflow.log_text(text, REPORT_ARTIFACT)
        print(f"report {run_id}: {len(text) / 1e6:.1f} MB written to {config.output}; open it in a browser")
    return run_id


def log_report(run_id: str) -> None:
    """Write the report of the active run beside its numbers, and its first words as the run's description.

    Where it cannot be written, the numbers stand.
    """
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

    from pipelines.report_kinds import build_report
    from pipelines.report_page import render_page
    from tl_core.errors import InputError

    try:
        page = build_report(mlflow.MlflowClient().get_run(run_id))
        mlflow.log_text(render_page(page), REPORT_ARTIFACT)
        mlflow.set_tag(MLFLOW_RUN_NOTE, "\n\n".join([f"**{page.headline}**", *page.sentences]))
    except (InputError, MlflowException, OSError) as error:
        print(
            f"warning: run {run_id} has no report ({error}); try: python -m pipelines.report --run {run_id}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_command_line(ReportConfig, run)
