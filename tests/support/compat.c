/* Executes a program with the 32-bit system call, from a 64-bit process: compat PROGRAM ARGUMENT...
 *
 * It also calls setsid and setuid(65534). int 0x80 enters the kernel's table of 32-bit calls, where
 * execve is number 11, setsid 66 and setuid 213. Its arguments are 32 bits wide, so their targets must
 * lie below 4 GB. */
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

static int call(int number, uint32_t first, uint32_t second, uint32_t third) {
  int result;
  __asm__ volatile("int $0x80"
                   : "=a"(result)
                   : "a"(number), "b"(first), "c"(second), "d"(third)
                   : "memory", "r8", "r9", "r10", "r11");
  return result;
}

int main(int count, char **arguments) {
  char *low = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT,
                   -1, 0);
  if (low == MAP_FAILED || count < 2)
    return 2;
  uint32_t *pointers = (uint32_t *)low;
  char *text = low + 4096;
  for (int index = 1; index < count; index++) {
    pointers[index - 1] = (uint32_t)(uintptr_t)text;
    text = stpcpy(text, arguments[index]) + 1;
  }
  uint32_t none = (uint32_t)(uintptr_t)&pointers[count];
  call(66, 0, 0, 0);
  call(213, 65534, 0, 0);
  call(11, pointers[0], (uint32_t)(uintptr_t)pointers, none);
  return 1;
}
