cimport cython
from dataplane.net.backend cimport Backend
from dataplane.net.calls cimport close
from dataplane.net.flow cimport Flow
from dataplane.net.idle cimport Idle
from dataplane.net.leg cimport Leg
from dataplane.net.pool cimport Pool
from dataplane.net.reactor cimport Reactor

cdef unsigned int OUT
cdef int NOBODY, UNWATCHED

cdef class Connector:
    cdef object _service
    cpdef choose(self, Flow flow)
    cpdef connect(self, Flow flow, object chosen, object failure)
    cpdef release(self, Flow flow, Backend backend)
    @cython.locals(pool=Pool, idle=Idle, code=int)
    cdef int _attempt(self, Flow flow, Backend backend) except -1
    @cython.locals(reactor=Reactor, limit=long, started_at=double, fd=int, code=int)
    cdef int _dial(self, Flow flow, Backend backend) except -1
