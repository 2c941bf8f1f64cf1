"""Weights from elsewhere: loaded whole, or refused in a sentence."""

from __future__ import annotations

import argparse
import http.server
import json
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import close_session, constants
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.models import get_weight

from tl_core.errors import InputError
from tl_core.images.decoding import decode_image
from tl_core.networks.backbones import BackboneSpec, build_backbone
from tl_core.networks.normalise import Normalise
from tl_core.networks.preprocessing import spec_of_timm, with_torchvision
from tl_core.networks.weights import load_weights
from tl_core.networks.weights_spec import is_weights_spec
from tl_core.views.fixed import to_float

NAME, SIZE = "resnet10_small", 32
SHARED = Path(__file__).resolve().parents[4] / "shared"
LITE0, HYMENOPTERA = SHARED / "weights" / "tf_efficientnet_lite0.safetensors", SHARED / "data" / "hymenoptera.zip"


def prefixed(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights.items()}


SAVERS: dict[str, Callable[[dict[str, Tensor], Path], None]] = {
    "plain.safetensors": save_file,
    "plain.pth": torch.save,
    "wrapped.pth": lambda weights, path: torch.save({"state_dict": weights, "epoch": 7}, path),
    "averaged.pth": lambda weights, path: torch.save(
        {"state_dict": state(seed=2), "state_dict_ema": weights, "args": argparse.Namespace(lr=0.1)}, path
    ),
    "lightning.pth": lambda weights, path: torch.save(
        {"model_state_dict": {f"backbone.{k}": v for k, v in weights.items()}}, path
    ),
    "lightning.ckpt": lambda weights, path: torch.save(
        {"state_dict": prefixed("model.", weights), "pytorch-lightning_version": "2.0", "hyper_parameters": {"lr": 1}},
        path,
    ),
    "net.pth": lambda weights, path: torch.save({"state_dict": prefixed("net.", weights)}, path),
    "nested_names.ckpt": lambda weights, path: torch.save({"state_dict": prefixed("model.backbone.", weights)}, path),
    "compiled_then_parallel.pth": lambda weights, path: torch.save(prefixed("_orig_mod.module.", weights), path),
    "parallel_then_compiled.PTH": lambda weights, path: torch.save(prefixed("module._orig_mod.net.", weights), path),
    "in_net.bin": lambda weights, path: torch.save({"net": weights, "acc": 93.1, "epoch": 3}, path),
    "in_params.pth.tar": lambda weights, path: torch.save({"params": weights, "optimizer": {"lr": 0.1}}, path),
    "in_state.pt": lambda weights, path: torch.save({"state": {"model": prefixed("encoder.", weights)}}, path),
    "named_model.pth": lambda weights, path: torch.save({"model": "resnet10_small", "weights": weights}, path),
    "two_networks.ckpt": lambda weights, path: torch.save(
        prefixed("student.", weights) | {"teacher.fc.weight": torch.zeros(3, 3)}, path
    ),
    "UPPER.SAFETENSORS": save_file,
    "optimizer_first.pth": lambda weights, path: torch.save(
        {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}, "net": weights}, path
    ),
    "parallel.pt": lambda weights, path: torch.save({f"module.{k}": v for k, v in weights.items()}, path),
}


def state(seed: int = 1, name: str = NAME) -> dict[str, Tensor]:
    return {
        key: value.contiguous() for key, value in build_backbone(BackboneSpec(name, SIZE), seed).state_dict().items()
    }


@torch.no_grad()
@pytest.mark.parametrize("file", SAVERS)
def test_a_file_gives_the_features_of_the_network_that_was_saved(tmp_path: Path, file: str) -> None:
    classifier = {"fc.weight": torch.zeros(5, 256), "fc.bias": torch.zeros(5)}
    SAVERS[file](state() | classifier, tmp_path / file)
    backbone, spec = load_weights(str(tmp_path / file), NAME, SIZE)
    images = torch.rand(2, 3, SIZE, SIZE)
    expected = build_backbone(BackboneSpec(NAME, SIZE), seed=1).eval()(images)
    assert torch.equal(backbone.eval()(images), expected)
    assert spec == BackboneSpec(NAME, SIZE)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_of_a_training_that_diverged_are_refused(tmp_path: Path, value: float) -> None:
    weights = state()
    name = next(name for name in weights if name.endswith("weight"))
    weights[name].view(-1)[3] = value
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=f"not finite, in {name}: their training diverged; give an earlier checkpoint"):
        load_weights(str(tmp_path / "w.safetensors"), NAME, SIZE)


@pytest.mark.parametrize(
    "loaded", [{}, [1, 2], {"epoch": 3, "net": "resnet"}, {"net": {"deep": {"er": {"est": torch.zeros(1)}}}}]
)
def test_a_file_without_weights_is_refused(tmp_path: Path, loaded: object) -> None:
    torch.save(loaded, tmp_path / "w.pth")
    with pytest.raises(InputError, match="is not a state dict: names with tensors"):
        load_weights(str(tmp_path / "w.pth"), NAME, SIZE)


