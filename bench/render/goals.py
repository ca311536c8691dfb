# SPDX-License-Identifier: GPL-2.0-or-later
"""What the numbers must reach, beside what was measured: met, not met, or not measured (None)."""
from dataclasses import dataclass

import swaps
from statistics_of import interval_of_ratios, median, median_of_ratios, quantile, ratio

HOLD = "HAProxy: hold, bpf tcx"  # the default hook where the kernel has it
FLIP = "HAProxy: flip"
PASSING = "haproxy -x"


@dataclass
class Goal:
    figure: str
    goal: str
    measured: str = "not measured"
    met: bool | None = None


def all_goals(results):
    """results: {benchmark: result}; what is missing there is not measured."""
    return [
        failed_connections(results),
        *latency_beside_socket_passing(results.get("reload")),
        latency_with_shards(results.get("shards")),
        window(results.get("reload")),
        slowest_over_restart(results.get("restart")),
        *gate_in_force(results.get("scale")),
        idle_packet(results.get("packet")),
        closed_drop(results.get("packet")),
        *flood(results.get("flood")),
        idle_connections(results.get("idle")),
        *agent(results.get("footprint")),
    ]


def failed_connections(results):
    goal = Goal("failed connections, all of ours, reload and restart", "0 in at least 1,000,000")
    if "reload" not in results or "restart" not in results:
        return goal
    ours = [one for name in ("reload", "restart") for one in results[name]["candidates"] if one["group"] == "ours"]
    started, failed, errors = swaps.counts(ours)
    goal.measured = f"{failed:,} in {started:,}" + (f"; {errors} runs ended with an error" if errors else "")
    goal.met = failed == 0 and errors == 0
    if goal.met and started < 1_000_000:  # which proves nothing
        goal.met = None
    return goal


def latency_beside_socket_passing(reload):
    goals = []
    for what, name, most in (("flip", FLIP, 0.8), ("hold", HOLD, 1.2)):
        goal = Goal(f"p99.9 over a reload, {what}, against HAProxy's own -x in the same run", f"≤ {most}")
        ratios = {}
        for rate in reload["parameters"]["rates"] if reload else []:
            ratios[rate] = swaps.latency_ratio(reload, name, PASSING, rate, "p99_9")
        fill_by_rate(goal, ratios, most)
        goals.append(goal)
    return goals


def latency_with_shards(shards):
    goal = Goal("p99.9 over a reload, flip, two threads with shards, against HAProxy's own -x in the same run", "≤ 1.0")
    values = swaps.ratios_by_rate(shards, FLIP, PASSING, "p99_9") if shards else {}
    known = {rate: (median_of_ratios(*of), interval_of_ratios(*of)) for rate, of in values.items()}
    known = {rate: value for rate, value in known.items() if value[0] is not None}
    if known:
        goal.measured = ", ".join(
            f"{value:.2f} at {rate:,.0f}/s (95 %: {low:.2f} to {high:.2f})" for rate, (value, (low, high)) in known.items()
        )
        goal.met = max(value for value, _ in known.values()) <= 1.0
    return goal


def fill_by_rate(goal, ratios, most):
    known = {rate: value for rate, value in ratios.items() if value is not None}
    if not known:
        return
    goal.measured = ", ".join(f"{value:.2f} at {rate:,.0f}/s" for rate, value in known.items())
    goal.met = max(known.values()) <= most
    if len(known) < len(ratios):
        goal.measured += "; the rest not judged"


def window(reload):
    goal = Goal("window on a HAProxy reload, hold", "median ≤ 2 ms, p99 ≤ 10 ms")
    candidate = swaps.find(reload, HOLD) if reload else None
    values = swaps.windows_ms(candidate) if candidate else []
    if values:
        middle, high = median(values), quantile(values, 0.99)
        goal.measured = f"{middle:.2f} ms, {high:.2f} ms ({len(values)} reloads)"
        goal.met = middle <= 2 and high <= 10
    return goal


def slowest_over_restart(restart):
    goal = Goal("slowest connection over a full restart, hold", "the server's down time + 5 ms")
    more = {}
    for server in ("HAProxy", "nginx", "plain"):
        candidate = swaps.find(restart, f"{server}: hold, bpf tcx") if restart else None
        value = swaps.slower_than_down_ms(candidate) if candidate else None
        if value is not None:
            more[server] = value
    if more:
        goal.measured = ", ".join(f"{server} {value:+.1f} ms" for server, value in more.items())
        goal.met = max(more.values()) <= 5
        if len(more) < 3:
            goal.measured += "; the rest not judged"
    return goal


def closing(scale):
    """{ports: (ours in us, the fastest of iptables in us)}"""
    found = {}
    for row in scale["ports"] if scale else []:
        mine, theirs = found.get(row["ports"], (None, None))
        value = median(row["close_us"])
        if row["way"] == "syngate, bpf":
            mine = value
        elif row["way"].startswith("iptables"):
            theirs = value if theirs is None else min(theirs, value)
        found[row["ports"]] = (mine, theirs)
    return found


