import torch
from scene import scene

from lossatlas import losses

torch.manual_seed(0)
images, masks = scene(classes=3)
organ, tumour = (masks > 0).float(), (masks == 2).float()  # the second lies inside the first
target = torch.stack([organ, tumour], 1)  # (N, C, H, W), a mask each
known = torch.tensor([[1.0, 1.0]] * 4 + [[1.0, 0.0]] * 4)  # nobody marked tumours in four images
model = torch.nn.Sequential(
    torch.nn.Conv2d(1, 8, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 5, padding=2)
)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.03)
dice = losses.DiceLoss(mode="multilabel", per_image=True, reduction="none", classes="all")
ce = losses.CrossEntropyLoss(mode="multilabel", reduction="none")
history = []
for _ in range(20):
    logits = model(images)
    per_label = dice(logits, target) + ce(logits, target).mean((2, 3))  # (N, C)
    loss = (per_label * known).sum() / known.sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    history.append(loss.item())
