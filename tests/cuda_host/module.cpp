/* One program as a library of the host: the kernel text, compiled with the options of an image, and a way to launch it.
 */
#include <utility>

#include PROGRAM

template <class... Parameters, size_t... I>
static void unpack(void (*kernel)(Parameters...), void **arguments, std::index_sequence<I...>)
{
    kernel(*static_cast<Parameters *>(arguments[I])...);
}

template <class... Parameters> static void pass(void (*kernel)(Parameters...), void **arguments)
{
    unpack(kernel, arguments, std::index_sequence_for<Parameters...>());
}

/* 0 comes after the last. */
template <class... Parameters> static const size_t *sizes_of(void (*)(Parameters...))
{
    static const size_t sizes[] = {sizeof(Parameters)..., 0};
    return sizes;
}

#define ENTRY(name) {#name, sizes_of(name), [](void **arguments) { pass(name, arguments); }},
static const struct {
    const char *name;
    const size_t *sizes;
    host_call *call;
} entries[] = {CU_KERNELS(ENTRY)};

/* The kernel of a name, NULL if there is none, and the sizes of its parameters, of which 0 is the end. */
extern "C" host_call *host_kernel(const char *name, const size_t **sizes)
{
    for (const auto &entry : entries)
        if (strcmp(entry.name, name) == 0) {
            *sizes = entry.sizes;
            return entry.call;
        }
    return nullptr;
}

/* The name of the index-th kernel, NULL if there is none. */
extern "C" const char *host_kernel_name(int index)
{
    return index < static_cast<int>(sizeof entries / sizeof *entries) ? entries[index].name : nullptr;
}

/* Launches it; NULL, or what went wrong. */
extern "C" const char *host_run(host_call *kernel, void **arguments, unsigned blocks, unsigned threads, unsigned shared,
                                int order, int copies_early)
{
    const host_rules rules = {blocks, threads, shared, static_cast<host_order>(order), copies_early != 0};
    return host_launch(kernel, arguments, &rules);
}
