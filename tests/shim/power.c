/* A power cut for one process: a library to preload.
 *
 * What a process writes goes to its files as always, as if into the page cache. Beside its directory (that of its
 * option --dir) this library keeps what would be on the platter, in DIR.disk:
 *
 *   DIR.disk/f/INODE   what an fsync or fdatasync of the file made durable of its content
 *   DIR.disk/d/INODE   the names that an fsync of the directory made durable: lines of "f|d INODE MODE NAME"
 *   DIR.disk/root      the directory's own inode
 *
 * Whoever kills the process and then replaces DIR by what DIR.disk says (sealane_tests::power) has cut the power. The
 * page cache outlives a process, so the next one under this library goes on with the same disk.
 *
 * Law: nothing is durable but by a call that promises it. Content needs fsync or fdatasync of the file; a name (of a
 * new file, a renamed or a removed one) needs fsync of its directory; sync_file_range promises nothing. What this
 * library does not see (a raw system call, a shared mapping) is not durable either, so it can only fail a test that
 * should pass, never pass one that should fail. One concession, as every journalling file system makes it: a rename
 * from one directory to another becomes durable in both at once.
 *
 *   SEALANE_POWER=drop          a cut loses everything that is not durable
 *   SEALANE_POWER=tear:SEED     of what is not durable, about half of the pages and names is written early, in any
 *                               order, as the kernel may; with an odd seed every name, as a journal soon does
 *   SEALANE_POWER_BROKEN=fsync  fsync and fdatasync do nothing: whoever relies on them must be seen to fail
 *   SEALANE_POWER_BROKEN=names  fsync of directories does nothing
 *
 * It is inert but in `federation init`, `join`, `run` and `recover`. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096
#define BUCKETS 1024
#define RENAMES 64

struct range {
  off_t from, to;
};

/* A file or directory below DIR. Its descriptor stays open, so that its number is not given to another. */
struct node {
  struct node *next;
  ino_t inode;
  int fd;
  off_t floor; /* the smallest size since the last sync, -1 for none */
  struct range *dirty;
  size_t count, room;
};

