/* The load generator: raw echo through whatever listens at the target; prints one line of JSON.
 *
 *   load echo|connect HOST:PORT CONNECTIONS SIZE SECONDS WARMUP RATE [FILE]
 *
 * echo     CONNECTIONS stay open; an operation sends SIZE bytes and waits until as many have come back.
 * connect  an operation connects, sends, receives and closes; at most CONNECTIONS of them at once.
 *
 * What is sent are zeros, or the first SIZE bytes of FILE.
 *
 * RATE 0 is a closed loop: each answer starts the next operation. Otherwise it is an open loop: operation k is due
 * k / RATE seconds after the start, whether or not the target keeps up, and its latency counts from then, so a target
 * that stalls is charged for everybody who would have come meanwhile (no coordinated omission). What was due and not
 * answered within DRAIN_NS after the end counts with the time it had waited until then.
 *
 * SIGTERM ends it before SECONDS are over, as if there had been no more of them.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "latency.h"

#define DRAIN_NS (2 * SECOND)
#define EVENTS 256
#define SOURCES 16 /* client addresses on loopback: 28,000 ports each do not last for long connect loads */

struct slot {
    int fd;
    int busy;
    long long due;
    size_t sent, received;
};

static struct sockaddr_in target;
static struct slot *slots;
static int *idle, idle_count;
static int epoll_fd, timer_fd, count, connecting;
static size_t size;
static char *payload, *sink;
static const size_t sink_size = 256 * 1024;
static long long started, measured_from;
static volatile long long ends;
static double rate;
static uint64_t due_index, total, errors, unfinished;

static void end_now(int signal) {
    (void)signal;
    long long now = now_ns();
    if (now < ends) ends = now;
}

static void record(long long due, long long now) {
    total++;
    long long counts_at = rate > 0 ? due : now;
    if (counts_at < measured_from || counts_at >= ends) return;
    add_latency(now - due);
}

static void fail(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_connection(struct slot *slot) {
    static unsigned next_source;
    int one = 1;
    slot->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (slot->fd < 0) return -1;
    setsockopt(slot->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if ((ntohl(target.sin_addr.s_addr) >> 24) == 127) {
        struct sockaddr_in source = {.sin_family = AF_INET};
        source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + next_source++ % SOURCES);
        setsockopt(slot->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        bind(slot->fd, (struct sockaddr *)&source, sizeof source);
    }
    if (connect(slot->fd, (struct sockaddr *)&target, sizeof target) && errno != EINPROGRESS) {
        close(slot->fd);
        return slot->fd = -1;
    }
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u32 = (uint32_t)(slot - slots)};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, slot->fd, &event);
    return 0;
}

static void push(struct slot *slot) {
    while (slot->busy && slot->sent < size) {
        ssize_t n = send(slot->fd, payload, size - slot->sent, MSG_NOSIGNAL);
        if (n <= 0) return; /* not connected yet, full, or dead: the next event tells */
        slot->sent += (size_t)n;
    }
}

static void begin(struct slot *slot, long long due) {
    slot->busy = 1;
    slot->due = due;
    slot->sent = slot->received = 0;
    if (slot->fd < 0 && open_connection(slot)) {
        errors++;
        slot->busy = 0;
        idle[idle_count++] = (int)(slot - slots);
        return;
    }
    if (!connecting) push(slot); /* a fresh connection says itself when it can be written */
}

static void finish(struct slot *slot, int failed) {
    long long now = now_ns();
    if (slot->busy) {
        if (failed) errors++;
        else record(slot->due, now);
    }
    slot->busy = 0;
    if (connecting || failed) {
        close(slot->fd);
        slot->fd = -1;
    }
    if (rate > 0 || failed) idle[idle_count++] = (int)(slot - slots);
    else if (now < ends) begin(slot, now);
}

