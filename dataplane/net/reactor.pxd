cimport cython
from dataplane.net.calls cimport Epoll, monotonic

cdef class Handler:
    cdef public bint is_backend
    cpdef on_event(self, unsigned int events)
    cpdef settle(self)

@cython.final
cdef class Handlers:
    cdef list _table
    @cython.locals(table=list)
    cpdef Handler get(self, int fd)
    @cython.locals(table=list)
    cpdef put(self, int fd, Handler handler)
    @cython.locals(table=list)
    cpdef bint drop(self, int fd) except -1

cdef class Wheel:
    cdef public double resolution_s
    cdef object _on_error
    cdef dict _slots
    cdef long _turn
    @cython.locals(tick=long, slot=set)
    cpdef at(self, object item, double when)
    @cython.locals(tick=long, slot=set)
    cpdef cancel(self, object item)
    cpdef move(self, object item, double when)
    @cython.locals(turn=long, slot=set)
    cpdef advance(self, double now)

cdef class Reactor:
    cdef object _loop, _source, _timer
    cdef long _descriptors, _ticks
    cdef public long accept_ceiling, dial_ceiling
    cdef public Epoll epoll
    cdef public Handlers handlers
    cdef public list deferred
    cdef public double lag_s, now
    cdef public Wheel wheel
    @cython.locals(now=double)
    cpdef double clock(self) except? -1
    cpdef watch(self, int fd, object handler, unsigned int events)
    cpdef forget(self, int fd)
    cpdef unwatch(self, int fd)
    @cython.locals(fd=int, handler=Handler, epoll=Epoll, handlers=Handlers, flow=Handler, index=int, count=int, clients=int)
    cpdef int _handle_batch(self) except -1
