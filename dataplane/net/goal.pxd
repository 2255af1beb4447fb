from dataplane.core.pool cimport Demand

cdef class Goal:
    cdef public object backend, greeting, mode, reactor, share, spec
    cdef public Demand demand
    cdef public long count, least, limit, slack
    cpdef aim(self)
