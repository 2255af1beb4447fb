cimport cython
from dataplane.net.calls cimport close
from dataplane.net.goal cimport Goal
from dataplane.net.idle cimport Idle, Shelf
from dataplane.net.reactor cimport Reactor

cdef unsigned int IN, OUT
cdef int NOBODY, UNWATCHED

cdef class Refiller:
    cdef public object backend
    cdef public set dials
    cdef public Goal goal
    cdef public Reactor reactor
    cdef public double retry_at, retry_s
    cdef public Shelf shelf
    cdef public bint shakes_ahead
    cdef public long tick
    @cython.locals(goal=Goal, own=long, missing=long)
    cpdef refill(self)
    @cython.locals(reactor=Reactor, started_at=double, fd=int, code=int)
    cdef bint _dial(self) except -1
    @cython.locals(idle=Idle)
    cdef Idle _add(self, int fd, object target, double started_at, double now)
