cimport cython
from dataplane.net.calls cimport finish, last_short, pump, send, unsent
from dataplane.net.reactor cimport Handler, Reactor
from dataplane.net.tls cimport Channel

cdef unsigned int ERR, IN, OUT
cdef int NOBODY, UNWATCHED
cdef long NOTHING, SHORT

cdef class LegOwner(Handler):
    cdef public Reactor reactor
    cdef public double last
    cdef public Leg speaker
    cdef public object detail
    cpdef on_first_byte(self, Leg leg)
    cpdef bint replaces(self, Leg leg) except -1
    cpdef end(self, object reason, bint reset=*, Leg given_back=*)

cdef class Leg(Handler):
    cdef public LegOwner flow
    cdef public Leg peer
    cdef public int fd, mask
    cdef public long chunk
    cdef public long long received
    cdef public object pending
    cdef public Channel tls
    cdef public bint broken, dead, eof, hung_up, nagle, shut, truncated
    @cython.locals(mask=int)
    cpdef on_event(self, unsigned int events)
    cpdef part(self)
    @cython.locals(peer=Leg, size=long, is_second=bint)
    cdef _read(self)
    @cython.locals(flow=LegOwner)
    cdef _has_read(self, long size)
    @cython.locals(peer=Leg)
    cdef _keep_rest(self)
    cpdef stop_nagle(self)
    @cython.locals(flow=LegOwner, sent=long)
    cdef _flush(self)
    @cython.locals(sent=long)
    cpdef send_first(self, object data)
    @cython.locals(mask=int, reactor=Reactor)
    cpdef rewatch(self)
    cpdef pass_fin_on(self)
    cpdef write_failed(self, int code)
    @cython.locals(flow=LegOwner)
    cdef _end_reading(self)
    cdef _hang_up(self, unsigned int events)
