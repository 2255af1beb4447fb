cimport cython

cpdef tuple accept(object listener, int family)
cpdef adopt(int fd, int family)
cpdef pack(int family, object sockaddr)
cpdef tuple dial(int family, object packed, int ceiling, bint check)
cpdef int connect(int fd, object packed, bint check) except -1
cpdef long pump(int source, int target, long limit, bint nodelay=*) noexcept
cpdef long pull(int source, long limit) noexcept
cpdef tuple last_short()
cpdef bytes unsent()
cpdef long send(int fd, object data) except? -1
cpdef tuple receive(int fd, long size, bint leave=*)
cpdef int peek(int fd) noexcept
cpdef void finish(int fd) noexcept
cpdef void close(int fd, bint reset=*) noexcept
cpdef int set_option(int fd, int level, int name, int value) noexcept
cpdef int option(int fd, int level, int name) noexcept
cpdef object own_name(int fd)
cpdef double monotonic() noexcept

@cython.final
cdef class Epoll:
    cdef int _fd
    cdef void *_batch
    cpdef int fileno(self)
    cpdef close(self)
    cpdef int register(self, int fd, unsigned int events) except -1
    cpdef int modify(self, int fd, unsigned int events) except -1
    cpdef int unregister(self, int fd) except -1
    cpdef int wait(self, int most) except -1
    cpdef int fd(self, int index) noexcept
    cpdef unsigned int events(self, int index) noexcept
