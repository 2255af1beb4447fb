from dataplane.net.counters cimport BackendTotals

cdef class Backend:
    cdef public BackendTotals totals
    cdef public object absence, address, cells, draining_since, health, id, others, pool, ramp_from, spec, standing, tls
    cdef public bint healthy, named, reachable, removed, usable
    cdef public long failures, own, row
    cdef public double connect_timeout_s
