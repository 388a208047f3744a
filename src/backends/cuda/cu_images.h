/* The kernels that nvcc compiled when the library was built, for all GPUs that it names. They are one image per program
 * of gpu_ahead.h, because a driver loads an image as a whole. */
#ifndef NF_CU_IMAGES_H
#define NF_CU_IMAGES_H

typedef struct cu_image {
    const char *options; /* of the program, as gpu_plan has them */
    const void *data;    /* a fatbin */
} cu_image;

typedef struct cu_image_set {
    const char *absent;   /* not NULL: there are no images, and why */
    int toolkit;          /* that made them: 1000 * major + 10 * minor; drivers of an older major version refuse them */
    int least_capability; /* 10 * major + minor: GPUs from here on run them */
    int warpgroups;       /* there are kernels for compute capability 9.0 alone */
    int count;
    const cu_image *images;
} cu_image_set;

extern const cu_image_set cu_images;

#endif
