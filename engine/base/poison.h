/*
 * poison.h -- tells AddressSanitizer which bytes of our own allocators are nobody's; nothing in other builds
 *
 * Private to base/.  Whoever poisons unpoisons before the memory goes back to malloc or the kernel.
 */
#ifndef BASE_POISON_H
#define BASE_POISON_H

#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__)
#define BASE_HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BASE_HAS_ASAN 1
#endif
#endif

#ifdef BASE_HAS_ASAN
void __asan_poison_memory_region(void const volatile *p, size_t n);
void __asan_unpoison_memory_region(void const volatile *p, size_t n);
static inline void poison(const void *p, size_t n)   { __asan_poison_memory_region(p, n); }
static inline void unpoison(const void *p, size_t n) { __asan_unpoison_memory_region(p, n); }
#else
static inline void poison(const void *p, size_t n)   { (void)p; (void)n; }
static inline void unpoison(const void *p, size_t n) { (void)p; (void)n; }
#endif

#endif
