# SPDX-License-Identifier: GPL-2.0-or-later
"""The Markdown of each block: tables, and what could not be measured."""
import swaps
from goals import PASSING, all_goals
from statistics_of import interval_of_ratios, median, median_of_ratios, ratio


def number(value, digits=2, unit=""):
    if value is None:
        return "-"
    return f"{value:,.{digits}f}{unit}"


def cell(text):
    return str(text).replace("|", "\\|").replace("\n", " ")


def table(head, rows):
    lines = ["| " + " | ".join(map(cell, head)) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(cell, row)) + " |" for row in rows])


def not_possible(result):
    return [f"- Not measured: {cell(one['what'])}: {cell(one['why'])}" for one in result["impossible"]]


def described(machine):
    """One line that stands beside the numbers."""
    kind = ", a virtual machine" if machine["virtual"] else ""
    commit = f", commit {machine['commit']}" if machine["commit"] else ""
    return (
        f"Measured on {machine['date']} on {machine['processors']} processors ({machine['processor']}{kind}), "
        f"{machine['memory_gib']:.0f} GiB, Linux {machine['kernel']} {machine['architecture']}, "
        f"{machine['distribution']}, load average at the start {machine['load_average']:.2f}; "
        + ", ".join(version for version in machine["versions"].values() if version)
        + commit
        + "."
    )


def head_of(result):
    quick = " **By `--quick`: too short for anything but trying it out.**" if result["quick"] else ""
    return described(result["machine"]) + quick


def goals(results):
    if not results:
        return None
    marks = {True: "met", False: "**not met**", None: "-"}
    rows = [(goal.figure, goal.goal, goal.measured, marks[goal.met]) for goal in all_goals(results)]
    latest = max(results.values(), key=lambda result: result["machine"]["date"])
    return table(("figure", "goal", "measured", ""), rows) + "\n\n" + head_of(latest)


def swap_rows(result, rate):
    for candidate in result["candidates"]:
        runs = swaps.runs_of(candidate, rate)
        every = swaps.runs_of(candidate, rate, judged=False)
        failed = sum(run["load"]["failed"] for run in every)
        kinds = ", ".join(f"{count:,} {name}" for name, count in swaps.outcomes(candidate, rate).items())
        windows = swaps.windows_ms(candidate, rate)
        name = candidate["name"] if candidate["group"] != "ours" else f"**{candidate['name']}**"
        yield (
            name,
            f"{sum(run['load']['started'] for run in every):,}",
            f"{failed:,}" + (f" ({kinds})" if kinds else ""),
            *(number(swaps.latency(candidate, rate, key)) for key in ("p50", "p99", "p99_9", "max")),
            number(median(windows)) if windows else "-",
            sum(len(run["swaps"]) for run in runs),
            remark(candidate, rate, runs, every),
        )


def remark(candidate, rate, runs, every):
    words = [candidate["note"]] if candidate["note"] else []
    errors = [run["error"] for run in candidate["runs"] if "error" in run and run["rate"] == rate]
    if errors:
        words.append(f"{len(errors)} errors, the first: {errors[0].splitlines()[0][:120]}")
    if len(runs) < len(every):
        words.append(f"{len(every) - len(runs)} of {len(every)} runs not judged: the client was late")
    return "; ".join(words)


def swap_tables(result, charts):
    """charts: {rate: path of the picture}"""
    p = result["parameters"]
    parts = [
        head_of(result),
        f"{p['rounds']} rounds of {p['seconds']:g} s each, one swap every {p['period_ms']:g} ms; who takes longer has half "
        "a period of quiet after it. IPv4 and IPv6 in turn. Milliseconds from the intended start to the whole answer: medians over the "
        "rounds. Failed connections: of all rounds.",
    ]
    for rate in p["rates"]:
        parts.append(f"### {rate:,.0f} new connections a second")
        if rate in charts:
            parts.append(f"![The share of connections that took longer]({charts[rate]})")
        head = ("", "connections", "failed", "p50", "p99", "p99.9", "longest", "window", "swaps", "")
        parts.append(table(head, swap_rows(result, rate)))
    return "\n\n".join(parts + ["\n".join(not_possible(result))]).rstrip()


