/* Products of warpgroups: each is computed once, over what all 128 threads brought. */
#include "warpgroup.h"

#include <math.h>
#include <string.h>

enum {
    LINE = 128,
    PATTERN = 1024,
    LINES_OF_PATTERN = PATTERN / LINE,
    ELEMENT = 2,
    WARP_ROWS = 16,
    BLOCK_COLUMNS = 8,
    SUMS = 4
};

static host_warpgroup *here()
{
    return &host_async_here()->warpgroups[host_thread.x / HOST_WARPGROUP];
}

/* ---- Operands in shared memory ----------------------------------------------------------------------------------- */

struct lines {
    unsigned first, wide, next;
};

static bool read_lines(lines *to, uint64_t bits)
{
    const unsigned field = 0x3fff, unit = 16;
    *to = {static_cast<unsigned>(bits & field) * unit, static_cast<unsigned>(bits >> 16 & field) * unit,
           static_cast<unsigned>(bits >> 32 & field) * unit};
    const uint64_t known = field | static_cast<uint64_t>(field) << 16 | static_cast<uint64_t>(field) << 32;
    if ((bits & ~known) == UINT64_C(1) << 62 && to->first % PATTERN < LINE && to->next % PATTERN == 0)
        return true;
    host_fault("lines are not as cu_lines_at makes them, or not aligned");
    return false;
}

/* The 8 numbers at an address, which is of unpermuted lines. */
static void load_chunk(float to[BLOCK_COLUMNS], unsigned address, float (*load)(uint16_t))
{
    uint16_t numbers[BLOCK_COLUMNS] = {};
    const unsigned line = address / LINE % LINES_OF_PATTERN;
    const unsigned place = address ^ line * HOST_CHUNK;
    unsigned char *chunk = host_bytes_at(place, HOST_CHUNK, HOST_CHUNK);
    if (chunk) {
        host_touch(place, HOST_CHUNK);
        told_read(chunk, HOST_CHUNK);
        memcpy(numbers, chunk, sizeof numbers);
    }
    for (int i = 0; i < BLOCK_COLUMNS; i++)
        to[i] = load(numbers[i]);
}

/* Lines of what is not summed over: to[line][term]. */
static void load_lines(float (*to)[HOST_TERMS], const lines *l, int count, float (*load)(uint16_t))
{
    if (l->first % LINE + HOST_TERMS * ELEMENT > LINE)
        host_fault("numbers of lines are summed over that the lines do not have");
    for (int i = 0; i < count; i++)
        for (int term = 0; term < HOST_TERMS; term += BLOCK_COLUMNS)
            load_chunk(&to[i][term],
                       l->first + static_cast<unsigned>(i / LINES_OF_PATTERN) * l->next +
                           static_cast<unsigned>(i % LINES_OF_PATTERN * LINE + ELEMENT * term),
                       load);
}

/* Lines of what is summed over: to[line][column]. */
static void load_across(float (*to)[HOST_COLUMNS], const lines *l, int columns, float (*load)(uint16_t))
{
    const int width = LINE / ELEMENT;
    if (l->first % LINE || (columns > width && l->wide % PATTERN))
        host_fault("lines that are summed over are not aligned");
    for (int i = 0; i < HOST_TERMS; i++)
        for (int column = 0; column < columns; column += BLOCK_COLUMNS)
            load_chunk(&to[i][column],
                       l->first + static_cast<unsigned>(column / width) * l->wide +
                           static_cast<unsigned>(i / LINES_OF_PATTERN) * l->next +
                           static_cast<unsigned>(i % LINES_OF_PATTERN * LINE + ELEMENT * (column % width)),
                       load);
}

/* ---- Products ---------------------------------------------------------------------------------------------------- */

static void load_registers(float (*to)[HOST_TERMS], const unsigned *const *a, float (*load)(uint16_t))
{
    for (int i = 0; i < HOST_WARPGROUP; i++) {
        const int row = i / HOST_LANES * WARP_ROWS + i % HOST_LANES / 4, term = i % 4 * 2;
        for (int r = 0; r < 4; r++)
            for (int half = 0; half < 2; half++)
                to[row + r % 2 * 8][term + r / 2 * 8 + half] = load(static_cast<uint16_t>(a[i][r] >> 16 * half));
    }
}

static void load_factors(host_operands *o, const host_product *p)
{
    const host_factors *f = &p->factors;
    lines a = {}, b = {};
    if (!read_lines(&b, f->b) || (!f->across && !read_lines(&a, f->a)))
        return;
    if (f->across) {
        load_registers(o->a, p->a, f->load);
        load_across(o->b, &b, f->columns, f->load);
        return;
    }
    load_lines(o->a, &a, HOST_ROWS, f->load);
    load_lines(o->columns, &b, f->columns, f->load);
    for (int term = 0; term < HOST_TERMS; term++)
        for (int column = 0; column < f->columns; column++)
            o->b[term][column] = o->columns[column][term];
}

