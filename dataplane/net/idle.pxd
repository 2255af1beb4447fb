cimport cython
from dataplane.net.calls cimport close, peek, receive, send
from dataplane.net.reactor cimport Handler, Reactor

cdef unsigned int IN, RDHUP
cdef int NOTHING

cdef class Idle(Handler):
    cdef public Shelf shelf
    cdef public object target, tls
    cdef public int fd, mask
    cdef public bint nagle
    cdef public double born_at, since
    @cython.locals(waiting=int)
    cpdef on_event(self, unsigned int events)

cdef class Shelf:
    cdef public object owner, spec, totals
    cdef public list idle
    cdef public Reactor reactor
    cdef public long tick
    cpdef discard(self, Idle idle, object cause)
    cpdef schedule(self)
