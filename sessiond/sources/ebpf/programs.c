/* The tracer's programs: they write a record for each fork, exec, exit and change of identity.
 *
 * The generated header before this text declares the members of the kernel's structs that are read
 * here, at their offsets in the running kernel, and the loader's limits. Every read is explicit, so
 * that bcc treats this as plain C. records.py decodes the records.
 */

#define PF_KTHREAD 0x00200000
#define SIGNAL_GROUP_EXIT 0x00000004
enum pid_type { PIDTYPE_PID, PIDTYPE_TGID, PIDTYPE_PGID, PIDTYPE_SID };

enum kind { FORK, EXEC, EXIT, SESSION, GROUP, IDS, CGROUP, SNAPSHOT, KINDS };

/* Flags of a record. */
#define CWD_KNOWN 1
#define EXECUTABLE_KNOWN 2
#define EXECUTABLE_DELETED 4
#define EXECUTABLE_TRUNCATED 8
#define ARGS_KNOWN 16
#define GROUP_EXIT 32
#define AUDIT_STAMP 64
#define UNKNOWNS 128 /* in some of the facts 0 means unknown */
#define OWNER_KNOWN 256
/* A detached mount (open_tree(2), umount -l) is in no namespace: its paths are not the host's. The inodes
 * of namespaces are large numbers. */
#define NO_MNT_NS 1
#define ANYBODY 0xffffffff /* the owner of a file that others can write, except root's group */

#define PATH_LIMIT 4096
#define NAME_LIMIT 256 /* NAME_MAX and the NUL */
#define PRESSED_ARGS_LIMIT 256 /* for the arguments, while the ring has this many unread bytes: */
#define PRESSED (RING_SIZE / 2 < 1048576 ? RING_SIZE / 2 : 1048576)
#define CHANGES_LIMIT (RING_SIZE / 4) /* of unread bytes of records of changed ids and groups */
#define COMPONENTS 48
#define OFFSET_MASK 0x3fff /* three paths end before it */
#define MAX_PART (ARGS_LIMIT > PATH_LIMIT ? ARGS_LIMIT : PATH_LIMIT)
#define GROUPS_SIZE 1024 /* 256 groups */
#define DATA_SIZE (OFFSET_MASK + 1 + MAX_PART)
#define NODE 2 /* the low bits of a pointer to a node of the tree of process numbers */
#define SLOTS (sizeof(struct xa_node) < 512 ? 16 : 64) /* of a node: CONFIG_BASE_SMALL has 16 */
/* Keeps the compiler from moving or splitting a check that the verifier needs. */
#define AS_CHECKED(variable) asm volatile("" : "+r"(variable))

/* In the order of Facts in events.py, all of the same width, so that they are unpacked at once. */
struct facts {
  u64 pid, start, ppid, parent_start, pgid, sid, vpid, tty_major, tty_minor;
  u64 uid, euid, suid, fsuid, gid, egid, sgid, fsgid, cap_permitted, cap_effective;
  u64 loginuid, audit_session, pid_ns, mnt_ns, user_ns, net_ns, cgroup_id, kernel_thread;
};

struct event {
  u32 kind;
  u32 flags;
  u64 time;
  struct facts facts;
  u64 other_start; /* fork: the creator's start; exec: the audit stamp in ms */
  u32 other;       /* fork: the creator's pid; exec: argc; exit: the status of wait(2) */
  u32 args_size;
  u32 end; /* the size of the used data */
  u16 executable_length, cwd_length, filename_length, args_length;
  u32 owner;  /* of the executable's file, as a uid of the host */
  u32 mnt_ns; /* of the executable's mount; NO_MNT_NS if it is detached, 0 if unknown */
  char comm[16];
  char data[DATA_SIZE];
};

BPF_RINGBUF_OUTPUT(ring, RING_PAGES);
BPF_F_TABLE("array", u32, u64, lost, KINDS, 1024 /* BPF_F_MMAPABLE */);
/* The number of records written to the ring, per CPU, each on its own cache line. The reader compares
 * it with the number received, which reveals another reader. After these numbers come the bytes
 * written, and the bytes consumed, which the reader writes because bcc has no bpf_ringbuf_query. */
