// The reader of the table of callers. It is written in C so that Python threads read
// without entering Go's runtime. internal/callers/table.go describes the layout and the
// memory ordering.

#include <stdint.h>
#include <string.h>

enum { header_words = 2 };

// tb_caller_read copies the answer in a slot of size bytes to out, which must have room
// for as many, and returns the answer's length. It returns -1 if the slot no longer has
// this version.
int32_t tb_caller_read(char *slot, int32_t size, uint64_t version, char *out) {
	const uint64_t *words = (const uint64_t *)slot;
	if ((version & 1) != 0 || __atomic_load_n(&words[0], __ATOMIC_ACQUIRE) != version) {
		return -1;
	}
	uint64_t length = __atomic_load_n(&words[1], __ATOMIC_ACQUIRE);
	if (length > (uint64_t)size - 8 * header_words) {
		return -1; // a write in progress: finished ones respect the limit
	}
	for (uint64_t i = 0; 8 * i < length; i++) {
		uint64_t word = __atomic_load_n(&words[header_words + i], __ATOMIC_ACQUIRE);
		memcpy(out + 8 * i, &word, sizeof word);
	}
	return __atomic_load_n(&words[0], __ATOMIC_ACQUIRE) == version ? (int32_t)length : -1;
}
