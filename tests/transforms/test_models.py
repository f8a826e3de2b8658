"""Conversion and the way back on architectures of others, with random weights."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import agileact as ag
from agileact.transforms.trace.recording import tensors
from tests.packages import transformers

pytestmark = pytest.mark.slow


Made = tuple[nn.Module, dict[str, torch.Tensor]]
_TOKENS = torch.arange(14).view(2, 7) % 50
_IMAGE = (2, 3, 64, 64)
_TEXT = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def _image(kind: str, **options: Any) -> Callable[[], Made]:
    def make() -> Made:
        config = getattr(transformers, f"{kind}Config")(**options)
        return getattr(transformers, f"{kind}ForImageClassification")(config), {"pixel_values": torch.randn(_IMAGE)}

    return make


def _text(kind: str, head: str, decoder: bool = False, **options: Any) -> Callable[[], Made]:
    def make() -> Made:
        config = getattr(transformers, f"{kind}Config")(**_TEXT, **options)
        example = {"input_ids": _TOKENS} | ({"decoder_input_ids": _TOKENS} if decoder else {})
        return getattr(transformers, f"{kind}{head}")(config), example

    return make


def _whisper() -> Made:
    config = transformers.WhisperConfig(
        **_TEXT,
        decoder_start_token_id=1,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_source_positions=20,
        num_mel_bins=8,
    )
    return transformers.WhisperModel(config).encoder, {"input_features": torch.randn(2, 8, 40)}


_SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_T5: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}

# How many activations of which base function and along which axis; all else is attention.
TRANSFORMERS: dict[str, tuple[Callable[[], Made], dict[tuple[str, int], int], int]] = {
    "resnet": (
        _image("ResNet", embedding_size=8, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1]),
        {("relu", 1): 13},
        0,
    ),
    "mobilenet_v2": (_image("MobileNetV2", depth_multiplier=0.25, image_size=64), {("relu6", 1): 35}, 0),
    "efficientnet": (
        _image("EfficientNet", image_size=64, width_coefficient=0.25, depth_coefficient=0.3, hidden_dim=320),
        {("silu", 1): 25, ("sigmoid", 1): 8},
        0,
    ),
    "convnext": (
        _image("ConvNext", hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 2, 1], image_size=64),
        {("gelu", -1): 5},
        0,
    ),
    "vit": (_image("ViT", image_size=64, patch_size=16, **_SMALL), {("gelu", -1): 2}, 2),
    "bert": (_text("Bert", "ForSequenceClassification", **_SMALL), {("gelu", -1): 2, ("tanh", -1): 1}, 2),
    "gpt2": (
        _text("GPT2", "LMHeadModel", n_embd=16, n_layer=2, n_head=2, n_positions=16),
        {("NewGELUActivation", -1): 2},
        2,
    ),
    "llama": (_text("Llama", "ForCausalLM", num_key_value_heads=2, **_SMALL), {("silu", -1): 2}, 2),
    "whisper": (_whisper, {("gelu", 1): 2, ("gelu", -1): 2}, 2),
    "t5": (_text("T5", "ForConditionalGeneration", decoder=True, **_T5), {("relu", -1): 4}, 6),
    "t5-gated": (
        _text("T5", "ForConditionalGeneration", decoder=True, feed_forward_proj="gated-gelu", **_T5),
        {("NewGELUActivation", -1): 4},
        6,
    ),
    # GEGLU, whose activation gets a half of a larger tensor.
    "modernbert": (
        _text("ModernBert", "ForSequenceClassification", cls_token_id=1, sep_token_id=2, **_SMALL),
        {("gelu", -1): 3},
        2,
    ),
    "albert": (
        _text("Albert", "Model", embedding_size=16, **_SMALL),
        {("NewGELUActivation", -1): 1, ("tanh", -1): 1},
        1,
    ),
}

# Networks of pytorchcv, with how many of their activations cannot be agile.
PYTORCHCV = {
    "alexnet.alexnet": 0,
    "vgg.bn_vgg11": 0,
    "resnet.resnet10": 0,
    "preresnet.preresnet10": 0,
    "resnext.resnext14_16x4d": 0,
    "seresnet.seresnet10": 0,
    "sepreresnet.sepreresnet10": 0,
    "peleenet.peleenet": 0,
    "squeezenet.squeezeresnet_v1_1": 0,
    "shufflenet.shufflenet_g1_wd4": 0,
    "shufflenetv2.shufflenetv2_wd2": 0,
    "menet.menet108_8x1_g3": 16,
    "mobilenetv2.mobilenetv2_wd4": 0,
    "mobilenetv3.mobilenetv3_small_w7d20": 0,
    "ghostnet.ghostnet": 0,
    "mixnet.mixnet_s": 0,
    "regnet.regnety002": 0,
    "dicenet.dicenet_wd5": 71,
    "diracnetv2.diracnet18v2": 0,
    "cbamresnet.cbam_resnet18": 0,
    "diapreresnet.diapreresnet10": 20,
    "condensenet.condensenet74_c4_g4": 0,
    "nin_cifar.nin_cifar10": 0,
}


def _round_trip(model: nn.Module, example: dict[str, torch.Tensor]) -> ag.transforms.ConversionReport:
    model.eval()
    before = [type(module) for module in model.modules()]
    agile, report = ag.convert(
        model, example_inputs=example if len(example) > 1 or "x" not in example else example["x"]
    )
    with torch.no_grad():
        expected, result = (list(tensors(one(**example))) for one in (model, agile))
    assert len(expected) == len(result)
    assert all(torch.equal(one, other) for one, other in zip(expected, result, strict=True))
    assert [type(module) for module in model.modules()] == before
    assert len(report.converted) == sum(isinstance(module, ag.AgileModule) for module in agile.modules())
    assert all(site.reason for site in report.skipped)
    plain = ag.revert(agile)
    assert [type(module) for module in plain.modules()] == before
    assert list(plain.state_dict()) == list(model.state_dict())
    return report


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name: str):
    torch.manual_seed(0)
    make, expected, attention = TRANSFORMERS[name]
    model, example = make()
    report = _round_trip(model, example)
    assert Counter((site.base, site.dim) for site in report.converted) == expected
    assert [site.base for site in report.skipped] == ["scaled_dot_product_attention"] * attention


@pytest.mark.parametrize("name", PYTORCHCV)
def test_pytorchcv(name: str):
    torch.manual_seed(0)
    file, _, function = name.partition(".")
    model = getattr(importlib.import_module(f"pytorchcv.models.{file}"), function)()
    # The classifiers of these pool over maps of a fixed size.
    model.eval()
    size = 32 if file == "nin_cifar" else 64
    example = torch.randn(1, 3, size, size)
    try:
        with torch.no_grad():
            model(example)
    except RuntimeError:
        example = torch.randn(1, 3, 224, 224)
    report = _round_trip(model, {"x": example})
    assert len(report.skipped) == PYTORCHCV[name]


@pytest.mark.parametrize("name", ["resnet", "llama", "whisper"])
def test_compiled_whole(name: str):
    torch.manual_seed(0)
    make, _, _ = TRANSFORMERS[name]
    model, example = make()
    model.eval()
    agile, _ = ag.convert(model, example_inputs=example)
    compiled = torch.compile(agile, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(**example)[0], agile(**example)[0])
