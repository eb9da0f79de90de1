"""`python -m sdpo_exp.make_pairs`: from ranked or scored images to a table of pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from sdpo_exp.bounds import NonNegativeFloat, NonNegativeInt, PositiveInt
from sdpo_exp.cli.command import run_command
from sdpo_exp.config.check import check_keys

KEYS: dict[str, Any] = {
    "path": str,
    "output": str,
    "overwrite": bool,
    "pairs": Literal["all", "adjacent", "best_worst", "smallest_gap"],
    "min_gap": NonNegativeFloat,
    "max_pairs_per_prompt": PositiveInt | None,
    "seed": NonNegativeInt,
    "images": Literal["bytes", "paths"],
    "on_bad_row": Literal["error", "skip"],
    "num_workers": PositiveInt,
}
COLUMNS: dict[str, Any] = dict.fromkeys(("prompt", "image", "score", "rank", "group"), str | None)


def main() -> None:
    """Entry point of `python -m sdpo_exp.make_pairs`."""
    run_command("make_pairs", make_pairs, check_make_pairs, _late_check)


def check_make_pairs(config: DictConfig) -> list[str]:
    """Unknown keys, types and ranges, and a name that no table of pairs can have."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "columns"])
    problems = check_keys(own, KEYS)
    if not isinstance(config.get("columns"), DictConfig):
        return [*problems, "columns: give columns.<what>=<name>, such as columns.prompt=caption"]
    problems += [f"columns.{problem}" for problem in check_keys(config.columns, COLUMNS)]
    return [*problems, *_unfit_name(config)]


def _unfit_name(config: DictConfig) -> list[str]:
    if OmegaConf.is_missing(config, "output") or not isinstance(config.output, str):
        return []
    output = Path(config.output)
    if output.suffix == ".parquet":
        return []
    named = output.with_suffix(".parquet")
    return [f"output={output}: pairs are a parquet table; give for example output={named}"]


def _late_check(config: DictConfig) -> list[str]:
    """Files that are not there, or are there already, and columns that cannot be found."""
    from sdpo_exp.cli.make_pairs.run import columns_of, output_of
    from sdpo_exp.data.files import split_files
    from sdpo_exp.data.stored_cells import open_cells
    from sdpo_exp.errors import UserError

    problems = []
    try:
        output_of(config)
    except UserError as error:
        problems.append(str(error))
    output = Path(config.output).expanduser()
    if not split_files([output.name], "train"):
        problems.append(
            f"output={output}: is read as another split than train, by its name; "
            f"give for example output={output.with_name('pairs.parquet')}"
        )
    path = Path(config.path).expanduser()
    if path.exists() and output.exists() and path.samefile(output):
        problems.append(f"output={output} is the table that is read; give another name")
    try:
        columns_of(config, open_cells(path))
    except UserError as error:
        problems.append(str(error))
    return problems


def make_pairs(config: DictConfig) -> None:
    """Read, pair, write and say; see `conf/make_pairs.yaml`.

    Raises:
        UserError: a row cannot be used, no pair is left, or the output cannot be written.
    """
    from sdpo_exp.cli.make_pairs.run import make_pairs_of

    make_pairs_of(config)
