"""What the scoreboard says: tables in Markdown, and which of the targets are reached."""

from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from statistics import fmean
from typing import Any

from tests.bench.board import GRID, PILOT_STEPS, RELAXED_BUDGET, RIVALS, RUNTIMES, SEEDS, SHORT, Row, recipes_at
from tests.bench.board_file import elsewhere, older, rounded
from tests.bench.figures import Results
from tests.bench.peers import PEERS

SETS = ("Set5", "Set14", "B100", "mean")
GAIN, PEER_GAIN, MOST_TIME, MOST_SPREAD, LEAST_SHARE = 0.05, 0.30, 1.5, 0.05, 0.90
LEGEND = (
    "PSNR-Y in dB at x2, means of seeds. Set14+B100, which the targets are about, is the mean of the two sets' means.",
    "All train on the same images and patches. Seconds are of single runs, whatever else the machine did, and left out"
    " where seeds ran on several; what a search costs is measured turn about, its steps early, late and after the cut.",
    f"A hand-designed shape more than {SHORT} dB behind the best of them with its first seed has no further ones, nor"
    " has random search or successive halving as far behind the search, or a search in the time of a peer as far from"
    f" gaining {PEER_GAIN} dB over it.",
    f"A shape is `width x convolutions`. Recipes are tried for {PILOT_STEPS:,} steps, on training images held out, and"
    " the best of them trains the shape: `identity` starts near the identity, at rate 4e-3; `half` with half of it;"
    " `random` nearly without it, at 2e-3; `residual` is `identity` with residuals over two convolutions; `gentle` is"
    " that at 3e-3. All have re-parameterised branches; `plain` is the best shape without them.",
    "`unsearched` is what the search begins with, trained alone, with its activation and tail, which the hand-designed"
    " networks have not. `gap`: dB between the mixture and the network cut out of it.",
    "The search was developed at 16K MACs, and the rate of wide networks at 64K, on the same test sets.",
    "At equal latency a peer has its time in onnxruntime fp32, and in the runtime and precision that is fastest for it,"
    " `best`; ours then run in what is fastest for them. Their PSNR is of the exported model; that of peers is of"
    " float32, even where their time is not.",
)


def means(prefix: str, known: Results) -> list[float]:
    """dB of the seeds of a row, on Set14 and B100; empty where none has run."""
    return [row["psnr_y"]["mean"] for row in seeds(prefix, known)]


def seeds(prefix: str, known: Results) -> list[Mapping[str, Any]]:
    """The seeds of a row that have run."""
    return [known[name] for seed in SEEDS if (name := f"{prefix}/seed{seed}") in known]


def hand_bar(macs: int, known: Results) -> tuple[tuple[int, int], float] | None:
    """The best hand-designed shape of a budget with hindsight, and the mean of its seeds in dB, of those that ran."""
    section = f"macs-{macs // 1000}K"
    shapes = {(width, depth): means(f"{section}/hand/{width}x{depth}", known) for width, depth in GRID[macs]}
    found = {shape: fmean(values) for shape, values in shapes.items() if values}
    return max(found.items(), key=lambda pair: pair[1]) if found else None


def hand_missing(macs: int, known: Results) -> list[str]:
    """Names of the rows of hand-designed networks that have not run, without which the bar may still rise."""
    names = [f"macs-{macs // 1000}K/hand/{width}x{depth}" for width, depth in GRID[macs]]
    return [row for name in names for seed in SEEDS if owed((row := f"{name}/seed{seed}"), known)]


def owed(name: str, known: Results) -> bool:
    """Whether a row has not run and the board needs it."""
    return name not in known and not decided(name, known)


def decided(name: str, known: Results) -> bool:
    """Whether a row is a further seed of what its first one decides, being more than `SHORT` below what it is held to.

    A hand-designed shape is held to the best first seed of them, a rival to the mean of the search, and a search within
    the time of a peer to what it is asked to gain over it.
    """
    prefix, _, seed = name.rpartition("/seed")
    own = known.get(f"{prefix}/seed{SEEDS[0]}")
    if own is None or seed == str(SEEDS[0]):
        return False
    section, kind, *what = name.split("/")
    held_to: list[float] = []
    if kind == "hand":
        firsts = [row for one, row in known.items() if fnmatchcase(one, f"{section}/hand/*/seed{SEEDS[0]}")]
        held_to = [max(row["psnr_y"]["mean"] for row in firsts)]
    elif kind in RIVALS:
        held_to = means(f"{section}/ours", known)
    elif section == "latency" and what[0].startswith("ours"):
        held_to = [value + PEER_GAIN for value in means(f"{section}/{kind}/peer", known)]
    return bool(held_to) and own["psnr_y"]["mean"] < fmean(held_to) - SHORT


