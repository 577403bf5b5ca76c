import math

import torch
from scene import scene

from lossatlas import losses
from lossatlas.metrics import ThresholdSearch

torch.manual_seed(0)
images, masks = scene(classes=2)
validation_images, validation_masks = scene(
    images=4, classes=2, seed=1
)  # others than those of training
model = torch.nn.Sequential(
    torch.nn.Conv2d(1, 16, 3, padding=1),
    torch.nn.ReLU(),
    torch.nn.Conv2d(16, 16, 3, padding=1),  # no ReLU between this and the last layer
    torch.nn.Conv2d(16, 1, 1),
)

# The start: the last bias at the log odds of the foreground. With a softmax: bias[c] = log(share of class c).
share = (masks == 1).float().mean().item()
torch.nn.init.constant_(model[-1].bias, math.log(share / (1 - share)))

criterion = losses.build("ce", mode="binary")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
history = []
for _ in range(60):
    loss = criterion(model(images), masks)  # logits (N, 1, H, W), masks (N, H, W) of 0 and 1
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    history.append(loss.item())

# The end: the threshold with the best Dice on the validation images.
search = ThresholdSearch()
with torch.no_grad():
    search.update(model(validation_images), validation_masks)
rule, dice = search.best()
predicted = rule(model(images))  # (N, H, W) of 0 and 1