/* Where a thread has a sum: sums[4 block + r]. */
static float *sum_of(host_operands *o, int thread, int block, int r)
{
    const int row = thread / HOST_LANES * WARP_ROWS + thread % HOST_LANES / 4 + r / 2 * 8;
    return &o->sums[row][block * BLOCK_COLUMNS + thread % 4 * 2 + r % 2];
}

static void run(const host_product *p)
{
    host_operands *o = &host_async_here()->operands;
    const int columns = p->factors.columns, blocks = columns / BLOCK_COLUMNS;
    load_factors(o, p);
    for (int i = 0; i < HOST_WARPGROUP; i++)
        for (int block = 0; block < blocks; block++)
            for (int r = 0; r < SUMS; r++)
                *sum_of(o, i, block, r) = p->factors.add ? p->sums[i][block * SUMS + r] : 0;
    for (int row = 0; row < HOST_ROWS; row++)
        for (int term = 0; term < HOST_TERMS; term++)
            for (int column = 0; column < columns; column++)
                o->sums[row][column] += o->a[row][term] * o->b[term][column];
    for (int i = 0; i < HOST_WARPGROUP; i++)
        for (int block = 0; block < blocks; block++)
            for (int r = 0; r < SUMS; r++)
                p->sums[i][block * SUMS + r] = *sum_of(o, i, block, r);
}

struct brought {
    float *sums;
    const unsigned *a;
    const host_factors *factors;
};

static bool are_same(const host_factors *one, const host_factors *other)
{
    return one->a == other->a && one->b == other->b && one->add == other->add && one->columns == other->columns &&
           one->across == other->across && one->load == other->load;
}

static void spoil(const host_product *p)
{
    for (int i = 0; i < HOST_WARPGROUP; i++)
        for (int j = 0; j < p->factors.columns / BLOCK_COLUMNS * SUMS; j++)
            p->sums[i][j] = NAN;
}

static void begin_product(void *const *threads)
{
    host_warpgroup *w = here();
    const brought *first = static_cast<brought *>(threads[0]);
    if (!w->begun)
        host_fault("a product is begun without cu_wgmma_begin since the last wait");
    if (w->count == HOST_PRODUCTS) {
        host_fault("too many products are pending");
        return;
    }
    host_product *p = &w->pending[w->count++];
    p->factors = *first->factors;
    p->group = w->groups;
    for (int i = 0; i < HOST_WARPGROUP; i++) {
        const brought *b = static_cast<brought *>(threads[i]);
        if (!are_same(b->factors, first->factors))
            host_fault("threads of a warpgroup bring different products");
        p->sums[i] = b->sums;
        p->a[i] = b->a;
    }
    if (host_lands_early())
        run(p);
    else if (!p->factors.add)
        spoil(p);
}

void host_multiply(float *sums, const unsigned *a, const host_factors *factors)
{
    brought mine = {sums, a, factors};
    host_gather(begin_product, &mine);
}

static void begin_products(void *const *)
{
    here()->begun = true;
}

void host_products_begin()
{
    host_gather(begin_products, nullptr);
}

static void commit(void *const *)
{
    here()->groups++;
}

void host_products_commit()
{
    host_gather(commit, nullptr);
}

static void begin_wait(void *const *threads)
{
    host_warpgroup *w = here();
    const int pending = *static_cast<int *>(threads[0]);
    for (int i = 0; i < HOST_WARPGROUP; i++)
        if (*static_cast<int *>(threads[i]) != pending)
            host_fault("threads of a warpgroup wait for different products");
    for (w->due = 0; w->due < w->count && w->pending[w->due].group < w->groups - pending;)
        w->due++;
    w->begun = false;
}

static void end_wait(void *const *)
{
    host_warpgroup *w = here();
    for (int i = 0; i < w->due && !host_lands_early(); i++)
        run(&w->pending[i]);
    w->count -= w->due;
    memmove(w->pending, w->pending + w->due, static_cast<size_t>(w->count) * sizeof *w->pending);
}

void host_products_wait(int pending)
{
    const host_warpgroup *w = here();
    host_gather(begin_wait, &pending);
    if (w->due && !host_lands_early())
        host_park(w);
    host_gather(end_wait, nullptr);
}

bool host_run_for(const void *warpgroup)
{
    const host_warpgroup *first = host_async_here()->warpgroups;
    if (warpgroup < first || warpgroup >= first + HOST_MOST_THREADS / HOST_WARPGROUP)
        return false;
    host_wake(warpgroup);
    return true;
}

static void only_gather(void *const *)
{
}

void host_gather_only()
{
    host_gather(only_gather, nullptr);
}

void host_end_of_products()
{
    if (here()->count)
        host_fault("a thread has ended before its products have");
}
