import torch
from scene import scene

from lossatlas import losses

torch.manual_seed(0)
images, masks = scene()
model = torch.nn.Conv2d(1, 1, 3, padding=1)
criterion = losses.build("tversky", mode="binary", alpha=0.3, beta=0.7)


@torch.compile(fullgraph=True)  # network and loss in one graph
def step_loss(images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    return criterion(model(images), masks)


loss = step_loss(images, masks)
loss.backward()
plain = criterion(model(images), masks)
