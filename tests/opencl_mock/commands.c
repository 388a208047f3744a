/* Commands, which take effect at once, and events, which end once those that they wait for have. */
#include <string.h>

#include "mock.h"

static bool are_live(const char *call, cl_uint count, const cl_event *list)
{
    for (cl_uint i = 0; i < count; i++)
        if (!mock_is_live(call, EVENT, list[i]))
            return false;
    return true;
}

/* ---- What has not ended ------------------------------------------------------------------------------------------ */

/* In the order of enqueueing, in which events end. */
enum { MAX_OPEN = 256 };
static cl_event open_events[MAX_OPEN];
static int open_count;

/* A command runs after the one before it in its queue, and fails with what it waits for. */
static void end_event(cl_event event)
{
    bool failed = false, waits = event->before && event->before->status > CL_COMPLETE;
    for (cl_uint i = 0; i < event->wait_count; i++) {
        failed = failed || event->waits[i]->status < 0;
        waits = waits || event->waits[i]->status > CL_COMPLETE;
    }
    if (failed)
        event->status = CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST;
    else if (!waits)
        event->status = event->verdict;
}

static void end_events(void)
{
    int left = 0;
    for (int i = 0; i < open_count; i++) {
        end_event(open_events[i]);
        if (open_events[i]->status > CL_COMPLETE)
            open_events[left++] = open_events[i];
    }
    open_count = left;
}

/* Nobody but the caller ends events, so it would wait for ever. */
static bool would_hang(const char *call, cl_event event)
{
    const bool hangs = event && event->status > CL_COMPLETE;
    if (hangs)
        mock_misuse(call, "waits for an event that the caller has yet to end");
    return hangs;
}

MOCK cl_event clCreateUserEvent(cl_context context, cl_int *error)
{
    const cl_int code = mock_enter(__func__);
    if (code != CL_SUCCESS || !mock_is_live(__func__, CONTEXT, context))
        return mock_refuse(error, code != CL_SUCCESS ? code : CL_INVALID_CONTEXT);
    cl_event event = mock_make(EVENT, sizeof *event);
    event->context = context;
    event->status = CL_SUBMITTED;
    return mock_grant(error, event);
}

MOCK cl_int clSetUserEventStatus(cl_event event, cl_int status)
{
    const cl_int code = mock_enter(__func__);
    if (code != CL_SUCCESS || !mock_is_live(__func__, EVENT, event))
        return code != CL_SUCCESS ? code : CL_INVALID_EVENT;
    event->status = status;
    end_events();
    return CL_SUCCESS;
}

/* ---- Commands ---------------------------------------------------------------------------------------------------- */

/* The event of a command; a dead handle where the caller wants none. */
static void finish_command(cl_command_queue queue, cl_uint waits, const cl_event *wait, cl_int verdict, cl_event *event)
{
    cl_event made = mock_make(EVENT, sizeof *made);
    made->base.references = event != NULL;
    made->context = queue->context;
    made->status = CL_QUEUED;
    made->verdict = verdict;
    made->before = queue->last;
    for (made->wait_count = 0; made->wait_count < waits && made->wait_count < MOCK_WAITS; made->wait_count++)
        made->waits[made->wait_count] = wait[made->wait_count];
    if (waits > MOCK_WAITS || open_count == MAX_OPEN)
        mock_misuse(__func__, "more events than the mock knows of");
    else
        open_events[open_count++] = made;
    end_events();
    queue->last = made;
    if (event)
        *event = made;
}

static cl_int give_event(cl_command_queue queue, cl_uint waits, const cl_event *wait, cl_event *event)
{
    finish_command(queue, waits, wait, CL_COMPLETE, event);
    return CL_SUCCESS;
}

static cl_int enter_command(const char *call, cl_command_queue queue, cl_uint waits, const cl_event *wait)
{
    const cl_int code = mock_enter_device(call);
    if (!mock_is_live(call, QUEUE, queue))
        return CL_INVALID_COMMAND_QUEUE;
    return are_live(call, waits, wait) ? code : CL_INVALID_EVENT_WAIT_LIST;
}

