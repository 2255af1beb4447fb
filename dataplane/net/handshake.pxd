cimport cython
from dataplane.net.calls cimport pull, send
from dataplane.net.flow cimport Flow
from dataplane.net.leg cimport Leg
from dataplane.net.reactor cimport Handler, Reactor
from dataplane.net.tls cimport Channel
from dataplane.net.tls_leg cimport TlsLeg, secured

cdef unsigned int IN, OUT
cdef int UNWATCHED
cdef long NOTHING

cdef class ClientHandshake(Handler):
    cdef public Flow flow
    cdef object _tls, _totals
    cdef Channel _channel
    cdef bytes _asked, _owed
    cdef tuple _answered
    cdef double _since
    @cython.locals(flow=Flow, timeout_s=double, when=double)
    cpdef start(self)
    cpdef on_event(self, unsigned int events)
    @cython.locals(client=Leg, reactor=Reactor)
    cdef _watch(self, int mask)
    @cython.locals(flow=Flow, size=long, channel=Channel)
    cdef _read(self)
    cdef bytes _answer(self, bytes seen)
    @cython.locals(flow=Flow)
    cdef _failed(self, object cause)
    @cython.locals(flow=Flow, channel=Channel, owed=bytes, sent=long)
    cdef _send(self, bytes more)
    @cython.locals(flow=Flow, reactor=Reactor, client=TlsLeg)
    cdef _done(self, Channel channel)
