from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

import agileact as ag
from tests.packages import Package, transformers

callbacks: Any = Package("agileact.integrations.transformers")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(autouse=True)
def _transformers() -> None:
    pytest.importorskip("transformers", reason="transformers is missing")
    pytest.importorskip("accelerate", reason="Accelerate is missing, which the Trainer needs")


class Words(Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        words = torch.randint(0, 20, (6,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": words, "labels": (words[0] > words[1]).long()}


EXAMPLE = {"input_ids": Words()[0]["input_ids"][None]}


def bert() -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model, _ = ag.convert(transformers.BertForSequenceClassification(config), example_inputs=EXAMPLE)
    return model


def test_watched_logged_and_folded_under_the_trainer(tmp_path: Path):
    model = bert()
    example = EXAMPLE
    logged: list[int] = []
    callback = callbacks.AgileTrainerCallback(
        example_inputs=example, loggers=[lambda metrics, step: logged.append(step)], alerts=False
    )
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=6,
        per_device_train_batch_size=8,
        logging_steps=2,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    optimizer = torch.optim.AdamW(ag.param_groups(model, lr=0.01, weight_decay=0.05))
    trainer = transformers.Trainer(
        model, arguments, train_dataset=Words(), callbacks=[callback], optimizers=(optimizer, None)
    )
    trainer.train()
    assert sorted(set(logged)) == list(range(7))
    plain: Any = callback.folded
    assert plain is not None
    assert not any(isinstance(module, ag.AgileModule) for module in plain.modules())
    model.eval()
    torch.testing.assert_close(plain(**example).logits, model(**example).logits, rtol=1e-4, atol=1e-5)
    plain.save_pretrained(str(tmp_path / "plain"))
    loaded = transformers.BertForSequenceClassification.from_pretrained(str(tmp_path / "plain")).eval()
    torch.testing.assert_close(loaded(**example).logits, model(**example).logits, rtol=1e-4, atol=1e-5)


def test_a_resumed_training_goes_on_counting(tmp_path: Path):
    logged: list[int] = []
    for steps in (4, 8):
        model = bert()
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=steps,
            per_device_train_batch_size=8,
            logging_steps=2,
            save_steps=4,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        )
        callback = callbacks.AgileTrainerCallback(loggers=[lambda metrics, step: logged.append(step)], alerts=False)
        trainer = transformers.Trainer(
            model,
            arguments,
            train_dataset=Words(),
            callbacks=[callback],
            optimizers=callbacks.agile_optimizers(model, arguments),
        )
        trainer.train(resume_from_checkpoint=steps == 8)
    assert callback.monitor is not None
    assert sorted({record.step for record in callback.monitor.records}) == list(range(9))
    assert sorted(logged) == list(range(9)), "a step was logged twice, or not at all"
    # The same Trainer and callback once more.
    trainer.args.max_steps = 10
    trainer.train(resume_from_checkpoint=True)
    assert sorted(logged) == list(range(11))
    assert sorted({record.step for record in callback.monitor.records}) == list(range(11))


def test_mixed_precision_is_not_folded_in(tmp_path: Path):
    model = bert()
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=8,
        learning_rate=0.05,
        bf16=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    callback = callbacks.AgileTrainerCallback(example_inputs=EXAMPLE, alerts=False)
    transformers.Trainer(
        model,
        arguments,
        train_dataset=Words(),
        callbacks=[callback],
        optimizers=callbacks.agile_optimizers(model, arguments, activation_lr=0.1),
    ).train()
    plain: Any = callback.folded
    # The Trainer leaves its model computing in bfloat16; the class's own forward does not.
    wanted = type(model).forward(model.eval(), **EXAMPLE).logits
    torch.testing.assert_close(plain(**EXAMPLE).logits, wanted, rtol=1e-5, atol=1e-6)


def _llama(**settings: Any) -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=20, **sizes, **settings)), EXAMPLE


def _t5(**settings: Any) -> Any:
    sizes: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    config = transformers.T5Config(vocab_size=20, **sizes, decoder_start_token_id=0, **settings)
    example = {**EXAMPLE, "decoder_input_ids": EXAMPLE["input_ids"]}
    return transformers.T5ForConditionalGeneration(config), example


@pytest.mark.parametrize("build", [_llama, _t5], ids=["llama", "t5"])
def test_kept_architectures_load_what_was_saved(build: Any, tmp_path: Path):
    """Scales alone fold into the class; with locations, which need biases, activations stay agile."""
    torch.manual_seed(0)
    model, example = build()
    agile: Any
    again: Any
    agile, _ = ag.convert(model.eval(), example_inputs=example)
    layers = [module for module in agile.modules() if isinstance(module, ag.AgileModule)]
    with torch.no_grad():
        for layer in layers:
            layer.scale.uniform_(0.5, 1.5)
    plain: Any
    plain, report = ag.fold(agile, example, architecture="keep")
    assert str(report).startswith("the state fits the original class")
    plain.save_pretrained(tmp_path / "scales")
    loaded, found = type(model).from_pretrained(tmp_path / "scales", output_loading_info=True)
    assert not found["unexpected_keys"]
    assert not found["missing_keys"]
    torch.testing.assert_close(loaded.eval()(**example).logits, agile(**example).logits, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for layer in layers:
            layer.location.normal_()
    plain, report = ag.fold(agile, example, architecture="keep")
    assert str(report).startswith("the state does not fit the original class; new: ")
    assert all("needs a bias that the architecture has not" in site.reason for site in report.refused)
    assert len(report.new_parameters) == 2 * len(layers)
    # Converted again, the class holds them.
    again, _ = ag.convert(build()[0].eval(), example_inputs=example)
    again.load_state_dict(plain.state_dict())
    torch.testing.assert_close(again(**example).logits, agile(**example).logits, rtol=1e-4, atol=1e-5)


def test_the_switch_that_the_report_names_gives_the_biases(tmp_path: Path):
    torch.manual_seed(0)
    model, example = _llama()
    agile: Any
    plain: Any
    agile, _ = ag.convert(model.eval(), example_inputs=example)
    with torch.no_grad():
        for layer in agile.modules():
            if isinstance(layer, ag.AgileModule):
                layer.location.normal_()
    plain, report = ag.fold(agile, example)
    named = "config.mlp_bias = True gives the class a bias where one is missing: model.layers.0.mlp.gate_proj.bias"
    assert named in str(report)
    plain.save_pretrained(tmp_path / "plain")
    config = transformers.LlamaConfig.from_pretrained(tmp_path / "plain", mlp_bias=True)
    loaded, found = type(model).from_pretrained(tmp_path / "plain", config=config, output_loading_info=True)
    assert not found["unexpected_keys"]
    with torch.no_grad():
        for name, parameter in loaded.named_parameters():
            if name in found["missing_keys"]:  # other biases of the same switch
                parameter.zero_()
    torch.testing.assert_close(loaded.eval()(**example).logits, agile(**example).logits, rtol=1e-4, atol=1e-5)
