"""Times Nearfield's cuda backend beside PyTorch on the same GPU; started by bench/gpu.sh.

Ours by nearfield bench, whose clock is the device's; PyTorch's by CUDA events around calls in a row. Both find their inputs
on the device, in the layout they like best, and in the caches as the run before left them."""
import argparse
import csv
import os
import subprocess
import sys

import masks

SAMPLE_SECONDS = 0.05
DENSE = ["na1d bf16 h16 d128 4096", "na1d bf16 h16 d128 8192", "na1d bf16 h16 d64 8192"]
NEIGHBORHOODS = ["na2d bf16 h8 d64 56x56 w7", "na2d bf16 h8 d64 64x64 w13", "na1d bf16 h8 d128 8192 w512",
                 "na2d bf16 h2 d128 128x128 w40", "na3d bf16 h2 d128 15x24x40 w9x12x12",
                 "na3d bf16 h2 d128 16x24x40 w8x8x8 s4x8x8"]
SPARSE = [("na1d bf16 h4 d128 16384 w2048 s2048", "na1d bf16 h4 d128 16384"),
          ("na2d bf16 h2 d128 128x128 w32 s32", "na2d bf16 h2 d128 128x128"),
          ("na3d bf16 h2 d128 16x32x32 w8x16x16 s8x16x16", "na3d bf16 h2 d128 16x32x32")]
TARGETS = {"dense": 0.70, "neighborhood": 1.0, "sparse": 0.9}
DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


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

    def seconds(self, problem):
        return float(self.row(problem)["median_s"])


class Judge:
    def __init__(self):
        self.met = self.judged = 0

    def say(self, kind, problem, ratio, what):
        met = ratio >= TARGETS[kind]
        self.judged += 1
        self.met += met
        print(f"{kind:13} {problem:46} {ratio:6.3f} {what}, target {TARGETS[kind]}: {'met' if met else 'NOT MET'}", flush=True)


def attempt(what, problem, function):
    """One problem that fails is reported; the others go on."""
    try:
        function()
    except Exception as error:
        print(f"SKIP {what} {problem}: {' '.join(str(error).split())[:200]}", flush=True)


# ---- PyTorch ---------------------------------------------------------------------------------------------------------

class Torch:
    def __init__(self, torch):
        self.torch = torch
        print(f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}")

    def inputs(self, problem):
        dtype, count = getattr(self.torch, DTYPES[problem.dtype]), masks.tokens(problem)
        shapes = ((problem.heads, problem.head_dim), (problem.kv_heads, problem.head_dim), (problem.kv_heads, problem.value_dim))
        return [self.torch.randn(problem.batch, heads, count, dims, device="cuda", dtype=dtype) for heads, dims in shapes]

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
        """Of the faster of cuDNN and flash."""
        from torch.nn.attention import SDPBackend, sdpa_kernel
        q, k, v = self.inputs(masks.parse(problem))
        best = {}
        for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
            try:
                with sdpa_kernel(backend):
                    best[backend.name] = self.seconds(
                        lambda: self.torch.nn.functional.scaled_dot_product_attention(q, k, v))
            except RuntimeError:
                pass
        if not best:
            raise RuntimeError("neither cuDNN nor flash attention runs it")
        return min((seconds, name) for name, seconds in best.items())

    def flex(self, problem):
        """Compiled, with the block mask made once."""
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention
        problem = masks.parse(problem)
        q, k, v = self.inputs(problem)
        count = masks.tokens(problem)
        mask = create_block_mask(masks.visible(problem, self.torch.clamp), None, None, count, count, device="cuda")
        self.torch._dynamo.reset()
        compiled = self.torch.compile(flex_attention)
        return self.seconds(lambda: compiled(q, k, v, block_mask=mask, enable_gqa=problem.heads != problem.kv_heads))

    def matmul(self):
        n = 8192
        a, b = (self.torch.randn(n, n, device="cuda", dtype=self.torch.bfloat16) for _ in range(2))
        print(f"cuBLAS bf16 product of {n} x {n}: {2e-12 * n ** 3 / self.seconds(lambda: a @ b):.0f} TFLOP/s")


def find_torch():
    try:
        import torch
    except ImportError as error:
        return None, f"no PyTorch: {error}"
    if not torch.cuda.is_available():
        return None, "PyTorch finds no CUDA device"
    return Torch(torch), ""


# ---- Comparisons -----------------------------------------------------------------------------------------------------

def times(ours, problem, seconds):
    row = ours.row(problem)
    return f"({row['algo']} {1e3 * ours.seconds(problem):.4f} ms, {1e3 * seconds:.4f} ms)"


def compare_dense(ours, peers, judge, problem):
    seconds, name = peers.dense(problem)
    judge.say("dense", problem, seconds / ours.seconds(problem), f"of {name.lower()} {times(ours, problem, seconds)}")


def compare_flex(ours, peers, judge, problem):
    seconds = peers.flex(problem)
    judge.say("neighborhood", problem, seconds / ours.seconds(problem),
              f"times as fast as FlexAttention {times(ours, problem, seconds)}")


def compare_sparse(ours, judge, sparse, dense):
    def flops(problem):
        row = ours.row(problem)
        return float(row["gflops"]) * float(row["median_s"])
    speedup = ours.seconds(dense) / ours.seconds(sparse)
    judge.say("sparse", sparse, speedup / (flops(dense) / flops(sparse)), f"of the FLOP ratio ({speedup:.1f} x)")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tool", required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    ours, judge = Ours(os.path.abspath(arguments.tool), arguments.repeats), Judge()
    sparse = [("na1d bf16 h1 d16 64 w16 s16", "na1d bf16 h1 d16 64")] if arguments.quick else SPARSE
    for problem, dense in sparse:
        attempt("sparse", problem, lambda: compare_sparse(ours, judge, problem, dense))
    peers, reason = find_torch()
    if peers:
        peers.matmul()
        for problem in DENSE[:1] if arguments.quick else DENSE:
            attempt("dense", problem, lambda: compare_dense(ours, peers, judge, problem))
        for problem in NEIGHBORHOODS[:1] if arguments.quick else NEIGHBORHOODS:
            attempt("neighborhood", problem, lambda: compare_flex(ours, peers, judge, problem))
    else:
        print(f"dense and neighborhood targets not measured: {reason}")
    print(f"{judge.met} of {judge.judged} targets met")


sys.exit(main())
