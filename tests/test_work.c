/* Work lists against brute force: every visible pair in one present tile, kinds of tiles, exact counts. */
#include "core/work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "oracle.h"

static nf_context *context;

static void setup(void)
{
    ck_assert_int_eq(nf_context_create(&context, NULL), NF_OK);
}

static void teardown(void)
{
    nf_context_destroy(context);
}

enum { LONGEST = 40 };

/* One random case: tables, a list cut from them, and visibility per axis by definition, in tensor indices. */
typedef struct list_case {
    char text[512];
    nf_problem problem;
    nf_grid grid;
    nf_work work;
    nf_side side;
    int64_t rows[NF_MAX_RANK], columns[NF_MAX_RANK]; /* tokens that tensors hold */
    bool sees[NF_MAX_RANK][LONGEST][LONGEST];        /* [axis][row][column] */
} list_case;

static nf_problem random_problem(uint64_t *seed)
{
    static const int64_t longest[] = {LONGEST, 12, 6, 4};
    nf_problem problem;
    nf_problem_init(&problem);
    problem.rank = (int32_t)oracle_between(seed, 1, NF_MAX_RANK);
    for (int32_t a = 0; a < problem.rank; a++)
        problem.axis[a] = oracle_axis(seed, longest[problem.rank - 1]);
    if (problem.rank == 1 && oracle_between(seed, 0, 3) == 0)
        problem.axis[0] = oracle_cross_axis(seed, LONGEST);
    problem.head_dim = problem.value_dim = 1;
    return problem;
}

static nf_work_spec random_spec(uint64_t *seed, nf_side side)
{
    nf_work_spec spec = {.rows = side, .aligned = (int32_t)oracle_between(seed, 0, 1)};
    for (int32_t a = 0; a < NF_MAX_RANK; a++) {
        spec.group[a] = (int32_t)oracle_between(seed, 1, 12);
        spec.tile[a] = (int32_t)oracle_between(seed, 1, 5);
        spec.columns[a] = (int32_t)oracle_between(seed, 1, 6);
    }
    return spec;
}

static void fill_visibility(list_case *c)
{
    for (int32_t a = 0; a < c->problem.rank; a++) {
        const nf_axis *axis = &c->problem.axis[a];
        const bool queries = c->side == NF_ROWS_QUERIES;
        c->rows[a] = queries ? oracle_query_count(axis) : oracle_key_count(axis);
        c->columns[a] = queries ? oracle_key_count(axis) : oracle_query_count(axis);
        for (int64_t r = 0; r < c->rows[a]; r++)
            for (int64_t k = 0; k < c->columns[a]; k++)
                c->sees[a][r][k] = oracle_sees(axis, oracle_query_begin(axis) + (queries ? r : k),
                                               oracle_key_begin(axis) + (queries ? k : r));
    }
}

static void create_case(list_case *c, uint64_t *seed)
{
    c->problem = random_problem(seed);
    c->side = oracle_between(seed, 0, 1) ? NF_ROWS_KEYS : NF_ROWS_QUERIES;
    const nf_work_spec spec = random_spec(seed, c->side);
    ck_assert_msg(nf_problem_check(&c->problem) == NF_OK, "%s", nf_last_error());
    ck_assert_int_eq(nf_problem_format(&c->problem, c->text, sizeof c->text, NULL), NF_OK);
    const size_t length = strlen(c->text);
    snprintf(c->text + length, sizeof c->text - length, ", %s rows", c->side == NF_ROWS_KEYS ? "key" : "query");
    ck_assert_int_eq(nf_grid_create(&c->grid, context, &c->problem), NF_OK);
    ck_assert_int_eq(nf_work_create(&c->work, context, &c->grid, &spec), NF_OK);
    fill_visibility(c);
}

static void destroy_case(list_case *c)
{
    nf_work_destroy(&c->work, context);
    nf_grid_destroy(&c->grid, context);
}

/* What brute force finds in a list. */
typedef struct tally {
    unsigned char *row_visits; /* per row of the tensor */
    unsigned char *pair_visits; /* per pair, of present tiles */
    int64_t row_count, column_count;
    double computed, masked, full, partial, absent;
    int64_t largest_group, largest_hull;
} tally;

static int64_t volume(const int64_t *extents, int32_t rank)
{
    int64_t product = 1;
    for (int32_t a = 0; a < rank; a++)
        product *= extents[a];
    return product;
}

