import sys

import torch
import torch.distributed as dist
from scene import scene

from lossatlas.metrics import BoundaryMetrics


def main(rank: int, world: int, port: str, out: str) -> None:
    """Each process measures its images; process 0 saves the rows of the whole set."""
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    images, masks = scene(images=7)
    predicted = (images[:, 0] > 0.5).long()  # what the network says
    # Every image once. A DistributedSampler repeats images until each process has as many.
    mine = slice(rank, None, world)
    measured = BoundaryMetrics(2)
    measured.update(predicted[mine], masks[mine])

    parts = [None] * world
    dist.all_gather_object(parts, measured)
    whole = BoundaryMetrics(2)
    for part in parts:
        whole.merge(part)
    if rank == 0:
        torch.save(whole.rows(), out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
