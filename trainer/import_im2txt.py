"""A model of im2txt, as TensorFlow 1 trained it -> an export of ours (`python -m trainer.import_im2txt`)."""

from __future__ import annotations

import dataclasses
import shlex
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfrecords_schema import command, command_line, ending
from tfrecords_schema.command import Settings, setting
from tfrecords_schema.errors import InputError, told_in_one_line
from tfrecords_schema.text import on_screen

if TYPE_CHECKING:
    from tfrecords_schema.manifests.model_info import ModelInfo

ABOUT = {
    "prog": "python -m trainer.import_im2txt",
    "usage": "%(prog)s (--checkpoint PATH | --graph FILE.pb)\n         --word_counts FILE.txt --output DIR",
    "description": "Make an export of a model that im2txt (Show and Tell in TensorFlow 1) trained. Then "
    "pipelines.caption, pipelines.serve and pipelines.load take it like one of trainer.task.",
    "examples": """
        python -m trainer.import_im2txt --checkpoint train/model.ckpt-2000000 \\
          --word_counts word_counts.txt --output my-im2txt
        python -m trainer.import_im2txt --graph show-and-tell.pb \\
          --word_counts word_counts.txt --output my-im2txt
    """,
}
# im2txt's CaptionGenerator: its defaults, and how it chooses what to look at.
_SEARCH = {"beam_width": 3, "length_penalty": 0.0, "min_length": 2, "forbid_unk": False, "ends_each": True}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportIm2TxtConfig(Settings):
    """The whole of `python -m trainer.import_im2txt`."""

    checkpoint: str | None = setting(
        "checkpoint of im2txt's training, such as train/model.ckpt-2000000, or its directory for the latest one",
        None,
        metavar="PATH",
        reads="file",
    )
    graph: str | None = setting(
        "frozen graph of im2txt, in place of --checkpoint", None, metavar="FILE.pb", reads="file"
    )
    word_counts: str = setting("word_counts.txt that the model was trained with", metavar="FILE.txt", reads="file")
    output: str = setting("export directory to write", metavar="DIR", writes="folder")
    overwrite: bool = setting("replace an export in --output", False)

    def __post_init__(self):
        super().__post_init__()
        if bool(self.checkpoint) == bool(self.graph):
            found = "both" if self.graph else "none"
            raise InputError(f"--checkpoint or --graph: expected one of them, found {found}")


def main(argv: Sequence[str] | None = None) -> None:
    """Exits with 0, or 2 for bad input."""
    with told_in_one_line():
        run(command_line.parse(ImportIm2TxtConfig, argv, **ABOUT))


def run(config: ImportIm2TxtConfig) -> ModelInfo:
    """Writes the export.

    Raises:
      InputError: a file is none of im2txt, or does not fit the others; nothing was written.
    """
    from tfrecords_schema.quiet import import_tensorflow

    import_tensorflow()  # before what imports it loudly
    from tfrecords_schema.manifests.features_info import FeatureSpec
    from tfrecords_schema.manifests.model_info import ModelInfo
    from tfrecords_schema.networks.registry import find_network
    from tfrecords_schema.storage import files, paths
    from tfrecords_schema.storage.filesystems import require_filesystems
    from tfrecords_schema.vocabulary import Vocabulary
    from trainer.exporting import saved_model

    require_filesystems(**command.places(config))
    saved_model.require_free(config.output, config.overwrite)
    listed = files.read_input("--word_counts", config.word_counts)
    from trainer.im2txt import decoder, network, tensors

    source = config.checkpoint or config.graph or ""
    found = tensors.of_checkpoint("--checkpoint", source) if config.checkpoint else tensors.of_graph("--graph", source)
    where = f"--word_counts: {config.word_counts}"
    vocabulary, order = Vocabulary.of_im2txt(listed, decoder.rows(found), where)
    made = decoder.make(found, order)
    with tempfile.TemporaryDirectory(prefix="captioning-") as making:
        extractor, digest = network.save(found, making)
        pooled = find_network(network.NAME).pooled
        spec = FeatureSpec(
            extractor=network.NAME,
            layer=pooled.label,
            weights=paths.absolute(source),
            weights_digest=digest,
            shape=pooled.shape,
            dtype="float32",
            precision="float32",
            resize=find_network(network.NAME).resize,
        )
        info = ModelInfo(
            decoder=dataclasses.asdict(made.config),
            features=spec,
            max_caption_length=decoder.MAX_LENGTH,
            vocabulary_digest=vocabulary.digest,
            digest="",
            metrics={},
            search=_SEARCH,
            extractor=extractor,
        )
        info = saved_model.write_output(made, vocabulary, info, config.output, making)
    further = [order[i] for i in vocabulary.further_unknown]
    print(f"words       {len(vocabulary.ids) - 4:,}; {len(further):,} rows of the model behind them mean <unk>")
    if count := decoder.learned(found, further):
        print(f"WARNING: {count:,} of these rows were learned: {config.word_counts} may be another model's, or cut off")
    print(f"search      as im2txt: beam_width 3, max_length {decoder.MAX_LENGTH}, length_penalty 0, <unk> allowed")
    print(on_screen(f"export      {config.output} (digest {info.digest[:12]}…)"))
    following = ("python", "-m", "pipelines.caption", "PHOTO.jpg", "--model", config.output)
    print(on_screen(f"next        {shlex.join(following)}"))
    return info


program = ending.program(main)

if __name__ == "__main__":
    program()
