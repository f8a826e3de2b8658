"""Lightning: a callback watches the agile activations, logs them, and folds the network when training ends.

pip install "agileact[lightning]"
python examples/with_lightning.py
"""

import argparse

import lightning.pytorch as L
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import agileact as ag
from agileact.integrations.lightning import AgileCallback


class Task(L.LightningModule):
    """Tells points inside a ring from those outside."""

    def __init__(self) -> None:
        super().__init__()
        network = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
        self.network, _ = ag.convert(network, example_inputs=torch.zeros(1, 2))

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        x, y = batch
        loss = nn.functional.binary_cross_entropy_with_logits(self.network(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # Without these groups weight decay would pull a to 0.
        return torch.optim.AdamW(ag.param_groups(self, lr=3e-3, activation_lr=1e-2, weight_decay=0.05))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/lightning", help="folder for logs and the plain network (%(default)s)")
    options = parser.parse_args()
    L.seed_everything(0)
    x = torch.rand(2000, 2) * 4 - 2
    radius = x.norm(dim=1, keepdim=True)
    y = ((radius > 0.7) & (radius < 1.5)).float()

    task = Task()
    callback = AgileCallback("network", example_inputs=torch.zeros(1, 2))
    trainer = L.Trainer(
        max_epochs=5,
        accelerator="cpu",
        callbacks=[callback],
        logger=CSVLogger(options.out),
        log_every_n_steps=20,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, DataLoader(TensorDataset(x, y), batch_size=50, shuffle=True))

    print(callback.fold_report)
    with torch.no_grad():
        difference = (callback.folded(x) - task.network(x)).abs().max()
    print(f"folded: largest difference {float(difference):.1e}")
    torch.save(callback.folded.state_dict(), f"{options.out}/plain.pt")  # plain PyTorch


if __name__ == "__main__":
    main()
