// The block formats of ggml (the tensor types of GGUF files): bytes of one row of weights, and back.
//
// A row is a sequence of blocks, each of a fixed number of elements. half = IEEE float16, all numbers little-endian; a nibble is
// half a byte.
//
//   Q4_0, 32 elements   half d; u8 qs[16]                            w = d * (q - 8)
//   Q4_1, 32            half d; half m; u8 qs[16]                    w = d * q + m
//   Q5_0, 32            half d; u8 qh[4]; u8 qs[16]                  w = d * (q - 16)
//   Q5_1, 32            half d; half m; u8 qh[4]; u8 qs[16]          w = d * q + m
//     byte j of qs holds the low four bits of element j in its low nibble, those of element j + 16 in its high one; bit j of qh,
//     read as u32, is the fifth bit of element j
//   Q8_0, 32            half d; i8 q[32]                             w = d * q
//   Q4_K, 256           half d; half dmin; u8 scales[12]; u8 qs[128]              w = d * scale_s * q - dmin * min_s, s = element /
//   32 Q5_K, 256           half d; half dmin; u8 scales[12]; u8 qh[32]; u8 qs[128]   the same
//     scales holds eight pairs of 6-bit numbers: bytes 0-3 scale_0..3 in their low six bits and the upper two bits of scale_4..7
//     above them, bytes 4-7 the same of min_0..7, bytes 8-11 the low nibbles of scale_4..7 (low) and of min_4..7 (high). Byte 32 c
//     + l of qs holds the low four bits of elements 64 c + l (low nibble) and 64 c + 32 + l; bits 2 c and 2 c + 1 of qh[l] the
//     fifth.
//   Q6_K, 256           u8 ql[128]; u8 qh[64]; i8 scales[16]; half d              w = d * scale_s * (q - 32), s = element / 16
//     in each half h of 128 elements, byte 64 h + l of ql holds the low four bits of elements l (low nibble) and l + 64, byte 64 h
//     + 32 + l those of l + 32 and l + 96; byte 32 h + l of qh holds the upper two bits of elements l, l + 32, l + 64, l + 96, from
//     its lowest bits on
//
// Example: -8, -7, ..., 7, then sixteen zeros as Q4_0: the largest magnitude is -8, d = -8 / -8 = 1 = 00 3C, the codes 0 .. 15 and
// sixteen times 8:  00 3C 80 81 82 83 84 85 86 87 88 89 8A 8B 8C 8D 8E 8F
//
// The quantizers give the bytes of ggml's reference quantizers (quantize_row_*_ref without importance, ggml_quantize_chunk with),
// compiled without fused multiply-adds as in llama.cpp's x86-64 builds. https://github.com/ggml-org/llama.cpp,
// ggml/src/ggml-quants.c
#pragma once

#include <cstdint>

namespace salient::quant {

// x: float32 [n], finite, n a multiple of the block; importance: float32 [n], not negative, or null: what an error in that column
// weighs (the mean square of the input channel). Only ratios within a block matter. Q8_0 has no use for it. blocks: room for the
// whole row.
using QuantizeGgmlRow = void (*)(const float* x, const float* importance, int64_t n, uint8_t* blocks);
using DequantizeGgmlRow = void (*)(const uint8_t* blocks, int64_t n, float* x);

// Without importance: round to nearest in the range of the block. With it, weights are importance * sqrt(mean square of the row +
// x^2) and the scale is searched.
void quantize_q4_0(const float* x, const float* importance, int64_t n, uint8_t* blocks);
void quantize_q4_1(const float* x, const float* importance, int64_t n, uint8_t* blocks);
void quantize_q5_0(const float* x, const float* importance, int64_t n, uint8_t* blocks);
void quantize_q5_1(const float* x, const float* importance, int64_t n, uint8_t* blocks);
void quantize_q8_0(const float* x, const float* importance, int64_t n, uint8_t* blocks);
void dequantize_q4_0(const uint8_t* blocks, int64_t n, float* x);
void dequantize_q4_1(const uint8_t* blocks, int64_t n, float* x);
void dequantize_q5_0(const uint8_t* blocks, int64_t n, float* x);
void dequantize_q5_1(const uint8_t* blocks, int64_t n, float* x);
void dequantize_q8_0(const uint8_t* blocks, int64_t n, float* x);

// Scales are searched with and without importance. Weights are, without, sqrt(mean square of the sub-block) + |x| (Q6_K: x^2), with
// importance, importance * sqrt(2 * mean square of the block + x^2) (Q6_K: the importance alone).
void quantize_q4_k(const float* x, const float* importance, int64_t n, uint8_t* blocks);
void quantize_q5_k(const float* x, const float* importance, int64_t n, uint8_t* blocks);
void quantize_q6_k(const float* x, const float* importance, int64_t n, uint8_t* blocks);
void dequantize_q4_k(const uint8_t* blocks, int64_t n, float* x);
void dequantize_q5_k(const uint8_t* blocks, int64_t n, float* x);
void dequantize_q6_k(const uint8_t* blocks, int64_t n, float* x);

}  // namespace salient::quant
