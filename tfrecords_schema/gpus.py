"""Google's GPUs and the machines they come with, for Dataflow's workers and Vertex AI's jobs."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU and its machines.

    Attributes:
      series: how the names of machines begin that it goes with.
      machines: number of GPUs -> the type of the machine that has them, or that they are attached to, with cores
        enough to decode images for them.
      built_in: whether each machine of the series has such GPUs.
      fewest_at_vertex: of them on a machine of Vertex AI's.
    """

    series: str
    machines: dict[int, str]
    built_in: bool = True
    fewest_at_vertex: int = 1

    @property
    def machine_type(self) -> str:
        """The machine with one of them. Raises KeyError where they only come by the eight."""
        return self.machines[1]


# By the names that both services call them (https://cloud.google.com/compute/docs/gpus,
# https://cloud.google.com/vertex-ai/docs/training/configure-compute).
GPUS = {
    "nvidia-l4": Gpu("g2-", {1: "g2-standard-8", 2: "g2-standard-24", 4: "g2-standard-48", 8: "g2-standard-96"}),
    "nvidia-tesla-t4": Gpu("n1-", {1: "n1-standard-8", 2: "n1-standard-16", 4: "n1-standard-32"}, built_in=False),
    "nvidia-tesla-v100": Gpu(
        "n1-", {1: "n1-standard-8", 2: "n1-standard-16", 4: "n1-standard-32", 8: "n1-standard-64"}, built_in=False
    ),
    "nvidia-tesla-a100": Gpu("a2-highgpu-", {**{n: f"a2-highgpu-{n}g" for n in (1, 2, 4, 8)}, 16: "a2-megagpu-16g"}),
    "nvidia-a100-80gb": Gpu("a2-ultragpu-", {n: f"a2-ultragpu-{n}g" for n in (1, 2, 4, 8)}),
    "nvidia-h100-80gb": Gpu("a3-highgpu-", {1: "a3-highgpu-1g", 8: "a3-highgpu-8g"}, fewest_at_vertex=8),
    "nvidia-h100-mega-80gb": Gpu("a3-megagpu-", {8: "a3-megagpu-8g"}),
    "nvidia-h200-141gb": Gpu("a3-ultragpu-", {8: "a3-ultragpu-8g"}),
}
