# SPDX-License-Identifier: GPL-2.0-or-later
"""Line charts of latency distributions as SVG, both axes logarithmic. Readable on light and dark pages."""
import html
import math

WIDTH, HEIGHT = 860, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 250, 44, 48
# Told apart by those who do not tell red from green as well.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7f6000", "#56b4e9", "#e69f00", "#555555")


def decades(low, high):
    return [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


def plain(value):
    """0.001 and 1000, not 1e-03."""
    return f"{value:.10f}".rstrip("0").rstrip(".") if value < 1 else f"{value:,.0f}"


class Scale:
    """A logarithmic axis from whole decades to pixels."""

    def __init__(self, low, high, begin, end):
        self.ticks = decades(low, high)
        if len(self.ticks) < 2:
            self.ticks.append(self.ticks[0] * 10)
        self.low, self.high = math.log10(self.ticks[0]), math.log10(self.ticks[-1])
        self.begin, self.end = begin, end

    def __call__(self, value):
        share = (math.log10(max(value, 10.0**self.low)) - self.low) / (self.high - self.low)
        return self.begin + min(share, 1.0) * (self.end - self.begin)


def text(x, y, what, anchor="start", size=12):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{html.escape(what)}</text>'


def line(x1, y1, x2, y2):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#8884"/>'


def distribution_chart(title, curves):
    """curves: {name: [(milliseconds, share of connections that took longer), ...]}, as share_above gives them."""
    curves = {name: points for name, points in curves.items() if points}
    times = [time for points in curves.values() for time, _ in points if time > 0]
    shares = [share for points in curves.values() for _, share in points if share > 0]
    if not times or not shares:
        return None
    x = Scale(min(times), max(times), LEFT, WIDTH - RIGHT)
    y = Scale(min(shares), 1.0, HEIGHT - BOTTOM, TOP)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'role="img" aria-label="{html.escape(title)}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        text(LEFT, 24, title, size=15),
    ]
    for tick in x.ticks:
        out += [line(x(tick), TOP, x(tick), HEIGHT - BOTTOM), text(x(tick), HEIGHT - BOTTOM + 18, plain(tick), "middle")]
    for tick in y.ticks:
        out += [line(LEFT, y(tick), WIDTH - RIGHT, y(tick)), text(LEFT - 6, y(tick) + 4, plain(tick * 100) + " %", "end")]
    out.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "milliseconds from the intended start to the whole answer", "middle"))
    for number, (name, points) in enumerate(curves.items()):
        out += curve(name, points, number, x, y)
    return "\n".join(out) + "\n</svg>\n"


def curve(name, points, number, x, y):
    colour = COLOURS[number % len(COLOURS)]
    dashes = ' stroke-dasharray="6 3"' if number >= len(COLOURS) else ""
    # Where nothing is left the curve falls to the axis.
    path = " ".join(f"{x(time):.1f},{y(max(share, 1e-300)):.1f}" for time, share in points)
    at = TOP + 14 + 20 * number
    return [
        f'<polyline fill="none" stroke="{colour}" stroke-width="2"{dashes} points="{path}"/>',
        f'<line x1="{WIDTH - RIGHT + 14}" y1="{at - 4}" x2="{WIDTH - RIGHT + 38}" y2="{at - 4}" '
        f'stroke="{colour}" stroke-width="2"{dashes}/>',
        text(WIDTH - RIGHT + 44, at, name),
    ]
