/* Problem strings, reading. Grammar: nearfield-problem(7). Input is hostile: words are not NUL-terminated, numbers may
 * overflow. Writing is in problem_format.c. */
#include "core/problem.h"

#include <stdio.h>
#include <string.h>

#include "core/check.h"
#include "core/dtype.h"
#include "core/number.h"
#include "core/problem_text.h"
#include "core/status.h"

enum {
    LONGEST_STRING = 4096, /* far beyond any sensible problem; longer input is hostile */
    LONGEST_SHOWN = 40     /* of a word, in error sentences */
};

/* What a word sets. Each may be set once. */
typedef enum key {
    KEY_RANK,
    KEY_DTYPE,
    KEY_OUT,
    KEY_BATCH,
    KEY_HEADS,
    KEY_DIM,
    KEY_EXTENTS,
    KEY_WINDOW,
    KEY_STRIDE,
    KEY_DILATION,
    KEY_CAUSAL,
    KEY_QUERIES,
    KEY_KEYS,
    KEY_EXTRA,
    KEY_SCALE,
    KEY_DIRECTION,
    KEY_UNKNOWN
} key;

static const char *const key_titles[] = {
    [KEY_RANK] = "the rank",
    [KEY_DTYPE] = "the element type",
    [KEY_OUT] = "the output type",
    [KEY_BATCH] = "the batch",
    [KEY_HEADS] = "the number of heads",
    [KEY_DIM] = "the head dimension",
    [KEY_EXTENTS] = "the grid",
    [KEY_WINDOW] = "the window",
    [KEY_STRIDE] = "the stride",
    [KEY_DILATION] = "the dilation",
    [KEY_CAUSAL] = "the causal flag",
    [KEY_QUERIES] = "the query range",
    [KEY_KEYS] = "the key range",
    [KEY_EXTRA] = "the number of extra tokens",
    [KEY_SCALE] = "the scale",
    [KEY_DIRECTION] = "the direction",
};

typedef struct key_name {
    const char *name;
    key key;
} key_name;

/* Whole words; and names that a value follows. */
static const key_name words[] = {
    {"na1d", KEY_RANK},     {"na2d", KEY_RANK},     {"na3d", KEY_RANK},      {"na4d", KEY_RANK},
    {"f32", KEY_DTYPE},     {"f64", KEY_DTYPE},     {"bf16", KEY_DTYPE},     {"f16", KEY_DTYPE},
    {"fwd", KEY_DIRECTION}, {"bwd", KEY_DIRECTION}, {"both", KEY_DIRECTION}, {NULL, KEY_UNKNOWN},
};
static const key_name prefixes[] = {
    {"b", KEY_BATCH},      {"h", KEY_HEADS},      {"d", KEY_DIM},      {"w", KEY_WINDOW}, {"s", KEY_STRIDE},
    {"dil", KEY_DILATION}, {"c", KEY_CAUSAL},     {"q", KEY_QUERIES},  {"k", KEY_KEYS},   {"x", KEY_EXTRA},
    {"out=", KEY_OUT},     {"scale=", KEY_SCALE}, {NULL, KEY_UNKNOWN},
};

typedef struct parser {
    nf_problem problem;
    const char *word; /* being read, not NUL-terminated */
    size_t length;
    const char *next; /* unread part of the word */
    unsigned seen;    /* bit per key */
} parser;

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static nf_status fail_word(const parser *p, const char *rule)
{
    const bool cut = p->length > LONGEST_SHOWN;
    return nf_fail(NF_ERR_PARSE, "'%.*s%s': %s", cut ? LONGEST_SHOWN : (int)p->length, p->word, cut ? "..." : "", rule);
}

static bool at_end(const parser *p)
{
    return p->next == p->word + p->length;
}

/* Takes c if it is next. */
static bool take(parser *p, char c)
{
    if (at_end(p) || *p->next != c)
        return false;
    p->next++;
    return true;
}

static nf_status take_number(parser *p, int64_t *value)
{
    if (at_end(p) || !is_digit(*p->next))
        return fail_word(p, "a non-negative integer is missing");
    int64_t sum = 0;
    for (; !at_end(p) && is_digit(*p->next); p->next++)
        if (__builtin_mul_overflow(sum, 10, &sum) || __builtin_add_overflow(sum, *p->next - '0', &sum))
            return fail_word(p, "a number exceeds 2^63 - 1");
    *value = sum;
    return NF_OK;
}

