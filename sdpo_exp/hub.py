"""Models and datasets by hub id or local folder: where they are, or why they cannot be had.

Whatever is found ends as a local folder: a user's own, or a snapshot in the hub's cache. What reads
it afterwards never touches the network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

from sdpo_exp.errors import UserError, first_line

Kind = Literal["model", "dataset"]
Wanted = Callable[[Sequence[str]], Sequence[str]]
_TIMEOUT = 5.0  # seconds for the hub to answer
_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


def locate(source: str, kind: Kind, revision: str | None, wanted: Wanted) -> Path:
    """The local folder (or file) of `source`.

    Args:
        source: a path, or a hub id `owner/name`.
        kind: what the id names.
        revision: branch, tag or commit of a hub id; None: its default branch.
        wanted: picks what to fetch from the list of the repository's files.

    Raises:
        UserError: neither here nor to be had; the message says how to get it.
    """
    if (path := local_path(source)) is not None:
        return path
    if (reason := _unreachable(source, kind, revision)) is None:
        return _fetch(source, kind, revision, wanted)
    snapshot = cached(source, kind, revision)
    if snapshot is None:
        raise UserError(_absent(source, kind, revision, reason))
    return snapshot


def absence(
    source: str, kind: Kind, revision: str | None, complete: Callable[[Path], bool]
) -> str | None:
    """Why `source` cannot be had, or None; loads nothing and takes a few seconds at most.

    Args:
        source, kind, revision: as for `locate`.
        complete: whether a local folder or snapshot has what is needed.
    """
    if (path := local_path(source)) is not None:
        return None if complete(path) else f"{source}: the folder lacks what is needed"
    snapshot = cached(source, kind, revision)
    if snapshot is not None and complete(snapshot):
        return None
    reason = _unreachable(source, kind, revision)
    return None if reason is None else _absent(source, kind, revision, reason)


def local_path(source: str) -> Path | None:
    """`source` as an existing path; None where it can only be a hub id."""
    path = Path(source).expanduser()
    return path if path.exists() else None


def cached(source: str, kind: Kind, revision: str | None) -> Path | None:
    """The snapshot in the hub's cache, complete or not; None where there is none."""
    from huggingface_hub import snapshot_download

    if not _ID.match(source):
        return None
    try:
        return Path(
            snapshot_download(source, repo_type=kind, revision=revision, local_files_only=True)
        )
    except (OSError, ValueError):
        return None


def commit(folder: Path) -> str | None:
    """The commit of a snapshot folder of the hub's cache; None for any other folder."""
    is_snapshot = folder.parent.name == "snapshots" and (folder.parents[1] / "refs").is_dir()
    return folder.name if is_snapshot else None


def _fetch(source: str, kind: Kind, revision: str | None, wanted: Wanted) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    files = HfApi().list_repo_files(source, repo_type=kind, revision=revision)
    needed = list(wanted(files))
    if not needed:
        raise UserError(
            f"{source}: the hub's {kind} has none of the files needed; it has "
            f"{', '.join(files[:8])}"
        )
    return Path(snapshot_download(source, repo_type=kind, revision=revision, allow_patterns=needed))


@lru_cache(maxsize=64)
def _unreachable(source: str, kind: Kind, revision: str | None) -> str | None:
    """Why the hub does not give `source`, or None; asked once per process."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if not _ID.match(source):
        return "it is no folder, and no hub id (owner/name) either"
    if constants.HF_HUB_OFFLINE:
        return "it is not, or not wholly, in the hub's cache, and HF_HUB_OFFLINE is set"
    if _no_answer():
        return f"it is not, or not wholly, in the hub's cache, and {constants.ENDPOINT} is silent"
    try:
        HfApi().repo_info(source, repo_type=kind, revision=revision, timeout=_TIMEOUT)
    except GatedRepoError:
        return (
            "its owner asks for a licence to be accepted first: on its page, then `hf auth login`"
        )
    except RepositoryNotFoundError:
        return "the hub has no such repository (or it is private: `hf auth login`)"
    except RevisionNotFoundError:
        return f"the hub's repository has no revision {revision}"
    except Exception as error:
        return f"the hub refused it ({first_line(error)})"
    return None


@lru_cache(maxsize=1)
def _no_answer() -> bool:
    """Whether the hub's address cannot be connected to; told in seconds, before any retries."""
    import socket
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    from huggingface_hub import constants

    if getproxies():  # only the proxy can be connected to; the request itself will tell
        return False
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=_TIMEOUT):
            return False
    except OSError:
        return True


def _absent(source: str, kind: Kind, revision: str | None, reason: str) -> str:
    command = f"hf download {source}" + (f" --revision {revision}" if revision else "")
    command += " --repo-type dataset" if kind == "dataset" else ""
    fetch = f"; fetch it where there is a network with `{command}`" if _ID.match(source) else ""
    return f"{kind} {source}: {reason}{fetch}"
