// SALIENT_CLONES in front of a function builds it for several instruction sets; the best one is chosen when the program starts. The
// same operations in the same order in each: no fused multiply-add, so that results do not depend on the processor.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SALIENT_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SALIENT_CLONES
#endif
