cimport cython
from dataplane.net.calls cimport close
from dataplane.net.backend cimport Backend
from dataplane.net.deadlines cimport Deadlines
from dataplane.net.leg cimport Leg, LegOwner
from dataplane.net.reactor cimport Reactor
from dataplane.net.tls cimport Channel
from dataplane.net.tls_leg cimport TlsLeg, broken_off, farewell, secured

cdef unsigned int RDHUP
cdef int UNWATCHED

cdef class FlowOwner:
    cdef public Reactor reactor
    cdef public Deadlines deadlines
    cdef public object connector, drain_reason, name, proxy_header, spec, trusted
    cdef public unsigned int leaving_events
    cdef public bint proxy_required, reuses
    cpdef admit(self, Flow flow)
    cpdef choose_backend(self, Flow flow)
    cpdef on_end(self, Flow flow, object reason, Leg server, bint pooled=*)

cdef class Flow(LegOwner):
    cdef public FlowOwner service
    cdef public Backend backend
    cdef public object address, destination, dial, dialled_to, hello, key, place, reason, waiting
    cdef public Leg client, server, victim
    cdef public tuple fields, tried
    cdef public bint admitted, counted, over, pooled, tls_asked, tuned
    cdef public long tick
    cdef public long long unsent
    cdef public double born_at, connected_at, deadline, first_at, queued_s, started_at
    @cython.locals(reactor=Reactor, client=Leg, mask=int)
    cpdef watch_client(self)
    @cython.locals(client=Leg, server=Leg, when=double)
    cpdef relay(self, Backend backend, int fd, int mask, bint nagle, Channel tls=*)
    @cython.locals(ahead=TlsLeg, behind=TlsLeg)
    cdef bint _begins(self, Leg client, Leg server) except -1
    @cython.locals(backend=Backend)
    cpdef on_first_byte(self, Leg leg)
    @cython.locals(server=Leg)
    cpdef bint replaces(self, Leg leg) except -1
    @cython.locals(client=Leg)
    cdef bint _gives_back(self, Leg server) except -1
    @cython.locals(client=Leg, server=Leg)
    cpdef settle(self)
    @cython.locals(now=double)
    cdef _half_closed(self, object reason)
    cpdef reset_victim(self, Leg victim)
    @cython.locals(client=Leg, server=Leg, reactor=Reactor)
    cpdef end(self, object reason, bint reset=*, Leg given_back=*)
