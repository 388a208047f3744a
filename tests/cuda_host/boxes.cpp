/* Copies of boxes of a tensor to shared memory, lines of 128 bytes whose chunks are permuted. */
#include <string.h>

#include "async.h"

enum { LINE = 128, PATTERN = 1024, LINES_OF_PATTERN = PATTERN / LINE, ELEMENT = 2, SWIZZLE_128B = 3 };

static int extent(const host_map *map, int axis)
{
    const int step = axis ? map->element_strides[axis] : 1;
    return (map->box[axis] + step - 1) / step;
}

static unsigned bytes_of(const host_map *map)
{
    unsigned bytes = ELEMENT;
    for (int axis = 0; axis < map->rank; axis++)
        bytes *= static_cast<unsigned>(extent(map, axis));
    return bytes;
}

static bool lies_in(const host_map *map, int axis, int at)
{
    return at >= 0 && static_cast<uint32_t>(at) <= map->last[axis];
}

/* A line's numbers; those outside of the tensor are zeros. */
static void read_line(unsigned char line[LINE], const host_box *box, unsigned index)
{
    const host_map *map = &box->map;
    const unsigned char *from = reinterpret_cast<const unsigned char *>(map->address);
    memset(line, 0, LINE);
    for (int axis = 1; axis < map->rank; axis++) {
        const unsigned count = static_cast<unsigned>(extent(map, axis));
        const int at = box->at[axis] + static_cast<int>(index % count) * map->element_strides[axis];
        if (!lies_in(map, axis, at))
            return;
        from += static_cast<uint64_t>(at) * map->strides[axis];
        index /= count;
    }
    for (int i = 0; i < LINE / ELEMENT; i++)
        if (lies_in(map, 0, box->at[0] + i))
            memcpy(line + ELEMENT * i, from + ELEMENT * (static_cast<long>(box->at[0]) + i), ELEMENT);
}

static void land(const host_box *box)
{
    unsigned char *to = host_bytes_at(box->to, box->bytes, PATTERN), line[LINE];
    for (unsigned i = 0; i < box->bytes / LINE; i++) {
        read_line(line, box, i);
        for (unsigned c = 0; c < LINE / HOST_CHUNK; c++)
            memcpy(to + LINE * i + HOST_CHUNK * (c ^ i % LINES_OF_PATTERN), line + HOST_CHUNK * c, HOST_CHUNK);
    }
    host_bytes_come(box->barrier, box->bytes);
}

static bool is_supported(const host_map *map)
{
    return map->mark == HOST_MAP_MARK && map->rank == HOST_MAP_RANK && map->swizzle == SWIZZLE_128B &&
           map->element_bytes == ELEMENT && map->box[0] * ELEMENT == LINE;
}

/* Bytes of finite numbers that no test has: kernels meet an item again whose sums are not finite, and would be right.
 */
enum { BOX_POISON = 0x45 };

void host_copy_box(unsigned to, const void *map, const int at[HOST_MAP_RANK], unsigned barrier)
{
    host_async *async = host_async_here();
    host_box box = {};
    memcpy(&box.map, map, sizeof box.map);
    if (reinterpret_cast<uintptr_t>(map) % HOST_MAP_ALIGNMENT || !is_supported(&box.map)) {
        host_fault("a box is copied by no map, or by one of another kind");
        return;
    }
    memcpy(box.at, at, sizeof box.at);
    box.to = to;
    box.bytes = bytes_of(&box.map);
    box.barrier = host_find_phased(barrier);
    unsigned char *place = host_bytes_at(to, box.bytes, PATTERN);
    if (!box.barrier || !place)
        return;
    host_touch(to, box.bytes);
    host_forget_writes(to, box.bytes);
    told_written(place, box.bytes);
    char *order = &box.barrier->order[box.barrier->phase % TURNS];
    if (host_lands_early()) {
        land(&box);
    } else if (async->boxes_count == HOST_BOXES) {
        host_fault("too many boxes are on their way");
    } else {
        memset(place, BOX_POISON, box.bytes);
        async->boxes[async->boxes_count++] = box;
    }
    told_before(order); /* what this thread wrote there itself included */
}

bool host_land_for(const void *barrier)
{
    host_async *async = host_async_here();
    for (int i = 0; i < async->boxes_count; i++)
        if (async->boxes[i].barrier == barrier) {
            const host_box box = async->boxes[i];
            async->boxes_count--;
            memmove(&async->boxes[i], &async->boxes[i + 1],
                    static_cast<size_t>(async->boxes_count - i) * sizeof async->boxes[i]);
            land(&box);
            return true;
        }
    return false;
}
