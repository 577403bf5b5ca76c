import torch
import torch.nn.functional as F
from scene import scene

from lossatlas import losses


class Deep(torch.nn.Module):
    """A network with logits at three resolutions, finest first, as nnU-Net has them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Conv2d(1, 16, 3, padding=1)
        self.heads = torch.nn.ModuleList(torch.nn.Conv2d(16, 3, 1) for _ in range(3))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        features = self.body(images).relu()
        return [head(F.avg_pool2d(features, 2**k)) for k, head in enumerate(self.heads)]


def deep_loss(outputs: list[torch.Tensor], masks: torch.Tensor) -> torch.Tensor:
    """Sum of the loss over the resolutions, each with half the weight of the finer one, normalised."""
    weights = torch.tensor([0.5**k for k in range(len(outputs))])
    total = torch.zeros(())
    for weight, logits in zip(weights / weights.sum(), outputs, strict=True):
        # class indices are resized by the nearest pixel: a mean of 0 and 2 is not class 1
        small = F.interpolate(masks[:, None].float(), logits.shape[2:], mode="nearest")[:, 0].long()
        total = total + weight * criterion(logits, small)
    return total


torch.manual_seed(0)
images, masks = scene(classes=3)
model, criterion = Deep(), losses.build("nnunet_dice_ce")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

history = []
for _ in range(30):
    loss = deep_loss(model(images), masks)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    history.append(loss.item())