def shards(result):
    rows = []
    names = [one["name"] for one in result["candidates"]]
    for rate in result["parameters"]["rates"]:
        for name in names:
            candidate = swaps.find(result, name)
            runs, every = swaps.runs_of(candidate, rate), swaps.runs_of(candidate, rate, judged=False)
            line = [f"{rate:,.0f}", name if candidate["group"] != "ours" else f"**{name}**"]
            line += [f"{sum(run['load'][key] for run in every):,}" for key in ("started", "failed")]
            for key in ("p99", "p99_9"):
                shown = number(swaps.latency(candidate, rate, key))
                mine, theirs = swaps.ratios_by_rate(result, name, PASSING, key).get(rate, ([], []))
                beside = median_of_ratios(mine, theirs)
                if beside is not None and name != PASSING:
                    low, high = interval_of_ratios(mine, theirs)
                    shown += f" ({beside:.2f}; {low:.2f} to {high:.2f})"
                line.append(shown)
            rows.append((*line, sum(len(run["swaps"]) for run in runs), remark(candidate, rate, runs, every)))
    p = result["parameters"]
    note = (
        f"HAProxy with two threads and `shards by-thread`: {p['rounds']} rounds of {p['seconds']:g} s of each way, in turns, a reload every "
        f"{p['period_ms']:g} ms. Milliseconds as above, medians over the rounds. In brackets: against `{PASSING}`, round by round, and the interval of 95 %."
    )
    return join(result, note, table(("a second", "", "connections", "failed", "p99", "p99.9", "reloads", ""), rows))


def packet(result):
    base = {row["hook"]: median(row["ns"]) for row in result["programs"] if row["name"] == "an empty program"}
    rows = [
        (row["hook"], row["name"], number(median(row["ns"]), 0), number(median(row["ns"]) - base[row["hook"]], 0))
        for row in result["programs"]
    ]
    p = result["parameters"]
    note = (
        f"Nanoseconds a packet by BPF_PROG_RUN, {p['rounds']} rounds of {p['repeat']:,} runs, medians. xdp-filter is what sits on the device: "
        "libxdp's dispatcher and the filter behind it."
    )
    return join(result, note, table(("hook", "", "ns", "over an empty program"), rows))


def flood(result):
    if "ways" not in result:
        return join(result, "")
    rates = {way["name"]: [run["packets_per_cpu_second"] for run in way["runs"]] for way in result["ways"]}
    rows = []
    for way in result["ways"]:
        got = median([run["packets"] / run["seconds"] for run in way["runs"]])
        leaked = sum(run["reached_tcp"] for run in way["runs"])
        rows.append(
            (
                way["name"],
                number(median(rates[way["name"]]), 0),
                number(median_of_ratios(rates[way["name"]], rates.get("iptables, INPUT", [])), 1),
                number(got, 0),
                number(leaked, 0),
            )
        )
    note = (
        "SYNs dropped in a second of one core's time: the device's NAPI has a thread of its own, whose CPU time is counted. The flood "
        "is made on another core, and how much came is shown as well."
    )
    head = ("", "a second a core", "over iptables INPUT", "came, a second", "reached TCP")
    return join(result, note, table(head, rows))


def traffic(rows, base):
    runs = {row["name"]: row["runs"] for row in rows}
    keys = ("connections_per_second", "gbit_per_second", "cpu_us_per_connection", "cpu_s_per_gigabyte")
    digits = (0, 2, 1, 3)
    out = []
    for name, of in runs.items():
        line = [name]
        for key, count in zip(keys, digits):
            mine, theirs = [run[key] for run in of], [run[key] for run in runs.get(base, [])]
            beside = median_of_ratios(mine, theirs)
            shown = number(median(mine), count)
            if beside is not None and name != base:
                low, high = interval_of_ratios(mine, theirs)
                shown += f" ({beside:.3f}; {low:.2f} to {high:.2f})"
            line.append(shown)
        out.append((*line, sum(run["failed"] for run in of)))
    head = ("", "new connections a second", "Gbit/s", "CPU µs a connection", "CPU s a GB", "failed")
    return table(head, out)


def turns(result):
    p = result["parameters"]
    return (
        f"One processor carries it all. Each way has its turn in the same tenths of a second, {p['turns']} turns of {p['slice_ms']} ms a round, "
        f"{p['rounds']} rounds with new processes. In brackets: against {{}}, round by round, and the interval of 95 %."
    )


def idle(result):
    note = "An agent that is attached and has nothing to do. " + turns(result).format("nothing attached")
    return join(result, note, traffic(result["attached"], "nothing"))


def steer(result):
    note = "HAProxy with `usesrc clientip` between client and backend. " + turns(result).format("iptables")
    return join(result, note, traffic(result["ways"], "iptables"))