static cl_int check_range(const char *call, cl_mem memory, size_t offset, size_t size)
{
    if (!mock_is_live(call, MEMORY, memory))
        return CL_INVALID_MEM_OBJECT;
    if (size && offset <= memory->size && size <= memory->size - offset)
        return CL_SUCCESS;
    mock_misuse(call, size ? "beyond the end of the buffer" : "no bytes");
    return CL_INVALID_VALUE;
}

MOCK cl_int clEnqueueWriteBuffer(cl_command_queue queue, cl_mem memory, cl_bool blocking, size_t offset, size_t size,
                                 const void *host, cl_uint waits, const cl_event *wait, cl_event *event)
{
    (void)blocking;
    cl_int code = enter_command(__func__, queue, waits, wait);
    if (code != CL_SUCCESS || (code = check_range(__func__, memory, offset, size)) != CL_SUCCESS)
        return code;
    memcpy(memory->bytes + offset, host, size);
    return give_event(queue, waits, wait, event);
}

MOCK cl_int clEnqueueReadBuffer(cl_command_queue queue, cl_mem memory, cl_bool blocking, size_t offset, size_t size,
                                void *host, cl_uint waits, const cl_event *wait, cl_event *event)
{
    (void)blocking;
    cl_int code = enter_command(__func__, queue, waits, wait);
    if (code != CL_SUCCESS || (code = check_range(__func__, memory, offset, size)) != CL_SUCCESS)
        return code;
    memcpy(host, memory->bytes + offset, size);
    return give_event(queue, waits, wait, event);
}

MOCK void *clEnqueueMapBuffer(cl_command_queue queue, cl_mem memory, cl_bool blocking, cl_map_flags flags,
                              size_t offset, size_t size, cl_uint waits, const cl_event *wait, cl_event *event,
                              cl_int *error)
{
    cl_int code = enter_command(__func__, queue, waits, wait);
    if (code != CL_SUCCESS || (code = check_range(__func__, memory, offset, size)) != CL_SUCCESS)
        return mock_refuse(error, code);
    if (blocking && would_hang(__func__, queue->last))
        return mock_refuse(error, CL_INVALID_OPERATION);
    if (flags & CL_MAP_WRITE_INVALIDATE_REGION)
        memset(memory->bytes + offset, 0xa5, size);
    memory->mapped++;
    give_event(queue, waits, wait, event);
    return mock_grant(error, memory->bytes + offset);
}

MOCK cl_int clEnqueueUnmapMemObject(cl_command_queue queue, cl_mem memory, void *pointer, cl_uint waits,
                                    const cl_event *wait, cl_event *event)
{
    (void)pointer;
    const cl_int code = enter_command(__func__, queue, waits, wait);
    if (code != CL_SUCCESS || !mock_is_live(__func__, MEMORY, memory))
        return code != CL_SUCCESS ? code : CL_INVALID_MEM_OBJECT;
    if (memory->mapped == 0)
        mock_misuse(__func__, "a buffer that is not mapped");
    else
        memory->mapped--;
    return give_event(queue, waits, wait, event);
}

MOCK cl_int clEnqueueCopyBuffer(cl_command_queue queue, cl_mem from, cl_mem to, size_t from_offset, size_t to_offset,
                                size_t size, cl_uint waits, const cl_event *wait, cl_event *event)
{
    cl_int code = enter_command(__func__, queue, waits, wait);
    if (code != CL_SUCCESS || (code = check_range(__func__, from, from_offset, size)) != CL_SUCCESS ||
        (code = check_range(__func__, to, to_offset, size)) != CL_SUCCESS)
        return code;
    memmove(to->bytes + to_offset, from->bytes + from_offset, size);
    return give_event(queue, waits, wait, event);
}

MOCK cl_int clEnqueueFillBuffer(cl_command_queue queue, cl_mem memory, const void *pattern, size_t pattern_size,
                                size_t offset, size_t size, cl_uint waits, const cl_event *wait, cl_event *event)
{
    cl_int code = enter_command(__func__, queue, waits, wait);
    if (code != CL_SUCCESS || (code = check_range(__func__, memory, offset, size)) != CL_SUCCESS)
        return code;
    for (size_t at = 0; at + pattern_size <= size; at += pattern_size)
        memcpy(memory->bytes + offset + at, pattern, pattern_size);
    return give_event(queue, waits, wait, event);
}

