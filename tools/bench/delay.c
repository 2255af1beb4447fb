/* Two network namespaces, and a wire between them that takes its time: for machines without netem.
 *
 *   delay MILLISECONDS
 *
 * Each namespace gets a tun device, 10.77.0.1 here and 10.77.0.2 there; every packet is held for MILLISECONDS on its
 * way. Prints "ready PID_HERE PID_THERE", processes to enter the namespaces by, and ends when its input does.
 * Needs root; nothing outside the namespaces changes, and they end with this process.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MTU 1500
#define HELD 8192 /* packets on the way; more are lost, as on a real wire */
#define SECOND 1000000000LL

struct packet {
    long long due;
    int to;
    ssize_t length;
    char data[MTU];
};

static struct packet held[HELD];
static unsigned first, last;

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static void need(int failed, const char *what) {
    if (!failed) return;
    perror(what);
    exit(1);
}

static void address(int control, struct ifreq *request, unsigned long operation, const char *text) {
    struct sockaddr_in *at = (struct sockaddr_in *)&request->ifr_addr;
    memset(at, 0, sizeof *at);
    at->sin_family = AF_INET;
    inet_pton(AF_INET, text, &at->sin_addr);
    need(ioctl(control, operation, request) < 0, text);
}

static void up(int control, const char *name) {
    struct ifreq request = {0};
    strcpy(request.ifr_name, name);
    need(ioctl(control, SIOCGIFFLAGS, &request) < 0, name);
    request.ifr_flags |= IFF_UP | IFF_RUNNING;
    need(ioctl(control, SIOCSIFFLAGS, &request) < 0, name);
}

/* Enter a new namespace, give it a wire's end, and leave a process there to find it by. */
static int make_end(const char *mine, const char *peer, pid_t *holder) {
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    need(unshare(CLONE_NEWNET), "unshare");
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), control = socket(AF_INET, SOCK_DGRAM, 0);
    need(tun < 0 || control < 0, "/dev/net/tun");
    strcpy(request.ifr_name, "wire");
    need(ioctl(tun, TUNSETIFF, &request) < 0, "TUNSETIFF");
    address(control, &request, SIOCSIFADDR, mine);
    address(control, &request, SIOCSIFDSTADDR, peer);
    up(control, "wire");
    up(control, "lo");
    *holder = fork();
    need(*holder < 0, "fork");
    if (*holder == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) pause();
    }
    return tun;
}

static void take(int from, int to, long long delay) {
    while (last - first < HELD) {
        struct packet *packet = &held[last % HELD];
        packet->length = read(from, packet->data, MTU);
        if (packet->length <= 0) return;
        packet->to = to;
        packet->due = now_ns() + delay;
        last++;
    }
}

int main(int argc, char **argv) {
    pid_t here, there;
    if (argc != 2) return 2;
    long long delay = (long long)(atof(argv[1]) * 1e6);
    int near = make_end("10.77.0.1", "10.77.0.2", &here), far = make_end("10.77.0.2", "10.77.0.1", &there);
    prctl(PR_SET_TIMERSLACK, 1000);
    printf("ready %d %d\n", here, there);
    fflush(stdout);
    struct pollfd wanted[3] = {{near, POLLIN, 0}, {far, POLLIN, 0}, {0, POLLIN, 0}};
    for (;;) {
        long long wait = last == first ? SECOND : held[first % HELD].due - now_ns();
        struct timespec limit = {wait < 0 ? 0 : wait / SECOND, wait < 0 ? 0 : wait % SECOND};
        ppoll(wanted, 3, &limit, NULL);
        if (wanted[2].revents) break;
        take(near, far, delay);
        take(far, near, delay);
        for (long long now = now_ns(); first != last && held[first % HELD].due <= now; first++) {
            struct packet *packet = &held[first % HELD];
            if (write(packet->to, packet->data, (size_t)packet->length) < 0) continue; /* lost on the wire */
        }
    }
    kill(here, SIGKILL);
    kill(there, SIGKILL);
    return 0;
}
