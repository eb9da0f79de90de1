"""One word for one thing, wherever people read."""

from __future__ import annotations

import re

from sdpo_exp.loggers.panels import sections
from sdpo_exp.reports.html.curves import PANELS
from sdpo_exp.reports.html.quantities import quantities_of
from sdpo_exp.words import WORDS, word
from tests.cli.command import ROOT

PAGE = ROOT / "docs" / "words.md"
# Where each is named to say that it means the same.
SPELLINGS = re.compile(
    r"winner[ -]ref\b|winner error (-|minus|\N{MINUS SIGN}) reference|loser[ -]ref\b|"
    r"loser error (-|minus|\N{MINUS SIGN}) reference|loss above the base",
    re.IGNORECASE,
)
READ = [
    path
    for pattern in ("*.md", "docs/**/*.md", "experiments/**/*.md", "sdpo_exp/**/*", "conf/**/*")
    for path in ROOT.glob(pattern)
    if path.suffix in {".md", ".py", ".yaml", ".html", ".js"} and path != PAGE
]


def rows() -> dict[str, str]:
    """The word by the log keys of its row."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip(" *") for cell in line.split("|")]
        if len(cells) == 6 and "`" in cells[3]:
            found |= dict.fromkeys(re.findall(r"`([a-z]+/\w+)`", cells[3]), cells[1])
    return found


def test_the_page_uses_the_words_of_the_code() -> None:
    told = rows()
    assert {word(key) for key in told} >= set(WORDS.values()) - {"lambda"}
    for key, words in told.items():
        assert word(key) in words.split(", "), key


def test_no_older_spelling_is_left() -> None:
    found = {
        str(path.relative_to(ROOT)): spelled
        for path in READ
        if (spelled := SPELLINGS.findall(path.read_text(encoding="utf-8")))
    }
    assert found == {}
    assert SPELLINGS.search("winner-ref +0.1")


def test_labels_hold_their_word() -> None:
    for panel in PANELS:
        if panel.key.rpartition("/")[2] in WORDS:
            assert word(panel.key) in panel.title.lower()
    for quantity in quantities_of(None):
        if quantity.key.rpartition("/")[2] in WORDS:
            assert quantity.title == word(quantity.key)
    for section in sections():
        for panel in section.panels:
            if panel.keys and panel.keys[0].rpartition("/")[2] in WORDS:
                assert word(panel.keys[0]) in panel.title.lower()
