/* What backends say of devices, and how users name them. */
#ifndef NF_GPU_FIND_H
#define NF_GPU_FIND_H

#include "core/text.h"
#include "core/topo.h"

/* The device of a list that the text names: its index, or a part of its name. NF_ERR_UNAVAILABLE lists all names. */
nf_status gpu_find_device(const char *wanted, const void *list, int count,
                          const char *(*name)(const void *list, int index), int *index);

/* A line for nearfield info. */
void gpu_describe_place(const nf_pci_address *address, nf_text *text);

#endif
