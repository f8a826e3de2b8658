"""Real architectures with random weights from their own packages, each with an example of its input."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Example = Tensor | tuple[Any, ...] | dict[str, Any]

# One network a family; the package's own list of models imports torchvision, its modules do not.
PYTORCHCV = (
    "alexnet.alexnet",
    "bagnet.bagnet9",
    "bninception.bninception",
    "cbamresnet.cbam_resnet18",
    "condensenet.condensenet74_c4_g4",
    "darknet.darknet_tiny",
    "darknet53.darknet53",
    "densenet.densenet121",
    "diracnetv2.diracnet18v2",
    "dla.dla34",
    "dpn.dpn68",
    "drn.drnc26",
    "efficientnet.efficientnet_b0",
    "fractalnet_cifar.fractalnet_cifar10",
    "ghostnet.ghostnet",
    "hardnet.hardnet39ds",
    "hrnet.hrnet_w18_small_v1",
    "ibnresnet.ibn_resnet50",
    "igcv3.igcv3_wd4",
    "inceptionv3.inceptionv3",
    "menet.menet108_8x1_g3",
    "mnasnet.mnasnet_b1",
    "mobilenet.mobilenet_wd4",
    "mobilenetv2.mobilenetv2_wd4",
    "mobilenetv3.mobilenetv3_small_wd2",
    "nin_cifar.nin_cifar10",
    "peleenet.peleenet",
    "preresnet.preresnet18",
    "proxylessnas.proxylessnas_cpu",
    "pyramidnet_cifar.pyramidnet110_a48_cifar10",
    "regnet.regnetx002",
    "resnet.resnet18",
    "resnet.resnet101",
    "resnext.resnext26_32x4d",
    "sepreresnet.sepreresnet18",
    "seresnet.seresnet18",
    "shufflenet.shufflenet_g1_wd4",
    "shufflenetv2.shufflenetv2_wd2",
    "spnasnet.spnasnet",
    "squeezenet.squeezenet_v1_1",
    "squeezenext.sqnxt23_w1",
    "vgg.vgg11",
    "vovnet.vovnet27s",
    "wrn_cifar.wrn16_10_cifar10",
    "xception.xception",
)


@dataclass(frozen=True)
class Architecture:
    """A network of some package.

    Attributes:
        package: The package it is from.
        name: What it is called there.
        build: Makes it, with random weights, and an example of its input.
    """

    package: str
    name: str
    build: Callable[[], tuple[nn.Module, Example]]


class LSTMClassifier(nn.Module):
    """Words to classes: an embedding, an LSTM, a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 16)
        self.lstm = nn.LSTM(16, 32, batch_first=True)
        self.hidden = nn.Linear(32, 24)
        self.head = nn.Linear(24, 5)

    def forward(self, words: Tensor) -> Tensor:
        """Return the classes' logits."""
        _, (last, _) = self.lstm(self.embedding(words))
        logits: Tensor = self.head(torch.tanh(self.hidden(last[-1])))
        return logits


def architectures() -> list[Architecture]:
    """Return all architectures of the table in docs/models.md."""
    return [
        *(Architecture("transformers", name, build) for name, build in _transformers().items()),
        *(Architecture("pytorchcv", name.rpartition(".")[2], _pytorchcv(name)) for name in PYTORCHCV),
        Architecture("torch", "nn.Transformer", _torch_transformer),
        Architecture("torch", "LSTM classifier", lambda: (LSTMClassifier(), torch.randint(0, 100, (2, 7)))),
    ]


def _pytorchcv(name: str) -> Callable[[], tuple[nn.Module, Example]]:
    module, _, function = name.partition(".")

    def build() -> tuple[nn.Module, Example]:
        model = getattr(importlib.import_module(f"pytorchcv.models.{module}"), function)()
        return model, torch.randn(2, 3, *getattr(model, "in_size", (224, 224)))

    return build


def _torch_transformer() -> tuple[nn.Module, Example]:
    model = nn.Transformer(32, 4, 2, 2, 64, batch_first=True)
    return model, (torch.randn(2, 7, 32), torch.randn(2, 5, 32))


def _transformers() -> dict[str, Callable[[], tuple[nn.Module, Example]]]:
    import transformers as t

    image = torch.randn(2, 3, 224, 224)
    words = torch.randint(0, 1000, (2, 12))
    sound = torch.randn(1, 80, 3000)

    def model(config: Any, kind: Any, example: Example) -> Callable[[], tuple[nn.Module, Example]]:
        return lambda: (kind(config), example)

    efficientnet = t.EfficientNetConfig(width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280)
    llama = t.LlamaConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=688, num_hidden_layers=6, num_attention_heads=8
    )
    return {
        "ResNet-50": model(t.ResNetConfig(), t.ResNetForImageClassification, image),
        "MobileNetV2": model(t.MobileNetV2Config(), t.MobileNetV2ForImageClassification, image),
        "EfficientNet-B0": model(efficientnet, t.EfficientNetForImageClassification, image),
        "ConvNeXt-T": model(t.ConvNextConfig(), t.ConvNextForImageClassification, image),
        "ViT-B": model(t.ViTConfig(), t.ViTForImageClassification, image),
        "BERT-base": model(t.BertConfig(), t.BertForSequenceClassification, {"input_ids": words}),
        "GPT-2": model(t.GPT2Config(), t.GPT2LMHeadModel, {"input_ids": words, "use_cache": False}),
        "Llama (6 layers)": model(llama, t.LlamaForCausalLM, {"input_ids": words, "use_cache": False}),
        "Whisper encoder": lambda: (t.WhisperModel(t.WhisperConfig()).encoder, sound),
        "T5-small": model(
            t.T5Config(),
            t.T5ForConditionalGeneration,
            {"input_ids": words, "decoder_input_ids": words[:, :5], "use_cache": False},
        ),
    }
