"""Package metadata: ranges here, exact pins in requirements.txt (made from these by `make requirements`)."""

import itertools
import pathlib
import re

from setuptools import find_packages, setup

CLOUDS = {
    "gcp": ["apache-beam[gcp]", "gcsfs>=2026.3"],
    "aws": ["apache-beam[aws]", "s3fs>=2026.3"],
    "azure": ["apache-beam[azure]", "adlfs>=2026.2"],
    "dask": ["apache-beam[dask]"],
    "vertex": ["google-cloud-aiplatform>=1.60", "pyyaml>=6"],
}
ONNX = ["onnx>=1.17", "tf2onnx>=1.17"]
SERVE = ["fastapi>=0.115", "prometheus-client>=0.20", "python-multipart>=0.0.18", "uvicorn>=0.30"]
EXTRAS = {
    **CLOUDS,
    "serve": SERVE,
    "onnx": ONNX,
    "gpu": ["tensorflow[and-cuda]; platform_system == 'Linux'"],
    "dev": [
        *itertools.chain(*CLOUDS.values()),
        *SERVE,
        *ONNX,
        "datasets>=3.0",
        "gcp-storage-emulator>=2024.8.3",
        "hypothesis>=6.100",
        "moto[server]>=5",
        "mypy>=1.11",
        "onnxruntime>=1.20",
        "pandas>=2.2",
        "psutil>=5.9",
        "pytest>=9.0",
        "pytest-xdist>=3.6",
        "ruff>=0.8",
        "selenium>=4.20",
        "tensorflow-datasets>=4.9.9",
    ],
}

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "tfrecords_schema/__init__.py").read_text())[1]

setup(
    name="batch-image-captioning",
    version=VERSION,
    description="Batch image captioning on Apache Beam and TensorFlow",
    license="Apache-2.0",
    license_files=["LICENSE"],
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["pipelines*", "trainer*", "tfrecords_schema*"]),
    package_data={"pipelines.pictures": ["*.css", "*.js"], "pipelines.serving": ["*.css", "*.html", "*.js"]},
    install_requires=[
        "aiohttp>=3.13",
        "apache-beam>=2.70,<3",
        # It has no wheel for Linux on ARM, where Pillow resizes.
        "cykooz.resizer>=4.0.1,<5; sys_platform != 'linux' or platform_machine == 'x86_64'",
        "duckdb>=1.1",
        "fsspec>=2026.2",
        "google-crc32c>=1.5",
        "ijson>=3.2",
        "matplotlib>=3.8",
        "msgspec>=0.19",
        "numpy>=1.26,<3",
        "pillow>=10.3",
        "pyarrow>=18",
        "pycocoevalcap>=1.2",
        "simplejpeg>=1.9,<2",
        "tenacity>=8.3",
        "tensorboard>=2.19",
        "tensorflow>=2.19,<3",
        "tqdm>=4.66",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "caption-download-coco = pipelines.download_coco:main",
            "caption-features = pipelines.features:program",
            "caption-train = trainer.task:program",
            "caption-images = pipelines.caption:program",
            "caption-gallery = pipelines.gallery:program",
            "caption-serve = pipelines.serve:main",
            "caption-evaluate = trainer.evaluate:program",
            "caption-submit = trainer.submit:main",
        ]
    },
)
