import lightning
import torch
from scene import scene

from lossatlas import losses


class Segmenter(lightning.LightningModule):
    """A network whose loss is built once, and called on logits."""

    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 1, 3, padding=1),
        )
        self.criterion = losses.build("dice_ce", mode="binary")
        self.history: list[float] = []

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        loss = self.criterion(self.network(batch[0]), batch[1])
        self.history.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


lightning.seed_everything(0, verbose=False)
data = torch.utils.data.TensorDataset(*scene())
model = Segmenter()
trainer = lightning.Trainer(
    accelerator="cpu",
    max_epochs=30,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=8))
history = model.history
