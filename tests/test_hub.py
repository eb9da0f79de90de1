"""Where models and datasets are found, and what is said where they are not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from sdpo_exp import hub
from sdpo_exp.errors import UserError
from sdpo_exp.models import checkpoint_folder
from tests.checkpoints import SD15_ID, cache_folder, save_sd15

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def everything(files: Any) -> Any:
    return files


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty hub cache, and a hub that is not asked."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for remembered in (hub._unreachable, hub._no_answer):
        remembered.cache_clear()
    yield tmp_path / "hub"
    for remembered in (hub._unreachable, hub._no_answer):
        remembered.cache_clear()


def absent(source: str, complete: Callable[[Path], bool] = lambda _: True) -> str | None:
    return hub.absence(source, "model", None, complete)


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert hub.locate(str(tmp_path), "model", None, everything) == tmp_path
    assert absent(str(tmp_path)) is None
    assert "lacks" in str(absent(str(tmp_path), lambda _: False))


def test_a_snapshot_in_the_cache_is_found_with_its_commit(cache: Path) -> None:
    snapshot = cache_folder(cache, SD15_ID)
    assert hub.locate(SD15_ID, "model", None, everything) == snapshot
    assert hub.commit(snapshot) == snapshot.name
    assert hub.commit(cache) is None
    assert absent(SD15_ID) is None


def test_what_is_nowhere_is_told_with_the_command_that_fetches_it(cache: Path) -> None:
    del cache
    message = str(absent("owner/name"))
    assert "model owner/name" in message
    assert "HF_HUB_OFFLINE is set" in message
    assert "`hf download owner/name`" in message
    with pytest.raises(UserError, match="hf download owner/name --repo-type dataset"):
        hub.locate("owner/name", "dataset", None, everything)
    assert "neither" not in message
    assert "no folder, and no hub id" in str(absent("/nowhere/at/all"))
    assert "hf download" not in str(absent("/nowhere/at/all"))


def test_an_incomplete_snapshot_counts_as_absent(cache: Path) -> None:
    cache_folder(cache, SD15_ID)
    assert "or not wholly, in the hub's cache" in str(absent(SD15_ID, lambda _: False))


def test_what_a_snapshot_lacks_is_named(cache: Path) -> None:
    save_sd15(cache_folder(cache, SD15_ID))
    parts = (*PARTS, "text_encoder_2")
    message = str(checkpoint_folder.absent_model("model.pretrained", SD15_ID, None, parts, "x"))
    assert "of it the cache has all but text_encoder_2/" in message


def test_a_hub_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    message = str(absent("owner/name"))
    assert "http://127.0.0.1:9 is silent" in message


class Hub(BaseHTTPRequestHandler):
    """One public repository; another does not exist."""

    def do_GET(self) -> None:
        found = "/owner/public" in self.path
        body = json.dumps({"id": "owner/public", "sha": "0" * 40, "siblings": []}).encode()
        self.send_response(200 if found else 404)
        if not found:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


def test_a_hub_that_answers_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", endpoint)
    try:
        assert absent("owner/public") is None
        assert "the hub has no such repository" in str(absent("owner/private"))
    finally:
        server.shutdown()


# -- what of a model's repository is fetched -----------------------------------------------------

FILES = [
    "README.md",
    "model_index.json",
    "v1-5-pruned.safetensors",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/chat_template.jinja",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
    "safety_checker/model.safetensors",
    "text_encoder/model.safetensors",
    "text_encoder/model.fp16.safetensors",
]


def test_one_set_of_weights_is_fetched() -> None:
    wanted = checkpoint_folder.wanted_files(PARTS, None)(FILES)
    weights = [file for file in wanted if file.endswith("safetensors")]
    assert weights == [
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "text_encoder/model.safetensors",
    ]
    small = {"tokenizer/merges.txt", "tokenizer/chat_template.jinja", "unet/config.json"}
    assert {"model_index.json", *small} <= set(wanted)
    fp16 = checkpoint_folder.wanted_files(PARTS, "fp16")(FILES)
    assert [file for file in fp16 if file.endswith("safetensors")] == [
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/model.fp16.safetensors",
    ]


def test_a_folder_without_a_part_or_its_weights_is_told(tmp_path: Path) -> None:
    folder = save_sd15(tmp_path / "model")
    assert checkpoint_folder.missing_parts(folder, PARTS) == []
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "tokenizer").rename(tmp_path / "elsewhere")
    assert checkpoint_folder.missing_parts(folder, PARTS) == ["vae", "tokenizer"]
    message = checkpoint_folder.absent_model("model.pretrained", str(folder), None, PARTS, "x")
    assert message == f"model.pretrained={folder}: the folder lacks vae, tokenizer/"
