/* The backend of raw loads: sends back what it gets; one thread, one epoll, any number of listening addresses.
 *
 *   echo HOST:PORT...
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 256
#define BUFFER (64 * 1024)

/* What the socket did not take yet; while there is some, nothing is read. */
struct rest {
    size_t length, sent;
    char *data;
};

static int epoll_fd, first_client;
static struct rest *rests;
static char buffer[BUFFER];

static void watch(int fd, uint32_t events, int operation) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(epoll_fd, operation, fd, &event);
}

static void end(int fd) {
    free(rests[fd].data);
    memset(&rests[fd], 0, sizeof rests[fd]);
    close(fd);
}

static void flush(int fd) {
    struct rest *rest = &rests[fd];
    ssize_t n = send(fd, rest->data + rest->sent, rest->length - rest->sent, MSG_NOSIGNAL);
    if (n < 0) {
        if (errno != EAGAIN) end(fd);
        return;
    }
    rest->sent += (size_t)n;
    if (rest->sent < rest->length) return;
    free(rest->data);
    memset(rest, 0, sizeof *rest);
    watch(fd, EPOLLIN, EPOLL_CTL_MOD);
}

static void serve(int fd) {
    ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        end(fd);
        return;
    }
    ssize_t sent = send(fd, buffer, (size_t)n, MSG_NOSIGNAL);
    if (sent == n) return;
    if (sent < 0 && errno != EAGAIN) {
        end(fd);
        return;
    }
    if (sent < 0) sent = 0;
    struct rest *rest = &rests[fd];
    rest->length = (size_t)(n - sent);
    rest->data = malloc(rest->length);
    if (!rest->data) exit(1);
    memcpy(rest->data, buffer + sent, rest->length);
    watch(fd, EPOLLOUT, EPOLL_CTL_MOD);
}

static void take(int listener) {
    int one = 1, fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(fd, EPOLLIN, EPOLL_CTL_ADD);
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
        perror("echo: listen");
        exit(1);
    }
    watch(fd, EPOLLIN, EPOLL_CTL_ADD);
    first_client = fd + 1;
}

int main(int argc, char **argv) {
    struct epoll_event events[EVENTS];
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    rests = calloc(files.rlim_cur, sizeof *rests);
    epoll_fd = epoll_create1(0);
    if (argc < 2 || !rests) return 2;
    for (int i = 1; i < argc; i++) listen_on(argv[i]);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd < first_client) take(fd);
            else if (rests[fd].data) flush(fd);
            else serve(fd);
        }
    }
}
