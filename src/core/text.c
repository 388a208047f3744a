/* The bounded text writer. */
#include "core/text.h"

#include <stdarg.h>
#include <stdio.h>

#include "core/status.h"

nf_status nf_text_init(nf_text *text, char *buffer, size_t capacity)
{
    *text = (nf_text){.buffer = buffer, .capacity = capacity};
    if (!buffer && capacity)
        return nf_fail(NF_ERR_ARGUMENT, "buffer: NULL with a capacity of %zu bytes", capacity);
    if (capacity)
        buffer[0] = '\0';
    return NF_OK;
}

void nf_text_printf(nf_text *text, const char *format, ...)
{
    const size_t room = text->length < text->capacity ? text->capacity - text->length : 0;
    va_list arguments;
    va_start(arguments, format);
    const int written = vsnprintf(room ? text->buffer + text->length : NULL, room, format, arguments);
    va_end(arguments);
    if (written > 0)
        text->length += (size_t)written;
}

nf_status nf_text_finish(const nf_text *text, size_t *length)
{
    if (length)
        *length = text->length;
    if (text->buffer && text->length >= text->capacity)
        return nf_fail(NF_ERR_SPACE, "buffer: the text needs %zu bytes, the capacity is %zu", text->length + 1,
                       text->capacity);
    return NF_OK;
}
