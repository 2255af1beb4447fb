"""The compiled form of calls.py, whose docstrings hold for both: descriptors without objects, and errnos without exceptions.

None of the calls waits (MSG_DONTWAIT, SOCK_NONBLOCK, a timeout of 0), so the interpreter's lock is kept.
"""

from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.errno cimport EAGAIN, ECONNREFUSED, EINPROGRESS, EISCONN, EMFILE, errno
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

import os
import socket

cdef extern from *:
    """
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <sys/epoll.h>
    #include <sys/socket.h>
    #include <sys/un.h>
    #include <time.h>
    #include <unistd.h>

    #define BUFFER_SIZE (512 * 1024)
    #define MOST_EVENTS 256

    /* what any socket's address fits into */
    union address {
        struct sockaddr any;
        struct sockaddr_in ip4;
        struct sockaddr_in6 ip6;
        struct sockaddr_un path;
    };
    """
    enum: BUFFER_SIZE
    enum: MOST_EVENTS

    ctypedef int socklen_t
    struct in_addr:
        unsigned int s_addr
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_in:
        unsigned short sin_family
        unsigned short sin_port
        in_addr sin_addr
    struct in6_addr:
        pass
    struct sockaddr_in6:
        unsigned short sin6_family
        unsigned short sin6_port
        unsigned int sin6_scope_id
        unsigned int sin6_flowinfo
        in6_addr sin6_addr
    struct sockaddr_un:
        unsigned short sun_family
        char sun_path[108]
    union address:
        sockaddr any
        sockaddr_in ip4
        sockaddr_in6 ip6
        sockaddr_un path
    struct linger:
        int l_onoff
        int l_linger
    struct timespec:
        long tv_sec
        long tv_nsec
    union epoll_data:
        int fd
    struct epoll_event:
        unsigned int events
        epoll_data data

    enum: AF_INET
    enum: AF_INET6
    enum: AF_UNIX
    enum: SOCK_STREAM
    enum: SOCK_NONBLOCK
    enum: SOCK_CLOEXEC
    enum: IPPROTO_TCP
    enum: SOL_SOCKET
    enum: SO_LINGER
    enum: TCP_NODELAY
    enum: SHUT_WR
    enum: MSG_DONTWAIT
    enum: MSG_NOSIGNAL
    enum: MSG_PEEK
    enum: EPOLLIN
    enum: EPOLLOUT
    enum: EPOLLERR
    enum: EPOLLRDHUP
    enum: EPOLL_CLOEXEC
    enum: EPOLL_CTL_ADD
    enum: EPOLL_CTL_DEL
    enum: EPOLL_CTL_MOD
    enum: INET6_ADDRSTRLEN

    int sys_accept4 "accept4"(int, sockaddr *, socklen_t *, int) nogil
    int sys_socket "socket"(int, int, int) nogil
    int sys_connect "connect"(int, const sockaddr *, socklen_t) nogil
    int sys_close "close"(int) nogil
    int sys_shutdown "shutdown"(int, int) nogil
    ssize_t sys_recv "recv"(int, void *, size_t, int) nogil
    ssize_t sys_send "send"(int, const void *, size_t, int) nogil
    int setsockopt(int, int, int, const void *, socklen_t) nogil
    int getsockopt(int, int, int, void *, socklen_t *) nogil
    int getsockname(int, sockaddr *, socklen_t *) nogil
    int getpeername(int, sockaddr *, socklen_t *) nogil
    int epoll_create1(int) nogil
    int epoll_ctl(int, int, int, epoll_event *) nogil
    int epoll_wait(int, epoll_event *, int, int) nogil
    enum: CLOCK_MONOTONIC
    int clock_gettime(int, timespec *) nogil
    unsigned short htons(unsigned short) nogil
    unsigned short ntohs(unsigned short) nogil
    int inet_pton(int, const char *, void *) nogil
    const char *inet_ntop(int, const void *, char *, socklen_t) nogil

BUFFER_BYTES = BUFFER_SIZE
SHORT = -1_000_000
NOBODY = -1
NOTHING = -EAGAIN
IN = EPOLLIN
OUT = EPOLLOUT
ERR = EPOLLERR
RDHUP = EPOLLRDHUP
UNWATCHED = -1
Address = tuple

cdef char _buffer[BUFFER_SIZE]
cdef long _size = 0, _sent = 0, _code = 0
BUFFER = PyMemoryView_FromMemory(_buffer, BUFFER_SIZE, PyBUF_READ)


