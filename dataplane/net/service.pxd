cimport cython
from dataplane.net.backend cimport Backend
from dataplane.net.connect cimport Connector, ConnectorOwner
from dataplane.net.counters cimport BackendTotals, ServiceTotals
from dataplane.net.flow cimport Flow
from dataplane.net.leg cimport Leg
from dataplane.net.reactor cimport Reactor

cdef class Service(ConnectorOwner):
    cdef public object access_log, admission, backend_tls, cells, former_addresses, queue_place, tls
    cdef public dict backends
    cdef public set flows
    cdef public long most, own, row
    cdef public bint guarded, sticky
    cdef bint _serving, _speaks_tls
    @cython.locals(flow=Flow)
    cpdef accepted(self, int fd, object address)
    @cython.locals(limit=long)
    cpdef admit(self, Flow flow)
    @cython.locals(connector=Connector)
    cpdef choose_backend(self, Flow flow)
    @cython.locals(now=double, backend=Backend, connector=Connector, counts=BackendTotals, totals=ServiceTotals, sent=cython.longlong, answered=cython.longlong, client=Leg)
    cpdef on_end(self, Flow flow, object reason, Leg server, bint pooled=*)
