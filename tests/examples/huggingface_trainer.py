import tempfile
from typing import Any

import torch
from scene import scene
from transformers import (
    SegformerConfig,
    SegformerForSemanticSegmentation,
    Trainer,
    TrainingArguments,
    set_seed,
)

from lossatlas import losses

set_seed(0)
images, masks = scene()
data = [{"pixel_values": x, "labels": y} for x, y in zip(images, masks, strict=True)]
config = SegformerConfig(
    num_channels=1,
    num_labels=2,
    hidden_sizes=[8, 16, 24, 32],
    depths=[1, 1, 1, 1],
    num_attention_heads=[1, 1, 2, 2],
    decoder_hidden_size=16,
)
model = SegformerForSemanticSegmentation(config)  # random weights: nothing is downloaded
criterion = losses.build("dice_ce", ignore_index=-100)  # the void label that the Trainer knows


def loss_of(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """The loss at the masks' size (SegFormer's logits have a quarter of the sides), as its part of a step's."""
    logits = torch.nn.functional.interpolate(outputs.logits, labels.shape[1:], mode="bilinear")
    loss = criterion(logits, labels)
    if num_items_in_batch is None:
        return loss
    # The Trainer adds the losses of a step's micro-batches. It divides them by their number only if it has no
    # compute_loss_func: a plain mean would make the gradient of k micro-batches k times too large. It hands over the
    # number of labels of the whole step (all but -100), so that each micro-batch gets the weight of its pixels.
    return loss * labels.ne(-100).sum() / num_items_in_batch


with tempfile.TemporaryDirectory() as folder:
    settings = TrainingArguments(
        folder,
        max_steps=30,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,  # eight images a step
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model, settings, train_dataset=data, compute_loss_func=loss_of)
    trainer.train()

history = [row["loss"] for row in trainer.state.log_history if "loss" in row]
