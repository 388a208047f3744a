/* Reading .npy arrays. The header is a Python dictionary, parsed here by a small grammar that accepts what NumPy writes,
 * { 'descr': 'TYPE', 'fortran_order': True|False, 'shape': (N, ...) }, in any order, then spaces and a newline. */
#include "npy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the .npy reader maps little-endian files; this host is big-endian"
#endif

enum { PREFIX = 8, BUFFER_ALIGNMENT = 64 };

static const struct {
    const char *name;
    size_t size;
} types[] = {[NPY_F4] = {"<f4", 4}, [NPY_F8] = {"<f8", 8}, [NPY_F2] = {"<f2", 2}, [NPY_U2] = {"<u2", 2}};

const char *npy_type_name(npy_type type)
{
    return types[type].name;
}

size_t npy_type_size(npy_type type)
{
    return types[type].size;
}

static int fail(struct npy *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int fail(struct npy *out, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(out->error, sizeof(out->error), format, arguments);
    va_end(arguments);
    return -1;
}

/* The part of the header not yet read. */
typedef struct cursor {
    const char *at, *end;
} cursor;

static void skip_spaces(cursor *c)
{
    while (c->at < c->end && *c->at == ' ')
        c->at++;
}

/* Takes a character, after spaces. */
static bool take(cursor *c, char wanted)
{
    skip_spaces(c);
    if (c->at == c->end || *c->at != wanted)
        return false;
    c->at++;
    return true;
}

static bool take_word(cursor *c, const char *word)
{
    skip_spaces(c);
    const size_t length = strlen(word);
    if ((size_t)(c->end - c->at) < length || memcmp(c->at, word, length) != 0)
        return false;
    c->at += length;
    return true;
}

enum { STRING_SIZE = 32 };

/* Takes a quoted string of printable characters without escapes. */
static bool take_string(cursor *c, char string[STRING_SIZE])
{
    skip_spaces(c);
    if (c->at == c->end || (*c->at != '\'' && *c->at != '"'))
        return false;
    const char quote = *c->at++;
    size_t length = 0;
    while (c->at < c->end && *c->at != quote) {
        if (length == STRING_SIZE - 1 || *c->at < ' ' || *c->at > '~' || *c->at == '\\')
            return false;
        string[length++] = *c->at++;
    }
    if (c->at == c->end)
        return false;
    c->at++;
    string[length] = '\0';
    return true;
}

static int parse_type(cursor *c, struct npy *out)
{
    char name[STRING_SIZE];
    skip_spaces(c);
    if (c->at < c->end && *c->at == '[')
        return fail(out, "records ('descr' is a list) are not supported; supported are '<f4', '<f8', '<f2', '<u2'");
    if (!take_string(c, name))
        return fail(out, "'descr' must be a quoted element type");
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        if (strcmp(name, types[i].name) == 0) {
            out->type = (npy_type)i;
            return 0;
        }
    }
    return fail(out, "element type '%s' is not supported; supported are '<f4', '<f8', '<f2', '<u2'%s", name,
                name[0] == '>' ? " (little-endian)" : "");
}

static int parse_extent(cursor *c, struct npy *out)
{
    int64_t extent = 0;
    const char *const begin = c->at;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9') {
        const int digit = *c->at++ - '0';
        if (__builtin_mul_overflow(extent, (int64_t)10, &extent) || __builtin_add_overflow(extent, digit, &extent))
            return fail(out, "'shape': an extent exceeds 2^63 - 1");
    }
    if (c->at == begin)
        return fail(out, "'shape' must be a tuple of whole numbers >= 0, like (2, 3)");
    if (out->rank == NPY_MAX_RANK)
        return fail(out, "'shape' has more than %d dimensions", NPY_MAX_RANK);
    out->extents[out->rank++] = extent;
    return 0;
}

/* A tuple of n numbers; for n = 1 the comma is part of it. */
static int parse_shape(cursor *c, struct npy *out)
{
    if (!take(c, '('))
        return fail(out, "'shape' must be a tuple of whole numbers >= 0, like (2, 3)");
    out->rank = 0;
    bool comma = true;
    while (!take(c, ')')) {
        if (!comma)
            return fail(out, "'shape' must be a tuple of whole numbers >= 0, like (2, 3)");
        skip_spaces(c);
        if (parse_extent(c, out))
            return -1;
        comma = take(c, ',');
    }
    if (out->rank == 1 && !comma)
        return fail(out, "'shape' is a number, not a tuple; a single extent is written (%lld,)",
                    (long long)out->extents[0]);
    return 0;
}

enum { HAS_DESCR = 1, HAS_ORDER = 2, HAS_SHAPE = 4, HAS_ALL = 7 };

static int parse_entry(cursor *c, struct npy *out, bool *fortran, int *have)
{
    char key[STRING_SIZE];
    if (!take_string(c, key))
        return fail(out, "the header is no dictionary of quoted keys");
    const int bit = strcmp(key, "descr") == 0           ? HAS_DESCR
                    : strcmp(key, "fortran_order") == 0 ? HAS_ORDER
                    : strcmp(key, "shape") == 0         ? HAS_SHAPE
                                                        : 0;
    if (!bit)
        return fail(out, "the header has an unknown key '%s'", key);
    if (*have & bit)
        return fail(out, "the header has the key '%s' twice", key);
    *have |= bit;
    if (!take(c, ':'))
        return fail(out, "the header lacks ':' after '%s'", key);
    if (bit == HAS_DESCR)
        return parse_type(c, out);
    if (bit == HAS_SHAPE)
        return parse_shape(c, out);
    *fortran = take_word(c, "True");
    return *fortran || take_word(c, "False") ? 0 : fail(out, "'fortran_order' must be True or False");
}

