/* A bounded text writer: counts what it would write, writes what fits. Behind every *_describe and *_format function. */
#ifndef NF_CORE_TEXT_H
#define NF_CORE_TEXT_H

#include "nearfield.h"

typedef struct nf_text {
    char *buffer;
    size_t capacity;
    size_t length; /* without NUL, also past capacity */
} nf_text;

/* NF_ERR_ARGUMENT if buffer is NULL while capacity is not 0. */
nf_status nf_text_init(nf_text *text, char *buffer, size_t capacity);
void nf_text_printf(nf_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Stores the length and says NF_ERR_SPACE if text did not fit into a buffer that was given. A too small buffer still ends
 * in NUL. */
nf_status nf_text_finish(const nf_text *text, size_t *length);

#endif
