/* bcc sizes ring buffers in pages; the loader says how large one is. */
#ifndef PAGE_SIZE
#define PAGE_SIZE 4096
#endif
