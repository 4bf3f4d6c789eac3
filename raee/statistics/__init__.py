"""What is said of answers and rows in numbers: calibration, tests, shifts, rows that are far."""
