cimport cython
from dataplane.net.calls cimport accept
from dataplane.net.reactor cimport Handler, Reactor

cdef unsigned int IN
cdef int NOTHING

cdef class Listener(Handler):
    cdef public object address, entrance, service, sock
    cdef public Reactor reactor
    cdef public int fd
    cdef public bint paused
    cdef public long accepted, tick
    cdef object _inode
    cdef int _family
    @cython.locals(family=int, ceiling=long, taken=int, fd=int)
    cpdef on_event(self, unsigned int events)