def targets(known: Results) -> list[dict[str, Any]]:
    """Each with "name", "asked", "seeds" of ours, "value" (None where rows are missing) and "reached" (None likewise).

    The same seed is compared on one machine and in one version alone, as others round otherwise.
    """
    found, gains, counts = [], [], []
    for macs in GRID:
        section, bar = f"macs-{macs // 1000}K", hand_bar(macs, known)
        ours = seeds(f"{section}/ours", known)
        complete = bar is not None and len(ours) == len(SEEDS) and not hand_missing(macs, known)
        values = [row["psnr_y"]["mean"] for row in ours]
        gain = fmean(values) - bar[1] if bar is not None and complete else None
        gains.append(gain)
        counts.append(len(ours))
        found.append(_target(f"{section}: dB over the best hand-designed network", 0.0, gain, len(ours)))
        shares = [row["share"] for row in ours]
        least = min(shares) if len(ours) == len(SEEDS) else None
        name = f"{section}: least share of the budget, all within it"
        found.append(_target(name, LEAST_SHARE, least, len(ours), kept=all(share <= 1.0 for share in shares)))
        spread = max(values) - min(values) if len(values) == len(SEEDS) else None
        found.append(_target(f"{section}: dB between seeds", MOST_SPREAD, spread, len(ours), most=True))
        first, cost = known.get(f"{section}/ours/seed0"), known.get(f"cost/{macs // 1000}K/seed0")
        time = cost["ratio"] if cost else None
        found.append(_target(f"{section}: time over that of training the network alone", MOST_TIME, time, 1, most=True))
        same = None
        if first and cost and _machine(first) == _machine(cost):
            again = first["weights"] == cost["search"]["weights"]
            if again or first.get("search_version") == cost.get("search_version"):
                same = float(again)
        found.append(_target(f"{section}: the same seed twice gives the same weights", 1.0, same, 1))
    mean = fmean(gain for gain in gains if gain is not None) if None not in gains else None
    found.append(_target("all budgets: dB over the best hand-designed network, in the mean", GAIN, mean, min(counts)))
    for peer in PEERS:
        theirs = means(f"latency/{peer}/peer", known)
        for runtime in RUNTIMES:
            prefix = f"latency/{peer}/ours {runtime}"
            values = means(prefix, known)
            kept = all(row["latency_ms"] <= row["peer_ms"] for row in seeds(prefix, known))
            wanted = [f"{one}/seed{seed}" for one in (prefix, f"latency/{peer}/peer") for seed in SEEDS]
            complete = not any(owed(row, known) for row in wanted)
            gain = fmean(values) - fmean(theirs) if complete else None
            name = f"{peer}, {runtime}: dB over it in its time"
            found.append(_target(name, PEER_GAIN, gain, len(values), kept=kept))
    return found


def _target(
    name: str, asked: float, value: float | None, count: int, *, most: bool = False, kept: bool = True
) -> dict[str, Any]:
    """count: of seeds. kept: whether all networks are within their budget, without which nothing is reached."""
    reached = None if value is None else kept and (value <= asked if most else value >= asked)
    told = f"{'at most' if most else 'at least'} {asked:g}"
    return {"name": name, "asked": told, "seeds": count, "value": value, "reached": reached}


