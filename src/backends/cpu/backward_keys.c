#include "backends/cpu/backward_keys.h"

#include <string.h>

/* The keys of an item that one query sees on one axis, or that some of a run of queries see, counted from the first. */
static nf_interval seen_keys(const cpu_item *item, int32_t axis, int32_t first, int32_t last)
{
    const nf_axis_class *c = &item->work.axis_class[axis];
    const nf_interval keys = item->work.segment[axis].rows;
    return (nf_interval){nf_max32(nf_class_sees(c, NF_ROWS_QUERIES, first).begin, keys.begin) - keys.begin,
                         nf_min32(nf_class_sees(c, NF_ROWS_QUERIES, last).end, keys.end) - keys.begin};
}

static int64_t key_count(const cpu_item *item, int32_t axis)
{
    return nf_interval_size(item->work.segment[axis].rows);
}

/* The axis at a place of the order in which keys and queries lie. */
static int32_t axis_at(const cpu_item *item, int32_t place)
{
    return cpu_axis_at(item->walk->lead, place);
}

/* Whether each of a run of queries sees all of an interval of keys. */
static bool sees_all(const cpu_item *item, int32_t axis, nf_interval queries, nf_interval keys)
{
    const nf_interval first = seen_keys(item, axis, queries.begin, queries.begin);
    const nf_interval last = seen_keys(item, axis, queries.end - 1, queries.end - 1);
    return last.begin <= keys.begin && keys.end <= first.end;
}

cpu_key_run cpu_find_key_run(const cpu_item *item, const nf_box *queries)
{
    const int32_t rank = item->walk->work.grid->rank;
    int32_t place = 0; /* the first that keys differ on */
    while (place < rank - 1 && key_count(item, axis_at(item, place)) == 1)
        place++;
    const int32_t axis = axis_at(item, place);
    int64_t inner = 1, total;
    for (int32_t i = place + 1; i < rank; i++)
        inner *= key_count(item, axis_at(item, i));
    total = inner * key_count(item, axis);
    const nf_interval seen = seen_keys(item, axis, queries->axis[axis].begin, queries->axis[axis].end - 1);
    if (seen.begin >= seen.end)
        return (cpu_key_run){0, 0, true};
    cpu_key_run run = {.begin = seen.begin * inner / 2 * 2, .end = nf_min64((seen.end * inner + 1) / 2 * 2, total)};
    run.whole = run.begin == seen.begin * inner && run.end == seen.end * inner;
    for (int32_t a = 0; a < rank && run.whole; a++)
        run.whole = sees_all(item, a, queries->axis[a],
                             a == axis ? seen : (nf_interval){0, nf_interval_size(item->work.segment[a].rows)});
    return run;
}

static void set_bits(uint32_t *words, int64_t begin, int64_t end)
{
    for (int64_t word = begin / 32; word * 32 < end; word++) {
        const int64_t low = begin > word * 32 ? begin - word * 32 : 0, high = nf_min64(end - word * 32, 32);
        words[word] |= (uint32_t)(((UINT64_C(1) << high) - 1) & ~((UINT64_C(1) << low) - 1));
    }
}

/* The keys that a query sees on one axis: a run for each place on the axes before. */
static void mask_along(const cpu_item *item, int32_t axis, int32_t query, int64_t outer, int64_t inner, uint32_t *words)
{
    const nf_interval seen = seen_keys(item, axis, query, query);
    const int64_t extent = key_count(item, axis);
    memset(words, 0, CPU_MASK_WORDS * sizeof *words);
    for (int64_t o = 0; o < outer && seen.begin < seen.end; o++)
        set_bits(words, (o * extent + seen.begin) * inner, (o * extent + seen.end) * inner);
}

/* Multiplies the places by the queries of one more axis; from the last to the first, so that it can be done in place. */
static void extend_masks(cpu_key_masks *masks, const cpu_item *item, int32_t axis, nf_interval queries, int64_t outer,
                         int64_t inner)
{
    uint32_t along[CPU_MAX_COLUMNS][CPU_MASK_WORDS];
    const int32_t count = nf_interval_size(queries);
    for (int32_t r = 0; r < count; r++)
        mask_along(item, axis, queries.begin + r, outer, inner, along[r]);
    for (int64_t i = masks->places - 1; i >= 0; i--) {
        uint32_t before[CPU_MASK_WORDS];
        memcpy(before, masks->words + i * CPU_MASK_WORDS, sizeof before);
        for (int32_t r = 0; r < count; r++)
            for (int w = 0; w < CPU_MASK_WORDS; w++)
                masks->words[(i * count + r) * CPU_MASK_WORDS + w] = before[w] & along[r][w];
    }
    masks->places *= count;
}

/* How far apart keys lie that follow each other on the leading axis. */
static int64_t keys_apart(const cpu_item *item)
{
    int64_t apart = 1;
    for (int32_t i = 1; i < item->walk->work.grid->rank; i++)
        apart *= key_count(item, axis_at(item, i));
    return apart;
}

static void make_masks(cpu_key_masks *masks, const cpu_item *item, const nf_box *queries)
{
    const int32_t rank = item->walk->work.grid->rank;
    int64_t outer = key_count(item, axis_at(item, 0)), inner = keys_apart(item);
    memset(masks->words, 0xff, CPU_MASK_WORDS * sizeof *masks->words);
    masks->places = 1;
    masks->box = *queries;
    for (int32_t i = 1; i < rank; i++) {
        const int32_t a = axis_at(item, i);
        inner /= key_count(item, a);
        extend_masks(masks, item, a, queries->axis[a], outer, inner);
        outer *= key_count(item, a);
    }
}

static bool masks_hold(const cpu_key_masks *masks, const cpu_item *item, const nf_box *queries)
{
    bool same = masks->places > 0;
    for (int32_t i = 1; i < item->walk->work.grid->rank; i++) {
        const int32_t a = axis_at(item, i);
        same &= masks->box.axis[a].begin == queries->axis[a].begin && masks->box.axis[a].end == queries->axis[a].end;
    }
    return same;
}

void cpu_build_key_masks(cpu_key_masks *masks, const cpu_item *item, const nf_box *queries, int64_t first,
                         uint32_t *mask)
{
    const int32_t lead = axis_at(item, 0);
    const int64_t inner = keys_apart(item);
    if (!masks_hold(masks, item, queries))
        make_masks(masks, item, queries);
    for (int32_t q = queries->axis[lead].begin; q < queries->axis[lead].end; q++) {
        uint32_t run[CPU_MASK_WORDS], shifted[CPU_MASK_WORDS + 1] = {0};
        mask_along(item, lead, q, 1, inner, run);
        for (int64_t i = 0; i < masks->places; i++, mask += CPU_MASK_WORDS) {
            const int64_t words = CPU_MASK_WORDS - first / 32;
            for (int64_t w = 0; w < words; w++)
                shifted[w] = run[first / 32 + w] & masks->words[i * CPU_MASK_WORDS + first / 32 + w];
            for (int64_t w = words; w < CPU_MASK_WORDS; w++)
                shifted[w] = 0;
            for (int w = 0; w < CPU_MASK_WORDS; w++)
                mask[w] = (uint32_t)((shifted[w] | (uint64_t)shifted[w + 1] << 32) >> first % 32);
        }
    }
}
