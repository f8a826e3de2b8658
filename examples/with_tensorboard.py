"""TensorBoard in your own training loop: a and b over the steps, histograms, pictures of the learned activations.

pip install "agileact[monitor]" tensorboard
python examples/with_tensorboard.py --logdir runs/tensorboard
tensorboard --logdir runs/tensorboard
"""

import argparse

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import agileact as ag
from agileact.integrations import AgileLogger


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logdir", default="runs/tensorboard", help="folder that TensorBoard reads (%(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="steps to train (%(default)s)")
    options = parser.parse_args()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    model, _ = ag.convert(model, example_inputs=torch.zeros(1, 2))
    # After convert, and with groups of ours: weight decay would pull a to 0.
    optimizer = torch.optim.AdamW(ag.param_groups(model, lr=3e-3, activation_lr=1e-2, weight_decay=0.05))

    with (
        SummaryWriter(options.logdir) as writer,
        AgileLogger(model, writer, optimizer=optimizer, example_inputs=torch.zeros(1, 2), every_n_steps=50) as watch,
    ):
        for step in range(options.steps):
            x = torch.rand(64, 2) * 4 - 2
            loss = nn.functional.mse_loss(model(x), x.prod(1, keepdim=True).sin())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            writer.add_scalar("loss", loss, step)

    print(watch.monitor.layers, f"watched over {options.steps} steps, written to {options.logdir}")
    print(watch.fold_report)
    x = torch.randn(100, 2)
    with torch.no_grad():
        print(f"folded: largest difference {float((watch.folded(x) - model(x)).abs().max()):.1e}")


if __name__ == "__main__":
    main()
