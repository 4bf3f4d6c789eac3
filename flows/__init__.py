"""Prefect flows, one a file, and the command line."""

import gc

# Our programs begin by importing some thousands of modules, which leave no garbage, and go on with
# arrays, which are in no cycles: collecting after every 700 objects takes a tenth of a start.
gc.set_threshold(50_000)
