cimport cython
from dataplane.net.flow cimport Flow, FlowOwner
from dataplane.net.leg cimport Leg
from dataplane.net.service cimport Service

cdef class Router(FlowOwner):
    cdef public object accepted_for, address, _routes
    cdef public set unrouted
    cdef public Service first
    cdef public tuple services
    cpdef accepted(self, int fd, object address)
    @cython.locals(flow=Flow)
    cdef Flow _begin(self, int fd, object address)
    cpdef admit(self, Flow flow)
    cpdef route(self, Flow flow, object hello)
    cpdef settle(self, Flow flow, object hello)
    @cython.locals(target=Service)
    cdef _route(self, Flow flow, object hello, str listener)
    cpdef on_end(self, Flow flow, object reason, Leg server, bint pooled=*)
