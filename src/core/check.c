/* Struct sizes and typing mistakes. */
#include "core/check.h"

#include <string.h>

#include "core/status.h"

enum {
    LONGEST_TAIL = 4096, /* a size beyond known + this is a struct that nobody initialised */
    LONGEST_WORD = 32    /* more letters do not change which name is nearest */
};

nf_status nf_check_size(const void *object, size_t known, const char *name, const char *type)
{
    if (!object)
        return nf_fail(NF_ERR_ARGUMENT, "%s: NULL where a %s is required", name, type);
    size_t size;
    memcpy(&size, object, sizeof size);
    if (size < known || size > known + LONGEST_TAIL)
        return nf_fail(NF_ERR_ARGUMENT, "%s: size %zu is not sizeof(%s), %zu", name, size, type, known);
    const unsigned char *bytes = object;
    for (size_t i = known; i < size; i++)
        if (bytes[i])
            return nf_fail(NF_ERR_ARGUMENT, "%s: byte %zu of %s is set, but this library knows only %zu bytes", name, i,
                           type, known);
    return NF_OK;
}

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Levenshtein, one row at a time. */
static size_t edit_distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    size_t row[LONGEST_WORD + 1];
    for (size_t j = 0; j <= b_length; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            const size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = min_size(substituted, 1 + min_size(row[j], row[j - 1]));
        }
    }
    return row[b_length];
}

/* Between equally distant names, the one with the right first letter is likelier to be meant. */
static size_t unlikeness(const char *word, size_t length, const char *name)
{
    const size_t distance =
        edit_distance(word, min_size(length, LONGEST_WORD), name, min_size(strlen(name), LONGEST_WORD));
    return 2 * distance + (length == 0 || word[0] != name[0]);
}

const char *nf_nearest(const char *word, size_t length, const char *const *candidates, size_t *unlike)
{
    const char *nearest = candidates[0];
    size_t least = SIZE_MAX;
    for (; *candidates; candidates++) {
        const size_t value = unlikeness(word, length, *candidates);
        if (value < least) {
            least = value;
            nearest = *candidates;
        }
    }
    if (unlike)
        *unlike = least;
    return nearest;
}
