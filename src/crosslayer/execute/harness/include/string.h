/* The part of <string.h> that the compiler's own run-time library holds on a bare core, where there is no C library. */
#ifndef CROSSLAYER_STRING_H
#define CROSSLAYER_STRING_H
#include <stddef.h>
void *memcpy(void *restrict to, const void *restrict from, size_t count);
void *memmove(void *to, const void *from, size_t count);
void *memset(void *to, int byte, size_t count);
int memcmp(const void *one, const void *other, size_t count);
#endif
