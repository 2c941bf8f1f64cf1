"""The report beside the numbers of a run; what it is made with is loaded once there is something to report."""

from __future__ import annotations

import sys
from xml.parsers.expat import ExpatError

from pipelines.configs.entry_points import REPORT_ARTIFACT


def log_report(run_id: str) -> None:
    """Write the report of the active run beside its numbers, and its first words, with a link, as its description.

    Where it cannot be written, the numbers stand.
    """
    import mlflow
    from jinja2 import TemplateError
    from mlflow.exceptions import MlflowException
    from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

    from pipelines.reports.build import build_report
    from pipelines.reports.page import render_page
    from pipelines.store.logging import DRAWING_ERRORS
    from pipelines.store.views import run_link
    from tl_core.errors import InputError

    troubles = (InputError, MlflowException, TemplateError, ExpatError, *DRAWING_ERRORS)
    try:
        run = mlflow.MlflowClient().get_run(run_id)
        page = build_report(run)
        mlflow.log_text(render_page(page), REPORT_ARTIFACT)
        link = f"[report]({run_link(run, REPORT_ARTIFACT)})"
        mlflow.set_tag(MLFLOW_RUN_NOTE, "\n\n".join([f"**{page.headline}**", link, *page.sentences]))
    except troubles as error:
        print(
            f"warning: run {run_id} has no report ({error}); try: python -m pipelines.report --run {run_id}",
            file=sys.stderr,
        )
