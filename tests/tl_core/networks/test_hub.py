"""Weights from timm's hub, here a server of our own: a mirror, no network, half a file, a wrong file."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import close_session, constants
from safetensors.torch import save
from torch import Tensor

from tl_core.errors import InputError
from tl_core.networks.weights import load_weights
from tl_core.networks.weights_spec import NAMED, credit_of, is_weights_spec

REPOSITORY = "timm/mobilenetv4_conv_small.e2400_r224_in1k"
COMMIT = "0" * 40
SIZE = 32


@pytest.fixture(scope="module")
def trained() -> dict[str, Tensor]:
    torch.manual_seed(0)
    weights: dict[str, Tensor] = timm.create_model("mobilenetv4_conv_small").state_dict()
    return weights


class Hub(http.server.ThreadingHTTPServer):
    """The three addresses of the hub that a download asks for, and how many bytes of the weights it has sent."""

    def __init__(self, weights: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files = {"config.json": b"{}", "model.safetensors": weights}
        self.says = hashlib.sha256(weights).hexdigest()
        self.n_sent = 0


class _Answers(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        name = self.path.split("?")[0].rpartition("/")[2]
        if self.path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            self._send(json.dumps([self._entry(name) for name in self.server.files]).encode(), with_body)
        elif self.path.startswith(f"/api/models/{REPOSITORY}"):
            siblings = [{"rfilename": name} for name in self.server.files]
            self._send(json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode(), with_body)
        elif name in self.server.files:
            self._send(self.server.files[name], with_body, etag=self._etag(name))
        else:
            self.send_error(404)

    def _entry(self, name: str) -> dict[str, object]:
        size = len(self.server.files[name])
        large = {"lfs": {"oid": self._etag(name), "size": size, "pointerSize": 135}} if name != "config.json" else {}
        return {"type": "file", "path": name, "size": size, "oid": "1" * 40, **large}

    def _etag(self, name: str) -> str:
        return self.server.says if name == "model.safetensors" else "1" * 40

    def _send(self, content: bytes, with_body: bool, etag: str = "") -> None:
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(len(content) - first))
        self.send_header("X-Repo-Commit", COMMIT)
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if etag:
            self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        if with_body:
            self.wfile.write(content[first:])
            self.server.n_sent += (len(content) - first) * bool(etag == self.server.says)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(trained: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub(save(trained))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "ENDPOINT", address)  # as HF_ENDPOINT does, which is read once
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    close_session()
    yield server
    close_session()
    server.shutdown()
    server.server_close()


def assert_loaded(trained: dict[str, Tensor]) -> None:
    backbone, spec = load_weights("mobilenet", "", SIZE)
    assert (spec.architecture, spec.image_size) == ("mobilenetv4_conv_small", SIZE)
    own = backbone.state_dict()
    assert set(own) <= set(trained)
    assert all(torch.equal(own[name], trained[name]) for name in own)


def stored(cache: Path) -> Path:
    (link,) = cache.rglob("model.safetensors")
    return link.resolve()


def test_a_name_is_downloaded_once_from_a_mirror_and_then_without_a_network(
    hub: Hub, trained: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_loaded(trained)
    assert hub.n_sent == len(hub.files["model.safetensors"])
    hub.shutdown()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    assert_loaded(trained)
    assert hub.n_sent == len(hub.files["model.safetensors"])


def test_half_a_file_on_disk_does_no_harm(hub: Hub, trained: dict[str, Tensor], tmp_path: Path) -> None:
    content = hub.files["model.safetensors"]
    blobs = tmp_path / f"models--{REPOSITORY.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hub.says}.incomplete").write_bytes(content[: len(content) // 2])
    assert_loaded(trained)


def test_a_file_that_is_not_what_the_hub_says_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.says = "a" * 64
    with pytest.raises(
        InputError, match=r"expected model\.safetensors with SHA-256 a{12}\.\.\., as the hub says"
    ) as said:
        load_weights("mobilenet", "", SIZE)
    assert str(stored(tmp_path)) in str(said.value)


def test_a_file_that_was_damaged_on_disk_is_refused(hub: Hub, trained: dict[str, Tensor], tmp_path: Path) -> None:
    assert_loaded(trained)
    path = stored(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="to download it again"):
        load_weights("mobilenet", "", SIZE)
    path.unlink()
    assert_loaded(trained)


@pytest.mark.parametrize("name", NAMED)
def test_every_name_is_a_network_of_timm_with_a_licence(name: str) -> None:
    named = NAMED[name]
    known = timm.get_pretrained_cfg(f"{named.architecture}.{named.tag}")
    assert known is not None
    assert known.license == "apache-2.0"
    assert "Apache licence 2.0" in credit_of(name)
    assert is_weights_spec(name)
    n_parameters = sum(
        p.numel() for p in timm.create_model(named.architecture, num_classes=known.num_classes).parameters()
    )
    assert named.megabytes == pytest.approx(4e-6 * n_parameters, abs=1)
