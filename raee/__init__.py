"""Retrieval-augmented early exit: the method, without an orchestrator and without a store.

From labelled texts a frozen model's answer at every exit is recorded (`sweep`); for a new text
its nearest neighbours in that record say at which layer to leave the model (`policies`,
`classify`).  The method is RAEE (arXiv 2405.15198).
"""
