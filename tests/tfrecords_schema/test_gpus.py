from pipelines.engines import gpu
from trainer.vertex import spec


def test_each_service_has_the_gpus_that_it_lends():
    """Both take their names from one table; no Dataflow worker has eight, and Vertex AI lends no single H100."""
    assert set(spec.MACHINES) - set(gpu.GPUS) == {"nvidia-h100-mega-80gb", "nvidia-h200-141gb"}
    assert set(gpu.GPUS) < set(spec.MACHINES)
    assert gpu.GPUS["nvidia-h100-80gb"].machine_type == "a3-highgpu-1g"
    assert spec.MACHINES["nvidia-h100-80gb"] == {8: "a3-highgpu-8g"}