cdef object _ip_and_port(address *at):
    cdef char text[INET6_ADDRSTRLEN]
    if at.any.sa_family == AF_INET:
        return _dotted(<unsigned char *> &at.ip4.sin_addr), ntohs(at.ip4.sin_port)
    if at.any.sa_family == AF_INET6:
        inet_ntop(AF_INET6, &at.ip6.sin6_addr, text, sizeof(text))
        host = (<bytes> text).decode("ascii")
        if at.ip6.sin6_scope_id:
            host = f"{host}%{_interface(at.ip6.sin6_scope_id)}"
        return host, ntohs(at.ip6.sin6_port)
    return None


cdef str _dotted(unsigned char *octets):
    """Write four octets as inet_ntop(3) does, which costs as much as the call that accepts."""
    cdef char text[16]
    cdef int at = 0, index
    cdef unsigned char octet
    for index in range(4):
        octet = octets[index]
        if octet >= 100:
            text[at] = 48 + octet // 100
            at += 1
        if octet >= 10:
            text[at] = 48 + octet // 10 % 10
            at += 1
        text[at], text[at + 1] = 48 + octet % 10, 46
        at += 2
    return PyUnicode_DecodeASCII(text, at - 1, NULL)


def _interface(number):
    try:
        return socket.if_indextoname(number)
    except OSError:
        return number


cpdef tuple accept(object listener, int family):
    cdef address at
    cdef socklen_t length = sizeof(at)
    cdef int fd = sys_accept4(listener.fileno(), &at.any, &length, SOCK_CLOEXEC)
    if fd < 0:
        return -errno, None
    return fd, _ip_and_port(&at)


cpdef adopt(int fd, int family):
    pass


cpdef pack(int family, object sockaddr):
    cdef address at
    cdef bytes text
    memset(&at, 0, sizeof(at))
    at.any.sa_family = family
    if family == AF_UNIX:
        text = os.fsencode(sockaddr)
        if len(text) >= sizeof(at.path.sun_path):
            raise OSError("AF_UNIX path too long")
        memcpy(at.path.sun_path, <char *> text, len(text))
        # without the NUL that ends it, if it is the name of an abstract socket, which begins with one
        length = sizeof(at.path.sun_family) + len(text) + (not text.startswith(b"\0"))
        return PyBytes_FromStringAndSize(<char *> &at, length)
    text = sockaddr[0].partition("%")[0].encode("ascii")
    if inet_pton(family, text, &at.ip4.sin_addr if family == AF_INET else <void *> &at.ip6.sin6_addr) != 1:
        raise OSError(f"{sockaddr[0]} is no IP address")
    if family == AF_INET:
        at.ip4.sin_port = htons(sockaddr[1])
        return PyBytes_FromStringAndSize(<char *> &at, sizeof(at.ip4))
    at.ip6.sin6_port = htons(sockaddr[1])
    if len(sockaddr) > 3:
        at.ip6.sin6_scope_id = sockaddr[3]
    return PyBytes_FromStringAndSize(<char *> &at, sizeof(at.ip6))


cpdef tuple dial(int family, object packed, int ceiling, bint check):
    cdef int fd = sys_socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), code
    if fd < 0:
        return NOBODY, errno
    if fd >= ceiling:
        sys_close(fd)
        return NOBODY, EMFILE
    code = connect(fd, packed, check)
    if code == EINPROGRESS:
        code = connect(fd, packed, check)
    return fd, code


cpdef int connect(int fd, object packed, bint check) except -1:
    cdef bytes to = packed
    if sys_connect(fd, <const sockaddr *> <const char *> to, len(to)) and errno != EISCONN:
        return errno
    return ECONNREFUSED if check and _has_met_itself(fd) else 0


cdef bint _has_met_itself(int fd) noexcept:
    cdef address own, peer
    cdef socklen_t length = sizeof(own), peers = sizeof(peer)
    memset(&own, 0, sizeof(own))
    memset(&peer, 0, sizeof(peer))
    if getsockname(fd, &own.any, &length) or getpeername(fd, &peer.any, &peers):
        return False
    return length == peers and not memcmp(&own, &peer, length)


