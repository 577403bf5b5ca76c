import torch
from monai.networks.nets import UNet
from scene import scene

from lossatlas import losses

torch.manual_seed(0)
images, masks = scene(classes=3)
labels = masks[:, None]  # MONAI's transforms keep a channel: (N, 1, H, W)
model = UNet(spatial_dims=2, in_channels=1, out_channels=3, channels=(8, 16, 32), strides=(2, 2))
# was: monai.losses.DiceCELoss(softmax=True, to_onehot_y=True, include_background=False)
criterion = losses.build("dice_ce", classes=[1, 2])
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

history = []
for _ in range(10):
    loss = criterion(model(images), labels[:, 0])  # no softmax, no one-hot
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    history.append(loss.item())
