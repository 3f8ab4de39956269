"""Machines that a plan is for and that are not at hand, in the numbers of their data sheets.

What is not given is assumed: the memory and cores of a common machine of eight GPUs, a network of 10 Gbit/s, image files of the mean size
of ImageNet's.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Machines:
    """Machines that are not at hand, for a plan without data: what is left out is as in a common cluster of GPUs.

    Args:
        device_flops: operations a second that a device reaches in networks, about 0.4 of its data sheet's; by default as measured here
        devices_per_node: devices in one machine
        cores_per_node: CPU cores of one machine
        node_memory: bytes of memory of one machine
        storage_rate: bytes a second that one machine reads from where the images are, such as an object storage
        network_rate: bytes a second that one machine receives from others
        image_bytes: mean bytes of an image file
        task_seconds: what the process that gives out the work takes for each task
    """

    device_flops: float | None = None
    devices_per_node: int = 8
    cores_per_node: int = 96
    node_memory: float = 1e12
    storage_rate: float = 1e9
    network_rate: float = 1e9
    image_bytes: float = 110_000
    task_seconds: float = 0.005


THESE_MACHINES = Machines()
MOST_IMAGES = 10**15
"""Images beyond which nothing is planned."""
