cimport cython
from dataplane.net.backend cimport Backend
from dataplane.net.connect cimport Connector
from dataplane.net.flow cimport Flow
from dataplane.net.leg cimport Leg
from dataplane.net.reactor cimport Reactor

cdef class Service:
    cdef public Reactor reactor
    cdef public object access_log, admission, cells, deadlines, drain_reason, former_addresses, name, observer
    cdef public object proxy_header, queue, queue_place, selection, spec, totals, trusted
    cdef public dict backends
    cdef public list leaving
    cdef public set flows
    cdef public long own, row
    cdef public unsigned int leaving_events
    cdef public bint draining, guarded, proxy_required, reuses, sticky
    cdef bint _serving
    cdef public Connector connector
    @cython.locals(flow=Flow)
    cpdef accepted(self, int fd, object address)
    @cython.locals(limit=long)
    cpdef admit(self, Flow flow)
    @cython.locals(now=double, backend=Backend)
    cpdef on_end(self, Flow flow, object reason, Leg server, bint pooled=*)
