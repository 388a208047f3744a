/* The unfused computation for one working type: included by verify_plain.c once with REAL float and once with REAL
 * double, where PLAIN(name) makes the functions' names, EXP, LOG and SMALLEST (normal number) are the type's. */

typedef struct PLAIN(tensor) {
    REAL *data;
    int64_t tokens, heads, dim;
} PLAIN(tensor);

typedef struct PLAIN(state) {
    const nf_problem *problem;
    const verify_plain_options *options;
    PLAIN(tensor) q, k, v, extra_k, extra_v, dout;
    PLAIN(tensor) dq, dk, dv, dextra_k, dextra_v; /* sums in the working type */
    REAL scale;
    int64_t visible, total; /* keys of the row in hand, without and with extra tokens */
    const int64_t *keys;
    REAL *p, *ds, *out;     /* of the row in hand */
    double *size;           /* score sizes before cancellation, |scale| |q| |k| */
    double *k_rms, *v_rms, *extra_k_rms, *extra_v_rms;
    verify_values *result, *unit;
    double score_max, size_max;
} PLAIN(state);

/* Values as stored in a type, or zeros. */
static PLAIN(tensor) PLAIN(import)(const verify_array *array, nf_dtype dtype, bool zero)
{
    PLAIN(tensor) tensor = {NULL, array->tokens, array->heads, array->dim};
    if (!array->data)
        return tensor;
    tensor.data = verify_alloc(array->count, sizeof(REAL));
    for (int64_t i = 0; i < array->count && !zero; i++)
        tensor.data[i] = (REAL)verify_round(dtype, array->data[i]);
    return tensor;
}

static REAL *PLAIN(at)(const PLAIN(tensor) *t, int64_t batch, int64_t token, int64_t head)
{
    return t->data + ((batch * t->tokens + token) * t->heads + head) * t->dim;
}

/* The j-th row the query in hand sees, of k or v, or of dk or dv. */
static REAL *PLAIN(seen)(const PLAIN(state) *s, const PLAIN(tensor) *grid, const PLAIN(tensor) *extra, int64_t batch,
                         int64_t j, int64_t head)
{
    return j < s->visible ? PLAIN(at)(grid, batch, s->keys[j], head) : PLAIN(at)(extra, batch, j - s->visible, head);
}

static REAL PLAIN(dot)(const REAL *a, const REAL *b, int64_t n, bool reversed)
{
    REAL sum = 0;
    if (reversed)
        for (int64_t i = n - 1; i >= 0; i--)
            sum += a[i] * b[i];
    else
        for (int64_t i = 0; i < n; i++)
            sum += a[i] * b[i];
    return sum;
}

static void PLAIN(add)(REAL *sum, REAL weight, const REAL *row, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        sum[i] += weight * row[i];
}

/* Never adds nothing: a unit of 0 tells that no pair contributes at all. */
static void PLAIN(add_size)(double *sum, double weight, const REAL *row, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        sum[i] += weight * fabs((double)row[i]) + DBL_MIN;
}

/* Root mean square, also of rows whose squares or whose norm overflow or vanish. */
static double PLAIN(rms)(const REAL *row, int64_t n)
{
    double largest = 0, sum = 0;
    for (int64_t c = 0; c < n; c++)
        if (!(fabs((double)row[c]) <= largest))
            largest = fabs((double)row[c]);
    for (int64_t c = 0; c < n && largest > 0; c++)
        sum += ((double)row[c] / largest) * ((double)row[c] / largest);
    return largest * sqrt(sum / (double)n);
}

static double *PLAIN(all_rms)(const PLAIN(tensor) *t, int64_t batch)
{
    const int64_t rows = t->data ? batch * t->tokens * t->heads : 0;
    double *rms = verify_alloc(rows, sizeof *rms);
    for (int64_t r = 0; r < rows; r++)
        rms[r] = PLAIN(rms)(t->data + r * t->dim, t->dim);
    return rms;
}

