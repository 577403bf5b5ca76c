"""Differences between losses with their uncertainty, from arrays of scores or counts.

NumPy and SciPy alone: nothing here knows of records, figures or pages.

- `counts`: overlap metrics from counts of pixels
- `paired`: the paired difference of two losses, its interval, its tests, and what a study can detect
- `tasks`: interquartile means, probabilities of improvement, agreement of rankings
- `proportions`: a share of runs with its exact interval
- `intervals`: what these share
"""
