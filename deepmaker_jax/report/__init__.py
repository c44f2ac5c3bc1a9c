"""What people look at, from the run folder only: terminal, page, plots, progress."""

from deepmaker_jax.report.page import NAME, check_page, write_report
from deepmaker_jax.report.progress import Progress
from deepmaker_jax.report.show import print_finished, show
from deepmaker_jax.report.view import RunView, read_run

__all__ = [
    "NAME", "Progress", "RunView", "check_page", "print_finished", "read_run", "show",
    "write_report",
]  # fmt: skip
