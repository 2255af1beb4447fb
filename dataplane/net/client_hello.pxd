cimport cython
from dataplane.net.calls cimport receive, send, set_option
from dataplane.net.flow cimport Flow
from dataplane.net.leg cimport Leg
from dataplane.net.reactor cimport Handler, Reactor

cdef unsigned int ERR, IN, RDHUP
cdef int UNWATCHED

cdef class HelloReader(Handler):
    cdef public Flow flow
    cdef object _route
    cdef long _lowat
    cdef bint _may_ask_gss
    @cython.locals(flow=Flow)
    cpdef start(self)
    @cython.locals(flow=Flow, reactor=Reactor, client=Leg, when=double, timeout_s=double)
    cdef _wait(self)
    @cython.locals(flow=Flow, fd=int, size=long, code=int, seen=bytes)
    cpdef on_event(self, unsigned int events)
    @cython.locals(client=Leg)
    cpdef stop(self)
    @cython.locals(flow=Flow, reactor=Reactor, client=Leg)
    cdef _leave(self)
    cdef _look(self, bytes seen)
    @cython.locals(flow=Flow, client=Leg)
    cdef _done(self, object hello)
