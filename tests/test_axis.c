/* Axis tables against the published checksum, the published examples and brute force. */
#include "core/axis.h"

#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "harness.h"
#include "oracle.h"

enum { LONGEST = 24 };

static nf_context *context;

static void setup(void)
{
    ck_assert_int_eq(nf_context_create(&context, NULL), NF_OK);
}

static void teardown(void)
{
    nf_context_destroy(context);
}

static nf_axis_table table_of(const nf_axis *axis)
{
    nf_axis_table table;
    if (nf_axis_table_create(&table, context, axis) != NF_OK)
        ck_abort_msg("%s", nf_last_error());
    return table;
}

/* Calls visit for every valid whole axis of L = 2..LONGEST tokens, in the nesting of the golden check. */
static void each_axis(void (*visit)(const nf_axis *axis, void *user), void *user)
{
    for (int64_t length = 2; length <= LONGEST; length++)
        for (int64_t w = 2; w <= length; w++)
            for (int64_t d = 1; d <= length / w; d++)
                for (int64_t s = 1; s <= w; s++)
                    for (int64_t causal = 0; causal <= 1; causal++)
                        visit(&(nf_axis){.extent = length, .window = w, .stride = s, .dilation = d, .causal = causal},
                              user);
}

static void hash_axis(const nf_axis *axis, void *user)
{
    uint64_t *hash = user;
    const nf_axis_table table = table_of(axis);
    for (int64_t i = 0; i < axis->extent; i++) {
        const nf_axis_class c = nf_axis_table_class(&table, i % axis->dilation);
        const nf_interval keys = nf_class_sees(&c, NF_ROWS_QUERIES, (int32_t)(i / axis->dilation));
        const int64_t bytes[8] = {axis->extent, axis->window, axis->stride, axis->dilation, axis->causal, i,
                                  nf_class_column_index(&c, NF_ROWS_QUERIES, keys.begin), keys.end - keys.begin};
        for (int b = 0; b < 8; b++)
            *hash = (*hash ^ (uint64_t)(bytes[b] & 0xff)) * 0x100000001b3u;
    }
    nf_release(context, table.storage);
}

START_TEST(golden_checksum)
{
    uint64_t hash = 0xcbf29ce484222325u;
    each_axis(hash_axis, &hash);
    ck_assert_uint_eq(hash, 0x329f2de2ae35d458u);
}
END_TEST

/* The table of doc/semantics.md, "Golden check". */
START_TEST(published_examples)
{
    static const struct {
        nf_axis axis;
        const char *keys;
    } examples[] = {
        {{.extent = 7, .window = 4, .stride = 1, .dilation = 1}, "0..3 0..3 0..3 1..4 2..5 3..6 3..6"},
        {{.extent = 8, .window = 4, .stride = 3, .dilation = 1}, "0..3 0..3 0..3 2..5 2..5 2..5 4..7 4..7"},
        {{.extent = 10, .window = 4, .stride = 4, .dilation = 1},
         "0..3 0..3 0..3 0..3 4..7 4..7 4..7 4..7 6..9 6..9"},
        {{.extent = 11, .window = 3, .stride = 2, .dilation = 3},
         "0..6 1..7 2..8 0..6 1..7 2..8 3..9 4..10 2..8 3..9 4..10"},
        {{.extent = 8, .window = 4, .stride = 2, .dilation = 1, .causal = 1},
         "0..0 0..1 0..2 0..3 2..4 2..5 4..6 4..7"},
        {{.extent = 7, .window = 3, .stride = 1, .dilation = 2, .causal = 1}, "0..0 1..1 0..2 1..3 0..4 1..5 2..6"},
    };
    for (size_t e = 0; e < sizeof examples / sizeof *examples; e++) {
        const nf_axis *axis = &examples[e].axis;
        const nf_axis_table table = table_of(axis);
        char text[256] = "";
        for (int64_t i = 0; i < axis->extent; i++) {
            const nf_axis_class c = nf_axis_table_class(&table, i % axis->dilation);
            const nf_interval keys = nf_class_sees(&c, NF_ROWS_QUERIES, (int32_t)(i / axis->dilation));
            const size_t length = strlen(text);
            snprintf(text + length, sizeof text - length, "%s%d..%d", i ? " " : "",
                     (int)nf_class_column_index(&c, NF_ROWS_QUERIES, keys.begin),
                     (int)nf_class_column_index(&c, NF_ROWS_QUERIES, keys.end - 1));
        }
        ck_assert_str_eq(text, examples[e].keys);
        nf_release(context, table.storage);
    }
}
END_TEST

static int32_t row_count(const nf_axis_class *c, nf_side side)
{
    return side == NF_ROWS_QUERIES ? c->rule->queries : c->rule->keys;
}