def divert(result):
    if "ways" not in result:
        return join(result, "")
    ns = {
        (way["connection"], way["name"]): [1e9 / run["packets_per_cpu_second"] for run in way["runs"]]
        for way in result["ways"]
    }
    names = list(dict.fromkeys(way["connection"] for way in result["ways"]))
    for way in ("iptables", "syngate"):
        ns["one of each", way] = [sum(of) for of in zip(*(ns[name, way] for name in names))]
    rows = []
    for name in (*names, "one of each"):
        mine, theirs = ns[name, "syngate"], ns[name, "iptables"]
        low, high = interval_of_ratios(mine, theirs)
        rows.append(
            (
                name,
                number(median(ns.get((name, "nothing"), [])), 0),
                number(median(theirs), 0),
                f"{number(median(mine), 0)} ({median_of_ratios(mine, theirs):.3f}; {low:.3f} to {high:.3f})",
            )
        )
    p = result["parameters"]
    note = (
        "Nanoseconds of CPU time that an acknowledgement takes from the device to the end of TCP, as what comes from clients (an ordinary connection) and from "
        f"backends (a transparent one): {p['rounds']} rounds of {p['slice_ms']} ms of each, in turns. The device's NAPI has a thread of its own, whose time is counted. "
        "In brackets: against iptables, round by round, and the interval of 95 %."
    )
    return join(result, note, table(("a packet of", "nothing", "iptables", "syngate"), rows))


def scale(result):
    parts = []
    ways = list(dict.fromkeys(row["way"] for row in result.get("ports", [])))
    counts = list(dict.fromkeys(row["ports"] for row in result.get("ports", [])))
    closing = {(row["way"], row["ports"]): median(row["close_us"]) for row in result.get("ports", [])}
    rows = [(way, *(number(closing.get((way, count)), 1) for count in counts)) for way in ways]
    parts.append("Microseconds from the decision until SYNs to that many ports are dropped:")
    parts.append(table(("", *(f"{count:,}" for count in counts)), rows))
    rows = [
        (
            f"{count:,}",
            number(median([row["replay_us"] for row in of]) / 1000, 2),
            number(median([row["replay_us"] for row in of]) / count, 1),
            f"{sum(row['replayed'] for row in of):,} of {count * len(of):,}",
            number(median([row["resident_growth_kib"] for row in of]), 0),
        )
        for count, of in by_key(result.get("parked", []), "syns").items()
    ]
    parts.append("Parked SYNs, and their replay into a listening socket (the SYN-ACK and the client's answer to it included):")
    parts.append(table(("SYNs", "replay, ms", "µs each", "replayed", "agent grew by, KiB"), rows))
    full = result["parameters"].get("default_park")
    if full:
        parts.append(
            f"The default park memory of {full['park_memory'] / 2**20:.0f} MiB holds {full['parked']:,} SYNs of this size; "
            f"the other {full['dropped']:,} of {full['syns']:,} were dropped and counted."
        )
    rows = [
        (
            row["interfaces"],
            number(median(row["start_us"]) / 1000, 1),
            number(median(row["close_us"]), 1),
            number(median(row["stop_us"]) / 1000, 1),
        )
        for row in result.get("interfaces", [])
    ]
    parts.append("Interfaces with an address each:")
    parts.append(table(("interfaces", "attached to all, ms", "closed, µs", "detached, ms"), rows))
    return join(result, *parts)


def by_key(rows, key):
    grouped = {}
    for row in rows:
        grouped.setdefault(row[key], []).append(row)
    return grouped


def footprint(result):
    rows = [
        (
            row["mode"],
            number(row["resident_kib"] / 1024, 1),
            number(row["proportional_kib"] / 1024, 1),
            number(row["private_kib"] / 1024, 1),
            f"{row['cpu_seconds'] * 1000:.1f} ms in {row['idle_seconds']:.0f} s",
            number(median(row["start_ms"]), 1),
            number(median(row["start_alone_ms"]), 1),
        )
        for row in result.get("agents", [])
    ]
    head = ("mode", "resident, MiB", "proportional, MiB", "private, MiB", "CPU when idle", "to the server's main(), ms", "without syngate, ms")
    return join(result, table(head, rows))


def image(result):
    rows = [
        (
            number(row["size_bytes"] / 1e6, 0),
            row["mode"],
            number(median(row["start_ms"]), 0),
            number(median(row["start_alone_ms"]), 0),
        )
        for row in result.get("images", [])
    ]
    head = ("size, MB", "mode", "from `run` until HAProxy listens, ms", "the same image, HAProxy without `syngate`, ms")
    return join(result, table(head, rows) if rows else "")


def join(result, *parts):
    everything = [head_of(result), *parts, "\n".join(not_possible(result))]
    return "\n\n".join(part for part in everything if part)


BLOCKS = {
    "shards": shards,
    "packet": packet,
    "flood": flood,
    "idle": idle,
    "steer": steer,
    "divert": divert,
    "scale": scale,
    "footprint": footprint,
    "image": image,
}
SWAPS = ("reload", "restart")