MOCK cl_int clEnqueueNDRangeKernel(cl_command_queue queue, cl_kernel kernel, cl_uint dimensions, const size_t *offset,
                                   const size_t *global, const size_t *local, cl_uint waits, const cl_event *wait,
                                   cl_event *event)
{
    (void)offset;
    const cl_int code = enter_command(__func__, queue, waits, wait);
    if (code != CL_SUCCESS || !mock_is_live(__func__, KERNEL, kernel))
        return code != CL_SUCCESS ? code : CL_INVALID_KERNEL;
    size_t items = 1;
    for (cl_uint d = 0; d < dimensions; d++) {
        items *= local ? local[d] : 1;
        if (!global[d] || (local && (!local[d] || global[d] % local[d]))) {
            mock_misuse(__func__, "a global size that is no multiple of the local size");
            return CL_INVALID_WORK_GROUP_SIZE;
        }
    }
    if (items > (size_t)mock.group || items > (size_t)mock.kernel_group)
        return CL_INVALID_WORK_GROUP_SIZE;
    mock_kernel_enqueued();
    finish_command(queue, waits, wait, (cl_int)mock.verdict, event);
    return CL_SUCCESS;
}

MOCK cl_int clEnqueueMarkerWithWaitList(cl_command_queue queue, cl_uint waits, const cl_event *wait, cl_event *event)
{
    const cl_int code = enter_command(__func__, queue, waits, wait);
    return code == CL_SUCCESS ? give_event(queue, waits, wait, event) : code;
}

MOCK cl_int clEnqueueBarrierWithWaitList(cl_command_queue queue, cl_uint waits, const cl_event *wait, cl_event *event)
{
    const cl_int code = enter_command(__func__, queue, waits, wait);
    return code == CL_SUCCESS ? give_event(queue, waits, wait, event) : code;
}

MOCK cl_int clFlush(cl_command_queue queue)
{
    const cl_int code = mock_enter_device(__func__);
    return code == CL_SUCCESS && !mock_is_live(__func__, QUEUE, queue) ? CL_INVALID_COMMAND_QUEUE : code;
}

MOCK cl_int clFinish(cl_command_queue queue)
{
    const cl_int code = mock_enter_device(__func__);
    if (!mock_is_live(__func__, QUEUE, queue))
        return CL_INVALID_COMMAND_QUEUE;
    return would_hang(__func__, queue->last) ? CL_INVALID_OPERATION : code;
}

MOCK cl_int clWaitForEvents(cl_uint count, const cl_event *list)
{
    const cl_int code = mock_enter(__func__);
    bool bad = mock_is_lost();
    if (!are_live(__func__, count, list))
        return CL_INVALID_EVENT;
    for (cl_uint i = 0; i < count; i++)
        bad = bad || would_hang(__func__, list[i]) || list[i]->status < 0;
    return code == CL_SUCCESS && bad ? CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST : code;
}

MOCK cl_int clRetainEvent(cl_event event)
{
    return mock_count_reference(__func__, EVENT, event, 1);
}
MOCK cl_int clReleaseEvent(cl_event event)
{
    return mock_count_reference(__func__, EVENT, event, -1);
}

MOCK cl_int clGetEventInfo(cl_event event, cl_event_info key, size_t capacity, void *buffer, size_t *length)
{
    const cl_int code = mock_enter(__func__);
    if (code != CL_SUCCESS || !mock_is_live(__func__, EVENT, event))
        return code != CL_SUCCESS ? code : CL_INVALID_EVENT;
    const cl_int status = mock_is_lost() ? CL_DEVICE_NOT_AVAILABLE : event->status;
    if (key == CL_EVENT_CONTEXT)
        return ANSWER(event->context);
    return key == CL_EVENT_COMMAND_EXECUTION_STATUS ? ANSWER(status) : CL_INVALID_VALUE;
}
