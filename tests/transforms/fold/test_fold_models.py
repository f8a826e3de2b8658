"""From conversion to the plain model: architectures of transformers with random weights, and of a user's own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import agileact as ag
from tests.packages import transformers as tf
from tests.transforms.folding import BARS, assert_close, drawn, outputs

pytestmark = pytest.mark.slow


IDS = torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(0))
IMAGE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
T5: dict[str, Any] = {
    "vocab_size": 50,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}


def _whisper() -> Any:
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    sizes: dict[str, Any] = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    return WhisperEncoder(tf.WhisperConfig(**sizes, num_mel_bins=8, max_source_positions=20))


def _gpt2() -> Any:
    sizes: dict[str, Any] = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    return tf.GPT2LMHeadModel(tf.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


def _resnet(kind: str, width: int) -> Any:
    sizes: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [width, 2 * width], "depths": [2, 2]}
    return tf.ResNetForImageClassification(tf.ResNetConfig(**sizes, layer_type=kind))


def _efficientnet() -> Any:
    sizes: dict[str, Any] = {"image_size": 32, "width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320}
    return tf.EfficientNetForImageClassification(tf.EfficientNetConfig(**sizes))


def _convnext() -> Any:
    sizes: dict[str, Any] = {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 2, 1], "layer_scale_init_value": 0.5}
    return tf.ConvNextForImageClassification(tf.ConvNextConfig(**sizes))


def _vit() -> Any:
    return tf.ViTForImageClassification(tf.ViTConfig(**SMALL, image_size=32, patch_size=8))


def _mobilenet() -> Any:
    return tf.MobileNetV2ForImageClassification(tf.MobileNetV2Config(image_size=32, depth_multiplier=0.35))


# The model, its example, how many activations it has, and where more is left than a bias that was missing.
MODELS: dict[str, tuple[Callable[[], Any], dict[str, Tensor], int, str]] = {
    "resnet": (lambda: _resnet("basic", 8), {"pixel_values": IMAGE}, 9, ""),
    "resnet bottleneck": (lambda: _resnet("bottleneck", 16), {"pixel_values": IMAGE}, 13, ""),
    "mobilenet": (_mobilenet, {"pixel_values": IMAGE}, 35, ""),
    "efficientnet": (_efficientnet, {"pixel_values": IMAGE}, 33, ""),
    "convnext": (_convnext, {"pixel_values": IMAGE}, 5, ""),
    "vit": (_vit, {"pixel_values": IMAGE}, 2, ""),
    "bert": (lambda: tf.BertForSequenceClassification(tf.BertConfig(**SMALL)), {"input_ids": IDS}, 3, ""),
    "gpt2": (_gpt2, {"input_ids": IDS}, 2, ""),
    "llama": (
        lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**SMALL, num_key_value_heads=2)),
        {"input_ids": IDS},
        2,
        "new bias",
    ),
    "whisper encoder": (_whisper, {"input_features": torch.randn(2, 8, 40)}, 4, "gelu_2"),
    "t5": (
        lambda: tf.T5ForConditionalGeneration(tf.T5Config(**T5)),
        {"input_ids": IDS, "decoder_input_ids": IDS},
        4,
        "new bias",
    ),
    "t5 with gates": (
        lambda: tf.T5ForConditionalGeneration(tf.T5Config(**T5, feed_forward_proj="gated-gelu")),
        {"input_ids": IDS, "decoder_input_ids": IDS},
        4,
        "new bias",
    ),
}


def made(model: nn.Module, x: dict[str, Tensor]) -> list[Tensor]:
    with torch.no_grad():
        output = model.eval()(**x)
    return outputs([output["logits"] if "logits" in output else output[0]])


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_transformers(name: str):
    build, x, count, left = MODELS[name]
    torch.manual_seed(0)
    model = build().eval()
    for negative, dtype in ((False, torch.float32), (True, torch.float64)):
        model = model.to(dtype)
        example = {key: value.to(dtype) if value.is_floating_point() else value for key, value in x.items()}
        agile, conversion = ag.convert(model, example_inputs=example)
        drawn(agile, negative=negative)
        plain, report = ag.fold(agile, example)
        assert len(conversion.converted) == len(report.sites) == count
        assert_close(made(plain, example), made(agile, example), BARS[dtype])
        assert report.relative <= BARS[dtype]
        if negative:
            continue
        assert {site.name for site in report.refused} == ({left} if left and left != "new bias" else set())
        assert report.same_architecture == (not left)
        # A call of a function where something stays keeps the rewritten source, in a class of the same name.
        assert (type(plain) is type(model)) == (left != "gelu_2")
        assert type(plain).__qualname__ == type(model).__qualname__
        if report.same_architecture:
            assert set(plain.state_dict()) == set(model.state_dict())
            fresh = build().eval()
            fresh.load_state_dict(plain.state_dict())
            assert_close(made(fresh, example), made(plain, example), 0.0)


# Of pytorchcv: squeeze and excitation, channel shuffle, depthwise convolutions with gates, outputs side by side.
CLASSIC = {
    "seresnet": ("seresnet10", {"features.stage1.unit1.activ"}),
    "shufflenetv2": ("shufflenetv2_wd2", set()),
    "mobilenetv3": ("mobilenetv3_small_wd2", set()),
    "squeezenet": ("squeezenet_v1_1", set()),
}


@pytest.mark.parametrize("family", CLASSIC)
def test_a_model_of_pytorchcv(family: str):
    name, left = CLASSIC[family]
    torch.manual_seed(0)
    model = getattr(importlib.import_module(f"pytorchcv.models.{family}"), name)().double().eval()
    x = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    agile, conversion = ag.convert(model, example_inputs=x)
    plain, report = ag.fold(drawn(agile), x)
    assert not conversion.skipped
    assert report.relative <= 1e-12
    # Behind a gate and a sum there is no bias before the activation.
    assert {site.name for site in report.refused} == left
    assert all(site.kept == ("location",) for site in report.refused)
    assert type(plain) is type(model)


class Functional(nn.Module):
    """Activations as functions, one module used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.conv2 = nn.Conv2d(8, 8, 3, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.act = nn.ReLU()
        self.fc1 = nn.Linear(8, 8)
        self.fc2 = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.conv1(x))
        x = self.act(self.bn(self.conv2(x)))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        y: Tensor = self.fc2(self.act(self.fc1(x)).tanh())
        return y


def test_functions_and_shared_modules():
    model = Functional().double()
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    before = type(model)
    for sharing, count in (("per_use", 4), ("shared", 3)):
        agile, conversion = ag.convert(model, example_inputs=x, sharing=sharing)  # type: ignore[arg-type]
        assert len({site.name for site in conversion.converted}) == count, conversion
        plain, report = ag.fold(drawn(agile), x)
        with torch.no_grad():
            assert_close([plain.eval()(x)], [agile.eval()(x)], 1e-12)
        # The source of forward is as it was, unless an activation stays behind a call.
        if report.same_architecture:
            assert type(plain) is before
        assert not any(isinstance(module, ag.AgileModule) for module in plain.modules())
