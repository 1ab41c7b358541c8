/* Lets a Python program select the part that callgrind counts. */
#include <valgrind/callgrind.h>

void begin(void)
{
	CALLGRIND_START_INSTRUMENTATION;
}

/* Starts or stops counting. */
void toggle(void)
{
	CALLGRIND_TOGGLE_COLLECT;
}
