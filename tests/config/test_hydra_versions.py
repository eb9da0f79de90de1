"""Calls of Hydra as our own code makes them; tests/test_next_hydra.py runs these on 1.4, too."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hydra.core.plugins import Plugins
from hydra.errors import CompactHydraException, InstantiationException
from hydra.plugins.plugin import Plugin
from omegaconf import OmegaConf

from sdpo_exp.config import conf_dir
from sdpo_exp.config.cell_name import register_resolvers
from sdpo_exp.config.composition import compose_cell
from sdpo_exp.config.hydra_versions import instantiate, run_with_hydra
from sdpo_exp.launchers.plugins import PLUGINS, register_plugins
from tests.cli.command import python

PRIMARY = sorted(path.stem for path in conf_dir().glob("*.yaml"))
register_resolvers()


@pytest.mark.parametrize("name", PRIMARY)
def test_every_primary_config_composes(name: str) -> None:
    assert compose_cell(name, []).problems == []


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "datetime.timedelta", "days": 2},
        {"_target_": "datetime.timedelta", "days": {"_target_": "builtins.int", "_args_": ["2"]}},
        {"_target_": "${kind}", "days": 2},
    ],
    ids=["a target", "one below another", "one by reference"],
)
def test_what_a_node_names_is_built(node: dict[str, Any]) -> None:
    config = OmegaConf.create({"kind": "datetime.timedelta", "it": node})
    assert instantiate(config.it).days == 2


def test_what_a_configuration_may_never_call_stays_forbidden() -> None:
    with pytest.raises(InstantiationException):
        instantiate({"_target_": "os.system", "_args_": ["true"]})


@pytest.mark.parametrize("cls", PLUGINS)
def test_a_plugin_is_found_by_the_name_it_is_written_with(cls: type[Plugin]) -> None:
    module = import_module(cls.__module__)
    assert module.__name__ == "hydra_plugins.sdpo_exp"
    assert getattr(module, cls.__name__) is cls
    with pytest.raises(AttributeError, match="no attribute 'DaskLauncher'"):
        _ = module.DaskLauncher


def test_a_plugin_is_registered_once() -> None:
    register_plugins()
    register_plugins()
    names = [cls.__name__ for cls in Plugins.instance().discover(Plugin)]
    assert all(names.count(cls.__name__) == 1 for cls in PLUGINS)


def test_another_program_of_hydra_s_does_not_load_us(tmp_path: Path) -> None:
    code = (
        "import sys; from hydra.core.plugins import Plugins; Plugins.instance()\n"
        "print([m for m in sys.modules if m.startswith(('hydra_plugins.', 'sdpo_exp'))])"
    )
    done = python(tmp_path, "-c", code)
    assert done.stdout == "['hydra_plugins.sdpo_exp']\n", done.stderr
    assert not done.stderr


@pytest.mark.parametrize(("error", "words"), [(CompactHydraException, ""), (KeyError, "Traceback")])
def test_a_mistake_of_the_user_s_is_words_and_one_of_ours_is_not(
    error: type[Exception],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def job(config: Any) -> None:
        raise error("what is wrong")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["command"])
    before = sys.excepthook
    with pytest.raises(SystemExit):
        run_with_hydra("runs", job)
    told = capsys.readouterr().err
    assert "what is wrong" in told
    assert ("Traceback" in told) == bool(words)
    assert sys.excepthook is before
