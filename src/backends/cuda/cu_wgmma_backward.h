/* Backward on products of warpgroups: what the roles of a block hand over to each other (as in cu_wgmma_forward.h), and
 * its loader. cu_wgmma_open.h has the openers, cu_wgmma_meet.h the consumers and the kernels.
 *
 * By query, rows are queries and columns the keys that they see: dq. By key, rows are keys, or extra tokens, and
 * columns the queries that see them, of all heads that share the keys: dk and dv. Rows and columns have lines of two
 * tensors: of q and k, which make scores, and of dout and v, which make the gradients of weights. Each walk computes
 * the weights anew, so that no sum is shared between blocks: results do not depend on their order. */
#ifndef NF_CU_WGMMA_BACKWARD_H
#define NF_CU_WGMMA_BACKWARD_H

enum { OF_SCORES, OF_WEIGHTS, KINDS };
enum {
    RING = 512 / DIMS, /* of lines of one tensor */
    STAGES = RING / KINDS,
    GROUP_BYTES = GROUP_ROWS * LINE_BYTES,
    SLOT_BYTES = KINDS * GROUPS * GROUP_BYTES,
    HALF_STEP_BYTES = STEP * LINE_BYTES,
    LINES_BYTES = SLOTS * SLOT_BYTES + RING * HALF_STEP_BYTES,
    TABLE_BYTES = 28 << 10 /* cu_wgmma_plan.c, too */
};
static_assert((int)GROUP_ROWS == STEP, "lines of a warpgroup's rows lie like those of a step");
static_assert(RING % KINDS == 0, "lines that make scores lie in the even slots");

/* What differs between the walks. */
enum { BY_QUERY, BY_KEY };
enum { ROW_TERMS = KINDS, ROW_DQ, ROW_DK = KINDS, ROW_DV, ROW_KINDS };
template <int WALK> constexpr int SECTIONS = WALK == BY_QUERY ? 2 : 1;
template <int WALK> constexpr int SUMS = WALK == BY_QUERY ? 1 : 2;
template <int WALK> constexpr int CONSUMER_REGISTERS = DIMS <= 64 ? 200 : WALK == BY_KEY ? 224 : 208;
template <int WALK> constexpr int PRODUCER_REGISTERS = DIMS <= 64 ? 104 : WALK == BY_KEY ? 56 : 88;

enum { OF_GRID, OF_EXTRA, SOURCES }; /* tokens that rows or columns are */

/* Columns that rows see, placed as terms are where these are the columns'. */
template <int WALK> struct COLUMN_HULL : HULL {
};
template <> struct COLUMN_HULL<BY_KEY> : PLACED<1> {
};

/* Steps in a row that copy from the same tensors. */
template <int WALK> struct SECTION {
    COLUMN_HULL<WALK> hull;
    int origin[RANK], between[RANK]; /* tensor index of position 0, and from one to the next */
    long first;                      /* tile of the hull, of all heads' */
    int steps;
    int source; /* of columns; by key, of rows: boxes of all queries are others than those of some */
};

/* An item. */
template <int WALK> struct OPENED {
    long index, batch, row_head, column_head; /* the first of columns of several heads */
    ITEM item;
    SECTION<WALK> section[SECTIONS<WALK>];
    SIGHT<ROWS> sight;
    LINES<ROWS, ROW_KINDS> lines;
    TERMS terms[WALK == BY_QUERY ? ROWS : 1];
    float *partial; /* not NULL: partial sums of extra tokens, of the item's first row on */
    bool stop;      /* there are no more */
    bool idle;      /* no item */
    bool careful;   /* for the second time, */
    int not_finite; /* as sums of the first were not */
};

/* Where a step lies. */
typedef struct PLACE {
    SPOT spot;
    int section;
} PLACE;

/* What a call is about: in shared memory, as those that load and open have few registers. */
template <int WALK> struct CALL {
    const long *numbers;
    char *scratch;
    const TERMS *terms;
    SOURCE rows[SOURCES][KINDS];
    const BOXES *boxes[SOURCES][KINDS]; /* of columns; by key, SOURCES are those of the rows */
    ushort *gradients[SUMS<WALK>];      /* NULL: not asked for */
};

/* After the lines: those of the rows of both slots, by tensor and warpgroup, then the ring. */
template <int WALK> struct SHARED {
    unsigned long planned[SLOTS], opened[SLOTS], closed[SLOTS], full[RING], emptied[RING];
    float lse[WALK == BY_KEY ? STAGES : 1][STEP], delta[WALK == BY_KEY ? STAGES : 1][STEP]; /* of columns */
    OPENED<WALK> slots[SLOTS];
    PLACE places[STAGES];
    long next; /* item to be opened */
    int idle;  /* slots in a row that were opened without an item */
    CALL<WALK> call;
    unsigned char not_finite[SUMS<WALK>][STEP * LINE_CHUNKS]; /* of columns: see clean_lines */
};

template <int WALK> static SHARED<WALK> *shared_tables()
{
    static_assert(sizeof(SHARED<WALK>) <= TABLE_BYTES, "tables fit");
    DYNAMIC_SHARED(memory);
    return (SHARED<WALK> *)(memory + LINES_BYTES);
}

