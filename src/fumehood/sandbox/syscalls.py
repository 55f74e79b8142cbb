"""The reviewed table of system calls: who may pass, in groups, each with its reason.

What no group names gets ENOSYS, so that a C library which tries something new falls back to something old; `ABSENT` says
so of what exists today. `REFUSED` gets EPERM instead: calls that exist everywhere and that a program should be told it may
not make. `HOSTILE` ends the process.
The filter in `seccomp.py` is built from this; `tests/sandbox/test_seccomp.py` holds numbers against libseccomp.
"""

from __future__ import annotations

ALLOWED: tuple[tuple[str, str], ...] = (
    (
        "reading and writing what is open already",
        "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek close close_range dup dup2 "
        "dup3 flock fsync fdatasync sync_file_range fadvise64 readahead sendfile splice tee "
        "copy_file_range ftruncate fallocate",
    ),
    (
        "files: the mounts and Landlock decide which",
        "open openat openat2 creat access faccessat faccessat2 stat fstat lstat newfstatat statx statfs fstatfs "
        "getdents getdents64 readlink readlinkat mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link "
        "linkat symlink symlinkat truncate chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes "
        "utimensat futimesat umask chdir fchdir getcwd mknod mknodat getxattr lgetxattr fgetxattr listxattr "
        "llistxattr flistxattr removexattr lremovexattr fremovexattr",
    ),
    (
        "memory of one's own",
        "munmap mprotect mremap brk madvise msync mincore mlock mlock2 munlock mlockall munlockall "
        "membarrier get_mempolicy",
    ),
    (
        "processes and threads: namespaces stay closed by a check of clone's flags",
        "fork vfork execve execveat exit exit_group wait4 waitid getpid getppid gettid getpgid setpgid getpgrp getsid "
        "setsid set_tid_address set_robust_list get_robust_list rseq arch_prctl sched_yield sched_getaffinity "
        "sched_getparam sched_getscheduler sched_getattr sched_get_priority_max sched_get_priority_min sched_rr_get_interval "
        "getpriority getcpu times getrusage getrlimit sysinfo uname ioprio_get pidfd_open pidfd_send_signal restart_syscall",
    ),
    (
        "who one is: without capabilities nothing can be gained",
        "getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid setresuid "
        "setresgid setfsuid setfsgid capget capset",
    ),
    (
        "signals: the pid namespace is all that can be reached",
        "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait rt_sigqueueinfo "
        "rt_tgsigqueueinfo sigaltstack kill tkill tgkill pause alarm signalfd signalfd4",
    ),
    (
        "time: reading it and waiting",
        "gettimeofday time clock_gettime clock_getres clock_nanosleep nanosleep getitimer setitimer timer_create "
        "timer_settime timer_gettime timer_getoverrun timer_delete timerfd_create timerfd_settime timerfd_gettime",
    ),
    (
        "waiting for several things",
        "select pselect6 poll ppoll epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd "
        "eventfd2 pipe pipe2 futex futex_waitv",
    ),
    (
        "sockets: families are checked, and the network namespace holds nothing but lo",
        "bind listen accept accept4 connect getsockname getpeername getsockopt shutdown sendto sendmsg "
        "sendmmsg recvfrom recvmsg recvmmsg",
    ),
    ("randomness", "getrandom"),
    ("making one's own walls higher", "landlock_create_ruleset landlock_add_rule landlock_restrict_self"),
)

#: What one kind of runtime may call beyond that. A runtime names its profile; "plain" has nothing more.
PROFILES: dict[str, tuple[tuple[str, str], ...]] = {
    "plain": (),
    "v8": (
        ("memory protection keys: V8 guards the code that it makes with them", "pkey_mprotect pkey_alloc pkey_free"),
    ),
}

