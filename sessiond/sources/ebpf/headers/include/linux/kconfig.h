/* bcc asks for the kernel's configuration; all that its helpers need of it is this. */
#define CONFIG_BPF_SYSCALL 1
