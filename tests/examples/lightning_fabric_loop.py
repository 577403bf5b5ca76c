import torch
from lightning_fabric import Fabric
from scene import scene

from lossatlas import losses

fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
fabric.seed_everything(0, verbose=False)
images, masks = scene()
model, optimizer = (lambda net: fabric.setup(net, torch.optim.AdamW(net.parameters(), lr=1e-2)))(
    torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 1, 3, padding=1)
    )
)
criterion = losses.build("dice_ce", mode="binary")

history = []
for _ in range(30):
    loss = criterion(model(images), masks)  # bfloat16 logits are computed in float32 inside
    optimizer.zero_grad()
    fabric.backward(loss)
    optimizer.step()
    history.append(loss.item())
