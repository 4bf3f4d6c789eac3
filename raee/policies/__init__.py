"""Policies: at which exit a row answers, what that costs, and the search for the best one."""