static nf_status take_end(const parser *p)
{
    return at_end(p) ? NF_OK : fail_word(p, "unexpected characters at the end of the word");
}

/* N or N/M; without a slash both are N. */
static nf_status take_pair(parser *p, int64_t *first, int64_t *second)
{
    nf_status status = take_number(p, first);
    *second = *first;
    if (status == NF_OK && take(p, '/'))
        status = take_number(p, second);
    return status == NF_OK ? take_end(p) : status;
}

/* AxBx..: one value per axis; or one for all, where that is allowed. With second, each value is A:B. */
static nf_status take_list(parser *p, bool scalar_allowed, int64_t first[NF_MAX_RANK], int64_t second[NF_MAX_RANK])
{
    const int32_t rank = p->problem.rank;
    int32_t count = 0;
    do {
        if (count == rank)
            return fail_word(p, "more values than axes");
        nf_status status = take_number(p, &first[count]);
        if (status == NF_OK && second)
            status = take(p, ':') ? take_number(p, &second[count]) : fail_word(p, "a range is written begin:count");
        if (status != NF_OK)
            return status;
        count++;
    } while (take(p, 'x'));
    if (count < rank && !(count == 1 && scalar_allowed))
        return fail_word(p, "fewer values than axes");
    for (; count < rank; count++)
        first[count] = first[0];
    return take_end(p);
}

static nf_status read_extents(parser *p)
{
    nf_axis *axis = p->problem.axis;
    if (p->problem.rank == 1 && memchr(p->word, '/', p->length)) {
        const nf_status status = take_pair(p, &axis->extent, &axis->key_extent);
        if (axis->key_extent == axis->extent)
            axis->key_extent = 0;
        return status;
    }
    int64_t extents[NF_MAX_RANK];
    const nf_status status = take_list(p, false, extents, NULL);
    for (int32_t a = 0; status == NF_OK && a < p->problem.rank; a++)
        axis[a].extent = extents[a];
    return status;
}

static int64_t *axis_field(nf_axis *axis, key k)
{
    switch (k) {
    case KEY_WINDOW:
        return &axis->window;
    case KEY_STRIDE:
        return &axis->stride;
    case KEY_DILATION:
        return &axis->dilation;
    default:
        return &axis->causal;
    }
}

static nf_status read_per_axis(parser *p, key k)
{
    int64_t values[NF_MAX_RANK];
    const nf_status status = take_list(p, true, values, NULL);
    for (int32_t a = 0; status == NF_OK && a < p->problem.rank; a++)
        *axis_field(&p->problem.axis[a], k) = values[a];
    return status;
}

static nf_status read_ranges(parser *p, key k)
{
    int64_t begins[NF_MAX_RANK], counts[NF_MAX_RANK];
    const nf_status status = take_list(p, false, begins, counts);
    for (int32_t a = 0; status == NF_OK && a < p->problem.rank; a++) {
        nf_axis *axis = &p->problem.axis[a];
        *(k == KEY_QUERIES ? &axis->q_begin : &axis->k_begin) = begins[a];
        *(k == KEY_QUERIES ? &axis->q_count : &axis->k_count) = counts[a];
    }
    return status;
}

static nf_status read_scale(parser *p)
{
    if (!nf_number_parse(p->next, (size_t)(p->word + p->length - p->next), &p->problem.scale))
        return fail_word(p, "a finite decimal number must follow 'scale='");
    p->problem.scale_set = 1;
    return NF_OK;
}

static bool word_is(const char *word, size_t length, const char *name)
{
    return strlen(name) == length && memcmp(word, name, length) == 0;
}

static nf_status read_dtype(parser *p, nf_dtype *dtype)
{
    const size_t length = (size_t)(p->word + p->length - p->next);
    for (int i = NF_F32; i <= NF_F16; i++)
        if (word_is(p->next, length, nf_dtype_name((nf_dtype)i))) {
            *dtype = (nf_dtype)i;
            return NF_OK;
        }
    return fail_word(p, "an element type must follow: f32, f64, bf16 or f16");
}

static nf_status read_direction(parser *p)
{
    for (int i = NF_FWD; i <= NF_BOTH; i++)
        if (word_is(p->word, p->length, nf_direction_name((nf_direction)i)))
            p->problem.direction = (nf_direction)i;
    return NF_OK;
}

/* Letters at the start of the word, and '=' behind them. */
static size_t key_length(const parser *p)
{
    size_t length = 0;
    while (length < p->length && is_letter(p->word[length]))
        length++;
    return length < p->length && p->word[length] == '=' ? length + 1 : length;
}

