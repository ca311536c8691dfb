# SPDX-License-Identifier: GPL-2.0-or-later
"""The statistics, the verdicts on the goals, the blocks of a page, and the charts."""
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import goals  # noqa: E402
import render  # noqa: E402
import swaps  # noqa: E402
import tables  # noqa: E402
from charts import distribution_chart  # noqa: E402
from statistics_of import add_up, interval_of_ratios, median, median_of_ratios, quantile, share_above  # noqa: E402


class Statistics(unittest.TestCase):
    def test_median_of_nothing_is_nothing(self):
        self.assertIsNone(median([]))
        self.assertIsNone(median([None]))
        self.assertEqual(median([3, None, 1, 2]), 2)

    def test_quantile_is_a_value_that_was_measured(self):
        values = list(range(1, 101))
        self.assertEqual(quantile(values, 0.5), 50)
        self.assertEqual(quantile(values, 0.99), 99)
        self.assertEqual(quantile(values, 1), 100)
        self.assertEqual(quantile([7], 0.99), 7)
        self.assertIsNone(quantile([], 0.5))

    def test_ratios_are_made_round_by_round(self):
        # A disturbed round has both parts slower: the ratio of the medians would be 55 / 30.
        self.assertEqual(median_of_ratios([100, 10], [50, 10]), 1.5)
        self.assertIsNone(median_of_ratios([1], []))
        self.assertIsNone(median_of_ratios([1], [0]))

    def test_an_interval_holds_the_median_and_is_the_same_each_time(self):
        values, bases = [9, 10, 11, 12, 30], [10, 10, 10, 10, 10]
        low, high = interval_of_ratios(values, bases)
        self.assertLessEqual(low, 1.1)
        self.assertGreaterEqual(high, 1.1)
        self.assertLess(low, high)
        self.assertEqual(interval_of_ratios(values, bases), (low, high))
        self.assertIsNone(interval_of_ratios([], []))

    def test_distributions_are_added_step_by_step(self):
        self.assertEqual(add_up([[[1.0, 2], [4.0, 1]], [[2.0, 5], [1.0, 1]]]), [(1.0, 3), (2.0, 5), (4.0, 1)])

    def test_what_failed_stays_to_the_end_of_the_curve(self):
        self.assertEqual(share_above([(1.0, 6), (2.0, 2)], 10), [(1.0, 0.4), (2.0, 0.2)])


def run(p99_9=1.0, failed=0, started=1000, judged=True, rate=2000, said=None, longest=5.0):
    return {
        "rate": rate,
        "judged": judged,
        "load": {
            "started": started,
            "failed": failed,
            "outcomes": {"ok": started - failed, "refused": failed},
            "latency_ms": {"p50": 0.1, "p99": 0.5, "p99_9": p99_9, "max": longest},
            "latency_distribution": [[0.1, started - failed]],
        },
        "swaps": [{"ms": 1.0, "said": said}] if said else [{"ms": 1.0}],
    }


def candidate(name, runs, group="ours"):
    return {"name": name, "group": group, "server": "HAProxy", "note": "", "about": {}, "runs": runs}


def result(candidates, rates=(2000,)):
    machine = {
        "processor": "CPU", "processors": 2, "virtual": False, "memory_gib": 4.0, "kernel": "6.6", "architecture": "x86_64",
        "distribution": "Debian", "date": "2026-01-01", "load_average": 0.1, "commit": "abc", "versions": {"syngate": "syngate 1"},
    }  # fmt: skip
    parameters = {"rates": list(rates), "rounds": 1, "seconds": 1, "period_ms": 500, "latest_client_ms": 50}
    return {"quick": False, "machine": machine, "parameters": parameters, "impossible": [], "candidates": candidates}


