"""What headers and names tell is told at once, and without torch."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sdpo_exp.cli.train.own_files import check_own_files
from sdpo_exp.config.composition import compose_cell
from sdpo_exp.models.ovis_files import OvisU1Files
from tests.checkpoints import save_sd15, save_sdxl
from tests.cli.command import run
from tests.data.test_holdout import make
from tests.models.ovis_u1.folder import write as write_ovis_u1
from tests.ovis_image import save_ovis_image

BASE = ("data=folder", "max_steps=2", "resolution=64")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own")
    save_sd15(root / "sd15")
    save_sdxl(root / "sdxl")
    save_ovis_image(root / "ovis_image")
    write_ovis_u1(root / "ovis_u1")
    make(root / "pairs", [f"caption {i}" for i in range(16)])
    return root


def told(folder: Path, *words: str, model: str = "sd15", weights: str = "sd15") -> list[str]:
    paths = (f"model.pretrained={folder / weights}", f"data.train.path={folder / 'pairs'}")
    composed = compose_cell("train", [f"model={model}", *BASE, *paths, *words])
    assert composed.config is not None
    return check_own_files(composed.config)


def test_files_that_fit_are_passed_over(folder: Path) -> None:
    assert told(folder, "tuning=lora") == []
    assert told(folder, "tuning=lora", model="sdxl", weights="sdxl") == []
    assert told(folder, "tuning=lora", model="ovis_image", weights="ovis_image") == []
    assert told(folder, "tuning=lora", model="ovis_u1", weights="ovis_u1") == []
    assert told(folder, "tuning=lora", "tuning.targets='down_blocks.*to_(q|k)'") == []
    assert told(folder, weights="not_here") == []  # told by the class itself
    assert told(folder, "callbacks.probe.pairs=1") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["resolution=62"], "resolution=62: the model works in blocks of 8 pixels"),
        (["callbacks.probe.pairs=9"], "callbacks.probe.pairs=9: the data has 1 held-out pairs"),
        (["data.validation_pairs=2"], "data.validation_pairs=2: the data has 1 held-out pairs"),
        (["tuning=lora", "tuning.targets=[to_x,to_q]"], "no module of its UNet matches to_x. "),
        (["tuning=lora", "tuning.targets='('"], "not a regular expression"),
        (["data.train.path=nowhere"], "nowhere: no such folder"),
    ],
)
def test_a_mistake_is_told(folder: Path, words: list[str], said: str) -> None:
    (line,) = told(folder, *words)
    assert said in line


def test_a_model_of_another_family_is_told(folder: Path) -> None:
    (line,) = told(folder, weights="sdxl")
    assert "its UNet is not one of StableDiffusion: it has added conditions 'text_time'" in line
    (line,) = told(folder, "resolution=61", model="sdxl", weights="sdxl")
    assert line.startswith("resolution=61")


def test_a_transformer_is_looked_at_as_a_unet_is(folder: Path) -> None:
    lora = ("resolution=72", "tuning=lora", "tuning.targets=[to_x]")
    size, targets = told(folder, *lora, model="ovis_image", weights="ovis_image")
    assert size.startswith("resolution=72: the model works in blocks of 16 pixels")
    assert "no module of its transformer matches to_x. " in targets
    assert "transformer_blocks.0.ff.net.2" in targets
    other = f"model.vae={folder / 'sd15' / 'vae'}"
    (line,) = told(folder, other, model="ovis_image", weights="ovis_image")
    assert "its transformer takes 64 channels and its VAE makes 16" in line


def test_a_folder_in_the_layout_of_ovis_u1_is_looked_at_by_its_shards(
    folder: Path, tmp_path: Path
) -> None:
    lora = ("resolution=72", "tuning=lora", "tuning.targets=[to_q]")
    size, targets = told(folder, *lora, model="ovis_u1", weights="ovis_u1")
    assert size.startswith("resolution=72: the model works in blocks of 16 pixels")
    assert "no module of its transformer matches to_q. " in targets
    assert "single_blocks.0.linear1" in targets
    other = tmp_path / "other"
    shutil.copytree(folder / "ovis_u1", other)
    (other / "config.json").write_text('{"model_type": "ovis2"}')
    (line,) = told(folder, model="ovis_u1", weights=str(other))
    assert "is of another model (ovis2): it has no visual_generator_config. Choose" in line
    (other / "model-00002-of-00003.safetensors").unlink()
    assert OvisU1Files().missing(other) == ["model-00002-of-00003.safetensors"]


def test_all_are_told_at_once_without_torch_and_nothing_is_written(
    folder: Path, tmp_path: Path
) -> None:
    paths = (f"model.pretrained={folder / 'sd15'}", f"data.train.path={folder / 'pairs'}")
    wrong = ("resolution=62", "callbacks.probe.pairs=9", "objective.bta=2", "tuning=lora")
    done = run(tmp_path, "model=sd15", *BASE, *paths, *wrong, watch=True)
    assert done.returncode == 1
    assert done.stdout == "LOADED []\n"
    assert done.stderr.startswith("3 mistakes in the configuration; nothing was run:\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("header", "words", "said"),
    [
        ("winner,loser,text", [], ""),
        ("chosen,rejected,prompt", ["data.train.columns.caption=captoin"], "no column 'captoin'"),
        ("img_a,img_b,prompt,choice", [], "what do its values 1 mean?"),
        ("img_a,img_b,prompt", [], "no columns of a usual name for what is preferred"),
        ("x,y,prompt", [], "no columns of a usual name for the images"),
    ],
)
def test_columns_of_a_table_are_looked_at(
    tmp_path: Path, header: str, words: list[str], said: str
) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(f"{header}\n{','.join(['1'] * len(header.split(',')))}\n")
    composed = compose_cell("train", ["data=hf_pairs", f"data.train.path={path}", *words])
    assert composed.config is not None
    found = check_own_files(composed.config)
    assert len(found) == bool(said)
    assert said in "".join(found)
