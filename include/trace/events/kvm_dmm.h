/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM kvm_dmm

#if !defined(_TRACE_KVM_DMM_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_KVM_DMM_H

#include <linux/kvm_dmm.h>
#include <linux/tracepoint.h>

/* An access was resolved: what the entry had, what was asked, the result. */
TRACE_EVENT(kvm_dmm_fault,
	TP_PROTO(struct kvm_dmm_pool *pool, pgoff_t index, u64 value,
		 unsigned int flags, int result),
	TP_ARGS(pool, index, value, flags, result),
	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__field(unsigned long, index)
		__field(u64, value)
		__field(unsigned int, flags)
		__field(int, result)
	),
	TP_fast_assign(
		__entry->ino = kvm_dmm_pool_ino(pool);
		__entry->index = index;
		__entry->value = value;
		__entry->flags = flags;
		__entry->result = result;
	),
	TP_printk("pool %lu index 0x%lx entry 0x%llx flags 0x%x result %d",
		  __entry->ino, __entry->index, __entry->value, __entry->flags,
		  __entry->result)
);

DECLARE_EVENT_CLASS(kvm_dmm_one,
	TP_PROTO(struct kvm_dmm_pool *pool, pgoff_t index, u64 value),
	TP_ARGS(pool, index, value),
	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__field(unsigned long, index)
		__field(u64, value)
	),
	TP_fast_assign(
		__entry->ino = kvm_dmm_pool_ino(pool);
		__entry->index = index;
		__entry->value = value;
	),
	TP_printk("pool %lu index 0x%lx value 0x%llx", __entry->ino,
		  __entry->index, __entry->value)
);

/* An entry got a frame; value: the new entry. */
DEFINE_EVENT(kvm_dmm_one, kvm_dmm_map,
	TP_PROTO(struct kvm_dmm_pool *pool, pgoff_t index, u64 value),
	TP_ARGS(pool, index, value));

/* A shared frame was copied for a write; value: the new page frame number. */
DEFINE_EVENT(kvm_dmm_one, kvm_dmm_cow,
	TP_PROTO(struct kvm_dmm_pool *pool, pgoff_t index, u64 value),
	TP_ARGS(pool, index, value));

/* An offset joined a shared frame; value: its page frame number. */
DEFINE_EVENT(kvm_dmm_one, kvm_dmm_share,
	TP_PROTO(struct kvm_dmm_pool *pool, pgoff_t index, u64 value),
	TP_ARGS(pool, index, value));

DECLARE_EVENT_CLASS(kvm_dmm_batch,
	TP_PROTO(struct kvm_dmm_batch *batch),
	TP_ARGS(batch),
	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__field(unsigned long, first)
		__field(unsigned long, last)
		__field(unsigned int, nr)
	),
	TP_fast_assign(
		__entry->ino = kvm_dmm_pool_ino(batch->pool);
		__entry->first = batch->base +
			find_first_bit(batch->locked, KVM_DMM_REGION_PAGES);
		__entry->last = batch->base +
			find_last_bit(batch->locked, KVM_DMM_REGION_PAGES);
		__entry->nr = bitmap_weight(batch->locked,
					    KVM_DMM_REGION_PAGES);
	),
	TP_printk("pool %lu index 0x%lx-0x%lx pages %u", __entry->ino,
		  __entry->first, __entry->last, __entry->nr)
);

/* Entries were taken out of all page tables. */
DEFINE_EVENT(kvm_dmm_batch, kvm_dmm_unmap,
	TP_PROTO(struct kvm_dmm_batch *batch), TP_ARGS(batch));

/* Entries were made read-only in all page tables. */
DEFINE_EVENT(kvm_dmm_batch, kvm_dmm_protect,
	TP_PROTO(struct kvm_dmm_batch *batch), TP_ARGS(batch));

/* A frame was replaced by a token of a policy. */
TRACE_EVENT(kvm_dmm_token,
	TP_PROTO(struct kvm_dmm_pool *pool, pgoff_t index, const char *policy,
		 u64 token),
	TP_ARGS(pool, index, policy, token),
	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__field(unsigned long, index)
		__field(u64, token)
		__string(policy, policy)
	),
	TP_fast_assign(
		__entry->ino = kvm_dmm_pool_ino(pool);
		__entry->index = index;
		__entry->token = token;
		__assign_str(policy);
	),
	TP_printk("pool %lu index 0x%lx policy %s token 0x%llx", __entry->ino,
		  __entry->index, __get_str(policy), __entry->token)
);

/* Policies were asked for memory; reason: enum kvm_dmm_reason. */
TRACE_EVENT(kvm_dmm_reclaim,
	TP_PROTO(struct kvm_dmm_pool *pool, int reason, unsigned long wanted,
		 unsigned long done),
	TP_ARGS(pool, reason, wanted, done),
	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__field(unsigned long, wanted)
		__field(unsigned long, done)
		__field(int, reason)
	),
	TP_fast_assign(
		__entry->ino = kvm_dmm_pool_ino(pool);
		__entry->wanted = wanted;
		__entry->done = done;
		__entry->reason = reason;
	),
	TP_printk("pool %lu reason %d wanted %lu done %lu", __entry->ino,
		  __entry->reason, __entry->wanted, __entry->done)
);

DECLARE_EVENT_CLASS(kvm_dmm_policy,
	TP_PROTO(struct kvm_dmm_pool *pool, const char *policy),
	TP_ARGS(pool, policy),
	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__string(policy, policy)
	),
	TP_fast_assign(
		__entry->ino = kvm_dmm_pool_ino(pool);
		__assign_str(policy);
	),
	TP_printk("pool %lu policy %s", __entry->ino, __get_str(policy))
);

DEFINE_EVENT(kvm_dmm_policy, kvm_dmm_attach,
	TP_PROTO(struct kvm_dmm_pool *pool, const char *policy),
	TP_ARGS(pool, policy));

DEFINE_EVENT(kvm_dmm_policy, kvm_dmm_detach,
	TP_PROTO(struct kvm_dmm_pool *pool, const char *policy),
	TP_ARGS(pool, policy));

#endif /* _TRACE_KVM_DMM_H */

#include <trace/define_trace.h>
