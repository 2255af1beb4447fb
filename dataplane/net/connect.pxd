cimport cython
from dataplane.net.backend cimport Backend
from dataplane.net.calls cimport close
from dataplane.net.counters cimport ServiceTotals
from dataplane.net.flow cimport Flow, FlowOwner
from dataplane.net.idle cimport Idle
from dataplane.net.leg cimport Leg
from dataplane.net.pool cimport Pool
from dataplane.net.reactor cimport Reactor

cdef unsigned int OUT
cdef int NOBODY, UNWATCHED

cdef class ConnectorOwner(FlowOwner):
    cdef public object observer, queue, selection
    cdef public list leaving
    cdef public ServiceTotals totals
    cdef public bint draining
    cdef public long per_backend, retries
    cpdef enqueue(self, Flow flow, object refusal)
    cpdef serve_queue(self)

@cython.final
cdef class Connector:
    cdef ConnectorOwner _service
    cdef object _handshakes
    @cython.locals(service=ConnectorOwner, limit=long, tried=tuple)
    cpdef choose(self, Flow flow)
    cpdef connect(self, Flow flow, object chosen, object failure)
    @cython.locals(service=ConnectorOwner)
    cpdef release(self, Flow flow, Backend backend)
    @cython.locals(pool=Pool, idle=Idle, code=int)
    cdef int _attempt(self, Flow flow, Backend backend) except -1
    @cython.locals(service=ConnectorOwner, reactor=Reactor, limit=long, started_at=double, fd=int, code=int)
    cdef int _dial(self, Flow flow, Backend backend) except -1
