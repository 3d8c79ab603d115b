"""Figures: medians, spreads, histograms put together, and whether a difference is one."""
import statistics


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


def ratios(a, b):
    """Round by round: what both had to bear in a round cancels out."""
    return spread([x / y for x, y in zip(a, b) if x is not None and y])


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
    """How `new` compares with `old`, two spreads, when nothing changes anything by less than `noise` (0.05: 5 %).

    (ratio, verdict): a difference counts only when it is larger than the noise of both runs, and the rounds of one lie
    all on one side of the other's median."""
    if not old or not new or not old["median"]:
        return None, "unknown"
    ratio = new["median"] / old["median"]
    apart = new["least"] > old["median"] or new["most"] < old["median"]
    if abs(ratio - 1) <= noise or not apart:
        return ratio, "within noise"
    return ratio, "more" if ratio > 1 else "less"