static bool pair_visible(const nf_axis *axis, const nf_axis_class *c, int64_t class_index, nf_side side, int32_t row,
                         int32_t column)
{
    const int64_t r = class_index + c->step * row, k = class_index + c->step * column;
    const int64_t query = side == NF_ROWS_QUERIES ? r : k, key = side == NF_ROWS_QUERIES ? k : r;
    return oracle_sees(axis, query, key) && query >= oracle_query_begin(axis) &&
           query < oracle_query_begin(axis) + oracle_query_count(axis);
}

/* libcheck notes every assertion in a file, so inner loops assert only when they must fail. */
static void fail_pair(const nf_axis *axis, nf_side side, int64_t class_index, int32_t row, int32_t column)
{
    ck_abort_msg("L%ld/%ld w%ld s%ld d%ld c%ld q%ld:%ld k%ld:%ld: %s rows, class %ld, row %d, column %d",
                 (long)axis->extent, (long)axis->key_extent, (long)axis->window, (long)axis->stride,
                 (long)axis->dilation, (long)axis->causal, (long)axis->q_begin, (long)axis->q_count,
                 (long)axis->k_begin, (long)axis->k_count, side == NF_ROWS_QUERIES ? "query" : "key",
                 (long)class_index, row, column);
}

/* Every row of every class sees exactly the columns the definition says, and intervals never go back. Rows outside
 * their range are part of no problem. */
static void check_side(const nf_axis *axis, const nf_axis_table *table, nf_side side)
{
    for (int64_t g = 0; g < table->dilation; g++) {
        const nf_axis_class c = nf_axis_table_class(table, g);
        const int32_t columns = row_count(&c, side == NF_ROWS_QUERIES ? NF_ROWS_KEYS : NF_ROWS_QUERIES);
        const nf_interval rows = nf_class_rows(&c, side);
        nf_interval before = {0, 0};
        if (rows.end > row_count(&c, side))
            fail_pair(axis, side, g, rows.end, 0);
        for (int32_t r = rows.begin; r < rows.end; r++) {
            const nf_interval sees = nf_class_sees(&c, side, r);
            for (int32_t k = 0; k < columns; k++)
                if ((k >= sees.begin && k < sees.end) != pair_visible(axis, &c, g, side, r, k))
                    fail_pair(axis, side, g, r, k);
            if (r > rows.begin && (sees.begin < before.begin || sees.end < before.end))
                fail_pair(axis, side, g, r, sees.begin);
            before = sees;
        }
    }
}

static void check_axis(const nf_axis *axis, void *user)
{
    (void)user;
    const nf_axis_table table = table_of(axis);
    check_side(axis, &table, NF_ROWS_QUERIES);
    check_side(axis, &table, NF_ROWS_KEYS);
    nf_release(context, table.storage);
}

START_TEST(tables_and_inverse_equal_brute_force)
{
    each_axis(check_axis, NULL);
    for (int64_t length = 1; length <= LONGEST; length++)
        for (int64_t d = 1; d <= length; d++)
            check_axis(&(nf_axis){.extent = length, .window = 1, .stride = 1, .dilation = d, .causal = d & 1}, NULL);
}
END_TEST

START_TEST(window_zero_is_dense)
{
    for (int64_t length = 1; length <= LONGEST; length++)
        for (int64_t causal = 0; causal <= 1; causal++) {
            const nf_axis axis = {.extent = length, .stride = 1, .dilation = 1, .causal = causal};
            const nf_axis_table table = table_of(&axis);
            const nf_axis_class c = nf_axis_table_class(&table, 0);
            for (int32_t u = 0; u < length; u++) {
                const nf_interval keys = nf_class_sees(&c, NF_ROWS_QUERIES, u);
                ck_assert_int_eq(keys.begin, 0);
                ck_assert_int_eq(keys.end, causal ? u + 1 : length);
            }
            nf_release(context, table.storage);
        }
}
END_TEST

START_TEST(ranges_equal_brute_force)
{
    uint64_t seed = 1;
    for (int i = 0; i < 20000; i++) {
        const nf_axis axis = oracle_axis(&seed, LONGEST);
        check_axis(&axis, NULL);
    }
}
END_TEST

