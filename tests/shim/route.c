/* Roads of one process: a library to preload.
 *
 *   SEALANE_ROADS=HOST:PORT>HOST:PORT,...   IPv4; who connects to the first is connected to the second
 *
 * A relay at the second address is then the road of this process alone, and can be blocked without touching anybody
 * else's. Raw system calls are not seen. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define ROADS 32

static struct {
  struct sockaddr_in from, to;
} roads[ROADS];
static int count;
static int (*real_connect)(int, const struct sockaddr *, socklen_t);

static void refuse(const char *why, const char *text) {
  fprintf(stderr, "road shim: %s: %s\n", why, text);
  abort();
}

static struct sockaddr_in address(char *text) {
  struct sockaddr_in a = {.sin_family = AF_INET};
  char *port = strrchr(text, ':');
  if (!port) refuse("no port", text);
  *port = 0;
  a.sin_port = htons((unsigned short)atoi(port + 1));
  if (inet_pton(AF_INET, text, &a.sin_addr) != 1) refuse("no IPv4 address", text);
  return a;
}

__attribute__((constructor)) static void start(void) {
  const char *variable = getenv("SEALANE_ROADS");
  real_connect = dlsym(RTLD_NEXT, "connect");
  if (!variable) return;
  char *text = strdup(variable), *rest = text;
  for (char *road; rest && (road = strsep(&rest, ","));) {
    char *to = strchr(road, '>');
    if (!to || count == ROADS) refuse("no road, or one too many", road);
    *to = 0;
    roads[count].from = address(road);
    roads[count++].to = address(to + 1);
  }
  free(text);
}

int connect(int fd, const struct sockaddr *to, socklen_t length) {
  if (to && to->sa_family == AF_INET && length >= sizeof(struct sockaddr_in)) {
    const struct sockaddr_in *wanted = (const struct sockaddr_in *)to;
    for (int i = 0; i < count; i++)
      if (roads[i].from.sin_addr.s_addr == wanted->sin_addr.s_addr && roads[i].from.sin_port == wanted->sin_port)
        return real_connect(fd, (const struct sockaddr *)&roads[i].to, sizeof roads[i].to);
  }
  return real_connect(fd, to, length);
}
