"""Measures what the figures of a database are worth on texts that nobody has seen.

`make benchmark-honesty` reads each data set's states once and replays builds of 100 to 3,000 rows
in memory, each judged on held-out rows of the same pool, and prints the tables of BENCHMARKS.md.
RAEE_DATA: the folder of the data sets, TASK/train.parquet.  States are kept in
benchmarks/results/pools-of-words: remove it to read them anew.
"""
