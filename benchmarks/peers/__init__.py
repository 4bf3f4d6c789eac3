"""What else classifies texts, beside raee: accuracy and rows/s on the same rows, in one run.

Peers and raee need libraries that do not go together, so each of them runs in a process of its own,
in one of two environments.  What a peer's process imports may import nothing of raee.
"""
