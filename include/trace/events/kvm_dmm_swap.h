/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM kvm_dmm
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE kvm_dmm_swap

#if !defined(_TRACE_KVM_DMM_SWAP_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_KVM_DMM_SWAP_H

#include <linux/kvm_dmm.h>
#include <linux/tracepoint.h>

/* A page that was to go: it is out (0), on its way (-EINPROGRESS), or stays. */
TRACE_EVENT(kvm_dmm_swap_out,
	TP_PROTO(struct kvm_dmm_pool *pool, pgoff_t index, int result),
	TP_ARGS(pool, index, result),
	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__field(unsigned long, index)
		__field(int, result)
	),
	TP_fast_assign(
		__entry->ino = kvm_dmm_pool_ino(pool);
		__entry->index = index;
		__entry->result = result;
	),
	TP_printk("pool %lu index 0x%lx result %d",
		  __entry->ino, __entry->index, __entry->result)
);

/* Content was brought back: 0, 1 with its copy kept, or an error. */
TRACE_EVENT(kvm_dmm_swap_in,
	TP_PROTO(struct kvm_dmm_pool *pool, pgoff_t index, bool memory,
		 unsigned int flags, int result),
	TP_ARGS(pool, index, memory, flags, result),
	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__field(unsigned long, index)
		__field(bool, memory)
		__field(unsigned int, flags)
		__field(int, result)
	),
	TP_fast_assign(
		__entry->ino = kvm_dmm_pool_ino(pool);
		__entry->index = index;
		__entry->memory = memory;
		__entry->flags = flags;
		__entry->result = result;
	),
	TP_printk("pool %lu index 0x%lx from %s flags 0x%x result %d",
		  __entry->ino, __entry->index,
		  __entry->memory ? "memory" : "backing", __entry->flags,
		  __entry->result)
);

/* The backing was read or written: how long that took, or -errno. */
TRACE_EVENT(kvm_dmm_swap_io,
	TP_PROTO(bool write, u32 first, unsigned int nr, u64 ns, int result),
	TP_ARGS(write, first, nr, ns, result),
	TP_STRUCT__entry(
		__field(bool, write)
		__field(u32, first)
		__field(unsigned int, nr)
		__field(u64, ns)
		__field(int, result)
	),
	TP_fast_assign(
		__entry->write = write;
		__entry->first = first;
		__entry->nr = nr;
		__entry->ns = ns;
		__entry->result = result;
	),
	TP_printk("%s slot %u pages %u ns %llu result %d",
		  __entry->write ? "write" : "read", __entry->first,
		  __entry->nr, __entry->ns, __entry->result)
);

#endif /* _TRACE_KVM_DMM_SWAP_H */

#include <trace/define_trace.h>
