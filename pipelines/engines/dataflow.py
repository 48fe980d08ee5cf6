"""A Dataflow job that is handed over instead of being waited for."""

from __future__ import annotations

from typing import Any


def handed_over(options: Any, output: str) -> bool:
    """Whether the run ended with a job that others will run, or nobody; says so.

    A Flex Template's launcher has the job written to `--template_location` and starts it when this process has ended;
    Beam's `--dry_run` only translates. There is no report yet to be summarised.
    """
    from apache_beam.options.pipeline_options import GoogleCloudOptions, StandardOptions, TestOptions

    if (options.view_as(StandardOptions).runner or "").lower() not in ("dataflowrunner", "dataflow"):
        return False
    location = options.view_as(GoogleCloudOptions).template_location
    if location:
        print(f"job         {location}; it will write {output}, with report.json as its last file")
        return True
    if options.view_as(TestOptions).dry_run:
        print("job         translated, not started (--dry_run)")
        return True
    return False
