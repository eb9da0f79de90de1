"""A report's files, each whole or not at all."""

from __future__ import annotations

from pathlib import Path

from sdpo_exp.reports.html.gather import Report
from sdpo_exp.reports.html.page import page_of
from sdpo_exp.reports.html.tables import cells_csv, latex_of, markdown_of, runs_csv

PAGE_FILE = "index.html"


def write_report(report: Report, folder: Path) -> Path:
    """Write page, text and tables to `folder` and return the page's path.

    An earlier report there is replaced; other files are left alone.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "cells.csv": cells_csv(report),
        "runs.csv": runs_csv(report),
        "report.md": markdown_of(report),
        "table.tex": latex_of(report),
        PAGE_FILE: page_of(report, folder),
    }
    for name, text in files.items():
        partial = folder / f".{name}.partial"
        # A file name may hold bytes that are no UTF-8.
        partial.write_text(text, encoding="utf-8", errors="replace")
        partial.replace(folder / name)
    return folder / PAGE_FILE
