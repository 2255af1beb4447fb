cdef class Demand:
    cdef long _arrivals
    cdef double _dial_s, _events, _folded_at
    cpdef bint arrived(self, double now) except -1
    cpdef dialled(self, double seconds)
    cdef _fold(self, double now)
