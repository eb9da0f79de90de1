"""The same numbers for other programs: cells.csv, runs.csv, report.md and table.tex."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from sdpo_exp.reports.html.cells import Cell
from sdpo_exp.reports.html.gather import Report
from sdpo_exp.reports.html.quantities import Figure
from sdpo_exp.reports.html.significance import Tested
from sdpo_exp.reports.markdown import escaped, table

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def cells_csv(report: Report) -> str:
    """A row per cell: means, interval ends and n of every quantity, then the comparisons."""
    return _csv([_cell_row(report, cell) for cell in report.cells])


def _cell_row(report: Report, cell: Cell) -> dict[str, Any]:
    row: dict[str, Any] = {
        "cell": cell.label, "row": cell.row, "column": cell.column, "model": cell.model,
        "objective": cell.objective, "safeguard": cell.safeguard,
        "seeds": " ".join(cell.seeds), "runs": len(cell.runs),
        "finished": sum(run.finished for run in cell.runs),
    }  # fmt: skip
    for figure in report.figures[cell.key]:
        key, found = figure.quantity.key, figure.estimate
        row |= {key: found.mean, f"{key}_low": found.low, f"{key}_high": found.high}
        row[f"{key}_n"] = figure.n
    for family in ("base", "off"):
        tested = next((t for t in report.tests if (t.cell, t.family) == (cell.key, family)), None)
        row |= _test_columns(f"against_{family}", tested)
    return row


def _test_columns(name: str, tested: Tested | None) -> dict[str, Any]:
    if tested is None:
        return dict.fromkeys(
            f"{name}_{part}"
            for part in ("difference", "low", "high", "p_sign", "p_wilcoxon", "p_holm")
        )
    found = tested.comparison
    return {
        f"{name}_difference": found.difference.value,
        f"{name}_low": found.difference.low,
        f"{name}_high": found.difference.high,
        f"{name}_p_sign": found.p_sign,
        f"{name}_p_wilcoxon": found.p_wilcoxon,
        f"{name}_p_holm": tested.p_holm,
    }


def runs_csv(report: Report) -> str:
    """A row per run, whatever its state."""
    cell_of = {id(run): cell for cell in report.cells for run in cell.runs}
    return _csv(
        [
            {
                "folder": run.folder, "name": run.name, "cell": cell_of[id(run)].label,
                "model": run.model, "objective": run.objective, "safeguard": run.safeguard,
                "seed": run.seed, "status": run.status, "reason": run.reason,
                "counts": run in cell_of[id(run)].counted and run.finished,
                "started": run.started, "steps": run.steps,
                **{q.key: run.numbers.get(q.key) for q in report.quantities},
                "warnings": " | ".join(run.warnings), "missing": ", ".join(run.missing),
                "command": run.command,
            }
            for run in report.runs
        ]
    )  # fmt: skip


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)
    return stream.getvalue()


def _plain(value: Any) -> Any:
    """Full precision for numbers; nothing for what is none."""
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else ""
    return "" if value is None else value


def markdown_of(report: Report) -> str:
    """The page's tables as text."""
    counts = ", ".join(f"{count} {status}" for status, count in report.statuses.items())
    lines = [f"# {escaped(report.options.title)}", ""]
    lines += [f"{report.when}: {report.counts} ({counts}).", ""]
    lines += [
        "Winner drift above 0: the preferred image got worse. Means over seeds [95 % t interval].",
        "",
    ]
    if report.notices:
        lines += ["## To know before reading", ""]
        lines += [f"- {escaped(_line(n.title, n.detail))}" for n in report.notices] + [""]
    header = ["cell", "seeds", *(escaped(q.title) for q in report.quantities)]
    rows = [
        [escaped(c.label), str(len(c.counted)), *map(_told, report.figures[c.key])]
        for c in report.cells
    ]
    lines += ["## Cells", "", *table(header, rows), ""]
    return "\n".join([*lines, *_tests(report)]) + "\n"


def _line(title: str, detail: str) -> str:
    return f"{title}: {detail}" if detail else title


def _told(figure: Figure) -> str:
    if not figure.n:
        return "-"
    return figure.text + (f" [{figure.interval}]" if figure.interval else " (one seed)")


def _tests(report: Report) -> Iterable[str]:
    if not report.tests:
        return
    yield "## Significance"
    yield ""
    yield f"{escaped(str(report.metric))}, b - a, images paired, scores averaged over training"
    yield "seeds; bootstrap over prompts, Holm's correction over all lines."
    yield ""
    header = ("b", "a", "prompts", "difference [95 %]", "won / tied / lost", "p", "Holm p")
    yield from table(header, [_test_row(report, tested) for tested in report.tests])


def _test_row(report: Report, tested: Tested) -> list[str]:
    found, ends = tested.comparison, tested.difference
    p = found.p_value(report.options.test)
    return [
        escaped(tested.b), escaped(tested.a), str(found.prompts),
        f"{ends.value:+.4f} [{ends.low:+.4f}, {ends.high:+.4f}]",
        f"{found.wins} / {found.ties} / {found.losses}", f"{p:.4g}", f"{tested.p_holm:.4g}",
    ]  # fmt: skip


def latex_of(report: Report) -> str:
    """A booktabs table of the cells; half widths of the intervals behind the means."""
    columns = "l" * 2 + "r" * len(report.quantities)
    heads = ["objective", "safeguard", *(latex(q.title) for q in report.quantities)]
    lines = ["% needs \\usepackage{booktabs}", f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
    lines += [" & ".join(heads) + r" \\", "\\midrule"]
    before = None
    for cell in report.cells:
        if before not in (None, cell.row):
            lines.append("\\addlinespace")
        name = "" if before == cell.row else latex(cell.row)
        numbers = [_tex(figure) for figure in report.figures[cell.key]]
        lines.append(" & ".join([name, latex(cell.column), *numbers]) + r" \\")
        before = cell.row
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def latex(text: str) -> str:
    """A user's words, where nothing of them is markup."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def _tex(figure: Figure) -> str:
    if not figure.n:
        return "--"
    half = figure.estimate.high - figure.estimate.mean
    form = figure.quantity.form
    width = f" \\pm {half:{form.removeprefix('+')}}" if math.isfinite(half) else ""
    return f"${figure.estimate.mean:{form}}{width}$"
