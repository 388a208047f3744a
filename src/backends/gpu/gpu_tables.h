/* Where a plan's numbers lie in the tables that its kernels read. Both sides read this file: C, and the program, of
 * whose text it is a part. So it holds nothing but enumerations.
 *
 * Tables are a header of int64 and then arrays of int32, which are found by their index among the int32 of the whole.
 */
#ifndef NF_GPU_TABLES_H
#define NF_GPU_TABLES_H

enum { GPU_MAX_RANK = 4 };

/* Tensors in the order of nf_role; delta and scores of our own follow. Scores have slots for the dimension. */
enum {
    GPU_Q,
    GPU_K,
    GPU_V,
    GPU_EXTRA_K,
    GPU_EXTRA_V,
    GPU_BIAS,
    GPU_OUT,
    GPU_LSE,
    GPU_DOUT,
    GPU_DLSE,
    GPU_DQ,
    GPU_DK,
    GPU_DV,
    GPU_DEXTRA_K,
    GPU_DEXTRA_V,
    GPU_SCORES,
    GPU_DSCORES,
    GPU_DELTA,
    GPU_OWN,
    GPU_TENSORS
};

/* Strides of a tensor, in elements; axes that it lacks have 0. */
enum {
    GPU_STRIDE_BATCH,
    GPU_STRIDE_AXIS,
    GPU_STRIDE_HEAD = GPU_STRIDE_AXIS + GPU_MAX_RANK,
    GPU_STRIDE_DIM,
    GPU_STRIDES
};

/* A walk: items are products of one segment per axis. */
enum {
    GPU_WALK_ITEMS,                                      /* of one batch and head */
    GPU_WALK_COUNT,                                      /* segments per axis */
    GPU_WALK_SEGMENTS = GPU_WALK_COUNT + GPU_MAX_RANK,   /* where they lie */
    GPU_WALK_COLUMNS = GPU_WALK_SEGMENTS + GPU_MAX_RANK, /* extents of a column tile */
    GPU_WALK_WORDS = GPU_WALK_COLUMNS + GPU_MAX_RANK
};

/* The header. */
enum {
    GPU_SCALE, /* bits of a REAL */
    GPU_BATCH,
    GPU_HEADS,
    GPU_KV_HEADS,
    GPU_HEAD_DIM,
    GPU_VALUE_DIM,
    GPU_OUT_TYPE, /* nf_dtype of out and its gradient */
    GPU_EXTRA,
    GPU_QUERIES,                                /* of one batch and head */
    GPU_QUERY_EXTENT,                           /* per axis, those that tensors hold */
    GPU_STEP = GPU_QUERY_EXTENT + GPU_MAX_RANK, /* dilation per axis */
    GPU_TENSOR = GPU_STEP + GPU_MAX_RANK,
    GPU_BY_QUERY = GPU_TENSOR + GPU_TENSORS * GPU_STRIDES,
    GPU_BY_KEY = GPU_BY_QUERY + GPU_WALK_WORDS,
    GPU_SPLITS = GPU_BY_KEY + GPU_WALK_WORDS, /* parts of the queries for the gradients of extra tokens */
    GPU_SCRATCH_DELTA,                        /* byte offsets into the scratch buffer */
    GPU_SCRATCH_PARTIAL,
    GPU_SCRATCH_GROUPS,
    GPU_SCRATCH_GROUP_BYTES, /* of one group */
    GPU_SCRATCH_SCORES,
    GPU_SCRATCH_DSCORES,
    GPU_SLOTS, /* of a query, extra tokens' included; from here on, where scores are kept */
    GPU_KEYS,  /* of one batch and head */
    GPU_KEY_EXTENT,
    GPU_WINDOW = GPU_KEY_EXTENT + GPU_MAX_RANK, /* slots per axis */
    GPU_SIGHT = GPU_WINDOW + GPU_MAX_RANK,      /* per axis, where the entries of queries lie, by tensor index */
    GPU_INVERSE = GPU_SIGHT + GPU_MAX_RANK,     /* those of keys */
    GPU_HEADER = GPU_INVERSE + GPU_MAX_RANK
};

/* What a query sees on an axis. */
enum {
    GPU_SIGHT_FIRST,  /* the key of slot 0: its class position, */
    GPU_SIGHT_ORIGIN, /* and its tensor index, negative if that lies before the range */
    GPU_SIGHT_BEGIN,  /* slots that exist */
    GPU_SIGHT_END,
    GPU_SIGHT_WORDS
};

/* What sees a key on an axis. */
enum {
    GPU_INVERSE_POSITION, /* of the key in its class */
    GPU_INVERSE_QUERY,    /* tensor index of the first query */
    GPU_INVERSE_COUNT,    /* of queries, a step apart */
    GPU_INVERSE_WORDS
};

/* The table of a merge of partial results. Tensors follow the header: their offsets and strides, in elements. */
enum {
    GPU_MERGE_AXES, /* of rows */
    GPU_MERGE_ROWS,
    GPU_MERGE_DIM,
    GPU_MERGE_EXTENT, /* per axis */
    GPU_MERGE_MAX_AXES = GPU_MAX_RANK + 2,
    GPU_MERGE_TENSORS = GPU_MERGE_EXTENT + GPU_MERGE_MAX_AXES
};
enum {
    GPU_MERGE_OFFSET,
    GPU_MERGE_STRIDE_AXIS,
    GPU_MERGE_STRIDE_DIM = GPU_MERGE_STRIDE_AXIS + GPU_MERGE_MAX_AXES,
    GPU_MERGE_WORDS
};

/* A segment: rows begin .. begin + count - 1 of a class on one axis. Rows and columns are class positions. */
enum {
    GPU_SEGMENT_BEGIN,
    GPU_SEGMENT_COUNT,
    GPU_SEGMENT_HULL_BEGIN, /* columns that one of the rows sees */
    GPU_SEGMENT_HULL_END,
    GPU_SEGMENT_FULL_BEGIN, /* columns that all of them see */
    GPU_SEGMENT_FULL_END,
    GPU_SEGMENT_FIRST,      /* where the first columns that rows see lie, of row 0 on, ranges not applied */
    GPU_SEGMENT_END,        /* where the ends lie */
    GPU_SEGMENT_COLUMN_MIN, /* the range of columns */
    GPU_SEGMENT_COLUMN_MAX,
    GPU_SEGMENT_ROW_ORIGIN, /* tensor index of row 0 */
    GPU_SEGMENT_COLUMN_ORIGIN,
    GPU_SEGMENT_WORDS
};

#endif
