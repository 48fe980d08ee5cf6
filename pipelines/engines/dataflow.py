"""What is particular to Dataflow: an image for its workers, jobs that are handed over instead of being waited for."""

from __future__ import annotations

from typing import Any

from pipelines.engines.options import DATAFLOW, short_name
from tfrecords_schema.errors import InputError


def require_image(options: Any, gpu: bool) -> None:
    """Raises InputError where nothing brings this package to the workers: they would fail one by one, minutes later.

    For a GPU it has to be an image: Beam's own has no CUDA.
    """
    from apache_beam.options.pipeline_options import SetupOptions, WorkerOptions

    setup = options.view_as(SetupOptions)
    image = options.view_as(WorkerOptions).sdk_container_image or setup.prebuild_sdk_container_engine
    packages = setup.setup_file or setup.extra_packages
    if not image and (gpu or not packages):
        raise InputError(
            "--sdk_container_image: expected an image of Dockerfile.dataflow, found none; Beam's own has neither this "
            "package nor TensorFlow and CUDA; see docs/dataflow.md"
        )


def handed_over(options: Any, output: str) -> bool:
    """Whether the run ended with a job that others will run, or nobody; says so.

    A Flex Template's launcher has the job written to `--template_location` and starts it when this process has ended;
    Beam's `--dry_run` only translates. There is no report yet to be summarised.
    """
    from apache_beam.options.pipeline_options import GoogleCloudOptions, StandardOptions, TestOptions

    if short_name(options.view_as(StandardOptions).runner) != DATAFLOW:
        return False
    location = options.view_as(GoogleCloudOptions).template_location
    if location:
        print(f"job         {location}; it will write {output}, with report.json as its last file")
        return True
    if options.view_as(TestOptions).dry_run:
        print("job         translated, not started (--dry_run)")
        return True
    return False