def test_mean_deviation_and_size_are_those_that_timm_records(tmp_path: Path) -> None:
    save_file(state(name="vit_tiny_patch16_224"), tmp_path / "vit.safetensors")
    _, spec = load_weights(str(tmp_path / "vit.safetensors"), "vit_tiny_patch16_224", 0)
    assert spec == BackboneSpec("vit_tiny_patch16_224", 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("architecture", "weights", "mean", "std"),
    [
        ("vit_base_patch16_224", "ViT_B_16_Weights.IMAGENET1K_V1", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("vgg16", "VGG16_Weights.IMAGENET1K_FEATURES", (0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255)),
        # Torchvision's network turns its normalisation into this one itself, and timm's does not.
        ("inception_v3", "Inception_V3_Weights.IMAGENET1K_V1", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ],
)
def test_torchvisions_weights_bring_their_own_normalisation(
    architecture: str, weights: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    spec = with_torchvision(spec_of_timm(architecture, "", 0), get_weight(weights), 0)
    assert (spec.mean, spec.std) == (mean, pytest.approx(std))
    assert spec.image_size == (299 if architecture == "inception_v3" else 224)
    assert with_torchvision(spec, get_weight(weights), 96).image_size == 96


def test_a_tag_of_timm_brings_its_own_normalisation() -> None:
    assert spec_of_timm("vit_small_patch16_224", "", 0).mean == (0.5, 0.5, 0.5)
    assert spec_of_timm("vit_small_patch16_224", "dino", 0).mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    "config",
    [
        {"pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}, "architecture": "x"},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "size": 224},
    ],
    ids=["timm", "transformers"],
)
def test_a_config_beside_a_file_brings_its_normalisation(tmp_path: Path, config: dict[str, object]) -> None:
    save_file(state(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    _, spec = load_weights(str(tmp_path / "model.safetensors"), NAME, SIZE)
    assert (spec.mean, spec.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"expected JSON in .*config\.json, got something else"),
        ('{"mean": [0.5], "std": [0.5]}', r"expected three numbers for mean and std in .*config\.json, got \[0\.5\]"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    save_file(state(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=message):
        load_weights(str(tmp_path / "model.safetensors"), NAME, SIZE)


def test_a_transformers_positions_are_adapted_to_another_size(tmp_path: Path) -> None:
    weights = state(name="vit_tiny_patch16_224")
    # One value per channel at every position: whatever the grid, interpolation must keep it.
    weights["pos_embed"] = torch.linspace(0, 1, 192).expand(weights["pos_embed"].shape).contiguous()
    save_file(weights, tmp_path / "vit.safetensors")
    backbone, _ = load_weights(str(tmp_path / "vit.safetensors"), "vit_tiny_patch16_224", 64)
    positions = backbone.get_parameter("pos_embed")
    assert positions.shape == (1, 17, 192)
    torch.testing.assert_close(positions[0], torch.linspace(0, 1, 192).expand(17, 192))


RESIZED = {
    "vit_tiny_patch16_224": (224, 96),
    "deit3_small_patch16_224": (224, 96),
    "vit_small_patch14_reg4_dinov2": (224, 98),
    "swin_tiny_patch4_window7_224": (224, 96),
    "eva02_tiny_patch14_224": (224, 98),
    "beit_base_patch16_224": (224, 96),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of timm's own interpolation of relative positions
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if "beit" in n else n for n in RESIZED])
def test_weights_are_resized_as_timm_resizes_its_own(tmp_path: Path, name: str) -> None:
    saved_at, loaded_at = RESIZED[name]
    saved = timm.create_model(name, num_classes=0, img_size=saved_at).state_dict()
    generator = torch.Generator().manual_seed(0)
    for key in [key for key in saved if "pos_embed" in key or "relative_position_bias" in key]:
        saved[key] = torch.randn(saved[key].shape, generator=generator)
    save_file(saved, tmp_path / "w.safetensors")
    backbone, spec = load_weights(str(tmp_path / "w.safetensors"), name, loaded_at)
    overlay = {"state_dict": saved, "custom_load": False}
    known = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, img_size=loaded_at
    ).state_dict()
    assert spec.image_size == loaded_at
    assert any(known[key].shape != saved[key].shape for key in known)
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, known[key]), key


def test_the_positions_of_a_cait_are_resized_though_timms_filter_leaves_them(tmp_path: Path) -> None:
    saved = timm.create_model("cait_xxs24_224", num_classes=0, img_size=224).state_dict()
    saved["pos_embed"] = torch.linspace(0, 1, 192).expand(saved["pos_embed"].shape).contiguous()
    save_file(saved, tmp_path / "w.safetensors")
    backbone, _ = load_weights(str(tmp_path / "w.safetensors"), "cait_xxs24_224", 96)
    positions = backbone.get_parameter("pos_embed")
    assert positions.shape == (1, 36, 192)
    torch.testing.assert_close(positions[0], torch.linspace(0, 1, 192).expand(36, 192))


def test_weights_of_another_family_are_refused_by_name_though_its_filter_fails_on_them(tmp_path: Path) -> None:
    swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0).state_dict()
    save_file(swin, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="not those of vit_tiny_patch16_224: they lack cls_token"):
        load_weights(str(tmp_path / "w.safetensors"), "vit_tiny_patch16_224", 96)
    save_file(state(name="vit_tiny_patch16_224"), tmp_path / "v.safetensors")
    with pytest.raises(InputError, match="not those of swin_tiny_patch4_window7_224: they lack patch_embed"):
        load_weights(str(tmp_path / "v.safetensors"), "swin_tiny_patch4_window7_224", 96)


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({**state(), "extra": _Bomb(tmp_path / "ran")}, tmp_path / "bomb.pth")
    with pytest.raises(InputError, match="holds more than weights"):
        load_weights(str(tmp_path / "bomb.pth"), NAME, SIZE)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["plain.safetensors", "plain.pth"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, file: str, share: float) -> None:
    path = tmp_path / file
    SAVERS[file](state(), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=r"cannot be read|holds more than weights"):
        load_weights(str(path), NAME, SIZE)


def test_weights_of_another_architecture_are_refused_by_the_first_that_is_missing(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w.safetensors")
    with pytest.raises(
        InputError, match=r"not those of resnet18: they lack layer1\.1\.conv1\.weight and \d+ more; give"
    ):
        load_weights(str(tmp_path / "w.safetensors"), "resnet18", SIZE)


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"conv1.weight has shape \(32, 64, 3, 3\), not \(64, 64, 3, 3\)"):
        load_weights(str(tmp_path / "w.safetensors"), "resnet10_fine", SIZE)


def test_a_missing_file_and_a_wrong_kind_of_content_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights file at"):
        load_weights(str(tmp_path / "absent.pth"), NAME, SIZE)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="is not a state dict"):
        load_weights(str(tmp_path / "list.pth"), NAME, SIZE)
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(InputError, match="cannot be read"):
        load_weights(str(tmp_path / "zip.pth"), NAME, SIZE)


@pytest.mark.timeout(30)
def test_a_hub_that_cannot_be_reached_fails_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"could not be fetched from timm's hub .*give the path of a weights file"):
        load_weights("timm", "resnet18", SIZE)


class _RefusingProxy(http.server.BaseHTTPRequestHandler):
    def do_CONNECT(self) -> None:
        self.send_error(403)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.timeout(30)
def test_a_proxy_that_refuses_is_the_same_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = http.server.HTTPServer(("127.0.0.1", 0), _RefusingProxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.server_port}")
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    close_session()  # the next client reads the environment
    try:
        with pytest.raises(InputError, match=r"from timm's hub \(ProxyError\); without a network, give the path"):
            load_weights("timm", "resnet18", SIZE)
    finally:
        close_session()
        proxy.shutdown()
        proxy.server_close()


def test_unknown_names_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(InputError, match=r"expected a tag out of a1_in1k, .*, got resnet18\.nope"):
        load_weights("timm:nope", "resnet18", SIZE)
    with pytest.raises(InputError, match="got 'Nope'"):
        load_weights("torchvision:Nope", "resnet18", SIZE)


@pytest.mark.parametrize(
    ("text", "is_spec"),
    [("a/b.safetensors", True), ("w.pth", True), ("timm", True), ("timm:x", True), ("random", False), ("0a1b", False)],
)
def test_weights_are_told_from_run_ids_and_controls(text: str, is_spec: bool) -> None:
    assert is_weights_spec(text) == is_spec


@torch.no_grad()
@pytest.mark.skipif(not LITE0.is_file(), reason="the ImageNet weights are not on this machine")
def test_real_imagenet_weights_tell_ants_from_bees() -> None:
    backbone, spec = load_weights(str(LITE0), "tf_efficientnet_lite0", 0)
    head = load_file(LITE0)
    with zipfile.ZipFile(HYMENOPTERA) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][::8]
        images = np.stack([decode_image(archive.read(name), spec.image_size) for name in names])
    features = backbone.eval()(Normalise(spec)(to_float(torch.from_numpy(images))))
    ant, bee = 310, 309  # of ImageNet's classes
    logits = (features @ head["classifier.weight"].T + head["classifier.bias"])[:, [ant, bee]]
    right = [("ants" in name) == bool(row[0] > row[1]) for name, row in zip(names, logits, strict=True)]
    assert np.mean(right) > 0.9
