"""A small transformer that predicts the next character."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from agileact._common.errors import ArgumentError
from agileact.study.models.registry import initialise_all, positive, register_model, role_activation
from agileact.study.spec.trial import ArmSpec


class _Layer(nn.Module):
    """Causal attention, then two dense layers with an activation between them; each behind a normalisation."""

    def __init__(self, arm: ArmSpec, name: str, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.activation = role_activation(arm, "fc", f"{name}.activation", hidden, dim=-1)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.projection(mixed.transpose(1, 2).reshape(batch, length, width))
        result: Tensor = x + self.fc2(self.activation(self.fc1(self.norm2(x))))
        return result


class _CharTransformer(nn.Module):
    def __init__(
        self, arm: ArmSpec, length: int, characters: int, width: int, depth: int, heads: int, hidden: int
    ) -> None:
        super().__init__()
        self.characters = nn.Embedding(characters, width)
        self.positions = nn.Embedding(length, width)
        names = [f"layer{index}" for index in range(1, depth + 1)]
        self.layers = nn.Sequential(OrderedDict((n, _Layer(arm, f"layers.{n}", width, heads, hidden)) for n in names))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, characters)

    def forward(self, tokens: Tensor) -> Tensor:
        places = self.positions.weight[: tokens.shape[1]]
        result: Tensor = self.output(self.norm(self.layers(self.characters(tokens) + places)))
        return result


def char_transformer(
    arm: ArmSpec,
    input_shape: tuple[int, ...],
    classes: int,
    seed: int,
    *,
    width: int = 32,
    depth: int = 2,
    heads: int = 2,
    expansion: int = 4,
) -> nn.Module:
    """Build a decoder that predicts the next character at each position; its dense layers have the role ``fc``.

    The layers are those of A. Radford et al., *Language Models are Unsupervised Multitask Learners* (2019):
    normalisation before attention and before the dense layers, learned positions. No dropout: trials are to differ by
    their arm and seed alone.

    Args:
        arm: Activations for the role ``fc``.
        input_shape: (length of the text's pieces,).
        classes: Number of different characters.
        seed: Source of the initial weights.
        width: Size of the embedding.
        depth: Number of layers.
        heads: Attention heads; a divisor of ``width``.
        expansion: Hidden nodes of a layer are ``expansion * width``.

    Raises:
        ArgumentError: If an option does not fit.
    """
    if len(input_shape) != 1:
        raise ArgumentError(f"the char-transformer needs pieces of text, of shape (length,), not {input_shape}")
    positive("width, depth, heads and expansion", (width, depth, heads, expansion))
    if width % heads:
        raise ArgumentError(f"heads must divide width {width}, not {heads}")
    with torch.random.fork_rng(devices=[]):
        model = _CharTransformer(arm, input_shape[0], classes, width, depth, heads, expansion * width)
    initialise_all(model, seed)
    return model


register_model("char-transformer", char_transformer)
