cimport cython
from dataplane.net.calls cimport close, connect, dial
from dataplane.net.reactor cimport Handler, Reactor

cdef int NOBODY
cdef unsigned int OUT

cpdef tuple begin(object target, int ceiling)

cdef class Dial(Handler):
    cdef public Reactor reactor
    cdef public object owner, target
    cdef public int failure, fd
    cdef public long tick
    cdef public double deadline, pause_s, started_at
    cdef tuple _others
    cpdef on_event(self, unsigned int events)
