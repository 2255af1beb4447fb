from dataplane.net.reactor cimport Wheel

cdef class Deadlines:
    cdef public double first_check_s
    cdef Wheel _wheel
    cdef object _timeouts
    cdef long _user_timeout_ms
    cpdef half_closed(self, object flow, double now)