BPF_F_TABLE("array", u32, u64, submitted, CPUS * 8 + 16, 1024 /* BPF_F_MMAPABLE */);
#define BYTES_IN (CPUS * 8)
#define CHANGES_IN (CPUS * 8 + 1) /* those of changed ids and groups */
#define BYTES_OUT (CPUS * 8 + 8)
#define CHANGES_OUT (CPUS * 8 + 9)
#define RING_SIZE ((u64)RING_PAGES * PAGE_SIZE)
BPF_ARRAY(unannounced, u32, 1); /* whether the ring has a record that did not wake the reader */
BPF_PERCPU_ARRAY(scratch, struct event, 1);
/* The snapshot runs in a task that others may preempt, so it has its own buffer. */
BPF_PERCPU_ARRAY(snapshot_scratch, struct event, 1);
#ifndef HAVE_GROUP_DEAD
BPF_TABLE("lru_hash", u64, u64, ended, 16384);
#endif

#define READ(source, member)                                                   \
  ({                                                                           \
    typeof((source)->member) value_;                                           \
    bpf_probe_read_kernel(&value_, sizeof(value_), &(source)->member);         \
    value_;                                                                    \
  })

static __always_inline struct pid *pid_of(struct signal_struct *signal, int type)
{
  struct pid *pid;
  bpf_probe_read_kernel(&pid, sizeof(pid), &signal->pids + type);
  return pid;
}

/* The number of a pid in the initial namespace. */
static __always_inline u32 number(struct pid *pid)
{
  return READ(&pid->numbers, nr);
}

static __always_inline u64 cgroup_id_of(struct task_struct *task)
{
  struct css_set *set = READ(task, cgroups);
#if defined(CONTROLLER)
  struct cgroup_subsys_state *state;
  bpf_probe_read_kernel(&state, sizeof(state), &set->subsys + CONTROLLER);
  struct cgroup *old = READ(state, cgroup);
  /* Each hierarchy has its own numbering: bit 63 marks the ids of version 1. */
  if (READ(READ(old, root), hierarchy_id) != 0 && READ(old, level) != 0)
    return READ(READ(old, kn), id) | 1ULL << 63;
#endif
  return READ(READ(READ(set, dfl_cgrp), kn), id);
}

static __always_inline void read_facts(struct facts *facts, struct task_struct *task)
{
  struct task_struct *leader = READ(task, group_leader);
  struct task_struct *parent = READ(READ(leader, real_parent), group_leader);
  struct signal_struct *signal = READ(task, signal);
  struct pid *pid = pid_of(signal, PIDTYPE_TGID);
  u32 level = READ(pid, level) & 31; /* MAX_PID_NS_LEVEL is 32 */
  struct upid innermost;
  bpf_probe_read_kernel(&innermost, sizeof(innermost), &pid->numbers + level);

  facts->pid = (u32)READ(task, tgid);
  facts->start = READ(leader, start_boottime);
  facts->ppid = (u32)READ(parent, tgid);
  facts->parent_start = READ(parent, start_boottime);
  facts->pgid = number(pid_of(signal, PIDTYPE_PGID));
  facts->sid = number(pid_of(signal, PIDTYPE_SID));
  facts->vpid = (u32)innermost.nr;
  facts->pid_ns = READ(innermost.ns, inum);

  struct tty_struct *tty = READ(signal, tty);
  facts->tty_major = facts->tty_minor = 0;
  if (tty) {
    struct tty_driver *driver = READ(tty, driver);
    facts->tty_major = (u32)READ(driver, major);
    facts->tty_minor = (u32)(READ(driver, minor_start) + READ(tty, index));
  }

  struct cred *cred = READ(task, real_cred);
  u32 ids[8]; /* uid, gid, suid, sgid, euid, egid, fsuid, fsgid: struct cred since 2.6.29 */
  bpf_probe_read_kernel(ids, sizeof(ids), &cred->uid);
  facts->uid = ids[0];
  facts->gid = ids[1];
  facts->suid = ids[2];
  facts->sgid = ids[3];
  facts->euid = ids[4];
  facts->egid = ids[5];
  facts->fsuid = ids[6];
  facts->fsgid = ids[7];
  facts->cap_permitted = READ(cred, cap_permitted);
  facts->cap_effective = READ(cred, cap_effective);
  facts->user_ns = READ(READ(cred, user_ns), inum);
#ifdef HAVE_LOGIN
  facts->loginuid = READ(task, loginuid);
  facts->audit_session = READ(task, sessionid);
#else
  facts->loginuid = facts->audit_session = 0xffffffff;
#endif

  struct nsproxy *nsproxy = READ(task, nsproxy);
  facts->mnt_ns = nsproxy ? READ(READ(nsproxy, mnt_ns), inum) : 0;
  facts->net_ns = nsproxy ? READ(READ(nsproxy, net_ns), inum) : 0;
  facts->cgroup_id = cgroup_id_of(task);
  facts->kernel_thread = !!(READ(task, flags) & PF_KTHREAD);
}

