"""Plots as SVG, by hand: nothing to install, nothing to load."""
import html
import math

COLOURS = {"sluice": "#0b6e4f", "nginx": "#5b7db1", "haproxy": "#8f6fb0", "lua": "#c28e2c", "typescript": "#b5473c",
           "floor": "#7a8288", "tuned": "#3b9aa8", "direct": "#a9b0b5"}
MORE = ("#0b6e4f", "#b5473c", "#5b7db1", "#c28e2c", "#8f6fb0", "#3b9aa8", "#7a8288")
WIDTH = 760


def colour(name, i=0):
    """A system's own colour, wherever it is drawn alone; cases of one system get others."""
    return COLOURS.get(name.rstrip("'"), MORE[i % len(MORE)])


class Svg:
    def __init__(self, height, width=WIDTH):
        self.width, self.height, self.parts = width, height, []

    def line(self, x1, y1, x2, y2, stroke="#d5dade", width=1, more=""):
        self.parts.append('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%g" %s/>' %
                          (x1, y1, x2, y2, stroke, width, more))

    def rect(self, x, y, w, h, fill, title=""):
        self.parts.append('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s</title></rect>' %
                          (x, y, max(w, 0.5), h, fill, html.escape(title)))

    def text(self, x, y, text, anchor="start", size=12, fill="#30373d", weight="normal"):
        self.parts.append('<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%d" fill="%s" '
                          'font-weight="%s">%s</text>' % (x, y, anchor, size, fill, weight, html.escape(text)))

    def path(self, points, stroke, dash=""):
        if points:
            d = "M" + " L".join("%.1f %.1f" % p for p in points)
            self.parts.append('<path d="%s" fill="none" stroke="%s" stroke-width="2" stroke-linejoin="round"%s/>' %
                              (d, stroke, ' stroke-dasharray="%s"' % dash if dash else ""))

    def done(self):
        return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" '
                'font-family="system-ui, sans-serif">%s</svg>' %
                (self.width, self.height, self.width, self.height, "".join(self.parts)))


def nice(top):
    """A round step that divides 0..top into three to six."""
    if top <= 0:
        return 1
    power = 10 ** math.floor(math.log10(top / 4))
    return next(power * m for m in (1, 2, 2.5, 5, 10) if power * m * 5 >= top)


def amount(v, unit=""):
    if unit == "us" and v >= 1000000:
        return "%g s" % round(v / 1e6, 2)
    if unit == "us" and v >= 1000:
        return "%g ms" % round(v / 1000, 2)
    text = "%.0f" % v if v >= 100 else "%.1f" % v if v >= 10 else "%.2f" % v
    return text + (" " + unit if unit else "")


def bars(rows, unit):
    """Horizontal bars with whiskers from least to most; rows: [(label, spread, colour)]. One or two
    that are far longer than the others are cut, and say so."""
    left, right, step = 190, 150, 30
    svg = Svg(len(rows) * step + 34)
    ordered = sorted(s["most"] for _, s, _ in rows)
    top = next((a * 1.25 for a, b in list(zip(ordered, ordered[1:]))[-2:] if b > 8 * a > 0), ordered[-1])
    scale = (WIDTH - left - right) / top if top else 0
    ticks = nice(top)
    for i in range(int(top / ticks + 1e-9) + 1):
        x = left + i * ticks * scale
        svg.line(x, 4, x, len(rows) * step + 6)
        svg.text(x, len(rows) * step + 24, "%g" % (i * ticks), "middle", 11, "#6a737a")
    for i, (label, s, fill) in enumerate(rows):
        y, cut = 8 + i * step, s["median"] > top
        svg.text(left - 10, y + 15, label, "end")
        svg.rect(left, y, min(s["median"], top) * scale, 20, fill, "%s: %s" % (label, amount(s["median"], unit)))
        if cut:
            svg.text(left + top * scale - 6, y + 15, "cut", "end", 11, "#ffffff")
        else:
            a, b = left + s["least"] * scale, left + min(s["most"], top) * scale
            svg.line(a, y + 10, b, y + 10, "#1d2327", 1.5)
            svg.line(a, y + 6, a, y + 14, "#1d2327", 1.5)
            svg.line(b, y + 6, b, y + 14, "#1d2327", 1.5)
        end = left + min(max(s["most"], s["median"]), top) * scale
        svg.text(end + 8, y + 15, amount(s["median"], unit), weight="bold")
    return svg.done()


