/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _DMM_UNIT_H
#define _DMM_UNIT_H

#include <stdbool.h>
#include <stdint.h>

struct unit_test {
	const char *name;
	void (*fn)(void);
	struct unit_test *next;
};

void unit_register(struct unit_test *test);
void unit_check(bool ok, const char *expr, const char *file, int line,
		uint64_t a, uint64_t b);
uint64_t unit_random(void);

#define UNIT_TEST(fn_)							\
	static void fn_(void);						\
	static struct unit_test unit_##fn_ = { .name = #fn_, .fn = fn_ }; \
	static void __attribute__((constructor)) register_##fn_(void)	\
	{								\
		unit_register(&unit_##fn_);				\
	}								\
	static void fn_(void)

#define EXPECT(e)	unit_check((e), #e, __FILE__, __LINE__, 0, 0)
#define EXPECT_EQ(x, y) do {						\
	uint64_t x__ = (uint64_t)(x), y__ = (uint64_t)(y);		\
									\
	unit_check(x__ == y__, #x " == " #y, __FILE__, __LINE__,	\
		   x__, y__);						\
} while (0)

#endif /* _DMM_UNIT_H */
