/* The load generator over TLS: through whatever ends TLS at the target to a plain server behind it; prints one line of JSON.
 *
 *   tls_load MODE HOST:PORT CONNECTIONS SIZE SECONDS WARMUP NAME
 *
 * full     an operation connects, shakes hands without anything from before, sends SIZE bytes, waits until as many have come
 *          back, sends close_notify and closes; CONNECTIONS of them at once.
 * resumed  the same with the session of the ticket that the connection before it was given; each ticket is used once.
 * echo     CONNECTIONS stay open; an operation sends SIZE bytes and waits until as many have come back.
 * down     the server of stream.c sends on CONNECTIONS for as long as it can; SIZE is what is read at once.
 * up       SIZE bytes at a time are sent to it for as long as it takes them; what it says to have received counts.
 *
 * All loops are closed. Everybody is offered the same and nothing else: TLS 1.3 with TLS_AES_128_GCM_SHA256 and X25519, NAME
 * as SNI. Certificates are not verified (the signature of the handshake is), which is nothing that the target would notice.
 *
 * What has to be there before the measurement is made first: connections that stay, or a first session. Then it prints
 * `ready` and waits for a line, so that nobody is charged for it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "latency.h"

#define EVENTS 256
#define SOURCES 16 /* client addresses on loopback: 28,000 ports each do not last for long connect loads */
#define ACKNOWLEDGED (1 << 20) /* so many bytes stream.c answers with one */
#define PREPARED_NS (15 * SECOND)

enum mode { FULL, RESUMED, ECHO, DOWN, UP };

struct slot {
    int fd, ready, busy;
    long long due;
    size_t sent, received;
    SSL *ssl;
    SSL_SESSION *session;
};

static const char *const modes[] = {"full", "resumed", "echo", "down", "up"};
static enum mode mode;
static struct sockaddr_in target;
static struct slot *slots;
static SSL_CTX *context;
static SSL_SESSION *first_session;
static const char *name;
static char *payload, *sink;
static const size_t sink_size = 256 * 1024;
static size_t size;
static int epoll_fd, count, established, running;
static long long measured_from, ends;
static uint64_t total, errors, resumed, moved, moved_measured;

static void fail(const char *what) {
    unsigned long code = ERR_get_error();
    fprintf(stderr, "tls_load: %s: %s\n", what, code ? ERR_reason_error_string(code) : strerror(errno));
    exit(1);
}

static int connecting(void) {
    return mode == FULL || mode == RESUMED;
}

/* A ticket has come: the newest one is for the slot's next connection. */
static int keep_session(SSL *ssl, SSL_SESSION *session) {
    struct slot *slot = SSL_get_app_data(ssl);
    SSL_SESSION_free(slot->session);
    slot->session = session;
    return 1;
}

static int open_connection(struct slot *slot) {
    static unsigned next_source;
    int one = 1;
    slot->ready = 0;
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
    slot->ssl = SSL_new(context);
    if (!slot->ssl || !SSL_set_fd(slot->ssl, slot->fd)) fail("SSL_new");
    SSL_set_app_data(slot->ssl, slot);
    SSL_set_tlsext_host_name(slot->ssl, name);
    SSL_SESSION *session = slot->session ? slot->session : first_session;
    if (mode == RESUMED && session) SSL_set_session(slot->ssl, session);
    SSL_set_connect_state(slot->ssl);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u32 = (uint32_t)(slot - slots)};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, slot->fd, &event);
}

static void close_connection(struct slot *slot, int failed) {
    if (!failed) SSL_shutdown(slot->ssl);
    SSL_free(slot->ssl);
    close(slot->fd);
    slot->ssl = NULL;
    slot->fd = -1;
}

static void advance(struct slot *slot);

static void begin(struct slot *slot, long long due) {
    slot->busy = 1;
    slot->due = due;
    slot->sent = slot->received = 0;
    if (slot->fd < 0 && open_connection(slot)) fail("connect");
}

static void finish(struct slot *slot, int failed) {
    long long now = now_ns();
    if (failed) {
        errors++;
        if (!running) fail("before the measurement");
    } else if (running) {
        total++;
        if (now >= measured_from && now < ends) {
            add_latency(now - slot->due);
            if (connecting() && SSL_session_reused(slot->ssl)) resumed++;
        }
    }
    slot->busy = 0;
    if (connecting() || failed) close_connection(slot, failed);
    /* the slot waits for its next turn in the loop, which is not deeper in this stack */
}