/* Append a string of the kernel with its NUL to ``data``; return its size, 0 if it can't be read. The
 * end of the data is kept in the record: the verifier does not know a value from a map, so it need
 * not follow each path through the loops below separately. */
static __always_inline u64 append_string(struct event *event, u32 limit, const void *source)
{
  u64 offset = event->end & OFFSET_MASK;
  u64 length = bpf_probe_read_kernel_str(event->data + offset, limit, source);
  AS_CHECKED(length);
  if (length > limit)
    return 0; /* errors are negative, so they are large here */
  event->end = offset + length;
  return length;
}

enum walk { BROKEN, COMPLETE, PSEUDO };

/* Append the names from ``dentry`` up to the root of its mount namespace, last one first, each with
 * its NUL: the path of /proc/PID/exe and /proc/PID/cwd for a reader outside of any chroot.
 * PSEUDO: a file without a directory, such as that of memfd_create. */
static __always_inline enum walk append_path(struct event *event, struct dentry *dentry,
                                             struct vfsmount *vfsmount)
{
  struct mount *mount = (void *)vfsmount - __builtin_offsetof(struct mount, mnt);
  struct dentry *root = READ(vfsmount, mnt_root);
  u32 limit = event->end + PATH_LIMIT - NAME_LIMIT;
  for (int i = 0; i < COMPONENTS; i++) {
    if (dentry == root) {
      struct mount *up = READ(mount, parent);
      if (up == mount)
        return COMPLETE;
      dentry = READ(mount, mountpoint);
      mount = up;
      root = READ(&mount->mnt, mnt_root);
      continue;
    }
    struct dentry *parent = READ(dentry, parent);
    if (event->end > limit || !append_string(event, NAME_LIMIT, READ(dentry, name)))
      return BROKEN;
    if (dentry == parent)
      return PSEUDO;
    dentry = parent;
  }
  return BROKEN;
}

static __always_inline void append_cwd(struct event *event, struct task_struct *task)
{
  struct fs_struct *fs = READ(task, fs);
  u32 start = event->end;
  if (!fs)
    return;
  if (append_path(event, READ(fs, pwd_dentry), READ(fs, pwd_mnt)) == BROKEN) {
    event->end = start; /* a path without its beginning would be wrong */
    return;
  }
  event->flags |= CWD_KNOWN;
  event->cwd_length = event->end - start;
}

static __always_inline void append_executable(struct event *event, struct mm_struct *mm)
{
  struct file *file = mm ? READ(mm, exe_file) : 0;
  if (!file)
    return;
  struct dentry *dentry = READ(file, dentry);
  struct vfsmount *vfsmount = READ(file, mnt);
  enum walk walk = append_path(event, dentry, vfsmount);
  struct inode *inode = READ(dentry, inode);
  if (inode) {
    u16 mode = READ(inode, mode);
    int shared = mode & 0002 || (mode & 0020 && READ(inode, gid));
    event->owner = shared ? ANYBODY : READ(inode, uid);
    event->flags |= OWNER_KNOWN;
  }
#ifdef HAVE_MOUNT_NAMESPACE
  struct mount *mount = (void *)vfsmount - __builtin_offsetof(struct mount, mnt);
  struct mnt_namespace *mnt_ns = READ(mount, mnt_ns);
  if ((u64)mnt_ns > 4096) /* the kernel's own mounts have an error here */
    event->mnt_ns = READ(mnt_ns, inum);
  if (!event->mnt_ns && walk != PSEUDO)
    event->mnt_ns = NO_MNT_NS;
#endif
  event->flags |= EXECUTABLE_KNOWN;
  if (walk == PSEUDO || !READ(dentry, hashed))
    event->flags |= EXECUTABLE_DELETED;
  if (walk == BROKEN)
    event->flags |= EXECUTABLE_TRUNCATED;
  event->executable_length = event->end;
}

