"""System calls by machine; made by packaging/syscall_tables.py, not by hand.

A number, then the names from there on, until the next number.
"""

from typing import Final

TABLES: Final = {
    "alpha": """
0 osf_syscall exit fork read write osf_old_open close osf_wait4 osf_old_creat link unlink
osf_execve chdir fchdir mknod chmod chown brk osf_getfsstat lseek getxpid osf_mount umount2
setuid getxuid exec_with_loader ptrace osf_nrecvmsg osf_nsendmsg osf_nrecvfrom osf_naccept
osf_ngetpeername osf_ngetsockname access osf_chflags osf_fchflags sync kill osf_old_stat
setpgid osf_old_lstat dup pipe osf_set_program_attributes osf_profil open osf_old_sigaction
getxgid osf_sigprocmask osf_getlogin osf_setlogin acct sigpending 54 ioctl osf_reboot
osf_revoke symlink readlink execve umask chroot osf_old_fstat getpgrp getpagesize osf_mremap
vfork stat lstat osf_sbrk osf_sstk mmap osf_old_vadvise munmap mprotect madvise vhangup
osf_kmodcall osf_mincore getgroups setgroups osf_old_getpgrp setpgrp osf_setitimer osf_old_wait
osf_table osf_getitimer gethostname sethostname getdtablesize dup2 fstat fcntl osf_select poll
fsync setpriority socket connect accept getpriority send recv sigreturn bind setsockopt listen
osf_plock osf_old_sigvec osf_old_sigblock osf_old_sigsetmask sigsuspend osf_sigstack recvmsg
sendmsg osf_old_vtrace osf_gettimeofday osf_getrusage getsockopt 120 readv writev
osf_settimeofday fchown fchmod recvfrom setreuid setregid rename truncate ftruncate flock
setgid sendto shutdown socketpair mkdir rmdir osf_utimes osf_old_sigreturn osf_adjtime
getpeername osf_gethostid osf_sethostid getrlimit setrlimit osf_old_killpg setsid quotactl
osf_oldquota getsockname 153 osf_pid_block osf_pid_unblock 156 sigaction osf_sigwaitprim
osf_nfssvc osf_getdirentries osf_statfs osf_fstatfs 163 osf_asynch_daemon osf_getfh
osf_getdomainname setdomainname 169 osf_exportfs 181 osf_alt_plock 184 osf_getmnt 187
osf_alt_sigpending osf_alt_setsid 199 osf_swapon msgctl msgget msgrcv msgsnd semctl semget
semop osf_utsname lchown shmat shmctl shmdt shmget osf_mvalid osf_getaddressconf osf_msleep
osf_mwakeup msync osf_signal osf_utc_gettime osf_utc_adjtime 222 osf_security osf_kloadcall
osf_stat osf_lstat osf_fstat osf_statfs64 osf_fstatfs64 233 getpgid getsid sigaltstack
osf_waitid osf_priocntlset osf_sigsendset osf_set_speculative osf_msfs_syscall osf_sysinfo
osf_uadmin osf_fuser osf_proplist_syscall osf_ntp_adjtime osf_ntp_gettime osf_pathconf
osf_fpathconf 250 osf_uswitch osf_usleep_thread osf_audcntl osf_audgen sysfs osf_subsys_info
osf_getsysinfo osf_setsysinfo osf_afs_syscall osf_swapctl osf_memcntl osf_fdatasync 300 bdflush
sethae mount old_adjtimex swapoff getdents create_module init_module delete_module
get_kernel_syms syslog reboot clone uselib mlock munlock mlockall munlockall sysinfo _sysctl
321 oldumount swapon times personality setfsuid setfsgid ustat statfs fstatfs sched_setparam
sched_getparam sched_setscheduler sched_getscheduler sched_yield sched_get_priority_max
sched_get_priority_min sched_rr_get_interval afs_syscall uname nanosleep mremap nfsservctl
setresuid getresuid pciconfig_read pciconfig_write query_module prctl pread64 pwrite64
rt_sigreturn rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigqueueinfo
rt_sigsuspend select gettimeofday settimeofday getitimer setitimer utimes getrusage wait4
adjtimex getcwd capget capset sendfile setresgid getresgid dipc pivot_root mincore
pciconfig_iobase getdents64 gettid readahead 381 tkill setxattr lsetxattr fsetxattr getxattr
lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr futex
sched_setaffinity sched_getaffinity tuxcall io_setup io_destroy io_getevents io_submit
io_cancel 405 exit_group lookup_dcookie epoll_create epoll_ctl epoll_wait remap_file_pages
set_tid_address restart_syscall fadvise64 timer_create timer_settime timer_gettime
timer_getoverrun timer_delete clock_settime clock_gettime clock_getres clock_nanosleep
semtimedop tgkill stat64 lstat64 fstat64 vserver mbind get_mempolicy set_mempolicy mq_open
mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr waitid add_key request_key
keyctl ioprio_set ioprio_get inotify_init inotify_add_watch inotify_rm_watch fdatasync
kexec_load migrate_pages openat mkdirat mknodat fchownat futimesat fstatat64 unlinkat renameat
linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll unshare set_robust_list
get_robust_list splice sync_file_range tee vmsplice move_pages getcpu epoll_pwait utimensat
signalfd timerfd eventfd recvmmsg fallocate timerfd_create timerfd_settime timerfd_gettime
signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo
perf_event_open fanotify_init fanotify_mark prlimit64 name_to_handle_at open_by_handle_at
clock_adjtime syncfs setns accept4 sendmmsg process_vm_readv process_vm_writev kcmp
finit_module sched_setattr sched_getattr renameat2 getrandom memfd_create execveat seccomp bpf
userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 statx io_pgetevents
pkey_mprotect pkey_alloc pkey_free rseq statfs64 fstatfs64 getegid geteuid getppid
""",
    "generic32": """
0 io_setup io_destroy io_submit io_cancel io_getevents setxattr lsetxattr fsetxattr getxattr
lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr
getcwd lookup_dcookie eventfd2 epoll_create1 epoll_ctl epoll_pwait dup dup3 fcntl64
inotify_init1 inotify_add_watch inotify_rm_watch ioctl ioprio_set ioprio_get flock mknodat
mkdirat unlinkat symlinkat linkat renameat umount2 mount pivot_root nfsservctl statfs64
fstatfs64 truncate64 ftruncate64 fallocate faccessat chdir fchdir chroot fchmod fchmodat
fchownat fchown openat close vhangup pipe2 quotactl getdents64 llseek read write readv writev
pread64 pwrite64 preadv pwritev sendfile64 pselect6 ppoll signalfd4 vmsplice splice tee
readlinkat fstatat64 fstat64 sync fsync fdatasync sync_file_range timerfd_create
timerfd_settime timerfd_gettime utimensat acct capget capset personality exit exit_group waitid
set_tid_address unshare futex set_robust_list get_robust_list nanosleep getitimer setitimer
kexec_load init_module delete_module timer_create timer_gettime timer_getoverrun timer_settime
timer_delete clock_settime clock_gettime clock_getres clock_nanosleep syslog ptrace
sched_setparam sched_setscheduler sched_getscheduler sched_getparam sched_setaffinity
sched_getaffinity sched_yield sched_get_priority_max sched_get_priority_min
sched_rr_get_interval restart_syscall kill tkill tgkill sigaltstack rt_sigsuspend rt_sigaction
rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigreturn setpriority
getpriority reboot setregid setgid setreuid setuid setresuid getresuid setresgid getresgid
setfsuid setfsgid times setpgid getpgid getsid setsid getgroups setgroups uname sethostname
setdomainname getrlimit setrlimit getrusage umask prctl getcpu gettimeofday settimeofday
adjtimex getpid getppid getuid geteuid getgid getegid gettid sysinfo mq_open mq_unlink
mq_timedsend mq_timedreceive mq_notify mq_getsetattr msgget msgctl msgrcv msgsnd semget semctl
semtimedop semop shmget shmctl shmat shmdt socket socketpair bind listen accept connect
getsockname getpeername sendto recvfrom setsockopt getsockopt shutdown sendmsg recvmsg
readahead brk munmap mremap add_key request_key keyctl clone execve mmap2 fadvise64_64 swapon
swapoff mprotect msync mlock munlock mlockall munlockall mincore madvise remap_file_pages mbind
get_mempolicy set_mempolicy migrate_pages move_pages rt_tgsigqueueinfo perf_event_open accept4
recvmmsg 260 wait4 prlimit64 fanotify_init fanotify_mark name_to_handle_at open_by_handle_at
clock_adjtime syncfs setns sendmmsg process_vm_readv process_vm_writev kcmp finit_module
sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create bpf execveat userfaultfd
membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx
io_pgetevents rseq kexec_file_load 403 clock_gettime64 clock_settime64 clock_adjtime64
clock_getres_time64 clock_nanosleep_time64 timer_gettime64 timer_settime64 timerfd_gettime64
timerfd_settime64 utimensat_time64 pselect6_time64 ppoll_time64 416 io_pgetevents_time64
recvmmsg_time64 mq_timedsend_time64 mq_timedreceive_time64 semtimedop_time64
rt_sigtimedwait_time64 futex_time64 sched_rr_get_interval_time64
""",
    "generic64": """
0 io_setup io_destroy io_submit io_cancel io_getevents setxattr lsetxattr fsetxattr getxattr
lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr
getcwd lookup_dcookie eventfd2 epoll_create1 epoll_ctl epoll_pwait dup dup3 fcntl inotify_init1
inotify_add_watch inotify_rm_watch ioctl ioprio_set ioprio_get flock mknodat mkdirat unlinkat
symlinkat linkat 39 umount2 mount pivot_root nfsservctl statfs fstatfs truncate ftruncate
fallocate faccessat chdir fchdir chroot fchmod fchmodat fchownat fchown openat close vhangup
pipe2 quotactl getdents64 lseek read write readv writev pread64 pwrite64 preadv pwritev
sendfile pselect6 ppoll signalfd4 vmsplice splice tee readlinkat newfstatat fstat sync fsync
fdatasync sync_file_range timerfd_create timerfd_settime timerfd_gettime utimensat acct capget
capset personality exit exit_group waitid set_tid_address unshare futex set_robust_list
get_robust_list nanosleep getitimer setitimer kexec_load init_module delete_module timer_create
timer_gettime timer_getoverrun timer_settime timer_delete clock_settime clock_gettime
clock_getres clock_nanosleep syslog ptrace sched_setparam sched_setscheduler sched_getscheduler
sched_getparam sched_setaffinity sched_getaffinity sched_yield sched_get_priority_max
sched_get_priority_min sched_rr_get_interval restart_syscall kill tkill tgkill sigaltstack
rt_sigsuspend rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigqueueinfo
rt_sigreturn setpriority getpriority reboot setregid setgid setreuid setuid setresuid getresuid
setresgid getresgid setfsuid setfsgid times setpgid getpgid getsid setsid getgroups setgroups
uname sethostname setdomainname getrlimit setrlimit getrusage umask prctl getcpu gettimeofday
settimeofday adjtimex getpid getppid getuid geteuid getgid getegid gettid sysinfo mq_open
mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr msgget msgctl msgrcv msgsnd
semget semctl semtimedop semop shmget shmctl shmat shmdt socket socketpair bind listen accept
connect getsockname getpeername sendto recvfrom setsockopt getsockopt shutdown sendmsg recvmsg
readahead brk munmap mremap add_key request_key keyctl clone execve mmap fadvise64 swapon
swapoff mprotect msync mlock munlock mlockall munlockall mincore madvise remap_file_pages mbind
get_mempolicy set_mempolicy migrate_pages move_pages rt_tgsigqueueinfo perf_event_open accept4
recvmmsg 260 wait4 prlimit64 fanotify_init fanotify_mark name_to_handle_at open_by_handle_at
clock_adjtime syncfs setns sendmmsg process_vm_readv process_vm_writev kcmp finit_module
sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create bpf execveat userfaultfd
membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx
io_pgetevents rseq kexec_file_load
""",
    "m68k": """
0 restart_syscall exit fork read write open close waitpid creat link unlink execve chdir time
mknod chmod chown 18 oldstat lseek getpid mount umount setuid getuid stime ptrace alarm
oldfstat pause utime 33 access nice 36 sync kill rename mkdir rmdir dup pipe times 45 brk
setgid getgid signal geteuid getegid acct umount2 54 ioctl fcntl 57 setpgid 60 umask chroot
ustat dup2 getppid getpgrp setsid sigaction sgetmask ssetmask setreuid setregid sigsuspend
sigpending sethostname setrlimit getrlimit getrusage gettimeofday settimeofday getgroups
setgroups select symlink oldlstat readlink uselib swapon reboot readdir mmap munmap truncate
ftruncate fchmod fchown getpriority setpriority 99 statfs fstatfs 102 socketcall syslog
setitimer getitimer stat lstat fstat 111 vhangup 114 wait4 swapoff sysinfo ipc fsync sigreturn
clone setdomainname uname cacheflush adjtimex mprotect sigprocmask create_module init_module
delete_module get_kernel_syms quotactl getpgid fchdir bdflush sysfs personality 138 setfsuid
setfsgid _llseek getdents _newselect flock msync readv writev getsid fdatasync _sysctl mlock
munlock mlockall munlockall sched_setparam sched_getparam sched_setscheduler sched_getscheduler
sched_yield sched_get_priority_max sched_get_priority_min sched_rr_get_interval nanosleep
mremap setresuid getresuid getpagesize query_module poll nfsservctl setresgid getresgid prctl
rt_sigreturn rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigqueueinfo
rt_sigsuspend pread64 pwrite64 lchown getcwd capget capset sigaltstack sendfile getpmsg putpmsg
vfork ugetrlimit mmap2 truncate64 ftruncate64 stat64 lstat64 fstat64 chown32 getuid32 getgid32
geteuid32 getegid32 setreuid32 setregid32 getgroups32 setgroups32 fchown32 setresuid32
getresuid32 setresgid32 getresgid32 lchown32 setuid32 setgid32 setfsuid32 setfsgid32 pivot_root
220 getdents64 gettid tkill setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr
llistxattr flistxattr removexattr lremovexattr fremovexattr futex sendfile64 mincore madvise
fcntl64 readahead io_setup io_destroy io_getevents io_submit io_cancel fadvise64 exit_group
lookup_dcookie epoll_create epoll_ctl epoll_wait remap_file_pages set_tid_address timer_create
timer_settime timer_gettime timer_getoverrun timer_delete clock_settime clock_gettime
clock_getres clock_nanosleep statfs64 fstatfs64 tgkill utimes fadvise64_64 mbind get_mempolicy
set_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr waitid 279
add_key request_key keyctl ioprio_set ioprio_get inotify_init inotify_add_watch
inotify_rm_watch migrate_pages openat mkdirat mknodat fchownat futimesat fstatat64 unlinkat
renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll unshare set_robust_list
get_robust_list splice sync_file_range tee vmsplice move_pages sched_setaffinity
sched_getaffinity kexec_load getcpu epoll_pwait utimensat signalfd timerfd_create eventfd
fallocate timerfd_settime timerfd_gettime signalfd4 eventfd2 epoll_create1 dup3 pipe2
inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open get_thread_area set_thread_area
atomic_cmpxchg_32 atomic_barrier fanotify_init fanotify_mark prlimit64 name_to_handle_at
open_by_handle_at clock_adjtime syncfs setns process_vm_readv process_vm_writev kcmp
finit_module sched_setattr sched_getattr renameat2 getrandom memfd_create bpf execveat socket
socketpair bind connect listen accept4 getsockopt setsockopt getsockname getpeername sendto
sendmsg recvfrom recvmsg shutdown recvmmsg sendmmsg userfaultfd membarrier mlock2
copy_file_range preadv2 pwritev2 statx seccomp pkey_mprotect pkey_alloc pkey_free rseq 393
semget semctl shmget shmctl shmat shmdt msgget msgsnd msgrcv msgctl clock_gettime64
clock_settime64 clock_adjtime64 clock_getres_time64 clock_nanosleep_time64 timer_gettime64
timer_settime64 timerfd_gettime64 timerfd_settime64 utimensat_time64 pselect6_time64
ppoll_time64 416 io_pgetevents_time64 recvmmsg_time64 mq_timedsend_time64
mq_timedreceive_time64 semtimedop_time64 rt_sigtimedwait_time64 futex_time64
sched_rr_get_interval_time64
""",
    "mips": """
0 syscall exit fork read write open close waitpid creat link unlink execve chdir time mknod
chmod lchown break unused18 lseek getpid mount umount setuid getuid stime ptrace alarm unused28
pause utime stty gtty access nice ftime sync kill rename mkdir rmdir dup pipe times prof brk
setgid getgid signal geteuid getegid acct umount2 lock ioctl fcntl mpx setpgid ulimit unused59
umask chroot ustat dup2 getppid getpgrp setsid sigaction sgetmask ssetmask setreuid setregid
sigsuspend sigpending sethostname setrlimit getrlimit getrusage gettimeofday settimeofday
getgroups setgroups reserved82 symlink unused84 readlink uselib swapon reboot readdir mmap
munmap truncate ftruncate fchmod fchown getpriority setpriority profil statfs fstatfs ioperm
socketcall syslog setitimer getitimer stat lstat fstat unused109 iopl vhangup idle vm86 wait4
swapoff sysinfo ipc fsync sigreturn clone setdomainname uname modify_ldt adjtimex mprotect
sigprocmask create_module init_module delete_module get_kernel_syms quotactl getpgid fchdir
bdflush sysfs personality afs_syscall setfsuid setfsgid _llseek getdents _newselect flock msync
readv writev cacheflush cachectl sysmips unused150 getsid fdatasync _sysctl mlock munlock
mlockall munlockall sched_setparam sched_getparam sched_setscheduler sched_getscheduler
sched_yield sched_get_priority_max sched_get_priority_min sched_rr_get_interval nanosleep
mremap accept bind connect getpeername getsockname getsockopt listen recv recvfrom recvmsg send
sendmsg sendto setsockopt shutdown socket socketpair setresuid getresuid query_module poll
nfsservctl setresgid getresgid prctl rt_sigreturn rt_sigaction rt_sigprocmask rt_sigpending
rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend pread64 pwrite64 chown getcwd capget capset
sigaltstack sendfile getpmsg putpmsg mmap2 truncate64 ftruncate64 stat64 lstat64 fstat64
pivot_root mincore madvise getdents64 fcntl64 reserved221 gettid readahead setxattr lsetxattr
fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr
fremovexattr tkill sendfile64 futex sched_setaffinity sched_getaffinity io_setup io_destroy
io_getevents io_submit io_cancel exit_group lookup_dcookie epoll_create epoll_ctl epoll_wait
remap_file_pages set_tid_address restart_syscall fadvise64 statfs64 fstatfs64 timer_create
timer_settime timer_gettime timer_getoverrun timer_delete clock_settime clock_gettime
clock_getres clock_nanosleep tgkill utimes mbind get_mempolicy set_mempolicy mq_open mq_unlink
mq_timedsend mq_timedreceive mq_notify mq_getsetattr vserver waitid 280 add_key request_key
keyctl set_thread_area inotify_init inotify_add_watch inotify_rm_watch migrate_pages openat
mkdirat mknodat fchownat futimesat fstatat64 unlinkat renameat linkat symlinkat readlinkat
fchmodat faccessat pselect6 ppoll unshare splice sync_file_range tee vmsplice move_pages
set_robust_list get_robust_list kexec_load getcpu epoll_pwait ioprio_set ioprio_get utimensat
signalfd timerfd eventfd fallocate timerfd_create timerfd_gettime timerfd_settime signalfd4
eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo
perf_event_open accept4 recvmmsg fanotify_init fanotify_mark prlimit64 name_to_handle_at
open_by_handle_at clock_adjtime syncfs sendmmsg setns process_vm_readv process_vm_writev kcmp
finit_module sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create bpf execveat
userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc
pkey_free statx rseq io_pgetevents 393 semget semctl shmget shmctl shmat shmdt msgget msgsnd
msgrcv msgctl clock_gettime64 clock_settime64 clock_adjtime64 clock_getres_time64
clock_nanosleep_time64 timer_gettime64 timer_settime64 timerfd_gettime64 timerfd_settime64
utimensat_time64 pselect6_time64 ppoll_time64 416 io_pgetevents_time64 recvmmsg_time64
mq_timedsend_time64 mq_timedreceive_time64 semtimedop_time64 rt_sigtimedwait_time64
futex_time64 sched_rr_get_interval_time64
""",
    "mips64": """
0 read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction
rt_sigprocmask ioctl pread64 pwrite64 readv writev access pipe _newselect sched_yield mremap
msync mincore madvise shmget shmat shmctl dup dup2 pause nanosleep getitimer setitimer alarm
getpid sendfile socket connect accept sendto recvfrom sendmsg recvmsg shutdown bind listen
getsockname getpeername socketpair setsockopt getsockopt clone fork execve exit wait4 kill
uname semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl flock fsync fdatasync
truncate ftruncate getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink symlink
readlink chmod fchmod chown fchown lchown umask gettimeofday getrlimit getrusage sysinfo times
ptrace getuid syslog getgid setuid setgid geteuid getegid setpgid getppid getpgrp setsid
setreuid setregid getgroups setgroups setresuid getresuid setresgid getresgid getpgid setfsuid
setfsgid getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend
sigaltstack utime mknod personality ustat statfs fstatfs sysfs getpriority setpriority
sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max
sched_get_priority_min sched_rr_get_interval mlock munlock mlockall munlockall vhangup
pivot_root _sysctl prctl adjtimex setrlimit chroot sync acct settimeofday mount umount2 swapon
swapoff reboot sethostname setdomainname create_module init_module delete_module
get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg afs_syscall reserved177 gettid
readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr
flistxattr removexattr lremovexattr fremovexattr tkill reserved193 futex sched_setaffinity
sched_getaffinity cacheflush cachectl sysmips io_setup io_destroy io_getevents io_submit
io_cancel exit_group lookup_dcookie epoll_create epoll_ctl epoll_wait remap_file_pages
rt_sigreturn set_tid_address restart_syscall semtimedop fadvise64 timer_create timer_settime
timer_gettime timer_getoverrun timer_delete clock_settime clock_gettime clock_getres
clock_nanosleep tgkill utimes mbind get_mempolicy set_mempolicy mq_open mq_unlink mq_timedsend
mq_timedreceive mq_notify mq_getsetattr vserver waitid 239 add_key request_key keyctl
set_thread_area inotify_init inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat
mknodat fchownat futimesat newfstatat unlinkat renameat linkat symlinkat readlinkat fchmodat
faccessat pselect6 ppoll unshare splice sync_file_range tee vmsplice move_pages set_robust_list
get_robust_list kexec_load getcpu epoll_pwait ioprio_set ioprio_get utimensat signalfd timerfd
eventfd fallocate timerfd_create timerfd_gettime timerfd_settime signalfd4 eventfd2
epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open accept4
recvmmsg fanotify_init fanotify_mark prlimit64 name_to_handle_at open_by_handle_at
clock_adjtime syncfs sendmmsg setns process_vm_readv process_vm_writev kcmp finit_module
getdents64 sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create bpf execveat
userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc
pkey_free statx rseq io_pgetevents
""",
    "mips64n32": """
0 read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction
rt_sigprocmask ioctl pread64 pwrite64 readv writev access pipe _newselect sched_yield mremap
msync mincore madvise shmget shmat shmctl dup dup2 pause nanosleep getitimer setitimer alarm
getpid sendfile socket connect accept sendto recvfrom sendmsg recvmsg shutdown bind listen
getsockname getpeername socketpair setsockopt getsockopt clone fork execve exit wait4 kill
uname semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl flock fsync fdatasync
truncate ftruncate getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink symlink
readlink chmod fchmod chown fchown lchown umask gettimeofday getrlimit getrusage sysinfo times
ptrace getuid syslog getgid setuid setgid geteuid getegid setpgid getppid getpgrp setsid
setreuid setregid getgroups setgroups setresuid getresuid setresgid getresgid getpgid setfsuid
setfsgid getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend
sigaltstack utime mknod personality ustat statfs fstatfs sysfs getpriority setpriority
sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max
sched_get_priority_min sched_rr_get_interval mlock munlock mlockall munlockall vhangup
pivot_root _sysctl prctl adjtimex setrlimit chroot sync acct settimeofday mount umount2 swapon
swapoff reboot sethostname setdomainname create_module init_module delete_module
get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg afs_syscall reserved177 gettid
readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr
flistxattr removexattr lremovexattr fremovexattr tkill reserved193 futex sched_setaffinity
sched_getaffinity cacheflush cachectl sysmips io_setup io_destroy io_getevents io_submit
io_cancel exit_group lookup_dcookie epoll_create epoll_ctl epoll_wait remap_file_pages
rt_sigreturn fcntl64 set_tid_address restart_syscall semtimedop fadvise64 statfs64 fstatfs64
sendfile64 timer_create timer_settime timer_gettime timer_getoverrun timer_delete clock_settime
clock_gettime clock_getres clock_nanosleep tgkill utimes mbind get_mempolicy set_mempolicy
mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr vserver waitid 243
add_key request_key keyctl set_thread_area inotify_init inotify_add_watch inotify_rm_watch
migrate_pages openat mkdirat mknodat fchownat futimesat newfstatat unlinkat renameat linkat
symlinkat readlinkat fchmodat faccessat pselect6 ppoll unshare splice sync_file_range tee
vmsplice move_pages set_robust_list get_robust_list kexec_load getcpu epoll_pwait ioprio_set
ioprio_get utimensat signalfd timerfd eventfd fallocate timerfd_create timerfd_gettime
timerfd_settime signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev
rt_tgsigqueueinfo perf_event_open accept4 recvmmsg getdents64 fanotify_init fanotify_mark
prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg setns
process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2
seccomp getrandom memfd_create bpf execveat userfaultfd membarrier mlock2 copy_file_range
preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx rseq io_pgetevents 403
clock_gettime64 clock_settime64 clock_adjtime64 clock_getres_time64 clock_nanosleep_time64
timer_gettime64 timer_settime64 timerfd_gettime64 timerfd_settime64 utimensat_time64
pselect6_time64 ppoll_time64 416 io_pgetevents_time64 recvmmsg_time64 mq_timedsend_time64
mq_timedreceive_time64 semtimedop_time64 rt_sigtimedwait_time64 futex_time64
sched_rr_get_interval_time64
""",
    "parisc": """
0 restart_syscall exit fork read write open close waitpid creat link unlink execve chdir time
mknod chmod lchown socket stat lseek getpid mount bind setuid getuid stime ptrace alarm fstat
pause utime connect listen access nice accept sync kill rename mkdir rmdir dup pipe times
getsockname brk setgid getgid signal geteuid getegid acct umount2 getpeername ioctl fcntl
socketpair setpgid send uname umask chroot ustat dup2 getppid getpgrp setsid pivot_root
sgetmask ssetmask setreuid setregid mincore sigpending sethostname setrlimit getrlimit
getrusage gettimeofday settimeofday getgroups setgroups sendto symlink lstat readlink uselib
swapon reboot mmap2 mmap munmap truncate ftruncate fchmod fchown getpriority setpriority recv
statfs fstatfs stat64 103 syslog setitimer getitimer capget capset pread64 pwrite64 getcwd
vhangup fstat64 vfork wait4 swapoff sysinfo shutdown fsync madvise clone setdomainname sendfile
recvfrom adjtimex mprotect sigprocmask 128 init_module delete_module 131 quotactl getpgid
fchdir bdflush sysfs personality 138 setfsuid setfsgid _llseek getdents _newselect flock msync
readv writev getsid fdatasync _sysctl mlock munlock mlockall munlockall sched_setparam
sched_getparam sched_setscheduler sched_getscheduler sched_yield sched_get_priority_max
sched_get_priority_min sched_rr_get_interval nanosleep mremap setresuid getresuid sigaltstack
168 poll 170 setresgid getresgid prctl rt_sigreturn rt_sigaction rt_sigprocmask rt_sigpending
rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend chown setsockopt getsockopt sendmsg recvmsg semop
semget semctl msgsnd msgrcv msgget msgctl shmat shmdt shmget shmctl 198 lstat64 truncate64
ftruncate64 getdents64 fcntl64 206 gettid readahead tkill sendfile64 futex sched_setaffinity
sched_getaffinity 215 io_setup io_destroy io_getevents io_submit io_cancel 222 exit_group
lookup_dcookie epoll_create epoll_ctl epoll_wait remap_file_pages semtimedop mq_open mq_unlink
mq_timedsend mq_timedreceive mq_notify mq_getsetattr waitid fadvise64_64 set_tid_address
setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
removexattr lremovexattr fremovexattr timer_create timer_settime timer_gettime timer_getoverrun
timer_delete clock_settime clock_gettime clock_getres clock_nanosleep tgkill mbind
get_mempolicy set_mempolicy 264 add_key request_key keyctl ioprio_set ioprio_get inotify_init
inotify_add_watch inotify_rm_watch migrate_pages pselect6 ppoll openat mkdirat mknodat fchownat
futimesat fstatat64 unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat unshare
set_robust_list get_robust_list splice sync_file_range tee vmsplice move_pages getcpu
epoll_pwait statfs64 fstatfs64 kexec_load utimensat signalfd 304 eventfd fallocate
timerfd_create timerfd_settime timerfd_gettime signalfd4 eventfd2 epoll_create1 dup3 pipe2
inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open recvmmsg accept4 prlimit64
fanotify_init fanotify_mark clock_adjtime name_to_handle_at open_by_handle_at syncfs setns
sendmmsg process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr
utimes renameat2 seccomp getrandom memfd_create bpf execveat membarrier userfaultfd mlock2
copy_file_range preadv2 pwritev2 statx io_pgetevents pkey_mprotect pkey_alloc pkey_free rseq
kexec_file_load 403 clock_gettime64 clock_settime64 clock_adjtime64 clock_getres_time64
clock_nanosleep_time64 timer_gettime64 timer_settime64 timerfd_gettime64 timerfd_settime64
utimensat_time64 pselect6_time64 ppoll_time64 416 io_pgetevents_time64 recvmmsg_time64
mq_timedsend_time64 mq_timedreceive_time64 semtimedop_time64 rt_sigtimedwait_time64
futex_time64 sched_rr_get_interval_time64
""",
    "sh": """
0 restart_syscall exit fork read write open close waitpid creat link unlink execve chdir time
mknod chmod lchown 18 oldstat lseek getpid mount umount setuid getuid stime ptrace alarm
oldfstat pause utime 33 access nice 36 sync kill rename mkdir rmdir dup pipe times 45 brk
setgid getgid signal geteuid getegid acct umount2 54 ioctl fcntl 57 setpgid 60 umask chroot
ustat dup2 getppid getpgrp setsid sigaction sgetmask ssetmask setreuid setregid sigsuspend
sigpending sethostname setrlimit getrlimit getrusage gettimeofday settimeofday getgroups
setgroups 83 symlink oldlstat readlink uselib swapon reboot readdir mmap munmap truncate
ftruncate fchmod fchown getpriority setpriority 99 statfs fstatfs 102 socketcall syslog
setitimer getitimer stat lstat fstat olduname 111 vhangup 114 wait4 swapoff sysinfo ipc fsync
sigreturn clone setdomainname uname cacheflush adjtimex mprotect sigprocmask 128 init_module
delete_module 131 quotactl getpgid fchdir bdflush sysfs personality 138 setfsuid setfsgid
_llseek getdents _newselect flock msync readv writev getsid fdatasync _sysctl mlock munlock
mlockall munlockall sched_setparam sched_getparam sched_setscheduler sched_getscheduler
sched_yield sched_get_priority_max sched_get_priority_min sched_rr_get_interval nanosleep
mremap setresuid getresuid 168 poll nfsservctl setresgid getresgid prctl rt_sigreturn
rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend pread64
pwrite64 chown getcwd capget capset sigaltstack sendfile 190 vfork ugetrlimit mmap2 truncate64
ftruncate64 stat64 lstat64 fstat64 lchown32 getuid32 getgid32 geteuid32 getegid32 setreuid32
setregid32 getgroups32 setgroups32 fchown32 setresuid32 getresuid32 setresgid32 getresgid32
chown32 setuid32 setgid32 setfsuid32 setfsgid32 pivot_root mincore madvise getdents64 fcntl64
224 gettid readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr
llistxattr flistxattr removexattr lremovexattr fremovexattr tkill sendfile64 futex
sched_setaffinity sched_getaffinity 245 io_setup io_destroy io_getevents io_submit io_cancel
fadvise64 252 exit_group lookup_dcookie epoll_create epoll_ctl epoll_wait remap_file_pages
set_tid_address timer_create timer_settime timer_gettime timer_getoverrun timer_delete
clock_settime clock_gettime clock_getres clock_nanosleep statfs64 fstatfs64 tgkill utimes
fadvise64_64 274 mbind get_mempolicy set_mempolicy mq_open mq_unlink mq_timedsend
mq_timedreceive mq_notify mq_getsetattr kexec_load waitid add_key request_key keyctl ioprio_set
ioprio_get inotify_init inotify_add_watch inotify_rm_watch 294 migrate_pages openat mkdirat
mknodat fchownat futimesat fstatat64 unlinkat renameat linkat symlinkat readlinkat fchmodat
faccessat pselect6 ppoll unshare set_robust_list get_robust_list splice sync_file_range tee
vmsplice move_pages getcpu epoll_pwait utimensat signalfd timerfd_create eventfd fallocate
timerfd_settime timerfd_gettime signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1
preadv pwritev rt_tgsigqueueinfo perf_event_open fanotify_init fanotify_mark prlimit64 socket
bind connect listen accept getsockname getpeername socketpair send sendto recv recvfrom
shutdown setsockopt getsockopt sendmsg recvmsg recvmmsg accept4 name_to_handle_at
open_by_handle_at clock_adjtime syncfs sendmmsg setns process_vm_readv process_vm_writev kcmp
finit_module sched_getattr sched_setattr renameat2 seccomp getrandom memfd_create bpf execveat
userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 statx pkey_mprotect pkey_alloc
pkey_free rseq 393 semget semctl shmget shmctl shmat shmdt msgget msgsnd msgrcv msgctl
clock_gettime64 clock_settime64 clock_adjtime64 clock_getres_time64 clock_nanosleep_time64
timer_gettime64 timer_settime64 timerfd_gettime64 timerfd_settime64 utimensat_time64
pselect6_time64 ppoll_time64 416 io_pgetevents_time64 recvmmsg_time64 mq_timedsend_time64
mq_timedreceive_time64 semtimedop_time64 rt_sigtimedwait_time64 futex_time64
sched_rr_get_interval_time64
""",
    "sparc": """
0 restart_syscall exit fork read write open close wait4 creat link unlink execv chdir chown
mknod chmod lchown brk perfctr lseek getpid capget capset setuid getuid vmsplice ptrace alarm
sigaltstack pause utime lchown32 fchown32 access nice chown32 sync kill stat sendfile lstat dup
pipe times getuid32 umount2 setgid getgid signal geteuid getegid acct 53 getgid32 ioctl reboot
mmap2 symlink readlink execve umask chroot fstat fstat64 getpagesize msync vfork pread64
pwrite64 geteuid32 getegid32 mmap setreuid32 munmap mprotect madvise vhangup truncate64 mincore
getgroups setgroups getpgrp setgroups32 setitimer ftruncate64 swapon getitimer setuid32
sethostname setgid32 dup2 setfsuid32 fcntl select setfsgid32 fsync setpriority socket connect
accept getpriority rt_sigreturn rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait
rt_sigqueueinfo rt_sigsuspend setresuid32 getresuid32 setresgid32 getresgid32 setregid32
recvmsg sendmsg getgroups32 gettimeofday getrusage getsockopt getcwd readv writev settimeofday
fchown fchmod recvfrom setreuid setregid rename truncate ftruncate flock lstat64 sendto
shutdown socketpair mkdir rmdir utimes stat64 sendfile64 getpeername futex gettid getrlimit
setrlimit pivot_root prctl pciconfig_read pciconfig_write getsockname inotify_init
inotify_add_watch poll getdents64 fcntl64 inotify_rm_watch statfs fstatfs umount
sched_set_affinity sched_get_affinity getdomainname setdomainname 165 quotactl set_tid_address
mount ustat setxattr lsetxattr fsetxattr getxattr lgetxattr getdents setsid fchdir fgetxattr
listxattr llistxattr flistxattr removexattr lremovexattr sigpending query_module setpgid
fremovexattr tkill exit_group uname init_module personality remap_file_pages epoll_create
epoll_ctl epoll_wait ioprio_set getppid sigaction sgetmask ssetmask sigsuspend oldlstat uselib
readdir readahead socketcall syslog lookup_dcookie fadvise64 fadvise64_64 tgkill waitpid
swapoff sysinfo ipc sigreturn clone ioprio_get adjtimex sigprocmask create_module delete_module
get_kernel_syms getpgid bdflush sysfs afs_syscall setfsuid setfsgid _newselect time splice
stime statfs64 fstatfs64 _llseek mlock munlock mlockall munlockall sched_setparam
sched_getparam sched_setscheduler sched_getscheduler sched_yield sched_get_priority_max
sched_get_priority_min sched_rr_get_interval nanosleep mremap _sysctl getsid fdatasync
nfsservctl sync_file_range clock_settime clock_gettime clock_getres clock_nanosleep
sched_getaffinity sched_setaffinity timer_settime timer_gettime timer_getoverrun timer_delete
timer_create vserver io_setup io_destroy io_submit io_cancel io_getevents mq_open mq_unlink
mq_timedsend mq_timedreceive mq_notify mq_getsetattr waitid tee add_key request_key keyctl
openat mkdirat mknodat fchownat futimesat fstatat64 unlinkat renameat linkat symlinkat
readlinkat fchmodat faccessat pselect6 ppoll unshare set_robust_list get_robust_list
migrate_pages mbind get_mempolicy set_mempolicy kexec_load move_pages getcpu epoll_pwait
utimensat signalfd timerfd_create eventfd fallocate timerfd_settime timerfd_gettime signalfd4
eventfd2 epoll_create1 dup3 pipe2 inotify_init1 accept4 preadv pwritev rt_tgsigqueueinfo
perf_event_open recvmmsg fanotify_init fanotify_mark prlimit64 name_to_handle_at
open_by_handle_at clock_adjtime syncfs sendmmsg setns process_vm_readv process_vm_writev
kern_features kcmp finit_module sched_setattr sched_getattr renameat2 seccomp getrandom
memfd_create bpf execveat membarrier userfaultfd bind listen setsockopt mlock2 copy_file_range
preadv2 pwritev2 statx io_pgetevents pkey_mprotect pkey_alloc pkey_free rseq 393 semget semctl
shmget shmctl shmat shmdt msgget msgsnd msgrcv msgctl clock_gettime64 clock_settime64
clock_adjtime64 clock_getres_time64 clock_nanosleep_time64 timer_gettime64 timer_settime64
timerfd_gettime64 timerfd_settime64 utimensat_time64 pselect6_time64 ppoll_time64 416
io_pgetevents_time64 recvmmsg_time64 mq_timedsend_time64 mq_timedreceive_time64
semtimedop_time64 rt_sigtimedwait_time64 futex_time64 sched_rr_get_interval_time64
""",
    "sparc64": """
0 restart_syscall exit fork read write open close wait4 creat link unlink execv chdir chown
mknod chmod lchown brk perfctr lseek getpid capget capset setuid getuid vmsplice ptrace alarm
sigaltstack pause utime 33 access nice 36 sync kill stat sendfile lstat dup pipe times 45
umount2 setgid getgid signal geteuid getegid acct memory_ordering 54 ioctl reboot 57 symlink
readlink execve umask chroot fstat fstat64 getpagesize msync vfork pread64 pwrite64 71 mmap 73
munmap mprotect madvise vhangup 78 mincore getgroups setgroups getpgrp 83 setitimer 85 swapon
getitimer 88 sethostname 90 dup2 92 fcntl select 95 fsync setpriority socket connect accept
getpriority rt_sigreturn rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait
rt_sigqueueinfo rt_sigsuspend setresuid getresuid setresgid getresgid 113 recvmsg sendmsg 116
gettimeofday getrusage getsockopt getcwd readv writev settimeofday fchown fchmod recvfrom
setreuid setregid rename truncate ftruncate flock lstat64 sendto shutdown socketpair mkdir
rmdir utimes stat64 sendfile64 getpeername futex gettid getrlimit setrlimit pivot_root prctl
pciconfig_read pciconfig_write getsockname inotify_init inotify_add_watch poll getdents64 156
inotify_rm_watch statfs fstatfs umount sched_set_affinity sched_get_affinity getdomainname
setdomainname utrap_install quotactl set_tid_address mount ustat setxattr lsetxattr fsetxattr
getxattr lgetxattr getdents setsid fchdir fgetxattr listxattr llistxattr flistxattr removexattr
lremovexattr sigpending query_module setpgid fremovexattr tkill exit_group uname init_module
personality remap_file_pages epoll_create epoll_ctl epoll_wait ioprio_set getppid sigaction
sgetmask ssetmask sigsuspend oldlstat uselib readdir readahead socketcall syslog lookup_dcookie
fadvise64 fadvise64_64 tgkill waitpid swapoff sysinfo ipc sigreturn clone ioprio_get adjtimex
sigprocmask create_module delete_module get_kernel_syms getpgid bdflush sysfs afs_syscall
setfsuid setfsgid _newselect 232 splice stime statfs64 fstatfs64 _llseek mlock munlock mlockall
munlockall sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_yield
sched_get_priority_max sched_get_priority_min sched_rr_get_interval nanosleep mremap _sysctl
getsid fdatasync nfsservctl sync_file_range clock_settime clock_gettime clock_getres
clock_nanosleep sched_getaffinity sched_setaffinity timer_settime timer_gettime
timer_getoverrun timer_delete timer_create vserver io_setup io_destroy io_submit io_cancel
io_getevents mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr waitid tee
add_key request_key keyctl openat mkdirat mknodat fchownat futimesat fstatat64 unlinkat
renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll unshare set_robust_list
get_robust_list migrate_pages mbind get_mempolicy set_mempolicy kexec_load move_pages getcpu
epoll_pwait utimensat signalfd timerfd_create eventfd fallocate timerfd_settime timerfd_gettime
signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 accept4 preadv pwritev
rt_tgsigqueueinfo perf_event_open recvmmsg fanotify_init fanotify_mark prlimit64
name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg setns process_vm_readv
process_vm_writev kern_features kcmp finit_module sched_setattr sched_getattr renameat2 seccomp
getrandom memfd_create bpf execveat membarrier userfaultfd bind listen setsockopt mlock2
copy_file_range preadv2 pwritev2 statx io_pgetevents pkey_mprotect pkey_alloc pkey_free rseq
392 semtimedop semget semctl shmget shmctl shmat shmdt msgget msgsnd msgrcv msgctl
""",
    "x32": """
512 rt_sigaction rt_sigreturn ioctl readv writev recvfrom sendmsg recvmsg execve ptrace
rt_sigpending rt_sigtimedwait rt_sigqueueinfo sigaltstack timer_create mq_notify kexec_load
waitid set_robust_list get_robust_list vmsplice move_pages preadv pwritev rt_tgsigqueueinfo
recvmmsg sendmmsg process_vm_readv process_vm_writev setsockopt getsockopt io_setup io_submit
execveat preadv2 pwritev2
""",
}