static int active, broken_fsync, broken_names, tear, prompt_names;
static uint64_t seed;
static char root[PATH_MAX], disk[PATH_MAX];
static size_t root_length;
static dev_t device;
static struct node *nodes[BUCKETS];
static struct {
  ino_t from, to;
} renames[RENAMES]; /* between directories, not durable yet */
static size_t renamed;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(result, name, ...)                                                                                        \
  static result (*real_##name)(__VA_ARGS__);                                                                           \
  __attribute__((constructor(101))) static void find_##name(void) { real_##name = dlsym(RTLD_NEXT, #name); }

REAL(int, open, const char *, int, ...)
REAL(int, openat, int, const char *, int, ...)
REAL(ssize_t, write, int, const void *, size_t)
REAL(ssize_t, writev, int, const struct iovec *, int)
REAL(ssize_t, pwrite, int, const void *, size_t, off_t)
REAL(ssize_t, pwritev, int, const struct iovec *, int, off_t)
REAL(int, fsync, int)
REAL(int, fdatasync, int)
REAL(int, sync_file_range, int, off_t, off_t, unsigned)
REAL(int, ftruncate, int, off_t)
REAL(int, rename, const char *, const char *)
REAL(int, unlink, const char *)
REAL(int, unlinkat, int, const char *, int)
REAL(int, mkdir, const char *, mode_t)
REAL(int, rmdir, const char *)

/* The test must not go on with a disk that it can not believe. */
static void die(const char *what) {
  fprintf(stderr, "power shim: can not %s: %s\n", what, strerror(errno));
  abort();
}

static int disk_file(char kind, ino_t inode, int flags) {
  char path[PATH_MAX + 64];
  snprintf(path, sizeof path, "%s/%c/%ju", disk, kind, (uintmax_t)inode);
  int fd = real_open(path, flags | O_CLOEXEC, 0600);
  if (fd < 0) die("open a file of the disk");
  return fd;
}

static int early(void) {
  if (!tear) return 0;
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return seed >> 63;
}

/* ---- content ---- */

/* Copies a part of a file as it is now to the disk. */
static void copy(struct node *n, int to, off_t from, off_t end) {
  char buffer[16 * PAGE];
  while (from < end) {
    size_t want = (size_t)(end - from) < sizeof buffer ? (size_t)(end - from) : sizeof buffer;
    ssize_t got = pread(n->fd, buffer, want, from);
    if (got < 0) die("read a file");
    if (got == 0) return; /* cut meanwhile */
    if (real_pwrite(to, buffer, (size_t)got, from) != got) die("write to the disk");
    from += got;
  }
}

static void shrink(struct node *n, int to) {
  struct stat s;
  if (n->floor < 0) return;
  if (fstat(to, &s) == 0 && s.st_size > n->floor && real_ftruncate(to, n->floor) != 0) die("cut a file of the disk");
  n->floor = -1;
}

static void sync_content(struct node *n) {
  struct stat s;
  int to = disk_file('f', n->inode, O_WRONLY | O_CREAT);
  shrink(n, to);
  for (size_t i = 0; i < n->count; i++) copy(n, to, n->dirty[i].from, n->dirty[i].to);
  n->count = 0;
  if (fstat(n->fd, &s) != 0 || real_ftruncate(to, s.st_size) != 0) die("size a file of the disk");
  close(to);
}

static void dirty(struct node *n, off_t from, off_t to) {
  if (to <= from) return;
  if (n->count > 0 && n->dirty[n->count - 1].to == from) {
    n->dirty[n->count - 1].to = to;
  } else {
    if (n->count == n->room) {
      n->room = n->room ? 2 * n->room : 16;
      n->dirty = realloc(n->dirty, n->room * sizeof *n->dirty);
      if (!n->dirty) die("remember a write");
    }
    n->dirty[n->count++] = (struct range){from, to};
  }
  for (off_t page = from / PAGE * PAGE; page < to; page += PAGE) {
    if (!early()) continue;
    int disk_fd = disk_file('f', n->inode, O_WRONLY | O_CREAT);
    shrink(n, disk_fd);
    copy(n, disk_fd, page, page + PAGE);
    close(disk_fd);
  }
}

static void truncated(struct node *n, off_t size) {
  if (n->floor < 0 || size < n->floor) n->floor = size;
}

/* ---- nodes ---- */

static struct node *find(ino_t inode) {
  struct node *n = nodes[inode % BUCKETS];
  while (n && n->inode != inode) n = n->next;
  return n;
}

/* The node of an open file or directory below DIR; known from now on. */
static struct node *know(int fd) {
  char link[64], path[PATH_MAX];
  struct stat s;
  if (fstat(fd, &s) != 0 || s.st_dev != device || !(S_ISREG(s.st_mode) || S_ISDIR(s.st_mode))) return NULL;
  struct node *n = find(s.st_ino);
  if (n) return n;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0 || strncmp(path, root, root_length) != 0) return NULL;
  path[length] = 0;
  if (path[root_length] != '/' && path[root_length] != 0) return NULL;
  n = calloc(1, sizeof *n);
  if (!n) die("remember a file");
  n->inode = s.st_ino;
  n->floor = -1;
  n->fd = real_open(link, O_RDONLY | O_CLOEXEC);
  if (n->fd < 0) die("hold a file");
  n->next = nodes[n->inode % BUCKETS];
  nodes[n->inode % BUCKETS] = n;
  return n;
}

static struct node *open_node(int fd) {
  struct stat s;
  return fstat(fd, &s) == 0 && s.st_dev == device ? find(s.st_ino) : NULL;
}

/* ---- names ---- */

