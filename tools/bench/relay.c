/* A minimal TCP relay: the floor of what any proxy in user space can cost. No limits, timers, counters or logs.
 *
 *   relay HOST:PORT BACKEND_HOST:PORT...
 *
 * One thread, one level-triggered epoll, round robin, one shared buffer. A FIN becomes a half-close, a reset a reset;
 * a side that cannot be written stops the reading of the other.
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
#define BUFFER (256 * 1024)

/* One end of a pair; `rest` is what the other end sent and this one did not take yet. */
struct side {
    struct side *other, *next_dead;
    int fd, ended, dead, connecting;
    uint32_t watched;
    char *rest;
    size_t length, sent;
};

static int epoll_fd, backend_count, next_backend;
static struct sockaddr_in *backends;
static struct side listener, *graveyard;
static char buffer[BUFFER];

static struct sockaddr_in parse(char *address) {
    char *colon = strrchr(address, ':');
    struct sockaddr_in at = {.sin_family = AF_INET};
    if (!colon) exit(2);
    at.sin_port = htons((uint16_t)atoi(colon + 1));
    *colon = 0;
    if (inet_pton(AF_INET, address, &at.sin_addr) != 1) exit(2);
    return at;
}

static void watch(struct side *side, int operation) {
    uint32_t wanted = side->ended || side->other->rest || side->other->connecting ? 0 : EPOLLIN;
    if (side->rest || side->connecting) wanted |= EPOLLOUT;
    if (operation == EPOLL_CTL_MOD && wanted == side->watched) return;
    struct epoll_event event = {.events = wanted, .data.ptr = side};
    side->watched = wanted;
    epoll_ctl(epoll_fd, operation, side->fd, &event);
}

/* Close both ends; the memory goes after the batch, because events of it may still name them. */
static void end(struct side *side, int reset) {
    struct side *pair[2] = {side, side->other};
    struct linger linger = {1, 0};
    for (int i = 0; i < 2; i++) {
        if (pair[i]->dead) continue;
        if (reset) setsockopt(pair[i]->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        close(pair[i]->fd);
        free(pair[i]->rest);
        pair[i]->rest = NULL;
        pair[i]->dead = 1;
        pair[i]->next_dead = graveyard;
        graveyard = pair[i];
    }
}

static void pass_end(struct side *from) {
    from->ended = 1;
    if (from->other->ended && !from->rest && !from->other->rest) {
        end(from, 0);
        return;
    }
    if (!from->other->rest) shutdown(from->other->fd, SHUT_WR);
    watch(from, EPOLL_CTL_MOD);
}

static void forward(struct side *from) {
    struct side *to = from->other;
    ssize_t n = recv(from->fd, buffer, sizeof buffer, 0);
    if (n == 0) {
        pass_end(from);
        return;
    }
    if (n < 0) {
        if (errno != EAGAIN) end(from, 1);
        return;
    }
    ssize_t sent = send(to->fd, buffer, (size_t)n, MSG_NOSIGNAL);
    if (sent == n) return;
    if (sent < 0 && errno != EAGAIN) {
        end(from, 1);
        return;
    }
    if (sent < 0) sent = 0;
    to->length = (size_t)(n - sent);
    to->sent = 0;
    to->rest = malloc(to->length);
    if (!to->rest) exit(1);
    memcpy(to->rest, buffer + sent, to->length);
    watch(to, EPOLL_CTL_MOD);
    watch(from, EPOLL_CTL_MOD);
}

static void flush(struct side *side) {
    ssize_t n = send(side->fd, side->rest + side->sent, side->length - side->sent, MSG_NOSIGNAL);
    if (n < 0) {
        if (errno != EAGAIN) end(side, 1);
        return;
    }
    side->sent += (size_t)n;
    if (side->sent < side->length) return;
    free(side->rest);
    side->rest = NULL;
    if (side->other->ended) shutdown(side->fd, SHUT_WR);
    if (side->ended && side->other->ended) {
        end(side, 0);
        return;
    }
    watch(side, EPOLL_CTL_MOD);
    watch(side->other, EPOLL_CTL_MOD);
}

static void connected(struct side *side) {
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(side->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error) {
        end(side, 1);
        return;
    }
    side->connecting = 0;
    watch(side, EPOLL_CTL_MOD);
    watch(side->other, EPOLL_CTL_MOD);
    forward(side->other); /* what the client sent meanwhile */
}

static void take(void) {
    int fd, one = 1;
    while ((fd = accept4(listener.fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct side *client = calloc(1, sizeof *client), *backend = calloc(1, sizeof *backend);
        if (!client || !backend) exit(1);
        struct sockaddr_in *to = &backends[next_backend++ % backend_count];
        client->other = backend;
        backend->other = client;
        client->fd = fd;
        backend->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(backend->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (connect(backend->fd, (struct sockaddr *)to, sizeof *to) && errno != EINPROGRESS) {
            end(client, 1);
            continue;
        }
        backend->connecting = 1;
        watch(client, EPOLL_CTL_ADD);
        watch(backend, EPOLL_CTL_ADD);
    }
}

static void handle(struct side *side, uint32_t events) {
    if (side->dead) return;
    if (side->connecting) {
        connected(side);
        return;
    }
    if (events & EPOLLOUT && side->rest) flush(side);
    if (!side->dead && events & EPOLLIN && side->watched & EPOLLIN) forward(side);
    else if (!side->dead && events & EPOLLERR) end(side, 1);
}

int main(int argc, char **argv) {
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN, .data.ptr = &listener};
    struct rlimit files;
    int one = 1;
    if (argc < 3) return 2;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    struct sockaddr_in at = parse(argv[1]);
    backend_count = argc - 2;
    backends = calloc((size_t)backend_count, sizeof *backends);
    for (int i = 0; backends && i < backend_count; i++) backends[i] = parse(argv[i + 2]);
    epoll_fd = epoll_create1(0);
    listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener.fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener.fd, (struct sockaddr *)&at, sizeof at) || listen(listener.fd, 4096)) {
        perror("relay: listen");
        return 1;
    }
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener.fd, &event);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &listener) take();
            else handle(events[i].data.ptr, events[i].events);
        }
        while (graveyard) {
            struct side *next = graveyard->next_dead;
            free(graveyard);
            graveyard = next;
        }
    }
}