/* Whether the call has to be repeated later; if not, the connection is over. */
static int waits(struct slot *slot, int returned) {
    int error = SSL_get_error(slot->ssl, returned);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

static void count_moved(size_t n) {
    long long now = now_ns();
    if (!running) return;
    moved += n;
    if (now >= measured_from && now < ends) moved_measured += n;
}

/* Returns whether the connection is still there. */
static int push(struct slot *slot) {
    size_t want = mode == DOWN ? 1 : size;
    while (slot->busy && (mode == UP || slot->sent < want)) {
        size_t from = mode == UP ? slot->sent % size : slot->sent;
        int n = SSL_write(slot->ssl, payload + from, (int)(want - from));
        if (n <= 0) {
            if (waits(slot, n)) return 1;
            finish(slot, 1);
            return 0;
        }
        slot->sent += (size_t)n;
        if (mode == UP && now_ns() >= ends && running) break;
    }
    return 1;
}

static void pull(struct slot *slot) {
    size_t at_once = mode == DOWN && size < sink_size ? size : sink_size;
    for (;;) {
        int n = SSL_read(slot->ssl, sink, (int)at_once);
        if (n <= 0) {
            if (!waits(slot, n)) finish(slot, 1);
            return;
        }
        slot->received += (size_t)n;
        if (mode == DOWN) count_moved((size_t)n);
        else if (mode == UP) count_moved((size_t)n * ACKNOWLEDGED);
        else if (slot->busy && slot->received >= size) {
            finish(slot, 0);
            return; /* the answer was complete: nothing more can wait */
        }
        if ((mode == DOWN || mode == UP) && running && now_ns() >= ends) return;
    }
}

static void advance(struct slot *slot) {
    if (!slot->ready) {
        int done = SSL_do_handshake(slot->ssl);
        if (done <= 0) {
            if (!waits(slot, done)) finish(slot, 1);
            return;
        }
        slot->ready = 1;
        established++;
    }
    if (push(slot)) pull(slot);
}

static void turn(void) {
    struct epoll_event events[EVENTS];
    int n = epoll_wait(epoll_fd, events, EVENTS, 10);
    for (int i = 0; i < n; i++) {
        struct slot *slot = &slots[events[i].data.u32];
        if (slot->fd < 0) continue;
        advance(slot);
        if (running && !slot->busy && now_ns() < ends) {
            begin(slot, now_ns());
            if (slot->ready) push(slot); /* a fresh connection says itself when it can be written */
        }
    }
}

static void wait_prepared(void) {
    long long latest = now_ns() + PREPARED_NS;
    if (mode == RESUMED) {
        begin(&slots[0], now_ns());
        while (slots[0].busy && now_ns() < latest) turn();
        first_session = slots[0].session;
        if (!first_session || !SSL_SESSION_up_ref(first_session)) fail("no ticket has come");
    } else if (mode != FULL) {
        for (int i = 0; i < count; i++)
            if (open_connection(&slots[i])) fail("connect");
        while (established < count && now_ns() < latest) turn();
        if (established < count) fail("not all connections could be opened");
    }
    char line[16];
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) exit(1);
}

static void run(void) {
    running = 1;
    for (int i = 0; i < count; i++) {
        begin(&slots[i], now_ns());
        if (slots[i].ready) advance(&slots[i]);
    }
    while (now_ns() < ends) turn();
}

static void make_context(void) {
    context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") || !SSL_CTX_set1_groups_list(context, "X25519"))
        fail("TLS 1.3");
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context, 1);
    if (mode == DOWN) SSL_CTX_set_default_read_buffer_len(context, sink_size);
    SSL_CTX_set_session_cache_mode(context, mode == RESUMED ? SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL
                                                            : SSL_SESS_CACHE_OFF);
    if (mode == RESUMED) SSL_CTX_sess_set_new_cb(context, keep_session);
}

static void prepare(char **argv) {
    for (mode = FULL; mode <= UP && strcmp(argv[1], modes[mode]); mode++) continue;
    char *colon = strrchr(argv[2], ':');
    if (mode > UP || !colon) fail("MODE or HOST:PORT");
    *colon = 0;
    target.sin_family = AF_INET;
    target.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, argv[2], &target.sin_addr) != 1) fail("an IPv4 address");
    count = atoi(argv[3]);
    size = (size_t)atol(argv[4]);
    name = argv[7];
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    payload = malloc(size);
    sink = malloc(sink_size);
    slots = calloc((size_t)count, sizeof *slots);
    if (!payload || !sink || !slots) fail("memory");
    memset(payload, mode == DOWN ? 'd' : 'u', size);
    for (int i = 0; i < count; i++) slots[i].fd = -1;
    epoll_fd = epoll_create1(0);
    make_context();
}

int main(int argc, char **argv) {
    if (argc != 8) {
        fprintf(stderr, "usage: tls_load full|resumed|echo|down|up HOST:PORT CONNECTIONS SIZE SECONDS WARMUP NAME\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    prepare(argv);
    wait_prepared();
    measured_from = now_ns() + (long long)(atof(argv[6]) * 1e9);
    ends = measured_from + (long long)(atof(argv[5]) * 1e9);
    run();
    double seconds = (double)(ends - measured_from) / 1e9;
    printf("{\"operations\": %llu, \"total\": %llu, \"errors\": %llu, \"resumed\": %llu, \"seconds\": %.6f, "
           "\"rate\": %.3f, \"mean_us\": %.3f, \"p50_us\": %.3f, \"p99_us\": %.3f, \"max_us\": %.3f, "
           "\"bytes\": %llu, \"bytes_rate\": %.1f}\n",
           (unsigned long long)measured, (unsigned long long)total, (unsigned long long)errors,
           (unsigned long long)resumed, seconds, (double)measured / seconds, mean_us(), percentile(0.5),
           percentile(0.99), (double)latency_max / 1000.0, (unsigned long long)moved, (double)moved_measured / seconds);
    return 0;
}