class Goals(unittest.TestCase):
    def verdict(self, results, figure):
        return next(goal for goal in goals.all_goals(results) if goal.figure.startswith(figure))

    def test_nothing_measured_is_no_verdict(self):
        for goal in goals.all_goals({}):
            self.assertIsNone(goal.met, goal.figure)
            self.assertEqual(goal.measured, "not measured")

    def failures(self, *runs):
        peer = candidate("haproxy -sf", [run(failed=7)], "peer")
        ours = [candidate("HAProxy: flip", list(runs))]
        return self.verdict({"reload": result(ours + [peer]), "restart": result([])}, "failed connections")

    def test_one_failure_is_one_too_many_even_where_the_client_was_late(self):
        self.assertTrue(self.failures(run(started=1_000_000)).met)
        self.assertFalse(self.failures(run(started=1_000_000), run(failed=1, judged=False)).met)
        self.assertFalse(self.failures(run(started=1_000_000), {"rate": 1, "judged": False, "error": "x"}).met)

    def test_too_few_connections_prove_nothing(self):
        self.assertIsNone(self.failures(run(started=999_999)).met)

    def against_passing(self, mine, theirs):
        both = [candidate(goals.FLIP, mine), candidate(goals.PASSING, theirs, "peer")]
        return self.verdict({"reload": result(both, rates=(2000, 5000))}, "p99.9 over a reload, flip")

    def test_the_worst_rate_counts(self):
        theirs = [run(10), run(10, rate=5000)]
        self.assertTrue(self.against_passing([run(8), run(8, rate=5000)], theirs).met)
        self.assertFalse(self.against_passing([run(1), run(8.1, rate=5000)], theirs).met)

    def test_shards_are_compared_round_by_round(self):
        # A disturbed round has both slower: of the medians the ratio would be 9 / 10.
        mine, theirs = [run(9), run(50), run(9)], [run(10), run(40), run(8)]
        both = [candidate(goals.FLIP, mine), candidate(goals.PASSING, theirs, "peer")]
        goal = self.verdict({"shards": result(both)}, "p99.9 over a reload, flip, two threads")
        self.assertFalse(goal.met)
        self.assertIn("1.12 at 2,000/s", goal.measured)
        self.assertIn("(1.12; ", tables.shards(result(both)))
        both[0]["runs"] = [run(9), run(40), run(8)]
        self.assertTrue(self.verdict({"shards": result(both)}, "p99.9 over a reload, flip, two threads").met)

    def test_a_late_client_is_not_judged(self):
        goal = self.against_passing([run(8), run(99, judged=False)], [run(10)])
        self.assertTrue(goal.met)
        self.assertIn("not judged", goal.measured)
        self.assertIsNone(self.against_passing([run(8, judged=False)], [run(10)]).met)

    def test_a_window_needs_its_median_and_its_99th_percentile(self):
        def met(*windows):
            runs = [run(said={"window_us": us, "steps": {}}) for us in windows]
            return self.verdict({"reload": result([candidate(goals.HOLD, runs)])}, "window").met

        self.assertTrue(met(1000, 2000, 10_000))
        self.assertFalse(met(1000, 2000, 10_001))
        self.assertFalse(met(2001, 2001, 2001))

    def test_the_slowest_connection_is_measured_against_the_down_time(self):
        def met(longest):
            said = {"window_us": 9, "steps": {"stop": 10_000, "start": 20_000}}
            runs = [run(said=said, longest=longest)]
            return self.verdict({"restart": result([candidate(goals.HOLD, runs)])}, "slowest").met

        self.assertTrue(met(35.0))
        self.assertFalse(met(35.1))

    def test_the_gate_is_compared_with_the_fastest_of_iptables(self):
        rows = [
            {"way": "syngate, bpf", "ports": 1, "close_us": [10, 20, 30]},
            {"way": "iptables, a call a port", "ports": 1, "close_us": [9000]},
            {"way": "iptables-restore", "ports": 1, "close_us": [2000]},
        ]
        scale = {**result([]), "ports": rows}
        self.assertTrue(self.verdict({"scale": scale}, "gate in force, any").met)
        self.assertTrue(self.verdict({"scale": scale}, "gate in force, against").met)
        rows[2]["close_us"] = [1999]
        self.assertFalse(self.verdict({"scale": scale}, "gate in force, against").met)


class Pages(unittest.TestCase):
    page = "a\n<!-- bench:begin reload -->\nold\n<!-- bench:end -->\nb\n<!-- bench:begin packet -->\n<!-- bench:end -->\n"

    def test_only_what_is_between_the_markers_changes(self):
        filled = render.fill(self.page, {"reload": "new"})
        self.assertEqual(
            filled,
            "a\n<!-- bench:begin reload -->\nnew\n<!-- bench:end -->\nb\n<!-- bench:begin packet -->\n"
            "Not measured yet: run `sudo script/bench packet`.\n<!-- bench:end -->\n",
        )
        self.assertEqual(render.fill(filled, {"reload": "new"}), filled)

    def test_a_whole_page_with_its_chart(self):
        with tempfile.TemporaryDirectory() as name:
            directory = pathlib.Path(name)
            page = directory / "docs" / "page.md"
            page.parent.mkdir()
            page.write_text(self.page)
            one = result([candidate("HAProxy: flip", [run(failed=3)]), candidate("late", [run(judged=False)])])
            one["impossible"] = [{"what": "this", "why": "that"}]
            pictures = {"reload": render.draw("reload", one, directory / "docs" / "bench")}
            blocks = render.blocks_for(page, {"reload": one}, pictures)
            text = render.fill(page.read_text(), blocks)
            self.assertIn("(bench/reload-2000.svg)", text)
            self.assertIn("| **HAProxy: flip** | 1,000 | 3 (3 refused) | 0.10 |", text)
            self.assertIn("1 of 1 runs not judged: the client was late", text)
            self.assertIn("- Not measured: this: that", text)
            self.assertIn("commit abc", text)
            self.assertTrue((directory / "docs" / "bench" / "reload-2000.svg").exists())


class Charts(unittest.TestCase):
    def test_both_axes_are_logarithmic(self):
        svg = distribution_chart("t", {"a<b": [(1.0, 0.1), (10.0, 0.01), (100.0, 0.001)]})
        points = [tuple(map(float, p.split(","))) for p in svg.split('points="')[1].split('"')[0].split()]
        steps = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(points, points[1:])]
        self.assertAlmostEqual(steps[0][0], steps[1][0], delta=0.2)
        self.assertAlmostEqual(steps[0][1], steps[1][1], delta=0.2)
        self.assertGreater(steps[0][0], 0)
        self.assertIn("a&lt;b", svg)

    def test_nothing_to_draw_is_no_picture(self):
        self.assertIsNone(distribution_chart("t", {"a": []}))


class Swaps(unittest.TestCase):
    def test_outcomes_are_counted_in_every_attempt(self):
        one = candidate("x", [run(failed=2), run(failed=3, judged=False), run(failed=5, rate=9)])
        self.assertEqual(swaps.outcomes(one, 2000), {"refused": 5})
        self.assertEqual(swaps.counts([one]), (3000, 10, 0))

    def test_a_curve_ends_at_the_share_that_failed(self):
        one = candidate("x", [run(failed=100), run(failed=300)])
        self.assertEqual(swaps.curve(one, 2000), [(0.1, 0.2)])


if __name__ == "__main__":
    unittest.main()
