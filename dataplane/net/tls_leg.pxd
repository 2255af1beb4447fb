cimport cython
from dataplane.net.calls cimport finish, pull, send
from dataplane.net.leg cimport Leg, LegOwner
from dataplane.net.reactor cimport Reactor
from dataplane.net.tls cimport Channel

cdef long NOTHING

cdef class TlsLeg(Leg):
    @cython.locals(chunk=long, size=long, tls=Channel, data=object)
    cdef _read(self)
    @cython.locals(tls=Channel)
    cpdef begin(self)
    @cython.locals(peer=Leg, size=long, sent=long)
    cdef _pass_on(self, object data, bint is_full)
    @cython.locals(peer=Leg)
    cdef _keep(self, object data, long sent)
    @cython.locals(tls=Channel, owed=bytes)
    cdef _take_note(self)
    @cython.locals(sent=long)
    cdef _answer(self, bytes owed)
    cdef _break(self, object cause)
    @cython.locals(tls=Channel, owed=bytes, sent=long)
    cpdef pass_fin_on(self)

cpdef TlsLeg secured(Leg leg)
@cython.locals(tls=Channel)
cpdef farewell(Leg leg)
@cython.locals(flow=LegOwner, client=Leg)
cpdef object broken_off(Leg server)