def legend(svg, names, y):
    x = 60
    for i, (name, fill) in enumerate(names):
        svg.line(x, y, x + 18, y, fill, 3)
        svg.text(x + 24, y + 4, name)
        x += 44 + 7.2 * len(name)


def distributions(series):
    """Latency by percentile, both axes by factors of ten; series: [(name, buckets, colour)]"""
    series = [(n, b, f) for n, b, f in series if b]
    if not series:
        return ""
    left, top, height, width = 64, 30, 250, WIDTH - 90
    low = min(b[0][0] for _, b, _ in series)
    high = max(b[-1][0] for _, b, _ in series)
    lo, hi = math.floor(math.log10(max(low, 1))), max(math.ceil(math.log10(max(high, 10))), 1)
    hi = max(hi, lo + 1)
    svg = Svg(height + top + 44)
    nines = 4.0             # up to 99.99 %

    def x_of(part):
        return left + min(-math.log10(max(1 - part, 10 ** -nines)), nines) / nines * width

    def y_of(us):
        return top + height - (math.log10(max(us, 10 ** lo)) - lo) / (hi - lo) * height
    for e in range(lo, hi + 1):
        svg.line(left, y_of(10 ** e), left + width, y_of(10 ** e))
        svg.text(left - 8, y_of(10 ** e) + 4, amount(10 ** e, "us").replace(".00", "").replace(".0", ""), "end", 11,
                 "#6a737a")
    for part, label in ((0, "0"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")):
        svg.line(x_of(part), top, x_of(part), top + height)
        svg.text(x_of(part), top + height + 18, label, "middle", 11, "#6a737a")
    for name, buckets, fill in series:
        n, seen, points = sum(c for _, c in buckets), 0, []
        for upper, count in buckets:
            seen += count
            x, y = x_of(seen / n), y_of(upper)
            if not points or x - points[-1][0] > 0.7 or abs(y - points[-1][1]) > 0.7:
                points.append((x, y))
        svg.path(points, fill)
    legend(svg, [(n, f) for n, _, f in series], 12)
    return svg.done()


def timeline(rows, phases):
    """Offered, done and refused per second, and where the phases begin."""
    left, top, height, width = 64, 30, 200, WIDTH - 90
    svg = Svg(height + top + 44)
    rows = [r for r in rows if r["t"] < sum(float(p.split(":")[1]) for p in phases)]    # stragglers came later
    most = max([r["offered"] for r in rows] + [1])
    low = max(min([r["ok"] for r in rows if r["ok"]] + [most]) / 2, 1)
    span = math.log10(most / low) or 1

    def x_of(t):
        return left + t / max(len(rows) - 1, 1) * width

    def y_of(v):
        return top + height - max(0.0, math.log10(max(v, low) / low)) / span * height
    e = math.ceil(math.log10(low))
    while 10 ** e <= most:
        svg.line(left, y_of(10 ** e), left + width, y_of(10 ** e))
        svg.text(left - 8, y_of(10 ** e) + 4, "{:,}/s".format(10 ** e), "end", 11, "#6a737a")
        e += 1
    at = 0.0
    for p in phases:
        factor, seconds = p.split(":")
        svg.line(x_of(at), top, x_of(at), top + height, "#a9b0b5", 1, 'stroke-dasharray="3 3"')
        svg.text(x_of(at) + 4, top + height + 18, factor, "start", 11, "#6a737a")
        at += float(seconds)
    for key, fill, dash in (("offered", "#a9b0b5", "6 4"), ("refused", "#b5473c", ""), ("ok", "#0b6e4f", "")):
        svg.path([(x_of(r["t"]), y_of(r[key])) for r in rows if r[key] >= low], fill, dash)
    legend(svg, [("offered", "#a9b0b5"), ("done", "#0b6e4f"), ("refused", "#b5473c")], 12)
    return svg.done()


def stages(rows):
    """Where a call's time goes inside the engine: [(step, calls, microseconds)] as bars of one colour."""
    return bars([(step.lower(), {"median": us, "least": us, "most": us}, "#0b6e4f") for step, _, us in rows], "us")
