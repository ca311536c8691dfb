# SPDX-License-Identifier: GPL-2.0-or-later
"""Medians, quantiles, ratios and distributions of what was measured round by round."""
import math
import random
import statistics


def median(values):
    """None of nothing: what was not measured is never a number."""
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def quantile(values, share):
    """The smallest value that at least this share (0 to 1) of the values does not exceed."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def ratio(value, base):
    return None if value is None or base is None or base == 0 else value / base


def median_of_ratios(values, bases):
    """Round by round, so that what disturbs a round disturbs both of its parts."""
    return median([ratio(value, base) for value, base in zip(values, bases)])


def interval_of_ratios(values, bases, resamplings=2000):
    """Where the median of the ratios lies in 95 of 100 choices, with repetition, of the rounds. The same each time."""
    ratios = [r for r in (ratio(value, base) for value, base in zip(values, bases)) if r is not None]
    if not ratios:
        return None
    choice = random.Random(1)
    medians = [statistics.median(choice.choices(ratios, k=len(ratios))) for _ in range(resamplings)]
    return quantile(medians, 0.025), quantile(medians, 0.975)


def add_up(distributions):
    """[[end of the step, count], ...] of several runs to one, ascending."""
    sums = {}
    for distribution in distributions:
        for end, count in distribution:
            sums[end] = sums.get(end, 0) + count
    return sorted(sums.items())


def share_above(distribution, started):
    """For each step the share of all that were started that had not ended by its end.

    What failed never ended: its share stays to the end of the curve.
    """
    points, left = [], started
    for end, count in distribution:
        left -= count
        points.append((end, left / started if started else 0.0))
    return points
