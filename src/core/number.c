/* The C library's conversions, kept from the program's locale: its decimal point may be a comma. */
#include "core/number.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where even the "C" locale cannot be had, the program's stays in effect. */
static locale_t enter_c_locale(locale_t *previous)
{
    const locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    *previous = c ? uselocale(c) : (locale_t)0;
    return c;
}

static void leave_c_locale(locale_t c, locale_t previous)
{
    if (!c)
        return;
    uselocale(previous);
    freelocale(c);
}

bool nf_number_parse(const char *text, size_t length, double *value)
{
    char digits[64], *end;
    if (length == 0 || length >= sizeof digits)
        return false;
    memcpy(digits, text, length);
    digits[length] = '\0';
    if (strspn(digits, "+-.0123456789eE") != length) /* no hexadecimal, inf or nan */
        return false;
    locale_t previous;
    const locale_t c = enter_c_locale(&previous);
    const double number = strtod(digits, &end);
    leave_c_locale(c, previous);
    if (end != digits + length || !isfinite(number))
        return false;
    *value = number;
    return true;
}

void nf_number_format(char buffer[NF_NUMBER_CAPACITY], double value)
{
    locale_t previous;
    const locale_t c = enter_c_locale(&previous);
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(buffer, NF_NUMBER_CAPACITY, "%.*g", precision, value);
        if (strtod(buffer, NULL) == value)
            break;
    }
    leave_c_locale(c, previous);
}