def markdown(rows: Sequence[Row], known: Results, not_run: Mapping[str, str]) -> str:
    """Sections of tables; a row that has not run is not in them, and is counted at the end."""
    parts = [
        "# Scoreboard of the search",
        "`python -m tests.bench.search_quality --markdown tests/bench/RESULTS.md` runs what is missing, on a GPU with"
        " `--device cuda`, and writes this; rows: `tests/bench/results/search_quality.jsonl`; drawn:"
        " `tests/bench/results/search_quality.svg` (`--picture`).",
        "\n".join(f"- {line}" for line in LEGEND),
    ]
    parts += _made_on(known)
    for section in dict.fromkeys(row.name.partition("/")[0] for row in rows):
        named = [row.name for row in rows if row.name.partition("/")[0] == section and row.name in known]
        if section == "cost" and named:
            parts.append(_costs(named, known))
        if times := [name for name in named if name.endswith("/time")]:
            parts.append(_times(times, known))
        if table := _pilots(section, known):
            parts.append(table)
        if section == "relaxation" and named:  # beside them the default, which is on the board already
            named += [f"macs-{RELAXED_BUDGET // 1000}K/ours/seed{seed}" for seed in SEEDS]
        if shown := [name for name in named if "/pilot/" not in name and "psnr_y" in known.get(name, {})]:
            parts.append(_section(section, shown, known))
    found = targets(known)
    lines = [
        f"| {one['name']} | {one['asked']} | {one['value']:.3f} | {one['seeds']} |"
        f" {'reached' if one['reached'] else 'not reached'} |"
        for one in found
        if one["value"] is not None
    ]
    head = ["| target | asked | found | seeds | |", "|---|---|---|---|---|"] if lines else []
    parts.append("\n".join(["## Targets", "", *head, *lines]))
    if waiting := [one["name"] for one in found if one["value"] is None]:
        why = "rows of theirs have not run, or the same seed not twice on one machine in one version"
        parts.append(f"{len(waiting)} of {len(found)} targets have no figure, as {why}: {'; '.join(waiting)}.")
    parts.append(_missing(rows, known))
    for names, what in (
        (older(known), "networks that another, or an unnamed, version of the product trained"),
        (rounded(known), "peers trained in bfloat16, which rounds the image"),
        (elsewhere(known), "run on another device than the peer was timed on last"),
    ):
        if names:
            counts = _counts({name: known[name]["kind"] for name in names})
            parts.append(f"To be run again with `--stale`, {len(names)} rows, {what}: {counts}.")
    parts += [f"not run: {name}: {reason}" for name, reason in not_run.items()]
    return "\n\n".join(parts) + "\n"


def _missing(rows: Sequence[Row], known: Results) -> str:
    """How many rows have not run, and of what kinds."""
    wanted = {row.name: row.kind for row in rows if owed(row.name, known)}
    needless = sum(row.name not in known for row in rows) - len(wanted)
    said = f"{len(known)} rows have run, {needless} are decided by their first seed, {len(wanted)} have not run"
    return f"{said}: {_counts(wanted)}." if wanted else f"{said}."


def _counts(kinds: Mapping[str, str]) -> str:
    """How many rows there are of each section and kind. kinds: name -> kind."""
    counts = Counter(f"{name.partition('/')[0]} {kind}" for name, kind in kinds.items())
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _made_on(known: Results) -> list[str]:
    """A line for each machine: what it is, when it ran, and in what and on which images it trained."""
    lines: dict[str, list[str]] = {}
    for row in known.values():
        if machine := _machine(row):
            lines.setdefault(machine, []).append(row["date"][:10])
    return [f"{line}: {len(dates)} rows, {min(dates)} to {max(dates)}." for line, dates in lines.items()]


def _machine(row: Mapping[str, Any]) -> str:
    """What a row was trained on, in and with; empty where it does not say."""
    if "device" not in row:
        return ""
    threads = f"{row['threads']} thread{'' if row['threads'] == 1 else 's'}"
    on = row["device"]
    device = on["gpu"] if "gpu" in on else f"{on['cpu']}, {threads} ({on['features']})"
    return f"{device}, PyTorch {row['torch']} in {row['precision']}, trained on {' and '.join(row['trained_on'])}"


def _device(row: Mapping[str, Any]) -> str:
    """What a row was trained on, in a few words; empty where it does not say."""
    on = row.get("device", {})
    if "gpu" in on or not on:
        return str(on.get("gpu", ""))
    amx = ", AMX" if "amx_bf16" in on["features"] else ""
    return f"{'Xeon' if 'Xeon' in on['cpu'] else on['cpu']}{amx}"


