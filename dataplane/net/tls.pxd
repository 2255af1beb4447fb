cimport cython

cdef class Channel:
    cdef object _object
    cdef bytes _owed
    cdef public bint closed, is_finished, is_open
    cdef public bytes early
    cdef public double handshake_s
    cdef public object context, failure
    cpdef bint handshake(self, object data) except -1
    cpdef receive(self, object data)
    @cython.locals(size=long, got=long)
    cdef _read(self)
    cdef _collect(self)
    cpdef bytes outgoing(self)
    @cython.locals(done=long, size=long)
    cpdef bytes seal(self, object data)
    cpdef bytes finish(self)

cpdef tuple certificate_names(Channel channel)
