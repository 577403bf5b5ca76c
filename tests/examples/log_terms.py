import torch
from scene import scene

from lossatlas import losses

torch.manual_seed(0)
images, masks = scene()
model = torch.nn.Conv2d(1, 1, 3, padding=1)
criterion = 0.5 * losses.DiceLoss(mode="binary") + losses.CrossEntropyLoss(mode="binary")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-1)

history, log = [], []
for step in range(30):
    logits = model(images)
    loss = criterion(logits, masks)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    history.append(loss.item())
    if step % 10 == 0:  # each part is computed once more
        with torch.no_grad():
            log.append(
                {
                    type(part).__name__: (scale * part(logits, masks)).item()
                    for part, scale in criterion.terms()
                }
            )
