"""The steps of a build, from the plan to the gate."""