/* Tensor indices count from the beginning of the range. */
START_TEST(indices_follow_ranges)
{
    const nf_axis axis = {.extent = 20, .window = 3, .stride = 1, .dilation = 3, .q_begin = 7, .q_count = 6,
                          .k_begin = 5, .k_count = 11};
    const nf_axis_table table = table_of(&axis);
    bool query_seen[6] = {false}, key_seen[11] = {false};
    for (int64_t g = 0; g < 3; g++) {
        const nf_axis_class c = nf_axis_table_class(&table, g);
        for (int32_t u = c.q_begin; u < c.q_end; u++) {
            const int64_t index = nf_class_row_index(&c, NF_ROWS_QUERIES, u);
            ck_assert_int_eq(index, g + 3 * u - 7);
            query_seen[index] = true;
        }
        for (int32_t k = c.k_begin; k < c.k_end; k++) {
            const int64_t index = nf_class_column_index(&c, NF_ROWS_QUERIES, k);
            ck_assert_int_eq(index, g + 3 * k - 5);
            ck_assert_int_eq(index, nf_class_row_index(&c, NF_ROWS_KEYS, k));
            key_seen[index] = true;
        }
    }
    for (int i = 0; i < 6; i++)
        ck_assert(query_seen[i]);
    for (int i = 0; i < 11; i++)
        ck_assert(key_seen[i]);
    nf_release(context, table.storage);
}
END_TEST

START_TEST(cross_attention_equals_brute_force)
{
    uint64_t seed = 2;
    for (int i = 0; i < 5000; i++) {
        const nf_axis axis = oracle_cross_axis(&seed, LONGEST);
        check_axis(&axis, NULL);
    }
}
END_TEST

/* Without a query range the last query sees the last key; with one, query u stands at q_begin + u. */
START_TEST(cross_attention_alignment)
{
    const nf_axis aligned = {.extent = 3, .key_extent = 8, .stride = 1, .dilation = 1, .causal = 1};
    nf_axis placed = aligned;
    placed.q_begin = 2;
    placed.q_count = 3;
    const nf_axis *axes[] = {&aligned, &placed};
    const int32_t ends[2][3] = {{6, 7, 8}, {3, 4, 5}};
    for (int i = 0; i < 2; i++) {
        const nf_axis_table table = table_of(axes[i]);
        const nf_axis_class c = nf_axis_table_class(&table, 0);
        for (int32_t u = 0; u < 3; u++) {
            const nf_interval keys = nf_class_sees(&c, NF_ROWS_QUERIES, u);
            ck_assert_int_eq(keys.begin, 0);
            ck_assert_int_eq(keys.end, ends[i][u]);
        }
        nf_release(context, table.storage);
    }
}
END_TEST

static double count_pairs(const nf_axis *axis)
{
    double pairs = 0;
    for (int64_t i = oracle_query_begin(axis); i < oracle_query_begin(axis) + oracle_query_count(axis); i++)
        for (int64_t j = oracle_key_begin(axis); j < oracle_key_begin(axis) + oracle_key_count(axis); j++)
            pairs += oracle_sees(axis, i, j);
    return pairs;
}

START_TEST(grid_pairs_equal_brute_force)
{
    uint64_t seed = 3;
    for (int i = 0; i < 2000; i++) {
        nf_problem problem;
        nf_problem_init(&problem);
        problem.rank = (int32_t)oracle_between(&seed, 1, NF_MAX_RANK);
        double pairs = 1;
        for (int32_t a = 0; a < problem.rank; a++) {
            problem.axis[a] = problem.rank == 1 && i % 2 ? oracle_cross_axis(&seed, 30) : oracle_axis(&seed, 15);
            pairs *= count_pairs(&problem.axis[a]);
        }
        nf_grid grid;
        ck_assert_int_eq(nf_grid_create(&grid, context, &problem), NF_OK);
        ck_assert_double_eq(nf_grid_pairs(&grid), pairs);
        nf_grid_destroy(&grid, context);
    }
}
END_TEST

/* One table entry per token and direction, however long the axis. */
START_TEST(long_axis)
{
    const nf_axis axis = {.extent = 1 << 22, .window = 4097, .stride = 64, .dilation = 5};
    const nf_axis_table table = table_of(&axis);
    const nf_axis_class c = nf_axis_table_class(&table, 4);
    for (int32_t u = 0; u < c.q_end; u += 12345) {
        const nf_interval keys = nf_class_sees(&c, NF_ROWS_QUERIES, u);
        ck_assert_int_eq(keys.end - keys.begin, 4097);
        const nf_interval back = nf_class_sees(&c, NF_ROWS_KEYS, keys.begin);
        ck_assert(u >= back.begin && u < back.end);
    }
    nf_release(context, table.storage);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("axis");
    TCase *tests = tcase_create("axis");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, golden_checksum);
    tcase_add_test(tests, published_examples);
    tcase_add_test(tests, tables_and_inverse_equal_brute_force);
    tcase_add_test(tests, window_zero_is_dense);
    tcase_add_test(tests, ranges_equal_brute_force);
    tcase_add_test(tests, indices_follow_ranges);
    tcase_add_test(tests, cross_attention_equals_brute_force);
    tcase_add_test(tests, cross_attention_alignment);
    tcase_add_test(tests, grid_pairs_equal_brute_force);
    tcase_add_test(tests, long_axis);
    suite_add_tcase(suite, tests);
    return nf_test_main(suite);
}