/* Whether the counters ``in`` and ``out`` differ by more than ``limit``. */
static __always_inline bool waits_more(u32 in, u32 out, u64 limit)
{
  u64 *number_in = submitted.lookup(&in), *number_out = submitted.lookup(&out);
  return number_in && number_out && *number_in - *number_out > limit;
}

static __always_inline void append_args(struct event *event, struct mm_struct *mm)
{
  u64 offset = event->end & OFFSET_MASK;
  u64 start = READ(mm, arg_start);
  u64 size = READ(mm, arg_end) - start;
  event->args_size = size;
  AS_CHECKED(size);
  if (size > ARGS_LIMIT)
    size = ARGS_LIMIT;
  /* So that long arguments of one process do not cost the records of others. */
  if (size > PRESSED_ARGS_LIMIT && waits_more(BYTES_IN, BYTES_OUT, PRESSED))
    size = PRESSED_ARGS_LIMIT;
  AS_CHECKED(size);
  if (bpf_probe_read_user(event->data + offset, size, (void *)start) == 0) {
    event->flags |= ARGS_KNOWN;
    event->args_length = size;
    event->end = offset + size;
  }
}

/* The supplementary groups: all of them, or none if there are too many. */
static __always_inline void append_groups(struct event *event, struct task_struct *task)
{
  struct group_info *groups = READ(READ(task, real_cred), group_info);
  u64 size = (u64)(u32)READ(groups, ngroups) * sizeof(u32);
  AS_CHECKED(size);
  if (size > GROUPS_SIZE || bpf_probe_read_kernel(event->data, size, &groups->gids) != 0)
    return;
  event->flags |= ARGS_KNOWN;
  event->args_length = event->end = size;
}

static __always_inline void begin(struct event *event, u32 kind, struct task_struct *task)
{
  event->kind = kind;
  event->flags = 0;
  event->time = bpf_ktime_get_boot_ns();
  event->other_start = 0;
  event->other = 0;
  event->args_size = event->end = 0;
  event->executable_length = event->cwd_length = 0;
  event->filename_length = event->args_length = 0;
  event->owner = event->mnt_ns = 0;
  bpf_probe_read_kernel(event->comm, sizeof(event->comm), &task->comm);
  read_facts(&event->facts, task);
  if (!event->facts.ppid || !event->facts.mnt_ns || !event->facts.net_ns ||
      !event->facts.cgroup_id)
    event->flags |= UNKNOWNS;
}

static __always_inline u64 size_of(struct event *event)
{
  u64 size = event->end;
  AS_CHECKED(size);
  if (size > DATA_SIZE)
    size = DATA_SIZE;
  return __builtin_offsetof(struct event, data) + size;
}

static __always_inline void count_lost(u32 kind)
{
  u64 *counter = lost.lookup(&kind);
  if (counter)
    __sync_fetch_and_add(counter, 1);
}

/*
 * The reader is woken only if it has read everything before (adaptive, the kernel's default), and
 * never for a kernel thread: its record is read with the next one, which must then wake the reader.
 * The kernel often creates such threads, for example one for each request for audit's state.
 */