static void write_names(struct node *d) {
  char from[PATH_MAX + 64], to[PATH_MAX + 64];
  int fd = real_openat(d->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return; /* removed meanwhile */
  DIR *names = fdopendir(fd);
  FILE *out = fdopen(disk_file('d', 0, O_WRONLY | O_CREAT | O_TRUNC), "w");
  if (!names || !out) die("list a directory");
  for (struct dirent *e; (e = readdir(names));) {
    struct stat s;
    if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
    if (fstatat(fd, e->d_name, &s, AT_SYMLINK_NOFOLLOW) != 0) continue;
    char kind = S_ISDIR(s.st_mode) ? 'd' : 'f';
    fprintf(out, "%c %ju %o %s\n", kind, (uintmax_t)s.st_ino, s.st_mode & 07777, e->d_name);
  }
  closedir(names);
  if (fclose(out) != 0) die("write names to the disk");
  snprintf(from, sizeof from, "%s/d/0", disk);
  snprintf(to, sizeof to, "%s/d/%ju", disk, (uintmax_t)d->inode);
  if (real_rename(from, to) != 0) die("write names to the disk");
}

static void sync_names(struct node *d) {
  write_names(d);
  for (size_t i = 0; i < renamed;) {
    ino_t other = renames[i].from == d->inode ? renames[i].to : renames[i].from;
    if (renames[i].from != d->inode && renames[i].to != d->inode) {
      i++;
      continue;
    }
    renames[i] = renames[--renamed];
    struct node *n = find(other);
    if (n) write_names(n);
  }
}

/* The directory that a name is in. */
static struct node *parent(int at, const char *path) {
  char text[PATH_MAX];
  struct stat s;
  snprintf(text, sizeof text, "%s", path);
  char *end = text + strlen(text);
  while (end > text + 1 && end[-1] == '/') *--end = 0;
  char *slash = strrchr(text, '/');
  if (!slash) strcpy(text, ".");
  else slash[slash == text] = 0;
  return fstatat(at, text, &s, 0) == 0 && s.st_dev == device ? find(s.st_ino) : NULL;
}

static void name_changed(int at, const char *path) {
  struct node *d = parent(at, path);
  if (d && (prompt_names || early())) sync_names(d);
}

/* ---- start ---- */

static void set_root(ino_t inode) {
  char path[PATH_MAX + 8];
  snprintf(path, sizeof path, "%s/root", disk);
  FILE *out = fopen(path, "w");
  if (!out || fprintf(out, "%ju\n", (uintmax_t)inode) < 0 || fclose(out) != 0) die("name the root of the disk");
}

static int fresh_disk;

/* What is there at the start is on the disk, if the disk is new; else it may be in the page cache only. */
static int found(const char *path, const struct stat *s, int type, struct FTW *w) {
  (void)w;
  if (type != FTW_F && type != FTW_D) return 0;
  int fd = real_open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) die("open what is in DIR");
  struct node *n = know(fd);
  close(fd);
  if (!n) die("know what is in DIR");
  if (type == FTW_D && fresh_disk) {
    write_names(n);
  } else if (type == FTW_F) {
    n->dirty = malloc(16 * sizeof *n->dirty);
    if (!n->dirty) die("remember a file");
    n->dirty[0] = (struct range){0, s->st_size};
    n->count = 1, n->room = 16;
    if (fresh_disk) sync_content(n);
  }
  return 0;
}

static void make_disk(void) {
  char path[PATH_MAX + 8];
  fresh_disk = real_mkdir(disk, 0700) == 0;
  if (!fresh_disk && errno != EEXIST) die("make the disk");
  for (const char *c = "fd"; *c; c++) {
    snprintf(path, sizeof path, "%s/%c", disk, *c);
    if (real_mkdir(path, 0700) != 0 && errno != EEXIST) die("make the disk");
  }
  struct stat s;
  if (stat(disk, &s) != 0) die("make the disk");
  device = s.st_dev;
}

__attribute__((constructor(102))) static void start(int argc, char **argv, char **environment) {
  (void)environment;
  const char *mode = getenv("SEALANE_POWER"), *broken = getenv("SEALANE_POWER_BROKEN"), *dir = NULL;
  if (!mode || argc < 3 || strcmp(argv[1], "federation") != 0) return;
  for (int i = 2; i + 1 < argc; i++)
    if (!strcmp(argv[i], "--dir")) dir = argv[i + 1];
  if (!dir || dir[0] != '/') return;
  broken_fsync = broken && !strcmp(broken, "fsync");
  broken_names = broken && !strcmp(broken, "names");
  tear = !strncmp(mode, "tear:", 5);
  seed = tear ? strtoull(mode + 5, NULL, 10) : 0;
  prompt_names = seed & 1;
  seed *= 2654435761u;
  snprintf(root, sizeof root, "%s", dir);
  if (snprintf(disk, sizeof disk, "%s.disk", dir) >= (int)sizeof disk) die("name the disk");
  root_length = strlen(root);
  make_disk();
  struct stat s;
  if (stat(root, &s) == 0) {
    set_root(s.st_ino);
    if (nftw(root, found, 64, FTW_PHYS) != 0) die("read DIR");
  }
  active = 1;
}

/* ---- what the process calls ---- */

static int opened(int fd, int at, const char *path, int flags, int existed) {
  if (!active || fd < 0) return fd;
  int error = errno;
  pthread_mutex_lock(&lock);
  struct node *n = know(fd);
  if (n && (flags & O_TRUNC)) truncated(n, 0);
  if (n && (flags & O_CREAT) && !existed) name_changed(at, path);
  pthread_mutex_unlock(&lock);
  errno = error;
  return fd;
}

