cimport cython

cdef class Histogram:
    cdef public tuple bounds
    cdef public list counts
    cdef public double sum
    @cython.locals(bound=double, index=int)
    cpdef observe(self, double value)

cdef class ServiceTotals:
    cdef public long long bytes_in, bytes_out, connections, handed_over, retries
    cdef public dict closed
    cdef public Histogram queue, session
    cdef public object tls

cdef class BackendTotals:
    cdef public long long bytes_in, bytes_out, connect_failures, connections, ejections, hits, misses
    cdef public dict discarded
    cdef public Histogram connect, first_byte
    cdef public object tls
