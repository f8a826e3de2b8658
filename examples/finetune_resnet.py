"""Fine-tune a ResNet of transformers with agile activations, then ship a plain ResNet.

pip install agileact transformers
python examples/finetune_resnet.py                                     # a small one with random weights
python examples/finetune_resnet.py --checkpoint microsoft/resnet-18    # a trained one, which is downloaded
"""

import argparse
import tempfile

import torch
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification

import agileact as ag


def pictures(size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures with one of three colours, and the colour: put your own data loader here."""
    label = torch.randint(0, 3, (size,), generator=generator)
    x = torch.randn(size, 3, 64, 64, generator=generator)
    x[torch.arange(size), label] += 0.3
    return x, label


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="name or folder of a trained ResNet")
    parser.add_argument("--steps", type=int, default=30, help="steps to train (%(default)s)")
    options = parser.parse_args()

    torch.manual_seed(0)
    if options.checkpoint:
        model = ResNetForImageClassification.from_pretrained(
            options.checkpoint, num_labels=3, ignore_mismatched_sizes=True
        )
    else:
        small = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[2, 2], layer_type="basic", num_labels=3)
        model = ResNetForImageClassification(small)
    generator = torch.Generator().manual_seed(0)
    x, _ = pictures(4, generator)

    model, report = ag.convert(model, example_inputs=x)
    print(report)
    # Only positive scales pass through the ReLU behind a shortcut: with them all folds.
    optimizer = torch.optim.AdamW(ag.param_groups(model, lr=1e-3, weight_decay=0.05))
    ag.constrain_scale(optimizer, model, "positive")
    model.train()
    for step in range(1, options.steps + 1):
        pixels, labels = pictures(16, generator)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(pixels).logits, labels)
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step:3d}  loss {float(loss.detach()):.3f}")
    model.eval()

    plain, report = ag.fold(model, example_inputs=x)
    print(report)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        plain.save_pretrained(folder)
        shipped = ResNetForImageClassification.from_pretrained(folder).eval()
        print(f"largest difference: {float((shipped(x).logits - model(x).logits).abs().max()):.1e}")


if __name__ == "__main__":
    main()