/* The number-th position of a box: its row-major number in the tensor, and its index per axis. */
static int64_t box_position(const list_case *c, const nf_work_item *item, const nf_box *box, int64_t number, bool row,
                            int64_t *index)
{
    const int32_t rank = c->problem.rank;
    for (int32_t a = rank - 1; a >= 0; a--) {
        const int32_t size = nf_interval_size(box->axis[a]);
        const int32_t position = box->axis[a].begin + (int32_t)(number % size);
        number /= size;
        index[a] = row ? nf_class_row_index(&item->axis_class[a], c->side, position)
                       : nf_class_column_index(&item->axis_class[a], c->side, position);
        if (index[a] < 0 || index[a] >= (row ? c->rows[a] : c->columns[a]))
            ck_abort_msg("%s: %s index %ld of axis %d is outside its tensor", c->text, row ? "row" : "column",
                         (long)index[a], (int)a);
    }
    int64_t flat = 0;
    for (int32_t a = 0; a < rank; a++)
        flat = flat * (row ? c->rows[a] : c->columns[a]) + index[a];
    return flat;
}

/* Visits all pairs of one tile; returns how many are visible. */
static int64_t visit_pairs(const list_case *c, const nf_work_item *item, const nf_box *rows, const nf_box *columns,
                           unsigned char *visits, int64_t column_count)
{
    const int32_t rank = c->problem.rank;
    int64_t visible = 0;
    for (int64_t i = 0; i < nf_box_volume(rows, rank); i++) {
        int64_t row[NF_MAX_RANK], column[NF_MAX_RANK];
        const int64_t r = box_position(c, item, rows, i, true, row);
        for (int64_t j = 0; j < nf_box_volume(columns, rank); j++) {
            const int64_t k = box_position(c, item, columns, j, false, column);
            bool sees = true;
            for (int32_t a = 0; a < rank; a++)
                sees = sees && c->sees[a][row[a]][column[a]];
            visible += sees;
            if (visits)
                visits[r * column_count + k]++;
        }
    }
    return visible;
}

static void visit_tile(const list_case *c, const nf_work_item *item, const nf_box *rows, const nf_box *columns,
                       tally *t)
{
    const double pairs = (double)(nf_box_volume(rows, c->problem.rank) * nf_box_volume(columns, c->problem.rank));
    const nf_tile_kind kind = nf_work_classify(&c->work, item, rows, columns);
    unsigned char *visits = kind == NF_TILE_ABSENT ? NULL : t->pair_visits;
    const double visible = (double)visit_pairs(c, item, rows, columns, visits, t->column_count);
    const nf_tile_kind want = visible == 0 ? NF_TILE_ABSENT : visible == pairs ? NF_TILE_FULL : NF_TILE_PARTIAL;
    if (kind != want)
        ck_abort_msg("%s: a tile of kind %d has %g of %g pairs", c->text, (int)kind, visible, pairs);
    t->full += kind == NF_TILE_FULL;
    t->partial += kind == NF_TILE_PARTIAL;
    t->absent += kind == NF_TILE_ABSENT;
    t->computed += kind == NF_TILE_ABSENT ? 0 : pairs;
    t->masked += kind == NF_TILE_PARTIAL ? pairs : 0;
}

static void visit_item(const list_case *c, const nf_work_item *item, tally *t)
{
    int64_t group = 1, hull = 1;
    for (int32_t a = 0; a < c->problem.rank; a++) {
        group *= nf_interval_size(item->segment[a].rows);
        hull *= nf_interval_size(item->segment[a].hull);
    }
    t->largest_group = nf_max64(t->largest_group, group);
    t->largest_hull = nf_max64(t->largest_hull, hull);
    for (int64_t i = 0; i < nf_work_tile_count(&c->work, item); i++) {
        nf_box rows, columns;
        int64_t index[NF_MAX_RANK];
        nf_work_tile(&c->work, item, i, &rows);
        for (int64_t r = 0; r < nf_box_volume(&rows, c->problem.rank); r++)
            t->row_visits[box_position(c, item, &rows, r, true, index)]++;
        for (int64_t j = 0; j < nf_work_column_tile_count(&c->work, item); j++) {
            nf_work_column_tile(&c->work, item, j, &columns);
            visit_tile(c, item, &rows, &columns, t);
        }
    }
}

