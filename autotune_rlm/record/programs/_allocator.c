/* Preloaded into a program: counts the bytes that malloc and its kin have given out, and reports the
 * peak at the end to the descriptor that AUTOTUNE_RLM_REPORT_FD names.
 */
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static atomic_long now, peak;
static int report = -1;

static void *given(void *block) {
    if (!block) return block;
    long after = atomic_fetch_add(&now, malloc_usable_size(block)) + (long)malloc_usable_size(block);
    long before = atomic_load(&peak);
    while (after > before && !atomic_compare_exchange_weak(&peak, &before, after)) {
    }
    return block;
}

static void taken(void *block) {
    if (block) atomic_fetch_sub(&now, malloc_usable_size(block));
}

void *malloc(size_t size) { return given(__libc_malloc(size)); }
void *calloc(size_t count, size_t size) { return given(__libc_calloc(count, size)); }
void *memalign(size_t step, size_t size) { return given(__libc_memalign(step, size)); }
void *aligned_alloc(size_t step, size_t size) { return given(__libc_memalign(step, size)); }

int posix_memalign(void **place, size_t step, size_t size) {
    *place = memalign(step, size);
    return *place ? 0 : ENOMEM;
}

void free(void *block) {
    taken(block);
    __libc_free(block);
}

void *realloc(void *block, size_t size) {
    long before = block ? (long)malloc_usable_size(block) : 0;
    void *moved = __libc_realloc(block, size);
    if (moved || !size) atomic_fetch_sub(&now, before);
    return given(moved);
}

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("AUTOTUNE_RLM_REPORT_FD");
    if (name) report = atoi(name);
    unsetenv("LD_PRELOAD"); /* not for what the program starts */
}

__attribute__((destructor)) static void end(void) {
    if (report >= 0) dprintf(report, "allocated_bytes %ld\n", atomic_load(&peak));
}