static cu_address row_lines(int slot, int kind, int group)
{
    DYNAMIC_SHARED(memory);
    return cu_address_of(memory) + slot * SLOT_BYTES + (kind * GROUPS + group) * GROUP_BYTES;
}

static cu_address ring_lines(uint half)
{
    DYNAMIC_SHARED(memory);
    return cu_address_of(memory) + SLOTS * SLOT_BYTES + half % RING * HALF_STEP_BYTES;
}

/* ---- The loader -------------------------------------------------------------------------------------------------- */

enum { LANE_TERMS = STEP / LANES }; /* of a step's columns, that a lane copies */

static void fetch_terms(const CALL<BY_KEY> *call, const PLACED<1> *hull, const SPOT *spot, TERMS (&terms)[LANE_TERMS])
{
    UNROLLED(int i = 0; i < LANE_TERMS; i++)
    {
        const int c = LANE + i * LANES;
        const bool there = is_between(0, hull->coordinates[c], spot->limit);
        terms[i] = there ? call->terms[tile_place(hull, 0, spot) + hull->offset[0][c]] : TERMS{0, 0};
    }
}

static void put_terms(SHARED<BY_KEY> *shared, uint stage, const TERMS (&terms)[LANE_TERMS])
{
    UNROLLED(int i = 0; i < LANE_TERMS; i++)
    {
        shared->lse[stage][LANE + i * LANES] = terms[i].lse;
        shared->delta[stage][LANE + i * LANES] = terms[i].delta;
    }
}

/* By query, terms are the rows'. */
static void fetch_terms(const CALL<BY_QUERY> *, const HULL *, const SPOT *, TERMS (&)[LANE_TERMS])
{
}

static void put_terms(SHARED<BY_QUERY> *, uint, const TERMS (&)[LANE_TERMS])
{
}

/* The boxes of a section's columns, of one head. */
template <int WALK>
static void find_both(const CALL<WALK> *call, const OPENED<WALK> *o, const SECTION<WALK> *section, int head,
                      BOXES_AT (&at)[KINDS])
{
    UNROLLED(int kind = 0; kind < KINDS; kind++)
    {
        at[kind] = find_boxes(call->boxes[section->source][kind], section->origin, o->batch, o->column_head + head);
    }
}

/* The steps of a section. What a step takes is found before its slot is free. Returns the half after the last. */
template <int WALK>
static uint load_section(const CALL<WALK> *call, SHARED<WALK> *shared, const OPENED<WALK> *o, int number, uint half)
{
    const SECTION<WALK> *section = &o->section[number];
    const BOXES *const(&boxes)[KINDS] = call->boxes[section->source];
    const int bytes = section->hull.volume * PARTS * PART_LINE_BYTES;
    BOXES_AT at[KINDS];
    TERMS terms[LANE_TERMS];
    PLACE place = {{}, number};
    int head = -1;
    seek_spot(&section->hull, section->first, &place.spot);
    ROLLED for (int step = 0; step < section->steps; step++, half += KINDS)
    {
        const uint stage = half / KINDS % STAGES;
        int offset[RANK];
        for (int a = 0; a < RANK; a++)
            offset[a] = place.spot.first[a] * section->between[a];
        if (place.spot.head != head)
            find_both(call, o, section, head = place.spot.head, at);
        fetch_terms(call, &section->hull, &place.spot, terms);
        wait_for_free(shared->emptied, half, RING);
        if (LANE == 0) {
            shared->places[stage] = place;
            copy_boxes(&boxes[OF_SCORES]->map, &at[OF_SCORES], offset, bytes, ring_lines(half),
                       cu_address_of(&shared->full[half % RING]));
        }
        put_terms(shared, stage, terms);
        cu_mbarrier_arrive(cu_address_of(&shared->full[half % RING]));
        if (LANE == 0) { /* whom the slot's next use needs: another's wait might find that that is over, too */
            wait_for_free(shared->emptied, half + 1, RING);
            copy_boxes(&boxes[OF_WEIGHTS]->map, &at[OF_WEIGHTS], offset, bytes, ring_lines(half + 1),
                       cu_address_of(&shared->full[(half + 1) % RING]));
        }
        next_spot(&section->hull, STEP, &place.spot);
    }
    return half;
}

template <int WALK> static void load_steps(const CALL<WALK> *call, SHARED<WALK> *shared)
{
    uint half = 0;
    if (LANE == 0)
        fetch_maps(call->boxes[OF_GRID]);
    for (uint number = 0;; number++) {
        const OPENED<WALK> *o = &shared->slots[number % SLOTS];
        wait_for_use(shared->planned, number, SLOTS);
        if (o->stop)
            return;
        for (int i = 0; i < SECTIONS<WALK>; i++)
            if (!o->idle && o->section[i].steps)
                half = load_section(call, shared, o, i, half);
        cu_mbarrier_arrive(cu_address_of(&shared->closed[number % SLOTS]));
    }
}

#endif
