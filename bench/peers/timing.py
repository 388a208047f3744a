"""Interleaved samples of two or more sides, and the table of their ratios."""
import csv
import os
import statistics
import time

SAMPLE_SECONDS = 0.05


def busy_elsewhere(before, after):
    """Did other processes take more than a twentieth of the machine meanwhile?"""
    wall, everyone, ours = (b - a for a, b in zip(before, after))
    tick = 1 / os.sysconf("SC_CLK_TCK")
    return everyone - ours > os.cpu_count() * (0.05 * wall + tick)


def load_now():
    with open("/proc/stat") as file:
        fields = [int(x) for x in file.readline().split()[1:9]]
    spent = os.times()
    everyone = (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")
    return time.monotonic(), everyone, spent.user + spent.system + spent.children_user + spent.children_system


def calls_per_sample(function):
    start = time.perf_counter()
    function()
    once = time.perf_counter() - start
    return max(1, int(SAMPLE_SECONDS / max(once, 1e-9)))


def interleave(sides, repeats):
    """Seconds per call of each side, one list per side; and how many rounds other processes disturbed."""
    for function in sides:
        function()
    calls = [calls_per_sample(function) for function in sides]
    samples, disturbed = [[] for _ in sides], 0
    for _ in range(repeats):
        before = load_now()
        for function, count, taken in zip(sides, calls, samples):
            start = time.perf_counter()
            for _ in range(count):
                function()
            taken.append((time.perf_counter() - start) / count)
        disturbed += busy_elsewhere(before, load_now())
    return samples, disturbed


class Table:
    """Prints rows as they come and keeps them for a file."""

    COLUMNS = ("peer", "problem", "direction", "threads", "ours_s", "peer_s", "ratio", "ratio_low", "ratio_high",
               "target", "verdict", "difference", "disturbed", "note")

    def __init__(self):
        self.rows = []
        print(f"{'peer':36} {'problem':26} {'dir':4} {'thr':>3} {'ours ms':>10} {'peer ms':>10} {'ratio':>8} "
              f"{'range':>15} {'target':>7}  {'':7} difference")

    def add(self, peer, problem, direction, threads, ours, theirs, target, difference, disturbed=0, note=""):
        """ours, theirs: seconds of interleaved samples. target None: no verdict."""
        ratio = statistics.median(theirs) / statistics.median(ours)
        ratios = [b / a for a, b in zip(ours, theirs)]
        verdict = "" if target is None else "met" if ratio >= target else "NOT MET"
        row = (peer, problem, direction, threads, statistics.median(ours), statistics.median(theirs), ratio, min(ratios),
               max(ratios), "" if target is None else target, verdict.lower(), difference, disturbed, note)
        self.rows.append(row)
        goal = "" if target is None else f"{target} x"
        print(f"{peer:36} {problem:26} {direction:4} {threads:3} {1e3 * row[4]:10.3f} {1e3 * row[5]:10.3f} "
              f"{ratio:6.2f} x {min(ratios):6.2f} .. {max(ratios):5.2f} {goal:>7}  {verdict:7} {difference:.1e}"
              f"{'*' if disturbed else ''} {note}", flush=True)

    def skip(self, peer, reason):
        reason = " ".join(str(reason).split())[:200]
        self.rows.append((peer,) + ("",) * 9 + ("skipped", "", "", reason))
        print(f"SKIP {peer}: {reason}", flush=True)

    def wrong(self, peer, problem, difference, limit):
        self.rows.append((peer, problem) + ("",) * 8 + ("wrong", difference, "", ""))
        print(f"WRONG {peer}: {problem}: results differ by {difference:.2e}, limit {limit:.0e}; not timed", flush=True)

    def finish(self, path):
        judged = [row for row in self.rows if row[10] in ("met", "not met", "wrong")]
        if any(row[12] for row in self.rows):
            print("* other processes ran during some of the samples: measure again on a quiet machine")
        print(f"{sum(row[10] == 'met' for row in judged)} of {len(judged)} rows met")
        with open(path, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.COLUMNS)
            writer.writerows([f"{x:.6g}" if isinstance(x, float) else x for x in row] for row in self.rows)
