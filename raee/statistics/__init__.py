"""Statistics of answers and rows: calibration, tests, shifts, rows out of distribution."""
