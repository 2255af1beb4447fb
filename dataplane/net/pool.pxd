cimport cython
from dataplane.net.calls cimport close, peek
from dataplane.net.counters cimport BackendTotals
from dataplane.net.goal cimport Goal
from dataplane.net.idle cimport Idle, Shelf
from dataplane.net.leg cimport Leg
from dataplane.net.reactor cimport Reactor
from dataplane.net.refiller cimport Refiller

cdef unsigned int IN
cdef int NOTHING

cdef class Pool:
    cdef public object backend
    cdef public BackendTotals totals
    cdef public Goal goal
    cdef public Refiller refiller
    cdef public Shelf shelf
    @cython.locals(goal=Goal, idle=Idle, idle_list=list, now=double, waiting=int, totals=BackendTotals)
    cpdef Idle take(self)
    @cython.locals(goal=Goal, idle=Idle, idle_list=list, reactor=Reactor, now=double, fd=int, mask=int)
    cpdef put(self, Leg leg, double born_at, object dialled_to)