static __always_inline void submit(struct event *event)
{
  u32 zero = 0;
  u64 flags = 0;
  u32 *unannounced_before = unannounced.lookup(&zero);
  if (unannounced_before && event->facts.kernel_thread) {
    *unannounced_before = 1;
    flags = BPF_RB_NO_WAKEUP;
  } else if (unannounced_before && *unannounced_before) {
    *unannounced_before = 0;
    flags = BPF_RB_FORCE_WAKEUP;
  }
  if (ring.ringbuf_output(event, size_of(event), flags)) {
    count_lost(event->kind);
    return;
  }
  u32 slot = bpf_get_smp_processor_id() % CPUS * 8;
  u64 *counter = submitted.lookup(&slot);
  if (counter)
    __sync_fetch_and_add(counter, 1);
  u64 size = size_of(event) + sizeof(u64); /* its header */
  slot = BYTES_IN;
  counter = submitted.lookup(&slot);
  if (counter)
    __sync_fetch_and_add(counter, size);
  if (event->kind != GROUP && event->kind != IDS)
    return;
  slot = CHANGES_IN;
  counter = submitted.lookup(&slot);
  if (counter)
    __sync_fetch_and_add(counter, size);
}

static __always_inline void submit_simple(u32 kind, struct task_struct *task)
{
  u32 zero = 0;
  /* Any process can change its group a million times a second: forks, execs and exits keep room. */
  if (kind != SESSION && waits_more(CHANGES_IN, CHANGES_OUT, CHANGES_LIMIT)) {
    count_lost(kind);
    return;
  }
  struct event *event = scratch.lookup(&zero);
  if (!event)
    return;
  begin(event, kind, task);
  if (kind == IDS)
    append_groups(event, task);
  submit(event);
}

int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
  struct task_struct *parent = (struct task_struct *)ctx->args[0];
  struct task_struct *child = (struct task_struct *)ctx->args[1];
  u32 zero = 0;
  if (READ(child, pid) != READ(child, tgid))
    return 0; /* a thread */
  struct event *event = scratch.lookup(&zero);
  if (!event)
    return 0;
  begin(event, FORK, child);
  event->other = READ(parent, tgid);
  event->other_start = READ(READ(parent, group_leader), start_boottime);
  append_cwd(event, child);
  submit(event);
  return 0;
}

int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
  struct task_struct *task = (struct task_struct *)ctx->args[0];
  struct linux_binprm *binprm = (struct linux_binprm *)ctx->args[2];
  u32 zero = 0;
  struct event *event = scratch.lookup(&zero);
  if (!event)
    return 0;
  begin(event, EXEC, task);
  struct mm_struct *mm = READ(task, mm);
  append_executable(event, mm);
  append_cwd(event, task);
  event->filename_length = append_string(event, PATH_LIMIT, READ(binprm, filename));
  append_args(event, mm);
  event->other = READ(binprm, argc);
#ifdef HAVE_AUDIT_STAMP
  struct audit_context *audit = READ(task, audit_context);
  if (audit && READ(audit, in_syscall) == 1 && !READ(audit, dummy)) {
    event->flags |= AUDIT_STAMP;
    event->other_start = READ(audit, seconds) * 1000 + READ(audit, nanoseconds) / 1000000;
  }
#endif
  submit(event);
  return 0;
}

/* Whether exit_group(2) or a signal ended all threads at once, rather than exit(2). */
static __always_inline bool is_group_exit(struct signal_struct *signal)
{
  if (!(READ(signal, flags) & SIGNAL_GROUP_EXIT))
    return 0;
#if defined(HAVE_QUICK_THREADS) && defined(HAVE_SYSCALL) && defined(HAVE_BTF)
  if ((READ(signal, group_exit_code) & 0x7f) == 0) {
    struct pt_regs *registers = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
    return READ(registers, syscall) != SYSCALL_EXIT;
  }
#endif
  return 1;
}

int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
  struct task_struct *task = (struct task_struct *)ctx->args[0];
  struct signal_struct *signal = READ(task, signal);
  u32 zero = 0;
#ifdef HAVE_GROUP_DEAD
  if (!(u8)ctx->args[1])
    return 0;
#else
  if (READ(signal, live) != 0)
    return 0;
  /* If the last two threads end at the same time, both see none alive: the first one reports. */
  u64 start = READ(READ(task, group_leader), start_boottime);
  u64 key = (u64)signal;
  u64 *told = ended.lookup(&key);
  if (told && *told == start)
    return 0;
  ended.update(&key, &start);
