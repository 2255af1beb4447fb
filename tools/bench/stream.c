/* The server of bulk transfers: a connection whose first byte is `d` is sent zeros for as long as it takes them; whatever
 * comes on any other one is received, and each 1 MiB of it is answered with one byte.
 *
 *   stream HOST:PORT...
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 64
#define CHUNK (256 * 1024)
#define ACKNOWLEDGED (1 << 20)
#define AT_ONCE 8 /* chunks of one connection before it is another's turn */

static struct { size_t received, answered; int known, sends; } *states;
static char buffer[CHUNK];
static int epoll_fd, first_client;

static void watch(int fd, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(epoll_fd, how, fd, &event);
}

static void take(int listener) {
    int one = 1, fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        memset(&states[fd], 0, sizeof states[fd]);
        watch(fd, EPOLLIN, EPOLL_CTL_ADD);
    }
}

static void end(int fd) {
    close(fd);
}

static void stream_out(int fd) {
    static const char zeros[CHUNK];
    for (int i = 0; i < AT_ONCE; i++) {
        if (send(fd, zeros, sizeof zeros, MSG_NOSIGNAL) >= 0) continue;
        if (errno != EAGAIN) end(fd);
        return;
    }
}

static void take_in(int fd) {
    for (int i = 0; i < AT_ONCE; i++) {
        ssize_t n = recv(fd, buffer, sizeof buffer, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            end(fd);
            return;
        }
        if (!states[fd].known) {
            states[fd].known = 1;
            states[fd].sends = buffer[0] == 'd';
            if (states[fd].sends) {
                watch(fd, EPOLLOUT, EPOLL_CTL_MOD);
                return;
            }
        }
        states[fd].received += (size_t)n;
        while (states[fd].answered < states[fd].received / ACKNOWLEDGED) {
            if (send(fd, "", 1, MSG_NOSIGNAL) != 1) { /* nobody has so many answers waiting */
                end(fd);
                return;
            }
            states[fd].answered++;
        }
    }
}

static void listen_on(char *address) {
    char *colon = strrchr(address, ':');
    struct sockaddr_in at = {.sin_family = AF_INET};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (!colon) exit(2);
    at.sin_port = htons((uint16_t)atoi(colon + 1));
    *colon = 0;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (inet_pton(AF_INET, address, &at.sin_addr) != 1 || bind(fd, (struct sockaddr *)&at, sizeof at) ||
        listen(fd, 4096)) {
        perror("stream: listen");
        exit(1);
    }
    watch(fd, EPOLLIN, EPOLL_CTL_ADD);
    first_client = fd + 1;
}

int main(int argc, char **argv) {
    struct epoll_event events[EVENTS];
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    states = calloc(files.rlim_cur, sizeof *states);
    epoll_fd = epoll_create1(0);
    if (argc < 2 || !states) return 2;
    for (int i = 1; i < argc; i++) listen_on(argv[i]);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd < first_client) take(fd);
            else if (states[fd].sends) stream_out(fd);
            else take_in(fd);
        }
    }
}
