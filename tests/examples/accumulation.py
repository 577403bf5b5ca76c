import torch
from scene import scene

from lossatlas import losses

torch.manual_seed(0)
images, masks = scene()
masks[0, :16] = 255  # void: the micro-batches differ in their valid pixels
model = torch.nn.Conv2d(1, 2, 3, padding=1)
criterion = losses.build("ce", ignore_index=255, reduction="sum")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-1)

history = []
for _ in range(30):
    optimizer.zero_grad()
    valid = (masks != 255).sum()  # of the whole step; with class weights: the sum of their weights
    total = 0.0
    for x, y in zip(images.split(2), masks.split(2), strict=True):
        part = criterion(model(x), y) / valid
        part.backward()
        total += part.item()
    optimizer.step()
    history.append(total)
