/* Who takes which items of a stencil walk. */
#include "backends/cpu/stencil.h"

/* The next chunk that begins before `stop`: its first item, or -1. */
static int64_t claim(cpu_stencil_queue *queue, cpu_stencil_turn *turn, int64_t stop)
{
    int64_t first = turn->own;
    if (first >= 0) {
        turn->own = -1;
        return first;
    }
    stop -= turn->shared;
    first = atomic_load(&queue->first);
    while (first < stop && !atomic_compare_exchange_weak(&queue->first, &first, first + queue->chunk))
        ;
    return first < stop ? turn->shared + first : -1;
}

static int64_t chunk_end(const cpu_stencil_queue *queue, int64_t first)
{
    return nf_min64(first + queue->chunk, queue->items);
}

cpu_stencil_queue cpu_stencil_queue_of(int64_t items, int64_t threads, int64_t most_chunk)
{
    return (cpu_stencil_queue){
        .items = items, .threads = threads, .chunk = nf_max64(nf_min64(items / (8 * threads), most_chunk), 1)};
}

cpu_stencil_turn cpu_stencil_turn_of(const cpu_stencil_queue *queue, int64_t thread, int64_t threads)
{
    const int64_t own = thread * queue->chunk;
    return (cpu_stencil_turn){
        .own = own < queue->items ? own : -1, .shared = threads * queue->chunk, .item = -1, .next = -1};
}

/* The last chunks are left for whoever is done first. */
static int64_t find_next(cpu_stencil_queue *queue, cpu_stencil_turn *turn)
{
    if (turn->item + 1 < turn->end)
        return turn->item + 1;
    const int64_t kept = queue->threads > 1 ? queue->threads * queue->chunk : 0;
    const int64_t first = claim(queue, turn, queue->items - kept);
    turn->end = first < 0 ? turn->end : chunk_end(queue, first);
    return first;
}

bool cpu_stencil_take(cpu_stencil_queue *queue, cpu_stencil_turn *turn)
{
    turn->item = turn->next;
    turn->known = turn->item >= 0;
    if (!turn->known) {
        turn->item = claim(queue, turn, queue->items);
        if (turn->item < 0)
            return false;
        turn->end = chunk_end(queue, turn->item);
    }
    turn->next = find_next(queue, turn);
    return true;
}
