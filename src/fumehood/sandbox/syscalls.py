"""The reviewed table of system calls: who may pass, in groups, each with its reason.

What no group names gets ENOSYS, so that a C library which tries something new falls back to something old.
`REFUSED` gets EPERM instead: calls that exist everywhere and that a program should be told it may not make.
The filter in `seccomp.py` is built from this; `tests/sandbox/test_seccomp.py` holds numbers against libseccomp.
"""

from __future__ import annotations

ALLOWED: tuple[tuple[str, str], ...] = (
    (
        "reading and writing what is open already",
        "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek close close_range dup dup2 "
        "dup3 fcntl flock fsync fdatasync sync_file_range syncfs fadvise64 readahead sendfile splice tee "
        "copy_file_range ftruncate fallocate",
    ),
    (
        "files: the mounts and Landlock decide which",
        "open openat openat2 creat access faccessat faccessat2 stat fstat lstat newfstatat statx statfs fstatfs "
        "getdents getdents64 readlink readlinkat mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link "
        "linkat symlink symlinkat truncate chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes "
        "utimensat futimesat umask chdir fchdir getcwd mknod mknodat sync getxattr lgetxattr fgetxattr listxattr "
        "llistxattr flistxattr setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr",
    ),
    (
        "memory of one's own",
        "mmap munmap mprotect mremap brk madvise msync mincore mlock mlock2 munlock mlockall munlockall memfd_create "
        "membarrier get_mempolicy",
    ),
    (
        "processes and threads: namespaces stay closed by a check of clone's flags",
        "fork vfork execve execveat exit exit_group wait4 waitid getpid getppid gettid getpgid setpgid getpgrp getsid "
        "setsid set_tid_address set_robust_list get_robust_list rseq arch_prctl sched_yield sched_getaffinity "
        "sched_setaffinity sched_getparam sched_setparam sched_getscheduler sched_setscheduler sched_getattr "
        "sched_setattr sched_get_priority_max sched_get_priority_min sched_rr_get_interval getpriority setpriority "
        "getcpu times getrusage getrlimit setrlimit sysinfo uname pidfd_open pidfd_send_signal restart_syscall",
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
        "bind listen accept accept4 connect getsockname getpeername getsockopt setsockopt shutdown sendto sendmsg "
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

#: Allowed with a check of arguments; the checks stand in seccomp.py.
CHECKED = ("clone", "ioctl", "socket", "socketpair", "prctl", "personality", "prlimit64")

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
        "seccomp vmsplice memfd_secret fanotify_init fanotify_mark name_to_handle_at open_by_handle_at "
        "modify_ldt iopl ioperm lookup_dcookie",
    ),
    (
        "memory outside one's limits: SysV segments outlive processes, NUMA calls move others' pages",
        "shmget shmat shmctl shmdt msgget msgsnd msgrcv msgctl semget semop semtimedop semctl mq_open mq_unlink "
        "mq_timedsend mq_timedreceive mq_notify mq_getsetattr mbind set_mempolicy migrate_pages move_pages",
    ),
    (
        "watchers: counted for whoever made the namespace too, 128 in all, so a guest could use up the host's own",
        "inotify_init inotify_init1 inotify_add_watch inotify_rm_watch",
    ),
    (
        "the machine itself",
        "reboot kexec_load kexec_file_load init_module finit_module delete_module swapon swapoff acct syslog quotactl "
        "quotactl_fd settimeofday clock_settime adjtimex clock_adjtime sethostname setdomainname vhangup nfsservctl "
        "setgroups ioprio_set",
    ),
)
