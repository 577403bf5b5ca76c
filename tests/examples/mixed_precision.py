import torch
from scene import scene

from lossatlas import losses

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
dtype = torch.float16 if device == "cuda" else torch.bfloat16
images, masks = (each.to(device) for each in scene())
model = torch.nn.Sequential(
    torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 1, 3, padding=1)
).to(device)
criterion = losses.build("focal", mode="binary", gamma=2.0)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)

history = []
for _ in range(30):
    with torch.autocast(device, dtype):
        loss = criterion(model(images), masks)  # computed in float32 inside: no .float() needed
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    history.append(loss.item())
