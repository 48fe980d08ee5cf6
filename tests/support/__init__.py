"""What tests share: the root of the checkout, drawn data, tiny models, servers on this machine."""

import pathlib

ROOT = pathlib.Path(__file__).parents[2]
