"""Print the table of this study from the runs below outputs/first_look/."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

COLUMNS = ("winner_minus_ref", "loser_minus_ref", "margin", "implicit_accuracy")


def rows(root: Path) -> dict[str, list[dict[str, float]]]:
    """Last probe values of every finished run, by safeguard."""
    found: dict[str, list[dict[str, float]]] = {}
    for path in sorted(root.glob("*/*/summary.json")):
        summary = json.loads(path.read_text())
        if summary["status"] == "finished":
            probe = {name: summary["probe"][f"probe/{name}"]["last"] for name in COLUMNS}
            probe["lambda"] = summary["train"]["safeguard/lambda_mean"]
            found.setdefault(path.parts[-3].split("-")[2], []).append(probe)
    return found


def main() -> None:
    """Mean and range over seeds, as Markdown."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/first_look")
    names = (*COLUMNS, "lambda")
    print("| safeguard | runs | " + " | ".join(names) + " |")
    print("|---|---|" + "---|" * len(names))
    for safeguard, runs in sorted(rows(root).items(), reverse=True):
        cells = []
        for name in names:
            values = [run[name] for run in runs]
            low, high = min(values), max(values)
            cells.append(f"{statistics.mean(values):.4f} ({low:.4f} to {high:.4f})")
        print(f"| {safeguard} | {len(runs)} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
