"""Opening a W&B run so that nothing about the network can stop a training.

Offline needs neither account nor network. Online falls back to offline where there is no key or no
server, and says so; what is recorded offline is uploaded later by `wandb sync`.
"""

from __future__ import annotations

import http.client
import logging
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sdpo_exp.errors import UserError, first_line

_log = logging.getLogger(__name__)
_STAGING = "WANDB_DATA_DIR"


def open_run(
    wanted: Mapping[str, Any], *, offline: bool, timeout: float, wait_at_end: float
) -> Any:
    """A W&B run: online, or offline, or one that takes everything and keeps nothing.

    Args:
        wanted: arguments of `wandb.init`.
        offline: whether to leave the network alone; `WANDB_MODE=offline` and `=disabled` are heard
            as well.
        timeout: seconds to wait for the server at the start.
        wait_at_end: seconds to wait for uploads at the end.
    """
    import wandb

    mode = os.environ.get("WANDB_MODE", "")
    if mode == "disabled":
        return wandb.init(**wanted, mode="disabled")
    if not offline and mode not in ("offline", "dryrun"):
        try:
            check_access(timeout)
            waits = _settings(init_timeout=timeout, finish_timeout=wait_at_end)
            return wandb.init(**wanted, mode="online", settings=waits)
        except Exception as error:
            _log.warning("W&B: %s; this run is recorded offline", first_line(error))
    try:
        # Its own words at every start and end of an offline run are about going online.
        quiet = _settings(silent=os.environ.get("WANDB_SILENT", "true").lower() != "false")
        run = wandb.init(**{**wanted, "resume": None}, mode="offline", settings=quiet)
    except Exception as error:
        _log.warning("W&B: %s; nothing is recorded there", first_line(error))
        return wandb.init(mode="disabled")
    _log.info("W&B: recorded offline; upload it with: wandb sync %s", _shown(run))
    return run


def close_run(*, failed: bool) -> None:
    """End the process's W&B run, if there is one, so that each cell of a sweep gets its own.

    Args:
        failed: whether W&B shows the run as failed.
    """
    wandb: Any = sys.modules.get("wandb")  # not imported: then there is none
    run = wandb.run if wandb is not None else None
    if run is None:
        return
    try:
        run.finish(exit_code=int(failed))
    except Exception as error:
        where = _shown(run)
        _log.warning("W&B: %s; upload what is left with: wandb sync %s", repr(error), where)
        with suppress(Exception):  # its process may be gone; the next run gets another
            wandb.teardown()


def check_access(timeout: float) -> None:
    """Find out what can be known before W&B tries, which takes it several times as long.

    Args:
        timeout: seconds to wait for the server.

    Raises:
        UserError: there is no API key, or no server.
        Exception: W&B's own, where there is a key that cannot be one.
    """
    import wandb

    if not _has_key():
        raise UserError("no API key: run `wandb login`, or set WANDB_API_KEY")
    settings: Any = wandb.setup().settings
    if any(getattr(settings, key, None) for key in ("http_proxy", "https_proxy")):
        return  # W&B's own proxies, which only it knows how to use
    try:
        urllib.request.urlopen(settings.base_url, timeout=timeout).close()
    except urllib.error.HTTPError:
        return  # it answers
    except OSError as error:
        reason = getattr(error, "reason", error)
        # Certificates are left to W&B, which may trust others.
        if isinstance(reason, ConnectionError | TimeoutError | socket.gaierror):
            raise UserError(f"{settings.base_url} cannot be reached ({reason})") from None
    except (ValueError, http.client.HTTPException):
        return


def _has_key() -> bool:
    """Whether there are credentials in environment, netrc or settings; nobody is asked."""
    import wandb

    try:
        return bool(wandb.login(prompt=False, verify=False))
    except TypeError:  # an older wandb, which does not know `prompt`
        return bool(wandb.api.api_key)


@contextmanager
def staging_below(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keep copies of what tables and artifacts consist of in the run's folder.

    W&B puts them below the user's home, and `wandb sync` needs them. A user's own WANDB_DATA_DIR
    stays.
    """
    if os.environ.get(_STAGING):
        yield
        return
    os.environ[_STAGING] = str(Path(folder, "wandb", "data").absolute())
    try:
        yield
    finally:
        del os.environ[_STAGING]


def _settings(**values: Any) -> Any:
    """Those that the installed wandb knows; the rest only spares waiting."""
    import wandb

    known = wandb.Settings()
    return wandb.Settings(**{key: value for key, value in values.items() if hasattr(known, key)})


def _shown(run: Any) -> str:
    return os.path.relpath(Path(run.dir).parent)