static void check_pairs(const list_case *c, const tally *t)
{
    const int32_t rank = c->problem.rank;
    double useful = 0;
    for (int64_t r = 0; r < t->row_count; r++) {
        if (t->row_visits[r] != 1)
            ck_abort_msg("%s: row %ld is in %d tiles", c->text, (long)r, t->row_visits[r]);
        for (int64_t k = 0; k < t->column_count; k++) {
            bool sees = true;
            int64_t row = r, column = k;
            for (int32_t a = rank - 1; a >= 0; a--) {
                sees = sees && c->sees[a][row % c->rows[a]][column % c->columns[a]];
                row /= c->rows[a];
                column /= c->columns[a];
            }
            const int visits = t->pair_visits[r * t->column_count + k];
            useful += sees;
            if (visits > 1 || (sees && visits == 0))
                ck_abort_msg("%s: pair (%ld, %ld) is in %d present tiles", c->text, (long)r, (long)k, visits);
        }
    }
    ck_assert_double_eq(c->work.counts.useful_pairs, useful);
    ck_assert_double_eq(nf_grid_pairs(&c->grid), useful);
}

static void check_case(const list_case *c)
{
    tally t = {.row_count = volume(c->rows, c->problem.rank), .column_count = volume(c->columns, c->problem.rank)};
    t.row_visits = calloc((size_t)t.row_count, 1);
    t.pair_visits = calloc((size_t)(t.row_count * t.column_count), 1);
    for (int64_t i = 0; i < c->work.items; i++) {
        nf_work_item item;
        nf_work_get_item(&c->work, i, &item);
        visit_item(c, &item, &t);
    }
    check_pairs(c, &t);
    const nf_work_counts *counts = &c->work.counts;
    const bool equal = counts->computed_pairs == t.computed && counts->masked_pairs == t.masked &&
                       counts->tiles_full == t.full && counts->tiles_partial == t.partial &&
                       counts->tiles_absent == t.absent && counts->group_rows == t.largest_group &&
                       counts->hull_columns == t.largest_hull;
    ck_assert_msg(equal,
                  "%s: counts of pairs %g %g, tiles %g %g %g, group %ld, hull %ld; brute force says %g %g, %g %g %g, "
                  "%ld, %ld",
                  c->text, counts->computed_pairs, counts->masked_pairs, counts->tiles_full, counts->tiles_partial,
                  counts->tiles_absent, (long)counts->group_rows, (long)counts->hull_columns, t.computed, t.masked,
                  t.full, t.partial, t.absent, (long)t.largest_group, (long)t.largest_hull);
    free(t.row_visits);
    free(t.pair_visits);
}

START_TEST(lists_equal_brute_force)
{
    static list_case c;
    uint64_t seed = 21;
    for (int i = 0; i < 3000; i++) {
        create_case(&c, &seed);
        check_case(&c);
        destroy_case(&c);
    }
}
END_TEST

/* A group's segments advance, and a group is whole tiles. */
START_TEST(segments_advance)
{
    static list_case c;
    uint64_t seed = 22;
    for (int i = 0; i < 2000; i++) {
        create_case(&c, &seed);
        for (int32_t a = 0; a < c.problem.rank; a++) {
            ck_assert_int_eq(c.work.spec.group[a] % c.work.spec.tile[a], 0);
            for (int64_t s = 1; s < c.work.segment_count[a]; s++) {
                const nf_segment *before = &c.work.segments[a][s - 1], *now = &c.work.segments[a][s];
                const bool same = now->class_index == before->class_index;
                if (now->class_index < before->class_index ||
                    (same && (now->rows.begin != before->rows.end || now->hull.begin < before->hull.begin ||
                              now->hull.end < before->hull.end)))
                    ck_abort_msg("%s: segment %ld of axis %d goes back", c.text, (long)s, (int)a);
            }
        }
        destroy_case(&c);
    }
}
END_TEST

/* Dense attention is full tiles only, causal attention half of them. */
START_TEST(dense_and_causal_counts)
{
    nf_problem problem;
    nf_grid grid;
    nf_work work;
    const nf_work_spec spec = {.group = {16}, .tile = {8}, .columns = {8}};
    for (int64_t causal = 0; causal <= 1; causal++) {
        nf_problem_init(&problem);
        problem.axis[0] = (nf_axis){.extent = 64, .stride = 1, .dilation = 1, .causal = causal};
        ck_assert_int_eq(nf_grid_create(&grid, context, &problem), NF_OK);
        ck_assert_int_eq(nf_work_create(&work, context, &grid, &spec), NF_OK);
        ck_assert_double_eq(work.counts.tiles_full, causal ? 28 : 64);
        ck_assert_double_eq(work.counts.tiles_partial, causal ? 8 : 0);
        ck_assert_double_eq(work.counts.useful_pairs, causal ? 32 * 65 : 64 * 64);
        nf_work_destroy(&work, context);
        nf_grid_destroy(&grid, context);
    }
}
END_TEST

