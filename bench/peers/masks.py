"""Which keys a query sees, as a FlexAttention mask: doc/semantics.md for problems without dilation and causality."""
import re


def parse(problem):
    """Extents, windows and strides of "na2d bf16 h2 d64 56x56 w7 s2 fwd"; None where it has more than that."""
    words = problem.split()[1:]
    grid = next(word for word in words if re.fullmatch(r"\d+(x\d+)*", word))
    extents = [int(n) for n in grid.split("x")]
    found = {"w": extents, "s": [1] * len(extents)}
    for word in words:
        match = re.fullmatch(r"([a-z]+)(\d.*)", word)
        if not match or match[1] in ("b", "h", "d") or word in ("f32", "f64", "bf16", "f16"):
            continue
        if match[1] not in found:
            return None
        numbers = [int(n) for n in match[2].split("x")]
        found[match[1]] = numbers * len(extents) if len(numbers) == 1 else numbers
    return extents, found["w"], found["s"]


def visible(extents, windows, strides, clamp):
    """A mask_mod of FlexAttention; clamp is torch.clamp."""
    def sees(batch, head, query, key):
        result = None
        for n, w, s in reversed(list(zip(extents, windows, strides))):
            leader = clamp(query % n // s * s + s // 2, max=n - 1) if s > 1 else query % n
            first = clamp(leader - w // 2, 0, n - w)
            axis = (key % n >= first) & (key % n < first + w)
            result = axis if result is None else result & axis
            query, key = query // n, key // n
        return result
    return sees
