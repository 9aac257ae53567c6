#pragma once

// Target attributes of the instruction-set levels. Only functions carry them, never a whole file
// (an inline function of a header, built so, may be the copy the linker keeps). Lambdas inside a
// marked function need the attribute too.
#define MOESAIC_AVX2 [[gnu::target("avx2,fma,f16c")]]
#define MOESAIC_AVX512 \
  [[gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]]
#define MOESAIC_AVX512BF16 \
  [[gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]]
// The same for what has to be inlined.
#define MOESAIC_AVX2_INLINE MOESAIC_AVX2 [[gnu::always_inline]] inline
#define MOESAIC_AVX512_INLINE MOESAIC_AVX512 [[gnu::always_inline]] inline
#define MOESAIC_AVX512BF16_INLINE MOESAIC_AVX512BF16 [[gnu::always_inline]] inline
// The same for a lambda, where the attribute has to stand behind the parameters.
#define MOESAIC_AVX2_LAMBDA __attribute__((target("avx2,fma,f16c"), always_inline))
#define MOESAIC_AVX512_LAMBDA                                                           \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c"), \
                 always_inline))