/* The speed-up bound of Generalized NA (arXiv 2504.16922): key tiles of dense attention over those that the worst query
 * tile touches, key tiles being aligned to multiples of their size. */
static double simulated_bound(const char *text, const int32_t *query_tile, const int32_t *key_tile)
{
    nf_problem problem;
    nf_grid grid;
    nf_work work;
    nf_work_spec spec = {.columns = {1, 1, 1, 1}};
    for (int a = 0; a < 3; a++)
        spec.group[a] = spec.tile[a] = query_tile[a];
    ck_assert_msg(nf_problem_parse(&problem, text) == NF_OK, "%s", nf_last_error());
    ck_assert_int_eq(nf_grid_create(&grid, context, &problem), NF_OK);
    ck_assert_int_eq(nf_work_create(&work, context, &grid, &spec), NF_OK);
    double bound = 1;
    for (int32_t a = 0; a < grid.rank; a++) {
        const int32_t size = key_tile[a];
        int32_t worst = 1;
        for (int64_t s = 0; s < work.segment_count[a]; s++) {
            const nf_interval hull = work.segments[a][s].hull;
            worst = nf_max32(worst, (hull.end + size - 1) / size - hull.begin / size);
        }
        bound *= (double)(((int32_t)problem.axis[a].extent + size - 1) / size) / worst;
    }
    nf_work_destroy(&work, context);
    nf_grid_destroy(&grid, context);
    return bound;
}

START_TEST(published_bounds)
{
    static const struct {
        const char *problem;
        int32_t query_tile[3], key_tile[3];
        double bound;
    } published[] = {
        {"na2d d128 256x256 w80", {16, 16, 1}, {16, 8, 1}, 6.10},
        {"na2d d128 256x256 w80 s16x1", {16, 16, 1}, {16, 8, 1}, 8.53},
        {"na2d d128 256x256 w80 s16", {16, 16, 1}, {16, 8, 1}, 10.24},
        {"na3d d128 30x48x80 w18x24x24", {4, 8, 8}, {2, 8, 8}, 3.27},
        {"na3d d128 30x48x80 w18x24x24 s2x1x1", {4, 8, 8}, {2, 8, 8}, 3.60},
        {"na3d d128 30x48x80 w18x24x24 s1x1x8", {4, 8, 8}, {2, 8, 8}, 5.45},
        {"na3d d128 30x48x80 w18x24x24 s2x8x8", {4, 8, 8}, {2, 8, 8}, 10.0},
        {"na3d d128 30x48x80 w18x24x24 s16x8x8", {4, 8, 8}, {2, 8, 8}, 11.11},
        {"na3d d128 30x48x80 w18x24x24 s18x24x24", {4, 8, 8}, {2, 8, 8}, 6.67},
        {"na3d d128 16x44x80 w16x24x16", {8, 4, 8}, {4, 4, 8}, 5.24},
        {"na3d d128 16x44x80 w16x24x16 s1x8x1", {8, 4, 8}, {4, 4, 8}, 6.11},
        {"na3d d128 16x44x80 w16x24x16 s1x1x16", {8, 4, 8}, {4, 4, 8}, 7.86},
        {"na3d d128 16x44x80 w16x24x16 s1x8x16", {8, 4, 8}, {4, 4, 8}, 9.17},
    };
    for (size_t p = 0; p < sizeof published / sizeof *published; p++) {
        const double bound = simulated_bound(published[p].problem, published[p].query_tile, published[p].key_tile);
        ck_assert_msg(bound > published[p].bound - 0.005 && bound < published[p].bound + 0.005, "%s: %.3f, not %.2f",
                      published[p].problem, bound, published[p].bound);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("work");
    TCase *tests = tcase_create("work");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, lists_equal_brute_force);
    tcase_add_test(tests, segments_advance);
    tcase_add_test(tests, dense_and_causal_counts);
    tcase_add_test(tests, published_bounds);
    suite_add_tcase(suite, tests);
    return nf_test_main(suite);
}
