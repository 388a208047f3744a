"""Attention: what PyTorch offers on a CPU, and oneDNN's matrix product as the roof.

Every side gets its tensors in the layout it likes best: heads last for us, [batch, heads, tokens, dim] for PyTorch."""
import os
import subprocess

import masks
import nearfield
import torch
import torch.nn.functional as F

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
LIMITS = {torch.float32: 2e-4, torch.bfloat16: 6e-2}  # largest difference, of N(0, 1) data


class Case:
    """A problem with its tensors, ours planned and executed once."""

    def __init__(self, library, problem, threads):
        self.text, self.threads = problem, threads
        self.ours = nearfield.Attention(library, problem, threads)
        p = self.ours.problem
        self.dtype = {0: torch.float32, 2: torch.bfloat16}[p.dtype]
        self.backward = p.direction != 1
        self.extents = [axis.extent for axis in p.axis[:p.rank]]
        self.window = [axis.window or axis.extent for axis in p.axis[:p.rank]]
        self.tokens = int(torch.tensor(self.extents).prod())
        generator = torch.Generator().manual_seed(1)
        t = {role: torch.randn(self.ours.shape(role), generator=generator).to(self.dtype)
             for role in ("q", "k", "v") + (("dout",) if self.backward else ())}
        t["out"] = torch.empty(self.ours.shape("out"), dtype=self.dtype)
        t["lse"] = torch.empty(self.ours.shape("lse"))
        forward = {role: t[role] for role in ("q", "k", "v", "out", "lse")}
        self.forward_io = self.ours.bind(**forward)
        self.ours.forward(self.forward_io)
        if self.backward:
            for role in ("dq", "dk", "dv"):
                t[role] = torch.empty_like(t[role[1:]])
            self.backward_io = self.ours.bind(**t)
            self.ours.backward(self.backward_io)
        self.t = t
        self.theirs = {role: self.heads_first(t[role]) for role in ("q", "k", "v", "dout") if role in t}

    def heads_first(self, x):
        return x.reshape(x.shape[0], self.tokens, *x.shape[-2:]).transpose(1, 2).contiguous()

    def difference(self, role, got):
        return (self.heads_first(self.t[role]).float() - got.float()).abs().max().item()

    def limit(self, role):
        return LIMITS[self.dtype] * (1 if role == "out" else 4)

    def run_forward(self):
        self.ours.forward(self.forward_io)

    def run_backward(self):
        self.ours.backward(self.backward_io)

    def first_keys(self):
        """Per axis, the first key that each query sees."""
        return [torch.clamp(torch.arange(n) - w // 2, 0, n - w) for n, w in zip(self.extents, self.window)]

    def mask(self):
        """[tokens, tokens]: which keys each query sees."""
        visible = torch.ones(1, 1, dtype=torch.bool)
        for n, w, first in zip(self.extents, self.window, self.first_keys()):
            key = torch.arange(n)
            axis = (key[None, :] >= first[:, None]) & (key[None, :] < first[:, None] + w)
            visible = (visible[:, None, :, None] & axis[None, :, None, :]).reshape(
                visible.shape[0] * n, visible.shape[1] * n)
        return visible


def time_forward(table, timing, case, peer, function, target):
    with torch.no_grad():
        got = function()
        difference = case.difference("out", got)
        if not difference <= case.limit("out"):
            table.wrong(peer, case.text, difference, case.limit("out"))
            return
        (ours, theirs), disturbed = timing.interleave([case.run_forward, function], timing.repeats)
    table.add(peer, case.text, "fwd", case.threads, ours, theirs, target, difference, disturbed,
              case.ours.info.algo.decode())


def sdpa(table, timing, case, peer, target, mask=None):
    q, k, v = (case.theirs[role] for role in "qkv")
    time_forward(table, timing, case, peer, lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask), target)


def sdpa_backward(table, timing, case, peer, target):
    inputs = [case.theirs[role].detach().clone().requires_grad_() for role in "qkv"]
    out = F.scaled_dot_product_attention(*inputs)
    dout = case.theirs["dout"]

    def theirs():
        return torch.autograd.grad(out, inputs, dout, retain_graph=True)

    difference = max(case.difference(role, got) for role, got in zip(("dq", "dk", "dv"), theirs()))
    if not difference <= case.limit("dq"):
        table.wrong(peer, case.text, difference, case.limit("dq"))
        return
    (ours, peers), disturbed = timing.interleave([case.run_backward, theirs], timing.repeats)
    table.add(peer, case.text, "bwd", case.threads, ours, peers, target, difference, disturbed,
              case.ours.info.backward_algo.decode())


def flex(table, timing, case, peer, target):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    visible = masks.visible(case.extents, case.window, [1] * len(case.extents), torch.clamp)
    q, k, v = (case.theirs[role] for role in "qkv")
    block_mask = create_block_mask(visible, None, None, case.tokens, case.tokens, device="cpu")
    torch._dynamo.reset()
    compiled = torch.compile(flex_attention)
    time_forward(table, timing, case, peer, lambda: compiled(q, k, v, block_mask=block_mask), target)


def unfold(table, timing, case, peer, target):
    """Windows cut out of K and V, two axes; at the borders those of the nearest query further inside."""
    (height, width), (wy, wx) = case.extents, case.window
    fy, fx = case.first_keys()
    q, k, v = (case.t[role].permute(0, 3, 1, 2, 4) for role in "qkv")  # batch, heads, y, x, dim
    scale = q.shape[-1] ** -0.5

    def windows(x):
        return x.unfold(2, wy, 1).unfold(3, wx, 1)[:, :, fy][:, :, :, fx]  # batch, heads, y, x, dim, wy, wx

    def attend():
        scores = torch.einsum("bhyxd,bhyxdij->bhyxij", q, windows(k)) * scale
        p = scores.flatten(-2).softmax(-1).unflatten(-1, (wy, wx))
        return torch.einsum("bhyxij,bhyxdij->bhyxd", p, windows(v)).flatten(2, 3)

    time_forward(table, timing, case, peer, attend, target)


def onednn(table, timing, case, peer, program):
    """The roof: the product Q K^T alone, batched over heads, against our whole forward, both in GFLOP/s."""
    b, n, heads, dim = case.t["q"].shape
    dtype = "bf16" if case.dtype == torch.bfloat16 else "f32"
    shape = (b * heads, n, n, dim)
    for label, (batch, rows, columns, inner) in (("QK^T product", shape), ("large product", (1, 2048, 2048, 2048))):
        # The child is not to inherit the one processor that this thread is tied to.
        roof = subprocess.Popen([program, dtype, *map(str, (batch, rows, columns, inner))], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True,
                                env=dict(os.environ, OMP_NUM_THREADS=str(case.threads)),
                                preexec_fn=lambda: os.sched_setaffinity(0, range(os.cpu_count())))
        flops = 2.0 * batch * rows * columns * inner
        ours, theirs = [], []
        for _ in range(timing.repeats):
            (mine,), disturbed = timing.interleave([case.run_forward], 1)
            roof.stdin.write("\n")
            roof.stdin.flush()
            answer = roof.stdout.readline()
            if not answer:
                raise RuntimeError("onednn stopped")
            ours += mine
            theirs.append(float(answer) * case.ours.info.forward_flops / flops)  # as long as our operations would take
        roof.stdin.close()
        roof.wait()
        table.add(f"{peer} {label}", case.text, "fwd", case.threads, ours, theirs, None, 0.0, disturbed,
                  "roof: ratio of GFLOP/s")


MODEL = "na2d f32 h2 d32 56x56 w7"  # NAT-Mini, stage 1
COMPARISONS = [  # name, problem, how, target; "slow" is left out of quick runs
    ("FlexAttention compiled", MODEL, flex, 8),
    ("FlexAttention compiled", "na2d f32 h8 d64 64x64 w13", flex, 8),
    ("FlexAttention compiled", "na1d f32 h8 d64 4096 w31", flex, 8),
    ("FlexAttention compiled", "na2d bf16 h4 d64 56x56 w7", flex, 8),
    ("SDPA", "na1d f32 h8 d64 2048 both", sdpa, 1.2),
    ("SDPA", "na1d f32 h8 d128 2048 both", sdpa, 1.2),
    ("SDPA", "na1d bf16 h8 d64 2048 both", sdpa, 1.2),
    ("SDPA", "na1d bf16 h8 d128 2048 both", sdpa, 1.2),
    ("SDPA backward", "na1d f32 h8 d64 2048 both", sdpa_backward, 1.2),
    ("SDPA backward", "na1d f32 h8 d128 2048 both", sdpa_backward, 1.2),
    ("SDPA backward", "na1d bf16 h8 d64 2048 both", sdpa_backward, 1.2),
    ("SDPA backward", "na1d bf16 h8 d128 2048 both", sdpa_backward, 1.2),
    ("SDPA with a dense mask", MODEL, lambda t, ti, c, p, g: sdpa(t, ti, c, p, g, c.mask()), 20),
    ("unfold and einsum", MODEL, unfold, 20),
]
ROOFS = ["na1d f32 h8 d64 2048", "na1d bf16 h8 d64 2048"]


def compare(table, timing, library, threads, wanted, onednn_program):
    torch.set_num_threads(threads)
    for name, problem, how, target in COMPARISONS:
        if not wanted(name):
            continue
        try:
            case = Case(library, problem, threads)
            how(table, timing, case, name, target)
            case.ours.close()
        except Exception as error:  # a peer that fails is reported; the others go on
            table.skip(f"{name}: {problem}", error)
    for problem in ROOFS:
        if not wanted("oneDNN"):
            continue
        if not os.path.exists(onednn_program):
            table.skip("oneDNN", f"there is no {onednn_program}: run bench/peers/setup.sh")
            break
        case = Case(library, problem, threads)
        onednn(table, timing, case, "oneDNN", onednn_program)
        case.ours.close()