def _section(section: str, names: Sequence[str], known: Results) -> str:
    """One line for all seeds of a row: means, and the spread of what the targets are about."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for name in names:
        groups.setdefault(name.rpartition("/seed")[0], []).append(known[name])
    head = [
        "row",
        "network of the first seed",
        "seeds",
        "steps",
        "MACs/px",
        "share",
        *SETS[:3],
        "Set14+B100",
        "spread",
        "seconds",
        "on",
    ]
    lines = [f"## {section}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    best_first = sorted(groups.items(), key=lambda pair: -fmean(row["psnr_y"]["mean"] for row in pair[1]))
    for name, rows in best_first:
        values = [row["psnr_y"]["mean"] for row in rows]
        sets = [f"{fmean(row['psnr_y'][one] for row in rows):.3f}" for one in SETS if one in rows[0]["psnr_y"]]
        sets = ["", *sets] if len(sets) < len(SETS) else sets
        first = rows[0]
        notes = [first["architecture"], *([f"recipe {first['recipe']}"] if "recipe" in first else [])]
        share = f"{fmean(row['share'] for row in rows):.1%}" if "share" in first else ""
        if "gap_db" in first:
            notes.append(f"gap {max(row['gap_db'] for row in rows):.3f}")
        if "peer_ms" in first:
            peer = f"{first['peer_ms']:.1f} in {first.get('peer_candidate', first['candidate'])}"
            notes.append(f"{first['latency_ms']:.1f} ms in {first['candidate']} of {peer}")
        if "rate" in first:
            notes.append(f"rate {first['rate']:g}")
        on = dict.fromkeys(map(_device, rows))
        seconds = [row["seconds"] for row in rows if row["seconds"] and len(on) == 1]
        macs = f"{fmean(row['macs'] for row in rows):,.0f}"
        cells = [name.partition("/")[2], ", ".join(notes), str(len(rows)), str(first["steps"]), macs, share]
        cells += [
            *sets[-len(SETS) :],
            f"{max(values) - min(values):.3f}" if len(values) > 1 else "",
            f"{fmean(seconds):.0f}" if seconds else "",
            " and ".join(on),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _costs(names: Sequence[str], known: Results) -> str:
    """Search and training beside training alone, turn about, and how a step gets cheaper as the search converges."""
    head = ["budget", "search + training", "alone", "ratio", "peak memory", "alone", "step: early", "late", "then"]
    head += ["Set14+B100", "alone"]
    lines = ["## What the search costs", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name in names:
        row = known[name]
        both = row["search"], row["alone"]
        way = [ms for _, ms in both[0]["step_ms_on_the_way"]] or [both[0]["search_step_ms"]]
        cells = [name.split("/")[1], *(f"{one['seconds']:.0f} s" for one in both), f"{row['ratio']:.2f}"]
        cells += [f"{one['memory_mib']:.0f} MiB" for one in both]
        cells += [f"{ms:.1f} ms" for ms in (way[0], way[-1], both[0]["step_ms"])]
        cells += [f"{one['psnr_y']['mean']:.3f}" for one in both]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _times(names: Sequence[str], known: Results) -> str:
    """What peers and hand-designed networks take here in each runtime, in milliseconds."""
    candidates = sorted({candidate for name in names for candidate in known[name]["latency_ms"]})
    lines = ["## Latency of one frame, ms", "", f"| network | {' | '.join(candidates)} |"]
    lines.append("|" + "---|" * (1 + len(candidates)))
    for name in names:
        ms = known[name]["latency_ms"]
        cells = [f"{ms[candidate]:.1f}" if candidate in ms else "" for candidate in candidates]
        lines.append(f"| {' | '.join([name.split('/')[1], *cells])} |")
    return "\n".join(lines)


def _pilots(section: str, known: Results) -> str:
    """The recipes of the hand-designed networks: PSNR-Y on held-out images after the steps of a pilot."""
    found = dict.fromkeys(name.split("/")[2] for name in known if name.startswith(f"{section}/pilot/"))
    if not found or not section.startswith("macs"):
        return ""
    tried = recipes_at(1000 * int(section.removeprefix("macs-").removesuffix("K")))
    lines = [f"## {section}, recipes", "", f"| shape | {' | '.join(tried)} |", "|" + "---|" * (1 + len(tried))]
    for shape in found:
        rows = [known.get(f"{section}/pilot/{shape}/{recipe}") for recipe in tried]
        cells = ["" if row is None else format(row["watched_psnr_y"], ".3f") for row in rows]
        lines.append(f"| {' | '.join([shape, *cells])} |")
    return "\n".join(lines)