#: Allowed with a check of arguments, which stands in seccomp.py; what the check is against.
CHECKED = {
    "clone": "new namespaces",
    "ioctl": "typing into terminals, and every device's own orders",
    "socket": "families but Unix, IPv4 and IPv6, raw sockets, protocols but TCP and UDP",
    "socketpair": "families but Unix",
    "prctl": "what changes how the kernel guards a process",
    "personality": "old behaviour that makes attacks easier",
    "prlimit64": "other processes' limits, and that of core files: none, even where the host pipes them to a helper",
    "setrlimit": "the limit of core files: as prlimit64",
    "setsockopt": "filters on sockets and multicast groups: memory that is counted for nobody",
    "sched_setscheduler": "to move process 1, which is ours",
    "sched_setparam": "to move process 1, which is ours",
    "sched_setattr": "to move process 1, which is ours",
    "sched_setaffinity": "to move process 1, which is ours",
    "setpriority": "to move process 1, which is ours, by its number or as one of its user's",
    "mmap": "large pages: no group counts them",
    "memfd_create": "large pages: no group counts them",
    "fcntl": "locks that belong to open files: nobody can tell whose they are",
}

REFUSED: tuple[tuple[str, str], ...] = (
    (
        "mounts and namespaces",
        "mount umount2 pivot_root chroot fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr unshare "
        "setns",
    ),
    (
        "other processes' memory and descriptors",
        "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease pidfd_getfd kcmp",
    ),
    (
        "kernel surface with a history of holes",
        "bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register add_key request_key keyctl "
        "seccomp vmsplice memfd_secret fanotify_init fanotify_mark name_to_handle_at modify_ldt",
    ),
    (
        "memory outside one's limits: SysV segments outlive processes, NUMA calls move others' pages",
        "shmget shmat shmctl shmdt msgget msgsnd msgrcv msgctl semget semop semtimedop semctl mq_open mq_unlink "
        "mq_timedsend mq_timedreceive mq_notify mq_getsetattr mbind set_mempolicy migrate_pages move_pages",
    ),
    (
        "the host's own disks, written out at once",
        "sync syncfs",
    ),
    (
        "watchers: counted for whoever made the namespace too, 128 in all, so a guest could use up the host's own",
        "inotify_init inotify_init1 inotify_add_watch inotify_rm_watch",
    ),
    (
        "the machine itself: programs ask, or try and go on without",
        "syslog settimeofday clock_settime adjtimex clock_adjtime sethostname setdomainname setgroups ioprio_set",
    ),
)

#: These get EOPNOTSUPP, as from a file system without them.
UNSUPPORTED: tuple[tuple[str, str], ...] = (
    (
        "attributes of files: lists of rights are memory of the kernel's that is counted for nobody",
        "setxattr lsetxattr fsetxattr",
    ),
)

#: These end the process that makes one: nothing that runs without the host's root has a use for them.
HOSTILE: tuple[tuple[str, str], ...] = (
    ("another kernel, or other code in this one", "kexec_load kexec_file_load init_module finit_module delete_module"),
    (
        "the machine's power, swap, accounts and quotas",
        "reboot swapon swapoff acct quotactl quotactl_fd nfsservctl vhangup",
    ),
    ("the processor's own ports", "iopl ioperm"),
    (
        "files by their handles, past every mount, as container escapes did; profiles of the kernel",
        "open_by_handle_at lookup_dcookie",
    ),
)

ABSENT: tuple[tuple[str, str], ...] = (
    (
        "gone from the kernel, or never there: numbers are kept free for them",
        "_sysctl afs_syscall create_module epoll_ctl_old epoll_wait_old get_kernel_syms getpmsg putpmsg query_module "
        "security tuxcall uselib vserver sysfs ustat get_thread_area set_thread_area remap_file_pages",
    ),
    (
        "input and output by the kernel's older queue: programs fall back to reading and writing",
        "io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents",
    ),
    (
        "newer than most C libraries, not looked at yet",
        "futex_wake futex_wait futex_requeue map_shadow_stack set_mempolicy_home_node lsm_get_self_attr "
        "lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat removexattrat file_getattr "
        "file_setattr",
    ),
    ("tells what others have read: a side channel", "cachestat"),
    ("mounts, by newer calls", "statmount listmount open_tree_attr"),
)
