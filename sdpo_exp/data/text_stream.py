"""CSV and JSON files as a stream of `datasets`: read in passing, never as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import datasets
import pyarrow as pa

from sdpo_exp.data.columns import Columns
from sdpo_exp.data.table_types import text_batches


@dataclass
class TextConfig(datasets.BuilderConfig):
    """Files, and the columns that are needed of them."""

    files: tuple[str, ...] = ()
    columns: Columns | None = None


class TextStream(datasets.ArrowBasedBuilder):
    """Rows of text files, shuffled file by file as `datasets` does it with its own formats."""

    BUILDER_CONFIG_CLASS = TextConfig

    def _info(self) -> datasets.DatasetInfo:
        names = dict.fromkeys(self.config.columns.named.values())
        features = {name: datasets.Value("large_string") for name in names}
        return datasets.DatasetInfo(features=datasets.Features(features))

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        del dl_manager
        files = {"files": list(self.config.files)}
        return [datasets.SplitGenerator(name="train", gen_kwargs=files)]

    def _generate_tables(self, files: list[str]) -> Iterator[tuple[Any, pa.Table]]:
        for number, batch in enumerate(text_batches(files, self.config.columns)):
            yield number, pa.Table.from_batches([batch])
