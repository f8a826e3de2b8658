"""Weights & Biases, MLflow, Python's logging or a function: the same three lines in your own training loop.

pip install agileact            # and wandb or mlflow, if you want them
python examples/with_logger.py --to wandb
python examples/with_logger.py --to mlflow

Without --to, and without wandb or mlflow, a recorder with the same methods replaces them.
"""

import argparse
import importlib.util
import logging
import os
from typing import Any

import torch
from torch import nn

import agileact as ag
from agileact.integrations import AgileLogger


class Recorder:
    """The one method of a Weights & Biases run that AgileLogger calls: ``log(metrics, step=...)``."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.rows.append((step, metrics))


def logger(name: str) -> Any:
    """Return a run of Weights & Biases, MLflow, or the recorder."""
    if name == "recorder" or importlib.util.find_spec(name) is None:
        if name != "recorder":
            print(f"{name} is not installed; a recorder with the same method replaces it")
        return Recorder()
    if name == "wandb":
        import wandb

        # Offline unless you say otherwise: nothing leaves your machine.
        return wandb.init(project="agileact", mode=os.environ.get("WANDB_MODE", "offline"))
    import mlflow

    mlflow.start_run()
    return mlflow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--to", choices=("recorder", "wandb", "mlflow"), default="recorder", help="where to (%(default)s)"
    )
    parser.add_argument("--steps", type=int, default=100, help="steps to train (%(default)s)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    target = logger(options.to)
    write = getattr(target, "log", None) or target.log_metrics

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 16), ag.AgileTanh(16), nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(ag.param_groups(model, lr=3e-3, activation_lr=1e-2, weight_decay=0.05))
    # Two loggers side by side; the second one prints a line for each layer.
    with AgileLogger(
        model,
        target,
        logging.getLogger("training"),
        optimizer=optimizer,
        example_inputs=torch.zeros(1, 2),
        every_n_steps=50,
    ) as watch:
        for step in range(options.steps):
            x = torch.rand(64, 2) * 4 - 2
            loss = nn.functional.mse_loss(model(x), x.prod(1, keepdim=True).sin())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            write({"loss": loss.item()}, step=step)

    if isinstance(target, Recorder):
        step, metrics = [row for row in target.rows if "loss" not in row[1]][-1]
        print(f"{len(target.rows)} calls of log(metrics, step=...), with the loss; the last of ours, of step {step}:")
        for name, value in metrics.items():
            print(f"  {name} = {value:.3f}")
    x = torch.randn(100, 2)
    with torch.no_grad():
        print(f"folded: largest difference {float((watch.folded(x) - model(x)).abs().max()):.1e}")


if __name__ == "__main__":
    main()
