"""The folder of published tool data, which the environment variable ``HARNESS_TOOL_DATA`` may name."""

from functools import partial

from harness.tasks import data_folders

VARIABLE = "HARNESS_TOOL_DATA"
find = partial(data_folders.find, variable=VARIABLE)
data_file = partial(data_folders.data_file, variable=VARIABLE)
