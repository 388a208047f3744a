"""Compares Nearfield's cuda backend with PyTorch on the same GPU; started by bench/gpu.sh.

Ours by nearfield bench, whose clock is the device's; PyTorch's by CUDA events around calls in a row. Both find their inputs
on the device, in the layout they like best, and in the caches as the run before left them. All is forward."""
import argparse
import csv
import os
import re
import subprocess
import sys

import masks

SAMPLE_SECONDS = 0.05
EAGER_MASK_TOKENS = 16384  # above, what makes the mask is compiled, too: else it holds billions of pairs in memory
DENSE = ["na1d bf16 h16 d128 4096", "na1d bf16 h16 d128 8192", "na1d bf16 h16 d64 8192"]
NEIGHBORHOODS = ["na2d bf16 h8 d64 56x56 w7", "na2d bf16 h8 d64 64x64 w13", "na1d bf16 h8 d128 8192 w512",
                 "na2d bf16 h2 d128 128x128 w40", "na3d bf16 h2 d128 15x24x40 w9x12x12",
                 "na3d bf16 h2 d128 16x24x40 w8x8x8 s4x8x8"]
SPARSE = [("na1d bf16 h4 d128 16384 w2048 s2048", "na1d bf16 h4 d128 16384"),
          ("na2d bf16 h2 d128 128x128 w32 s32", "na2d bf16 h2 d128 128x128"),
          ("na3d bf16 h2 d128 16x32x32 w8x16x16 s8x16x16", "na3d bf16 h2 d128 16x32x32")]
QUICK = ("na1d bf16 h1 d16 64 w16 s16", "na1d bf16 h1 d16 64")
TARGETS = {"dense": 0.7, "neighborhood": 1.0, "sparse": 0.9}
OF = {"dense": "cuDNN's or flash attention", "neighborhood": "FlexAttention", "sparse": "the ratio of flops"}
DTYPES = {"f32": "float32", "f64": "float64", "bf16": "bfloat16", "f16": "float16"}


class Ours:
    """Rows of nearfield bench, each problem measured once."""

    def __init__(self, tool, repeats):
        self.command = [tool, "bench", "--backend", "cuda", "--no-verify", "--csv", "--repeats", str(repeats)]
        self.rows = {}

    def row(self, problem):
        if problem not in self.rows:
            said = subprocess.run(self.command + [problem + " fwd"], capture_output=True, text=True)
            if said.returncode:
                raise RuntimeError(said.stderr.strip())
            self.rows[problem] = next(csv.DictReader(said.stdout.splitlines()))
        return self.rows[problem]


def seconds(row):
    return float(row["median_s"])


class Table:
    """Of comparisons, in Markdown, and written after each: whoever started this may end it at any time."""
    HEAD = "| forward | ratio | of | target | ours, ms | its, ms |\n|---|---|---|---|---|---|\n"

    def __init__(self, path):
        self.path, self.about, self.rows = path, "", []

    def add(self, kind, problem, compare):
        """compare() returns our row, its seconds and how many times as fast we are at a ratio of 1; None: cannot be."""
        self.rows.append([kind, problem, compare, "not measured"])

    def measure(self):
        self.write()
        for row in self.rows:
            if not row[2]:
                continue
            try:
                row[3] = row[2]()
            except Exception as error:  # the others go on
                print(f"{row[1]}: {error}", file=sys.stderr)
                row[3] = "not measured: " + " ".join(str(error).split()).replace("|", "/")[:120]
            self.write()

    def write(self):
        with open(self.path + ".new", "w") as file:
            file.write(self.about + self.HEAD + "".join(map(self.line, self.rows)))
        os.replace(self.path + ".new", self.path)

    @staticmethod
    def line(row):
        kind, problem, _, found = row
        target = TARGETS[kind]
        if isinstance(found, str):
            return f"| {problem} | {found} | {OF[kind]} | {target} | | |\n"
        ours, its, due = found
        ratio = its / seconds(ours) / due
        shown = f"**{target}**" if ratio >= target else target
        of = f"{OF[kind]}, {due:.1f}" if kind == "sparse" else OF[kind]
        times = f"{1e3 * seconds(ours):.4f}, {ours['algo']} | {1e3 * its:.4f}"
        return f"| {problem} | {ratio:.3f} | {of} | {shown} | {times} |\n"


# ---- PyTorch ---------------------------------------------------------------------------------------------------------