static void pull(struct slot *slot) {
    for (;;) {
        ssize_t n = recv(slot->fd, sink, sink_size, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (n <= 0) {
            if (slot->busy || !connecting) finish(slot, 1);
            return;
        }
        slot->received += (size_t)n;
        if (slot->busy && slot->received >= size) {
            finish(slot, 0);
            return; /* the answer was complete: nothing more can wait */
        }
    }
}

/* Start what is due: in a closed loop only what failed or never ran. */
static void start_due(long long now) {
    if (now >= ends && rate == 0) return;
    int tries = idle_count;
    while (tries-- > 0 && idle_count > 0) {
        long long due = now;
        if (rate > 0) {
            due = started + (long long)((double)due_index * 1e9 / rate);
            if (due > now || due >= ends) break;
            due_index++;
        }
        begin(&slots[idle[--idle_count]], due);
    }
    if (rate == 0) return;
    long long next = started + (long long)((double)due_index * 1e9 / rate);
    if (idle_count > 0 && next > now && next < ends) {
        struct itimerspec at = {.it_value = {next / SECOND, next % SECOND}};
        timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
    }
}

static int all_answered(void) {
    long long next = started + (long long)((double)due_index * 1e9 / rate);
    return next >= ends && idle_count == count;
}

static void run(void) {
    struct epoll_event events[EVENTS];
    long long now = now_ns();
    while (now < ends || (rate > 0 && now < ends + DRAIN_NS && !all_answered())) {
        start_due(now);
        int n = epoll_wait(epoll_fd, events, EVENTS, 10);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u32 == UINT32_MAX) {
                uint64_t ticks;
                if (read(timer_fd, &ticks, sizeof ticks) < 0) continue;
                continue;
            }
            struct slot *slot = &slots[events[i].data.u32];
            if (slot->fd < 0) continue;
            if (events[i].events & EPOLLOUT) push(slot);
            pull(slot);
        }
        now = now_ns();
    }
}

/* What was due, or is under way, and got no answer: it waited at least until now. */
static void count_unfinished(void) {
    long long now = now_ns();
    if (rate == 0) return;
    for (int i = 0; i < count; i++)
        if (slots[i].busy) unfinished++, record(slots[i].due, now);
    uint64_t all = (uint64_t)(rate * (double)(ends - started) / 1e9);
    for (; due_index < all; due_index++) {
        long long due = started + (long long)((double)due_index * 1e9 / rate);
        unfinished++, record(due, now);
    }
}

static void read_payload(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file || !payload || fread(payload, 1, size, file) != size) fail(path);
    fclose(file);
}

static void prepare(int argc, char **argv) {
    char *colon = strrchr(argv[2], ':');
    if (!colon) fail("HOST:PORT");
    *colon = 0;
    target.sin_family = AF_INET;
    target.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, argv[2], &target.sin_addr) != 1) fail("an IPv4 address");
    connecting = !strcmp(argv[1], "connect");
    count = atoi(argv[3]);
    size = (size_t)atol(argv[4]);
    rate = atof(argv[7]);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    payload = calloc(1, size);
    if (argc > 8) read_payload(argv[8]);
    sink = malloc(sink_size);
    slots = calloc((size_t)count, sizeof *slots);
    idle = calloc((size_t)count, sizeof *idle);
    if (!payload || !sink || !slots || !idle) fail("memory");
    epoll_fd = epoll_create1(0);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = UINT32_MAX};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &event)) fail("epoll");
    for (int i = count; i-- > 0;) {
        slots[i].fd = -1;
        idle[idle_count++] = i;
    }
}

int main(int argc, char **argv) {
    if (argc != 8 && argc != 9) {
        fprintf(stderr, "usage: load echo|connect HOST:PORT CONNECTIONS SIZE SECONDS WARMUP RATE [FILE]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    prepare(argc, argv);
    if (!connecting)
        for (int i = 0; i < count; i++)
            if (open_connection(&slots[i])) fail("connect");
    started = now_ns();
    measured_from = started + (long long)(atof(argv[6]) * 1e9);
    ends = measured_from + (long long)(atof(argv[5]) * 1e9);
    signal(SIGTERM, end_now);
    run();
    count_unfinished();
    long long length = ends - measured_from;
    printf("{\"operations\": %llu, \"total\": %llu, \"errors\": %llu, \"unfinished\": %llu, \"seconds\": %.6f, "
           "\"rate\": %.3f, \"mean_us\": %.3f, \"p50_us\": %.3f, \"p90_us\": %.3f, \"p99_us\": %.3f, "
           "\"p999_us\": %.3f, \"max_us\": %.3f}\n",
           (unsigned long long)measured, (unsigned long long)total, (unsigned long long)errors,
           (unsigned long long)unfinished, (double)length / 1e9, (double)measured * 1e9 / (double)length,
           mean_us(), percentile(0.5), percentile(0.9),
           percentile(0.99), percentile(0.999), (double)latency_max / 1000.0);
    return 0;
}