#endif
  struct event *event = scratch.lookup(&zero);
  if (!event)
    return 0;
  begin(event, EXIT, task);
  /* As in wait(2). */
  event->other = READ(signal, flags) & SIGNAL_GROUP_EXIT
                     ? READ(signal, group_exit_code)
                     : READ(READ(task, group_leader), exit_code);
  if (is_group_exit(signal))
    event->flags |= GROUP_EXIT;
  submit(event);
  return 0;
}

int on_cgroup_mkdir(struct bpf_raw_tracepoint_args *ctx)
{
  struct cgroup *cgroup = (struct cgroup *)ctx->args[0];
  u32 zero = 0;
  u64 bit = 0;
  int hierarchy = READ(READ(cgroup, root), hierarchy_id);
  struct event *event = scratch.lookup(&zero);
  if (!event)
    return 0;
  if (hierarchy != 0) {
    if (hierarchy != HIERARCHY)
      return 0;
    bit = 1ULL << 63;
  }
  event->kind = CGROUP;
  event->flags = 0;
  event->time = bpf_ktime_get_boot_ns();
  event->facts.cgroup_id = READ(READ(cgroup, kn), id) | bit;
  event->end = event->cwd_length = event->filename_length = event->args_length = 0;
  event->executable_length = append_string(event, PATH_LIMIT, (void *)ctx->args[1]);
  submit(event);
  return 0;
}

#ifdef HAVE_SYSCALL
/* Its reader runs after every system call of the host: with BTF it may read memory itself. bcc would
 * turn a plain read into the call of a helper. */
static __always_inline u32 system_call_of(struct pt_regs *registers)
{
#ifdef HAVE_BTF
  u64 number;
  asm volatile("%0 = *(u32 *)(%1 + %2)"
               : "=r"(number)
               : "r"(registers), "i"(__builtin_offsetof(struct pt_regs, syscall)));
  return number;
#else
  return READ(registers, syscall);
#endif
}

/* The process with a number in a namespace, as the kernel itself finds it (find_pid_ns): in a tree whose
 * nodes have a slot for each value of the next bits. 0 if there is none, because it has ended. */
static __always_inline struct task_struct *process_numbered(struct pid_namespace *ns, u32 wanted)
{
  void *entry = READ(ns, numbers);
  for (int i = 0; i < 6 && ((u64)entry & 3) == NODE; i++) {
    struct xa_node *node = entry - NODE;
    u64 slot = wanted >> (READ(node, shift) & 31) & (SLOTS - 1);
    bpf_probe_read_kernel(&entry, sizeof(entry), &node->slots + slot);
  }
  if (!entry)
    return 0;
  struct hlist_node *link;
  struct pid *pid = entry;
  bpf_probe_read_kernel(&link, sizeof(link), &pid->tasks + PIDTYPE_TGID);
  if (!link)
    return 0;
  return (void *)link - __builtin_offsetof(struct task_struct, pid_links) -
         PIDTYPE_TGID * sizeof(struct hlist_node);
}

/* setpgid(2) may be about a child, of any thread. */
static __always_inline void group_changed(struct task_struct *task, int target)
{
  struct pid *own = pid_of(READ(task, signal), PIDTYPE_TGID);
  struct upid innermost;
  bpf_probe_read_kernel(&innermost, sizeof(innermost), &own->numbers + (READ(own, level) & 31));
  if (target != 0 && target != innermost.nr)
    task = process_numbered(innermost.ns, target);
  if (task)
    submit_simple(GROUP, task);
}

/* The kind of record that a system call makes if it succeeds, KINDS for none. */
static __always_inline u32 kind_of(u32 call)
{
  switch (call) {
  case SYSCALL_SETSID:
    return SESSION;
  case SYSCALL_SETPGID:
    return GROUP;
  case SYSCALL_SETUID:
  case SYSCALL_SETGID:
  case SYSCALL_SETREUID:
  case SYSCALL_SETREGID:
  case SYSCALL_SETRESUID:
  case SYSCALL_SETRESGID:
  case SYSCALL_SETFSUID:
  case SYSCALL_SETFSGID:
  case SYSCALL_SETGROUPS:
  case SYSCALL_CAPSET:
  case SYSCALL_UNSHARE:
  case SYSCALL_SETNS:
    return IDS;
  }
  return KINDS;
}

