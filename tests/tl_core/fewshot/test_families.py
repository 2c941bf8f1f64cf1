"""Every family of timm can be fine-tuned at every depth, from features of the last stage and of several."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import write_colour_images
from tl_core.data.dataset import ImageDataset, load_dataset
from tl_core.data.episodes import build_pool, sample_episode
from tl_core.errors import InputError
from tl_core.export.onnx_file import check_parity, export_onnx
from tl_core.fewshot.finetuner import Finetuner
from tl_core.networks.backbones import BackboneSpec, build_backbone, with_features
from tl_core.networks.weights import load_weights
from tl_core.recipes.choices import Features
from tl_core.recipes.episode import EpisodeShape
from tl_core.recipes.finetune import FinetuneRecipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ANY_SIZE = (
    *("test_byobnet", "test_convnext", "test_efficientnet", "test_nfnet", "test_resnet", "cpubone_nano"),
    *("cs3darknet_focus_s", "cspnext_tiny", "dla46x_c", "edgenext_xx_small", "efficientvim_m1", "efficientvit_b0"),
    *("fasternet_t0", "fastvit_t8", "ghostnet_100", "hardcorenas_b", "hgnetv2_b0", "hrnet_w18_small", "iformer_t"),
    *("inception_next_atto", "lcnetv2_small", "lowformer_b0", "mambaout_femto", "mobilenetv3_small_050"),
    *("mobilenetv4_conv_small", "mobilevit_xxs", "poolformerv2_s12", "pvt_v2_b0", "regnetx_002", "repghostnet_050"),
    *("repvit_m1", "resnest14d", "resnetv2_18", "rexnet_100", "legacy_seresnet18", "shvit_s1", "skresnet18"),
    *("starnet_s1", "tiny_vit_5m_224", "ese_vovnet19b_dw", "vgg11_bn", "densenet121", "rdnet_tiny"),
)
OWN_SIZE = {
    "test_vit": 160,
    "deit_tiny_patch16_224": 64,
    "efficientvit_m0": 224,
    "levit_128s": 224,
    "pit_ti_224": 224,
    "visformer_tiny": 224,
    "xcit_nano_12_p8_224": 64,
    "crossvit_tiny_240": 240,
}
FIXED_SIZE = ("levit_128s", "pit_ti_224", "visformer_tiny", "crossvit_tiny_240")
"""Families whose weights timm does not resize."""
FAMILIES = dict.fromkeys(ANY_SIZE, 64) | OWN_SIZE
CPU = torch.device("cpu")
USES: tuple[tuple[Features, float], ...] = (("last", 0.5), ("last", 0.0), ("stages", 1.0), ("stages", 0.8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_images(tmp_path_factory.mktemp("data"), n_per_class=6, size=32)


def data_of(folder: Path, size: int) -> ImageDataset:
    return load_dataset(str(folder), size, cache_dir=folder.parent / "cache")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_fine_tuned_at_every_depth_and_exported(name: str, folder: Path, tmp_path: Path) -> None:
    spec = BackboneSpec(name, FAMILIES[name])
    data = data_of(folder, spec.image_size)
    plain = build_backbone(spec, seed=0)
    episode = sample_episode(build_pool(data, "all"), EpisodeShape(3, 2, 4), 0, 0)
    for features, freeze_depth in USES:
        network, of_features = with_features(plain, spec, features)
        recipe = FinetuneRecipe(freeze_depth=freeze_depth, steps=2, max_lr=1e-4)
        finetuner = Finetuner(network, of_features, data, CPU)
        (result,) = finetuner.run_episodes([episode], recipe)
        assert np.isfinite(result.loss), (features, freeze_depth)
    classifier = finetuner.fit_classifier(np.arange(len(data.labels)), FinetuneRecipe(), seed=0)
    export_onnx(classifier, spec.image_size, {"class_names": '["blue", "green", "red"]'}, tmp_path / "x.onnx")
    parity = check_parity(classifier, tmp_path / "x.onnx", np.array(data.images))
    assert parity.equal_argmax == 1.0


@pytest.mark.parametrize("name", ANY_SIZE)
def test_weights_of_another_size_are_taken(name: str, tmp_path: Path) -> None:
    save_state(name, 64, tmp_path / "weights.safetensors")
    assert load_weights(str(tmp_path / "weights.safetensors"), name, 128)[1].image_size == 128


@pytest.mark.parametrize("name", OWN_SIZE)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of timm's own interpolation of relative positions
def test_weights_of_a_family_with_a_size_of_its_own_are_resized_or_refused(name: str, tmp_path: Path) -> None:
    save_state(name, OWN_SIZE[name], tmp_path / "weights.safetensors")
    refused = pytest.raises(InputError, match=r"at this image size|cannot work on")
    with refused if name in FIXED_SIZE else nullcontext():
        load_weights(str(tmp_path / "weights.safetensors"), name, OWN_SIZE[name] + 64)


def save_state(name: str, size: int, path: Path) -> None:
    state = build_backbone(BackboneSpec(name, size), seed=0).state_dict()
    save_file({key: value.contiguous().clone() for key, value in state.items()}, path)
