"""Figures: medians, spreads, histograms put together, and whether a difference is one."""
import statistics

ROUNDS_LEAST = 3        # fewer say nothing of a difference
PAIRS = 0.9             # of all pairs of rounds, how many have to agree on one


def median(values):
    return statistics.median(values) if values else None


def spread(values):
    """{median, least, most, n}"""
    values = [v for v in values if v is not None]
    if not values:
        return None
    return {"median": statistics.median(values), "least": min(values), "most": max(values), "n": len(values)}


def drift(samples):
    """What the last fifth of a run had more than its second: the first one still fills caches and pools."""
    fifth = len(samples) // 5
    if not fifth:
        return None
    return (sum(samples[-fifth:]) - sum(samples[fifth:2 * fifth])) / fifth


def width(s):
    """Of a spread, relative to its median: 0.1 is ten per cent from least to most."""
    return (s["most"] - s["least"]) / s["median"] if s and s["median"] else 0.0


def by_round(a, b):
    """Ratios, round by round: what both had to bear in a round cancels out."""
    return [x / y for x, y in zip(a, b) if x is not None and y]


def ratios(a, b):
    return spread(by_round(a, b))


def apart(a, b):
    """How far two measurements of the same thing were from each other, |ratio - 1| round by round; None of nothing."""
    return spread([abs(r - 1) for r in by_round(a, b)])


def merge_buckets(histograms):
    """[[upper, count]] of several runs as one."""
    total = {}
    for h in histograms:
        for upper, count in h:
            total[upper] = total.get(upper, 0) + count
    return sorted([u, c] for u, c in total.items())


def quantile(buckets, part):
    """The bound below which that part lies; None of nothing."""
    n = sum(c for _, c in buckets)
    seen = 0
    for upper, count in buckets:
        seen += count
        if seen >= part * n:
            return upper
    return None


def beyond_noise(old, new, noise):
    """(ratio of the medians, verdict) of a figure's rounds in two runs; `noise`: how far the same program was from
    itself in the median round (apart), of this figure.

    A difference counts when it is larger than that, and when of all pairs of a round of the one and a round of the
    other nine in ten say the same.  So neither one bad round nor their number makes or hides one; with three rounds,
    the fewest that say anything, all of one side must lie beyond all of the other's."""
    if not old or not new or not median(old):
        return None, "unknown"
    ratio = median(new) / median(old)
    if noise is None or min(len(old), len(new)) < ROUNDS_LEAST:
        return ratio, "unknown"
    more = sum((y > x) + (y == x) / 2 for x in old for y in new) / (len(old) * len(new))
    if abs(ratio - 1) <= noise or 1 - PAIRS < more < PAIRS:
        return ratio, "within noise"
    return ratio, "more" if ratio > 1 else "less"