/* The same of a 32-bit call. Those of ids exist twice, with 16 bits and with 32. */
static __always_inline u32 kind_of_32(u32 call)
{
  switch (call) {
  case SYSCALL_32_SETSID:
    return SESSION;
  case SYSCALL_32_SETPGID:
    return GROUP;
  case SYSCALL_32_SETUID:
  case SYSCALL_32_SETGID:
  case SYSCALL_32_SETREUID:
  case SYSCALL_32_SETREGID:
  case SYSCALL_32_SETRESUID:
  case SYSCALL_32_SETRESGID:
  case SYSCALL_32_SETGROUPS:
  case SYSCALL_32_SETFSUID:
  case SYSCALL_32_SETFSGID:
  case SYSCALL_32_SETUID32:
  case SYSCALL_32_SETGID32:
  case SYSCALL_32_SETREUID32:
  case SYSCALL_32_SETREGID32:
  case SYSCALL_32_SETRESUID32:
  case SYSCALL_32_SETRESGID32:
  case SYSCALL_32_SETGROUPS32:
  case SYSCALL_32_SETFSUID32:
  case SYSCALL_32_SETFSGID32:
  case SYSCALL_32_CAPSET:
  case SYSCALL_32_UNSHARE:
  case SYSCALL_32_SETNS:
    return IDS;
  }
  return KINDS;
}

/* Whether it returns an old id, never an error. */
static __always_inline int returns_id(u32 call, int is_32)
{
  if (is_32)
    return call == SYSCALL_32_SETFSUID || call == SYSCALL_32_SETFSGID ||
           call == SYSCALL_32_SETFSUID32 || call == SYSCALL_32_SETFSGID32;
  return call == SYSCALL_SETFSUID || call == SYSCALL_SETFSGID;
}

int on_sys_exit(struct bpf_raw_tracepoint_args *ctx)
{
  struct pt_regs *registers = (struct pt_regs *)ctx->args[0];
  long result = ctx->args[1];
  u32 call = system_call_of(registers);
  u32 kind = kind_of(call), kind_32 = kind_of_32(call);
  if (kind == KINDS && kind_32 == KINDS)
    return 0;
  struct task_struct *task = (struct task_struct *)bpf_get_current_task();
  int is_32 = !!(READ(task, compat) & COMPAT);
  if (is_32)
    kind = kind_32;
  if (kind == KINDS || ((int)result < 0 && !returns_id(call, is_32)))
    return 0; /* refused */
  u64 id = bpf_get_current_pid_tgid();
  if (kind == GROUP)
    group_changed(task, is_32 ? READ(registers, argument_32) : READ(registers, argument));
  /* glibc changes the ids of all threads, each by its own call: only the leader's is reported. */
  else if (kind == SESSION || (u32)id == id >> 32)
    submit_simple(kind, task);
  return 0;
}
#endif

struct bpf_iter_meta {
  void *sequence;
};

struct bpf_iter__task {
  union {
    struct bpf_iter_meta *meta;
    u64 meta_aligned;
  };
  union {
    struct task_struct *task;
    u64 task_aligned;
  };
};

/* Writes a record for each process when the iterator is read. */
int bpf_iter__task(struct bpf_iter__task *ctx)
{
  void *sequence = ctx->meta->sequence;
  struct task_struct *task = ctx->task;
  u32 zero = 0;
  if (!task || READ(task, pid) != READ(task, tgid))
    return 0;
  if (READ(READ(task, signal), live) == 0)
    return 0; /* a zombie, or about to become one */
  struct event *event = snapshot_scratch.lookup(&zero);
  if (!event)
    return 0;
  begin(event, SNAPSHOT, task);
  append_executable(event, READ(task, mm));
  append_cwd(event, task);
  bpf_seq_write(sequence, event, size_of(event));
  return 0;
}
