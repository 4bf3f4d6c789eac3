"""Readers: what turns a row's state at a depth into a distribution over the labels.

`raee.readers.reader` says what a reader is, `raee.readers.table` which there are, in the order of
an entry's lists; each has a module of its own.
"""
