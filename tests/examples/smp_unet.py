import segmentation_models_pytorch as smp
import torch
from scene import scene

from lossatlas import losses

torch.manual_seed(0)
images, masks = scene()
model = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=1)
model.decoder.blocks[-1].conv2[-1] = torch.nn.Identity()  # no ReLU before the last layer
share = masks.float().mean()
torch.nn.init.constant_(
    model.segmentation_head[0].bias, torch.logit(share).item()
)  # the prior bias

criterion = losses.DiceLoss(mode="binary")  # was: smp.losses.DiceLoss(mode="binary")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

history = []
for _ in range(6):
    loss = criterion(model(images), masks)  # one channel of logits, targets 0 and 1
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    history.append(loss.item())
