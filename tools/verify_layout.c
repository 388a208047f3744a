/* The strides of the layouts that `nearfield verify` runs its cases in. */
#include "verify.h"

static const char *const layout_names[VERIFY_LAYOUTS + 1] = {
    [VERIFY_CONTIGUOUS] = "contiguous", [VERIFY_HEADS_FIRST] = "heads-first", [VERIFY_PACKED] = "packed",
    [VERIFY_PADDED] = "padded", [VERIFY_PERMUTED] = "permuted", [VERIFY_NEGATIVE] = "negative",
    [VERIFY_BROADCAST] = "broadcast", [VERIFY_FAR] = "far",
};

const char *verify_layout_name(verify_layout layout)
{
    return layout_names[layout];
}

static bool is_input(int role)
{
    return role <= NF_BIAS || role == NF_DOUT || role == NF_DLSE;
}

static void order_heads_first(int *order, int rank, int role)
{
    const int heads = role == NF_LSE || role == NF_DLSE ? rank - 1 : rank - 2;
    for (int i = heads; i > 1; i--)
        order[i] = order[i - 1];
    order[1] = heads;
}

static void order_randomly(int *order, int rank, verify_random *random)
{
    for (int i = rank - 1; i > 0; i--) {
        const int j = (int)verify_random_below(random, i + 1), swapped = order[i];
        order[i] = order[j];
        order[j] = swapped;
    }
}

/* Contiguous but for one dimension, whose stride takes offsets beyond 2^32. */
static int64_t far_strides(nf_tensor *tensor, int dimension)
{
    const int64_t beyond = ((int64_t)1 << 32) + 4099, extent = tensor->extents[dimension];
    int64_t stride = 1;
    for (int i = tensor->rank - 1; i >= 0; i--) {
        tensor->strides[i] = i == dimension ? beyond / (extent > 1 ? extent - 1 : 1) : stride;
        if (i != dimension)
            stride *= tensor->extents[i];
    }
    return beyond + 2 * stride;
}

int64_t verify_layout_strides(nf_tensor *tensor, int role, verify_layout layout, int far_dimension,
                              verify_random *random, int64_t *origin)
{
    *origin = 0;
    if (layout == VERIFY_FAR)
        return far_strides(tensor, far_dimension % tensor->rank);
    const int rank = tensor->rank;
    int order[NF_MAX_TENSOR_RANK] = {0, 1, 2, 3, 4, 5, 6};
    if (layout == VERIFY_HEADS_FIRST)
        order_heads_first(order, rank, role);
    if (layout == VERIFY_PERMUTED || (layout == VERIFY_NEGATIVE && verify_random_chance(random, 50)))
        order_randomly(order, rank, random);
    const bool gaps = layout == VERIFY_PADDED, repeats = layout == VERIFY_BROADCAST && is_input(role);
    const int repeated = repeats ? (int)verify_random_below(random, rank) : -1;
    int64_t stride = gaps && verify_random_chance(random, 30) ? verify_random_between(random, 2, 3) : 1;
    for (int i = rank - 1; i >= 0; i--) {
        const int dimension = order[i];
        const int64_t extent = tensor->extents[dimension];
        tensor->strides[dimension] = dimension == repeated ? 0 : stride;
        if (dimension == repeated)
            continue;
        if (layout == VERIFY_NEGATIVE && verify_random_chance(random, 50)) {
            *origin += (extent - 1) * stride;
            tensor->strides[dimension] = -stride;
        }
        stride = stride * extent + (gaps ? verify_random_below(random, 4) : 0);
    }
    return stride;
}