def gate_in_force(scale):
    fast = Goal("gate in force, any number of ports", "≤ 20 µs")
    faster = Goal("gate in force, against iptables", "≥ 100 times faster")
    found = closing(scale)
    mine = {ports: value for ports, (value, _) in found.items() if value is not None}
    ratios = [ratio(theirs, value) for value, theirs in found.values()]
    ratios = [value for value in ratios if value is not None]
    if mine:
        worst = max(mine, key=mine.get)
        fast.measured = f"at most {mine[worst]:.1f} µs ({worst:,} ports)"
        fast.met = mine[worst] <= 20
    if ratios:
        faster.measured = f"at least {min(ratios):,.0f} times"
        faster.met = min(ratios) >= 100
    return [fast, faster]


def program_rounds(packet, hook, name):
    for row in packet["programs"] if packet else []:
        if row["hook"] == hook and row["name"] == name:
            return row["ns"]
    return []


def program_ns(packet, hook, name):
    return median(program_rounds(packet, hook, name))


def idle_packet(packet):
    goal = Goal("idle gate per packet, over an empty program", "≤ 5 ns")
    more = {}
    for hook in ("tc", "xdp"):
        open_, empty = program_ns(packet, hook, "gate open, data"), program_ns(packet, hook, "an empty program")
        if open_ is not None and empty is not None:
            more[hook] = open_ - empty
    if more:
        goal.measured = ", ".join(f"{value:.0f} ns ({hook})" for hook, value in more.items())
        goal.met = max(more.values()) <= 5
    return goal


def closed_drop(packet):
    goal = Goal("closed drop per packet against xdp-filter", "≤ 1.0")
    mine = program_rounds(packet, "xdp", "gate closed, SYN dropped")
    theirs = program_rounds(packet, "xdp", "xdp-filter, SYN to the denied port")
    value = median_of_ratios(mine, theirs)
    if value is not None:
        low, high = interval_of_ratios(mine, theirs)
        goal.measured = f"{value:.2f} (95 %: {low:.2f} to {high:.2f}; {median(mine):.0f} ns, {median(theirs):.0f} ns)"
        goal.met = value <= 1.0
    return goal


def flood(result):
    goals = []
    runs = {way["name"]: way["runs"] for way in result["ways"]} if result and "ways" in result else {}
    rate = {name: [run["packets_per_cpu_second"] for run in of] for name, of in runs.items()}
    for what, names, least in (
        ("XDP native", ["syngate, XDP native"], 5),
        ("TC", ["syngate, TC", "syngate, TCX"], 1.3),
    ):
        goal = Goal(f"drop rate under flood against iptables INPUT, {what}", f"≥ {least}")
        values = {
            name.removeprefix("syngate, "): median_of_ratios(rate[name], rate["iptables, INPUT"])
            for name in names
            if name in rate and "iptables, INPUT" in rate
        }
        values = {name: value for name, value in values.items() if value is not None}
        if values:
            goal.measured = ", ".join(f"{value:.1f} ({name})" for name, value in values.items())
            goal.met = min(values.values()) >= least
        goals.append(goal)
    return goals


def idle_connections(idle):
    goal = Goal("new connections a second, attached and idle, against nothing attached", "≥ 0.99")
    runs = {row["name"]: row["runs"] for row in idle["attached"]} if idle else {}
    rate = {name: [run["connections_per_second"] for run in of] for name, of in runs.items()}
    base = rate.pop("nothing", [])
    values = {name: (median_of_ratios(of, base), interval_of_ratios(of, base)) for name, of in rate.items()}
    values = {name: value for name, value in values.items() if value[0] is not None}
    if values:
        goal.measured = ", ".join(
            f"{value:.3f} ({name}; 95 %: {low:.3f} to {high:.3f})" for name, (value, (low, high)) in values.items()
        )
        goal.met = min(value for value, _ in values.values()) >= 0.99
    return goal


def agent(footprint):
    memory = Goal("agent: resident memory", "≤ 10 MiB")
    cpu = Goal("agent: CPU when idle", "0")
    start = Goal("agent: time from start to the server's start", "≤ 50 ms")
    row = next((one for one in footprint.get("agents", []) if one["mode"] == "bpf"), None) if footprint else None
    if row:
        mib = row["resident_kib"] / 1024
        memory.measured, memory.met = f"{mib:.1f} MiB", mib <= 10
        cpu.measured = f"{row['cpu_seconds'] * 1000:.1f} ms in {row['idle_seconds']:.0f} s"
        cpu.met = row["cpu_seconds"] == 0
        value = median(row["start_ms"])
        start.measured, start.met = f"{value:.1f} ms", value <= 50
    return [memory, cpu, start]
