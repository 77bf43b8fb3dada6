/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What dmm_bench takes from the system that it runs on, and content for memory.
 */
#ifndef SELFTEST_KVM_DMM_BENCH_H
#define SELFTEST_KVM_DMM_BENCH_H

#include "kvm_util.h"

/* Exit status: what is to be measured doesn't exist here. */
#define BENCH_MISSING	4

/* 64M as a number */
uint64_t bench_bytes(const char *s);

/*
 * Nanoseconds now, of the clock, or only those that CPUs were busy with @waits;
 * or the value of a counter of @vcpu.
 */
double bench_now(struct kvm_vcpu *vcpu, const char *counter, bool waits);

/*
 * Content by its name, the same in every run; the first word of each page is 1
 * and does not count.
 */
void bench_fill(void *mem, uint64_t size, const char *content);
uint64_t bench_bad_pages(const void *mem, uint64_t size, const char *content);

/* Anonymous memory: write to a file of this process's cgroup; count swapped pages. */
int bench_memcg_set(const char *file, const char *value);
uint64_t bench_swapped_pages(const void *mem, uint64_t size);

/* Let ksmd make some passes over @mem. */
void bench_ksm(void *mem, uint64_t size, int passes);

#endif /* SELFTEST_KVM_DMM_BENCH_H */
