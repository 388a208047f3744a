/* The work list: which boxes of rows meet which boxes of columns.
 *
 * A backend states box shapes; the core cuts every residue class of the rows into groups (boxes of rows that share packed
 * columns), a group into tiles (computed at once), and the columns a group sees into column tiles. Because a grid is a
 * product of axes, the list is a product too: it stores segments per axis, and an item is one segment of each. Forward
 * and dq have queries as rows; dk and dv have keys. */
#ifndef NF_CORE_WORK_H
#define NF_CORE_WORK_H

#include <stdbool.h>

#include "core/axis.h"

/* Box shapes in class positions. group is rounded up to whole tiles. Column tiles start at the first column a group sees,
 * or, if aligned, at multiples of their size: then all groups of a class meet the same tiles. */
typedef struct nf_work_spec {
    nf_side rows;
    int32_t aligned;
    int32_t group[NF_MAX_RANK];
    int32_t tile[NF_MAX_RANK];
    int32_t columns[NF_MAX_RANK];
} nf_work_spec;

/* One group on one axis: rows.begin..rows.end-1 of a class, and the hull of the columns they see (maybe empty). */
typedef struct nf_segment {
    int32_t class_index;
    nf_interval rows, hull;
} nf_segment;

/* Exact sums over the list, one batch and head. */
typedef struct nf_work_counts {
    double useful_pairs, computed_pairs, masked_pairs;
    double tiles_full, tiles_partial, tiles_absent;
    int64_t group_rows, hull_columns; /* of the largest group: bounds for buffers */
} nf_work_counts;

typedef struct nf_work {
    const nf_grid *grid;
    nf_work_spec spec;
    nf_segment *segments[NF_MAX_RANK];
    int64_t segment_count[NF_MAX_RANK];
    int64_t items; /* product of segment_count */
    nf_work_counts counts;
} nf_work;

/* One item: per axis its class and its segment. */
typedef struct nf_work_item {
    nf_axis_class axis_class[NF_MAX_RANK];
    nf_segment segment[NF_MAX_RANK];
} nf_work_item;

/* A box: per axis an interval of class positions. */
typedef struct nf_box {
    nf_interval axis[NF_MAX_RANK];
} nf_box;

typedef enum nf_tile_kind { NF_TILE_ABSENT, NF_TILE_PARTIAL, NF_TILE_FULL } nf_tile_kind;

nf_status nf_work_create(nf_work *work, const nf_context *context, const nf_grid *grid, const nf_work_spec *spec);
void nf_work_destroy(nf_work *work, const nf_context *context);

/* Items are numbered row-major over the segments, last axis fastest. */
void nf_work_get_item(const nf_work *work, int64_t index, nf_work_item *item);

/* Number of row tiles in an item, and the index-th of them, row-major. */
int64_t nf_work_tile_count(const nf_work *work, const nf_work_item *item);
void nf_work_tile(const nf_work *work, const nf_work_item *item, int64_t index, nf_box *tile);

/* Number of column tiles of an item (0 if its rows see nothing), and the index-th of them, row-major. */
int64_t nf_work_column_tile_count(const nf_work *work, const nf_work_item *item);
void nf_work_column_tile(const nf_work *work, const nf_work_item *item, int64_t index, nf_box *tile);

/* Full: every row sees every column. Absent: no row sees any. */
nf_tile_kind nf_work_classify(const nf_work *work, const nf_work_item *item, const nf_box *rows, const nf_box *columns);

static inline int32_t nf_interval_size(nf_interval i) { return i.end > i.begin ? i.end - i.begin : 0; }

static inline bool nf_interval_holds(nf_interval i, int32_t position) { return i.begin <= position && position < i.end; }

static inline int64_t nf_box_volume(const nf_box *box, int32_t rank)
{
    int64_t volume = 1;
    for (int32_t a = 0; a < rank; a++)
        volume *= nf_interval_size(box->axis[a]);
    return volume;
}

#endif
