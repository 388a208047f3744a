"""What a problem string asks of FlexAttention: its tensors, and which keys a query sees, as doc/semantics.md has it."""
import collections
import re

Problem = collections.namedtuple("Problem", "dtype batch heads kv_heads head_dim value_dim axes")
Axis = collections.namedtuple("Axis", "extent window stride dilation causal")
WORD = re.compile(r"(b|h|d|w|s|dil|c|)(\d+(?:[x/]\d+)*)")


def parse(text):
    """Of "na2d bf16 h4/2 d64 56x56 w7 s2 dil3 c0x1 fwd"; None where it has more than that or is cross attention."""
    dtype, found = "f32", {}
    for word in text.split()[1:]:
        match = WORD.fullmatch(word)
        if word in ("f32", "f64", "bf16", "f16"):
            dtype = word
        elif match:
            found[match[1]] = [int(n) for n in re.split("[x/]", match[2])]
        elif word not in ("fwd", "bwd", "both"):
            return None
    rank, extents = int(text[2]), found[""]
    if len(extents) != rank:
        return None

    def each(name, default):
        values = found.get(name, [default])
        return values * rank if len(values) == 1 else values
    windows = [w or n for n, w in zip(extents, each("w", 0))]
    axes = [Axis(*axis) for axis in zip(extents, windows, each("s", 1), each("dil", 1), each("c", 0))]
    heads, dims = found.get("h", [1]), found["d"]
    return Problem(dtype, found.get("b", [1])[0], heads[0], heads[-1], dims[0], dims[-1], axes)


def tokens(problem):
    count = 1
    for axis in problem.axes:
        count *= axis.extent
    return count


def sees_on_axis(axis, query, key, clamp):
    members, same = axis.extent, True
    if axis.dilation > 1:
        members = (axis.extent - query % axis.dilation + axis.dilation - 1) // axis.dilation
        same = query % axis.dilation == key % axis.dilation
        query, key = query // axis.dilation, key // axis.dilation

    def at_most(position, bound):
        """torch.clamp takes bounds that are tensors, but not beside bounds that are numbers."""
        return clamp(position, max=bound) if isinstance(bound, int) else position - clamp(position - bound, min=0)
    ahead = axis.stride - 1 if axis.causal else axis.stride // 2
    leader = at_most(query // axis.stride * axis.stride + ahead, members - 1) if axis.stride > 1 else query
    if axis.causal:
        return same & (key >= leader - axis.window + 1) & (key <= query)
    first = at_most(clamp(leader - axis.window // 2, min=0), members - axis.window)
    return same & (key >= first) & (key < first + axis.window)


def visible(problem, clamp):
    """A mask_mod of FlexAttention; None if every query sees all. clamp is torch.clamp."""
    if all(axis.window == axis.extent and not axis.causal for axis in problem.axes):
        return None

    def sees(batch, head, query, key):
        result = True
        for axis in reversed(problem.axes):
            if axis.window < axis.extent or axis.causal:
                result = result & sees_on_axis(axis, query % axis.extent, key % axis.extent, clamp)
            query, key = query // axis.extent, key // axis.extent
        return result
    return sees
