# SPDX-License-Identifier: GPL-2.0-or-later
"""What the results of `reload` and `restart` say, over their rounds."""
from statistics_of import add_up, median, ratio, share_above


def runs_of(candidate, rate=None, judged=True):
    """Of one candidate: those of the rate, and only those in which the client itself was in time."""
    return [
        run
        for run in candidate["runs"]
        if "load" in run and (run["judged"] or not judged) and (rate is None or run["rate"] == rate)
    ]


def find(result, name):
    return next((one for one in result["candidates"] if one["name"] == name), None)


def latency(candidate, rate, key):
    """The median over the rounds, in ms."""
    return median([run["load"]["latency_ms"][key] for run in runs_of(candidate, rate)])


def latency_ratio(result, name, base, rate, key):
    mine, theirs = find(result, name), find(result, base)
    if mine is None or theirs is None:
        return None
    return ratio(latency(mine, rate, key), latency(theirs, rate, key))


def ratios_by_rate(result, name, base, key):
    """{rate: (the values of the one, of the other)}, round by round"""
    mine, theirs = find(result, name), find(result, base)
    if mine is None or theirs is None:
        return {}
    values = {}
    for rate in result["parameters"]["rates"]:
        values[rate] = tuple(
            [run["load"]["latency_ms"][key] for run in runs_of(candidate, rate)] for candidate in (mine, theirs)
        )
    return values


def counts(candidates):
    """(started, failed, errors) over every attempt: a failure counts, whoever was late."""
    started = failed = errors = 0
    for candidate in candidates:
        for run in candidate["runs"]:
            if "load" not in run:
                errors += 1
                continue
            started += run["load"]["started"]
            failed += run["load"]["failed"]
    return started, failed, errors


def outcomes(candidate, rate):
    sums = {}
    for run in runs_of(candidate, rate, judged=False):
        for name, count in run["load"]["outcomes"].items():
            if count and name != "ok":
                sums[name] = sums.get(name, 0) + count
    return sums


def windows_ms(candidate, rate=None):
    return [
        swap["said"]["window_us"] / 1000
        for run in runs_of(candidate, rate)
        for swap in run["swaps"]
        if swap.get("said") and swap["said"].get("window_us")
    ]


def down_ms(run):
    """The longest time in a run for which no server was there: from its being told to go until the next listens."""
    return max(
        (
            (swap["said"]["steps"].get("stop", 0) + swap["said"]["steps"].get("start", 0)) / 1000
            for swap in run["swaps"]
            if swap.get("said") and "steps" in swap["said"]
        ),
        default=None,
    )


def slower_than_down_ms(candidate):
    """How much longer than the server was down the slowest connection took; the median over the rounds."""
    return median(
        [
            run["load"]["latency_ms"]["max"] - down_ms(run)
            for run in runs_of(candidate)
            if down_ms(run) is not None
        ]
    )


def curve(candidate, rate):
    runs = runs_of(candidate, rate)
    started = sum(run["load"]["started"] for run in runs)
    return share_above(add_up([run["load"]["latency_distribution"] for run in runs]), started)
