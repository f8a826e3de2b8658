from __future__ import annotations

import functools
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import agileact as ag
from agileact._common.errors import ArgumentError
from tests.packages import Package
from tests.packages import lightning as L

callbacks: Any = Package("agileact.integrations.lightning")
# What Lightning says about the machine and about its own dependencies.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(autouse=True)
def _lightning() -> None:
    pytest.importorskip("lightning.pytorch", reason='Lightning is missing: pip install "agileact[lightning]"')


def samples() -> DataLoader[torch.Tensor]:
    rows: Any = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    return DataLoader(rows, 16)


@functools.cache
def task_class() -> Any:
    """A class of Lightning's, which is imported by the first test that trains."""

    class Task(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.network = nn.Sequential(nn.Linear(4, 8), ag.AgileReLU(8), nn.Linear(8, 1))

        def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
            loss: torch.Tensor = (self.network(batch) - batch.sum(1, keepdim=True)).square().mean()
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(ag.param_groups(self, lr=0.05, weight_decay=0.05))

    return Task


def fit(callback: Any, folder: Path, **arguments: Any) -> tuple[Any, Any]:
    task = task_class()()
    settings = {
        "accelerator": "cpu",
        "max_epochs": 2,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "default_root_dir": folder,
        "callbacks": [callback],
        **arguments,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(**settings)
        trainer.fit(task, samples())
    return trainer, task


def test_watched_logged_and_folded(tmp_path: Path):
    logged: list[tuple[dict[str, float], int]] = []
    x = torch.randn(5, 4)
    callback = callbacks.AgileCallback(
        "network", example_inputs=x, loggers=[lambda metrics, step: logged.append((metrics, step))], every_n_steps=3
    )
    _, task = fit(callback, tmp_path)
    assert sorted({step for _, step in logged}) == list(range(9))
    assert logged[-1][0]["agileact/1/scale/max"] != 1.0
    assert callback.folded is not None
    assert [type(layer) for layer in callback.folded.children()] == [nn.Linear, nn.ReLU, nn.Linear]
    torch.testing.assert_close(callback.folded(x), task.network(x), rtol=1e-5, atol=1e-5)
    assert "1" in str(callback.fold_report)


def test_with_accumulated_gradients_only_steps_of_the_optimizer_count(tmp_path: Path):
    callback = callbacks.AgileCallback("network")
    fit(callback, tmp_path, accumulate_grad_batches=2)
    assert callback.monitor is not None
    assert max(record.step for record in callback.monitor.records) == 4
    assert callback.folded is None


def test_a_resumed_training_goes_on_counting(tmp_path: Path):
    trainer, _ = fit(callbacks.AgileCallback("network"), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        callback = callbacks.AgileCallback("network")
        task = task_class()()
        again = L.Trainer(
            accelerator="cpu",
            max_epochs=3,
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
            callbacks=[callback],
            default_root_dir=tmp_path,
        )
        again.fit(task, samples(), ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    assert callback.monitor is not None
    assert {record.step for record in callback.monitor.records} == set(range(13))


@pytest.mark.parametrize("ours_first", [True, False])
def test_the_weights_that_another_callback_averages_are_folded(tmp_path: Path, ours_first: bool):
    x = torch.randn(5, 4)
    callback = callbacks.AgileCallback("network", example_inputs=x)
    both = [callback, L.callbacks.EMAWeightAveraging(decay=0.9)]
    _, task = fit(callback, tmp_path, callbacks=both if ours_first else both[::-1])
    assert callback.folded is not None
    torch.testing.assert_close(callback.folded(x), task.network(x), rtol=1e-5, atol=1e-5)


def test_the_example_follows_the_precision_of_the_trainer(tmp_path: Path):
    x = torch.randn(5, 4)
    callback = callbacks.AgileCallback("network", example_inputs=x)
    _, task = fit(callback, tmp_path, precision="64-true")
    assert callback.folded is not None
    torch.testing.assert_close(callback.folded(x.double()), task.network(x.double()))


def test_the_same_callback_goes_on_after_a_training_an_error_and_a_test(tmp_path: Path):
    class Breaks(task_class()):  # type: ignore[misc]
        def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
            if self.trainer.global_step == 6:
                raise ZeroDivisionError
            loss: torch.Tensor = super().training_step(batch, index)
            return loss

        def test_step(self, batch: torch.Tensor, index: int) -> None:
            pass

    def steps() -> set[int]:
        assert callback.monitor is not None
        return {record.step for record in callback.monitor.records}

    callback = callbacks.AgileCallback("network")
    trainer, task = fit(callback, tmp_path, max_epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.save_checkpoint(tmp_path / "4.ckpt")
        trainer.fit_loop.max_epochs = 3
        trainer.fit(task, samples())
        assert steps() == set(range(13))
        broken = Breaks()
        trainer.test(broken, samples(), ckpt_path=tmp_path / "4.ckpt", weights_only=False, verbose=False)
        assert steps() == set(range(13)), "a checkpoint that is tested is no training"
        with pytest.raises(ZeroDivisionError):
            trainer.fit(broken, samples(), ckpt_path=tmp_path / "4.ckpt", weights_only=False)
        assert steps() == set(range(7))
        trainer.fit(task_class()(), samples(), ckpt_path=tmp_path / "4.ckpt", weights_only=False)
    assert steps() == set(range(13))


def test_one_process_of_several_writes():
    calls: list[int] = []
    for first in (True, False):
        callback = callbacks.AgileCallback("network", loggers=[lambda metrics, step: calls.append(step)])
        task = task_class()()
        plugin = SimpleNamespace(convert_input=lambda example: example)
        trainer: Any = SimpleNamespace(
            global_step=0, is_global_zero=first, loggers=[], optimizers=[], precision_plugin=plugin
        )
        callback.on_train_start(trainer, task)
        callback.on_train_end(trainer, task)
    assert calls == [0]


def test_a_wrong_name_says_what_there_is(tmp_path: Path):
    with pytest.raises(ArgumentError, match="no submodule 'net'; the first level has 'network'"):
        fit(callbacks.AgileCallback("net"), tmp_path)


def test_a_strategy_that_spawns_says_where_the_folded_model_is():
    settings: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    spawning = L.Trainer(strategy="ddp_spawn", devices=2, **settings)
    with pytest.warns(UserWarning, match=r"processes by 'spawn', and callback\.folded stays in them"):
        callbacks.check_launcher(spawning.strategy)
    for strategy, devices in (("auto", 1), ("ddp", 2)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            callbacks.check_launcher(L.Trainer(strategy=strategy, devices=devices, **settings).strategy)


def test_a_class_that_cannot_hold_the_location_is_kept(tmp_path: Path):
    class Biasless(task_class()):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network[0] = nn.Linear(4, 8, bias=False)

    for architecture, kinds in (("keep", (nn.Linear, ag.AgileReLU)), ("extend", (nn.Linear, nn.ReLU))):
        callback = callbacks.AgileCallback(
            "network", example_inputs=torch.ones(1, 4), alerts=False, architecture=architecture
        )
        with pytest.warns(UserWarning, match="the state does not fit the original class; new: "):
            L.Trainer(
                accelerator="cpu", max_epochs=2, enable_progress_bar=False, enable_model_summary=False, logger=False,
                default_root_dir=tmp_path, callbacks=[callback],
            ).fit(Biasless(), samples())  # fmt: skip
        plain: Any = callback.folded
        assert tuple(type(layer) for layer in plain[:2]) == kinds
    with pytest.raises(ArgumentError, match="architecture must be"):
        callbacks.AgileCallback(architecture="same")