static double PLAIN(rms_seen)(const PLAIN(state) *s, const double *grid, const double *extra, int64_t batch, int64_t j,
                               int64_t head)
{
    if (j < s->visible)
        return grid[(batch * s->k.tokens + s->keys[j]) * s->k.heads + head];
    return extra[(batch * s->extra_k.tokens + j - s->visible) * s->k.heads + head];
}

/* Softmax of the row's scores into p, rounded as an unfused path would store it; returns lse. */
static REAL PLAIN(softmax)(PLAIN(state) *s, int64_t batch, int64_t kv_head, const REAL *q)
{
    const bool reversed = s->options->reversed;
    const double q_size = fabs((double)s->scale) * (double)s->q.dim * PLAIN(rms)(q, s->q.dim);
    REAL max = (REAL)-INFINITY, sum = 0;
    for (int64_t j = 0; j < s->total; j++) {
        const REAL *k = PLAIN(seen)(s, &s->k, &s->extra_k, batch, j, kv_head);
        s->p[j] = s->scale * PLAIN(dot)(q, k, s->q.dim, reversed);
        s->size[j] = q_size * PLAIN(rms_seen)(s, s->k_rms, s->extra_k_rms, batch, j, kv_head);
        if (s->p[j] > max)
            max = s->p[j];
        s->score_max = fmax(s->score_max, fabs((double)s->p[j]));
        s->size_max = fmax(s->size_max, s->size[j]);
    }
    for (int64_t i = 0; i < s->total; i++) {
        const int64_t j = reversed ? s->total - 1 - i : i;
        s->p[j] = EXP(s->p[j] - max);
        sum += s->p[j];
    }
    for (int64_t j = 0; j < s->total; j++) {
        s->p[j] /= sum;
        if (!s->options->exact)
            s->p[j] = (REAL)verify_round(s->problem->dtype, (double)s->p[j]);
    }
    return max + LOG(sum);
}

static void PLAIN(forward_row)(PLAIN(state) *s, int64_t batch, int64_t query, int64_t head, int64_t kv_head)
{
    const int64_t dim = s->v.dim;
    REAL *out = s->out;
    for (int64_t c = 0; c < dim; c++)
        out[c] = 0;
    const REAL lse = PLAIN(softmax)(s, batch, kv_head, PLAIN(at)(&s->q, batch, query, head));
    double *unit = verify_row(&s->unit->role[NF_OUT], batch, query, head);
    const double eps = verify_epsilon(s->problem->dtype), work = verify_epsilon(s->options->working);
    for (int64_t i = 0; i < s->total; i++) {
        const int64_t j = s->options->reversed ? s->total - 1 - i : i;
        const REAL *v = PLAIN(seen)(s, &s->v, &s->extra_v, batch, j, kv_head);
        PLAIN(add)(out, s->p[j], v, dim);
        PLAIN(add_size)(unit, (double)s->p[j] * (eps + work * s->size[j]) + SMALLEST, v, dim);
    }
    double *result = verify_row(&s->result->role[NF_OUT], batch, query, head);
    for (int64_t c = 0; c < dim; c++)
        result[c] = s->options->exact ? (double)out[c] : verify_round(s->problem->out_dtype, (double)out[c]);
    *verify_row(&s->result->role[NF_LSE], batch, query, head) = (double)lse;
}

