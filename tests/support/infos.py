"""The two info files, as small as they can be."""

from tfrecords_schema.manifests.features_info import FeaturesInfo, FeatureSpec, ShardInfo, SplitInfo
from tfrecords_schema.manifests.model_info import ModelInfo

SPEC = FeatureSpec("inception_v3", "pool", "imagenet", "ab" * 32, (2048,), "float16", "float32", "bilinear")
INFO = FeaturesInfo(
    SPEC,
    25,
    100,
    "cd" * 32,
    {"train": SplitInfo(2, 10, 1, (ShardInfo("train-00000-of-00001.tfrecord", 2, 10, 99, "ef"),))},
)
MODEL = ModelInfo(
    {"units": 4}, SPEC, 25, "cd" * 32, "12" * 32, {"val_loss": 1.5}, {"beam_width": 3, "length_penalty": 0.7}
)
