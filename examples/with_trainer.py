"""The Trainer of transformers: a small BERT from scratch, converted, trained with our groups, folded and saved.

pip install "agileact[transformers]"
python examples/with_trainer.py
"""

import argparse

import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import agileact as ag
from agileact.integrations.transformers import AgileTrainerCallback, agile_optimizers


class Words(Dataset):
    """Sequences of word numbers; the label says whether the first is larger than the last."""

    def __len__(self) -> int:
        return 512

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        words = torch.randint(0, 20, (6,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": words, "labels": (words[0] > words[-1]).long()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/trainer", help="folder for the plain model (%(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="steps to train (%(default)s)")
    options = parser.parse_args()
    torch.manual_seed(0)
    config = BertConfig(vocab_size=20, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    example = {"input_ids": Words()[0]["input_ids"][None]}
    model, report = ag.convert(BertForSequenceClassification(config), example_inputs=example)
    print(report)

    arguments = TrainingArguments(
        output_dir=options.out,
        max_steps=options.steps,
        per_device_train_batch_size=16,
        learning_rate=1e-3,
        weight_decay=0.05,
        logging_steps=20,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    callback = AgileTrainerCallback(
        example_inputs=example,
        loggers=[lambda metrics, step: print(step, len(metrics)) if step % 20 == 0 else None],
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=Words(),
        callbacks=[callback],
        # The optimizer of the arguments, with a and b kept out of weight decay and at a rate of their own.
        optimizers=agile_optimizers(model, arguments, activation_lr=1e-2),
    )
    trainer.train()

    print(callback.fold_report)
    callback.folded.save_pretrained(f"{options.out}/plain")
    plain = BertForSequenceClassification.from_pretrained(f"{options.out}/plain").eval()
    with torch.no_grad():
        difference = (plain(**example).logits - model.eval()(**example).logits).abs().max()
    print(f"folded: largest difference {float(difference):.1e}")


if __name__ == "__main__":
    main()
