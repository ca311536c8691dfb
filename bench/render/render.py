#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the tables and charts that bench/results give, between the markers of the pages.

Usage: render.py RESULTS CHARTS PAGE...
RESULTS holds what syngate-bench wrote, CHARTS gets the pictures; a PAGE has lines
    <!-- bench:begin NAME -->
    <!-- bench:end -->
around each block. A block whose result is not there says how to get it. Prints the goals.
"""
import json
import os
import pathlib
import re
import sys

import swaps
import tables
from charts import distribution_chart

# Those that are measured together with others, by the name that script/bench has for them.
ARGUMENT = {"goals": "", "shards": " reload", "flood": " packet", "idle": " packet", "footprint": " packet", "divert": " steer"}
MARKED = re.compile(r"(<!-- bench:begin ([a-z]+) -->\n).*?(<!-- bench:end -->)", re.DOTALL)
# One chart of every candidate is a tangle: what a user would choose between.
CHARTED = {
    "reload": (
        "no reload",
        "haproxy -sf",
        "haproxy -x",
        "HAProxy master-worker",
        "drop SYNs, 0.2 s",
        "drop SYNs, 1 s",
        "HAProxy: flip",
        "HAProxy: hold, bpf tcx",
    ),
    "restart": (
        "HAProxy: stop and start",
        "HAProxy: drop SYNs, stop and start",
        "HAProxy: hold, bpf tcx",
        "nginx: stop and start",
        "nginx: hold, bpf tcx",
        "plain: stop and start",
        "plain: hold, bpf tcx",
    ),
}


def read(directory):
    return {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))}


def draw(name, result, directory):
    """{rate: the picture's path}"""
    pictures = {}
    for rate in result["parameters"]["rates"]:
        curves = {}
        for wanted in CHARTED[name]:
            candidate = swaps.find(result, wanted)
            if candidate:
                curves[wanted] = swaps.curve(candidate, rate)
        svg = distribution_chart(f"{name}: share of connections that took longer, {rate:,.0f} a second", curves)
        if svg:
            directory.mkdir(parents=True, exist_ok=True)
            pictures[rate] = directory / f"{name}-{rate:.0f}.svg"
            pictures[rate].write_text(svg)
    return pictures


def fill(text, blocks):
    """Every block of the page anew."""

    def block(match):
        content = blocks.get(match[2])
        if content is None:
            argument = ARGUMENT.get(match[2], f" {match[2]}")
            content = f"Not measured yet: run `sudo script/bench{argument}`."
        return f"{match[1]}{content}\n{match[3]}"

    return MARKED.sub(block, text)


def blocks_for(page, results, pictures):
    """Paths in a page are relative to it."""
    blocks = {"goals": tables.goals(results)}
    for name, result in results.items():
        if name in tables.SWAPS:
            near = {rate: os.path.relpath(path, page.parent) for rate, path in pictures[name].items()}
            blocks[name] = tables.swap_tables(result, near)
        elif name in tables.BLOCKS:
            blocks[name] = tables.BLOCKS[name](result)
    return blocks


def main(results_directory, charts, *pages):
    results = read(pathlib.Path(results_directory))
    pictures = {name: draw(name, results[name], pathlib.Path(charts)) for name in tables.SWAPS if name in results}
    for page in map(pathlib.Path, pages):
        page.write_text(fill(page.read_text(), blocks_for(page, results, pictures)))
    print(tables.goals(results) or "nothing was measured")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