/* The gradient of the scores of the row in hand into ds; the rounding each suffers replaces size. */
static void PLAIN(score_gradient)(PLAIN(state) *s, int64_t batch, int64_t query, int64_t head, int64_t kv_head)
{
    const bool reversed = s->options->reversed;
    const REAL *dout = PLAIN(at)(&s->dout, batch, query, head);
    const double *out = verify_row(&s->result->role[NF_OUT], batch, query, head);
    const double *given = verify_row(&s->result->role[NF_DOUT], batch, query, head);
    const double eps = verify_epsilon(s->problem->dtype), work = verify_epsilon(s->options->working);
    const double eps_out = verify_epsilon(s->problem->out_dtype);
    const double dim_root = sqrt((double)s->dout.dim);
    const double dp_eps = work + (s->problem->out_dtype == s->problem->dtype ? 0 : eps / dim_root);
    const REAL dlse = s->options->dlse ? (REAL)*verify_row(&s->result->role[NF_DLSE], batch, query, head) : 0;
    REAL delta = 0;
    double delta_size = fabs((double)dlse) * work, squares = 0;
    for (int64_t c = 0; c < s->dout.dim; c++) {
        delta += (REAL)given[c] * (REAL)out[c];
        delta_size += fabs(given[c] * out[c]) * work;
        squares += given[c] * out[c] * given[c] * out[c];
    }
    delta_size += eps_out * sqrt(squares);
    const double dout_size = (double)s->dout.dim * PLAIN(rms)(dout, s->dout.dim);
    delta -= dlse;
    for (int64_t j = 0; j < s->total; j++) {
        const REAL dp = PLAIN(dot)(dout, PLAIN(seen)(s, &s->v, &s->extra_v, batch, j, kv_head), s->v.dim, reversed);
        s->ds[j] = s->p[j] * (dp - delta);
        if (!s->options->exact)
            s->ds[j] = (REAL)verify_round(s->problem->dtype, (double)s->ds[j]);
        const double dp_size = dout_size * PLAIN(rms_seen)(s, s->v_rms, s->extra_v_rms, batch, j, kv_head);
        s->size[j] = fabs((double)s->ds[j]) * (eps + work * s->size[j]) +
                     (double)s->p[j] * (dp_eps * dp_size + delta_size) + SMALLEST * (dp_size + fabs((double)delta));
    }
}

static double *PLAIN(unit_seen)(const PLAIN(state) *s, int grid, int extra, int64_t batch, int64_t j, int64_t head)
{
    if (j < s->visible)
        return verify_row(&s->unit->role[grid], batch, s->keys[j], head);
    return verify_row(&s->unit->role[extra], batch, j - s->visible, head);
}

/* After forward_row, whose p and size are still there. */
static void PLAIN(backward_row)(PLAIN(state) *s, int64_t batch, int64_t query, int64_t head, int64_t kv_head)
{
    const REAL *q = PLAIN(at)(&s->q, batch, query, head), *dout = PLAIN(at)(&s->dout, batch, query, head);
    const double eps = verify_epsilon(s->problem->dtype), work = verify_epsilon(s->options->working);
    const double scale = fabs((double)s->scale);
    for (int64_t j = 0; j < s->total; j++) {
        PLAIN(add)(PLAIN(seen)(s, &s->dv, &s->dextra_v, batch, j, kv_head), s->p[j], dout, s->dout.dim);
        PLAIN(add_size)(PLAIN(unit_seen)(s, NF_DV, NF_DEXTRA_V, batch, j, kv_head),
                        (double)s->p[j] * (eps + work * s->size[j]) + SMALLEST, dout, s->dout.dim);
    }
    PLAIN(score_gradient)(s, batch, query, head, kv_head);
    for (int64_t i = 0; i < s->total; i++) {
        const int64_t j = s->options->reversed ? s->total - 1 - i : i;
        const REAL *k = PLAIN(seen)(s, &s->k, &s->extra_k, batch, j, kv_head);
        PLAIN(add)(PLAIN(at)(&s->dq, batch, query, head), s->scale * s->ds[j], k, s->k.dim);
        PLAIN(add)(PLAIN(seen)(s, &s->dk, &s->dextra_k, batch, j, kv_head), s->scale * s->ds[j], q, s->q.dim);
        PLAIN(add_size)(verify_row(&s->unit->role[NF_DQ], batch, query, head), scale * s->size[j], k, s->k.dim);
        PLAIN(add_size)(PLAIN(unit_seen)(s, NF_DK, NF_DEXTRA_K, batch, j, kv_head), scale * s->size[j], q, s->q.dim);
    }
}

static void PLAIN(export)(const PLAIN(state) *s, const PLAIN(tensor) *tensor, int role)
{
    verify_array *array = &s->result->role[role];
    for (int64_t i = 0; array->data && i < array->count; i++)
        array->data[i] = s->options->exact ? (double)tensor->data[i]
                                           : verify_round(array->shape.dtype, (double)tensor->data[i]);
}

