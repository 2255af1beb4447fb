cimport cython

cdef long _A, _Z, _ZERO, _NINE, _HYPHEN, _DOT, _MAX_LABEL

@cython.locals(at=long, begin=long, end=long, missing=long, size=long)
cpdef read_hello(bytes data)
cdef _check_start(bytes data, long at)
cdef long _fragment_size(bytes data, long at) except -1
cdef long _missing(bytes message) except? -1
cdef long _bounded(long size) except -1

cdef class _Fields:
    cdef bytes _data
    cdef long _at
    @cython.locals(begin=long)
    cpdef bytes take(self, long size)
    cpdef long number(self, long size) except -1
    cpdef bytes vector(self, long size)

@cython.locals(at=long, end=long, begin=long, kind=long, seen=set)
cdef _parse(bytes body)
@cython.locals(begin=long, end=long)
cdef long _behind(bytes data, long at, long size) except -1
@cython.locals(at=long, size=long, found=list)
cdef tuple _versions(bytes extension)
@cython.locals(size=long, listed_size=long, name_size=long)
cdef str _server_name(bytes extension)
cdef str _host(bytes name)
@cython.locals(label=long, byte=long)
cdef bint _is_plain(bytes name) except -1
