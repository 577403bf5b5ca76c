import torch
from scene import scene

from lossatlas import losses

torch.manual_seed(0)
images, masks = scene(classes=3)
model = torch.nn.Sequential(
    torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 3, 3, padding=1)
)
# was: torch.nn.CrossEntropyLoss(ignore_index=255)
criterion = losses.build("ce", ignore_index=255)  # or "dice_ce", or any other name
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

history = []
for _ in range(30):
    loss = criterion(model(images), masks)  # logits (N, C, H, W), class indices (N, H, W)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    history.append(loss.item())