static void PLAIN(all_rows)(PLAIN(state) *s, const verify_mask *mask, int64_t *keys)
{
    const nf_problem *problem = s->problem;
    const int64_t group = problem->heads / problem->kv_heads;
    for (int64_t i = 0; i < mask->queries; i++) {
        const int64_t query = s->options->reversed ? mask->queries - 1 - i : i;
        s->visible = verify_mask_row(mask, query, keys);
        s->total = s->visible + problem->extra;
        for (int64_t b = 0; b < problem->batch; b++)
            for (int64_t h = 0; h < problem->heads; h++) {
                if (s->total)
                    PLAIN(forward_row)(s, b, query, h, h / group);
                else
                    *verify_row(&s->result->role[NF_LSE], b, query, h) = -INFINITY;
                if (s->total && problem->direction != NF_FWD)
                    PLAIN(backward_row)(s, b, query, h, h / group);
            }
    }
}

static void PLAIN(run)(const nf_problem *problem, const verify_mask *mask, const verify_plain_options *options,
                       verify_values *result, verify_values *unit, double *score_size)
{
    const verify_array *role = result->role;
    const int64_t longest = mask->longest + problem->extra;
    const nf_dtype dtype = options->exact ? NF_F64 : problem->dtype;
    int64_t *keys = verify_alloc(mask->longest, sizeof *keys);
    PLAIN(state) s = {
        .problem = problem, .options = options, .result = result, .unit = unit, .keys = keys,
        .scale = (REAL)(problem->scale_set ? problem->scale : 1 / sqrt((double)problem->head_dim)),
        .q = PLAIN(import)(&role[NF_Q], dtype, false), .k = PLAIN(import)(&role[NF_K], dtype, false),
        .v = PLAIN(import)(&role[NF_V], dtype, false), .extra_k = PLAIN(import)(&role[NF_EXTRA_K], dtype, false),
        .extra_v = PLAIN(import)(&role[NF_EXTRA_V], dtype, false), .dout = PLAIN(import)(&role[NF_DOUT], dtype, false),
        .dq = PLAIN(import)(&role[NF_DQ], dtype, true), .dk = PLAIN(import)(&role[NF_DK], dtype, true),
        .dv = PLAIN(import)(&role[NF_DV], dtype, true), .dextra_k = PLAIN(import)(&role[NF_DEXTRA_K], dtype, true),
        .dextra_v = PLAIN(import)(&role[NF_DEXTRA_V], dtype, true),
        .p = verify_alloc(longest, sizeof(REAL)), .ds = verify_alloc(longest, sizeof(REAL)),
        .out = verify_alloc(problem->value_dim, sizeof(REAL)), .size = verify_alloc(longest, sizeof(double))};
    s.k_rms = PLAIN(all_rms)(&s.k, problem->batch);
    s.v_rms = PLAIN(all_rms)(&s.v, problem->batch);
    s.extra_k_rms = PLAIN(all_rms)(&s.extra_k, problem->batch);
    s.extra_v_rms = PLAIN(all_rms)(&s.extra_v, problem->batch);
    PLAIN(all_rows)(&s, mask, keys);
    PLAIN(tensor) *const gradient[] = {&s.dq, &s.dk, &s.dv, &s.dextra_k, &s.dextra_v};
    for (int i = 0; i < 5; i++)
        PLAIN(export)(&s, gradient[i], NF_DQ + i);
    *score_size = fmax(s.score_max, s.size_max / 100);
    PLAIN(tensor) *const owned[] = {&s.q, &s.k, &s.v, &s.extra_k, &s.extra_v, &s.dout,
                                    &s.dq, &s.dk, &s.dv, &s.dextra_k, &s.dextra_v};
    for (int i = 0; i < 11; i++)
        free(owned[i]->data);
    free(keys);
    free(s.p);
    free(s.ds);
    free(s.out);
    free(s.size);
    free(s.k_rms);
    free(s.v_rms);
    free(s.extra_k_rms);
    free(s.extra_v_rms);
}