/* Finds the key of a word and places next after its name. */
static key find_key(parser *p)
{
    p->next = p->word;
    if (is_digit(*p->word))
        return KEY_EXTENTS;
    for (int i = 0; words[i].name; i++)
        if (word_is(p->word, p->length, words[i].name))
            return words[i].key;
    const size_t length = key_length(p);
    for (int i = 0; prefixes[i].name; i++)
        if (word_is(p->word, length, prefixes[i].name)) {
            p->next = p->word + length;
            return prefixes[i].key;
        }
    return KEY_UNKNOWN;
}

/* The numbers behind a key say nothing about which key was meant; the digits of f32 or na2d do. */
static nf_status fail_unknown(const parser *p)
{
    const char *whole[32], *key_only[32];
    size_t count = 0, unlike_whole, unlike_key;
    for (; words[count].name; count++)
        whole[count] = words[count].name;
    whole[count] = NULL;
    for (count = 0; prefixes[count].name; count++)
        key_only[count] = prefixes[count].name;
    key_only[count] = NULL;
    const char *word = nf_nearest(p->word, p->length, whole, &unlike_whole);
    const char *prefix = nf_nearest(p->word, key_length(p), key_only, &unlike_key);
    char rule[64];
    snprintf(rule, sizeof rule, "unknown key; the nearest is '%s'", unlike_whole <= unlike_key ? word : prefix);
    return fail_word(p, rule);
}

static nf_status read_word(parser *p)
{
    const key k = find_key(p);
    if (k == KEY_UNKNOWN)
        return fail_unknown(p);
    if (p->seen & 1u << k) {
        char rule[64];
        snprintf(rule, sizeof rule, "%s is given twice", key_titles[k]);
        return fail_word(p, rule);
    }
    p->seen |= 1u << k;
    nf_problem *problem = &p->problem;
    switch (k) {
    case KEY_RANK:
        problem->rank = p->word[2] - '0';
        return NF_OK;
    case KEY_DTYPE:
        return read_dtype(p, &problem->dtype);
    case KEY_OUT:
        return read_dtype(p, &problem->out_dtype);
    case KEY_BATCH:
    case KEY_EXTRA:
        if (take_number(p, k == KEY_BATCH ? &problem->batch : &problem->extra) != NF_OK)
            return NF_ERR_PARSE;
        return take_end(p);
    case KEY_HEADS:
        return take_pair(p, &problem->heads, &problem->kv_heads);
    case KEY_DIM:
        return take_pair(p, &problem->head_dim, &problem->value_dim);
    case KEY_EXTENTS:
        return read_extents(p);
    case KEY_WINDOW:
    case KEY_STRIDE:
    case KEY_DILATION:
    case KEY_CAUSAL:
        return read_per_axis(p, k);
    case KEY_QUERIES:
    case KEY_KEYS:
        return read_ranges(p, k);
    case KEY_SCALE:
        return read_scale(p);
    case KEY_DIRECTION:
        return read_direction(p);
    case KEY_UNKNOWN:
        break;
    }
    return fail_unknown(p);
}

nf_status nf_problem_parse(nf_problem *problem, const char *text)
{
    if (!problem || !text)
        return nf_fail(NF_ERR_ARGUMENT, "%s: NULL", problem ? "text" : "problem");
    if (strnlen(text, LONGEST_STRING + 1) > LONGEST_STRING)
        return nf_fail(NF_ERR_PARSE, "a problem string longer than %d characters", LONGEST_STRING);
    parser p = {.word = text};
    nf_problem_init(&p.problem);
    while (true) {
        while (is_space(*p.word))
            p.word++;
        if (!*p.word)
            break;
        for (p.length = 0; p.word[p.length] && !is_space(p.word[p.length]);)
            p.length++;
        if (!p.seen && find_key(&p) != KEY_RANK)
            return fail_word(&p, "the first word must be na1d, na2d, na3d or na4d");
        const nf_status status = read_word(&p);
        if (status != NF_OK)
            return status;
        p.word += p.length;
    }
    if (!p.seen)
        return nf_fail(NF_ERR_PARSE, "an empty problem string; the first word must be na1d, na2d, na3d or na4d");
    if (!(p.seen & 1u << KEY_OUT))
        p.problem.out_dtype = p.problem.dtype;
    *problem = p.problem;
    return NF_OK;
}
