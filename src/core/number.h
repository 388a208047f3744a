/* Text and double, the same in every locale. */
#ifndef NF_CORE_NUMBER_H
#define NF_CORE_NUMBER_H

#include <stdbool.h>

#include "nearfield.h"

enum { NF_NUMBER_CAPACITY = 40 }; /* holds any number that nf_number_format writes */

/* Reads exactly length bytes as a finite decimal number. */
bool nf_number_parse(const char *text, size_t length, double *value);

/* Writes the shortest digits that read back as the same finite double. */
void nf_number_format(char buffer[NF_NUMBER_CAPACITY], double value);

#endif