static int exists(int at, const char *path, int flags) {
  return !active || !(flags & O_CREAT) || faccessat(at, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

#define MODE(flags, last)                                                                                              \
  mode_t mode = 0;                                                                                                     \
  if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                               \
    va_list rest;                                                                                                      \
    va_start(rest, last);                                                                                              \
    mode = va_arg(rest, mode_t);                                                                                       \
    va_end(rest);                                                                                                      \
  }

int open(const char *path, int flags, ...) {
  MODE(flags, flags)
  int existed = exists(AT_FDCWD, path, flags);
  return opened(real_open(path, flags, mode), AT_FDCWD, path, flags, existed);
}

int openat(int at, const char *path, int flags, ...) {
  MODE(flags, flags)
  int existed = exists(at, path, flags);
  return opened(real_openat(at, path, flags, mode), at, path, flags, existed);
}

int open64(const char *path, int flags, ...) {
  MODE(flags, flags)
  int existed = exists(AT_FDCWD, path, flags);
  return opened(real_open(path, flags | O_LARGEFILE, mode), AT_FDCWD, path, flags, existed);
}

int openat64(int at, const char *path, int flags, ...) {
  MODE(flags, flags)
  int existed = exists(at, path, flags);
  return opened(real_openat(at, path, flags | O_LARGEFILE, mode), at, path, flags, existed);
}

/* `from` < 0: where the descriptor stood, which is now behind what was written. */
static ssize_t written(int fd, ssize_t count, off_t from) {
  if (!active || count <= 0) return count;
  int error = errno;
  pthread_mutex_lock(&lock);
  struct node *n = open_node(fd);
  if (n) {
    if (from < 0) from = lseek(fd, 0, SEEK_CUR) - count;
    dirty(n, from, from + count);
  }
  pthread_mutex_unlock(&lock);
  errno = error;
  return count;
}

ssize_t write(int fd, const void *bytes, size_t count) { return written(fd, real_write(fd, bytes, count), -1); }
ssize_t writev(int fd, const struct iovec *v, int count) { return written(fd, real_writev(fd, v, count), -1); }
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
  return written(fd, real_pwrite(fd, bytes, count, at), at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t at) { return pwrite(fd, bytes, count, at); }
ssize_t pwritev(int fd, const struct iovec *v, int count, off_t at) {
  return written(fd, real_pwritev(fd, v, count, at), at);
}
ssize_t pwritev64(int fd, const struct iovec *v, int count, off_t at) { return pwritev(fd, v, count, at); }

int ftruncate(int fd, off_t size) {
  int done = real_ftruncate(fd, size);
  if (!active || done != 0) return done;
  pthread_mutex_lock(&lock);
  struct node *n = open_node(fd);
  if (n) truncated(n, size);
  pthread_mutex_unlock(&lock);
  return done;
}
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

static int synced(int fd, int done) {
  struct stat s;
  if (!active || done != 0 || broken_fsync || fstat(fd, &s) != 0) return done;
  pthread_mutex_lock(&lock);
  struct node *n = open_node(fd);
  if (n && !S_ISDIR(s.st_mode)) sync_content(n);
  if (n && S_ISDIR(s.st_mode) && !broken_names) sync_names(n);
  pthread_mutex_unlock(&lock);
  return done;
}

int fsync(int fd) { return synced(fd, real_fsync(fd)); }
int fdatasync(int fd) { return synced(fd, real_fdatasync(fd)); }
int sync_file_range(int fd, off_t at, off_t count, unsigned flags) {
  return real_sync_file_range(fd, at, count, flags);
}

int rename(const char *from, const char *to) {
  int done = real_rename(from, to);
  if (!active || done != 0) return done;
  pthread_mutex_lock(&lock);
  struct node *a = parent(AT_FDCWD, from), *b = parent(AT_FDCWD, to);
  if (a && b && a != b) {
    if (renamed == RENAMES) die("remember another rename");
    renames[renamed].from = a->inode, renames[renamed++].to = b->inode;
  }
  name_changed(AT_FDCWD, to);
  pthread_mutex_unlock(&lock);
  return done;
}

static int changed(int done, int at, const char *path) {
  if (!active || done != 0) return done;
  pthread_mutex_lock(&lock);
  name_changed(at, path);
  pthread_mutex_unlock(&lock);
  return done;
}

int unlink(const char *path) { return changed(real_unlink(path), AT_FDCWD, path); }
int unlinkat(int at, const char *path, int flags) { return changed(real_unlinkat(at, path, flags), at, path); }
int rmdir(const char *path) { return changed(real_rmdir(path), AT_FDCWD, path); }

int mkdir(const char *path, mode_t mode) {
  int done = real_mkdir(path, mode);
  if (!active || done != 0) return done;
  pthread_mutex_lock(&lock);
  int fd = real_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  struct node *n = fd < 0 ? NULL : know(fd);
  if (n && !strcmp(path, root)) set_root(n->inode);
  if (fd >= 0) close(fd);
  name_changed(AT_FDCWD, path);
  pthread_mutex_unlock(&lock);
  return done;
}
