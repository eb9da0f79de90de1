"""Every user mistake ends in words, before anything is written, and before torch is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import SMALL, run, run_folders

STAGE_1 = [
    (["objective=dpoo"], ["did you mean 'dpo'", "Choices: dmpo, dpo"]),
    (["objective=sdxl_magic"], ["no such choice", "Choices: dmpo, dpo"]),
    (["model=sdxll"], ["model=sdxll: no such choice"]),
    (["safeguard=maybe"], ["no such choice", "off, on, optimizer, pair"]),
    (["safeguard=off", "safeguard.mu=0.3"], ["safeguard=off takes no 'mu'", "on, optimizer, pair"]),
    (["safeguard=false", "safeguard.mu=0.3"], ["safeguard=off takes no 'mu'"]),
    (["safeguard.mu=1.5"], ["safeguard.mu: must be less than or equal to 1, got 1.5"]),
    (["safeguard.mu=-0.1"], ["safeguard.mu: must be greater than or equal to 0"]),
    (["safeguard.mu=high"], ["safeguard.mu: must be a valid number, got 'high'"]),
    (["safeguard.scope=batch"], ["'microbatch', 'pair' or 'global'", "got 'batch'"]),
    (["safeguard=weighted", "objective=dspo"], ["DSPO has no closed-form pair weights"]),
    (["safeguard=pair", "safeguard.official_compat=true"], ["official_compat"]),
    (["safeguard=constant", "safeguard.weight=-1"], ["safeguard.weight: must be greater"]),
    (["safeguard=true,false"], ["several values make a sweep; add -m"]),
    (["sead=3"], ["sead=3: unknown key; did you mean 'seed'"]),
    (["+misspelt=3"], ["misspelt: unknown key"]),
    (["objective.betta=3"], ["did you mean 'objective.beta'"]),
    (["+objective.betta=3"], ["objective.betta: unknown key; did you mean 'beta'"]),
    (["objective=sft", "objective.beta=3"], ["objective=sft takes no 'beta'"]),
    (["objective.beta=0"], ["objective.beta: must be greater than 0"]),
    (["objective=dmpo", "objective.alpha=2"], ["objective.alpha: must be less than or equal to 1"]),
    (["seed=1.5"], ["seed: must be a valid integer, got 1.5"]),
    (["seed=-1"], ["seed: must be greater than or equal to 0"]),
    (
        ["evaluation=null"],
        ["evaluation=null: no such choice. Choices: off, prompts, smoke, tiny, tiny_flow."],
    ),
    (
        ["safeguard=projection", "safeguard.lambda_min=2"],
        ["safeguard.lambda_min=2: must not be above safeguard.lambda_max=1.0"],
    ),
    (["safeguard=parameter", "safeguard.mu=2"], ["safeguard.mu: must be less than or equal to 1"]),
    (["safeguard=budget", "safeguard.rate=-1"], ["safeguard.rate: must be greater than or equal"]),
    (["objective=3"], ["objective=3: no such choice. Choices: dmpo, dpo, "]),
    (
        ["evaluation=off", "+evaluation.n=5"],
        ["evaluation.n: evaluation=off takes no values; leave them out"],
    ),
    (["max_time=30"], ["max_time: must be a time: 2h, 30min", "got 30"]),
    (["max_time=2x"], ["max_time: must be a time: 2h, 30min", "got '2x'"]),
    (["schedule=step"], ["schedule: must be 'constant', 'linear' or 'cosine', got 'step'"]),
    (["timesteps.min=9", "timesteps.max=9"], ["timesteps.min=9: must be below timesteps.max=9"]),
    (["timesteps.mim=9"], ["did you mean 'timesteps.min'"]),
    (["timesteps=500"], ["timesteps: give timesteps.min and timesteps.max, got 500"]),
    (["+trainer.max_time=2h"], ["trainer.max_time cannot be set: give max_time"]),
    (
        ["callbacks.checkpoint.keep_all=true", "callbacks.checkpoint.keep_last=2"],
        ["callbacks.checkpoint.keep_all=true keeps every one: leave out keep_last"],
    ),
    (["callbacks.checkpoint.every_n_minutes=0"], ["every_n_minutes: must be greater than 0"]),
    (
        ["callbacks=[default,early_stopping]", "callbacks.early_stopping.patience=0"],
        ["callbacks.early_stopping.patience: must be greater than or equal to 1"],
    ),
    (["max_steps=0"], ["max_steps: must be greater than or equal to 1"]),
    (["lr=fast"], ["lr: must be a valid number, got 'fast'"]),
    (["lr=true"], ["lr: must be a valid number, got True"]),
    (["effective_batch=12"], ["is not a multiple of data.micro_batch=8", "effective_batch=16"]),
    (["name=../elsewhere"], ["name: must be a plain folder name"]),
    (["resume=/no/such/file"], ["resume=/no/such/file: no such checkpoint or run folder"]),
    (["data.train.split=tset"], ["data.train.split: must be 'train', 'validation' or 'test'"]),
    (
        ["callbacks=[default,audit]", "callbacks.audit.bins=0"],
        ["callbacks.audit.bins: must be greater than or equal to 1"],
    ),
    (
        ["callbacks=[default,audit]", "callbacks.audit.every=5"],
        ["callbacks.audit.every"],
    ),
    (["callbacks.probe.times=[0.1,2]"], ["callbacks.probe.times: [1] must be less than 1"]),
    (["callbacks.gard.every_n_steps=3"], ["did you mean 'callbacks.guard.every_n_steps'"]),
    (["callbacks=[default,emaa]"], ["callbacks=[default,emaa]: no such choice"]),
    (["callbacks=[default,prob]"], ["did you mean 'probe'"]),
    (["logger=wanb"], ["did you mean 'wandb'"]),
    (["experiment=nope"], ["experiment=nope: no such choice", "smoke"]),
    (["trainer.presicion=16"], ["did you mean 'trainer.precision'"]),
    (["+trainer.accumulate_grad_batches=4"], ["follows from effective_batch"]),
    (["model=sdxl", "+model.varient=fp16"], ["model.varient: unknown key; did you mean 'variant'"]),
    (["model=sdxl", "model.time_ids=tru"], ["model.time_ids: must be 'constant' or 'true'"]),
    (
        ["tuning=lora", "+tuning.compil=true"],
        ["tuning.compil: unknown key; did you mean 'compile'"],
    ),
    (
        ["data=pickapic_v2_stream", "+data.train.skip_frist=3"],
        ["data.train.skip_frist: unknown key; did you mean 'skip_first'"],
    ),
    (
        ["data=pickapic_v2_stream", "+data.validation.holdout=0.1"],
        ["data.validation.holdout: unknown key; there are: path, columns, split"],
    ),
    (["reference.dtype=float8"], ["reference.dtype: must be 'float32', 'bfloat16'"]),
    (["objective=[dpo"], ["cannot be read as key=value"]),
    (["max_steps"], ["cannot be read as key=value"]),
    (["-m", "objective=dpo,dmppo", "safeguard=true,false"], ["objective=dmppo: no such choice"]),
    (["-m", "seed=1,2", "max_steps=0,1"], ["max_steps: must be greater than or equal to 1"]),
    (["-m", "run_dir=here", "seed=1,2"], ["run_dir cannot be set for a sweep"]),
    (["-m", "seed=1,2", "trainer.devices=2"], ["run the cells one by one, without -m"]),
    (["--cfg", "job", "objective=dpoo"], ["did you mean 'dpo'"]),
    (["--info", "defaults", "+x=1"], ["x: unknown key"]),
]


@pytest.mark.few(6)
@pytest.mark.parametrize(("arguments", "words"), STAGE_1, ids=lambda v: " ".join(v)[:60])
def test_a_mistake_is_told_without_torch(
    tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    done = run(tmp_path, *arguments, watch=True)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    for fragment in words:
        assert fragment in done.stderr
    assert "LOADED []" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    arguments = ["objective=dpoo", "sead=3", "safeguard.mu=1.5", "+misspelt=3", "lr=-1", "x["]
    done = run(tmp_path, *arguments, watch=True)
    assert "6 mistakes in the configuration; nothing was run" in done.stderr
    for fragment in ("dpoo", "sead=3", "safeguard.mu", "misspelt", "lr: must be", "x["):
        assert fragment in done.stderr
    assert "LOADED []" in done.stdout


def test_a_value_that_is_passed_on_is_told_once(tmp_path: Path) -> None:
    done = run(tmp_path, "seed=1.5", "recipe.mu=7", watch=True)
    assert "2 mistakes" in done.stderr


STAGE_2 = [
    (["+trainer.presicion=16"], ["trainer.presicion: unknown key; did you mean 'precision'"]),
    (["+optimizer.beta=0.9"], ["optimizer.beta: unknown key; did you mean 'betas'"]),
    (
        ["safeguard=optimizer", "optimizer=adafactor"],
        ["safeguard=optimizer: ", "not of Adafactor; choose optimizer=adamw"],
    ),
    (
        ["trainer.precision=bf15", "optimizer.lr=-1"],
        ["2 mistakes", "optimizer: Invalid learning rate", "Precision 'bf15' is invalid"],
    ),
    (["optimizer._target_=torch.optim.AdamX"], ["optimizer._target_=torch.optim.AdamX"]),
    (["trainer.accelerator=quantum"], ["trainer:", "quantum"]),
]


@pytest.mark.parametrize(("arguments", "words"), STAGE_2, ids=lambda v: " ".join(v)[:60])
def test_a_mistake_in_another_library_s_node_is_told_before_anything_is_written(
    tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    for fragment in words:
        assert fragment in done.stderr
    assert not (tmp_path / "outputs").exists()


IN_THE_RUN = [
    (["model.pretrained=/no/model"], ["model.pretrained=/no/model: no such model folder"]),
    (["data.validation.size=2"], ["callbacks.probe.pairs=4: the data has 2 held-out pairs"]),
]


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resume=empty"], ["resume=empty: no checkpoint in"]),
        (["resume=broken.ckpt"], ["broken.ckpt: the file cannot be read"]),
        (["resume=nothing.ckpt"], ["nothing.ckpt: the file cannot be read"]),
    ],
    ids=lambda v: " ".join(v)[:60],
)
def test_what_cannot_be_resumed_is_told_before_anything_is_written(
    tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    _put_checkpoints(tmp_path)
    done = run(tmp_path, *SMALL, *arguments)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    for fragment in words:
        assert fragment in done.stderr
    assert not (tmp_path / "outputs").exists()


def _put_checkpoints(folder: Path) -> None:
    (folder / "empty" / "checkpoints").mkdir(parents=True)
    (folder / "broken.ckpt").write_bytes(b"not a checkpoint")
    (folder / "nothing.ckpt").write_bytes(b"")


@pytest.mark.few(3)
@pytest.mark.parametrize(("arguments", "words"), IN_THE_RUN, ids=lambda v: " ".join(v)[:60])
def test_a_mistake_that_only_the_run_can_see_is_told_too(
    tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    done = run(tmp_path, *SMALL, *arguments)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    for fragment in words:
        assert fragment in done.stderr
    (folder,) = run_folders(tmp_path)
    assert '"status": "stopped' in (folder / "summary.json").read_text()
