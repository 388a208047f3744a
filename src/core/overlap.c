/* Whether strided tensors share memory.
 *
 * The byte address of an element is base + sum of index * stride. Two elements overlap iff the difference of their
 * addresses lies strictly between -size and size; that difference is itself a sum of bounded integers times strides,
 * those of equal strides merged. A depth-first search over it, largest stride first, is cut off wherever the smaller
 * strides cannot make up the distance: for nested strides, that of any sliced buffer, a handful of steps. */
#include "core/tensor.h"

#include "core/dtype.h"

enum { MOST_TERMS = 2 * NF_MAX_TENSOR_RANK, MOST_STEPS = 1 << 14 };

/* stride * x, low <= x <= high. */
typedef struct term {
    int64_t stride, low, high;
} term;

typedef struct search {
    int count;
    term terms[MOST_TERMS];
    int64_t rest_low[MOST_TERMS + 1], rest_high[MOST_TERMS + 1]; /* of the sum of terms from here on */
    int64_t above, below;                                        /* overlap iff above < difference < below */
    bool zero_counts; /* two tensors may meet at the same index of both; a tensor with itself trivially does */
    int steps;
} search;

static void add_term(search *s, int64_t stride, int64_t low, int64_t high)
{
    for (int i = 0; i < s->count; i++)
        if (s->terms[i].stride == stride) {
            s->terms[i].low += low;
            s->terms[i].high += high;
            return;
        }
    int i = s->count++;
    for (; i > 0 && s->terms[i - 1].stride < stride; i--)
        s->terms[i] = s->terms[i - 1];
    s->terms[i] = (term){stride, low, high};
}

/* Adds index * stride of a tensor (sign 1) or its negative (sign -1). */
static void add_tensor(search *s, const nf_tensor *t, int sign)
{
    const int64_t size = (int64_t)nf_dtype_size(t->dtype);
    for (int32_t i = 0; i < t->rank; i++) {
        const int64_t steps = t->extents[i] - 1;
        if (steps == 0 || t->strides[i] == 0)
            continue;
        const int64_t stride = t->strides[i] * size * sign;
        if (stride > 0)
            add_term(s, stride, 0, steps);
        else
            add_term(s, -stride, -steps, 0);
    }
}

static void sum_rests(search *s)
{
    s->rest_low[s->count] = s->rest_high[s->count] = 0;
    for (int i = s->count - 1; i >= 0; i--) {
        s->rest_low[i] = s->rest_low[i + 1] + s->terms[i].stride * s->terms[i].low;
        s->rest_high[i] = s->rest_high[i + 1] + s->terms[i].stride * s->terms[i].high;
    }
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b != 0 && a < 0);
}

/* Whether the terms from index on can bring difference between the bounds. */
static bool meets(search *s, int index, int64_t difference, bool zero)
{
    if (index == s->count)
        return difference > s->above && difference < s->below && (s->zero_counts || !zero);
    if (++s->steps > MOST_STEPS)
        return true;
    const term *t = &s->terms[index];
    const int64_t least = floor_div(s->above - difference - s->rest_high[index + 1], t->stride) + 1;
    const int64_t most = floor_div(s->below - 1 - difference - s->rest_low[index + 1], t->stride);
    for (int64_t x = least > t->low ? least : t->low; x <= most && x <= t->high; x++)
        if (meets(s, index + 1, difference + x * t->stride, zero && x == 0))
            return true;
    return false;
}

bool nf_tensor_overlaps_itself(const nf_tensor *tensor)
{
    for (int32_t i = 0; i < tensor->rank; i++)
        if (tensor->strides[i] == 0 && tensor->extents[i] > 1)
            return true;
    const int64_t size = (int64_t)nf_dtype_size(tensor->dtype);
    search s = {.above = -size, .below = size, .zero_counts = false};
    /* Dimensions of equal stride always overlap: index (1, 0) is index (0, 1). */
    for (int32_t i = 0; i < tensor->rank; i++)
        for (int32_t j = 0; j < i; j++)
            if (tensor->extents[i] > 1 && tensor->extents[j] > 1 &&
                (tensor->strides[i] == tensor->strides[j] || tensor->strides[i] == -tensor->strides[j]))
                return true;
    add_tensor(&s, tensor, 1);
    add_tensor(&s, tensor, -1);
    sum_rests(&s);
    return meets(&s, 0, 0, true);
}

bool nf_tensors_overlap(const nf_tensor *a, const nf_tensor *b)
{
    if (a->memory != b->memory)
        return false;
    if (a->memory == NF_OPENCL && a->data != b->data)
        return false;
    const int64_t a_size = (int64_t)nf_dtype_size(a->dtype), b_size = (int64_t)nf_dtype_size(b->dtype);
    search s = {.above = -a_size, .below = b_size, .zero_counts = true};
    add_tensor(&s, a, 1);
    add_tensor(&s, b, -1);
    sum_rests(&s);
    /* The difference of addresses wraps like the addresses do; only nearby tensors get further. */
    const int64_t difference =
        (int64_t)((uintptr_t)a->data - (uintptr_t)b->data) + a->offset * a_size - b->offset * b_size;
    const int64_t limit = INT64_MAX / 2;
    if (difference > limit || difference < -limit || difference + s.rest_low[0] >= b_size ||
        difference + s.rest_high[0] <= -a_size)
        return false;
    return meets(&s, 0, difference, true);
}