static int parse_header(cursor c, struct npy *out, bool *fortran)
{
    int have = 0;
    if (!take(&c, '{'))
        return fail(out, "the header does not begin with '{'");
    bool comma = true;
    while (!take(&c, '}')) {
        if (!comma)
            return fail(out, "the header lacks ',' or '}' after an entry");
        if (parse_entry(&c, out, fortran, &have))
            return -1;
        comma = take(&c, ',');
    }
    if (have != HAS_ALL)
        return fail(out, "the header lacks the key '%s'", !(have & HAS_DESCR)   ? "descr"
                                                         : !(have & HAS_ORDER) ? "fortran_order"
                                                                               : "shape");
    skip_spaces(&c);
    if (c.end - c.at != 1 || *c.at != '\n')
        return fail(out, "the header does not end with spaces and a newline after '}'");
    return 0;
}

/* Fills strides and count. Overflow is judged without the zeros, so that it does not depend on their place. */
static int lay_out(struct npy *out, bool fortran)
{
    int64_t stride = 1, bytes;
    out->count = 1;
    for (int i = 0; i < out->rank; i++) {
        const int d = fortran ? i : out->rank - 1 - i;
        out->strides[d] = stride;
        out->count = out->extents[d] ? out->count : 0;
        if (__builtin_mul_overflow(stride, out->extents[d] ? out->extents[d] : 1, &stride))
            return fail(out, "'shape': the number of elements exceeds 2^63 - 1");
    }
    if (__builtin_mul_overflow(stride, (int64_t)npy_type_size(out->type), &bytes))
        return fail(out, "'shape': the number of bytes exceeds 2^63 - 1");
    out->count *= stride;
    return 0;
}

/* Finds the header behind the magic string. Sets *header and *data_offset. */
static int find_header(const unsigned char *bytes, size_t length, struct npy *out, cursor *header, size_t *data_offset)
{
    static const unsigned char magic[] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
    if (length < PREFIX || memcmp(bytes, magic, sizeof(magic)) != 0)
        return fail(out, "not a .npy file: it does not begin with \\x93NUMPY and a version");
    const unsigned major = bytes[6], minor = bytes[7];
    if (major < 1 || major > 3 || minor != 0)
        return fail(out, "format version %u.%u is not supported; supported are 1.0, 2.0 and 3.0", major, minor);
    const size_t digits = major == 1 ? 2 : 4;
    if (length < PREFIX + digits)
        return fail(out, "truncated: the file ends inside the length of its header");
    size_t header_length = 0;
    for (size_t i = digits; i-- > 0;)
        header_length = header_length << 8 | bytes[PREFIX + i];
    if (header_length > length - PREFIX - digits)
        return fail(out, "truncated: the header has %zu bytes, the file only %zu more", header_length,
                    length - PREFIX - digits);
    header->at = (const char *)bytes + PREFIX + digits;
    header->end = header->at + header_length;
    *data_offset = PREFIX + digits + header_length;
    return 0;
}

int npy_parse(const void *bytes, size_t length, struct npy *out)
{
    *out = (struct npy){0};
    cursor header;
    size_t data_offset = 0;
    bool fortran = false;
    if (find_header(bytes, length, out, &header, &data_offset) || parse_header(header, out, &fortran) ||
        lay_out(out, fortran))
        return -1;
    const uint64_t wanted = (uint64_t)out->count * npy_type_size(out->type), present = length - data_offset;
    if (present != wanted)
        return fail(out, "%s: the shape and type need %llu bytes of data, the file has %llu",
                    present < wanted ? "truncated" : "trailing data", (unsigned long long)wanted,
                    (unsigned long long)present);
    out->data = (const char *)bytes + data_offset;
    return 0;
}

static int read_all(int file, char *buffer, size_t length, struct npy *out)
{
    size_t done = 0;
    while (done < length) {
        const ssize_t got = read(file, buffer + done, length - done);
        if (got < 0 && errno != EINTR)
            return fail(out, "%s", strerror(errno));
        if (got == 0)
            return fail(out, "truncated while it was read");
        done += got > 0 ? (size_t)got : 0;
    }
    return 0;
}

/* Reads the whole open file and parses it; the buffer becomes out->storage. */
static int load(int file, struct npy *out)
{
    struct stat status;
    if (fstat(file, &status) != 0)
        return fail(out, "%s", strerror(errno));
    if (!S_ISREG(status.st_mode))
        return fail(out, "not a regular file");
    const size_t length = (size_t)status.st_size;
    char *buffer = aligned_alloc(BUFFER_ALIGNMENT, (length / BUFFER_ALIGNMENT + 1) * BUFFER_ALIGNMENT);
    if (!buffer)
        return fail(out, "out of memory for %zu bytes", length);
    if (read_all(file, buffer, length, out) || npy_parse(buffer, length, out)) {
        free(buffer);
        return -1;
    }
    const size_t offset = (size_t)((const char *)out->data - buffer);
    if (offset % npy_type_size(out->type)) {
        memmove(buffer, out->data, length - offset);
        out->data = buffer;
    }
    out->storage = buffer;
    return 0;
}

int npy_open(const char *path, struct npy *out)
{
    *out = (struct npy){0};
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return fail(out, "%s", strerror(errno));
    const int result = load(file, out);
    close(file);
    return result;
}

void npy_close(struct npy *array)
{
    free(array->storage);
    array->storage = NULL;
    array->data = NULL;
}
