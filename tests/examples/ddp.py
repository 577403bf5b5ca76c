import sys

import torch
import torch.distributed as dist
from scene import scene
from torch.nn.parallel import DistributedDataParallel

from lossatlas import losses


def main(rank: int, world: int, port: str, out: str) -> None:
    """One step of one process on its part of the batch; process 0 saves the weights."""
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    torch.manual_seed(0)
    images, masks = scene()
    model = DistributedDataParallel(torch.nn.Conv2d(1, 1, 3, padding=1))
    # Dice of the whole batch is no mean of the processes' Dices: it sums over them
    criterion = losses.build("dice", mode="binary", process_group="world")
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    mine = slice(rank, None, world)
    criterion(model(images[mine]), masks[mine]).backward()
    optimizer.step()
    if rank == 0:
        torch.save(model.module.state_dict(), out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