cpdef long pump(int source, int target, long limit, bint nodelay=False) noexcept:
    global _size, _sent, _code
    cdef ssize_t size = sys_recv(source, _buffer, limit, MSG_DONTWAIT), sent
    if size < 0:
        return -errno
    if size == 0 or target < 0:
        return size
    if nodelay:
        set_option(target, IPPROTO_TCP, TCP_NODELAY, 1)
    sent = sys_send(target, _buffer, size, MSG_DONTWAIT | MSG_NOSIGNAL)
    if sent == size:
        return size
    _size, _sent, _code = size, sent, 0
    if sent < 0:
        _sent, _code = 0, 0 if errno == EAGAIN else errno
    return -1_000_000


cpdef long pull(int source, long limit) noexcept:
    cdef ssize_t size = sys_recv(source, _buffer, min(limit, BUFFER_SIZE), MSG_DONTWAIT)
    return -errno if size < 0 else size


cpdef tuple last_short():
    return _size, _sent, _code


cpdef bytes unsent():
    return PyBytes_FromStringAndSize(_buffer + _sent, _size - _sent)


cpdef long send(int fd, object data) except? -1:
    cdef const unsigned char[:] view = data
    cdef ssize_t sent
    if not len(view):
        return 0
    sent = sys_send(fd, &view[0], len(view), MSG_DONTWAIT | MSG_NOSIGNAL)
    return -errno if sent < 0 else sent


cpdef tuple receive(int fd, long size, bint leave=False):
    cdef ssize_t got = sys_recv(fd, _buffer, min(size, BUFFER_SIZE), MSG_DONTWAIT | (MSG_PEEK if leave else 0))
    if got < 0:
        return b"", errno
    return PyBytes_FromStringAndSize(_buffer, got), 0


cpdef int peek(int fd) noexcept:
    cdef char byte
    cdef ssize_t got = sys_recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK)
    return -errno if got < 0 else got


cpdef void finish(int fd) noexcept:
    sys_shutdown(fd, SHUT_WR)


cpdef void close(int fd, bint reset=False) noexcept:
    cdef linger at_once
    if reset:
        at_once.l_onoff, at_once.l_linger = 1, 0
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once))
    sys_close(fd)


cpdef int set_option(int fd, int level, int name, int value) noexcept:
    return errno if setsockopt(fd, level, name, &value, sizeof(value)) else 0


cpdef int option(int fd, int level, int name) noexcept:
    cdef unsigned char value = 0
    cdef socklen_t length = sizeof(value)
    return -errno if getsockopt(fd, level, name, &value, &length) else value


cpdef object own_name(int fd):
    cdef address at
    cdef socklen_t length = sizeof(at)
    if getsockname(fd, &at.any, &length):
        raise OSError(errno, os.strerror(errno))
    return _ip_and_port(&at)


cpdef double monotonic() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cdef class Epoll:
    """As select.epoll, of which it has what the reactor asks for."""

    def __cinit__(self):
        self._fd = epoll_create1(EPOLL_CLOEXEC)
        if self._fd < 0:
            raise OSError(errno, os.strerror(errno))
        self._batch = malloc(MOST_EVENTS * sizeof(epoll_event))
        if self._batch is NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self._batch)
        if self._fd >= 0:
            sys_close(self._fd)

    cpdef int fileno(self):
        return self._fd

    cpdef close(self):
        if self._fd >= 0:
            sys_close(self._fd)
            self._fd = -1

    cpdef int register(self, int fd, unsigned int events) except -1:
        return _control(self._fd, EPOLL_CTL_ADD, fd, events)

    cpdef int modify(self, int fd, unsigned int events) except -1:
        return _control(self._fd, EPOLL_CTL_MOD, fd, events)

    cpdef int unregister(self, int fd) except -1:
        return _control(self._fd, EPOLL_CTL_DEL, fd, 0)

    cpdef int wait(self, int most) except -1:
        cdef int count = epoll_wait(self._fd, <epoll_event *> self._batch, min(most, MOST_EVENTS), 0)
        if count < 0:
            raise OSError(errno, os.strerror(errno))
        return count

    cpdef int fd(self, int index) noexcept:
        return (<epoll_event *> self._batch)[index].data.fd

    cpdef unsigned int events(self, int index) noexcept:
        return (<epoll_event *> self._batch)[index].events


cdef int _control(int epoll, int what, int fd, unsigned int events) except -1:
    cdef epoll_event event
    event.events = events
    event.data.fd = fd
    if epoll_ctl(epoll, what, fd, &event):
        raise OSError(errno, os.strerror(errno))
    return 0
