/* Devices by the user's text. */
#ifndef NF_GPU_FIND_H
#define NF_GPU_FIND_H

#include "nearfield.h"

/* The device of a list that the text names: its index, or a part of its name. NF_ERR_UNAVAILABLE lists all names. */
nf_status gpu_find_device(const char *wanted, const void *list, int count,
                          const char *(*name)(const void *list, int index), int *index);

#endif