class Torch:
    device = "cuda"

    def __init__(self):
        import torch
        if not torch.cuda.is_available():
            raise RuntimeError("PyTorch finds no CUDA device")
        self.torch = torch

    def about(self):
        n = 8192
        a, b = (self.torch.randn(n, n, device=self.device, dtype=self.torch.bfloat16) for _ in range(2))
        return (f"PyTorch {self.torch.__version__}, whose bf16 product of {n} x {n} (cuBLAS) reaches "
                f"{2e-12 * n ** 3 / self.seconds(lambda: a @ b):.0f} TFLOP/s.")

    def inputs(self, problem):
        dtype, count = getattr(self.torch, DTYPES[problem.dtype]), masks.tokens(problem)
        shapes = [(problem.heads, problem.head_dim), (problem.kv_heads, problem.head_dim),
                  (problem.kv_heads, problem.value_dim)]
        return [self.torch.randn(problem.batch, heads, count, dims, device=self.device, dtype=dtype)
                for heads, dims in shapes]

    def seconds(self, function):
        """Median of samples of calls in a row."""
        cuda = self.torch.cuda
        begin, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)

        def once(calls):
            begin.record()
            for _ in range(calls):
                function()
            end.record()
            end.synchronize()
            return begin.elapsed_time(end) / 1e3 / calls
        with self.torch.no_grad():
            once(3)
            calls = max(1, int(SAMPLE_SECONDS / max(once(3), 1e-7)))
            return sorted(once(calls) for _ in range(5))[2]

    def dense(self, problem):
        """The faster of cuDNN and flash."""
        from torch.nn.attention import SDPBackend, sdpa_kernel
        q, k, v = self.inputs(problem)
        found = []
        for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
            try:
                with sdpa_kernel(backend):
                    found.append(self.seconds(lambda: self.torch.nn.functional.scaled_dot_product_attention(q, k, v)))
            except RuntimeError:
                pass
        if not found:
            raise RuntimeError("neither cuDNN nor flash attention runs it")
        return min(found)

    def flex_call(self, problem):
        """Compiled, with the block mask made once."""
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention
        q, k, v = self.inputs(problem)
        count = masks.tokens(problem)
        self.torch._dynamo.reset()
        create = create_block_mask if count <= EAGER_MASK_TOKENS else self.torch.compile(create_block_mask)
        mask = create(masks.visible(problem, self.torch.clamp), None, None, count, count, device=self.device)
        compiled = self.torch.compile(flex_attention)
        return (q, k, v), lambda: compiled(q, k, v, block_mask=mask, enable_gqa=problem.heads != problem.kv_heads)

    def flex(self, problem):
        return self.seconds(self.flex_call(problem)[1])


def find_torch():
    try:
        return Torch(), ""
    except (ImportError, OSError, RuntimeError) as error:
        return None, str(error)


# ---- Comparisons -----------------------------------------------------------------------------------------------------

def add_sparse(table, ours, sparse, dense):
    def flops(problem):
        row = ours.row(problem)
        return float(row["gflops"]) * seconds(row)
    table.add("sparse", sparse, lambda: (ours.row(sparse), seconds(ours.row(dense)), flops(dense) / flops(sparse)))


def add_peer(table, peers, text, our_row):
    """our_row() is our side; None: there is none. Dense attention has peers of its own."""
    problem = masks.parse(text)
    kind = "neighborhood" if masks.visible(problem, None) else "dense"

    def compare():
        its = peers.flex(problem) if kind == "neighborhood" else peers.dense(problem)
        return our_row(), its, 1
    table.add(kind, text, compare if peers and our_row else None)


def add_targets(table, peers, ours, quick):
    for pair in [QUICK] if quick else SPARSE:
        add_sparse(table, ours, *pair)
    for text in QUICK if quick else DENSE + NEIGHBORHOODS:
        add_peer(table, peers, text, lambda text=text: ours.row(text))


def add_measured(table, peers, path):
    with open(path) as file:
        for row in csv.DictReader(file):
            if row["direction"] != "bwd":
                text = re.sub(" (fwd|bwd|both)$", "", row["problem"])
                add_peer(table, peers, text, (lambda row=row: row) if row["direction"] else None)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="the Markdown file")
    parser.add_argument("--tool", help="measure the targets with this nearfield program")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("measured", nargs="*", help="what bench/gpu.sh has measured of a set")
    arguments = parser.parse_args()
    peers, reason = find_torch()
    table = Table(arguments.out)
    if arguments.tool:
        table.about = (peers.about() if peers else f"PyTorch was not measured: {reason}.") + "\n\n"
        add_targets(table, peers, Ours(os.path.abspath(arguments.tool), arguments.repeats), arguments.quick)
    for path in arguments.measured:
        add_measured(table, peers, path)
    table.measure()


if __name__ == "__main__":
    main()
