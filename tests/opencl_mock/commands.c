/* Commands, done at once, and events. */
#include <string.h>

#include "mock.h"

static cl_int give_event(cl_event *event)
{
    if (event)
        *event = mock_make(EVENT, sizeof **event);
    return CL_SUCCESS;
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
    (void)blocking, (void)waits, (void)wait;
    cl_int code = mock_enter_device(__func__);
    if (code == CL_SUCCESS && !mock_is_live(__func__, QUEUE, queue))
        code = CL_INVALID_COMMAND_QUEUE;
    if (code != CL_SUCCESS || (code = check_range(__func__, memory, offset, size)) != CL_SUCCESS)
        return code;
    memcpy(memory->bytes + offset, host, size);
    return give_event(event);
}

MOCK cl_int clEnqueueReadBuffer(cl_command_queue queue, cl_mem memory, cl_bool blocking, size_t offset, size_t size,
                                void *host, cl_uint waits, const cl_event *wait, cl_event *event)
{
    (void)blocking, (void)waits, (void)wait;
    cl_int code = mock_enter_device(__func__);
    if (code == CL_SUCCESS && !mock_is_live(__func__, QUEUE, queue))
        code = CL_INVALID_COMMAND_QUEUE;
    if (code != CL_SUCCESS || (code = check_range(__func__, memory, offset, size)) != CL_SUCCESS)
        return code;
    memcpy(host, memory->bytes + offset, size);
    return give_event(event);
}

MOCK void *clEnqueueMapBuffer(cl_command_queue queue, cl_mem memory, cl_bool blocking, cl_map_flags flags, size_t offset,
                              size_t size, cl_uint waits, const cl_event *wait, cl_event *event, cl_int *error)
{
    (void)blocking, (void)waits, (void)wait;
    cl_int code = mock_enter_device(__func__);
    if (code == CL_SUCCESS && !mock_is_live(__func__, QUEUE, queue))
        code = CL_INVALID_COMMAND_QUEUE;
    if (code != CL_SUCCESS || (code = check_range(__func__, memory, offset, size)) != CL_SUCCESS)
        return mock_refuse(error, code);
    if (flags & CL_MAP_WRITE_INVALIDATE_REGION)
        memset(memory->bytes + offset, 0xa5, size);
    memory->mapped++;
    give_event(event);
    return mock_grant(error, memory->bytes + offset);
}

MOCK cl_int clEnqueueUnmapMemObject(cl_command_queue queue, cl_mem memory, void *pointer, cl_uint waits,
                                    const cl_event *wait, cl_event *event)
{
    (void)pointer, (void)waits, (void)wait;
    const cl_int code = mock_enter_device(__func__);
    if (!mock_is_live(__func__, QUEUE, queue) || !mock_is_live(__func__, MEMORY, memory))
        return CL_INVALID_MEM_OBJECT;
    if (code != CL_SUCCESS)
        return code;
    if (memory->mapped == 0)
        mock_misuse(__func__, "a buffer that is not mapped");
    else
        memory->mapped--;
    return give_event(event);
}

MOCK cl_int clEnqueueCopyBuffer(cl_command_queue queue, cl_mem from, cl_mem to, size_t from_offset, size_t to_offset,
                                size_t size, cl_uint waits, const cl_event *wait, cl_event *event)
{
    (void)waits, (void)wait;
    cl_int code = mock_enter_device(__func__);
    if (code == CL_SUCCESS && !mock_is_live(__func__, QUEUE, queue))
        code = CL_INVALID_COMMAND_QUEUE;
    if (code != CL_SUCCESS || (code = check_range(__func__, from, from_offset, size)) != CL_SUCCESS ||
        (code = check_range(__func__, to, to_offset, size)) != CL_SUCCESS)
        return code;
    memmove(to->bytes + to_offset, from->bytes + from_offset, size);
    return give_event(event);
}

MOCK cl_int clEnqueueFillBuffer(cl_command_queue queue, cl_mem memory, const void *pattern, size_t pattern_size,
                                size_t offset, size_t size, cl_uint waits, const cl_event *wait, cl_event *event)
{
    (void)waits, (void)wait;
    cl_int code = mock_enter_device(__func__);
    if (code == CL_SUCCESS && !mock_is_live(__func__, QUEUE, queue))
        code = CL_INVALID_COMMAND_QUEUE;
    if (code != CL_SUCCESS || (code = check_range(__func__, memory, offset, size)) != CL_SUCCESS)
        return code;
    for (size_t at = 0; at + pattern_size <= size; at += pattern_size)
        memcpy(memory->bytes + offset + at, pattern, pattern_size);
    return give_event(event);
}

MOCK cl_int clEnqueueNDRangeKernel(cl_command_queue queue, cl_kernel kernel, cl_uint dimensions, const size_t *offset,
                                   const size_t *global, const size_t *local, cl_uint waits, const cl_event *wait,
                                   cl_event *event)
{
    (void)offset, (void)waits, (void)wait;
    const cl_int code = mock_enter_device(__func__);
    if (code != CL_SUCCESS)
        return code;
    if (!mock_is_live(__func__, QUEUE, queue) || !mock_is_live(__func__, KERNEL, kernel))
        return CL_INVALID_KERNEL;
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
    mock_kernel_ran();
    return give_event(event);
}

MOCK cl_int clEnqueueMarkerWithWaitList(cl_command_queue queue, cl_uint waits, const cl_event *wait, cl_event *event)
{
    (void)waits, (void)wait;
    const cl_int code = mock_enter_device(__func__);
    if (code != CL_SUCCESS || !mock_is_live(__func__, QUEUE, queue))
        return code != CL_SUCCESS ? code : CL_INVALID_COMMAND_QUEUE;
    return give_event(event);
}

MOCK cl_int clEnqueueBarrierWithWaitList(cl_command_queue queue, cl_uint waits, const cl_event *wait, cl_event *event)
{
    (void)waits, (void)wait;
    const cl_int code = mock_enter_device(__func__);
    if (code != CL_SUCCESS || !mock_is_live(__func__, QUEUE, queue))
        return code != CL_SUCCESS ? code : CL_INVALID_COMMAND_QUEUE;
    return give_event(event);
}

MOCK cl_int clFlush(cl_command_queue queue)
{
    const cl_int code = mock_enter_device(__func__);
    return code == CL_SUCCESS && !mock_is_live(__func__, QUEUE, queue) ? CL_INVALID_COMMAND_QUEUE : code;
}

MOCK cl_int clFinish(cl_command_queue queue)
{
    const cl_int code = mock_enter_device(__func__);
    return code == CL_SUCCESS && !mock_is_live(__func__, QUEUE, queue) ? CL_INVALID_COMMAND_QUEUE : code;
}

MOCK cl_int clWaitForEvents(cl_uint count, const cl_event *list)
{
    const cl_int code = mock_enter(__func__);
    for (cl_uint i = 0; i < count; i++)
        if (!mock_is_live(__func__, EVENT, list[i]))
            return CL_INVALID_EVENT;
    return code == CL_SUCCESS && mock_is_lost() ? CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST : code;
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
    const cl_int code = mock_enter(__func__), status = mock_is_lost() ? CL_DEVICE_NOT_AVAILABLE : CL_COMPLETE;
    if (code != CL_SUCCESS || !mock_is_live(__func__, EVENT, event))
        return code != CL_SUCCESS ? code : CL_INVALID_EVENT;
    return key == CL_EVENT_COMMAND_EXECUTION_STATUS ? ANSWER(status) : CL_INVALID_VALUE;
}
